"""eSEN (X. Fu et al. 2025), and UMA with mixed experts, behind the model interface: the same numbers as fairchem's.

Features are [n_atoms, (l_max+1)², channels]. A message is made in a frame in which its edge is the y axis: there a
rotation around the edge mixes components of the orders m and -m alone, and an equivariant linear map is one matrix for
each m. Components of messages are sorted by m: those of 0, then for each m those of m and those of -m, each by l.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlip_deploy.exporters.layers.polynomial_cutoff import polynomial_cutoff

LARGEST_CHARGE, LARGEST_SPIN = 100, 100
"""of fairchem's tables and checks"""


class FairchemEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV and float64.

    Args:
        backbone: fairchem's eSCNMDBackbone in the type to compute in.
        energy_block: of its head: features of an atom [n, channels] -> [n, 1].
        numbers: atomic number of each of the artifact's elements.
        dataset: whose embedding atoms get; None for a model that has none.
        rmsd: factor of the energy block's results, eV.
        references: float64 [n_elements] eV.
        charge_and_spin: of the system, where they are not given as settings.
        fuse: whether messages are made by mlip's operator, or by torch's.
    """

    references: Tensor
    embedding: Tensor
    offsets: Tensor
    charge_and_spin: Tensor

    def __init__(
        self,
        backbone: Any,
        energy_block: nn.Module,
        numbers: list[int],
        dataset: str | None,
        rmsd: float,
        references: Tensor,
        charge_and_spin: tuple[int, int] = (0, 0),
        fuse: bool = True,
    ):
        super().__init__()
        self.rmsd = rmsd
        self.system = SystemEmbedding(backbone, dataset)
        self.components: int = backbone.sph_feature_size
        self.register_buffer("embedding", backbone.sphere_embedding.weight[numbers].clone())
        self.register_buffer("references", references)
        self.register_buffer("charge_and_spin", self.embedding.new_tensor(charge_and_spin))
        self.register_buffer("offsets", backbone.distance_expansion.offset.clone())
        self.coefficient: float = backbone.distance_expansion.coeff
        self.cutoff: float = float(backbone.cutoff)
        self.exponent: float = float(backbone.envelope.p)
        self.rotations = EdgeRotations(backbone.lmax, backbone.mmax, self.embedding.dtype)
        self.degree = EdgeDegree(backbone, numbers)
        self.balance = BalancedChannels(backbone)
        self.layers = nn.ModuleList([Layer(block, backbone, numbers, fuse) for block in backbone.blocks])
        self.norm = RootMeanSquareNorm(backbone.norm)
        self.energy_block = energy_block

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors, settings)[0]
        return energies

    def energies_and_features(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars that the energy block is given."""
        distances = torch.linalg.vector_norm(edge_vectors, dim=[1])
        to_edge, envelope = self.rotations(edge_vectors, distances), self.envelope(distances)
        basis = torch.exp(self.coefficient * (distances.unsqueeze(1) - self.offsets).square())
        types = node_types[:n_owned]
        charge_and_spin = self.charge_and_spin if settings is None else settings
        system = self.system(charge_and_spin)
        scalars = (self.embedding[types] + system).unsqueeze(1)
        others = scalars.new_zeros(scalars.shape[0], self.components - 1, scalars.shape[2])
        x = torch.cat([scalars, others], dim=1)
        x = self.degree(x, node_types, edge_index, basis, to_edge, envelope)
        for layer in self.layers:
            x = layer(x, system, node_types, edge_index, basis, to_edge, envelope)
            x = self.balance(x, charge_and_spin)
        features = self.norm(x)[:, 0]
        energies: Tensor = self.energy_block(features).squeeze(1)
        return self.rmsd * energies.to(torch.float64) + self.references[types], features

    def envelope(self, distances: Tensor) -> Tensor:
        """fairchem's polynomial cutoff [n_edges]."""
        return polynomial_cutoff(distances / self.cutoff, self.exponent)


