"""MLIPForce: numbers against ASE on every platform, its life as an OpenMM object, and messages for wrong inputs."""

import copy
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import bulk
from conftest import EXAMPLES
from openmm import app, unit
from openmm_cases import context_for, context_of, energy_of, ethanol, forces_of, need_platform, rocksalt
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import openmm as openmm_engine
from mlip_deploy.engines.openmm_box import reduced_box
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import MLIPForce, system_of

KJ_PER_EV = 96.48533212331002


class Platform(NamedTuple):
    """An OpenMM platform and what its arithmetic costs: eV of a total energy, eV/Å of a force component.

    Positions reach the model in float64, from pairs of float32 in mixed precision; forces are added in float64 or in
    fixed point of 2e-10 kJ/mol/nm. Single precision rounds a coordinate of 60 Å to 4e-6 Å.
    """

    name: str
    properties: dict
    energy: float
    force: float

    @property
    def label(self):
        return "-".join([self.name, *self.properties.values()])

    def context(self, system, atoms, **options):
        need_platform(self.name)
        return context_of(system, atoms, self.name, **self.properties, **options)


PLATFORMS = [
    Platform("Reference", {}, FLOAT64_ROTATED, FLOAT64_ROTATED),
    Platform("CPU", {}, FLOAT64_ROTATED, FLOAT64_ROTATED),
    Platform("OpenCL", {"Precision": "double"}, FLOAT64_ROTATED, FLOAT64_ROTATED),
    Platform("OpenCL", {"Precision": "mixed"}, FLOAT64_ROTATED, FLOAT64_ROTATED),
    Platform("OpenCL", {"Precision": "single"}, 1e-3, 1e-3),
]
each_platform = pytest.mark.parametrize("platform", PLATFORMS, ids=[platform.label for platform in PLATFORMS])


@each_platform
@pytest.mark.parametrize("make", [rocksalt, ethanol])
def test_agrees_with_ase_far_from_the_origin(tiny, make, platform):
    atoms = make()
    truth = ase_engine.evaluate(tiny, atoms)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    atoms.positions += [17.3, -31.1, 55.7]
    context = platform.context(system_of(atoms, tiny), atoms)
    assert energy_of(context) / KJ_PER_EV == pytest.approx(truth.energy, abs=platform.energy + 1e-9 * abs(truth.energy))
    np.testing.assert_allclose(forces_of(context) / KJ_PER_EV / 10, truth.forces, atol=platform.force)


@each_platform
def test_atom_subset(tiny, platform):
    """Particles outside the subset, an unsupported one among them, feel and change nothing."""
    atoms = ethanol()
    truth = ase_engine.evaluate(tiny, atoms)
    order = np.random.default_rng(4).permutation(len(atoms))
    system = openmm.System()
    places = 2 * np.arange(len(atoms)) + 1
    symbols = ["Xe"] * (2 * len(atoms) + 1)
    positions = np.full((len(symbols), 3), 0.3) * np.arange(len(symbols))[:, None]
    for place, k in zip(places, order, strict=True):
        symbols[place] = atoms.symbols[k]
        positions[place] = atoms.positions[k]
    for _ in symbols:
        system.addParticle(1.0)
    system.addForce(MLIPForce(tiny, symbols, atoms=reversed(places)))
    everything = Atoms(symbols, positions=positions)
    context = platform.context(system, everything)
    assert energy_of(context) / KJ_PER_EV == pytest.approx(truth.energy, abs=platform.energy + 1e-9 * abs(truth.energy))
    forces = forces_of(context) / KJ_PER_EV / 10
    np.testing.assert_allclose(forces[places], truth.forces[order], atol=platform.force)
    np.testing.assert_array_equal(np.delete(forces, places, axis=0), 0.0)


@each_platform
def test_periodic_or_not_is_a_choice(tiny, platform):
    atoms = rocksalt()
    cluster = atoms.copy()
    cluster.pbc = False
    truth = ase_engine.evaluate(tiny, cluster)
    assert abs(truth.energy - ase_engine.evaluate(tiny, atoms).energy) > 1.0
    system = system_of(atoms, tiny)
    system.removeForce(0)
    system.addForce(MLIPForce(tiny, atoms.get_chemical_symbols(), periodic=False))
    context = platform.context(system, atoms)
    assert energy_of(context) / KJ_PER_EV == pytest.approx(truth.energy, abs=platform.energy + 1e-9 * abs(truth.energy))


