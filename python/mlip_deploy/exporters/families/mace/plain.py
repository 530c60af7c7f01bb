"""MACE's own layers behind the model interface.

In MACE an edge goes from its sender (our neighbour j) to its receiver (our centre i) and its vector is r_i - r_j, the
opposite of ours. MACE's blocks take and give features of all nodes, so features of ghosts are fetched before a
block and results on ghosts, which receive nothing, are dropped after it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.mace.inputs import FirstFeatures
from mlip_deploy.exporters.interface import given
from mlip_deploy.exporters.layers.polynomial_cutoff import polynomial_cutoff

INTERACTIONS = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
)
"""Classes of interaction blocks that TorchScript accepts; names with 'Residual' return a skip connection."""


class EdgeFeatures(nn.Module):
    """What MACE computes of each edge alone: harmonics and radial basis."""

    atomic_numbers: Tensor

    def __init__(self, model: Any):
        super().__init__()
        self.spherical_harmonics = model.spherical_harmonics
        self.radial_embedding = model.radial_embedding
        self.register_buffer("atomic_numbers", model.atomic_numbers.detach().clone())

    def harmonics(self, edge_vectors: Tensor) -> Tensor:
        """[n_edges, (max_ell+1)²] of MACE's edge vector, from ours (r_j - r_i, Å)."""
        result: Tensor = self.spherical_harmonics(-edge_vectors)
        return result

    def forward(self, lengths: Tensor, one_hot: Tensor, edges: Tensor) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            lengths: [n_edges, 1] Å.
            one_hot: [n_nodes, n_elements].
            edges: int64 [2, n_edges], sender and receiver.

        Returns:
            radial features [n_edges, n_basis], and the cutoff function [n_edges, 1] when it is not yet in them.
        """
        result: tuple[Tensor, Tensor | None] = self.radial_embedding(lengths, one_hot, edges, self.atomic_numbers)
        return result


class ScriptableGate(nn.Module):
    """MACE's GatedEquivariantBlock, which TorchScript does not take as it is."""

    def __init__(self, original: Any):
        super().__init__()
        self.act_scalars = original._act_scalar
        self.act_gates = original._act_gate
        self.scalar_factor: float = original._scalar_cst
        self.gate_factor: float = original._gate_cst
        self.scalars: tuple[int, int] = (original._s_start, original._s_len)
        self.gates: tuple[int, int] = (original._g_start, original._g_len)
        self.gated: list[tuple[int, int, int, int, int]] = original._gated_info

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.scalar_factor * self.act_scalars(x.narrow(-1, self.scalars[0], self.scalars[1]))]
        gates = self.gate_factor * self.act_gates(x.narrow(-1, self.gates[0], self.gates[1]))
        for start, length, components, channels, gate in self.gated:
            block = x.narrow(-1, start, length).reshape(-1, channels, components)
            parts.append((block * gates.narrow(-1, gate, channels).unsqueeze(-1)).flatten(1))
        return torch.cat(parts, dim=-1)


