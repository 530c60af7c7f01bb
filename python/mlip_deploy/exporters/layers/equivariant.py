"""Equivariant layers of e3nn in component-major layout, around the operator `mlip::edge_tensor_product`.

e3nn stores a block of irreps `channels x l` as [channels, 2l+1]; here it is [2l+1, channels]. A linear layer is then
one matrix product over all components, and the convolution's loops run over neighbouring channels. Features are a list
of blocks [n_atoms, 2l+1, channels], one for each entry of the simplified irreps.

All numbers come from the e3nn modules themselves: Clebsch-Gordan coefficients by evaluating the model's own tensor
product on unit vectors, so that roundings of a checkpoint's buffers and path normalisations are the model's.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.errors import MLIPError
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


def rows_with_ghosts(blocks: list[Tensor], n_nodes: int) -> Tensor:
    """Features of owned atoms as rows [n_nodes, irreps.dim], those of ghosts fetched from their owners."""
    owned = torch.cat([block.flatten(1) for block in blocks], dim=1)
    rows: Tensor = torch.ops.mlip.ghost_gather(owned, n_nodes)
    return rows


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
        table: radial weights as a function of the distance (see `radial_table`); None for weights given per edge.
        step: width of an interval of the table, Å.

    Raises:
        NotFusible: for other kinds of paths.
    """

    coefficients: Tensor
    table: Tensor

    def __init__(self, original: Any, table: Tensor | None = None, step: float = 1.0):
        super().__init__()
        paths, coefficients = pack_tensor_product(original)
        self.paths = paths
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("table", coefficients.new_zeros(0, 6, 0) if table is None else table.to(coefficients))
        self.step = step

    def forward(
        self, features: Tensor, harmonics: Tensor, radial: Tensor, edge_index: Tensor, n_owned: int
    ) -> list[Tensor]:
        """
        Args:
            features: [n_nodes, irreps.dim], blocks [2l+1, channels] behind each other.
            harmonics: [n_edges, (lmax+1)²].
            radial: [n_edges, n_weights], or distances [n_edges] in Å with a table.
            edge_index: int64 [2, n_edges], owned centre and neighbour.
            n_owned: how many nodes are centres.

        Returns:
            Blocks [n_owned, 2l+1, channels] of the simplified output irreps.
        """
        outputs: list[Tensor] = torch.ops.mlip.edge_tensor_product(
            features, harmonics, radial, edge_index, n_owned, self.paths, self.coefficients, self.table, self.step
        )
        return outputs


