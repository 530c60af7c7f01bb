"""Equivariant layers of e3nn in component-major layout, around the operator `mlip::edge_tensor_product`.

e3nn stores a block of irreps `channels x l` as [channels, 2l+1]; here it is [2l+1, channels]. A linear layer is then
one matrix product over all components, and the convolution's loops run over neighbouring channels. Features are a list
of blocks [n_atoms, 2l+1, channels], one for each entry of the simplified irreps.

All numbers come from the e3nn modules themselves: Clebsch-Gordan coefficients by evaluating the model's own tensor
product on unit vectors, so that roundings of a checkpoint's buffers and path normalisations are the model's.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.layers.radial_table import NO_TABLE, RadialTable
from mlip_deploy.operators import load_operators


class NotFusible(MLIPError):  # noqa: N818  a reason to use the framework's own layers, not a failure
    """A layer that the fast path does not know."""


def script(module: nn.Module) -> torch.jit.ScriptModule:
    """TorchScript of a module that holds e3nn's, which bring code that only e3nn's own scripting knows to prepare."""
    from e3nn.util.jit import script as e3nn_script

    scripted: torch.jit.ScriptModule = e3nn_script(module)
    return scripted


def keeps_parity(model: nn.Module) -> bool | None:
    """Whether a model of e3nn's layers gives mirror images the same energy.

    It does if its spherical harmonics take the edges as vectors (1o), since all layers after them know parity, and not
    if they take them as pseudovectors (1e). None for a model without spherical harmonics.
    """
    harmonics: list[Any] = [module for module in model.modules() if type(module).__name__ == "SphericalHarmonics"]
    return all(module.irreps_in[0].ir.p == -1 for module in harmonics) if harmonics else None


def to_blocks(x: Tensor, irreps: Any) -> list[Tensor]:
    """e3nn's layout [n, irreps.dim] as blocks [n, 2l+1, channels]."""
    blocks = []
    start = 0
    for entry in irreps.simplify():
        block = x[:, start : start + entry.dim].reshape(x.shape[0], entry.mul, entry.ir.dim)
        blocks.append(block.transpose(1, 2).contiguous())
        start += entry.dim
    return blocks


