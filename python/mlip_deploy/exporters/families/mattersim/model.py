"""MatterSim's network (its own M3GNet) behind the model interface.

Every edge has features of its own, which depend on the edge's centre and on the other edges there: angles enter
through sums over the edges e' at the centre of an edge e,

    s_e = f(r_e) Σ_{e' ≠ e} f(r_e') j(r_e') P(cos θ_ee'),

with a cutoff f at 4 Å, spherical Bessel functions j and Legendre polynomials P. In MatterSim's layers a factor of the
centre stands inside of this sum, so that it is made again in each layer. Here it stands outside, and the sums are made
once.

The first matrix of a gated perceptron acts on the features of two atoms and of an edge, one behind the other; it is
cut into one matrix for each, so that atoms are multiplied once and not once per edge.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.dense import linear_layer
from mlip_deploy.exporters.layers.edge_pairs import pairs_of_edges
from mlip_deploy.operators import load_operators


class MatterSimEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV.

    Args:
        model: `mattersim.forcefield.m3gnet.m3gnet.M3Gnet` in the type to compute in.
        numbers: atomic number of each type index.
        fuse: whether to use mlip's operators, or torch's alone.
    """

    embedding: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, model: Any, numbers: list[int], fuse: bool):
        super().__init__()
        if fuse:
            load_operators()
        self.register_buffer("embedding", model.atom_embedding.mlp[0].linear.weight.detach().T[numbers].contiguous())
        self.register_buffer("scale", model.normalizer.scale.detach()[numbers])
        self.register_buffer("shift", model.normalizer.shift.detach()[numbers])
        self.radial = RadialBasis(model.rbf)
        self.edge_encoder = model.edge_encoder.mlp[0].linear
        self.angles = AngleSums(model.sbf, float(model.model_args["threebody_cutoff"]), fuse)
        self.layers = nn.ModuleList(Layer(block, fuse) for block in model.graph_conv)
        self.readout = GatedPerceptron(model.final)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are those of the atoms after the last layer."""
        n_nodes = node_types.size(0)
        distances = torch.linalg.vector_norm(edge_vectors, dim=[1])
        radial = self.radial(distances)
        edges = nn.functional.silu(self.edge_encoder(radial))
        near, sums = self.angles(distances, edge_vectors, edge_index[0], n_owned)
        everyone = self.embedding[node_types]
        x = everyone[:n_owned]
        for t, layer in enumerate(self.layers):
            if t > 0:
                everyone = torch.ops.mlip.ghost_gather(x, n_nodes)
            x, edges = layer(x, everyone, edges, radial, near, sums, edge_index)
        types = node_types[:n_owned]
        energies: Tensor = self.scale[types] * self.readout(x).squeeze(1) + self.shift[types]
        return energies, x


class RadialBasis(nn.Module):
    """MatterSim's SmoothBesselBasis [n_edges, n_functions], which vanishes with two derivatives at the cutoff.

    Each function is a sum of sin(kπr/r_max) / r with k up to n_functions + 1.
    """

    frequencies: Tensor
    coefficients: Tensor

    def __init__(self, original: Any):
        super().__init__()
        n = int(original.max_n)
        one, two = original.n_1_pi_cutoff[0], original.n_2_pi_cutoff[0]
        dn, en, factors = original.dn, original.en[0], original.fnr_weights[0]
        raw = torch.zeros(n + 1, n).to(one)  # of sin(kπr/r_max) / r, before functions are made orthogonal
        for k in range(n):
            raw[k, k] += factors[k] / one[k]
            raw[k + 1, k] += factors[k] / two[k]
        columns = [raw[:, 0]]
        for k in range(1, n):
            columns.append((raw[:, k] + torch.sqrt(en[k] / dn[k - 1]) * columns[-1]) / torch.sqrt(dn[k]))
        self.register_buffer("frequencies", torch.cat([one, two[-1:]]))
        self.register_buffer("coefficients", torch.stack(columns, dim=1))

    def forward(self, distances: Tensor) -> Tensor:
        r = distances.unsqueeze(1)
        return torch.mm(torch.sin(r * self.frequencies) / r, self.coefficients)


class AngleSums(nn.Module):
    """The sums over angles s_e, once for all layers.

    Args:
        original: SphericalBasisLayer.
        cutoff: of edges that form angles, Å.
        fuse: whether to use `mlip::angle_sums`, or torch's operators alone.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("fuse",)
    frequencies: Tensor
    sines: Tensor
    cosines: Tensor

    def __init__(self, original: Any, cutoff: float, fuse: bool):
        super().__init__()
        self.cutoff, self.fuse = cutoff, fuse
        self.limit = 1.0 - 1e-7  # to which MatterSim clamps cosines
        # MatterSim lets max_n count degrees and max_l roots; both are 4 in the published models.
        n_functions = int(original.max_l) * int(original.max_n)
        degrees = [k // int(original.max_l) for k in range(n_functions)]
        roots = [k % int(original.max_l) for k in range(n_functions)]
        self.n_polynomials, self.repeats = int(original.max_l), int(original.max_n)
        a = original.coef.double()
        zero, one = torch.zeros_like(a[0, 0]), torch.ones_like(a[0, 0])
        # j of each degree is a sum of sin(zr) r^-p and cos(zr) r^-p with p from 1, r in units of the large cutoff.
        sines = torch.stack(
            [
                torch.stack([one, zero, zero, zero]),
                torch.stack([zero, a[1, 2], zero, zero]),
                torch.stack([a[2, 0], zero, a[2, 4], zero]),
                torch.stack([zero, -a[3, 2], zero, a[3, 6]]),
            ]
        )
        cosines = torch.stack(
            [
                torch.stack([zero, zero, zero, zero]),
                torch.stack([a[1, 0], zero, zero, zero]),
                torch.stack([zero, -a[2, 2], zero, zero]),
                torch.stack([a[3, 0], zero, -a[3, 4], zero]),
            ]
        )
        zeros = torch.stack([a[0, 0], a[1, 1], a[2, 1], a[3, 1]])[degrees, roots]
        norms = [math.sqrt((2 * (k // self.repeats) + 1) / (4 * math.pi)) for k in range(n_functions)]
        norm = original.factor.double() * torch.tensor(norms, dtype=torch.float64)
        self.large_cutoff = float(original.cutoff)
        dtype = original.coef.dtype
        self.register_buffer("frequencies", zeros.to(dtype))
        self.register_buffer("sines", (sines[degrees, :, roots] * norm.unsqueeze(1)).T.to(dtype).contiguous())
        self.register_buffer("cosines", (cosines[degrees, :, roots] * norm.unsqueeze(1)).T.to(dtype).contiguous())

    def forward(self, distances: Tensor, edge_vectors: Tensor, centres: Tensor, n_owned: int) -> tuple[Tensor, Tensor]:
        """The edges that form angles, int64 [n_near], and their sums [n_near, n_functions]."""
        near = torch.nonzero(distances <= self.cutoff).squeeze(1)
        vertices = centres.index_select(0, near)
        r = distances.index_select(0, near).unsqueeze(1)
        directions = edge_vectors.index_select(0, near) / r
        smooth = self.smooth(r)
        terms = smooth * self.bessel(r)
        if self.fuse:
            return near, smooth * torch.ops.mlip.angle_sums(directions, terms, vertices, n_owned, self.n_polynomials)
        first, second = pairs_of_edges(vertices, vertices, n_owned)
        others = first != second
        first, second = first[others], second[others]
        cosine = (directions.index_select(0, first) * directions.index_select(0, second)).sum(dim=1)
        cosine = cosine.clamp(-self.limit, self.limit)
        of_pairs = terms.index_select(0, second) * self.legendre(cosine)
        return near, smooth * torch.zeros_like(terms).index_add(0, first, of_pairs)

    def smooth(self, r: Tensor) -> Tensor:
        """1 at 0, and 0 with two derivatives at the cutoff."""
        x = r / self.cutoff
        return 1.0 - x * x * x * (10.0 - x * (15.0 - 6.0 * x))

    def bessel(self, r: Tensor) -> Tensor:
        """Spherical Bessel functions [n_near, n_functions] with the norms of the Legendre polynomials."""
        x = r / self.large_cutoff
        u = 1.0 / x
        powers = torch.cat([u, u * u, u * u * u, (u * u) * (u * u)], dim=1)
        phase = x * self.frequencies
        return torch.sin(phase) * torch.mm(powers, self.sines) + torch.cos(phase) * torch.mm(powers, self.cosines)

    def legendre(self, cosine: Tensor) -> Tensor:
        """Legendre polynomials [n_pairs, n_functions]."""
        square = cosine * cosine
        polynomials = [torch.ones_like(cosine), cosine, 1.5 * square - 0.5, cosine * (2.5 * square - 1.5)]
        chosen = torch.stack(polynomials[: self.n_polynomials], dim=1)
        return chosen.repeat_interleave(self.repeats, dim=1)


class Layer(nn.Module):
    """MatterSim's MainBlock: edges from angles, then edges and atoms from edges and the atoms at their ends."""

    def __init__(self, original: Any, fuse: bool):
        super().__init__()
        self.atom_gate = original.three_body.atom_mlp.linear
        self.add_gated = GatedAddition(original.three_body.edge_gate_mlp, fuse)
        self.to_edges = EdgePerceptron(original.gated_mlp_edge, original.edge_layer_edge.linear, False, fuse)
        self.to_atoms = EdgePerceptron(original.gated_mlp_atom, original.edge_layer_atom.linear, True, fuse)

    def forward(
        self, x: Tensor, everyone: Tensor, edges: Tensor, radial: Tensor, near: Tensor, sums: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New features of owned atoms and of edges.

        Args:
            x: [n_owned, channels].
            everyone: [n_nodes, channels], owned atoms and ghosts.
            edges: [n_edges, channels].
            radial: [n_edges, n_radial].
            near, sums: see `AngleSums.forward`.
            edge_index: int64 [2, n_edges].
        """
        weighted = sums * torch.sigmoid(self.atom_gate(x)).index_select(0, edge_index[0].index_select(0, near))
        edges = self.add_gated(edges, near, weighted)
        edges = self.to_edges(x, everyone, edges, radial, edge_index)
        return x + self.to_atoms(x, everyone, edges, radial, edge_index), edges


class GatedPerceptron(nn.Module):
    """MatterSim's GatedMLP: two perceptrons of one input, of which the second, through a sigmoid, multiplies the first.

    The first matrices of both stand side by side in one.
    """

    def __init__(self, original: Any):
        super().__init__()
        self.first = linear_layer(*_first_of_both(original))
        self.values = nn.ModuleList(layer.linear for layer in original.g[1:])
        self.gates = nn.ModuleList(layer.linear for layer in original.sigma[1:])
        self.activated = hasattr(original.g[-1], "sigmoid")

    def forward(self, inputs: Tensor) -> Tensor:
        value, gate = self.first(inputs).chunk(2, dim=1)
        for to_value, to_gate in zip(self.values, self.gates):  # noqa: B905  TorchScript knows no strict=
            value, gate = to_value(nn.functional.silu(value)), to_gate(nn.functional.silu(gate))
        if self.activated:
            value = nn.functional.silu(value)
        result: Tensor = value * torch.sigmoid(gate)
        return result


class GatedAddition(nn.Module):
    """A GatedMLP of one layer whose results are added to some rows of a table.

    Args:
        original: GatedMLP.
        fuse: whether to use `mlip::gated_addition`, or torch's operators alone.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("fuse",)
    matrix: Tensor
    biases: Tensor

    def __init__(self, original: Any, fuse: bool):
        super().__init__()
        self.fuse = fuse
        weight, bias = _first_of_both(original)
        self.register_buffer("matrix", weight.T.contiguous())
        self.register_buffer("biases", weight.new_zeros(weight.shape[0]) if bias is None else bias)

    def forward(self, table: Tensor, places: Tensor, inputs: Tensor) -> Tensor:
        """The table [n_rows, channels] with the result of each of inputs [n, n_inputs] added in its place [n]."""
        if self.fuse:
            sums: Tensor = torch.ops.mlip.gated_addition(table, places, inputs, self.matrix, self.biases)
            return sums
        value, gate = torch.addmm(self.biases, inputs, self.matrix).chunk(2, dim=1)
        return table.index_add(0, places, nn.functional.silu(value) * torch.sigmoid(gate))


class EdgePerceptron(nn.Module):
    """A GatedMLP of two layers, of the features of an edge's centre, of its neighbour and of the edge, side by side.

    Args:
        original: GatedMLP.
        radial: matrix of the radial functions, by which the perceptron is multiplied, as a linear layer without bias.
        to_atoms: whether to sum over the edges of each centre, after a silu of what `radial` gives, or to add to the
            edges.
        fuse: whether to use `mlip::edge_perceptron`, or torch's operators alone.
    """

    # TorchScript then compiles only the branches that are taken.
    __constants__ = ("fuse", "to_atoms")
    of_edge: Tensor
    matrices: Tensor
    biases: Tensor
    of_radial: Tensor

    def __init__(self, original: Any, radial: nn.Linear, to_atoms: bool, fuse: bool):
        super().__init__()
        self.to_atoms, self.fuse = to_atoms, fuse
        weight, bias = _first_of_both(original)
        centre, neighbour, edge = weight.chunk(3, dim=1)
        self.of_centre, self.of_neighbour = linear_layer(centre, bias), linear_layer(neighbour)
        value, gate = original.g[1].linear, original.sigma[1].linear
        self.register_buffer("of_edge", edge.T.contiguous())
        self.register_buffer("matrices", torch.stack([value.weight.T, gate.weight.T]).detach().contiguous())
        self.register_buffer("biases", torch.cat([value.bias, gate.bias]).detach())
        self.register_buffer("of_radial", radial.weight.detach().T.contiguous())

    def forward(self, x: Tensor, everyone: Tensor, edges: Tensor, radial: Tensor, edge_index: Tensor) -> Tensor:
        """New features of edges [n_edges, channels], or what is added to those of atoms [n_owned, channels].

        Args:
            x, everyone, edges, radial, edge_index: see `Layer.forward`.
        """
        of_centres, of_neighbours = self.of_centre(x), self.of_neighbour(everyone)
        if self.fuse:
            weights = [self.of_edge, self.matrices, self.biases, self.of_radial]
            result: tuple[Tensor, Tensor] = torch.ops.mlip.edge_perceptron(
                of_centres, of_neighbours, edges, radial, edge_index, weights, self.to_atoms, False
            )
            return result[0]
        centres, neighbours = edge_index[0], edge_index[1]
        of_atoms = of_centres.index_select(0, centres) + of_neighbours.index_select(0, neighbours)
        first = nn.functional.silu(torch.addmm(of_atoms, edges, self.of_edge)).chunk(2, dim=1)
        biases = self.biases.chunk(2)
        value = torch.addmm(biases[0], first[0], self.matrices[0])
        gate = torch.addmm(biases[1], first[1], self.matrices[1])
        gated = nn.functional.silu(value) * torch.sigmoid(gate)
        factors = torch.mm(radial, self.of_radial)
        if self.to_atoms:
            return torch.zeros_like(x).index_add(0, centres, gated * nn.functional.silu(factors))
        return torch.addcmul(edges, gated, factors)


def _first_of_both(original: Any) -> tuple[Tensor, Tensor | None]:
    """The first matrices of a GatedMLP's two perceptrons as one [2 channels, inputs], and their biases."""
    value, gate = original.g[0].linear, original.sigma[0].linear
    bias = None if value.bias is None else torch.cat([value.bias, gate.bias]).detach()
    return torch.cat([value.weight, gate.weight]).detach(), bias
