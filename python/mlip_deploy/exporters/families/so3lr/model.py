"""SO3LR behind the model interface: the same numbers as so3krates-torch's model.

So3krates (J. T. Frank et al. 2024) is a transformer whose atoms have invariant features and short equivariant ones, one
number for each spherical harmonic: neighbours attend to each other by both. Its last features give the short-range
energy, a charge and a volume of each atom, which the electrostatics and dispersion between atoms out to a longer cutoff
are made of. Edges reach to the long cutoff; the short ones are selected.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.so3lr.attention import FusedAttention, PlainAttention, filter_tables, is_fusible
from mlip_deploy.exporters.families.so3lr.pair_terms import (
    Dispersion,
    Electrostatics,
    FusedPairs,
    PlainPairs,
    Repulsion,
)
from mlip_deploy.exporters.families.so3lr.radial import RadialBasis
from mlip_deploy.operators import load_operators


class SO3LREnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors and the total charge, in eV.

    Args:
        original: `SO3LR` with its cutoffs, in the type to compute in.
        in_float64: the same in float64, to make tables of its radial networks; None to evaluate them.
        numbers: atomic number of each of the artifact's elements.
        fuse: whether to use mlip's operators, or torch's alone.
    """

    shifts: Tensor

    def __init__(self, original: Any, in_float64: Any | None, numbers: list[int], fuse: bool):
        super().__init__()
        from so3krates_torch.blocks.physical_potentials import ALPHAS, BOHR, C6_COEF, HARTREE

        dtype = original.inv_feature_embedding.embedding.weight.dtype
        of_elements = torch.tensor(numbers) - 1
        self.short_cutoff: float = float(original.r_max)
        self.embedding = Embedding(original, numbers)
        self.network = Network(original, in_float64, fuse)
        self.short_range = ShortRangeEnergy(original.atomic_energy_output_block, of_elements)
        self.repulsion = Repulsion(original.zbl_repulsion, numbers)
        self.charges = Charges(original.partial_charges_output_block, numbers)
        self.volumes = VolumeRatios(original.hirshfeld_output_block, numbers)
        electrostatics = Electrostatics(
            float(original.electrostatic_potential.ke),
            float(original.electrostatic_energy_scale),
            float(original.r_max_lr),
        )
        dispersion = Dispersion(
            ALPHAS[of_elements].to(dtype),
            C6_COEF[of_elements].to(dtype),
            float(original.dispersion_energy_scale),
            float(original.r_max_lr),
            float(original.dispersion_energy_cutoff_lr_damping),
            BOHR,
            HARTREE,
        )
        self.pairs = (FusedPairs if fuse else PlainPairs)(electrostatics, dispersion)
        # More than a hundred electronvolts for each atom, which float32 would round.
        shifts = original.atomic_energy_output_block.energy_shifts.detach()[of_elements]
        self.register_buffer("shifts", shifts.double())

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, settings: Tensor
    ) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors, settings)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, settings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the invariant ones of the last layer: of energy, charge and volume."""
        n_nodes = node_types.shape[0]
        owned_types = node_types[:n_owned]
        counts = self.embedding.count(owned_types)
        # One atom with one edge is no system, but what a file is tried with when it is loaded.
        if not (bool(counts.sum() == 1.0) and edge_index.shape[1] == 1):
            self.embedding.refuse_no_electrons(counts, settings[0])
        rows = self.embedding(counts, settings[0])

        distances = edge_vectors.square().sum(dim=1).sqrt()
        near = torch.nonzero(distances < self.short_cutoff).squeeze(1)
        edges = edge_index[:, near]
        features, cutoffs = self.network(rows[node_types], n_owned, edges, edge_vectors[near])

        energies = self.short_range(features, owned_types)
        energies = energies + self.repulsion(node_types, n_owned, edges[0], edges[1], distances[near], cutoffs)
        charges = self.charges(features, owned_types, settings[0], counts.sum())
        ratios = self.volumes(features, owned_types)
        everyone = torch.ops.mlip.ghost_gather(torch.stack([charges, ratios], dim=1), n_nodes)
        charges, ratios = everyone[:, 0], everyone[:, 1]
        energies = energies + self.pairs(charges, ratios, node_types, n_owned, edge_index, distances)
        return energies.to(torch.float64) + self.shifts[owned_types], features


class Embedding(nn.Module):
    """Features of an atom by its element and by its share of the total charge.

    A spin has a share like it, which is zero for a singlet.
    """

    rows: Tensor
    queries: Tensor
    numbers: Tensor
    keys: Tensor
    values: Tensor

    def __init__(self, original: Any, numbers: list[int]):
        super().__init__()
        of_elements = torch.tensor(numbers) - 1
        charge = original.charge_embedding
        self.register_buffer("rows", original.inv_feature_embedding.embedding.weight.detach()[:, of_elements].t())
        self.register_buffer("queries", charge.Wq.weight.detach()[:, of_elements].t())
        self.register_buffer("keys", charge.Wk.detach())
        self.register_buffer("values", charge.Wv.detach())
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.float64))
        self.network = charge.mlp
        self.scale: float = float(original.embedding_scale)
        self.root: float = float(charge.sqrt_dim)
        self.n_elements = len(numbers)

    def count(self, owned_types: Tensor) -> Tensor:
        """How many atoms of each element the system has, float64 [n_elements]."""
        one_hot = nn.functional.one_hot(owned_types, self.n_elements).to(torch.float64)
        counts: Tensor = torch.ops.mlip.sum_over_atoms(one_hot)
        return counts

    def refuse_no_electrons(self, counts: Tensor, charge: Tensor) -> None:
        """Raises RuntimeError for a charge of the system that leaves it none; arguments as of `forward`."""
        electrons = (counts * self.numbers).sum() - charge
        if bool(electrons < 0.5):
            raise RuntimeError(
                f"a charge of {int(charge)} leaves {int(electrons)} electrons in the system. Set the total charge of "
                "all its atoms"
            )

    def forward(self, counts: Tensor, charge: Tensor) -> Tensor:
        """Features of each element [n_elements, n_features].

        Args:
            counts: from `count`.
            charge: of the system, e.
        """
        sign = (charge < 0.0).to(torch.int64)
        weights = nn.functional.softplus((self.queries * self.keys[sign]).sum(dim=1) / self.root)
        total = (weights * counts.to(weights.dtype)).sum() + 1e-6
        share = (charge * weights / total).unsqueeze(1) * self.values[sign]
        result: Tensor = (self.rows + share + self.network(share)) / self.scale
        return result


class Network(nn.Module):
    """So3krates: layers of attention between neighbours.

    Args:
        original: `SO3LR`, in the type to compute in.
        in_float64: the same in float64, to make tables of its radial networks; None to evaluate them.
        fuse: see SO3LREnergy.
    """

    def __init__(self, original: Any, in_float64: Any | None, fuse: bool):
        super().__init__()
        self.harmonics: nn.Module = FusedHarmonics(original) if fuse else PlainHarmonics(original)
        self.cutoff = _cutoff(original)
        transformers = original.euclidean_transformers
        fuse = fuse and is_fusible(transformers[0])
        tables = None
        if fuse and in_float64 is not None:
            tables = filter_tables(in_float64, original.inv_feature_embedding.embedding.weight.dtype)
        self.radial: nn.Module = RadialBasis(original) if tables is None else nn.Identity()
        layers = []
        for k, transformer in enumerate(transformers):
            if fuse:
                table = tables[k] if tables is not None else None
                layers.append(Layer(transformer, FusedAttention(transformer, k == 0, table)))
            else:
                layers.append(Layer(transformer, PlainAttention(transformer, k == 0)))
        self.layers = nn.ModuleList(layers)
        self.width = sum(2 * degree + 1 for degree in original.degrees)

    def forward(
        self, features: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            features: of all nodes [n_nodes, n_features], which depend on the element alone.
            edge_index, edge_vectors: of edges up to the short cutoff.

        Returns:
            features of owned atoms [n_owned, n_features], and the cutoff function of the edges [n_edges].
        """
        n_nodes = features.shape[0]
        distances, harmonics = self.harmonics(edge_vectors)
        radial, cutoffs = self.radial(distances), self.cutoff(distances.unsqueeze(1)).squeeze(1)
        rows = torch.cat([features, features.new_zeros([n_nodes, self.width])], dim=1)
        for k, layer in enumerate(self.layers):
            if k > 0:
                rows = torch.ops.mlip.ghost_gather(rows, n_nodes)
            rows = layer(rows, n_owned, edge_index, radial, cutoffs, harmonics)
        return rows[:, : features.shape[1]], cutoffs


