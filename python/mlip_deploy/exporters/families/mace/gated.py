"""MACE's gated interaction block (RealAgnosticResidualNonLinearInteractionBlock) on fused operators.

The convolution is that of the other blocks, with radial weights that depend on the elements of both atoms too. After it
come a residual connection within the block, a gate and one more linear map.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.mace.radial import LayerTables
from mlip_deploy.exporters.families.mace.symmetric_contraction import SymmetricContraction
from mlip_deploy.exporters.layers.element_layers import ElementTables
from mlip_deploy.exporters.layers.equivariant import (
    EdgeTensorProduct,
    EquivariantLinear,
    Gate,
    GateChannel,
    NeighbourSum,
    NotFusible,
    activations_of,
    linear_term,
    table_term,
    to_blocks,
)

NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"


class NonLinearLayer(nn.Module):
    """One gated interaction and its product block, with the interface of `fused.FusedMACELayer`.

    Args:
        interaction, product: MACE's.
        embedding: features of each element [n_elements, channels] for the first layer, None for the others.
        tables: of the radial networks; None to evaluate them.
        n_elements: of the model.
        dtype: of the model.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("first", "same_for_all", "tabulated")
    rows: Tensor

    def __init__(
        self,
        interaction: Any,
        product: Any,
        embedding: Tensor | None,
        tables: LayerTables | None,
        n_elements: int,
        dtype: torch.dtype,
    ):
        super().__init__()
        self.first = embedding is not None
        self.tabulated = tables is not None
        self.needs_features = not self.tabulated
        self.linear_up: nn.Module = nn.Identity()
        rows = torch.zeros(0)
        if embedding is None:
            self.linear_up = EquivariantLinear(linear_term(interaction.linear_up))
            self.residual: nn.Module = EquivariantLinear(linear_term(interaction.linear_res))
            skip = linear_term(interaction.skip_tp)
        else:
            with torch.no_grad():
                up = interaction.linear_up(embedding)
                skip = table_term(to_blocks(interaction.skip_tp(embedding), interaction.skip_tp.irreps_out))
                residual = to_blocks(interaction.linear_res(up), interaction.linear_res.irreps_out)
            rows = torch.cat([block.flatten(1) for block in to_blocks(up, interaction.linear_up.irreps_out)], dim=1)
            self.residual = ElementTables(residual)
        self.register_buffer("rows", rows)
        self.radial_network: nn.Module = nn.Identity()
        if tables and tables.density:
            self.density: nn.Module = NeighbourSum(tables.density, dtype)
            self.convolution = EdgeTensorProduct(interaction.conv_tp, tables.convolution)
        else:
            self.radial_network = NetworkOfPairs(interaction.conv_tp_weights, interaction, n_elements, dtype)
            self.density = NetworkOfPairs(interaction.density_fn, interaction, n_elements, dtype)
            self.convolution = EdgeTensorProduct(interaction.conv_tp)
        self.linear_1 = EquivariantLinear(linear_term(interaction.linear_1))
        self.alpha, self.beta = float(interaction.alpha), float(interaction.beta)
        self.gate = block_gate(interaction.equivariant_nonlin)
        self.linear_2 = EquivariantLinear(linear_term(interaction.linear_2), as_rows=True)
        self.contraction = SymmetricContraction(product.symmetric_contractions, dtype)
        self.same_for_all = bool(getattr(product, "use_agnostic_product", False))
        self.linear_out = EquivariantLinear(linear_term(product.linear), skip)

    def forward(
        self,
        blocks: list[Tensor],
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        radial: Tensor,
        cutoff: Tensor,
        table_of_edge: Tensor | None,
    ) -> list[Tensor]:
        types = node_types[:n_owned]
        if self.first:
            residual: list[Tensor] = self.residual(types)
            rows = self.rows.index_select(0, node_types)
        else:
            up = self.linear_up(blocks, types)
            residual = self.residual(up, types)
            owned = torch.cat([block.flatten(1) for block in up], dim=1)
            rows = torch.ops.mlip.ghost_gather(owned, node_types.shape[0])
        if self.tabulated:
            weights = distances
            density = self.density(distances, edge_index, n_owned, node_types.shape[0], table_of_edge)
        else:
            centres, neighbours = node_types[edge_index[0]], node_types[edge_index[1]]
            weights = self.radial_network(radial, centres, neighbours) * cutoff
            of_edges = torch.tanh(self.density(radial, centres, neighbours) ** 2) * cutoff
            density = torch.zeros([n_owned, 1], dtype=radial.dtype, device=radial.device)
            density = density.index_add(0, edge_index[0], of_edges)
        norm = (1.0 / (density * self.beta + self.alpha)).unsqueeze(2)
        convolved = self.convolution(rows, harmonics, weights, edge_index, n_owned, table_of_edge)
        messages = self.linear_1(convolved, types)
        updated = [message * norm + own for message, own in zip(messages, residual)]  # noqa: B905  TorchScript
        updated = self.linear_2(self.gate(updated), types)
        products = self.contraction(updated[0], torch.zeros_like(types) if self.same_for_all else types)
        if not self.first:
            products = products + blocks
        result: list[Tensor] = self.linear_out(products, types)
        return result


