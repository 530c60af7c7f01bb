"""Energies alone from the ASE calculator: when forces are left out, and that no number changes by it."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy.ase import MLIPCalculator


@pytest.fixture
def atoms(artifacts) -> Atoms:
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    crystal.rattle(0.1, seed=3)
    crystal.calc = MLIPCalculator(artifacts.tiny("float64"))
    return crystal


def moved(atoms: Atoms) -> Atoms:
    atoms.positions[0] += 0.05
    return atoms


def test_an_energy_alone_is_the_same_and_brings_no_forces(atoms: Atoms, artifacts) -> None:
    energy, energies = atoms.get_potential_energy(), atoms.get_potential_energies()
    assert not {"forces", "stress"} & atoms.calc.results.keys()
    truth = atoms.copy()
    truth.calc = MLIPCalculator(artifacts.tiny("float64"))
    forces, stress = truth.get_forces(), truth.get_stress()
    assert np.abs(forces).max() > FORCE_SIGNAL
    assert energy == pytest.approx(truth.get_potential_energy(), abs=FLOAT64_SUM)
    np.testing.assert_allclose(energies, truth.get_potential_energies(), rtol=0, atol=FLOAT64_SUM)
    # Asked for after the energy, they are those of the same atoms.
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=FLOAT64_SUM)


def test_forces_come_along_for_who_asks_for_both(atoms: Atoms) -> None:
    atoms.get_potential_energy()
    atoms.get_forces()
    moved(atoms).get_potential_energy()
    assert "forces" in atoms.calc.results, "they were asked for, of the atoms before"
    atoms.get_forces()
    moved(atoms).get_potential_energy()
    assert "forces" in atoms.calc.results, "and again, although no evaluation was needed for them"
    moved(atoms).get_potential_energy()
    assert "forces" not in atoms.calc.results, "they were not"


def test_forces_bring_everything(atoms: Atoms) -> None:
    atoms.get_forces()
    assert {"energy", "energies", "forces", "stress"} <= atoms.calc.results.keys()


def test_without_periodicity(atoms: Atoms) -> None:
    atoms.pbc, atoms.cell = False, None
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=FLOAT64_SUM)
    assert "stress" not in atoms.calc.results


def test_the_calculator_called_directly_computes_all(artifacts) -> None:
    calculator = MLIPCalculator(artifacts.tiny("float64"))
    calculator.calculate(bulk("NaCl", "rocksalt", a=5.6))
    assert "forces" in calculator.results
