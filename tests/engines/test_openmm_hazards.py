"""What takes other OpenMM plugins down: Python's lock, worker threads, many Contexts, changing boxes, NaN."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit
from openmm_cases import context_for, context_of, energy_of, ethanol, forces_of, need_platform, rocksalt
from pair_potential import crystal
from tolerances import FLOAT64_SUM

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.openmm import MLIPForce, system_of

KJ_PER_EV = 96.4853321
PLATFORMS = ["Reference", "CPU", "OpenCL"]


@pytest.fixture(params=PLATFORMS)
def platform(request):
    need_platform(request.param)
    return request.param


def test_python_lock_held_by_the_caller(tiny, platform):
    """OpenMM keeps Python's lock in computeCurrentPressure; torch's autograd refuses to run under it."""
    atoms = rocksalt()
    system = system_of(atoms, tiny)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0)
    system.addForce(barostat)
    context = context_of(system, atoms, platform)
    context.setVelocitiesToTemperature(300.0)
    pressure = barostat.computeCurrentPressure(context)
    assert np.isfinite(pressure.value_in_unit(unit.bar))


@pytest.mark.parametrize("coordinate", [np.nan, np.inf])
def test_openmm_words_for_nan_survive(tiny, platform, coordinate):
    """Scripts catch 'Particle coordinate is NaN'."""
    atoms = ethanol()
    context = context_for(tiny, atoms, platform)
    good = energy_of(context)
    broken = atoms.positions.copy()
    broken[4, 1] = coordinate
    context.setPositions(broken * 0.1)
    with pytest.raises(openmm.OpenMMException, match="Particle coordinate is NaN"):
        context.getState(energy=True, forces=True)
    context.setPositions(atoms.positions * 0.1)
    assert energy_of(context) == pytest.approx(good, rel=1e-6)


def test_an_error_inside_the_model_reaches_python(tiny, platform):
    """Two atoms on one spot: the failure comes from the core, on the CPU platform from a worker thread."""
    atoms = ethanol()
    context = context_for(tiny, atoms, platform)
    atoms.positions[1] = atoms.positions[0]
    context.setPositions(atoms.positions * 0.1)
    with pytest.raises(openmm.OpenMMException, match=r"MLIPForce: .*energy is not finite.*minimise it"):
        context.getState(energy=True, forces=True)


def test_the_box_may_change(tiny, platform):
    """A stretched box is used at once, as after a barostat's move."""
    atoms = rocksalt()
    context = context_for(tiny, atoms, platform)
    energy_of(context)
    atoms.set_cell(atoms.cell.array * 1.07, scale_atoms=True)
    context.setPeriodicBoxVectors(*(atoms.cell.array * 0.1))
    context.setPositions(atoms.positions * 0.1)
    truth = ase_engine.evaluate(tiny, atoms).energy
    assert energy_of(context) / KJ_PER_EV == pytest.approx(truth, rel=1e-6)


def test_a_barostat_runs(pair_potential, platform):
    """Integration with moves of the box, on every platform; the last energy is that of the last box."""
    atoms = crystal(2)
    system = system_of(atoms, pair_potential)
    barostat = openmm.MonteCarloBarostat(50_000.0, 300.0, 2)
    barostat.setRandomNumberSeed(2)
    system.addForce(barostat)
    context = context_of(system, atoms, platform, openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.002))
    context.setVelocitiesToTemperature(300.0, 2)
    context.getIntegrator().step(40)
    state = context.getState(energy=True, positions=True)
    cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
    assert abs(cell[0, 0] - atoms.cell[0, 0]) > 1e-3
    atoms.set_cell(cell)
    atoms.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    truth = ase_engine.evaluate(pair_potential, atoms).energy
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / KJ_PER_EV
    assert energy == pytest.approx(truth, rel=1e-5)


def test_several_forces_in_one_system(tiny, artifacts):
    """Two regions and a second model of another type, each in its own force group."""
    first, second = ethanol(), ethanol()
    second.positions += [30.0, 0.0, 0.0]
    both = first + second
    n = len(first)
    system = openmm.System()
    for mass in both.get_masses():
        system.addParticle(mass)
    symbols = both.get_chemical_symbols()
    forces = [
        MLIPForce(tiny, symbols, atoms=range(n)),
        MLIPForce(tiny, symbols, atoms=range(n, 2 * n)),
        MLIPForce(artifacts.tiny("float32"), symbols, atoms=range(n)),
    ]
    for group, force in enumerate(forces):
        force.setForceGroup(group)
        system.addForce(force)
    context = context_of(system, both)
    truth = ase_engine.evaluate(tiny, first)
    energies = [energy_of(context, groups={group}) / KJ_PER_EV for group in range(3)]
    assert energies[0] == pytest.approx(truth.energy, abs=1e-6)
    assert energies[1] == pytest.approx(truth.energy, abs=1e-6)
    assert energies[2] == pytest.approx(truth.energy, abs=1e-3)
    assert energies[2] != energies[0]
    assert energy_of(context) / KJ_PER_EV == pytest.approx(sum(energies), abs=1e-8)
    total = forces_of(context) / KJ_PER_EV / 10
    np.testing.assert_allclose(total[n:], truth.forces, atol=1e-6)
    np.testing.assert_allclose(total[:n], 2 * truth.forces, atol=1e-3)


def test_several_contexts_at_once(tiny):
    """Each on a thread of its own, at different positions, interleaved step by step."""
    rng = np.random.default_rng(8)
    structures = []
    for _ in range(4):
        atoms = rocksalt()
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    truths = [ase_engine.evaluate(tiny, atoms).energy for atoms in structures]
    assert np.ptp(truths) > 0.1
    contexts = [context_for(tiny, atoms) for atoms in structures]
    start = threading.Barrier(len(contexts))

    def energies(context):
        start.wait()
        return [energy_of(context) / KJ_PER_EV for _ in range(5)]

    with ThreadPoolExecutor(len(contexts)) as pool:
        for truth, found in zip(truths, pool.map(energies, contexts), strict=True):
            np.testing.assert_allclose(found, truth, rtol=1e-8)


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def test_contexts_leave_nothing_behind(pair_potential):
    """Each made, used and dropped, as a campaign over thousands of ligands does; memory then stands still."""
    atoms = crystal(1)
    system = system_of(atoms, pair_potential)

    def create(count):
        for _ in range(count):
            energy_of(context_of(system, atoms))

    create(200)
    before = resident_megabytes()
    create(1200)
    # a leaked model takes 0.1 MB, a leaked file mapping 0.01
    assert resident_megabytes() - before < 10


def test_reinitialize(tiny):
    atoms = ethanol()
    context = context_for(tiny, atoms)
    energy = energy_of(context)
    context.reinitialize(preserveState=True)
    assert energy_of(context) == pytest.approx(energy, abs=FLOAT64_SUM)
