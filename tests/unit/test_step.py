"""Steps whose edges stay on the model's device, beside steps whose edges are made on the host: the same file, the same
structures, all results. Both on the CPU. The cases with ghosts and an exchange are in step_tests.cpp.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from tolerances import FLOAT64_SUM, FORCE_SIGNAL
from torch import Tensor, nn
from toy_models import LocalEnergy, fixtures_of, write

from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError

RESULTS = ("energy", "energies", "forces", "virial", "atom_virials", "centroid_virials")


def compute(potential: _core.Potential, path: Path, atoms: Atoms, extras: bool = False) -> dict:
    types = Artifact(path).contract.types_of(atoms.get_chemical_symbols())
    return potential.compute(
        atoms.positions,
        types,
        atoms.cell.array,
        atoms.pbc.tolist(),
        extras=extras,
        atom_virials=True,
        centroid_virials=True,
    )


def both(path: Path) -> tuple[_core.Potential, _core.Potential]:
    return _core.Potential(str(path), edges="host"), _core.Potential(str(path), edges="device")


def assert_same(path: Path, pair: tuple[_core.Potential, _core.Potential], atoms: Atoms) -> dict:
    # The model sees the same edges in the same order, whatever its precision; only sums differ.
    extras = bool(Artifact(path).contract.extras)
    host, device = (compute(potential, path, atoms, extras) for potential in pair)
    assert device.keys() == host.keys()
    assert device["n_edges"] == host["n_edges"]
    assert list(host["extras"]) == Artifact(path).contract.extras
    for name in RESULTS:
        np.testing.assert_allclose(device[name], host[name], rtol=FLOAT64_SUM, atol=FLOAT64_SUM, err_msg=name)
    for name, values in host["extras"].items():
        np.testing.assert_allclose(device["extras"][name], values, rtol=FLOAT64_SUM, atol=FLOAT64_SUM, err_msg=name)
    return host


@pytest.mark.parametrize("model", ["local", "halo", "equivariant float64", "equivariant float32"])
def test_device_equals_host(model: str, artifacts, toy_local: Path, toy_halo: Path) -> None:
    """Every structure of the fixtures: crystals, a sheared and a small one, a molecule, a slab, a single atom."""
    path = {"local": toy_local, "halo": toy_halo}.get(model) or artifacts.tiny(model.split()[-1])
    pair = both(path)
    strongest = 0.0
    for structure in Artifact(path).fixtures().structures:
        result = assert_same(path, pair, structure.atoms())
        strongest = max(strongest, np.abs(result["forces"]).max())
    assert strongest > FORCE_SIGNAL
    assert_same(path, pair, Atoms())


def test_candidates_are_kept_while_atoms_move(toy_local: Path) -> None:
    """A walk with jumps, a change of elements and a change of the cell: what new candidates are needed for."""
    random = np.random.default_rng(5)
    pair = both(toy_local)
    atoms = Atoms("NaCl" * 20, positions=random.uniform(0, 9, size=(40, 3)), cell=[9, 9, 9], pbc=True)
    atoms.set_cell([[9, 0, 0], [1, 8, 0], [0, -1, 9]])
    edges = set()
    for step in range(12):
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
        if step == 4:
            atoms.positions[7] += 2.0
        if step == 6:
            atoms.symbols[3] = "Si"
        if step > 8:
            atoms.set_cell(atoms.cell.array * 1.01)
        edges.add(assert_same(toy_local, pair, atoms)["n_edges"])
    assert len(edges) > 3


@pytest.mark.parametrize("edges", ["host", "device"])
def test_positions_that_are_not_finite(edges: str, toy_local: Path) -> None:
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [np.nan, 0, 2]])
    with pytest.raises(MLIPError, match=r"position of atom 1 .* is not finite"):
        compute(_core.Potential(str(toy_local), edges=edges), toy_local, atoms)


def test_an_unknown_place_for_edges(toy_local: Path) -> None:
    with pytest.raises(MLIPError, match="edges: 'gpu' is not one of auto, host, device"):
        _core.Potential(str(toy_local), edges="gpu")


class Greedy(nn.Module):
    """Asks for 8 PB as soon as there are five atoms."""

    def __init__(self, energy: LocalEnergy):
        super().__init__()
        self.energy = energy

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies = self.energy(node_types, n_owned, edge_index, edge_vectors)
        if n_owned > 4:
            energies = energies + torch.zeros([1_000_000_000_000_000], dtype=torch.float64).sum()
        return energies


@pytest.mark.parametrize("edges", ["host", "device"])
def test_memory_that_runs_out_is_explained(edges: str, tmp_path: Path) -> None:
    """Torch's own exception, through TorchScript, which loses its class."""
    path = write(tmp_path / "greedy.mlip.pt", Greedy(LocalEnergy(3.9)), "local", "float64", 3.9, fixtures_of(tmp_path))
    potential = _core.Potential(str(path), edges=edges)
    compute(potential, path, Atoms("Na4", positions=2.5 * np.eye(4, 3)))
    with pytest.raises(MLIPError) as failure:
        compute(potential, path, Atoms("Na5", positions=3.0 * np.arange(5)[:, None] * [[1, 0, 0]]))
    assert "toy-local: out of memory on cpu with 5 atoms and 8 edges; 8000000000000000 bytes more" in str(failure.value)
    assert "Use a smaller system, or LAMMPS with MPI ranks on more nodes" in str(failure.value)
