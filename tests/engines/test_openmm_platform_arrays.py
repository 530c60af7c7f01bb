"""Positions and forces in the memory of OpenMM's GPU platforms: sorted, wrapped into the box, not wanted at all.

OpenCL on the CPU (pocl) runs the kernels and the code around them that CUDA runs. What differs there, a pointer in
place of a copy, is tested with the steps in place (tests/unit/step_tests.cpp).
"""

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from openmm import unit
from openmm_cases import context_for, context_of, energy_of, ethanol, forces_of, need_platform, rocksalt
from tolerances import FLOAT64_ROTATED, FORCE_SIGNAL

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.openmm import MLIPForce, system_of

KJ_PER_EV = 96.48533212331002
PRECISIONS = ["double", "mixed", "single"]


@pytest.fixture(autouse=True)
def needs_opencl():
    need_platform("OpenCL")


def sorting_force(n_particles):
    """Without any effect but one: OpenMM keeps the particles of a System with a cutoff sorted in space, and wrapped."""
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.5)
    for _ in range(n_particles):
        force.addParticle(0.0, 0.1, 0.0)
    return force


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sorted_and_wrapped_particles(tiny, precision):
    """A cluster that reaches over the edges of a box whose particles OpenMM sorts and wraps, with others around it.

    OpenMM rounds positions when it wraps them; at those that it then has, model and engine agree to float64.
    """
    rng = np.random.default_rng(5)
    cluster = rocksalt().repeat(2)
    cluster.pbc = False
    others = Atoms("Xe48", positions=rng.uniform(-40, 40, size=(48, 3)))
    everything = others + cluster
    order = rng.permutation(len(everything))
    everything = everything[order]
    everything.cell = [[24.0, 0, 0], [3.0, 26.0, 0], [-2.0, 4.0, 25.0]]
    place = np.argsort(order)[len(others) :]

    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(everything.cell.array * 0.1))
    for _ in everything:
        system.addParticle(20.0)
    system.addForce(sorting_force(len(everything)))
    system.addForce(MLIPForce(tiny, everything.get_chemical_symbols(), atoms=place, periodic=False))
    context = context_of(system, everything, "OpenCL", Precision=precision)
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().setStepSize(0.0005)
    for _ in range(3):
        state = context.getState(positions=True, energy=True, forces=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        cluster.positions = positions[place]
        truth = ase_engine.evaluate(tiny, cluster)
        assert np.abs(truth.forces).max() > FORCE_SIGNAL
        assert state.getPotentialEnergy()._value / KJ_PER_EV == pytest.approx(truth.energy, abs=FLOAT64_ROTATED)
        forces = state.getForces(asNumpy=True)._value / KJ_PER_EV / 10
        np.testing.assert_allclose(forces[place], truth.forces, atol=FLOAT64_ROTATED)
        np.testing.assert_array_equal(np.delete(forces, place, axis=0), 0.0)
        context.getIntegrator().step(5)
        context.setPositions(context.getState(positions=True).getPositions())  # sorts and wraps anew


@pytest.mark.parametrize("platform", ["Reference", "OpenCL"])
def test_an_energy_alone_leaves_out_the_backward_pass(tiny, platform):
    # With leapfrog integrators OpenMM wants forces for the kinetic energy.
    context = context_for(tiny, rocksalt(), platform, openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    energy_of(context)

    def operators(**wanted):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            context.getState(**wanted)
        return " ".join(event.name for event in profiler.events())

    assert "backward" in operators(energy=True, forces=True).lower()
    alone = operators(energy=True)
    assert "aten::" in alone
    assert [name for name in alone.split() if "backward" in name.lower()] == []


def test_a_group_that_is_not_asked_for(tiny):
    atoms = ethanol()
    system = system_of(atoms, tiny)
    system.getForce(0).setForceGroup(3)
    context = context_of(system, atoms, "OpenCL")
    assert energy_of(context, groups={0}) == 0.0
    np.testing.assert_array_equal(forces_of(context, groups={0}), 0.0)
    assert abs(energy_of(context, groups={3})) > 1.0
    assert np.abs(forces_of(context, groups={3})).max() > FORCE_SIGNAL
