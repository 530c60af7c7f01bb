"""TensorNet (G. Simeon, G. De Fabritiis 2023) on the model interface's edges, as MatGL and TorchMD-Net have it.

Each channel of an atom is a 3x3 tensor. It is kept as nine components in an orthonormal basis of tensors: one of the
unit matrix, three of skew matrices, five of symmetric traceless ones. A squared Frobenius norm is then a sum of
squares, what acts on the three parts one by one acts on rows, and an edge carries 9 numbers for a channel in place of
27. Only products of two tensors of one atom are made in matrices.

The embedding sums over edges what the elements Z at both ends and the distance say of the edge's direction,

    X_i = Σ_j (a_Zi + b_Zj) w(r_ij) Y(r_ij / |r_ij|),

and each layer sums the tensors of the neighbours with weights w(r_ij) for the three parts. Both are products of
`mlip::edge_tensor_product`; without `fuse` they are made of torch's operators.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.dense import linear_layer
from mlip_deploy.exporters.layers.radial_table import NO_TABLE, RadialTable, radial_table


@dataclass(frozen=True)
class Form:
    """In what the TensorNet of a package differs."""

    basis: Callable[[Any], nn.Module]
    """of a model: distances [n] Å -> its radial basis [n, n_functions]"""
    part_by_part: Callable[[nn.Linear], nn.Linear]
    """of a linear layer to values of the three parts: one whose rows are [3, channels]"""
    cutoff: float
    """Å"""
    own_neighbour: bool = False
    """an atom is a neighbour of its own, at a distance of zero"""
    factor: float = 1.0
    """of products of two tensors"""


class TensorNetNorms(nn.Module):
    """Squared norms of the parts of owned atoms' tensors [n_owned, 3 channels], from edge vectors.

    Args:
        model: a package's TensorNet, in the type to compute in.
        in_float64: the same in float64, to make tables of its radial networks; None to evaluate them.
        species: the model's index of each of the artifact's elements.
        form: of the package.
        fuse: whether to use mlip's operators, or torch's alone.
    """

    basis: Tensor

    def __init__(self, model: Any, in_float64: Any | None, species: list[int], form: Form, fuse: bool):
        super().__init__()
        dtype = model.linear.weight.dtype
        self.register_buffer("basis", tensor_basis().to(dtype))
        self.radial = form.basis(model)
        tabulated = fuse and in_float64 is not None
        tables = _tables(in_float64, form, dtype) if tabulated else [None] * (1 + len(model.layers))
        at_zero = self.radial(torch.zeros([1], dtype=dtype)) if form.own_neighbour else None
        self.embedding = Embedding(model.tensor_embedding, species, tables[0], form, fuse, at_zero)
        self.layers = nn.ModuleList(
            Interaction(layer, table, form, fuse, at_zero)
            for layer, table in zip(model.layers, tables[1:], strict=True)
        )
        self.needs_radial = None in tables

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        distances = torch.linalg.vector_norm(edge_vectors, dim=[1])
        directions = self.components(edge_vectors / distances.unsqueeze(1))
        radial = self.radial(distances) if self.needs_radial else distances
        x = self.embedding(node_types, n_owned, edge_index, directions, distances, radial)
        for layer in self.layers:
            x = layer(x, node_types.size(0), edge_index, distances, radial)
        squares = x * x
        return torch.cat([squares[:, 0], squares[:, 1:4].sum(dim=1), squares[:, 4:].sum(dim=1)], dim=1)

    def components(self, u: Tensor) -> Tensor:
        """Of the three tensors of directions u [n_edges, 3]: unit matrix, skew matrix of u, uuᵀ - 1/3; [n_edges, 9]."""
        outer = (u.unsqueeze(2) * u.unsqueeze(1)).flatten(1)
        unit = torch.full([u.size(0), 1], math.sqrt(3.0), dtype=u.dtype, device=u.device)
        return torch.cat([unit, math.sqrt(2.0) * u, torch.mm(outer, self.basis[:, 4:])], dim=1)


def tensor_basis() -> Tensor:
    """Orthonormal tensors, float64: a column [9] for each component, a 3x3 matrix row by row."""
    basis = torch.zeros(3, 3, 9, dtype=torch.float64)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        basis[i, i, 0] = math.sqrt(1 / 3)
        basis[k, j, 1 + i] = math.sqrt(1 / 2)
        basis[j, k, 1 + i] = -math.sqrt(1 / 2)
        basis[j, k, 4 + i] = basis[k, j, 4 + i] = math.sqrt(1 / 2)
    basis[0, 0, 7], basis[1, 1, 7] = math.sqrt(1 / 2), -math.sqrt(1 / 2)
    basis[0, 0, 8] = basis[1, 1, 8] = -math.sqrt(1 / 6)
    basis[2, 2, 8] = math.sqrt(2 / 3)
    return basis.reshape(9, 9)


# ---- functions of the distance ---------------------------------------------------------------------------------


class RadialWeights(nn.Module):
    """Weights of the edges [n_edges, 3 channels], the channels of each part behind each other.

    Args:
        linears: from the radial basis [n_edges, n_functions] on.
        activation: after each of them; None for none.
        cutoff: Å.
    """

    def __init__(self, linears: list[nn.Linear], activation: nn.Module | None, cutoff: float):
        super().__init__()
        self.linears = nn.ModuleList(linears)
        self.activation = nn.Identity() if activation is None else activation
        self.cutoff = cutoff

    def forward(self, radial: Tensor, distances: Tensor) -> Tensor:
        for linear in self.linears:
            radial = self.activation(linear(radial))
        return radial * (0.5 * torch.cos(distances * (math.pi / self.cutoff)) + 0.5).unsqueeze(1)


def _embedding_weights(original: Any, form: Form) -> RadialWeights:
    projections = [original.distance_proj1, original.distance_proj2, original.distance_proj3]
    weight = torch.cat([linear.weight.detach() for linear in projections])
    bias = torch.cat([linear.bias.detach() for linear in projections])
    return RadialWeights([linear_layer(weight, bias)], None, form.cutoff)


def _layer_weights(original: Any, form: Form) -> RadialWeights:
    first, second, third = original.linears_scalar
    return RadialWeights([first, second, form.part_by_part(third)], original.act, form.cutoff)


def _tables(model: Any, form: Form, dtype: torch.dtype) -> list[RadialTable | None]:
    """Of the embedding and of each layer; None where none is good enough."""
    basis = form.basis(model)
    networks = [_embedding_weights(model.tensor_embedding, form)]
    networks += [_layer_weights(layer, form) for layer in model.layers]

    def function(network: RadialWeights) -> Callable[[Tensor], Tensor]:
        return lambda r: network(basis(r), r)

    return [radial_table(function(network), form.cutoff, dtype) for network in networks]


# ---- sums over edges -------------------------------------------------------------------------------------------


class Sum(nn.Module):
    """Over the neighbours of each centre, of the neighbours' tensors with radial weights for each part."""

    def __init__(self, network: RadialWeights):
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor, n_owned: int, edge_index: Tensor, distances: Tensor, radial: Tensor) -> Tensor:
        """[n_owned, 9, channels]

        Args:
            rows: of all nodes [n_nodes, 9 * channels].
            edge_index: int64 [2, n_edges].
            distances: [n_edges], Å.
            radial: [n_edges, n_functions].
        """
        centres, neighbours = edge_index[0], edge_index[1]
        n_channels = rows.size(1) // 9
        weights = self.network(radial, distances).chunk(3, dim=1)
        sums = []
        for weight, part in zip(weights, torch.split(rows, [n_channels, 3 * n_channels, 5 * n_channels], dim=1)):  # noqa: B905
            size = part.size(1) // n_channels
            values = part.index_select(0, neighbours).view(distances.size(0), size, n_channels)
            zeros = torch.zeros([n_owned, size, n_channels], dtype=rows.dtype, device=rows.device)
            sums.append(zeros.index_add(0, centres, weight.unsqueeze(1) * values))
        return torch.cat(sums, dim=1)