@each_platform
def test_box_much_smaller_than_the_cutoff(tiny, platform):
    """2.5 Å against 4 Å: several images of every neighbour, the atom itself among them.

    Two atoms, since OpenMM's OpenCL platform crashes on pocl with one particle, whatever its forces.
    """
    atoms = bulk("Si", "bcc", a=2.9).repeat((1, 1, 2))
    atoms.positions[1] += [0.2, -0.1, 0.15]
    box, rotation = reduced_box(atoms)
    atoms.positions, atoms.cell = atoms.positions @ rotation.T, box
    truth = ase_engine.evaluate(tiny, atoms)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    context = platform.context(system_of(atoms, tiny), atoms)
    assert energy_of(context) / KJ_PER_EV == pytest.approx(truth.energy, abs=platform.energy + 1e-9 * abs(truth.energy))
    np.testing.assert_allclose(forces_of(context) / KJ_PER_EV / 10, truth.forces, atol=platform.force)


def test_energy_alone_is_the_same_energy(tiny):
    """The path without a backward pass, which leapfrog integrators do not take."""
    context = context_for(tiny, rocksalt(), integrator=openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    with_forces = context.getState(energy=True, forces=True).getPotentialEnergy()
    assert context.getState(energy=True).getPotentialEnergy() == with_forces


def test_topology_gives_elements_and_periodicity(tiny):
    topology = app.Topology()
    residue = topology.addResidue("NaCl", topology.addChain())
    for symbol in ("Na", "Cl"):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.addAtom("M", None, residue)
    assert not MLIPForce(tiny, topology, atoms=[0, 1]).usesPeriodicBoundaryConditions()
    topology.setUnitCellDimensions((1, 1, 1) * unit.nanometer)
    force = MLIPForce(tiny, topology, atoms=[1, 0])
    assert force.usesPeriodicBoundaryConditions()
    assert (force.elements, force.atoms) == (["Cl", "Na"], [1, 0])


def test_engine_turns_any_cell(tiny):
    """`mlip check` hands over cells as they are: left-handed, turned, not reduced."""
    atoms = rocksalt()
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    atoms.set_cell(atoms.cell.array[[1, 0, 2]] + [[0], [0], [1]] * atoms.cell.array[0])
    truth = ase_engine.evaluate(tiny, atoms)
    found = openmm_engine.evaluate(tiny, atoms)
    assert found.energy == pytest.approx(truth.energy, abs=FLOAT64_ROTATED)
    np.testing.assert_allclose(found.forces, truth.forces, atol=FLOAT64_ROTATED)


# ---- an OpenMM object like any other ------------------------------------------------------------------------


def duplicates(item):
    return (
        openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(item)),
        openmm.XmlSerializer.clone(item),
        copy.copy(item),
        copy.deepcopy(item),
        pickle.loads(pickle.dumps(item)),
    )


@pytest.mark.parametrize("embed", [False, True])
def test_duplicates_of_a_system(tiny, embed):
    atoms = ethanol()
    system = system_of(atoms, tiny, embed=embed)
    force = system.getForce(0)
    force.setForceGroup(3)
    force.setName("reactive")
    energy = energy_of(context_of(system, atoms))
    for other in duplicates(system):
        kept = MLIPForce.cast(other.getForce(0))
        assert (kept.getForceGroup(), kept.getName(), kept.embedded) == (3, "reactive", embed)
        assert kept.sha256 == hashlib.sha256(tiny.read_bytes()).hexdigest()
        assert energy_of(context_of(other, atoms)) == energy


def test_duplicates_of_a_force(tiny):
    force = MLIPForce(tiny, ["H", "Xe", "O"], atoms=[2, 0], periodic=True, threads=1)
    for other in (force, *duplicates(force)):
        kept = MLIPForce.cast(other)
        assert (kept.elements, kept.atoms, kept.path) == (["O", "H"], [2, 0], str(tiny))
        assert (kept.threads, kept.device, kept.embedded) == (1, "cpu", False)
        assert kept.usesPeriodicBoundaryConditions()
    assert type(copy.deepcopy(force)) is MLIPForce