def _cutoff(original: Any) -> nn.Module:
    cutoff: nn.Module = original.cutoff_fn
    if "r_max" in getattr(type(cutoff), "__annotations__", {}):  # as a tensor, which TorchScript insists on
        cutoff.r_max = torch.tensor(float(original.r_max), dtype=torch.float64)
    return cutoff


class Layer(nn.Module):
    """One layer: attention of neighbours, then a mixing of the two kinds of features of each atom.

    Args:
        original: `EuclideanTransformer`.
        attention: of its neighbours.
    """

    invariants: Tensor
    of_degree: Tensor

    def __init__(self, original: Any, attention: nn.Module):
        super().__init__()
        self.attention = attention
        self.n_features = int(original.euclidean_attention_block.num_features)
        contraction = original.euclidean_attention_block.so3_conv_invariants
        of_degree = contraction.segment_sum_matrix.detach().to(contraction.cg_rep.dtype)
        self.register_buffer("of_degree", of_degree)
        self.register_buffer("invariants", contraction.cg_rep.detach().unsqueeze(1) * of_degree)
        self.norm_1 = original.layer_norm_inv_1 if original.layer_normalization_1 else nn.Identity()
        self.norm_2 = original.layer_norm_inv_2 if original.layer_normalization_2 else nn.Identity()
        self.mixing = original.interaction_block.linear_layer
        # without a perceptron: that of a residual connection, which adds nothing
        self.perceptron_1: nn.Module = original.mlp_1 if original.residual_mlp_1 else Nothing()
        self.perceptron_2: nn.Module = original.mlp_2 if original.residual_mlp_2 else Nothing()

    def forward(
        self,
        rows: Tensor,
        n_owned: int,
        edge_index: Tensor,
        radial: Tensor,
        cutoffs: Tensor,
        harmonics: Tensor,
    ) -> Tensor:
        """
        Args:
            rows: invariant and equivariant features of all nodes [n_nodes, n_features + n_harmonics].
            radial, cutoffs, harmonics: of edges [n_edges, ...].

        Returns:
            those of owned atoms [n_owned, n_features + n_harmonics].
        """
        scalars, vectors = rows[:, : self.n_features], rows[:, self.n_features :]
        messages, vector_messages = self.attention(scalars, vectors, n_owned, edge_index, radial, cutoffs, harmonics)
        owned = self.norm_1(scalars[:n_owned] + messages)
        owned_vectors = vectors[:n_owned] + vector_messages
        owned = owned + self.perceptron_1(owned)

        mixed = self.mixing(torch.cat([owned, owned_vectors.square() @ self.invariants], dim=1))
        owned = owned + mixed[:, : self.n_features]
        owned_vectors = owned_vectors * (1.0 + mixed[:, self.n_features :] @ self.of_degree.t())
        owned = self.norm_2(owned + self.perceptron_2(owned))
        return torch.cat([owned, owned_vectors], dim=1)


