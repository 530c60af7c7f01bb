"""Blocks [n_atoms, 2l+1, channels] (see equivariant.py) that depend on the element of the atom alone."""

import torch
from torch import Tensor, nn


class ElementTables(nn.Module):
    """A table over the elements for each block [n_elements, 2l+1, channels]."""

    def __init__(self, blocks: list[Tensor]):
        super().__init__()
        self.tables = nn.ParameterList([nn.Parameter(block, requires_grad=False) for block in blocks])

    def forward(self, types: Tensor) -> list[Tensor]:
        results: list[Tensor] = []
        for table in self.tables:
            results.append(torch.index_select(table, 0, types))
        return results
