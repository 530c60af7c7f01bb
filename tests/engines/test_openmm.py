"""MLIPForce: numbers against ASE on every platform, serialization, and messages for wrong inputs."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import openmm
import pytest
from ase.build import bulk, molecule
from conftest import EXAMPLES
from openmm import app, unit
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import openmm as openmm_engine
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import MLIPForce, system_of

PLATFORMS = ["Reference", "CPU"]
# Single precision positions and forces on the CPU platform: 1e-7 of tens of Å, 1e-6 of forces of 1 eV/Å
CPU_PLATFORM = 2e-5


def rocksalt():
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0.05], [0, 1, -0.1], [0, 0, 1.02]], scale_atoms=True)
    atoms.positions += np.random.default_rng(1).normal(scale=0.12, size=atoms.positions.shape)
    return atoms


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.positions += np.random.default_rng(2).normal(scale=0.05, size=atoms.positions.shape)
    return atoms


def context_of(system, atoms, platform="Reference"):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(atoms.positions * 0.1)
    return context


def energy_of(context):
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("make", [rocksalt, ethanol])
def test_agrees_with_ase(tiny, make, platform):
    atoms = make()
    truth = ase_engine.evaluate(tiny, atoms)
    found = openmm_engine.evaluate(tiny, atoms, platform=platform)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    tolerance = FLOAT64_ROTATED if platform == "Reference" else CPU_PLATFORM
    assert found.energy == pytest.approx(truth.energy, abs=tolerance * len(atoms))
    np.testing.assert_allclose(found.forces, truth.forces, atol=tolerance)


def test_topology_gives_elements_and_periodicity(tiny):
    topology = app.Topology()
    residue = topology.addResidue("NaCl", topology.addChain())
    for symbol in ("Na", "Cl"):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    assert not MLIPForce(tiny, topology).usesPeriodicBoundaryConditions()
    topology.setUnitCellDimensions((1, 1, 1) * unit.nanometer)
    assert MLIPForce(tiny, topology).usesPeriodicBoundaryConditions()


def test_serialize_copy_clone_pickle(tiny):
    atoms = ethanol()
    system = system_of(atoms, tiny)
    force = system.getForce(0)
    force.setForceGroup(3)
    force.setName("reactive")
    energy = energy_of(context_of(system, atoms))
    for other in (
        openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system)),
        copy.deepcopy(system),
        pickle.loads(pickle.dumps(system)),
    ):
        assert other.getForce(0).getForceGroup() == 3
        assert other.getForce(0).getName() == "reactive"
        assert energy_of(context_of(other, atoms)) == pytest.approx(energy, abs=FLOAT64_SUM)


def test_two_forces_add(tiny):
    atoms = ethanol()
    system = system_of(atoms, tiny)
    energy = energy_of(context_of(system, atoms))
    system.addForce(MLIPForce(tiny, atoms.get_chemical_symbols()))
    assert energy_of(context_of(system, atoms)) == pytest.approx(2 * energy, abs=1e-8)


def test_verlet_conserves_energy(tiny):
    atoms = rocksalt()
    box, rotation = openmm_engine.reduced_box(atoms)
    atoms.positions, atoms.cell = atoms.positions @ rotation.T, box
    context = context_of(system_of(atoms, tiny), atoms)
    totals, potentials = [], []
    for _ in range(40):
        context.getIntegrator().step(1)
        state = context.getState(energy=True)
        potentials.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        totals.append(potentials[-1] + state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole))
    assert np.ptp(potentials) > 5.0
    assert np.ptp(totals) < 0.02 * np.ptp(potentials)


def test_python_lock_held_by_the_caller(tiny):
    """Context creation and getState keep Python's lock in some OpenMM calls; torch's autograd refuses it."""
    atoms = rocksalt()
    box, rotation = openmm_engine.reduced_box(atoms)
    atoms.positions, atoms.cell = atoms.positions @ rotation.T, box
    system = system_of(atoms, tiny)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0)
    system.addForce(barostat)
    context = context_of(system, atoms)
    context.setVelocitiesToTemperature(300.0)
    pressure = barostat.computeCurrentPressure(context)
    assert np.isfinite(pressure.value_in_unit(unit.bar))


def missing_file(tiny):
    MLIPForce("nothing.mlip.pt", ["H"])


def checkpoint(tiny):
    MLIPForce(tiny.parent / "tiny.pth", ["H"])


def unknown_element(tiny):
    MLIPForce(tiny, ["H", "Xe"])


def atom_without_element(tiny):
    topology = app.Topology()
    topology.addAtom("M", None, topology.addResidue("M", topology.addChain()))
    MLIPForce(tiny, topology)


def other_atom_count(tiny):
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(MLIPForce(tiny, ["H", "H"]))
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def removed_file(tiny):
    copied = tiny.parent / "removed.mlip.pt"
    copied.write_bytes(tiny.read_bytes())
    system = system_of(ethanol(), copied)
    copied.unlink()
    context_of(system, ethanol())


def nan_positions(tiny):
    atoms = ethanol()
    context = context_of(system_of(atoms, tiny), atoms)
    atoms.positions[4, 1] = np.nan
    context.setPositions(atoms.positions * 0.1)
    energy_of(context)


def mixed_periodicity(tiny):
    atoms = rocksalt()
    atoms.pbc = (True, True, False)
    system_of(atoms, tiny)


def unknown_device(tiny):
    context_of(system_of(ethanol(), tiny, device="tpu"), ethanol())


NEGATIVE = [
    (missing_file, "no such file. Write one with: mlip export"),
    (checkpoint, "is a PyTorch checkpoint, not an exported model. Export it first: mlip export"),
    (unknown_element, r"atom 1 \(counted from 0\) is 'Xe', not an element of tiny .*see: mlip info"),
    (atom_without_element, r"atom 0 \('M'\) of the topology has no element"),
    (other_atom_count, "names the elements of 2 atoms, the System has 1 particles"),
    (removed_file, "MLIPForce: .*no such file"),
    (nan_positions, r"position of atom 4 \(counted from 0\) is not finite|Particle coordinate is NaN"),
    (mixed_periodicity, "periodic in all directions or in none"),
    (unknown_device, "'tpu' is not one of cpu, cuda"),
]


@pytest.mark.parametrize(("cause", "message"), NEGATIVE, ids=[cause.__name__ for cause, _ in NEGATIVE])
def test_negative_control(cause, message, tiny, artifacts):
    artifacts.checkpoint()
    with pytest.raises((MLIPError, openmm.OpenMMException), match=message):
        cause(tiny)


def test_example(artifacts, tmp_path):
    script = EXAMPLES / "openmm" / "silicon_nve.py"
    command = [sys.executable, str(script), "--model", str(artifacts.sevennet_0("float32")), "--steps", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = np.loadtxt(tmp_path / "silicon_nve_openmm.csv", delimiter=",", skiprows=1)
    assert record.shape == (3, 3)
    assert np.ptp(record[:, 1]) / 64 / 96.5 < 1e-4