def test_an_embedded_artifact_needs_no_file(tiny, tmp_path):
    atoms = ethanol()
    energy = energy_of(context_for(tiny, atoms))
    path = shutil.copy(tiny, tmp_path / "gone.mlip.pt")
    system = system_of(atoms, path, embed=True)
    path.unlink()
    text = openmm.XmlSerializer.serialize(system)
    assert energy_of(context_of(openmm.XmlSerializer.deserialize(text), atoms)) == energy
    middle = text.index("base64=") + len(tiny.read_bytes()) // 2
    damaged = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]
    with pytest.raises(openmm.OpenMMException, match=r"embedded artifact is damaged: its SHA-256 is \w{64}, expected"):
        openmm.XmlSerializer.deserialize(damaged)


def test_a_changed_file_is_refused_with_both_hashes(pair_potential, tiny, tmp_path):
    path = shutil.copy(tiny, tmp_path / "model.mlip.pt")
    system = system_of(ethanol(), path)
    shutil.copy(pair_potential, path)
    old, new = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (tiny, path))
    with pytest.raises(openmm.OpenMMException, match=f"its SHA-256 is {new}, expected {old}"):
        context_of(system, ethanol())


def test_an_artifact_that_moved_with_its_xml(tiny, tmp_path, monkeypatch):
    atoms = ethanol()
    (tmp_path / "old").mkdir()
    path = shutil.copy(tiny, tmp_path / "old" / "model.mlip.pt")
    system = system_of(atoms, path)
    path.rename(tmp_path / "model.mlip.pt")
    monkeypatch.chdir(tmp_path)
    assert energy_of(context_of(system, atoms)) == energy_of(context_for(tiny, atoms))


def test_cast(tiny):
    system = system_of(ethanol(), tiny)
    system.addForce(openmm.CMMotionRemover())
    plain, other = system.getForces()
    assert type(plain) is openmm.Force
    assert MLIPForce.is_mlip_force(plain)
    assert MLIPForce.cast(plain).elements == ethanol().get_chemical_symbols()
    assert MLIPForce.cast(system.getForce(0)).path == str(tiny)
    with pytest.raises(MLIPError, match="is a CMMotionRemover, not an MLIPForce"):
        MLIPForce.cast(other)


@each_platform
def test_inside_a_custom_cv_force(tiny, platform):
    """As alchemical interpolation and biases use it: E = λ² E_ML, forces by the chain rule."""
    atoms = ethanol()
    plain = context_for(tiny, atoms)
    system = system_of(atoms, tiny)
    system.removeForce(0)
    biased = openmm.CustomCVForce("scale^2*ml")
    biased.addGlobalParameter("scale", 1.5)
    biased.addCollectiveVariable("ml", MLIPForce(tiny, atoms.get_chemical_symbols()))
    system.addForce(biased)
    context = platform.context(system, atoms)
    tolerance = 1e-9 if platform.properties.get("Precision", "double") == "double" else 1e-6
    assert energy_of(context) == pytest.approx(2.25 * energy_of(plain), rel=tolerance)
    forces = forces_of(plain)
    np.testing.assert_allclose(forces_of(context), 2.25 * forces, atol=10 * tolerance * np.abs(forces).max())
    context.setParameter("scale", 0.0)
    assert energy_of(context) == 0.0


def test_force_groups_are_evaluated_apart(tiny):
    atoms = ethanol()
    system = system_of(atoms, tiny)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.12, 1000.0)
    bond.setForceGroup(1)
    system.addForce(bond)
    context = context_of(system, atoms)
    model, spring = energy_of(context, groups={0}), energy_of(context, groups={1})
    assert spring > 0.1
    assert model == pytest.approx(energy_of(context_for(tiny, atoms)), abs=FLOAT64_SUM)
    assert energy_of(context) == pytest.approx(model + spring, abs=1e-8)


# ---- wrong inputs -------------------------------------------------------------------------------------------


def missing_file(tiny):
    MLIPForce("nothing.mlip.pt", ["H"])


def checkpoint(tiny):
    MLIPForce(tiny.parent / "tiny.pth", ["H"])


def unknown_element(tiny):
    MLIPForce(tiny, ["H", "Xe"])


def unknown_element_in_subset(tiny):
    MLIPForce(tiny, ["Xe", "H", "Xe"], atoms=[1, 2])


def atom_without_element(tiny):
    topology = app.Topology()
    topology.addAtom("M", None, topology.addResidue("M", topology.addChain()))
    MLIPForce(tiny, topology)


def atom_outside(tiny):
    MLIPForce(tiny, ["H", "H"], atoms=[0, 2])


def atom_twice(tiny):
    MLIPForce(tiny, ["H", "H"], atoms=[1, 1])


