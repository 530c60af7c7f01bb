"""A model of your own in thirty lines: Lennard-Jones neon and argon, one file for LAMMPS, OpenMM and ASE.

python examples/lennard_jones.py && mlip check lj.mlip.pt
"""

import torch
from torch import Tensor, nn

from mlip_deploy import EnergyFrame, export_module


class LennardJones(nn.Module):
    """Every atom has half of its pairs' energies 4 ε [(σ/r)¹² - (σ/r)⁶], shifted to zero at the cutoff."""

    def __init__(self, epsilon: list[float], sigma: list[float], cutoff: float):
        super().__init__()
        self.register_buffer("epsilon", torch.tensor(epsilon))  # eV, by type index
        self.register_buffer("sigma", torch.tensor(sigma))  # Å
        self.cutoff = cutoff

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        i, j = node_types[edge_index[0]], node_types[edge_index[1]]
        epsilon, sigma = (self.epsilon[i] * self.epsilon[j]).sqrt(), 0.5 * (self.sigma[i] + self.sigma[j])
        s6 = (sigma**2 / (edge_vectors * edge_vectors).sum(dim=1)) ** 3
        s6_at_cutoff = (sigma / self.cutoff) ** 6
        half = 2.0 * epsilon * ((s6 * s6 - s6) - (s6_at_cutoff * s6_at_cutoff - s6_at_cutoff))
        return torch.zeros(n_owned, dtype=half.dtype, device=half.device).index_add(0, edge_index[0], half)


if __name__ == "__main__":
    export_module(
        LennardJones(epsilon=[0.0031, 0.0104], sigma=[2.74, 3.40], cutoff=8.5),
        "lj.mlip.pt",
        elements=["Ne", "Ar"],
        cutoff=8.5,
        name="lj-ne-ar",
        dtype="float64",
        energy_frame=EnergyFrame(functional="none", hubbard_u="none", corrections="none", dispersion="none"),
        license="MIT",
        citation="Lennard-Jones, J. E. On the determination of molecular fields. Proc. R. Soc. A 1924, 106, 463.",
    )
