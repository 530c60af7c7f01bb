"""Nequix behind the model interface, in component-major layout: the same numbers as nequix's model in PyTorch.

Nequix is NequIP (S. Batzner et al. 2022) without products with the elements: per layer a linear map, the convolution, a
linear map beside a linear connection around it, a norm over all components and channels, and a gate. Features are lists
of blocks [n_atoms, 2l+1, channels] (see layers/equivariant.py). The convolution is `mlip::edge_tensor_product`, or with
`fuse` False e3nn's own tensor product. Radial networks can be tables.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.equivariant import (
    Convolution,
    EdgeHarmonics,
    EquivariantLinear,
    Gate,
    GateChannel,
    LinearTerm,
    NotFusible,
    activations_of,
    linear_term,
    table_term,
    to_blocks,
)
from mlip_deploy.exporters.layers.polynomial_cutoff import polynomial_cutoff
from mlip_deploy.exporters.layers.radial_table import RadialTable, radial_table


class NequixEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV.

    Args:
        model: `NequixTorch` in the type to compute in.
        in_float64: the same in float64, to make tables of; None to evaluate the radial networks.
        species: the model's index of each of the artifact's elements.
        fuse: whether to use mlip's operators, or e3nn's layers.

    Raises:
        NotFusible: for features whose irreps are not in e3nn's order, or odd scalars.
    """

    def __init__(self, model: Any, in_float64: Any | None, species: list[int], fuse: bool):
        super().__init__()
        from e3nn import o3

        harmonics = o3.SphericalHarmonics(list(range(model.lmax + 1)), normalize=True, normalization="component")
        self.harmonics: nn.Module = EdgeHarmonics(harmonics) if fuse else PlainHarmonics(harmonics)
        self.radial = RadialBasis(model)
        layers = []
        for k, layer in enumerate(model.layers):
            table = None if in_float64 is None or not fuse else _tabulated(in_float64, k, model.atom_energies.dtype)
            layers.append(NequixLayer(layer, species if k == 0 else None, table, fuse))
        self.layers = nn.ModuleList(layers)
        self.needs_network = not all(layer.tabulated for layer in layers)
        offsets = model.atom_energies[species].detach() + model.shift
        readout = linear_term(model.readout, None, float(model.scale)), table_term([offsets.reshape(-1, 1, 1)])
        self.readout = EquivariantLinear(*readout) if fuse else PlainLinear(*readout)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars of the last layer."""
        distances, harmonics = self.harmonics(edge_vectors)
        radial = self.radial(distances) if self.needs_network else distances
        blocks: list[Tensor] = []
        for layer in self.layers:
            blocks = layer(blocks, node_types, n_owned, edge_index, harmonics, distances, radial)
        energies: Tensor = self.readout(blocks, node_types[:n_owned])[0].flatten()
        return energies, blocks[0].squeeze(1)


class RadialBasis(nn.Module):
    """Bessel functions with Nequix's polynomial cutoff: distances [n] in Å -> [n, n_functions]."""

    frequencies: Tensor

    def __init__(self, model: Any):
        super().__init__()
        self.cutoff: float = float(model.cutoff)
        self.p: float = float(model.radial_polynomial_p)
        n = int(model.radial_basis_size)
        dtype = model.atom_energies.dtype
        self.register_buffer("frequencies", torch.linspace(1.0, n, n, dtype=dtype) * torch.pi)

    def forward(self, distances: Tensor) -> Tensor:
        r = distances.unsqueeze(1)
        x = r / self.cutoff
        return (2.0 / self.cutoff) * torch.sin(self.frequencies * x) / r * polynomial_cutoff(x, self.p)


class RadialNetwork(nn.Module):
    """Nequix's multilayer perceptron without biases: [n_edges, n_functions] -> weights [n_edges, n_weights]."""

    def __init__(self, original: Any):
        super().__init__()
        self.matrices = nn.ParameterList([layer.weights.detach() for layer in original.layers]).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for k, matrix in enumerate(self.matrices):
            x = torch.matmul(torch.nn.functional.silu(x) if k > 0 else x, matrix)
        return x