class PairRepulsion(nn.Module):
    """MACE's ZBLBasis (Ziegler, Biersack, Littmark 1985, with an envelope up to the sum of covalent radii).

    MACE multiplies charges in torch's default type, which in an engine is not the model's; here they are tables.

    Args:
        original: ZBLBasis.
        atomic_numbers: int64 [n_elements].
    """

    charges: Tensor
    reduced_charges: Tensor
    radii: Tensor
    fractions: Tensor
    decays: Tensor

    def __init__(self, original: Any, atomic_numbers: Tensor):
        super().__init__()
        dtype = original.c.dtype
        numbers = atomic_numbers.to(original.c.device)
        self.register_buffer("charges", numbers.to(dtype))
        self.register_buffer("reduced_charges", torch.pow(numbers.double(), original.a_exp.detach().double()).to(dtype))
        self.register_buffer("radii", original.covalent_radii[numbers].detach().clone())
        self.register_buffer("fractions", original.c.detach().clone())
        self.register_buffer("decays", torch.tensor([-3.2, -0.9423, -0.4028, -0.2016], dtype=dtype))
        self.length = 0.529 * float(original.a_prefactor)
        self.power = float(original.p)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, distances: Tensor) -> Tensor:
        """
        Args:
            node_types, n_owned, edge_index: as in the model interface.
            distances: [n_edges] Å.

        Returns:
            [n_owned] eV, half of each pair's energy.
        """
        first, second = node_types[edge_index[0]], node_types[edge_index[1]]
        reduced = distances * (self.reduced_charges[first] + self.reduced_charges[second]) / self.length
        screening = (self.fractions * torch.exp(self.decays * reduced.unsqueeze(1))).sum(1)
        x = distances / (self.radii[first] + self.radii[second])
        charges = self.charges[first] * self.charges[second]
        pairs = 0.5 * 14.3996 * charges / distances * screening * polynomial_cutoff(x, self.power)
        total = torch.zeros([n_owned], dtype=distances.dtype, device=distances.device)
        return total.index_add(0, edge_index[0], pairs)


