"""OpenMM's integrators, barostats and minimizer over MLIPForce: drift, temperature, volume against LAMMPS, restart.

Most of it runs on the Morse crystal (tests/pair_potential.py), a stable solid that costs a millisecond a step.
"""

import numpy as np
import openmm
import pytest
from ase.build import molecule
from openmm import unit
from openmm_cases import context_for, context_of, energy_of, forces_of, rocksalt
from pair_potential import crystal

from mlip_deploy.engines import lammps, lammps_files
from mlip_deploy.openmm import MLIPForce, system_of

KJ_PER_EV = 96.4853321
TEMPERATURE = 300.0  # K
PRESSURE = 50_000.0  # bar: it takes off 3 % of the volume, thirty times the error of the averages
PS_PER_STEP = 0.004


def total_energy(context):
    """eV"""
    state = context.getState(energy=True)
    total = state.getPotentialEnergy() + state.getKineticEnergy()
    return total.value_in_unit(unit.kilojoule_per_mole) / KJ_PER_EV


def drift(context, samples, steps_per_sample, ps_per_step):
    """Slope of the total energy, eV/ps, and the spread of the potential energy, eV."""
    totals, potentials = [], []
    for _ in range(samples):
        context.getIntegrator().step(steps_per_sample)
        totals.append(total_energy(context))
        potentials.append(energy_of(context) / KJ_PER_EV)
    times = np.arange(samples) * steps_per_sample * ps_per_step
    return np.polyfit(times, totals, 1)[0], np.ptp(potentials)


def test_constant_energy_of_a_crystal(pair_potential):
    """20 ps."""
    atoms = crystal(2)
    context = context_for(pair_potential, atoms, integrator=openmm.VerletIntegrator(0.002))
    context.setVelocitiesToTemperature(2 * TEMPERATURE, 1)
    slope, spread = drift(context, 400, 25, 0.002)
    assert spread > 0.1
    assert abs(slope) / len(atoms) < 1e-5


def test_constant_energy_of_a_message_passing_model(tiny):
    """0.2 ps with small steps: the random weights make a rough surface, whose own time scale is short."""
    atoms = rocksalt()
    context = context_for(tiny, atoms, integrator=openmm.VerletIntegrator(0.0005))
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(100.0, 2)
    slope, spread = drift(context, 80, 5, 0.0005)
    assert spread > 0.01
    assert abs(slope) / len(atoms) < 1e-5


def test_langevin_temperature(pair_potential):
    """The mean kinetic temperature of 32 atoms within four standard errors of the bath's."""
    atoms = crystal(2)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, PS_PER_STEP)
    integrator.setRandomNumberSeed(3)
    context = context_for(pair_potential, atoms, integrator=integrator)
    context.setVelocitiesToTemperature(TEMPERATURE, 3)
    integrator.step(250)
    temperatures = []
    for _ in range(100):
        integrator.step(50)
        kinetic = context.getState(energy=True).getKineticEnergy()
        temperatures.append(2 * kinetic / (3 * len(atoms) * unit.MOLAR_GAS_CONSTANT_R) / unit.kelvin)
    error = TEMPERATURE * np.sqrt(2 / (3 * len(atoms))) / np.sqrt(len(temperatures))
    assert np.mean(temperatures) == pytest.approx(TEMPERATURE, abs=4 * error)


# ---- constant pressure --------------------------------------------------------------------------------------


def mean_and_error(values, blocks=8):
    """Mean and its standard error, from the scatter of block averages."""
    means = np.array([block.mean() for block in np.array_split(np.asarray(values), blocks)])
    return means.mean(), means.std(ddof=1) / np.sqrt(blocks)


NPT = f"""\
units           metal
boundary        p p p
read_data       data.lammps
pair_style      mlip
pair_coeff      * * "{{path}}" Cu
timestep        {PS_PER_STEP}
velocity        all create {2 * TEMPERATURE} 4
fix             npt all npt temp {TEMPERATURE} {TEMPERATURE} 0.1 iso {PRESSURE} {PRESSURE} 0.5
run             1500
variable        volume equal vol
fix             record all print 5 "${{{{volume}}}}" file volume.txt screen no
run             12000
"""


@pytest.fixture(scope="module")
def lammps_volume(pair_potential, tmp_path_factory):
    """Average volume and its error in Å³ from LAMMPS's fix npt with the same file."""
    directory = tmp_path_factory.mktemp("npt")
    lammps_files.write_data(crystal(2), directory / "data.lammps")
    lammps.run(NPT.format(path=pair_potential), directory)
    return mean_and_error(np.loadtxt(directory / "volume.txt"))