class EdgeHarmonics(nn.Module):
    """e3nn's SphericalHarmonics of the edges, and the edges' lengths, in one pass.

    Args:
        original: from edge vectors [n_edges, 3] to harmonics [n_edges, (l_max+1)²], normalised by component; of the
            edges' directions, or solid: times the length to the power of l.

    Raises:
        NotFusible: if it computes something else.
    """

    degrees: Tensor

    def __init__(self, original: Any):
        super().__init__()
        vectors = torch.randn(32, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = original(vectors)
        self.l_max = math.isqrt(expected.shape[1]) - 1
        load_operators()
        degrees = torch.cat([torch.full((2 * degree + 1,), degree) for degree in range(self.l_max + 1)])
        self.register_buffer("degrees", degrees)
        distances, found = torch.ops.mlip.edge_harmonics(vectors, self.l_max)
        self.solid = False
        if found.shape == expected.shape and not torch.allclose(found, expected, rtol=0, atol=1e-10):
            self.solid = True
            found = found * distances.unsqueeze(1).pow(degrees)
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=0, atol=1e-10):
            raise NotFusible(f"the harmonics {original} are not e3nn's, normalised by component")

    def forward(self, edge_vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths [n_edges] Å and harmonics [n_edges, (l_max+1)²] of edge vectors [n_edges, 3] Å."""
        distances, harmonics = torch.ops.mlip.edge_harmonics(edge_vectors, self.l_max)
        if self.solid:
            harmonics = harmonics * distances.unsqueeze(1).pow(self.degrees)
        return distances, harmonics


class EdgeTensorProduct(nn.Module):
    """e3nn's TensorProduct over the edges of a graph, with its gather before and its sum over neighbours after.

    Args:
        original: 'uvu' paths with a weight per channel and edge, one channel in the edge harmonics.
        table: of radial weights, or several tables; None for weights given per edge.

    Raises:
        NotFusible: for other kinds of paths.
    """

    coefficients: Tensor
    table: Tensor

    def __init__(self, original: Any, table: RadialTable | None = None):
        super().__init__()
        paths, coefficients = pack_tensor_product(original)
        self.paths = paths
        self.register_buffer("coefficients", coefficients)
        values, self.step, self.kink = table or NO_TABLE
        self.register_buffer("table", values.to(coefficients))

    def forward(
        self,
        features: Tensor,
        harmonics: Tensor,
        radial: Tensor,
        edge_index: Tensor,
        n_owned: int,
        table_of_edge: Tensor | None = None,
    ) -> list[Tensor]:
        """
        Args:
            features: [n_nodes, irreps.dim], blocks [2l+1, channels] behind each other.
            harmonics: [n_edges, (lmax+1)²].
            radial: [n_edges, n_weights], or distances [n_edges] in Å with a table.
            edge_index: int64 [2, n_edges], owned centre and neighbour.
            n_owned: how many nodes are centres.
            table_of_edge: int64 [n_edges] with several tables, None with one.

        Returns:
            Blocks [n_owned, 2l+1, channels] of the simplified output irreps.
        """
        outputs: list[Tensor] = torch.ops.mlip.edge_tensor_product(
            features,
            harmonics,
            radial,
            edge_index,
            n_owned,
            self.paths,
            self.coefficients,
            self.table,
            self.step,
            table_of_edge,
            self.kink,
        )
        return outputs


class NeighbourSum(nn.Module):
    """The sum over the neighbours of each centre of a tabulated function of the distance.

    Args:
        table: see EdgeTensorProduct, with one weight.
        dtype: of the model.
    """

    coefficients: Tensor
    table: Tensor

    def __init__(self, table: RadialTable, dtype: torch.dtype):
        super().__init__()
        self.paths: list[int] = [0, 0, 0, 1, 0, 0, 0, 0, 0]
        values, self.step, self.kink = table
        self.register_buffer("coefficients", torch.ones(1, dtype=dtype))
        self.register_buffer("table", values.to(dtype))

    def forward(
        self, distances: Tensor, edge_index: Tensor, n_owned: int, n_nodes: int, table_of_edge: Tensor | None
    ) -> Tensor:
        """[n_owned, 1] of distances [n_edges] Å; the rest as in EdgeTensorProduct."""
        features = torch.ones([n_nodes, 1], dtype=distances.dtype, device=distances.device)
        outputs: list[Tensor] = torch.ops.mlip.edge_tensor_product(
            features,
            torch.ones_like(distances).unsqueeze(1),
            distances,
            edge_index,
            n_owned,
            self.paths,
            self.coefficients,
            self.table,
            self.step,
            table_of_edge,
            self.kink,
        )
        return outputs[0].squeeze(1)


class Convolution(nn.Module):
    """EdgeTensorProduct with the radial weights that it needs: from a table, or from the framework's network.

    Args:
        original: see EdgeTensorProduct.
        network: radial features [n_edges, n_features] -> weights [n_edges, n_weights].
        table: of its weights; None to evaluate the network.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("tabulated",)

    def __init__(self, original: Any, network: nn.Module, table: RadialTable | None):
        super().__init__()
        self.tabulated = table is not None
        self.network = nn.Identity() if self.tabulated else network
        self.product = EdgeTensorProduct(original, table)

    def forward(
        self,
        rows: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        radial: Tensor,
        cutoff: Tensor | None,
        edge_index: Tensor,
        n_owned: int,
        table_of_edge: Tensor | None = None,
    ) -> list[Tensor]:
        """
        Args:
            rows: features of all nodes, see EdgeTensorProduct.
            harmonics: [n_edges, (lmax+1)²].
            distances: [n_edges], Å; read with a table.
            radial: [n_edges, n_features], read without a table.
            cutoff: [n_edges, 1], factor of the network's weights; None for a network that brings its own.
            edge_index: int64 [2, n_edges], owned centre and neighbour.
            n_owned: how many nodes are centres.
            table_of_edge: int64 [n_edges] with several tables, None with one.

        Returns:
            Blocks [n_owned, 2l+1, channels] of the simplified output irreps.
        """
        weights = distances
        if not self.tabulated:
            weights = self.network(radial)
            if cutoff is not None:
                weights = weights * cutoff
        blocks: list[Tensor] = self.product(rows, harmonics, weights, edge_index, n_owned, table_of_edge)
        return blocks


def pack_tensor_product(original: Any) -> tuple[list[int], Tensor]:
    """The constants of `mlip::edge_tensor_product`: paths, nine numbers each, and flat coefficients.

    See csrc/operators/edge_tensor_product/edge_tensor_product.cpp for the numbers.
    """
    irreps_in, irreps_edge, irreps_out = original.irreps_in1, original.irreps_in2, original.irreps_out
    outputs = _output_of_each_entry(irreps_out)
    rows, coefficients = [], []
    weight_offset = 0
    buffers = [*original.parameters(), *original.buffers()]
    dtype = next((buffer.dtype for buffer in buffers if buffer.is_floating_point()), torch.get_default_dtype())
    for instruction in original.instructions:
        first, second = irreps_in[instruction.i_in1], irreps_edge[instruction.i_in2]
        third = irreps_out[instruction.i_out]
        if instruction.connection_mode != "uvu" or not instruction.has_weight or second.mul != 1:
            raise NotFusible(
                f"the convolution has a path '{instruction.connection_mode}' of {second.mul} harmonic channels, "
                "the fast path takes weighted 'uvu' paths of one"
            )
        features = irreps_in.slices()[instruction.i_in1].start
        harmonics = irreps_edge.slices()[instruction.i_in2].start
        output, output_offset = outputs[instruction.i_out]
        rows.append(
            [first.ir.l, second.ir.l, third.ir.l, first.mul, features, harmonics, weight_offset, output, output_offset]
        )
        n1, n2, n3 = first.ir.dim, second.ir.dim, third.ir.dim
        x = torch.zeros(n1 * n2, irreps_in.dim, dtype=dtype)
        y = torch.zeros(n1 * n2, irreps_edge.dim, dtype=dtype)
        weights = torch.zeros(n1 * n2, original.weight_numel, dtype=dtype)
        component = torch.arange(n1 * n2)
        x[component, features + component // n2] = 1.0  # channel 0 of the block [channels, 2l+1]
        y[component, harmonics + component % n2] = 1.0
        weights[:, weight_offset] = 1.0
        with torch.no_grad():
            product = original(x, y, weights)
        start = irreps_out.slices()[instruction.i_out].start
        coefficients.append(product[:, start : start + n3].reshape(-1))
        weight_offset += first.mul
    # The operator numbers its outputs in the order in which paths first name them.
    order = sorted(range(len(rows)), key=lambda p: rows[p][7])
    if sorted({row[7] for row in rows}) != list(range(len(irreps_out.simplify()))):
        raise NotFusible("the convolution has output irreps that no path leads to")
    return [number for p in order for number in rows[p]], torch.cat([coefficients[p] for p in order])


def _output_of_each_entry(irreps: Any) -> list[tuple[int, int]]:
    """(block of the simplified irreps, first channel in it) of each entry."""
    places: list[tuple[int, int]] = []
    block, channels, previous = -1, 0, None
    for entry in irreps:
        if entry.ir != previous:
            block, channels, previous = block + 1, 0, entry.ir
        places.append((block, channels))
        channels += entry.mul
    return places


@dataclass(frozen=True)
class LinearTerm:
    """Part of a linear layer: what it adds to each block of the result."""

    inputs: list[tuple[int, int]]
    """Components and channels of each block that it reads."""
    outputs: list[tuple[int, int]]
    """Components and channels of each block of the result."""
    matrices: dict[tuple[int, int], Tensor]
    """By (input, output): [channels in, channels out], or [n_elements, channels in, channels out]."""
    biases: dict[int, Tensor]
    """By output: [components, channels], or [n_elements, components, channels]."""


def linear_term(original: Any, constants: Tensor | None = None, factor: float = 1.0) -> LinearTerm:
    """e3nn's Linear.

    Args:
        original: the layer.
        constants: values of trailing scalar inputs that do not depend on the atom, such as a one-hot modality: their
            part of the result becomes a bias.
        factor: multiplies the features (not the constants) beforehand.

    Raises:
        NotFusible: when its irreps are not sorted.
    """
    irreps_in, irreps_out = original.irreps_in, original.irreps_out
    constant_entry = -2  # no instruction starts there
    if constants is not None:
        constant_entry = len(irreps_in) - 1
        if irreps_in[-1].mul != constants.numel() or irreps_in[-1].ir.l != 0:
            raise NotFusible(f"a linear layer from {irreps_in} does not end with {constants.numel()} constants")
        irreps_in = irreps_in[:-1]
    sources, targets = _output_of_each_entry(irreps_in), _output_of_each_entry(irreps_out)
    inputs, outputs = sizes_of(irreps_in), sizes_of(irreps_out)
    weight = original.weight.detach()
    matrices: dict[tuple[int, int], Tensor] = {}
    biases: dict[int, Tensor] = {}
    start = bias_start = 0
    for instruction in original.instructions:
        target, column = targets[instruction.i_out]
        channels = outputs[target][1]
        if instruction.i_in == -1:  # a bias
            n = instruction.path_shape[0]
            bias = biases.setdefault(target, weight.new_zeros(1, channels))
            bias[0, column : column + n] += original.bias.detach()[bias_start : bias_start + n]
            bias_start += n
            continue
        rows, columns = instruction.path_shape
        view = weight[start : start + rows * columns].view(rows, columns)
        start += rows * columns
        if instruction.i_in == constant_entry:
            assert constants is not None
            bias = biases.setdefault(target, weight.new_zeros(1, channels))
            bias[0, column : column + columns] += instruction.path_weight * (constants.to(weight) @ view)
            continue
        source, row = sources[instruction.i_in]
        matrix = matrices.setdefault((source, target), weight.new_zeros(inputs[source][1], channels))
        matrix[row : row + rows, column : column + columns] += factor * instruction.path_weight * view
    return LinearTerm(inputs, outputs, matrices, biases)


def element_term(original: Any, attributes: Tensor | None = None) -> LinearTerm:
    """e3nn's FullyConnectedTensorProduct with scalars of the element: a linear layer for each element.

    Args:
        original: the product, with blocks first and the scalars of the element second.
        attributes: the scalars of each element [n_elements, irreps_in2.dim]; None for one-hot elements.

    Raises:
        NotFusible: when blocks would be mixed.
    """
    irreps_in, irreps_out = original.irreps_in1, original.irreps_out
    matrices: dict[tuple[int, int], Tensor] = {}
    for k, instruction in enumerate(original.instructions):
        entry = irreps_in[instruction.i_in1]
        known = {target for _, target in matrices}
        if instruction.connection_mode != "uvw" or instruction.i_out in known:
            raise NotFusible(f"a product with the elements from {irreps_in} to {irreps_out} mixes irreps")
        weight = original.weight_view_for_instruction(k).detach().transpose(0, 1)
        if attributes is not None:
            weight = torch.einsum("ec,cij->eij", attributes.double(), weight.double()).to(weight)
        # The Clebsch-Gordan coefficients of l x 0 -> l are the unit matrix over sqrt(2l+1).
        factor = instruction.path_weight / math.sqrt(entry.ir.dim)
        matrices[instruction.i_in1, instruction.i_out] = factor * weight
    inputs, outputs = ([(entry.ir.dim, entry.mul) for entry in irreps] for irreps in (irreps_in, irreps_out))
    return LinearTerm(inputs, outputs, matrices, {})


def table_term(blocks: list[Tensor]) -> LinearTerm:
    """Blocks that depend on the element alone, each [n_elements, components, channels]."""
    return LinearTerm([], [(block.shape[1], block.shape[2]) for block in blocks], {}, dict(enumerate(blocks)))


def sizes_of(irreps: Any) -> list[tuple[int, int]]:
    """Components and channels of each block of the simplified irreps."""
    return [(entry.ir.dim, entry.mul) for entry in irreps.simplify()]


class EquivariantLinear(nn.Module):
    """Linear layers whose results are added up, in one operator: `mlip::equivariant_linear`.

    Args:
        terms: each reads blocks of its own.
        as_rows: join the blocks of the result to rows.

    Raises:
        NotFusible: for terms with different irreps of the result.
    """

    matrices: Tensor
    element_matrices: Tensor
    bias: Tensor
    products: list[int]

    def __init__(self, *terms: LinearTerm, as_rows: bool = False):
        super().__init__()
        outputs = terms[0].outputs
        if any(term.outputs != outputs for term in terms):
            raise NotFusible(f"linear layers that are added up lead to {' and '.join(str(t.outputs) for t in terms)}")
        load_operators()
        self.as_rows = as_rows
        self.blocks = [number for block in outputs for number in block]
        self.products = []
        some = next(iter([*terms[0].matrices.values(), *terms[0].biases.values()]))
        of_all: list[Tensor] = []
        of_elements: list[Tensor] = []
        first_input = 0
        for term in terms:
            for (source, target), matrix in term.matrices.items():
                of_element = matrix.dim() == 3
                self.products += [first_input + source, target, int(of_element), matrix.shape[-2]]
                both = torch.stack([matrix.flatten(-2), matrix.transpose(-1, -2).flatten(-2)], dim=-2)
                (of_elements if of_element else of_all).append(both)
            first_input += len(term.inputs)
        self.register_buffer("matrices", torch.cat([some.new_zeros(2, 0), *of_all], dim=1))
        elements = of_elements[0].shape[0] if of_elements else 0
        self.register_buffer("element_matrices", torch.cat([some.new_zeros(elements, 2, 0), *of_elements], dim=2))
        self.register_buffer("bias", _joined_biases(terms, some))

    def forward(self, inputs: list[Tensor], types: Tensor) -> list[Tensor]:
        """
        Args:
            inputs: blocks of all terms, one term after the other.
            types: int64 [n_atoms], element of each atom; read where a term depends on it.

        Returns:
            Blocks [n_atoms, 2l+1, channels], or one tensor of rows.
        """
        results: list[Tensor] = torch.ops.mlip.equivariant_linear(
            inputs, types, self.matrices, self.element_matrices, self.bias, self.blocks, self.products, self.as_rows
        )
        return results


def _joined_biases(terms: tuple[LinearTerm, ...], some: Tensor) -> Tensor:
    """[0, 0], or the sum of all biases [1 or n_elements, values of all blocks]."""
    biases = [(target, bias) for term in terms for target, bias in term.biases.items()]
    if not biases:
        return some.new_zeros(0, 0)
    rows = max(bias.shape[0] if bias.dim() == 3 else 1 for _, bias in biases)
    sizes = [components * channels for components, channels in terms[0].outputs]
    parts = [some.new_zeros(rows, size) for size in sizes]
    for target, bias in biases:
        parts[target] += bias.reshape(-1, sizes[target])
    return torch.cat(parts, dim=1)


# ---- gates ----------------------------------------------------------------------------------------------------------

# In the order of Activation in csrc/operators/gate/gate_kernels.h.
ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x,
    torch.nn.functional.silu,
    torch.tanh,
    torch.sigmoid,
    torch.abs,
    lambda x: torch.nn.functional.softplus(x) - math.log(2.0),
]


class GateChannel(NamedTuple):
    """One channel of a gate's output: a function of the gate, times the value if there is one."""

    function: tuple[int, float]
    """activation, by its number in ACTIVATIONS, and factor"""
    gate: tuple[int, int]
    """input block and channel"""
    value: tuple[int, int] | None
    output: tuple[int, int]
    """output block and channel"""


class Gate(nn.Module):
    """Activated scalars, and blocks of higher l times activated scalars: `mlip::gate`."""

    pieces: list[int]
    factors: list[float]

    def __init__(self, channels: list[GateChannel]):
        super().__init__()
        load_operators()
        self.pieces, self.factors = [], []
        for _, run in itertools.groupby(enumerate(channels), lambda item: _run_of(*item)):
            members = [channel for _, channel in run]
            first = members[0]
            activation, factor = first.function
            self.pieces += [activation, len(members), *first.gate, *(first.value or (-1, 0)), *first.output]
            self.factors.append(factor)

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = torch.ops.mlip.gate(blocks, self.pieces, self.factors)
        return results


def _run_of(k: int, channel: GateChannel) -> tuple[Any, ...]:
    """The same for channels that one piece can hold: neighbours in every block."""
    places = [(block, u - k) for block, u in (channel.gate, channel.value or (-1, k), channel.output)]
    return channel.function, *places


def activations_of(function: Callable[[Tensor], Tensor], n: int) -> list[tuple[int, float]]:
    """Which activation, and times what, a function of scalars [..., n] applies to each of them.

    Raises:
        NotFusible: for another function than those of ACTIVATIONS.
    """
    x = torch.tensor([1.0, *torch.linspace(-9.0, 9.0, 37).tolist()], dtype=torch.float64)
    with torch.no_grad():
        found = function(x.unsqueeze(1).repeat(1, n)).double()
    results = []
    for column in found.unbind(1):
        fits = []
        for k, activation in enumerate(ACTIVATIONS):
            expected = activation(x)
            factor = float(column[0] / expected[0])
            if torch.allclose(column, factor * expected, rtol=0, atol=1e-10):
                fits.append((k, factor))
        if not fits:
            raise NotFusible(f"the gate has an activation {function} that the fast path does not know")
        results.append(fits[0])
    return results


def e3nn_gate(original: Any) -> Gate:
    """e3nn's Gate on blocks.

    Raises:
        NotFusible: when not all scalars come first.
    """
    irreps = original.irreps_in
    # Where the scalars, the gates and the gated components are in e3nn's row: asked of the module itself.
    place = torch.arange(irreps.dim, dtype=torch.float64).unsqueeze(0)
    scalars, gates, gated = (part[0].round().long().tolist() for part in original.sc(place))
    simple = irreps.simplify()
    scalar_places = [
        (block, channel) for block, entry in enumerate(simple) if entry.ir.l == 0 for channel in range(entry.mul)
    ]
    # e3nn sorts the irreps of its input, and keeps the given order in its output.
    places = [list(range(part.start, part.stop)) for part in simple.slices()]
    gated_parts = [gated[part] for part in original.irreps_gated.simplify().slices()]
    if sorted(gated_parts) != places[sum(entry.ir.l == 0 for entry in simple) :]:
        raise NotFusible(f"the gate of {irreps} does not have all scalars first")
    # Even and odd scalars are blocks of their own.
    outputs = [
        (block, u) for block, entry in enumerate(original.act_scalars.irreps_out.simplify()) for u in range(entry.mul)
    ]
    acts = activations_of(original.act_scalars, len(scalars))
    channels = [
        GateChannel(act, scalar_places[place], None, output)
        for act, place, output in zip(acts, scalars, outputs, strict=True)
    ]
    if not gated_parts:
        return Gate(channels)
    # e3nn multiplies by a path normalisation times a coefficient, which is one but for rounding.
    dtype = torch.get_default_dtype()
    norms = original.mul(torch.ones(1, len(gated), dtype=dtype), torch.ones(1, len(gates), dtype=dtype))[0].tolist()
    acts = activations_of(original.act_gates, len(gates))
    block = len(original.act_scalars.irreps_out.simplify())
    gate = component = 0
    for entry, part in zip(original.irreps_gated.simplify(), gated_parts, strict=True):
        for u in range(entry.mul):
            activation, factor = acts[gate + u]
            act = activation, norms[component] * factor
            channels.append(GateChannel(act, scalar_places[gates[gate + u]], (places.index(part), u), (block, u)))
        gate, component, block = gate + entry.mul, component + entry.dim, block + 1
    return Gate(channels)