class SystemEmbedding(nn.Module):
    """Features of the whole system [channels], from charge and spin multiplicity (0 where it has no meaning).

    fairchem mixes embeddings of charge, spin and dataset by a linear map. The map of each embedding is a table here.
    """

    charges: Tensor
    spins: Tensor

    def __init__(self, backbone: Any, dataset: str | None):
        super().__init__()
        charges = torch.arange(-LARGEST_CHARGE, LARGEST_CHARGE + 1)
        spins = torch.arange(LARGEST_SPIN + 1)
        dtype = backbone.sphere_embedding.weight.dtype
        with torch.no_grad():
            embeddings = [backbone.charge_embedding(charges.to(dtype)), backbone.spin_embedding(spins.to(dtype))]
            if dataset is not None:
                embeddings.append(backbone.dataset_embedding([dataset]))
            matrices = backbone.mix_csd.weight.split([embedding.shape[1] for embedding in embeddings], dim=1)
            tables = [embedding @ matrix.T for embedding, matrix in zip(embeddings, matrices, strict=True)]
            constant = sum(tables[2:], backbone.mix_csd.bias)
        self.register_buffer("charges", tables[0] + constant)
        self.register_buffer("spins", tables[1])
        self.zero: int = LARGEST_CHARGE

    def forward(self, charge_and_spin: Tensor) -> Tensor:
        indices = charge_and_spin.round().to(torch.int64)
        mixed = self.charges[indices[0:1] + self.zero] + self.spins[indices[1:2]]
        return functional.silu(mixed).squeeze(0)


class EdgeRotations(nn.Module):
    """Rotations of features into the frames of edges.

    A frame's angle around its edge is arbitrary: nothing depends on it. Here it jumps where an edge is normal to the y
    axis. Rotations of degree l are made of those of l - 1 and 1 by Clebsch-Gordan coefficients.
    """

    def __init__(self, l_max: int, m_max: int, dtype: torch.dtype):
        super().__init__()
        from e3nn import o3

        self.couplings = nn.ParameterList(
            [
                (math.sqrt(2 * degree + 1) * o3.wigner_3j(1, degree - 1, degree, dtype=torch.float64)).to(dtype)
                for degree in range(2, l_max + 1)
            ]
        ).requires_grad_(False)
        self.l_max, self.m_max = l_max, m_max
        degrees = range(l_max + 1)
        rows = [(degree, m) for degree in degrees for m in range(-min(degree, m_max), min(degree, m_max) + 1)]
        order = [rows.index((degree, 0)) for degree in degrees]
        for m in range(1, m_max + 1):
            order += [rows.index((degree, sign * m)) for sign in (1, -1) for degree in degrees[m:]]
        self.order: Tensor
        self.register_buffer("order", torch.tensor(order))

    def forward(self, edge_vectors: Tensor, distances: Tensor) -> Tensor:
        """
        Returns:
            [n_edges, n_m, (l_max+1)²] into the frame of each edge, components sorted by m up to m_max.
        """
        unit = edge_vectors / distances.unsqueeze(1)
        first = self._frames(unit)
        blocks = [torch.ones_like(distances).reshape(-1, 1, 1), first]
        for coupling in self.couplings:
            blocks.append(self._next(first, blocks[-1], coupling))
        parts: list[Tensor] = []
        before = 0
        for degree, block in enumerate(blocks):
            m = min(degree, self.m_max)
            after = (self.l_max + 1) * (self.l_max + 1) - before - (2 * degree + 1)
            part = block[:, degree - m : degree + m + 1]
            # Not by functional.pad, which fixes the number of edges in a trace.
            zeros = [part.new_zeros(part.shape[0], 2 * m + 1, n) for n in (before, after)]
            parts.append(torch.cat([zeros[0], part, zeros[1]], dim=2))
            before += 2 * degree + 1
        return torch.cat(parts, dim=1).index_select(1, self.order)

    def _frames(self, unit: Tensor) -> Tensor:
        """Rotations [n_edges, 3, 3] that take unit vectors to the y axis.

        Of a vector whose y is negative, that of its image in a half turn around the x axis, after this half turn: the
        shortest rotation to the y axis has no limit at its opposite.
        """
        half_turn = torch.where(unit[:, 1] < 0.0, -torch.ones_like(unit[:, 1]), torch.ones_like(unit[:, 1]))
        x, y, z = unit[:, 0], half_turn * unit[:, 1], half_turn * unit[:, 2]
        c = 1.0 / (1.0 + y)
        rows = [1.0 - x * x * c, -x, -x * z * c, x, y, z, -x * z * c, -z, 1.0 - z * z * c]
        turned = torch.stack([torch.ones_like(half_turn), half_turn, half_turn], dim=1)
        return torch.stack(rows, dim=1).reshape(-1, 3, 3) * turned.unsqueeze(1)

    def _next(self, first: Tensor, previous: Tensor, coupling: Tensor) -> Tensor:
        """Sum over a, b, m, n of first_ab previous_mn coupling_amM coupling_bnN."""
        a, m, size = coupling.shape
        left = torch.matmul(previous.transpose(1, 2), coupling.transpose(0, 1).reshape(m, a * size))  # n, (a M)
        both = torch.matmul(
            first.transpose(1, 2), left.reshape(-1, m, a, size).transpose(1, 2).reshape(-1, a, m * size)
        )  # b, (n M)
        return torch.matmul(both.reshape(-1, a * m, size).transpose(1, 2), coupling.reshape(a * m, size))  # M, N


