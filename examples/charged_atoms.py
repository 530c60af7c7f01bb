"""A model with a total charge that is given at run time, and charges that add up to it over all ranks.

python examples/charged_atoms.py && mlip check charged.mlip.pt --ranks 1,2
"""

import torch
from torch import Tensor, nn

from mlip_deploy import Setting, export_module


class ChargedAtoms(nn.Module):
    """Charges from an atom's surroundings, shifted so that they add up to the total charge, and their interaction."""

    def __init__(self, electronegativity: list[float], cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("electronegativity", torch.tensor(electronegativity))  # e, by type index
        self.register_buffer("scale", torch.tensor([1.0, 1.25]))  # by task

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, settings: Tensor
    ) -> Tensor:
        centres, neighbours = edge_index[0], edge_index[1]
        r = edge_vectors.square().sum(1).sqrt()
        near = (1 - (r / self.cutoff).square()).clamp(min=0).pow(3)
        nothing = torch.zeros([n_owned], dtype=edge_vectors.dtype, device=edge_vectors.device)
        kinds = self.electronegativity[node_types]
        charges = kinds[:n_owned] + nothing.index_add(0, centres, 0.1 * near * kinds[neighbours])
        # of all atoms, on all ranks: the sum of the charges, and the number of atoms
        sums = torch.ops.mlip.sum_over_atoms(torch.stack([charges, torch.ones_like(charges)], dim=1))
        charges = charges + (settings[0] - sums[0]) / sums[1]
        everyone = torch.ops.mlip.ghost_gather(charges.unsqueeze(1), node_types.size(0)).squeeze(1)
        # 7.2 eV Å: half of e²/4πε₀; and a repulsion
        pairs = near * (7.2 * everyone[centres] * everyone[neighbours] / r + 1.0)
        return self.scale[settings[1:2].long()] * (0.5 * charges.square() + nothing.index_add(0, centres, pairs))


if __name__ == "__main__":
    export_module(
        ChargedAtoms([0.9, -0.7], cutoff=4.0),
        "charged.mlip.pt",
        elements=["Na", "Cl"],
        cutoff=4.0,
        name="charged",
        message_passing_layers=2,
        parallel="exchange",
        settings=[
            Setting(name="charge", kind="integer", unit="e", range=(-3, 3)),  # no default: it has to be given
            Setting(name="task", kind="choice", choices=["plain", "scaled"], default="plain"),
        ],
        dtype="float64",
    )