def no_atom(tiny):
    MLIPForce(tiny, ["H", "H"], atoms=[])


def other_atom_count(tiny):
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(MLIPForce(tiny, ["H", "H"], atoms=[0]))
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def removed_file(tiny):
    copied = tiny.parent / "removed.mlip.pt"
    copied.write_bytes(tiny.read_bytes())
    system = system_of(ethanol(), copied)
    copied.unlink()
    context_of(system, ethanol())


def mixed_periodicity(tiny):
    atoms = rocksalt()
    atoms.pbc = (True, True, False)
    system_of(atoms, tiny)


def unknown_device(tiny):
    context_for(tiny, ethanol(), device="tpu")


def unknown_precision(tiny):
    MLIPForce(tiny, ["H"], precision="half")


def tf32_on_a_cpu(tiny):
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(MLIPForce(tiny, ["H"], precision="tf32"))
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def newer_xml(tiny):
    text = openmm.XmlSerializer.serialize(MLIPForce(tiny, ["H"]))
    openmm.XmlSerializer.deserialize(text.replace('version="1"', 'version="3"'))


NEGATIVE = [
    (missing_file, "no such file. Write one with: mlip export"),
    (checkpoint, "is a PyTorch checkpoint, not an exported model. Export it first: mlip export"),
    (unknown_element, r"atom 1 \(counted from 0\) is 'Xe', not an element of tiny .*see: mlip info"),
    (unknown_element_in_subset, r"atom 2 \(counted from 0\) is 'Xe', not an element of tiny"),
    (atom_without_element, r"atom 0 \(counted from 0\) of the topology has no element. Give it one"),
    (atom_outside, r"2 is not one of the topology's 2 atoms"),
    (atom_twice, "1 is named twice"),
    (no_atom, r"atoms=\[\] selects no atom"),
    (other_atom_count, "was made for 2 particles, the System has 1. Make the force from the System's own topology"),
    (removed_file, "MLIPForce: .*no such file"),
    (mixed_periodicity, "periodic in all directions or in none"),
    (unknown_device, "'tpu' is not one of cpu, cuda"),
    (unknown_precision, "precision: 'half' is not one of full, tf32"),
    (tf32_on_a_cpu, "precision: 'tf32' is for a GPU, and the model runs on the CPU"),
    (newer_xml, "XML version is 3, this build reads up to 2"),
]


@pytest.mark.parametrize(("cause", "message"), NEGATIVE, ids=[cause.__name__ for cause, _ in NEGATIVE])
def test_negative_control(cause, message, tiny, artifacts):
    artifacts.checkpoint()
    with pytest.raises((MLIPError, openmm.OpenMMException), match=message):
        cause(tiny)


def run_example(name, folder, *arguments):
    command = [sys.executable, str(EXAMPLES / "openmm" / name), *map(str, arguments)]
    # OpenMM would choose pocl where it is installed; its minimiser crashes there without any force of ours.
    environment = {**os.environ, "OPENMM_DEFAULT_PLATFORM": "CPU"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_example_of_silicon(artifacts, tmp_path):
    run_example("silicon_nve.py", tmp_path, "--model", artifacts.sevennet_0("float32"), "--steps", 3)
    record = np.loadtxt(tmp_path / "silicon_nve_openmm.csv", delimiter=",", skiprows=1)
    assert record.shape == (3, 3)
    assert np.ptp(record[:, 1]) / 64 / KJ_PER_EV < 1e-4


def test_example_of_a_water_box(tiny, tmp_path):
    """Long enough for two moves of the barostat."""
    run_example(
        "water_box_npt.py",
        tmp_path,
        "--model",
        tiny,
        "--molecules",
        32,
        "--steps",
        50,
        "--threads",
        1,
        "--device",
        "cpu",
    )
    record = np.genfromtxt(tmp_path / "water_box_npt.csv", delimiter=",", skip_header=1)
    assert record.shape == (50, 5)
    assert np.isfinite(record[:, 1:4]).all()
    assert (tmp_path / "water_box_npt.chk").stat().st_size > 0


def test_example_of_mixed_systems(tiny, tmp_path):
    pytest.importorskip("openmmml", reason="openmm-ml is not installed. Type: pip install openmmml")
    printed = run_example("solvated_methanol.py", tmp_path, "--model", tiny, "--steps", 10, "--platform", "CPU")
    assert "6 atoms with the model" in printed
    assert (tmp_path / "solvated_methanol.dcd").stat().st_size > 10000