class RadialNetwork(nn.Module):
    """Scalars of edges [n_edges, n] from the radial basis and the elements of both atoms.

    The first matrix of the elements' embeddings is a table of the elements.
    """

    neighbours: Tensor
    centres: Tensor

    def __init__(self, original: Any, backbone: Any, numbers: list[int]):
        super().__init__()
        first = original.net[0]
        width = backbone.edge_channels
        matrices = first.weight.detach().split([first.in_features - 2 * width, width, width], dim=1)
        self.matrix = nn.Parameter(matrices[0].contiguous(), requires_grad=False)
        with torch.no_grad():
            self.register_buffer("neighbours", backbone.source_embedding.weight[numbers] @ matrices[1].T)
            centres = backbone.target_embedding.weight[numbers] @ matrices[2].T + first.bias
        self.register_buffer("centres", centres)
        self.rest = original.net[1:]

    def forward(self, node_types: Tensor, edge_index: Tensor, basis: Tensor) -> Tensor:
        x = functional.linear(basis, self.matrix)
        x = x + self.centres[node_types[edge_index[0]]] + self.neighbours[node_types[edge_index[1]]]
        result: Tensor = self.rest(x)
        return result


class EdgeDegree(nn.Module):
    """Adds to each atom's features what its edges give without features: radial scalars along the edge."""

    def __init__(self, backbone: Any, numbers: list[int]):
        super().__init__()
        original = backbone.edge_degree_embedding
        self.radial = RadialNetwork(original.rad_func, backbone, numbers)
        self.degrees: int = original.m_0_num_coefficients
        self.rescale: float = float(original.rescale_factor)

    def forward(
        self, x: Tensor, node_types: Tensor, edge_index: Tensor, basis: Tensor, to_edge: Tensor, envelope: Tensor
    ) -> Tensor:
        scalars = self.radial(node_types, edge_index, basis).reshape(-1, self.degrees, x.shape[2])
        from_edge = (to_edge[:, : self.degrees] * (envelope / self.rescale).reshape(-1, 1, 1)).transpose(1, 2)
        return x.index_add(0, edge_index[0], torch.bmm(from_edge, scalars))


class Layer(nn.Module):
    """eSCNMD_Block: messages in the frames of edges, then a network of each atom."""

    def __init__(self, original: Any, backbone: Any, numbers: list[int], fuse: bool):
        super().__init__()
        self.norm_1, self.norm_2 = RootMeanSquareNorm(original.norm_1), RootMeanSquareNorm(original.norm_2)
        plain = Messages(original.edge_wise, backbone, numbers)
        self.messages: nn.Module = FusedMessages(plain) if fuse else plain
        grid = type(original.atom_wise).__name__ == "GridAtomwise"
        self.atoms: nn.Module = AtomsOnGrid(original.atom_wise) if grid else GatedAtoms(original.atom_wise)

    def forward(
        self,
        x: Tensor,
        system: Tensor,
        node_types: Tensor,
        edge_index: Tensor,
        basis: Tensor,
        to_edge: Tensor,
        envelope: Tensor,
    ) -> Tensor:
        components, channels = x.shape[1], x.shape[2]
        rows = self.norm_1(x).reshape(-1, components * channels)
        rows = rows + functional.pad(system, (0, (components - 1) * channels))
        nodes = torch.ops.mlip.ghost_gather(rows, node_types.shape[0]).reshape(-1, components, channels)
        x = x + self.messages(nodes, node_types, x.shape[0], edge_index, basis, to_edge, envelope)
        result: Tensor = x + self.atoms(self.norm_2(x))
        return result


