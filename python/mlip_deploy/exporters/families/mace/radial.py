"""MACE's radial networks as tables: of each network one table for every pair of elements that has its own weights.

Weights depend on the elements of both atoms where distances are transformed by element (Agnesi), and in gated blocks.
The tables of all pairs are made when they fit into `MOST_BYTES`; otherwise the networks stay.
"""

import copy
import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.radial_table import INTERVALS, SHORTEST, RadialTable, fewest_intervals, splines
from mlip_deploy.progress import Progress

MOST_BYTES = 512_000_000
"""Of all tables of a model. Each rank reads the whole file."""


class LayerTables(NamedTuple):
    """Of one interaction."""

    convolution: RadialTable
    density: RadialTable | None
    """what an edge adds to the density of its centre; None for a block without density"""


@dataclass
class RadialTables:
    """Of a model."""

    of_pair: Tensor
    """int64 [n_elements, n_elements], centre and neighbour: which table"""
    layers: list[LayerTables]

    @property
    def several(self) -> bool:
        return bool(self.of_pair.max() > 0)


class RadialFunction:
    """Radial weights of one interaction, or its edge density, as functions of the distance, in float64.

    Args:
        model: MACE.
        interaction: of the model.
        density: the edge density in place of the weights.
    """

    def __init__(self, model: Any, interaction: Any, density: bool):
        self.density = density
        self.embedding = copy.deepcopy(model.radial_embedding).double()
        self.network = _twice_differentiable(interaction.density_fn if density else interaction.conv_tp_weights)
        self.atomic_numbers = model.atomic_numbers
        self.one_hot = torch.eye(model.atomic_numbers.numel(), dtype=torch.float64)
        self.of_elements = hasattr(interaction, "source_embedding")
        if self.of_elements:
            with torch.no_grad():
                self.of_neighbour = copy.deepcopy(interaction.source_embedding).double()(self.one_hot)
                self.of_centre = copy.deepcopy(interaction.target_embedding).double()(self.one_hot)

    def __call__(self, distances: Tensor, centre: int, neighbour: int) -> Tensor:
        """[n, n_weights] of distances [n] in Å and element indices."""
        # MACE's sender is our neighbour, its receiver our centre.
        edges = torch.tensor([[neighbour], [centre]]).expand(2, len(distances))
        features, cutoff = self.embedding(distances.unsqueeze(1), self.one_hot, edges, self.atomic_numbers)
        if self.of_elements:
            elements = torch.cat([self.of_neighbour[neighbour], self.of_centre[centre]])
            features = torch.cat([features, elements.expand(len(distances), -1)], dim=1)
        result: Tensor = self.network(features)
        if self.density:
            result = torch.tanh(result**2)
        return result if cutoff is None else result * cutoff


class LayerNorm(nn.Module):
    """torch's in steps: the second derivative in forward mode of torch's own is wrong."""

    def __init__(self, original: nn.LayerNorm):
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + self.eps) * self.weight + self.bias


def _twice_differentiable(network: nn.Module) -> nn.Module:
    """A copy in float64."""
    network = copy.deepcopy(network).double()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, LayerNorm(child))
    return network


def tabulated(model: Any, dtype: torch.dtype, note: Progress) -> RadialTables | None:
    """The radial tables of a model of type `dtype`; None when they would be too large, or no table is good enough.

    Args:
        model: MACE.
        note: is told what was chosen, where there is a choice.
    """
    functions = [
        RadialFunction(model, interaction, density)
        for interaction in model.interactions
        for density in (False, True)[: 1 + hasattr(interaction, "density_fn")]
    ]
    n_elements = int(model.atomic_numbers.numel())
    by_pair = hasattr(model.radial_embedding, "distance_transform") or any(
        function.of_elements for function in functions
    )
    with torch.no_grad():
        n_weights = [function(torch.ones(1, dtype=torch.float64), 0, 0).shape[1] for function in functions]

    def size(n_tables: int, intervals: list[int]) -> int:
        values = sum((n + 10) * width for n, width in zip(intervals, n_weights, strict=True))  # with a kink
        return n_tables * values * dtype.itemsize

    cutoff = float(model.r_max)
    representatives, of_pair = [(0, 0)], torch.zeros(n_elements, n_elements, dtype=torch.int64)
    if by_pair:
        most = MOST_BYTES // size(1, [INTERVALS[0]] * len(functions))
        found = _kinds_of_pairs(functions, n_elements, cutoff, most)
        if found is None:
            note(_too_large(n_elements))
            return None
        representatives, of_pair = found
    intervals = [INTERVALS[0]] * len(functions)
    imprecise = "radial networks: evaluated, which is slow. No table of reasonable size is as precise"
    for (centre, neighbour), (k, function) in itertools.product(representatives, enumerate(functions)):
        of_one_pair = partial(function, centre=centre, neighbour=neighbour)
        fewest = fewest_intervals(of_one_pair, cutoff, dtype, intervals[k])
        if fewest is None:
            note(imprecise)
            return None
        intervals[k] = fewest
        if size(len(representatives), intervals) > MOST_BYTES:
            note(_too_large(n_elements))
            return None
    tables = []
    for function, n_intervals in zip(functions, intervals, strict=True):
        of_pairs = [partial(function, centre=centre, neighbour=neighbour) for centre, neighbour in representatives]
        table = splines(of_pairs, n_intervals, cutoff / n_intervals)
        if table is None:
            note(imprecise)
            return None
        tables.append(table)
    if by_pair:
        n_tables, megabytes = len(representatives), 1e-6 * size(len(representatives), intervals)
        note(f"radial networks: tables, {n_tables} for the pairs of {n_elements} elements, {megabytes:.3g} MB")
    rest = iter(tables)
    layers = [
        LayerTables(next(rest), next(rest) if hasattr(interaction, "density_fn") else None)
        for interaction in model.interactions
    ]
    return RadialTables(of_pair, layers)


def _kinds_of_pairs(
    functions: list[RadialFunction], n_elements: int, cutoff: float, most: int
) -> tuple[list[tuple[int, int]], Tensor] | None:
    """A pair of each kind, and the kind of each pair; None when there are more than `most`.

    Pairs are of one kind when all functions are: a transform may not tell which atom is the centre.
    """
    distances = torch.linspace(SHORTEST, 0.99 * cutoff, 4, dtype=torch.float64)
    kinds: dict[bytes, int] = {}
    representatives: list[tuple[int, int]] = []
    of_pair = torch.zeros(n_elements, n_elements, dtype=torch.int64)
    for pair in itertools.product(range(n_elements), range(n_elements)):
        with torch.no_grad():
            values = torch.cat([function(distances, *pair).flatten() for function in functions])
        kind = kinds.setdefault(values.numpy().tobytes(), len(kinds))
        if kind == len(representatives):
            representatives.append(pair)
        if len(kinds) > most:
            return None
        of_pair[pair] = kind
    return representatives, of_pair


def _too_large(n_elements: int) -> str:
    return (
        f"radial networks: evaluated, which is slow. Tables for the pairs of {n_elements} elements would take more "
        f"than {1e-6 * MOST_BYTES:.3g} MB. For tables name the elements of your runs, such as: --elements Si,O"
    )
