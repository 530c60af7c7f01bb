"""Many structures in one pass: what each has alone, to rounding; and messages that name the one at fault."""

import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from conftest import EXAMPLES
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

import mlip_deploy
from mlip_deploy.artifact.contract import Setting
from mlip_deploy.ase import CloseAtomsWarning, MLIPCalculator
from mlip_deploy.errors import MLIPError

sys.path.insert(0, str(EXAMPLES))
from charged_atoms import ChargedAtoms
from long_range import LongRange


def frames() -> list[Atoms]:
    """Of several sizes and kinds of cell: narrower than a cutoff, sheared, a slab, a molecule, an atom alone."""
    narrow = bulk("NaCl", "rocksalt", a=5.2)
    sheared = bulk("NaCl", "rocksalt", a=5.3, cubic=True)
    sheared.set_cell(sheared.cell.array @ np.array([[1, 0.1, 0], [0, 1, 0.2], [0, 0, 0.95]]), scale_atoms=True)
    slab = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    slab.center(vacuum=4.0, axis=2)
    slab.pbc = [True, True, False]
    molecule = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat((2, 1, 1))
    molecule.pbc = False
    molecule.cell = None
    alone = Atoms("Na", positions=[[50.0, 0.0, 0.0]])
    made = [narrow, sheared, slab, molecule, alone, bulk("Si"), narrow.copy()]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.1, seed=seed)
    return made


def assert_as_alone(calculator: MLIPCalculator, together: list, frames: list[Atoms]) -> None:
    assert len(together) == len(frames)
    for found, atoms in zip(together, frames, strict=True):
        alone = atoms.copy()
        alone.calc = calculator
        np.testing.assert_allclose(found.forces, alone.get_forces(), rtol=0, atol=FLOAT64_SUM)
        assert found.energy == pytest.approx(alone.get_potential_energy(), abs=FLOAT64_SUM)
        np.testing.assert_allclose(found.atomic_energies, alone.get_potential_energies(), rtol=0, atol=FLOAT64_SUM)
        assert (found.stress is None) == (atoms.cell.rank < 3)
        if found.stress is not None:
            np.testing.assert_allclose(found.stress, alone.get_stress(), rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("atoms_per_pass", [1, 10, 512])
def test_as_one_by_one(tiny, atoms_per_pass):
    calculator = MLIPCalculator(tiny)
    found = mlip_deploy.evaluate_many(calculator, frames(), atoms_per_pass=atoms_per_pass)
    assert_as_alone(calculator, found, frames())
    assert min(np.abs(found[k].forces).max() for k in (0, 1, 2, 3, 5)) > FORCE_SIGNAL


@pytest.mark.parametrize("name", ["toy_local", "toy_halo"])
def test_models_without_exchange(name, request):
    calculator = MLIPCalculator(request.getfixturevalue(name))
    salts = [atoms for atoms in frames() if "Si" not in atoms.get_chemical_symbols()]
    assert_as_alone(calculator, mlip_deploy.evaluate_many(calculator, salts), salts)


def test_replicas_that_move(tiny):
    """Neighbours found for the structure that stood in the same place before serve as long as they may."""
    calculator = MLIPCalculator(tiny)
    replicas = [bulk("NaCl", "rocksalt", a=5.2, cubic=True) for _ in range(3)]
    for step in range(12):
        for seed, atoms in enumerate(replicas):
            atoms.rattle(0.08, seed=17 * step + seed)
        assert_as_alone(calculator, mlip_deploy.evaluate_many(calculator, replicas), replicas)


def test_settings_and_sums_over_all_atoms_are_of_each_structure(tmp_path):
    path = tmp_path / "charged.mlip.pt"
    charge = Setting(name="charge", kind="integer", unit="e", range=(-3, 3))
    task = Setting(name="task", kind="choice", choices=["plain", "scaled"], default="plain")
    mlip_deploy.export_module(
        ChargedAtoms([0.9, -0.7], cutoff=4.0), path, elements=["Na", "Cl"], cutoff=4.0, name="charged",
        message_passing_layers=2, parallel="exchange", settings=[charge, task], dtype="float64",
    )  # fmt: skip
    calculator = MLIPCalculator(path, charge=1)
    salts = [atoms for atoms in frames() if "Si" not in atoms.get_chemical_symbols() and len(atoms) > 1]
    salts[1].info["charge"] = -2
    found = mlip_deploy.evaluate_many(calculator, salts)
    assert_as_alone(calculator, found, salts)
    del salts[1].info["charge"]
    assert abs(mlip_deploy.evaluate_many(calculator, salts)[1].energy - found[1].energy) > FORCE_SIGNAL


def test_positions_and_cell_are_of_each_structure(tmp_path):
    path = tmp_path / "ionic.mlip.pt"
    mlip_deploy.export_module(
        LongRange([0.9, -0.9], cutoff=5.0), path, elements=["Na", "Cl"], cutoff=5.0, name="ionic",
        message_passing_layers=2, parallel="exchange", positions="periodic", dtype="float64",
    )  # fmt: skip
    salts = [atoms for atoms in frames() if atoms.pbc.all() and "Si" not in atoms.get_chemical_symbols()]
    assert len(salts) == 3
    calculator = MLIPCalculator(path)
    assert_as_alone(calculator, mlip_deploy.evaluate_many(calculator, salts), salts)


def test_nothing_to_do(tiny):
    assert mlip_deploy.evaluate_many(MLIPCalculator(tiny), []) == []
    (empty,) = mlip_deploy.evaluate_many(MLIPCalculator(tiny), [Atoms()])
    assert empty.energy == 0.0
    assert empty.forces.shape == (0, 3)


@pytest.mark.parametrize("atoms_per_pass", [8, 512])
def test_a_fault_names_its_frame(tiny, atoms_per_pass):
    calculator = MLIPCalculator(tiny)

    def evaluate(bad: Atoms) -> None:
        good = bulk("NaCl", "rocksalt", a=5.2)
        mlip_deploy.evaluate_many(calculator, [good, good, good, good, good, bad, good], atoms_per_pass)

    nowhere = bulk("NaCl", "rocksalt", a=5.2)
    nowhere.positions[1, 2] = np.nan
    with pytest.raises(MLIPError, match=r"frame 5 \(counted from 0\): position of atom 1 .* is not finite"):
        evaluate(nowhere)
    with pytest.raises(MLIPError, match=r"frame 5 \(counted from 0\): .*'Xe'"):
        evaluate(Atoms("NaXe", positions=[[0, 0, 0], [0, 0, 3]]))
    with pytest.raises(MLIPError, match=r"frame 5 \(counted from 0\): the periodic cell has no volume"):
        evaluate(Atoms("Na", cell=[5, 5, 0], pbc=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 0.3]]))
    (warning,) = caught
    assert warning.category is CloseAtomsWarning
    assert str(warning.message).startswith("frame 5: ")
