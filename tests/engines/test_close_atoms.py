"""Atoms on top of each other, where no training data reach: ASE and OpenMM name them, once."""

import warnings

import openmm
import pytest
from ase.build import bulk
from openmm import unit

from mlip_deploy.ase import CloseAtomsWarning, MLIPCalculator
from mlip_deploy.openmm import system_of

WORDS = r"atoms 0 \(Na\) and 1 \(Cl\) are 0\.300 Å apart, closer than 1\.34 Å.*counted from 0"


def pair_too_close():
    """Half the sum of the covalent radii of Na (1.66 Å) and Cl (1.02 Å) is 1.34 Å."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.3, 0.0, 0.0]
    return atoms


def test_ase_warns_once(tiny) -> None:
    atoms = pair_too_close()
    atoms.calc = MLIPCalculator(tiny)
    with pytest.warns(CloseAtomsWarning, match=WORDS):
        atoms.get_potential_energy()
    atoms.positions[0, 2] += 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error", CloseAtomsWarning)
        atoms.get_potential_energy()


def test_ase_is_silent_at_the_length_of_a_bond(tiny) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = MLIPCalculator(tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CloseAtomsWarning)
        atoms.get_potential_energy()


def test_openmm_warns_once(tiny, capfd) -> None:
    atoms = pair_too_close()
    system = system_of(atoms, tiny)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    for _ in range(2):
        context.setPositions(atoms.positions * unit.angstrom)
        context.getState(energy=True)
    said = capfd.readouterr().err
    assert said.count("MLIPForce: warning: atoms 0 (Na) and 1 (Cl) are 0.300 Å apart, closer than 1.34 Å") == 1
