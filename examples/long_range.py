"""A model with long-range electrostatics for `export_module`: charges from each atom's surroundings that add up to
zero, and their Coulomb energy in a periodic cell by Ewald's sum.

    python long_range.py
    mlip check long_range.mlip.pt --ranks 1,2
"""

import math

import torch
from torch import Tensor, nn

from mlip_deploy import export_module


class LongRange(nn.Module):
    """Ewald's sum of neutralised charges, and a short repulsion.

    With erfc(α r)/r inside the cutoff and exp(-k²/4α²) for k-vectors, α = accuracy / cutoff and k-vectors up to
    2 α accuracy leave out terms of the order of exp(-accuracy²).
    """

    def __init__(
        self,
        charges: list[float],
        cutoff: float,
        response: float = 0.1,
        repulsion: float = 1500.0,
        accuracy: float = 5.0,
    ):
        super().__init__()
        self.register_buffer("charges", torch.tensor(charges))  # e, by type index
        self.cutoff = cutoff
        self.coulomb = 14.399645  # e²/4πε₀, eV Å, as LAMMPS has it
        self.response = response  # of a charge to its neighbours, without a unit
        self.repulsion = repulsion  # eV
        self.alpha = accuracy / cutoff  # 1/Å
        self.longest_k = 2.0 * self.alpha * accuracy  # 1/Å

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        positions: Tensor,
        cell: Tensor,
    ) -> Tensor:
        centres, neighbours = edge_index[0], edge_index[1]
        r = edge_vectors.square().sum(1).sqrt()
        near = (1.0 - (r / self.cutoff).square()).clamp(min=0.0).pow(3)
        nothing = torch.zeros([n_owned], dtype=edge_vectors.dtype, device=edge_vectors.device)

        # charges from the surroundings, shifted so that those of all atoms on all ranks add up to zero
        bare = self.charges[node_types]
        charges = bare[:n_owned] - nothing.index_add(0, centres, self.response * near * bare[neighbours])
        sums = torch.ops.mlip.sum_over_atoms(torch.stack([charges, torch.ones_like(charges)], dim=1))
        charges = charges - sums[0] / sums[1]

        # pairs inside the cutoff
        everyone = torch.ops.mlip.ghost_gather(charges.unsqueeze(1), node_types.size(0)).squeeze(1)
        pairs = self.coulomb * everyone[centres] * everyone[neighbours] * torch.erfc(self.alpha * r) / r
        pairs = pairs + self.repulsion * near * torch.exp(-r / 0.3)
        energies = nothing.index_add(0, centres, 0.5 * pairs)

        return energies + self.beyond(charges.to(torch.float64), positions, cell).to(edge_vectors.dtype)

    def beyond(self, charges: Tensor, positions: Tensor, cell: Tensor) -> Tensor:
        """What k-vectors add, and Ewald's correction for each charge with itself, eV [n_owned], in float64."""
        k = self.k_vectors(cell)
        squared = k.square().sum(1)
        weights = torch.exp(-squared / (4.0 * self.alpha**2)) / squared
        phases = positions @ k.t()
        cosines, sines = torch.cos(phases), torch.sin(phases)
        # structure factors of all ranks: each rank brings one row, the sum over its own atoms
        own = torch.stack([charges @ cosines, charges @ sines]).unsqueeze(0)
        factors = torch.ops.mlip.sum_over_atoms(own)
        # half of the k-vectors stand for both: 4π, not 2π
        scale = 4.0 * math.pi * self.coulomb / torch.linalg.det(cell).abs()
        potentials = scale * (cosines @ (weights * factors[0]) + sines @ (weights * factors[1]))
        return charges * (potentials - self.coulomb * self.alpha / math.sqrt(math.pi) * charges)

    def k_vectors(self, cell: Tensor) -> Tensor:
        """One of k and -k for each vector of the reciprocal lattice up to the longest, 1/Å [n, 3]."""
        lengths = cell.detach().square().sum(1).sqrt()
        most = torch.floor(self.longest_k * lengths / (2.0 * math.pi)).to(torch.int64)
        ranges = [torch.arange(-int(most[a]), int(most[a]) + 1, device=cell.device) for a in range(3)]
        n = torch.cartesian_prod(ranges[0], ranges[1], ranges[2])
        first = torch.where(n[:, 0] != 0, n[:, 0], torch.where(n[:, 1] != 0, n[:, 1], n[:, 2]))
        n = n[first > 0].to(cell.dtype)
        reciprocal = 2.0 * math.pi * torch.linalg.inv(cell).t()
        inside = (n @ reciprocal.detach()).square().sum(1) <= self.longest_k**2
        return n[inside] @ reciprocal


if __name__ == "__main__":
    export_module(
        LongRange(charges=[0.9, -0.9], cutoff=8.0),
        "long_range.mlip.pt",
        elements=["Na", "Cl"],
        cutoff=8.0,
        name="long-range",
        message_passing_layers=2,
        parallel="exchange",
        positions="periodic",
        dtype="float64",
    )
