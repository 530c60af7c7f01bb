"""MACE on fused operators: the same numbers as `mace_plain.MACEEnergy`, in component-major layout.

Per layer: `mlip::equivariant_linear`, `mlip::ghost_gather`, `mlip::edge_tensor_product` in place of gather, tensor
product and sum over neighbours, `mlip::symmetric_contraction`, `mlip::equivariant_linear`. Radial networks can be
tables: see radial.py.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.mace.gated import NONLINEAR, NonLinearLayer
from mlip_deploy.exporters.families.mace.inputs import FirstFeatures
from mlip_deploy.exporters.families.mace.plain import EdgeFeatures, EnergySum
from mlip_deploy.exporters.families.mace.radial import LayerTables, tabulated
from mlip_deploy.exporters.families.mace.symmetric_contraction import SymmetricContraction
from mlip_deploy.exporters.interface import given
from mlip_deploy.exporters.layers.equivariant import (
    Convolution,
    EdgeHarmonics,
    EquivariantLinear,
    NeighbourSum,
    NotFusible,
    element_term,
    linear_term,
    table_term,
    to_blocks,
)
from mlip_deploy.progress import Progress, silent

FUSIBLE = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
}


class FusedMACEEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV and float64.

    Args:
        model: MACE or ScaleShiftMACE in `dtype`; with further inputs `forward` takes settings.
        head: index of the head.
        dtype: of the model.
        tabulate: make tables of the radial networks, if they do not grow too large.
        note: is told what was chosen.

    Raises:
        NotFusible: for a layer that has no fused form.
    """

    __constants__ = ("has_inputs", "needs_features", "several_tables")
    table_of_pair: Tensor

    def __init__(self, model: Any, head: int, dtype: torch.dtype, tabulate: bool, note: Progress = silent):
        super().__init__()
        self.n_elements = int(model.atomic_numbers.numel())
        self.edge_features = EdgeFeatures(model)
        self.harmonics = EdgeHarmonics(model.spherical_harmonics)
        tables = tabulated(model, dtype, note) if tabulate else None
        self.several_tables = tables is not None and tables.several
        self.register_buffer("table_of_pair", tables.of_pair if tables else torch.zeros(0, 0, dtype=torch.int64))
        with torch.no_grad():
            embedding = model.node_embedding(torch.eye(self.n_elements, dtype=dtype))
        # Features that depend on settings are no table of the elements: the first layer is then like the others.
        self.has_inputs = hasattr(model, "joint_embedding")
        self.first_features: nn.Module = FirstFeatures(model, head) if self.has_inputs else nn.Identity()
        layers: list[nn.Module] = []
        for interaction, product in zip(model.interactions, model.products, strict=True):
            features = None if layers or self.has_inputs else embedding
            layer = NonLinearLayer if type(interaction).__name__ == NONLINEAR else FusedMACELayer
            table = tables.layers[len(layers)] if tables else None
            layers.append(layer(interaction, product, features, table, self.n_elements, dtype))
        self.layers = nn.ModuleList(layers)
        self.needs_features = any(layer.needs_features for layer in self.layers)
        for readout in model.readouts:
            for name, child in list(readout.named_children()):
                if type(child).__name__ == "Linear" and hasattr(child, "irreps_in"):
                    setattr(readout, name, ReadoutLinear(child))
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
        # MACE's edge vector points from the neighbour to the centre.
        distances, harmonics = self.harmonics(-edge_vectors)
        radial, cutoff = distances, torch.ones_like(distances)
        if self.needs_features:
            one_hot = torch.nn.functional.one_hot(node_types, self.n_elements).to(edge_vectors.dtype)
            radial, separate = self.edge_features(distances.unsqueeze(1), one_hot, edge_index.flip(0))
            cutoff = cutoff.unsqueeze(1) if separate is None else separate
        table_of_edge: Tensor | None = None
        if self.several_tables:
            table_of_edge = self.table_of_pair[node_types[edge_index[0]], node_types[edge_index[1]]]
        blocks: list[Tensor] = []
        first = edge_vectors
        if self.has_inputs:
            first = self.first_features(node_types[:n_owned], given(settings))
            blocks.append(first.unsqueeze(1))
        features: list[Tensor] = []
        for layer in self.layers:
            blocks = layer(blocks, node_types, n_owned, edge_index, harmonics, distances, radial, cutoff, table_of_edge)
            features.append(torch.cat([block.transpose(1, 2).flatten(1) for block in blocks], dim=1))
        energies: Tensor = self.energy(features, node_types, n_owned, edge_index, distances)
        if self.has_inputs:
            energies = energies + self.first_features.energies(first)  # type: ignore[operator]
        return energies, self.energy.scalars(features)


