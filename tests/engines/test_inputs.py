"""A model that writes into its inputs: the engines' arrays stay as they are, and so does every later result.

`export_module` refuses such a model; these files are written past it, as one made elsewhere may be.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lammps_decks import Deck, run_decks
from openmm_cases import context_for, forces_of, rocksalt
from test_lammps_decks import HOT, check_against_ase
from test_lammps_decks import rocksalt as crystal
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL
from torch import Tensor, nn
from toy_models import ELEMENTS, LocalEnergy, fixtures_of, write

from mlip_deploy import _core
from mlip_deploy.ase import MLIPCalculator

RESULTS = ("energy", "energies", "forces", "virial", "atom_virials", "centroid_virials")


class Writing(nn.Module):
    """LocalEnergy, which then spoils all that it was given."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.inner = LocalEnergy(cutoff)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.inner(node_types, n_owned, edge_index.clone(), edge_vectors.clone())
        node_types.fill_(0)
        edge_index.fill_(0)
        with torch.no_grad():
            edge_vectors.mul_(2.0)
        return energies


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("writing")
    return write(directory / "writing.mlip.pt", Writing(3.9), "local", "float64", 3.9, fixtures_of(directory))


@pytest.mark.parametrize("edges", ["host", "device"])
def test_the_core(edges: str, writing: Path, toy_local: Path) -> None:
    potential, truth = (_core.Potential(str(path), edges=edges) for path in (writing, toy_local))
    atoms = rocksalt()
    for _ in range(3):
        atoms.positions[0] += 0.01
        types = [ELEMENTS.index(symbol) for symbol in atoms.get_chemical_symbols()]
        found, expected = (
            one.compute(
                atoms.positions, types, atoms.cell.array, atoms.pbc.tolist(), atom_virials=True, centroid_virials=True
            )
            for one in (potential, truth)
        )
        for name in RESULTS:
            np.testing.assert_allclose(found[name], expected[name], rtol=FLOAT64_SUM, atol=FLOAT64_SUM, err_msg=name)
    assert np.abs(found["forces"]).max() > FORCE_SIGNAL


def test_openmm(writing: Path, toy_local: Path) -> None:
    atoms = rocksalt()
    context, truth = context_for(writing, atoms), context_for(toy_local, atoms)
    for _ in range(3):
        for one in (context, truth):
            one.getIntegrator().step(1)
        np.testing.assert_allclose(forces_of(context), forces_of(truth), rtol=FLOAT64_ROTATED)


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps(ranks: int, writing: Path, toy_local: Path, tmp_path: Path) -> None:
    """Steps with one neighbour list, and one with another, against ASE's of the right model."""
    deck = Deck(crystal((2, 1, 1)), HOT + "fix 1 all nve\nrun 4", every=1, model="writing")
    (outcome,) = run_decks({"nve": deck}, {"writing": writing}, tmp_path, ranks).values()
    assert len(outcome.frames) == 5
    check_against_ase(outcome, deck, toy_local)


def test_ase(writing: Path, toy_local: Path) -> None:
    atoms, truth = rocksalt(), rocksalt()
    atoms.calc, truth.calc = MLIPCalculator(writing), MLIPCalculator(toy_local)
    for _ in range(3):
        for one in (atoms, truth):
            one.positions[0] += 0.01
        assert atoms.get_potential_energy() == pytest.approx(truth.get_potential_energy(), abs=FLOAT64_SUM)
        np.testing.assert_allclose(atoms.get_stress(), truth.get_stress(), atol=FLOAT64_SUM)