class EmbeddingSum(nn.Module):
    """Over the neighbours of each centre, of the directions with radial weights and factors of the elements."""

    def __init__(self, network: RadialWeights):
        super().__init__()
        self.network = network

    def forward(
        self,
        of_centres: Tensor,
        of_neighbours: Tensor,
        edge_index: Tensor,
        directions: Tensor,
        distances: Tensor,
        radial: Tensor,
    ) -> Tensor:
        """[n_owned, 9, channels]

        Args:
            of_centres: [n_owned, channels].
            of_neighbours: of all nodes [n_nodes, channels].
            directions: [n_edges, 9].
            edge_index, distances, radial: see Sum.
        """
        centres, neighbours = edge_index[0], edge_index[1]
        factors = of_centres.index_select(0, centres) + of_neighbours.index_select(0, neighbours)
        weights = self.network(radial, distances).chunk(3, dim=1)
        sums = []
        for weight, part in zip(weights, torch.split(directions, [1, 3, 5], dim=1)):  # noqa: B905  TorchScript
            zeros = of_centres.new_zeros([of_centres.size(0), part.size(1), of_centres.size(1)])
            sums.append(zeros.index_add(0, centres, (factors * weight).unsqueeze(1) * part.unsqueeze(2)))
        return torch.cat(sums, dim=1)