class Nothing(nn.Module):
    """Zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class PlainHarmonics(nn.Module):
    """Lengths [n_edges] Å and real spherical harmonics [n_edges, n_harmonics] of edge vectors, by torch's operators.

    So3krates' own code is not for TorchScript. Within a degree the order 0 comes first, then the cosine and the sine of
    each other order; no invariant can tell this from another sequence.
    """

    def __init__(self, original: Any):
        super().__init__()
        self.degrees: list[int] = list(original.degrees)
        self.largest: int = max(self.degrees)
        self.norms: list[float] = [
            _norm(degree, order) for degree in range(self.largest + 1) for order in range(degree + 1)
        ]

    def forward(self, edge_vectors: Tensor) -> tuple[Tensor, Tensor]:
        distances = edge_vectors.square().sum(dim=1).sqrt()
        directions = edge_vectors / distances.unsqueeze(1)
        x, y, z = directions[:, 0], directions[:, 1], directions[:, 2]
        # of multiples of the azimuth, times powers of the sine of the polar angle
        cosines, sines = [torch.ones_like(z)], [torch.zeros_like(z)]
        for order in range(self.largest):
            cosines.append(x * cosines[order] - y * sines[order])
            sines.append(x * sines[order] + y * cosines[order])
        # associated Legendre polynomials without those powers, at degree (degree + 1) / 2 + order
        legendre = [torch.ones_like(z)]
        for degree in range(1, self.largest + 1):
            before, twice_before = degree * (degree - 1) // 2, (degree - 1) * (degree - 2) // 2
            for order in range(degree):
                value = (2 * degree - 1) * z * legendre[before + order]
                if degree - order > 1:
                    value = value - (degree + order - 1) * legendre[twice_before + order]
                legendre.append(value / (degree - order))
            legendre.append((2 * degree - 1) * legendre[before + degree - 1])
        columns: list[Tensor] = []
        for degree in self.degrees:
            for order in range(degree + 1):
                place = degree * (degree + 1) // 2 + order
                value = self.norms[place] * legendre[place]
                columns.append(value * cosines[order])
                if order > 0:
                    columns.append(value * sines[order])
        return distances, torch.stack(columns, dim=1)


def _norm(degree: int, order: int) -> float:
    """What an associated Legendre polynomial is multiplied with in a real spherical harmonic."""
    ratio = math.factorial(degree - order) / math.factorial(degree + order)
    return math.sqrt((1 if order == 0 else 2) * (2 * degree + 1) / (4.0 * math.pi) * ratio)


class FusedHarmonics(nn.Module):
    """The same by `mlip::edge_harmonics`, in another order within each degree, which no invariant sees."""

    columns: Tensor

    def __init__(self, original: Any):
        super().__init__()
        load_operators()
        self.l_max = max(original.degrees)
        columns = [m for degree in original.degrees for m in range(degree**2, (degree + 1) ** 2)]
        self.register_buffer("columns", torch.tensor(columns))
        self.scale: float = 1.0 / math.sqrt(4.0 * math.pi)

    def forward(self, edge_vectors: Tensor) -> tuple[Tensor, Tensor]:
        distances, harmonics = torch.ops.mlip.edge_harmonics(edge_vectors, self.l_max)
        return distances, harmonics[:, self.columns] * self.scale


class ShortRangeEnergy(nn.Module):
    """The network's energy of each atom, without its element's constant."""

    scales: Tensor

    def __init__(self, original: Any, of_elements: Tensor):
        super().__init__()
        self.layers, self.final_layer = original.layers, original.final_layer
        self.activation = original.non_linearity
        self.register_buffer("scales", original.energy_scales.weight.detach()[0, of_elements])

    def forward(self, features: Tensor, types: Tensor) -> Tensor:
        for layer in self.layers:
            features = self.activation(layer(features))
        energies: Tensor = self.final_layer(features).squeeze(1)
        return energies * self.scales[types]


class Charges(nn.Module):
    """Charges of atoms, shifted alike so that they add up to the total charge."""

    offsets: Tensor

    def __init__(self, original: Any, numbers: list[int]):
        super().__init__()
        self.network = original.transform_inv_features
        self.register_buffer("offsets", original.atomic_embedding.weight.detach()[numbers, 0])

    def forward(self, features: Tensor, types: Tensor, total: Tensor, n_atoms: Tensor) -> Tensor:
        """
        Args:
            features, types: of owned atoms.
            total: charge of the system, e.
            n_atoms: of the system, float64.

        Returns:
            [n_owned] e.
        """
        charges = self.network(features).squeeze(1) + self.offsets[types]
        excess = torch.ops.mlip.sum_over_atoms(charges.to(torch.float64)) - total
        result: Tensor = charges - (excess / n_atoms).to(charges.dtype)
        return result


class VolumeRatios(nn.Module):
    """Hirshfeld volume of each atom over that of a free one [n_owned]."""

    offsets: Tensor
    vectors: Tensor

    def __init__(self, original: Any, numbers: list[int]):
        super().__init__()
        self.network = original.transform_features
        vectors = original.q_embedding.weight.detach()[numbers]
        self.register_buffer("offsets", original.v_shift_embedding.weight.detach()[numbers, 0])
        self.register_buffer("vectors", vectors / math.sqrt(vectors.shape[1]))

    def forward(self, features: Tensor, types: Tensor) -> Tensor:
        ratios: Tensor = self.offsets[types] + (self.vectors[types] * self.network(features)).sum(dim=1)
        return ratios.abs()
