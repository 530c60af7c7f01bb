"""openmm-ml: MLPotential("mlip", model=...) for a whole System and for methanol in TIP3P water."""

import numpy as np
import openmm
import pytest
from ase import Atoms
from conftest import EXAMPLES
from openmm import app, unit
from openmm_cases import KJ, energy_of, forces_of, platform_of

from mlip_deploy import MLIPError
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.openmm import MLIPForce

pytest.importorskip("openmmml", reason="openmm-ml is not installed. Type: pip install openmmml")
from openmmml import MLPotential

KJ_PER_EV = 96.4853321
SOLUTE = list(range(6))


class Solution:
    """Methanol in water, with its force-field System."""

    def __init__(self):
        folder = EXAMPLES / "openmm"
        methanol = app.PDBFile(str(folder / "methanol.pdb"))
        self.forcefield = app.ForceField("amber14/tip3p.xml", str(folder / "methanol.xml"))
        modeller = app.Modeller(methanol.topology, methanol.positions)
        modeller.addSolvent(self.forcefield, model="tip3p", boxSize=openmm.Vec3(1.5, 1.5, 1.5) * unit.nanometer)
        self.topology = modeller.topology
        self.positions = modeller.positions
        self.system = self.forcefield.createSystem(
            self.topology,
            nonbondedMethod=app.PME,
            nonbondedCutoff=0.7 * unit.nanometer,
            constraints=app.HBonds,
            rigidWater=True,
        )

    def context(self, system):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform_of())
        context.setPositions(self.positions)
        return context

    def solute_atoms(self):
        positions = np.array(self.positions.value_in_unit(unit.angstrom))[SOLUTE]
        symbols = [atom.element.symbol for atom in self.topology.atoms()][: len(SOLUTE)]
        cell = np.array(self.topology.getPeriodicBoxVectors().value_in_unit(unit.angstrom))
        return Atoms(symbols, positions=positions, cell=cell, pbc=True)

    def internal_force_field_energy(self):
        """Of the solute alone, by hand: its bonds, angles, torsions and its 1-4 pairs, kJ/mol."""
        system = openmm.System()
        for _ in SOLUTE:
            system.addParticle(1.0)
        inside = set(SOLUTE)
        for force in self.system.getForces():
            if isinstance(force, openmm.HarmonicBondForce):
                kept = openmm.HarmonicBondForce()
                for k in range(force.getNumBonds()):
                    *members, length, strength = force.getBondParameters(k)
                    if inside.issuperset(members):
                        kept.addBond(*members, length, strength)
            elif isinstance(force, openmm.HarmonicAngleForce):
                kept = openmm.HarmonicAngleForce()
                for k in range(force.getNumAngles()):
                    *members, angle, strength = force.getAngleParameters(k)
                    if inside.issuperset(members):
                        kept.addAngle(*members, angle, strength)
            elif isinstance(force, openmm.PeriodicTorsionForce):
                kept = openmm.PeriodicTorsionForce()
                for k in range(force.getNumTorsions()):
                    *members, n, phase, strength = force.getTorsionParameters(k)
                    if inside.issuperset(members):
                        kept.addTorsion(*members, n, phase, strength)
            elif isinstance(force, openmm.NonbondedForce):
                kept = openmm.NonbondedForce()
                for k in SOLUTE:
                    kept.addParticle(*force.getParticleParameters(k))
                for k in range(force.getNumExceptions()):
                    first, second, *parameters = force.getExceptionParameters(k)
                    if {first, second} <= inside:
                        kept.addException(first, second, *parameters)
                assert kept.getNumExceptions() == 15  # each of the pairs: none is cut off by PME's cutoff
            else:
                continue
            system.addForce(kept)
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform_of())
        context.setPositions(self.positions[: len(SOLUTE)])
        return energy_of(context)


@pytest.fixture(scope="module")
def solution():
    return Solution()


@pytest.fixture(scope="module")
def potential(tiny):
    return MLPotential("mlip", model=tiny)


def test_pure(solution, potential, tiny):
    """All 300-odd atoms with the model: the same as an MLIPForce, box and periodicity from the topology."""
    system = potential.createSystem(solution.topology)
    assert system.getNumForces() == 2  # with the CMMotionRemover
    force = MLIPForce.cast(system.getForce(0))
    assert force.usesPeriodicBoundaryConditions()
    by_hand = openmm.System()
    by_hand.setDefaultPeriodicBoxVectors(*solution.topology.getPeriodicBoxVectors())
    for atom in solution.topology.atoms():
        by_hand.addParticle(atom.element.mass)
    by_hand.addForce(MLIPForce(tiny, solution.topology))
    assert energy_of(solution.context(system)) == pytest.approx(energy_of(solution.context(by_hand)), rel=1e-12)