class NequixLayer(nn.Module):
    """One of Nequix's layers.

    Args:
        original: `NequixTorchConvolution`.
        species: in the first layer, whose features are the elements, the model's index of each element.
        table: radial table; None to evaluate the radial network.
        fuse: see NequixEnergy.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("first", "has_norm")
    rows: Tensor

    def __init__(self, original: Any, species: list[int] | None, table: RadialTable | None, fuse: bool):
        super().__init__()
        irreps = original.linear_1.irreps_in
        product = _in_order(original)
        if str(product.irreps_in1.simplify()) != str(irreps):
            raise NotFusible(f"features {product.irreps_in1} are not in e3nn's order, {irreps}")
        self.first = species is not None
        self.tabulated = table is not None
        rows = original.linear_1.weight.new_zeros(0)
        linear = EquivariantLinear if fuse else PlainLinear
        self.linear_in: nn.Module = nn.Identity()
        if species is not None:
            one_hot = torch.eye(irreps.dim, dtype=rows.dtype)[species]
            with torch.no_grad():
                rows = original.linear_1(one_hot)
                skip = table_term(to_blocks(original.skip(one_hot), original.skip.irreps_out))
        else:
            self.linear_in = linear(linear_term(original.linear_1), as_rows=True)
            skip = linear_term(original.skip)
        self.register_buffer("rows", rows)
        network = RadialNetwork(original.radial_mlp)
        self.convolution = Convolution(product, network, table) if fuse else PlainConvolution(product, network)
        self.linear_out = linear(linear_term(original.linear_2, None, 1.0 / math.sqrt(original.avg_n_neighbors)), skip)
        self.has_norm = original.layer_norm is not None
        self.norm = RootMeanSquareNorm(original.layer_norm) if self.has_norm else nn.Identity()
        self.gate: nn.Module = nequix_gate(original.gate) if fuse else PlainGate(original.gate)

    def forward(
        self,
        blocks: list[Tensor],
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        radial: Tensor,
    ) -> list[Tensor]:
        types = node_types[:n_owned]
        if self.first:
            rows = self.rows.index_select(0, node_types)
        else:
            rows = torch.ops.mlip.ghost_gather(self.linear_in(blocks, types)[0], node_types.shape[0])
        messages = self.convolution(rows, harmonics, distances, radial, None, edge_index, n_owned)
        if not self.first:
            messages = messages + blocks
        updated = self.linear_out(messages, types)
        if self.has_norm:
            updated = self.norm(updated)
        result: list[Tensor] = self.gate(updated)
        return result


class RootMeanSquareNorm(nn.Module):
    """Nequix's RMSLayerNorm: one norm over all blocks, in which every l has the same weight."""

    def __init__(self, original: Any):
        super().__init__()
        self.epsilon: float = float(original.eps)
        self.weights = nn.ParameterList([weight.detach() for weight in original.affine_weight]).requires_grad_(False)
        self.shares: list[float] = [1.0 / (entry.ir.dim**2 * len(original.irreps)) for entry in original.irreps]

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        square = torch.zeros_like(blocks[0][:, :1, :1])
        for block, share in zip(blocks, self.shares):  # noqa: B905  TorchScript knows no strict=
            square = square + share * block.square().sum([1, 2], keepdim=True)
        norm = (square + self.epsilon).rsqrt()
        results: list[Tensor] = []
        for k, weight in enumerate(self.weights):
            results.append(blocks[k] * (norm * weight))
        return results


def nequix_gate(original: Any) -> Gate:
    """Nequix's Gate: the last scalars, activated, multiply the channels of the other blocks.

    Raises:
        NotFusible: for odd scalars, or scalars that are not first.
    """
    scalars, channels = _gate_sizes(original)
    (function,) = original.scalars_extra.acts
    acts = activations_of(function, scalars + sum(channels))
    result = [GateChannel(acts[u], (0, u), None, (0, u)) for u in range(scalars)]
    for block, n in enumerate(channels, start=1):
        gate = len(result)
        result += [GateChannel(acts[gate + u], (0, gate + u), (block, u), (block, u)) for u in range(n)]
    return Gate(result)


def _gate_sizes(original: Any) -> tuple[int, list[int]]:
    """Scalars of the result, and channels of its other blocks."""
    irreps = original.irreps_out.simplify()
    if irreps[0].ir.l != 0 or irreps[0].ir.p != 1 or any(entry.ir.l == 0 for entry in irreps[1:]):
        raise NotFusible(f"the gate of {irreps} has odd scalars, or scalars that are not first")
    channels = [entry.mul for entry in irreps[1:]]
    return irreps[0].mul - sum(channels), channels