class Messages(nn.Module):
    """Edgewise: from the features of both atoms, in the frames of edges; summed over the edges of each centre."""

    def __init__(self, original: Any, backbone: Any, numbers: list[int]):
        super().__init__()
        l_max, m_max = original.lmax, original.mmax
        self.radial = RadialNetwork(original.so2_conv_1.rad_func, backbone, numbers)
        self.scalars: list[int] = list(original.so2_conv_1.edge_split_sizes)
        self.components: list[int] = list(original.so2_conv_1.m_split_sizes)
        self.matrices_1 = OrderMatrices(original.so2_conv_1)
        self.matrices_2 = OrderMatrices(original.so2_conv_2)
        self.gates: int = original.so2_conv_1.extra_m0_output_channels
        self.l_max, self.m_max = l_max, m_max
        self.hidden: int = original.hidden_channels

    def forward(
        self,
        nodes: Tensor,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        basis: Tensor,
        to_edge: Tensor,
        envelope: Tensor,
    ) -> Tensor:
        n_edges, components, channels = edge_index.shape[1], nodes.shape[1], nodes.shape[2]
        both = torch.cat([nodes.index_select(0, edge_index[1]), nodes.index_select(0, edge_index[0])], dim=2)
        orders = torch.split(torch.bmm(to_edge, both), self.components, dim=1)
        weights = torch.split(self.radial(node_types, edge_index, basis), self.scalars, dim=1)
        blocks: list[Tensor] = []
        for m in range(self.m_max + 1):
            block = orders[m].reshape(n_edges, min(m, 1) + 1, self.scalars[m]) * weights[m].unsqueeze(1)
            blocks.append(block.flatten(1))
        blocks = self.matrices_2(self.gate(self.matrices_1(blocks)))
        for m in range(self.m_max + 1):
            blocks[m] = blocks[m].reshape(n_edges, self.components[m], channels)
        from_edge = (to_edge * envelope.reshape(-1, 1, 1)).transpose(1, 2)
        messages = torch.bmm(from_edge, torch.cat(blocks, dim=1))
        return nodes.new_zeros(n_owned, components, channels).index_add(0, edge_index[0], messages)

    def gate(self, blocks: list[Tensor]) -> list[Tensor]:
        """Scalars through an activation; each degree of the other components times a gate."""
        gates, rest = torch.split(blocks[0], [self.gates, blocks[0].shape[1] - self.gates], dim=1)
        gates = torch.sigmoid(gates)
        results = [torch.cat([functional.silu(rest[:, : self.hidden]), rest[:, self.hidden :] * gates], dim=1)]
        for m in range(1, self.m_max + 1):
            own = gates[:, (m - 1) * self.hidden :]
            results.append((blocks[m].reshape(own.shape[0], 2, own.shape[1]) * own.unsqueeze(1)).flatten(1))
        return results


class FusedMessages(nn.Module):
    """The same by `mlip::so2_convolution`, which takes few edges at a time through all steps."""

    def __init__(self, plain: Messages):
        super().__init__()
        norm_1, _, linear_1, norm_2, _, linear_2 = plain.radial.rest
        radial = [plain.radial.matrix, plain.radial.centres, plain.radial.neighbours]
        for part in (norm_1, linear_1, norm_2, linear_2):
            radial += [part.weight, part.bias]
        self.radial = constants(radial)
        self.first, self.second = (constants(one.three_products()) for one in (plain.matrices_1, plain.matrices_2))
        self.epsilon: float = norm_1.eps

    def forward(
        self,
        nodes: Tensor,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        basis: Tensor,
        to_edge: Tensor,
        envelope: Tensor,
    ) -> Tensor:
        radial: list[Tensor] = []
        first: list[Tensor] = []
        second: list[Tensor] = []
        for tensor in self.radial:
            radial.append(tensor)
        for tensor in self.first:
            first.append(tensor)
        for tensor in self.second:
            second.append(tensor)
        result: tuple[Tensor, Tensor] = torch.ops.mlip.so2_convolution(
            nodes,
            to_edge,
            envelope,
            basis,
            node_types,
            edge_index,
            n_owned,
            radial,
            first,
            second,
            self.epsilon,
            False,
        )
        return result[0]