def test_mixed_energy_is_the_sum_of_its_parts(solution, potential, tiny):
    """E = E_MM(everything) - E_MM(inside the solute) + E_ML(solute)."""
    mixed = potential.createMixedSystem(solution.topology, solution.system, SOLUTE, forceGroup=5)
    context = solution.context(mixed)
    model = ase_engine.evaluate(tiny, solution.solute_atoms())
    assert energy_of(context, groups={5}) == pytest.approx(model.energy * KJ_PER_EV, rel=1e-8)
    force_field, inside = energy_of(solution.context(solution.system)), solution.internal_force_field_energy()
    assert abs(inside) > 1.0
    expected = force_field - inside + model.energy * KJ_PER_EV
    # PME's own reciprocal sum limits how exactly an excluded pair is taken out: its error tolerance is 5e-4
    assert energy_of(context) == pytest.approx(expected, abs=1e-2)
    forces = forces_of(context, groups={5}) / KJ_PER_EV / 10
    np.testing.assert_allclose(forces[SOLUTE], model.forces, atol=1e-7)
    np.testing.assert_array_equal(np.delete(forces, SOLUTE, axis=0), 0.0)


def test_mixed_keeps_charges_and_removes_what_the_model_replaces(solution, potential):
    mixed = potential.createMixedSystem(solution.topology, solution.system, SOLUTE)
    before, after = (
        next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
        for system in (solution.system, mixed)
    )
    for k in range(mixed.getNumParticles()):
        assert after.getParticleParameters(k) == before.getParticleParameters(k)
    zeroed = {
        tuple(sorted(after.getExceptionParameters(k)[:2])): after.getExceptionParameters(k)[2:]
        for k in range(after.getNumExceptions())
    }
    for first in SOLUTE:
        for second in range(first):
            charges, _, depth = zeroed[second, first]
            assert charges.value_in_unit(unit.elementary_charge**2) == 0.0
            assert depth.value_in_unit(KJ) == 0.0
    assert (0, SOLUTE[-1] + 1) not in zeroed
    constrained = {frozenset(mixed.getConstraintParameters(k)[:2]) for k in range(mixed.getNumConstraints())}
    assert constrained
    assert not any(pair <= set(SOLUTE) for pair in constrained)


def test_interpolation(solution, potential):
    """lambda_interpolate: the force field at 0, the mixed System at 1, a straight line between."""
    system = potential.createMixedSystem(solution.topology, solution.system, SOLUTE, interpolate=True)
    context = solution.context(system)
    ends = []
    for end in (0.0, 1.0, 0.5):
        context.setParameter("lambda_interpolate", end)
        ends.append(energy_of(context))
    mixed = potential.createMixedSystem(solution.topology, solution.system, SOLUTE)
    assert ends[0] == pytest.approx(energy_of(solution.context(solution.system)), abs=1e-2)
    assert ends[1] == pytest.approx(energy_of(solution.context(mixed)), abs=1e-2)
    assert abs(ends[1] - ends[0]) > 1.0
    assert ends[2] == pytest.approx(0.5 * (ends[0] + ends[1]), abs=1e-6)


def test_mixed_system_survives_xml(solution, potential):
    mixed = potential.createMixedSystem(solution.topology, solution.system, SOLUTE)
    other = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(mixed))
    assert energy_of(solution.context(other)) == pytest.approx(energy_of(solution.context(mixed)), abs=1e-6)


def test_no_model_named():
    with pytest.raises(ValueError, match=r'Type: MLPotential\("mlip", model="NAME.mlip.pt"\)'):
        MLPotential("mlip")


def test_unknown_options_are_refused(potential, solution, tiny):
    known = r"'thread' is not an option of mlip. Options: device, threads, embed"
    with pytest.raises(MLIPError, match=known):
        MLPotential("mlip", model=tiny, thread=2)
    with pytest.raises(MLIPError, match=f"createSystem: {known}"):
        potential.createSystem(solution.topology, thread=2)
    with pytest.raises(MLIPError, match="'linkAtomDistances' is not an option"):
        potential.createSystem(solution.topology, linkAtomDistances=[])
    with pytest.raises(MLIPError, match=f"createMixedSystem: {known}"):
        potential.createMixedSystem(solution.topology, solution.system, SOLUTE, thread=2)
    # of the embedding, which a mixed System has
    mixed = potential.createMixedSystem(solution.topology, solution.system, SOLUTE, linkAtomDistances=[], threads=1)
    assert [MLIPForce.cast(f).threads for f in mixed.getForces() if MLIPForce.is_mlip_force(f)] == [1]