class Convolution(nn.Module):
    """EdgeTensorProduct with the radial weights that it needs: from a table, or from the framework's network.

    Args:
        original: see EdgeTensorProduct.
        network: radial features [n_edges, n_features] -> weights [n_edges, n_weights].
        table: radial table and its step in Å (see `radial_table`); None to evaluate the network.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("tabulated",)

    def __init__(self, original: Any, network: nn.Module, table: tuple[Tensor, float] | None):
        super().__init__()
        self.tabulated = table is not None
        self.network = nn.Identity() if self.tabulated else network
        self.product = EdgeTensorProduct(original, *table) if table else EdgeTensorProduct(original)

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
        """
        Args:
            rows: features of all nodes, see EdgeTensorProduct.
            harmonics: [n_edges, (lmax+1)²].
            distances: [n_edges], Å; read with a table.
            radial: [n_edges, n_features], read without a table.
            cutoff: [n_edges, 1], factor of the network's weights; None for a network that brings its own.
            edge_index: int64 [2, n_edges], owned centre and neighbour.
            n_owned: how many nodes are centres.

        Returns:
            Blocks [n_owned, 2l+1, channels] of the simplified output irreps.
        """
        weights = distances
        if not self.tabulated:
            weights = self.network(radial)
            if cutoff is not None:
                weights = weights * cutoff
        blocks: list[Tensor] = self.product(rows, harmonics, weights, edge_index, n_owned)
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


class EquivariantLinear(nn.Module):
    """e3nn's Linear on blocks.

    Args:
        original: the layer.
        constants: values of trailing scalar inputs that do not depend on the atom, such as a one-hot modality: their
            part of the result becomes a bias.
        factor: multiplies the features (not the constants) beforehand.
    """

    def __init__(self, original: Any, constants: Tensor | None = None, factor: float = 1.0):
        super().__init__()
        irreps_in, irreps_out = original.irreps_in, original.irreps_out
        constant_entry = -2  # no instruction starts there
        if constants is not None:
            constant_entry = len(irreps_in) - 1
            if irreps_in[-1].mul != constants.numel() or irreps_in[-1].ir.l != 0:
                raise NotFusible(f"a linear layer from {irreps_in} does not end with {constants.numel()} constants")
            irreps_in = irreps_in[:-1]
        sources = _output_of_each_entry(irreps_in)
        targets = _output_of_each_entry(irreps_out)
        simple_in, simple_out = irreps_in.simplify(), irreps_out.simplify()
        weight = original.weight.detach()
        weights: dict[tuple[int, int], Tensor] = {}
        biases: dict[int, Tensor] = {}
        start = 0
        for instruction in original.instructions:
            if instruction.i_in == -1:
                continue  # a bias
            rows, columns = instruction.path_shape
            view = weight[start : start + rows * columns].view(rows, columns)
            start += rows * columns
            target, column = targets[instruction.i_out]
            if instruction.i_in == constant_entry:
                assert constants is not None
                bias = biases.setdefault(target, weight.new_zeros(simple_out[target].mul))
                bias[column : column + view.shape[1]] += instruction.path_weight * (constants.to(weight) @ view)
                continue
            source, row = sources[instruction.i_in]
            matrix = weights.setdefault(
                (source, target), weight.new_zeros(simple_in[source].mul, simple_out[target].mul)
            )
            matrix[row : row + view.shape[0], column : column + view.shape[1]] += (
                factor * instruction.path_weight * view
            )
        if original.bias_numel > 0:
            start = 0
            for instruction in original.instructions:
                if instruction.i_in == -1:
                    target, column = targets[instruction.i_out]
                    n = instruction.path_shape[0]
                    bias = biases.setdefault(target, weight.new_zeros(simple_out[target].mul))
                    bias[column : column + n] += original.bias.detach()[start : start + n]
                    start += n
        blocks = []
        for target, entry in enumerate(simple_out):
            found = [source for source, to in weights if to == target]
            if len(found) > 1:
                raise NotFusible(f"a linear layer from {irreps_in} has the same irreps in two places")
            source = found[0] if found else -1
            matrix = weights[source, target] if found else weight.new_zeros(0, entry.mul)
            blocks.append(LinearBlock(source, entry.ir.dim, matrix, biases.get(target)))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = []
        for block in self.blocks:
            results.append(block(features))
        return results


class LinearBlock(nn.Module):
    """One block of the result: a matrix over channels, the same for all components."""

    matrix: Tensor
    bias: Tensor

    def __init__(self, source: int, components: int, matrix: Tensor, bias: Tensor | None):
        super().__init__()
        self.source = source
        self.components = components
        self.register_buffer("matrix", matrix)
        self.register_buffer("bias", matrix.new_zeros(0) if bias is None else bias)
        self.has_bias = bias is not None

    def forward(self, features: list[Tensor]) -> Tensor:
        if self.source < 0:
            first = features[0]
            result = first.new_zeros([first.shape[0], self.components, self.matrix.shape[1]])
        else:
            result = torch.matmul(features[self.source], self.matrix)
        return result + self.bias if self.has_bias else result


class Gate(nn.Module):
    """e3nn's Gate on blocks: activated scalars, and blocks of higher l times activated scalars.

    Args:
        original: e3nn.nn.Gate.
    """

    __constants__ = ("contiguous", "has_gates", "n_scalar_blocks", "plain")
    scalar_index: Tensor
    gate_index: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.act_scalars = original.act_scalars
        irreps = original.irreps_in
        # Where the scalars, the gates and the gated components are in e3nn's row: asked of the module itself.
        place = torch.arange(irreps.dim, dtype=torch.float64).unsqueeze(0)
        scalars, gates, gated = (part[0].round().long() for part in original.sc(place))
        simple = irreps.simplify()
        n_scalars = sum(entry.dim for entry in simple if entry.ir.l == 0)
        self.n_scalar_blocks = sum(entry.ir.l == 0 for entry in simple)
        # e3nn sorts the irreps of its input, and keeps the given order in its output.
        places = [list(range(part.start, part.stop)) for part in simple.slices()]
        gated_parts = [gated[part].tolist() for part in original.irreps_gated.simplify().slices()]
        if sorted(gated_parts) != places[self.n_scalar_blocks :]:
            raise NotFusible(f"the gate of {irreps} does not have all scalars first")
        self.sources = [places.index(part) for part in gated_parts] or [0]  # TorchScript has no type for an empty list
        self.register_buffer("scalar_index", scalars)
        self.register_buffer("gate_index", gates)
        self.contiguous = torch.equal(torch.cat([scalars, gates]), torch.arange(n_scalars))
        self.n_scalars = int(scalars.numel())
        self.scalar_channels = [entry.dim for entry in original.act_scalars.irreps_out.simplify()]  # even and odd ones
        self.channels = [entry.mul for entry in original.irreps_gated.simplify()] or [0]
        self.has_gates = bool(gated_parts)
        self.act_gates = original.act_gates if gated_parts else nn.Identity()
        # e3nn multiplies by a path normalisation times a coefficient, which is one but for rounding.
        factors = []
        if gated_parts:
            dtype = torch.get_default_dtype()
            ones = original.mul(torch.ones(1, gated.numel(), dtype=dtype), torch.ones(1, gates.numel(), dtype=dtype))[0]
            start = 0
            for entry in original.irreps_gated.simplify():
                factors.append(float(ones[start]))
                start += entry.dim
        self.factors = factors or [1.0]
        self.plain = all(abs(factor - 1.0) < 1e-14 for factor in factors)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        if self.n_scalar_blocks == 1:
            first = features[0].squeeze(1)
        else:
            first = torch.cat([block.squeeze(1) for block in features[: self.n_scalar_blocks]], dim=1)
        if self.contiguous:
            scalars, gates = first[:, : self.n_scalars], first[:, self.n_scalars :]
        else:
            scalars, gates = first[:, self.scalar_index], first[:, self.gate_index]
        activated: Tensor = self.act_scalars(scalars).unsqueeze(1)
        results: list[Tensor] = list(torch.split(activated, self.scalar_channels, dim=2))
        if self.has_gates:
            gates = self.act_gates(gates).unsqueeze(1)
            start = 0
            for k, n in enumerate(self.channels):
                gate = gates[:, :, start : start + n]
                if not self.plain:
                    gate = gate * self.factors[k]
                results.append(features[self.sources[k]] * gate)
                start += n
        return results


def add_blocks(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(first, second)]  # noqa: B905  TorchScript knows no strict=