class ReadoutLinear(nn.Module):
    """e3nn's Linear of a read-out as one matrix: a trace takes the sizes in e3nn's own compiled code for constants."""

    matrix: Tensor
    bias: Tensor

    def __init__(self, original: Any):
        super().__init__()
        rows = torch.eye(original.irreps_in.dim, dtype=original.weight.dtype)
        with torch.no_grad():
            bias = original(torch.zeros_like(rows[:1]))
            self.register_buffer("matrix", original(rows) - bias)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.matrix) + self.bias


class FusedMACELayer(nn.Module):
    """One interaction and product block.

    Args:
        interaction, product: MACE's.
        embedding: features of each element [n_elements, channels] for the first layer, None for the others.
        tables: of the radial networks; None to evaluate them.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("first", "has_density", "residual", "same_for_all", "tabulated")
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
        name = type(interaction).__name__
        if name not in FUSIBLE:
            raise NotFusible(f"the model has a layer {name}")
        self.first = embedding is not None
        self.residual = "Residual" in name
        self.has_density = "Density" in name
        self.linear_up: nn.Module = nn.Identity()
        terms = [linear_term(product.linear)]
        rows = torch.zeros(0)
        if embedding is None:
            self.linear_up = EquivariantLinear(linear_term(interaction.linear_up), as_rows=True)
            if self.residual:
                terms.append(element_term(interaction.skip_tp))
        else:
            with torch.no_grad():
                rows = interaction.linear_up(embedding)
                if self.residual:
                    skip = interaction.skip_tp(embedding, torch.eye(n_elements, dtype=dtype))
                    terms.append(table_term(to_blocks(skip, interaction.skip_tp.irreps_out)))
        self.register_buffer("rows", rows)
        self.tabulated = tables is not None
        self.needs_features = not self.tabulated
        self.density: nn.Module = nn.Identity()
        if self.has_density:
            self.density = NeighbourSum(tables.density, dtype) if tables and tables.density else interaction.density_fn
        self.convolution = Convolution(
            interaction.conv_tp, interaction.conv_tp_weights, tables.convolution if tables else None
        )
        factor = 1.0 if self.has_density else 1.0 / float(interaction.avg_num_neighbors)
        self.linear = EquivariantLinear(linear_term(interaction.linear, None, factor), as_rows=self.residual)
        self.selector: nn.Module = nn.Identity()
        if not self.residual:
            self.selector = EquivariantLinear(element_term(interaction.skip_tp), as_rows=True)
        self.contraction = SymmetricContraction(product.symmetric_contractions, dtype)
        self.same_for_all = bool(getattr(product, "use_agnostic_product", False))
        self.linear_out = EquivariantLinear(*terms)

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
            rows = self.rows.index_select(0, node_types)
        else:
            rows = torch.ops.mlip.ghost_gather(self.linear_up(blocks, types)[0], node_types.shape[0])
        convolved = self.convolution(rows, harmonics, distances, radial, cutoff, edge_index, n_owned, table_of_edge)
        messages = self.linear(convolved, types)
        if self.has_density:
            if self.tabulated:
                density = self.density(distances, edge_index, n_owned, node_types.shape[0], table_of_edge)
            else:
                of_edges = torch.tanh(self.density(radial) ** 2) * cutoff
                density = torch.zeros([n_owned, 1], dtype=radial.dtype, device=radial.device)
                density = density.index_add(0, edge_index[0], of_edges)
            norm = 1.0 / (density + 1.0)
            if not self.residual:
                norm = norm.unsqueeze(2)
            messages = [message * norm for message in messages]
        if not self.residual:
            messages = self.selector(messages, types)
        products = self.contraction(messages[0], torch.zeros_like(types) if self.same_for_all else types)
        if self.residual and not self.first:
            products = products + blocks
        result: list[Tensor] = self.linear_out(products, types)
        return result