class EnergySum(nn.Module):
    """Atomic energies in float64, eV, as MACE adds them: E0 + scale * (pair repulsion + read-outs) + shift.

    Args:
        model: MACE or ScaleShiftMACE.
        head: index of the head that is baked in.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("has_pair_repulsion",)
    isolated: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, model: Any, head: int):
        super().__init__()
        self.head = head
        self.readouts = model.readouts
        # One read-out belongs to the last layer.
        self.first_layer = len(model.interactions) - len(model.readouts)
        # e3nn sorts even scalars first.
        first_blocks = [product.linear.irreps_out[0] for product in model.products[self.first_layer :]]
        self.n_scalars: list[int] = [block.mul * block.ir.dim for block in first_blocks]
        self.has_pair_repulsion = hasattr(model, "pair_repulsion_fn")
        self.pair_repulsion: nn.Module = nn.Identity()
        if self.has_pair_repulsion:
            self.pair_repulsion = PairRepulsion(model.pair_repulsion_fn, model.atomic_numbers)
        energies = model.atomic_energies_fn.atomic_energies.detach().reshape(-1, model.atomic_numbers.numel())
        self.register_buffer("isolated", energies[head].double().clone())
        scaling = getattr(model, "scale_shift", None)
        scale = torch.ones(1) if scaling is None else scaling.scale.detach().reshape(-1)
        shift = torch.zeros(1) if scaling is None else scaling.shift.detach().reshape(-1)
        self.register_buffer("scale", scale[head if scale.numel() > 1 else 0].double())
        self.register_buffer("shift", shift[head if shift.numel() > 1 else 0].double())

    def forward(
        self, features: list[Tensor], node_types: Tensor, n_owned: int, edge_index: Tensor, distances: Tensor
    ) -> Tensor:
        """
        Args:
            features: of each layer, [n_owned, irreps.dim] in e3nn's layout.
            node_types, n_owned, edge_index: as in the model interface.
            distances: [n_edges] Å.

        Returns:
            [n_owned] eV, float64.
        """
        total = torch.zeros([n_owned], dtype=distances.dtype, device=distances.device)
        if self.has_pair_repulsion:
            total = total + self.pair_repulsion(node_types, n_owned, edge_index, distances)
        heads = torch.full([n_owned], self.head, dtype=torch.int64, device=distances.device)
        for k, readout in enumerate(self.readouts):
            total = total + readout(features[self.first_layer + k], heads)[:, self.head]
        return self.isolated[node_types[:n_owned]] + (self.scale * total.double() + self.shift)

    def scalars(self, features: list[Tensor]) -> Tensor:
        """Those of the layers that have a read-out, side by side [n_owned, ...]."""
        parts: list[Tensor] = []
        for k, n in enumerate(self.n_scalars):
            parts.append(features[self.first_layer + k][:, :n])
        return torch.cat(parts, dim=1)


class MACELayer(nn.Module):
    """One interaction and product block.

    Args:
        interaction, product: MACE's; they become part of this module.
        gather: whether features of ghosts have to be asked for; the first layer's depend on the element alone.
    """

    __constants__ = ("gather", "has_skip")

    def __init__(self, interaction: Any, product: Any, gather: bool):
        super().__init__()
        if hasattr(interaction, "equivariant_nonlin"):
            interaction.equivariant_nonlin = ScriptableGate(interaction.equivariant_nonlin)
        self.interaction = interaction
        self.product = product
        self.gather = gather
        self.has_skip = "Residual" in type(interaction).__name__

    def forward(
        self,
        x: Tensor,
        one_hot: Tensor,
        harmonics: Tensor,
        radial: Tensor,
        cutoff: Tensor | None,
        edges: Tensor,
        n_owned: int,
    ) -> Tensor:
        """`one_hot` and, in the first layer, `x` have one row more than there are nodes; see MACEEnergy."""
        if self.gather:
            x = torch.ops.mlip.ghost_gather(x, one_hot.shape[0] - 1)
            x = torch.cat([x, torch.zeros([1, x.shape[1]], dtype=x.dtype, device=x.device)])
        message, skip = self.interaction(one_hot, x, harmonics, radial, edges, cutoff)
        n_rows = max(n_owned, 1)
        if self.has_skip:
            result: Tensor = self.product(message[:n_rows], skip[:n_rows], one_hot[:n_rows])
        else:
            result = self.product(message[:n_rows], None, one_hot[:n_rows])
        return result[:n_owned]


class MACEEnergy(nn.Module):
    """MACE behind the model interface: atomic energies of owned atoms from edge vectors, in eV and float64.

    Args:
        model: MACE or ScaleShiftMACE, in the artifact's type; with further inputs `forward` takes settings.
        head: index of the head.
    """

    __constants__ = ("has_inputs",)

    def __init__(self, model: Any, head: int):
        super().__init__()
        self.n_elements = int(model.atomic_numbers.numel())
        self.edge_features = EdgeFeatures(model)
        self.has_inputs = hasattr(model, "joint_embedding")
        self.embedding = FirstFeatures(model, head) if self.has_inputs else model.node_embedding
        blocks = zip(model.interactions, model.products, strict=True)
        self.layers = nn.ModuleList([MACELayer(i, p, gather=k > 0) for k, (i, p) in enumerate(blocks)])
        self.energy = EnergySum(model, head)

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
        """The features are the scalars of every layer that has a read-out."""
        # A rank may have no atoms, which MACE's product block cannot take: a last node without edges is dropped again.
        padded = torch.nn.functional.pad(node_types, [0, 1])
        one_hot = torch.nn.functional.one_hot(padded, self.n_elements).to(edge_vectors.dtype)
        edges = edge_index.flip(0)
        lengths = torch.linalg.norm(edge_vectors, dim=-1, keepdim=True)
        harmonics = self.edge_features.harmonics(edge_vectors)
        radial, cutoff = self.edge_features(lengths, one_hot, edges)
        if self.has_inputs:  # noqa: SIM108  TorchScript leaves out a branch of a statement, not of an expression
            x = self.embedding(padded, given(settings))
        else:
            x = self.embedding(one_hot)
        first = x[:n_owned]
        features: list[Tensor] = []
        for layer in self.layers:
            x = layer(x, one_hot, harmonics, radial, cutoff, edges, n_owned)
            features.append(x)
        energies: Tensor = self.energy(features, node_types, n_owned, edge_index, lengths.squeeze(1))
        if self.has_inputs:
            energies = energies + self.embedding.energies(first)
        return energies, self.energy.scalars(features)