def constants(tensors: list[Tensor]) -> nn.ParameterList:
    return nn.ParameterList(tensor.detach().contiguous() for tensor in tensors).requires_grad_(False)


class OrderMatrices(nn.Module):
    """SO2_Convolution without its radial factors: one matrix for each order m.

    Components of m and -m mix as real and imaginary parts under two matrices U and V: [U -V; V U] is one.
    """

    def __init__(self, original: Any):
        super().__init__()
        matrices = [original.fc_m0.weight.detach()]
        for part in original.so2_m_conv:
            u, v = part.fc.weight.detach().split(part.out_channels_half, dim=0)
            matrices.append(torch.cat([torch.cat([u, -v], dim=1), torch.cat([v, u], dim=1)], dim=0))
        self.matrices = nn.ParameterList(matrices).requires_grad_(False)
        self.bias = nn.Parameter(original.fc_m0.bias.detach(), requires_grad=False)

    def three_products(self) -> list[Tensor]:
        """As `mlip::so2_convolution` takes them: bias, matrix of m = 0, and U, V - U, U + V of each other m."""
        tensors: list[Tensor] = [self.bias, self.matrices[0]]
        for matrix in list(self.matrices)[1:]:
            u, v = matrix[:, : matrix.shape[1] // 2].split(matrix.shape[0] // 2, dim=0)
            tensors.append(torch.stack([u, v - u, u + v]))
        return tensors

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = []
        for m, matrix in enumerate(self.matrices):
            results.append(functional.linear(blocks[m], matrix, self.bias if m == 0 else None))
        return results


class RootMeanSquareNorm(nn.Module):
    """EquivariantRMSNormArraySphericalHarmonicsV2: one norm over all components, in which every l weighs the same."""

    shares: Tensor
    weights: Tensor
    scalar: Tensor
    bias: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.epsilon: float = original.eps
        weights = original.affine_weight.detach()[original.expand_index]
        scalar = torch.zeros_like(weights[:, :1])
        scalar[0] = 1.0
        self.register_buffer("shares", original.balance_degree_weight / weights.shape[1])
        self.register_buffer("weights", weights)
        self.register_buffer("scalar", scalar)
        self.register_buffer("bias", scalar * original.affine_bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        x = x - x[:, :1].mean(dim=2, keepdim=True) * self.scalar
        square = (x.square() * self.shares).sum(dim=[1, 2], keepdim=True)
        return x * ((square + self.epsilon).rsqrt() * self.weights) + self.bias


class AtomsOnGrid(nn.Module):
    """GridAtomwise: a network of the features' values on a grid of directions. Rotations change it a little."""

    to_grid: Tensor
    from_grid: Tensor

    def __init__(self, original: Any):
        super().__init__()
        grid = original.SO3_grid["lmax_lmax"]
        self.register_buffer("to_grid", grid.to_grid_mat.flatten(0, 1).clone())
        self.register_buffer("from_grid", grid.from_grid_mat.flatten(0, 1).T.contiguous())
        self.network = original.grid_mlp

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.matmul(self.from_grid, self.network(torch.matmul(self.to_grid, x)))
        return result


class GatedAtoms(nn.Module):
    """SpectralAtomwise: a linear map of each degree, a gate, and a linear map."""

    def __init__(self, original: Any):
        super().__init__()
        self.scalars = original.scalar_mlp
        self.linear_1, self.linear_2 = DegreeMatrices(original.so3_linear_1), DegreeMatrices(original.so3_linear_2)
        self.l_max: int = original.lmax
        self.degree: Tensor
        self.register_buffer("degree", original.act.expand_index.clone())

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.scalars(x[:, 0]))
        x = self.linear_1(x)
        gates = gates.reshape(-1, self.l_max, x.shape[2])
        x = torch.cat([functional.silu(x[:, :1]), x[:, 1:] * gates.index_select(1, self.degree)], dim=1)
        result: Tensor = self.linear_2(x)
        return result


class DegreeMatrices(nn.Module):
    """SO3_Linear: one matrix for each degree l, and a bias of the scalars."""

    def __init__(self, original: Any):
        super().__init__()
        self.matrices = nn.ParameterList(list(original.weight.detach())).requires_grad_(False)
        self.bias = nn.Parameter(original.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for degree, matrix in enumerate(self.matrices):
            part = x[:, degree * degree : (degree + 1) * (degree + 1)]
            parts.append(functional.linear(part, matrix, self.bias if degree == 0 else None))
        return torch.cat(parts, dim=1)


class BalancedChannels(nn.Module):
    """Shifts some scalars so that their sums over all atoms are the charge, and the spin multiplicity less one."""

    __constants__ = ("some",)
    ranges: list[tuple[int, int, int]]

    def __init__(self, backbone: Any):
        super().__init__()
        ranges = [
            (0, backbone.charge_channel_start, backbone.charge_channel_end),
            (1, backbone.spin_channel_start, backbone.spin_channel_end),
        ]
        self.ranges = [(which, start, end) for which, start, end in ranges if start < end]
        self.some = bool(self.ranges)

    def forward(self, x: Tensor, charge_and_spin: Tensor) -> Tensor:
        if self.some:
            for which, start, end in self.ranges:
                scalars = x[:, 0]
                summed = torch.cat([scalars[:, start:end], torch.ones_like(scalars[:, :1])], dim=1)
                sums = torch.ops.mlip.sum_over_atoms(summed)
                shift = (sums[:-1] - (charge_and_spin[which] - float(which))) / sums[-1]
                shift = functional.pad(shift, (start, scalars.shape[1] - end))
                x = torch.cat([(scalars - shift).unsqueeze(1), x[:, 1:]], dim=1)
        return x


class FixedComposition(nn.Module):
    """An energy model that is right for systems of one composition alone, of any number of atoms.

    Args:
        counts: of atoms of each of the artifact's elements, in their order.
    """

    counts: Tensor

    def __init__(self, model: nn.Module, elements: list[str], counts: list[int]):
        super().__init__()
        self.model = model
        self.elements: list[str] = elements
        self.name: str = formula(elements, counts)
        self.register_buffer("counts", torch.tensor(counts, dtype=torch.float64))

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        one_hot = functional.one_hot(node_types[:n_owned], len(self.elements)).to(torch.float64)
        degrees = torch.zeros_like(one_hot[:, :1]).index_add(0, edge_index[0], one_hot.new_ones(edge_index.shape[1], 1))
        sums = torch.ops.mlip.sum_over_atoms(torch.cat([one_hot, degrees], dim=1))  # of all ranks: all of them refuse
        found, n_atoms, n_edges = sums[:-1], sums[:-1].sum(), sums[-1]
        # One atom without edges takes no part of experts. With one edge it is no system, but what a file is tried with
        # when it is loaded.
        alone = bool(n_atoms == 1.0) and bool(n_edges <= 1.0)
        if not alone and bool((found * self.counts.sum() != self.counts * n_atoms).any()):
            system = ""
            for k, element in enumerate(self.elements):
                if bool(found[k] > 0.0):
                    system = system + " " + element + str(int(found[k]))
            raise RuntimeError(
                f"this file is for the composition {self.name}, for which its experts were mixed, and the system has "
                f"the atoms{system}. Export the model for this one: mlip export fairchem ... --fix composition="
                f"{system.replace(' ', '')}"
            )
        energies: Tensor = self.model(node_types, n_owned, edge_index, edge_vectors)
        return energies


def formula(elements: list[str], counts: list[int]) -> str:
    """Such as "SiO2"."""
    return "".join(f"{element}{count if count > 1 else ''}" for element, count in zip(elements, counts, strict=True))
