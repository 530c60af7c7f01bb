"""Layers whose weights depend on the element of the atom, on blocks [n_atoms, 2l+1, channels] (see equivariant.py)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.equivariant import NotFusible


class ElementTables(nn.Module):
    """Blocks that depend on the element alone."""

    def __init__(self, blocks: list[Tensor]):
        super().__init__()
        self.tables = nn.ParameterList([nn.Parameter(block, requires_grad=False) for block in blocks])

    def forward(self, blocks: list[Tensor], types: Tensor) -> list[Tensor]:
        results: list[Tensor] = []
        for table in self.tables:
            results.append(table[types])
        return results


class ElementLinear(nn.Module):
    """e3nn's FullyConnectedTensorProduct with scalars of the element: a linear layer for each element.

    Args:
        original: the product, with blocks first and the scalars of the element second.
        attributes: the scalars of each element [n_elements, irreps_in2.dim]; None for one-hot elements.

    Raises:
        NotFusible: when blocks would be mixed.
    """

    def __init__(self, original: Any, attributes: Tensor | None = None):
        super().__init__()
        irreps_in, irreps_out = original.irreps_in1, original.irreps_out
        matrices: dict[int, tuple[int, Tensor]] = {}
        for k, instruction in enumerate(original.instructions):
            entry = irreps_in[instruction.i_in1]
            if instruction.connection_mode != "uvw" or instruction.i_out in matrices:
                raise NotFusible(f"a product with the elements from {irreps_in} to {irreps_out} mixes irreps")
            weight = original.weight_view_for_instruction(k).detach().transpose(0, 1)
            if attributes is not None:
                weight = torch.einsum("ec,cij->eij", attributes.double(), weight.double()).to(weight)
            # The Clebsch-Gordan coefficients of l x 0 -> l are the unit matrix over sqrt(2l+1).
            factor = instruction.path_weight / math.sqrt(entry.ir.dim)
            matrices[instruction.i_out] = (instruction.i_in1, factor * weight)
        n_elements = int(original.irreps_in2.dim) if attributes is None else attributes.shape[0]
        blocks = []
        for target, entry in enumerate(irreps_out):
            nothing = (-1, original.weight.detach().new_zeros(n_elements, 0, entry.mul))
            source, weight = matrices.get(target, nothing)
            blocks.append(ElementLinearBlock(source, weight, entry.ir.dim))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, blocks: list[Tensor], types: Tensor) -> list[Tensor]:
        results: list[Tensor] = []
        for block in self.blocks:
            results.append(block(blocks, types))
        return results


class ElementLinearBlock(nn.Module):
    """One block of the result.

    Args:
        source: block that it comes from, -1 for zeros.
        matrices: [n_elements, channels in, channels out].
        components: 2l+1.
    """

    matrices: Tensor

    def __init__(self, source: int, matrices: Tensor, components: int):
        super().__init__()
        self.source = source
        self.components = components
        self.register_buffer("matrices", matrices.contiguous())

    def forward(self, blocks: list[Tensor], types: Tensor) -> Tensor:
        if self.source < 0:
            first = blocks[0]
            return first.new_zeros([first.shape[0], self.components, self.matrices.shape[2]])
        result: Tensor = torch.ops.mlip.element_linear(blocks[self.source], types, self.matrices)
        return result
