"""A failed evaluation leaves nothing behind: the next result is that of a fresh object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import bulk
from openmm_cases import context_for, energy_of, ethanol, rocksalt
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM

from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import lammps as lammps_engine
from mlip_deploy.engines import openmm as openmm_engine
from mlip_deploy.errors import MLIPError


def crystal(elements: str, seed: int = 1) -> Atoms:
    atoms = bulk(elements, "rocksalt", a=5.2, cubic=True)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


# What is asked for instead of a good structure, each failing at another stage.
def nan_position(atoms: Atoms) -> None:
    atoms.positions[2, 1] = np.nan


def infinite_position(atoms: Atoms) -> None:
    atoms.positions[2, 1] = np.inf


def no_volume(atoms: Atoms) -> None:
    atoms.cell[2] = atoms.cell[1]


def same_spot(atoms: Atoms) -> None:
    atoms.positions[1] = atoms.positions[0]


def unknown_element(atoms: Atoms) -> None:
    atoms.symbols[3] = "Xe"


FAULTS = [nan_position, infinite_position, no_volume, same_spot, unknown_element]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("n_before", [0, 1, 2])
def test_calculator(tiny: Path, fault, n_before: int) -> None:
    calculator = MLIPCalculator(tiny)
    for _ in range(n_before):  # the second time with a neighbour list that may stay
        first = crystal("NaCl")
        first.calc = calculator
        first.get_potential_energy()
    good = crystal("CO")  # on the same lattice: only the elements change
    bad = good.copy()
    fault(bad)
    bad.calc = calculator
    with pytest.raises(MLIPError):
        bad.get_forces()
    good.calc = calculator
    truth = good.copy()
    truth.calc = MLIPCalculator(tiny)
    assert good.get_potential_energy() == pytest.approx(truth.get_potential_energy(), abs=FLOAT64_SUM * len(good))
    np.testing.assert_allclose(good.get_forces(), truth.get_forces(), atol=FLOAT64_ROTATED)


def test_calculate_called_directly(tiny: Path) -> None:
    """Results of the atoms before are not given for those that failed."""
    calculator = MLIPCalculator(tiny)
    calculator.calculate(crystal("NaCl"))
    bad = crystal("CO")
    nan_position(bad)
    with pytest.raises(MLIPError):
        calculator.calculate(bad)
    assert calculator.results == {}


@pytest.mark.parametrize("edges", ["host", "device"])
@pytest.mark.parametrize("types", [[-1] * 8, [99] * 8, [0] * 7])
def test_types_out_of_range(tiny: Path, edges: str, types: list[int]) -> None:
    potential, contract = _core.Potential(str(tiny), edges=edges), Artifact(tiny).contract
    atoms = crystal("NaCl")
    good = contract.types_of(atoms.get_chemical_symbols())
    rest = (atoms.cell.array, atoms.pbc.tolist())
    first = potential.compute(atoms.positions, good, *rest)["energy"]
    with pytest.raises(ValueError, match="type"):
        potential.compute(atoms.positions, types, *rest)
    assert potential.compute(atoms.positions, good, *rest)["energy"] == first


@pytest.mark.parametrize("engine", [ase_engine, lammps_engine, openmm_engine])
@pytest.mark.parametrize("fault", FAULTS)
def test_engines(tiny: Path, engine, fault) -> None:
    """Their open calculator, `lmp` and Context, after each fault and back."""
    good, other = crystal("NaCl"), crystal("CO", seed=2)
    engine.evaluate(tiny, good)
    bad = other.copy()
    fault(bad)
    with pytest.raises((MLIPError, ValueError, np.linalg.LinAlgError)):
        engine.evaluate(tiny, bad)
    found, truth = engine.evaluate(tiny, other), MLIPCalculator(tiny)
    expected = other.copy()
    expected.calc = truth
    assert found.energy == pytest.approx(expected.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(found.forces, expected.get_forces(), atol=1e-6)


def test_context_between_boxes(tiny: Path) -> None:
    """A box that fails, caught, and the box before again."""
    atoms = rocksalt()
    context = context_for(tiny, atoms, "Reference")
    before = energy_of(context)
    positions = atoms.positions.copy()
    positions[1] = positions[0]
    context.setPositions(positions * 0.1)
    with pytest.raises(openmm.OpenMMException, match="not finite"):
        energy_of(context)
    context.setPositions(atoms.positions * 0.1)
    assert energy_of(context) == pytest.approx(before, rel=FLOAT64_SUM)


def test_ethanol_after_a_failure(tiny: Path) -> None:
    atoms = ethanol()
    calculator = MLIPCalculator(tiny)
    atoms.calc = calculator
    before = atoms.get_potential_energy()
    moved = atoms.positions.copy()
    atoms.positions[0, 0] = np.nan
    with pytest.raises(MLIPError):
        atoms.get_potential_energy()
    atoms.positions[:] = moved
    assert atoms.get_potential_energy() == pytest.approx(before, rel=FLOAT64_SUM)
