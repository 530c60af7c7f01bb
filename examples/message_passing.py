"""A message-passing model of your own: two layers, one file for any number of ranks in LAMMPS, for OpenMM and ASE.

python examples/message_passing.py && mlip check messages.mlip.pt --ranks 1,2
"""

import torch
from torch import Tensor, nn

from mlip_deploy import export_module


class Messages(nn.Module):
    """In each layer an atom adds its neighbours' features to its own; its last features give its energy."""

    def __init__(self, n_elements: int, cutoff: float, width: int = 8, layers: int = 2):
        super().__init__()
        torch.manual_seed(0)
        self.cutoff = cutoff
        self.embedding = nn.Embedding(n_elements, width)
        self.mix = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
        self.readout = nn.Linear(width, 1)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        centres, neighbours = edge_index[0], edge_index[1]
        # smooth: neighbours arrive at the cutoff with zero value and slope
        weight = (1.0 - (edge_vectors * edge_vectors).sum(dim=1, keepdim=True) / self.cutoff**2) ** 3
        x = self.embedding(node_types[:n_owned])
        for mix in self.mix:
            # features of owned atoms in, of owned and ghost atoms out: neighbours may be of another rank
            everyone = torch.ops.mlip.ghost_gather(x, node_types.size(0))
            messages = weight * mix(everyone)[neighbours]
            x = torch.tanh(x + torch.zeros_like(x).index_add(0, centres, messages))
        return self.readout(x)[:, 0]


if __name__ == "__main__":
    export_module(
        Messages(n_elements=2, cutoff=4.5),
        "messages.mlip.pt",
        elements=["Na", "Cl"],
        cutoff=4.5,
        name="messages",
        message_passing_layers=2,
        parallel="exchange",
        dtype="float64",
    )
