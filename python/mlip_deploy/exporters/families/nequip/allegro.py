"""Allegro's tensor product as one matrix product for each channel, from torch's operators alone.

Allegro multiplies the outer product of two features [n_edges, channels, i, j] with coefficients [channels, i, j, k] and
sums over i and j; written out, [n_edges, channels, i, j, k] numbers are stored and read, forward and backward.
"""

from typing import Any

import torch
from torch import Tensor, nn


class BatchedContracter(nn.Module):
    """The same numbers as `allegro.nn._strided.Contracter`.

    Args:
        original: the module, whose weights are multiplied into the coefficients here.
    """

    __constants__ = ("diagonal",)
    matrices: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.channels: int = original.mul
        self.dim_1: int = original.base_dim1
        self.dim_2: int = original.base_dim2
        self.diagonal: bool = original.w3j_is_ij_diagonal
        with torch.no_grad():
            coefficients = torch.einsum(original._weight_w3j_einstr, original.weights, original.w3j)
        channels = self.channels if original.path_channel_coupling else 1
        self.register_buffer("matrices", coefficients.reshape(channels, -1, coefficients.shape[-1]).contiguous())

    def forward(self, x1: Tensor, x2: Tensor, idxs: Tensor) -> Tensor:
        """
        Args:
            x1: [n_edges, channels x dim_1].
            x2: [n_atoms, channels x dim_2].
            idxs: int64 [n_edges], the row of x2 for each edge.

        Returns:
            [n_edges, channels, dim_out].
        """
        first = x1.reshape(-1, self.channels, self.dim_1)
        second = x2.reshape(-1, self.channels, self.dim_2).index_select(0, idxs)
        outer = first * second if self.diagonal else (first.unsqueeze(3) * second.unsqueeze(2)).flatten(2)
        return torch.matmul(outer.transpose(0, 1), self.matrices).transpose(0, 1).contiguous()


def use_batched_contracters(model: nn.Module) -> None:
    """Put BatchedContracter in place of every Contracter of the model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "Contracter":
                setattr(module, name, BatchedContracter(child))