@pytest.fixture(scope="module")
def volume_without_pressure():
    return crystal(2).get_volume()


BAROSTATS = {
    "isotropic": lambda: openmm.MonteCarloBarostat(PRESSURE, TEMPERATURE, 10),
    "anisotropic": lambda: openmm.MonteCarloAnisotropicBarostat(
        openmm.Vec3(PRESSURE, PRESSURE, PRESSURE), TEMPERATURE, True, True, True, 5
    ),
    "flexible": lambda: openmm.MonteCarloFlexibleBarostat(PRESSURE, TEMPERATURE, 5),
}


@pytest.mark.parametrize("kind", BAROSTATS)
def test_volume_agrees_with_lammps(kind, pair_potential, lammps_volume, volume_without_pressure):
    system = system_of(crystal(2), pair_potential)
    barostat = BAROSTATS[kind]()
    barostat.setRandomNumberSeed(5)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, PS_PER_STEP)
    integrator.setRandomNumberSeed(5)
    context = context_of(system, crystal(2), integrator=integrator)
    context.setVelocitiesToTemperature(TEMPERATURE, 5)
    integrator.step(1000)
    volumes, boxes = [], []
    for _ in range(700):
        integrator.step(10)
        state = context.getState()
        volumes.append(state.getPeriodicBoxVolume().value_in_unit(unit.angstrom**3))
        boxes.append(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom))
    (volume, error), (expected, expected_error) = mean_and_error(volumes), lammps_volume
    combined = np.hypot(error, expected_error)
    assert abs(volume_without_pressure - expected) > 10 * combined
    assert volume == pytest.approx(expected, abs=3 * combined)
    edges = np.ptp(np.array(boxes), axis=0)
    assert (abs(boxes[-1][0, 0] - boxes[-1][1, 1]) > 1e-3) == (kind != "isotropic")
    assert (edges[1, 0] > 1e-3) == (kind == "flexible")


# ---- minimisation, constraints, restart ---------------------------------------------------------------------


def test_minimizer_finds_the_crystal(pair_potential):
    atoms = crystal(2)
    ideal = energy_of(context_for(pair_potential, atoms))
    atoms.rattle(0.15, seed=6)
    context = context_for(pair_potential, atoms)
    assert energy_of(context) > ideal + 10.0
    openmm.LocalEnergyMinimizer.minimize(context, 0.1)
    assert energy_of(context) == pytest.approx(ideal, abs=1e-2)
    assert np.abs(forces_of(context)).max() < 1.0


def test_constraints_hold(tiny):
    """Rigid water runs with a model; its geometry is then the constraints', not the model's (docs/openmm.md)."""
    atoms = molecule("H2O")
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    pairs = [(0, 1), (0, 2), (1, 2)]
    lengths = [0.1 * atoms.get_distance(*pair) for pair in pairs]
    for pair, length in zip(pairs, lengths, strict=True):
        system.addConstraint(*pair, length)
    system.addForce(MLIPForce(tiny, atoms.get_chemical_symbols()))
    context = context_of(system, atoms)
    context.setVelocitiesToTemperature(300.0, 7)
    assert np.abs(forces_of(context)).max() > 10.0
    context.getIntegrator().step(50)
    atoms.positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    np.testing.assert_allclose([0.1 * atoms.get_distance(*pair) for pair in pairs], lengths, rtol=1e-4)


@pytest.mark.parametrize("portable", [False, True])
def test_restart_continues_the_run(pair_potential, portable):
    """A checkpoint, and a State's XML, go on as if the run had not stopped: same numbers, digit by digit."""
    atoms = crystal(2)

    def start():
        context = context_for(pair_potential, atoms, integrator=openmm.VerletIntegrator(0.002))
        context.setVelocitiesToTemperature(TEMPERATURE, 9)
        return context

    context = start()
    context.getIntegrator().step(20)
    if portable:
        state = context.getState(positions=True, velocities=True, parameters=True)
        saved = openmm.XmlSerializer.serialize(state)
    else:
        saved = context.createCheckpoint()
    context.getIntegrator().step(20)
    expected = context.getState(positions=True).getPositions(asNumpy=True)._value
    restarted = start()
    if portable:
        restarted.setState(openmm.XmlSerializer.deserialize(saved))
    else:
        restarted.loadCheckpoint(saved)
    restarted.getIntegrator().step(20)
    found = restarted.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert np.abs(expected - 0.1 * atoms.positions).max() > 1e-3
