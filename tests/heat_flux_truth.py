"""What the virials of atoms must be: derivatives of each atomic energy of the ORIGINAL framework, with nothing folded.

W_j = Σ_i (r_i - r_j) ⊗ ∂E_i/∂r_j, summed over the images of atom j. The images stand as atoms of their own in a cluster
that reaches as far as the energies of the home atoms do, so that there is no periodicity left to get wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.geometry import minkowski_reduce
from torch import Tensor

Energies = Callable[[Atoms], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""A cluster's atomic energies [n] in eV, and what gives the gradient [n, 3] of a number made of them over positions."""


def rattled(atoms: Atoms, amplitude: float = 0.12, seed: int = 3) -> Atoms:
    """Displaced at random: no symmetry is left that could hide a term."""
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(scale=amplitude, size=atoms.positions.shape)
    return atoms


def cluster(atoms: Atoms, reach: float) -> tuple[Atoms, np.ndarray]:
    """The atoms, then all images within `reach` (Å) of any of them; and of each the atom that it is an image of."""
    cell = minkowski_reduce(atoms.cell.array, atoms.pbc)[0]
    extent = np.ptp(atoms.positions, axis=0).max() * 2
    repeats = [
        range(-n, n + 1)
        for n in (
            int(np.ceil(1.5 * (reach + extent) / np.linalg.norm(vector))) if periodic else 0
            for vector, periodic in zip(cell, atoms.pbc, strict=True)
        )
    ]
    positions, owners = [atoms.positions], [np.arange(len(atoms))]
    for shift in itertools.product(*repeats):
        if not any(shift):
            continue
        images = atoms.positions + np.array(shift) @ cell
        distances = np.linalg.norm(images[:, None] - atoms.positions[None], axis=2)
        near = np.flatnonzero(distances.min(axis=1) < reach)
        positions.append(images[near])
        owners.append(near)
    owner = np.concatenate(owners)
    symbols = np.array(atoms.get_chemical_symbols())[owner]
    return Atoms(symbols, positions=np.concatenate(positions)), owner


def virials_of_atoms(energies: Energies, atoms: Atoms, reach: float) -> np.ndarray:
    """W_j [n, 3, 3] in eV.

    Args:
        reach: how far a displacement is felt, Å.
    """
    whole, owner = cluster(atoms, reach)
    values, gradient = energies(whole)
    home, positions = values[: len(atoms)], torch.tensor(whole.positions)
    of_energy = gradient(home.sum()).double()
    virials = torch.zeros(len(atoms), 3, 3, dtype=torch.float64)
    for axis in range(3):
        of_moment = gradient((positions[: len(atoms), axis].to(home.dtype) * home).sum()).double()
        moved = of_moment - positions[:, axis, None] * of_energy
        virials[:, axis].index_add_(0, torch.tensor(owner), moved)
    return virials.numpy()


def _gradient(leaf: Tensor, to_positions: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda number: to_positions(torch.autograd.grad(number, leaf, retain_graph=True)[0])


def of_module(module: torch.nn.Module, elements: list[str], cutoff: float) -> Energies:
    """A module behind the model interface, run by Python."""
    from mlip_deploy.exporters.parts import graph

    def energies(atoms: Atoms) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        types, edges, vectors = graph(atoms, elements, cutoff, torch.float64)
        vectors.requires_grad_(True)
        return module(types, len(atoms), edges, vectors), _gradient(vectors, _from_edges(edges, len(atoms)))

    return energies


def _from_edges(edges: Tensor, n_atoms: int) -> Callable[[Tensor], Tensor]:
    """From gradients over r_1 - r_0 of each edge (0, 1) to gradients over positions."""

    def to_positions(g: Tensor) -> Tensor:
        total = torch.zeros(n_atoms, 3, dtype=g.dtype)
        return total.index_add(0, edges[1], g).index_add(0, edges[0], -g)

    return to_positions


def of_sevennet(checkpoint: Any) -> Energies:
    """SevenNet's own layers, up to the energies, in float64."""
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from sevenn.util import load_checkpoint

    from mlip_deploy.exporters.families.sevennet.adapter import _build
    from mlip_deploy.exporters.settings import default_dtype

    model = _build(load_checkpoint(checkpoint), torch.float64)
    model.eval_type_map = True
    model.delete_module_by_key("force_output")

    def energies(atoms: Atoms) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        graph = unlabeled_atoms_to_graph(atoms, model.cutoff)
        data = AtomGraphData(
            **{
                key: torch.as_tensor(value, dtype=torch.float64 if np.asarray(value).dtype.kind == "f" else None)
                for key, value in graph.items()
                if key != "data_info"
            }
        )
        vectors = data["edge_vec"].requires_grad_(True)
        with default_dtype(torch.float64):
            found = model(data)["atomic_energy"].reshape(-1)
        return found, _gradient(vectors, _from_edges(data["edge_index"], len(atoms)))

    return energies


def of_mace(model: torch.nn.Module, head: int = 0) -> Energies:
    """MACE's own model in float64, which is handed MACE's own graph."""
    from mace.data import AtomicData, config_from_atoms
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric import Batch

    from mlip_deploy.exporters.settings import default_dtype

    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    heads = list(getattr(model, "heads", None) or ["Default"])

    def energies(atoms: Atoms) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        config = config_from_atoms(atoms, head_name=heads[head])
        with default_dtype(torch.float64):
            graph = AtomicData.from_config(config, z_table=table, cutoff=float(model.r_max), heads=heads)
            data = Batch.from_data_list([graph]).to_dict()
            data["positions"].requires_grad_(True)
            found = model(data, compute_force=False)["node_energy"]
        return found, _gradient(data["positions"], lambda g: g)

    return energies


def of_nequip(path: Any) -> Energies:
    """NequIP's own model in float64, up to the energies, on NequIP's own graph."""
    from mlip_deploy.exporters.families.nequip import adapter
    from mlip_deploy.exporters.settings import quiet

    with quiet(), adapter.nequip_settings():
        from nequip.model.saved_models.load_utils import load_saved_model

        model = adapter._in_type(load_saved_model(path), torch.float64)

    def energies(atoms: Atoms) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        with adapter.nequip_settings():
            from nequip.data import compute_neighborlist_, from_ase

            data = compute_neighborlist_(from_ase(atoms), float(model.metadata["r_max"]))
            data["atom_types"] = torch.tensor([model.type_names.index(s) for s in atoms.get_chemical_symbols()])
            data.pop("pbc", None)
            data["pos"] = data["pos"].double().requires_grad_(True)
            found = model.model.func(data)["atomic_energy"].reshape(-1)
        return found, _gradient(data["pos"], lambda g: g)

    return energies


def of_nequix(path: Any, elements: list[str]) -> Energies:
    """Nequix's own layers in float64, up to the energies."""
    from mlip_deploy.exporters.families.nequix.checkpoint import read_checkpoint
    from mlip_deploy.exporters.families.nequix.framework import build_model
    from mlip_deploy.exporters.parts import graph
    from mlip_deploy.exporters.settings import default_dtype

    checkpoint = read_checkpoint(path)
    model = build_model(checkpoint, path, torch.float64)
    numbers = list(checkpoint.settings["atomic_numbers"])

    def energies(atoms: Atoms) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        _, edges, vectors = graph(atoms, elements, model.cutoff, torch.float64)
        species = torch.tensor([numbers.index(number) for number in atoms.numbers])
        vectors.requires_grad_(True)
        with default_dtype(torch.float64):
            found = model.node_energies(vectors, species, edges[1], edges[0])[:, 0]
        return found, _gradient(vectors, _from_edges(edges, len(atoms)))

    return energies