class EdgeProduct(nn.Module):
    """`mlip::edge_tensor_product` with radial weights from a table, or from their network.

    Args:
        paths: see csrc/operators/edge_tensor_product/edge_tensor_product.cpp; all coefficients are those of the unit
            matrix.
        network: the weights.
        table: their radial table; None to evaluate the network.
        copies: how many times the weights stand behind each other.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("tabulated",)
    coefficients: Tensor
    table: Tensor

    def __init__(self, paths: list[list[int]], network: RadialWeights, table: RadialTable | None, copies: int):
        super().__init__()
        like = next(network.parameters()).detach()
        self.tabulated = table is not None
        self.network = nn.Identity() if self.tabulated else network
        self.copies = copies
        self.paths = [number for path in paths for number in path]
        coefficients = torch.cat([torch.eye(2 * path[2] + 1).flatten() for path in paths])
        self.register_buffer("coefficients", coefficients.to(like))
        values, self.step, self.kink = table or NO_TABLE
        self.register_buffer("table", values.to(like) if table is None else values.repeat(1, copies).to(like))

    def forward(
        self,
        rows: Tensor,
        harmonics: Tensor,
        n_owned: int,
        edge_index: Tensor,
        distances: Tensor,
        radial: Tensor,
    ) -> list[Tensor]:
        """Blocks [n_owned, 2l+1, channels]; for the arguments see Sum, and the operator for rows and harmonics."""
        weights = distances
        if not self.tabulated:
            weights = self.network(radial, distances).repeat(1, self.copies)
        blocks: list[Tensor] = torch.ops.mlip.edge_tensor_product(
            rows,
            harmonics,
            weights,
            edge_index,
            n_owned,
            self.paths,
            self.coefficients,
            self.table,
            self.step,
            None,
            self.kink,
        )
        return blocks


class FusedSum(nn.Module):
    """Sum by one operator."""

    def __init__(self, network: RadialWeights, table: RadialTable | None, n_channels: int):
        super().__init__()
        c = n_channels
        paths = [[degree, 0, degree, c, degree * degree * c, 0, degree * c, degree, 0] for degree in range(3)]
        self.product = EdgeProduct(paths, network, table, 1)

    def forward(self, rows: Tensor, n_owned: int, edge_index: Tensor, distances: Tensor, radial: Tensor) -> Tensor:
        """As Sum.forward."""
        ones = torch.ones([distances.size(0), 1], dtype=rows.dtype, device=rows.device)
        return torch.cat(self.product(rows, ones, n_owned, edge_index, distances, radial), dim=1)


class FusedEmbeddingSum(nn.Module):
    """EmbeddingSum by one operator.

    The centre's factor stands outside of the sum, so that there are two: with the neighbours' factors, and with ones.
    """

    def __init__(self, network: RadialWeights, table: RadialTable | None, n_channels: int):
        super().__init__()
        c = n_channels
        paths = [
            [0, degree, degree, c, k * c, degree * degree, (3 * k + degree) * c, degree, k * c]
            for degree in range(3)
            for k in range(2)
        ]
        self.product = EdgeProduct(paths, network, table, 2)

    def forward(
        self,
        of_centres: Tensor,
        of_neighbours: Tensor,
        edge_index: Tensor,
        directions: Tensor,
        distances: Tensor,
        radial: Tensor,
    ) -> Tensor:
        """As EmbeddingSum.forward."""
        rows = torch.cat([torch.ones_like(of_neighbours), of_neighbours], dim=1)
        blocks = self.product(rows, directions, of_centres.size(0), edge_index, distances, radial)
        of_ones, of_factors = torch.cat(blocks, dim=1).chunk(2, dim=2)
        return of_centres.unsqueeze(1) * of_ones + of_factors


# ---- layers ----------------------------------------------------------------------------------------------------


class Embedding(nn.Module):
    """Tensors of owned atoms [n_owned, 9, channels] from elements and edges.

    Args:
        original: the package's TensorEmbedding.
        species, form, fuse: see TensorNetNorms.
        table: radial table; None to evaluate the radial network.
        at_zero: radial basis [1, n_functions] of an atom with itself; None where it is no neighbour of its own.
    """

    of_centres: Tensor
    of_neighbours: Tensor
    of_itself: Tensor
    degrees: Tensor

    def __init__(
        self,
        original: Any,
        species: list[int],
        table: RadialTable | None,
        form: Form,
        fuse: bool,
        at_zero: Tensor | None,
    ):
        super().__init__()
        elements = original.emb.weight.detach()[species]
        to_centres, to_neighbours = original.emb2.weight.detach().chunk(2, dim=1)
        self.register_buffer("of_centres", elements @ to_centres.T + original.emb2.bias.detach())
        self.register_buffer("of_neighbours", elements @ to_neighbours.T)
        self.register_buffer("degrees", torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2]))
        network = _embedding_weights(original, form)
        self.n_channels = elements.shape[1]
        self.own_neighbour = form.own_neighbour
        # An edge without a length has no direction: the unit matrix alone.
        weights = torch.zeros_like(self.of_centres[0]) if at_zero is None else _at_zero(network, at_zero)[0]
        self.register_buffer("of_itself", math.sqrt(3.0) * weights * (self.of_centres + self.of_neighbours))
        self.sum = FusedEmbeddingSum(network, table, self.n_channels) if fuse else EmbeddingSum(network)
        self.norm = original.init_norm
        first, second = original.linears_scalar
        self.first, self.second, self.activation = first, form.part_by_part(second), original.act
        self.mix = Mixing(original.linears_tensor)

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        directions: Tensor,
        distances: Tensor,
        radial: Tensor,
    ) -> Tensor:
        of_centres, of_neighbours = self.of_centres[node_types[:n_owned]], self.of_neighbours[node_types]
        x = self.sum(of_centres, of_neighbours, edge_index, directions, distances, radial)
        if self.own_neighbour:
            of_itself = self.of_itself[node_types[:n_owned]].unsqueeze(1)
            x = torch.cat([x[:, :1] + of_itself, x[:, 1:]], dim=1)
        factors = self.activation(self.first(self.norm((x * x).sum(dim=1))))
        factors = self.activation(self.second(factors)).view(n_owned, 3, self.n_channels)
        result: Tensor = self.mix(x) * factors.index_select(1, self.degrees)
        return result


class Interaction(nn.Module):
    """A package's interaction layer on the tensors of owned atoms [n_owned, 9, channels].

    Args:
        original: the layer.
        table, form, fuse, at_zero: see Embedding.
    """

    basis: Tensor
    of_itself: Tensor

    def __init__(self, original: Any, table: RadialTable | None, form: Form, fuse: bool, at_zero: Tensor | None):
        super().__init__()
        network = _layer_weights(original, form)
        n_channels = int(original.linears_tensor[0].weight.shape[0])
        self.sum = FusedSum(network, table, n_channels) if fuse else Sum(network)
        self.own_neighbour = form.own_neighbour
        weights = original.linears_tensor[0].weight.new_zeros(3, n_channels)
        if at_zero is not None:
            weights = _at_zero(network, at_zero)
        self.register_buffer("of_itself", weights.detach()[[0, 1, 1, 1, 2, 2, 2, 2, 2]])
        self.factor = form.factor
        self.before, self.after = Mixing(original.linears_tensor[:3]), Mixing(original.linears_tensor[3:])
        self.mirrored = original.equivariance_invariance_group == "O(3)"
        self.register_buffer("basis", tensor_basis().to(original.linears_tensor[0].weight.dtype))

    def forward(self, x: Tensor, n_nodes: int, edge_index: Tensor, distances: Tensor, radial: Tensor) -> Tensor:
        x = normalised(x)
        y = self.before(x)
        rows = torch.ops.mlip.ghost_gather(y.flatten(1), n_nodes)
        sums = self.sum(rows, x.size(0), edge_index, distances, radial)
        messages = self.matrices(sums + self.of_itself * y if self.own_neighbour else sums)
        own = self.matrices(y)
        if self.mirrored:
            product = self.factor * (matrix_product(messages, own) + matrix_product(own, messages))
        else:
            product = 2.0 * matrix_product(own, messages)
        change = self.after(normalised(self.components(product)))
        matrices = self.matrices(change)
        result: Tensor = x + change + self.factor * self.components(matrix_product(matrices, matrices))
        return result

    def matrices(self, x: Tensor) -> Tensor:
        """Tensors [n, 9, channels] as matrices [n, 3, 3, channels]."""
        return torch.matmul(self.basis, x).view(x.size(0), 3, 3, x.size(2))

    def components(self, matrices: Tensor) -> Tensor:
        """The way back."""
        return torch.matmul(self.basis.t(), matrices.flatten(1, 2))


def normalised(x: Tensor) -> Tensor:
    """Tensors [n, 9, channels] over one plus their squared norm."""
    return x / ((x * x).sum(dim=1, keepdim=True) + 1.0)


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    """Of matrices [n, 3, 3, channels], channel by channel."""
    product = a[:, :, 0].unsqueeze(2) * b[:, 0].unsqueeze(1)
    for k in range(1, 3):
        product = product + a[:, :, k].unsqueeze(2) * b[:, k].unsqueeze(1)
    return product


class Mixing(nn.Module):
    """A matrix of the channels for each part of tensors [n, 9, channels]."""

    def __init__(self, linears: Any):
        super().__init__()
        self.unit, self.skew, self.symmetric = linears

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.unit(x[:, :1]), self.skew(x[:, 1:4]), self.symmetric(x[:, 4:])], dim=1)


def _at_zero(network: RadialWeights, radial: Tensor) -> Tensor:
    """Weights [3, channels] of an atom with itself, from the radial basis at zero [1, n_functions]."""
    with torch.no_grad():
        weights: Tensor = network(radial, radial.new_zeros([1]))
    return weights.view(3, -1)