class NetworkOfPairs(nn.Module):
    """A network of radial features and of the elements of both atoms.

    The elements enter the first layer, which is linear: their part of it is a table for each of the two atoms.

    Args:
        original: RadialMLP.
        interaction: the block with the embeddings of the elements.
    """

    matrix: Tensor
    of_centre: Tensor
    of_neighbour: Tensor

    def __init__(self, original: Any, interaction: Any, n_elements: int, dtype: torch.dtype):
        super().__init__()
        first, *others = original.net
        one_hot = torch.eye(n_elements, dtype=dtype)
        with torch.no_grad():
            # MACE's sender is our neighbour, its receiver our centre.
            neighbour, centre = interaction.source_embedding(one_hot), interaction.target_embedding(one_hot)
            n_radial = first.in_features - neighbour.shape[1] - centre.shape[1]
            parts = first.weight.split([n_radial, neighbour.shape[1], centre.shape[1]], dim=1)
            self.register_buffer("matrix", parts[0].detach().transpose(0, 1).contiguous())
            self.register_buffer("of_neighbour", neighbour @ parts[1].detach().transpose(0, 1))
            self.register_buffer("of_centre", centre @ parts[2].detach().transpose(0, 1) + first.bias.detach())
        self.others = nn.Sequential(*others)

    def forward(self, radial: Tensor, centres: Tensor, neighbours: Tensor) -> Tensor:
        """
        Args:
            radial: [n_edges, n_radial].
            centres, neighbours: int64 [n_edges], element indices.
        """
        first = torch.matmul(radial, self.matrix) + self.of_centre[centres] + self.of_neighbour[neighbours]
        result: Tensor = self.others(first)
        return result


def block_gate(original: Any) -> Gate:
    """MACE's GatedEquivariantBlock on blocks.

    Raises:
        NotFusible: when scalars, gates and the rest do not follow each other in that order.
    """
    simple = original.irreps_in.simplify()
    n_scalars = original._s_len
    gated = [(start, length) for start, length, *_ in original._gated_info]
    places = [
        (part.start, part.stop - part.start) for part, entry in zip(simple.slices(), simple, strict=True) if entry.ir.l
    ]
    scalars = [entry for entry in simple if entry.ir.l == 0]
    in_order = original._s_start == 0 and original._g_start == (n_scalars if gated else 0)
    if gated != places or not in_order or len(scalars) != 1:
        raise NotFusible(f"the gate of {original.irreps_in} does not have scalars, gates and the rest in this order")
    acts = activations_of(lambda x: original._scalar_cst * original._act_scalar(x), n_scalars)
    channels = [GateChannel(act, (0, u), None, (0, u)) for u, act in enumerate(acts)]
    if not gated:
        return Gate(channels)
    acts = activations_of(lambda x: original._gate_cst * original._act_gate(x), scalars[0].mul - n_scalars)
    for block, (*_, n, gate) in enumerate(original._gated_info, start=1):
        channels += [GateChannel(acts[gate + u], (0, n_scalars + gate + u), (block, u), (block, u)) for u in range(n)]
    return Gate(channels)
