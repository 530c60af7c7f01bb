"""What every potential obeys, for the served artifact: forces and stress are derivatives, symmetries hold."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tolerances import FINITE_DIFFERENCE, FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL, STRESS_SIGNAL

from mlip_deploy.engines.ase import evaluate
from mlip_deploy.result import VOIGT

STEP = 1e-4


@pytest.fixture(scope="module")
def triclinic():
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.12, -0.05], [0, 0.97, 0.08], [0, 0, 1.03]], scale_atoms=True)
    atoms.positions += np.random.default_rng(3).normal(scale=0.12, size=atoms.positions.shape)
    return atoms


def moved(atoms, positions=None, cell=None):
    other = atoms.copy()
    if cell is not None:
        other.set_cell(cell)
    if positions is not None:
        other.positions = positions
    return other


def test_forces_are_derivatives(tiny, triclinic):
    forces = evaluate(tiny, triclinic).forces
    assert np.abs(forces).max() > FORCE_SIGNAL
    for atom, axis in [(0, 0), (3, 1), (5, 2), (7, 0)]:
        energies = []
        for sign in (1, -1):
            positions = triclinic.positions.copy()
            positions[atom, axis] += sign * STEP
            energies.append(evaluate(tiny, moved(triclinic, positions)).energy)
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * STEP), abs=FINITE_DIFFERENCE)


@pytest.mark.parametrize("component", range(6))
def test_stress_is_a_derivative(tiny, triclinic, component):
    """σ = (1/V) dE/dε for each of the six strains, in a triclinic cell smaller than twice the cutoff."""
    stress = evaluate(tiny, triclinic).stress
    assert np.abs(stress).min() > 0.1 * STRESS_SIGNAL
    assert np.abs(stress).max() > STRESS_SIGNAL
    a, b = VOIGT[component]
    energies = []
    for sign in (1, -1):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5 * sign * STEP
        strain[b, a] += 0.5 * sign * STEP
        deformation = np.eye(3) + strain
        energies.append(
            evaluate(
                tiny, moved(triclinic, triclinic.positions @ deformation, triclinic.cell.array @ deformation)
            ).energy
        )
    derivative = (energies[0] - energies[1]) / (2 * STEP) / triclinic.get_volume()
    assert stress[component] == pytest.approx(derivative, abs=FINITE_DIFFERENCE)


def test_rotation(tiny, triclinic):
    rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    first = evaluate(tiny, triclinic)
    second = evaluate(tiny, moved(triclinic, triclinic.positions @ rotation.T, triclinic.cell.array @ rotation.T))
    assert second.energy == pytest.approx(first.energy, abs=FLOAT64_ROTATED)
    np.testing.assert_allclose(second.forces, first.forces @ rotation.T, atol=FLOAT64_ROTATED)


def test_translation_and_wrapping(tiny, triclinic):
    first = evaluate(tiny, triclinic)
    shifts = np.random.default_rng(5).integers(-2, 3, size=(len(triclinic), 3))
    second = evaluate(tiny, moved(triclinic, triclinic.positions + [0.3, -5.0, 11.0] + shifts @ triclinic.cell.array))
    assert second.energy == pytest.approx(first.energy, abs=FLOAT64_SUM * 10)
    np.testing.assert_allclose(second.forces, first.forces, atol=1e-9)


def test_permutation(tiny, triclinic):
    order = np.random.default_rng(6).permutation(len(triclinic))
    first, second = evaluate(tiny, triclinic), evaluate(tiny, triclinic[order])
    np.testing.assert_allclose(second.forces, first.forces[order], atol=FLOAT64_SUM)
    np.testing.assert_allclose(second.atomic_energies, first.atomic_energies[order], atol=FLOAT64_SUM)


def test_replication(tiny, triclinic):
    first, second = evaluate(tiny, triclinic), evaluate(tiny, triclinic.repeat((2, 1, 1)))
    assert second.energy == pytest.approx(2 * first.energy, abs=FLOAT64_SUM * 10)
    np.testing.assert_allclose(second.stress, first.stress, atol=FLOAT64_SUM)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_forces_sum_to_zero_in_any_cell(tiny, data):
    """Random atoms, cells and periodicity: no net force, and the same energy from a repeated evaluation."""
    n = data.draw(st.integers(1, 6))
    numbers = data.draw(st.lists(st.sampled_from([1, 6, 8, 11, 14, 17]), min_size=n, max_size=n))
    seed = data.draw(st.integers(0, 2**31))
    pbc = data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    random = np.random.default_rng(seed)
    cell = np.diag(random.uniform(3.0, 7.0, 3)) + random.uniform(-1.0, 1.0, (3, 3))
    atoms = Atoms(numbers, scaled_positions=random.uniform(size=(n, 3)), cell=cell, pbc=pbc)
    result = evaluate(tiny, atoms)
    scale = max(1.0, float(np.abs(result.forces).max()))
    np.testing.assert_allclose(result.forces.sum(axis=0), 0.0, atol=1e-11 * scale * n)
    assert evaluate(tiny, atoms).energy == result.energy
