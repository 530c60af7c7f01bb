"""What So3krates' layers see of the distance between neighbours."""

from typing import Any

import torch
from torch import Tensor, nn


class RadialBasis(nn.Module):
    """So3krates' functions of the distance: [n] Å to [n, n_functions]."""

    def __init__(self, original: Any):
        super().__init__()
        self.original = original.radial_embedding

    def forward(self, distances: Tensor) -> Tensor:
        functions: Tensor = self.original(distances.unsqueeze(1))
        return functions


class RadialNetworks(nn.Module):
    """The two perceptrons of a layer that see the distance: [n_edges, n_functions] to [n_edges, 2 * n_features].

    Args:
        original: `EuclideanTransformer`.
        bias: added to both [2 * n_features].
    """

    bias: Tensor

    def __init__(self, original: Any, bias: Tensor):
        super().__init__()
        self.first, self.second = original.filter_net_inv.mlp_rbf, original.filter_net_ev.mlp_rbf
        self.register_buffer("bias", bias)

    def forward(self, functions: Tensor) -> Tensor:
        return torch.cat([self.first(functions), self.second(functions)], dim=1) + self.bias
