"""A Morse crystal as an artifact: a stable solid that costs well under a millisecond a step, for long runs."""

from pathlib import Path

import torch
from ase.build import bulk
from torch import Tensor, nn

from mlip_deploy import export_module

# Copper of Girifalco and Weizer (Phys. Rev. 114, 687, 1959), cut off smoothly
DEPTH, RADIUS, STEEPNESS = 0.3429, 2.866, 1.3588 * 2.866  # eV, Å, 1
INNER, OUTER = 1.3, 1.75  # of RADIUS
LATTICE_CONSTANT = 3.70  # Å, near zero pressure


def crystal(repeats: int):
    return bulk("Cu", "fcc", a=LATTICE_CONSTANT, cubic=True).repeat(repeats)


class Morse(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth, self.radius, self.steepness = DEPTH, RADIUS, STEEPNESS
        self.outer, self.width = OUTER * RADIUS, (OUTER - INNER) * RADIUS

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        distance = (edge_vectors * edge_vectors).sum(dim=1).sqrt()
        s = ((self.outer - distance) / self.width).clamp(0.0, 1.0)
        envelope = s * s * s * (6.0 * s * s - 15.0 * s + 10.0)
        decay = torch.exp(self.steepness * (1.0 - distance / self.radius))
        pair = 0.5 * self.depth * decay * (decay - 2.0) * envelope
        return torch.zeros(n_owned, dtype=pair.dtype, device=pair.device).index_add(0, edge_index[0], pair)


def write_pair_potential(path: Path) -> Path:
    export_module(
        Morse(),
        path,
        elements=["Cu"],
        cutoff=OUTER * RADIUS,
        name="copper",
        dtype="float64",
        license="MIT",
        citation="10.1103/PhysRev.114.687",
    )
    return path