class PlainLinear(EquivariantLinear):
    """EquivariantLinear by torch's operators, of terms whose matrices are the same for all elements."""

    def __init__(self, *terms: LinearTerm, as_rows: bool = False):
        super().__init__(*terms, as_rows=as_rows)

    def forward(self, inputs: list[Tensor], types: Tensor) -> list[Tensor]:
        """As `EquivariantLinear.forward`."""
        results: list[Tensor] = []
        first_value = 0
        for block in range(len(self.blocks) // 2):
            components, channels = self.blocks[2 * block], self.blocks[2 * block + 1]
            total = torch.zeros([types.shape[0], components, channels], dtype=self.bias.dtype, device=self.bias.device)
            start = 0
            for k in range(0, len(self.products), 4):
                n = self.products[k + 3] * self.blocks[2 * self.products[k + 1] + 1]
                if self.products[k + 1] == block:
                    matrix = self.matrices[0, start : start + n].view(-1, channels)
                    total = total + torch.matmul(inputs[self.products[k]], matrix)
                start += n
            if self.bias.shape[0] > 0:
                own = self.bias[:, first_value : first_value + components * channels]
                total = total + own[types].view(-1, components, channels)
            first_value += components * channels
            results.append(total)
        return [torch.cat([block.flatten(1) for block in results], dim=1)] if self.as_rows else results


class PlainGate(nn.Module):
    """`nequix_gate` by torch's operators."""

    def __init__(self, original: Any):
        super().__init__()
        scalars, self.channels = _gate_sizes(original)
        self.parts = [scalars, *self.channels]
        # Nequix divides the activation by the root of its mean square over normal numbers.
        one = torch.ones(1, dtype=torch.float64)
        (activation,) = original.scalars_extra.acts
        self.scale = float(activation(one) / torch.nn.functional.silu(one))

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        activated = self.scale * torch.nn.functional.silu(blocks[0])
        parts = torch.split(activated, self.parts, dim=2)
        results: list[Tensor] = [parts[0]]
        for k in range(len(self.parts) - 1):
            results.append(blocks[k + 1] * parts[k + 1])
        return results


class PlainHarmonics(nn.Module):
    """Lengths [n_edges] Å and harmonics [n_edges, (l_max+1)²] of edge vectors, by e3nn."""

    def __init__(self, original: Any):
        super().__init__()
        self.original = original

    def forward(self, edge_vectors: Tensor) -> tuple[Tensor, Tensor]:
        harmonics: Tensor = self.original(edge_vectors)
        return torch.linalg.vector_norm(edge_vectors, dim=[1]), harmonics


class PlainConvolution(nn.Module):
    """e3nn's tensor product with its gather before and its sum over neighbours after, on rows and blocks.

    Args:
        original: TensorProduct with output irreps in order.
        network: radial basis [n_edges, n_functions] -> weights [n_edges, n_weights].
    """

    def __init__(self, original: Any, network: nn.Module):
        super().__init__()
        self.original, self.network = original, network
        self.irreps_in = [(entry.mul, entry.ir.dim) for entry in original.irreps_in1.simplify()]
        self.irreps_out = [(entry.mul, entry.ir.dim) for entry in original.irreps_out.simplify()]

    def forward(
        self,
        rows: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        radial: Tensor,
        cutoff: Tensor | None,
        edge_index: Tensor,
        n_owned: int,
    ) -> list[Tensor]:
        """As `Convolution.forward`."""
        parts: list[Tensor] = []
        start = 0
        for channels, components in self.irreps_in:
            block = rows[:, start : start + channels * components].reshape(rows.shape[0], components, channels)
            parts.append(block.transpose(1, 2).flatten(1))
            start += channels * components
        features = torch.cat(parts, dim=1)
        messages = self.original(features[edge_index[1]], harmonics, self.network(radial))
        total = torch.zeros([n_owned, messages.shape[1]], dtype=messages.dtype, device=messages.device)
        total = total.index_add(0, edge_index[0], messages)
        results: list[Tensor] = []
        start = 0
        for channels, components in self.irreps_out:
            block = total[:, start : start + channels * components].reshape(n_owned, channels, components)
            results.append(block.transpose(1, 2))
            start += channels * components
        return results


def _in_order(layer: Any) -> Any:
    """A layer's tensor product with its output irreps in e3nn's order, into which Nequix sorts them afterwards."""
    from e3nn import o3

    original = layer.tp
    order = original.irreps_out.sort()
    instructions = [
        (i.i_in1, i.i_in2, order.p[i.i_out], i.connection_mode, i.has_weight) for i in original.instructions
    ]
    return o3.TensorProduct(
        original.irreps_in1,
        original.irreps_in2,
        order.irreps,
        instructions=instructions,
        shared_weights=False,
        internal_weights=False,
    )


def _tabulated(model: Any, layer: int, dtype: torch.dtype) -> RadialTable | None:
    """The radial network of a layer as a table for a model of type `dtype`, from a model in float64."""
    basis, network = RadialBasis(model), RadialNetwork(model.layers[layer].radial_mlp)

    def weights(r: Tensor) -> Tensor:
        result: Tensor = network(basis(r))
        return result

    return radial_table(weights, float(model.cutoff), dtype)
