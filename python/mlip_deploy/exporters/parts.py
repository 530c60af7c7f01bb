"""A graph cut into parts of owned and ghost atoms, as ranks hold them, evaluated in one process without MPI.

The atomic energies of the parts must be those of the whole graph. Sums, means and maxima over the system, results that
depend on the number of atoms, and ghosts that a model forgets all break this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mlip_deploy.artifact.contract import Parallel
from mlip_deploy.errors import MLIPError

EnergyModel = Callable[[Tensor, int, Tensor, Tensor, Tensor], Tensor]
"""(node_types, n_owned, edge_index, edge_vectors, atoms) -> atomic energies [n_owned] eV, as
`EdgeGradientModel.energies`; `atoms` [n_owned] are the indices of the owned atoms, for whoever needs their positions"""
UNEQUAL = (
    "ghost_gather or sum_over_atoms is not called equally often for all atoms and for a part of them. Every rank must "
    "call them in the same places, without atoms or edges too"
)
SEVERAL_HUNDRED = 200
"""atoms at the least of `enlarged`"""


def enlarged(atoms: Atoms) -> Atoms:
    """A supercell of a periodic structure with several hundred atoms, of a cube's repeats in the periodic directions.

    Its atom k is an image of atom k modulo the number of atoms of `atoms`.
    """
    repeats = 1
    while len(atoms) * repeats ** int(atoms.pbc.sum()) < SEVERAL_HUNDRED:
        repeats += 1
    larger: Atoms = atoms.repeat([repeats if periodic else 1 for periodic in atoms.pbc])
    return larger


def graph(atoms: Atoms, elements: Sequence[str], cutoff: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Node types, edge index and edge vectors of a whole structure, from ASE's neighbour list."""
    centres, neighbours, vectors = neighbor_list("ijD", atoms, cutoff)
    types = torch.tensor([elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    edges = torch.tensor(np.array([centres, neighbours]).reshape(2, -1), dtype=torch.int64)
    return types, edges, torch.tensor(np.reshape(vectors, (-1, 3)), dtype=dtype)


def cut(atoms: Atoms) -> list[Tensor]:
    """Three unequal parts along x: one atom, about a third and the rest, as indices of atoms."""
    order = torch.tensor(np.argsort(atoms.positions[:, 0], kind="stable"))
    return [part for part in torch.tensor_split(order, [1, 1 + len(order) // 3]) if len(part)]


def energies_of_parts(
    model: EnergyModel,
    types: Tensor,
    edges: Tensor,
    vectors: Tensor,
    parts: Sequence[Tensor],
    parallel: Parallel,
    layers: int,
) -> tuple[Tensor, Tensor]:
    """Atomic energies of the whole graph and of its parts.

    Args:
        types: int64 [n_atoms], type index of every atom; the whole graph has no ghosts.
        edges: int64 [2, n_edges].
        vectors: [n_edges, 3] Å.
        parts: of the atoms' indices; each atom is owned by one part.
        parallel: of the model: how far its ghosts reach, and where their features come from.
        layers: of message passing.

    Returns:
        two tensors [n_atoms] eV in the order of the atoms: the whole graph, and its parts put together.

    Raises:
        MLIPError: a part asks for features of ghosts more or less often than the whole graph did.
    """
    with Exchange() as exchanged:
        whole = model(types, len(types), edges, vectors, torch.arange(len(types))).detach()
    together = torch.zeros_like(whole)
    for owned in parts:
        nodes, chosen = _part(len(types), edges, owned, layers if parallel == "halo" else 0)
        index = torch.full([len(types)], -1)
        index[nodes] = torch.arange(len(nodes))
        with Exchange(exchanged.features, nodes[len(owned) :]) as exchange:
            found = model(types[nodes], len(owned), index[edges[:, chosen]], vectors[chosen], owned)
        together[owned] = found.detach()
        if exchange.calls != exchanged.calls:
            raise MLIPError(UNEQUAL)
    return whole, together


def _part(n_atoms: int, edges: Tensor, owned: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """Nodes of a part, owned ones first, and a mask of the edges that it has.

    Args:
        layers: ghosts are as many edges away, and have edges with each other; 0: neighbours of owned atoms, without
            edges of their own.
    """
    centres, neighbours = edges[0], edges[1]
    inside = torch.zeros(n_atoms, dtype=torch.bool)
    inside[owned] = True
    chosen = inside[centres]
    for _ in range(max(1, layers)):
        inside[neighbours[inside[centres]]] = True
    if layers:
        chosen = inside[centres] & inside[neighbours]
    inside[owned] = False
    return torch.cat([owned, inside.nonzero()[:, 0]]), chosen


class Exchange(TorchDispatchMode):
    """In place of an engine's exchange behind `mlip::ghost_gather` and `mlip::sum_over_atoms`.

    Args:
        features: of all atoms at each call, from the `features` of the whole graph's Exchange; it is recorded when
            there is none.
        ghosts: indices of the atoms that the ghosts are images of.
    """

    def __init__(self, features: Sequence[Tensor] | None = None, ghosts: Tensor | None = None):
        super().__init__()  # type: ignore[no-untyped-call]
        self.features: list[Tensor] = []
        self.calls = 0
        self.summed = False
        self._given: Iterator[Tensor] | None = None if features is None else iter(features)
        self._ghosts = ghosts

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; otherwise torch imports its compiler, which takes two seconds, to say so."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() == "mlip::ghost_gather_backward":
            return args[0][: args[1]].clone()  # what ghosts feel is of other parts, and not looked at
        if func.name() == "mlip::sum_over_atoms":
            return self._sum(args[0])
        if func.name() != "mlip::ghost_gather":
            return func(*args, **(kwargs or {}))
        owned = args[0]
        self.calls += 1
        if self._given is None:
            self.features.append(owned.detach())
            return owned.clone()
        return torch.cat([owned, self._next()[self._ghosts]])

    def _sum(self, x: Tensor) -> Tensor:
        """Of all atoms: a part gets what the whole graph had."""
        self.calls += 1
        self.summed = True
        if self._given is None:
            self.features.append(x.detach().sum(0))
            return self.features[-1].clone()
        return self._next().clone()

    def _next(self) -> Tensor:
        assert self._given is not None
        features = next(self._given, None)
        if features is None:
            raise MLIPError(UNEQUAL)
        return features
