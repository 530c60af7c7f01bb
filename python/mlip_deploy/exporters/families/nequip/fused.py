"""NequIP on fused operators: the same numbers as `nequip.NequIPEnergy`, in component-major layout.

Per layer: `mlip::equivariant_linear`, `mlip::ghost_gather`, `mlip::edge_tensor_product` in place of gather, tensor
product and sum over neighbours, `mlip::equivariant_linear`, `mlip::gate`. The self-connection, a product with the
features of the atom's type, becomes one matrix for each type. Radial networks can be tables (see `radial_table`),
unless the cutoff depends on the types; in float64 they are evaluated.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.nequip.graph_data import graph_data
from mlip_deploy.exporters.layers.equivariant import (
    Convolution,
    EdgeHarmonics,
    EquivariantLinear,
    NotFusible,
    e3nn_gate,
    element_term,
    linear_term,
)
from mlip_deploy.exporters.layers.radial_table import RadialTable, radial_table

BEFORE = {
    "NodeTypeEmbed": "type_embed",
    "SphericalHarmonicEdgeAttrs": "spharm",
    "EdgeLengthNormalizer": "edge_norm",
    "BesselEdgeLengthEncoding": "bessel_encode",
    "ApplyFactor": "factor",
}
AFTER = {"ScalarMLP", "PerTypeScaleShift", "ZBL", "LennardJones"}


class FusedNequIPEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV.

    Args:
        steps: NequIP's modules in the order in which they run, in the type to compute in.
        in_float64: the same in float64, to make tables of.
        types: NequIP's type index of each of the artifact's elements.
        dtype: the type to compute in.
        tabulate: put tables in place of the radial networks where that is possible.

    Raises:
        NotFusible: for a layer that has no fused form.
    """

    attributes: Tensor
    types: Tensor

    def __init__(
        self,
        steps: dict[str, Any],
        in_float64: dict[str, Any],
        types: list[int],
        dtype: torch.dtype,
        tabulate: bool,
    ):
        super().__init__()
        before, layers, after = _sorted(steps)
        self.register_buffer("types", torch.tensor(types))
        self.harmonics = EdgeHarmonics(before["spharm"].sh)
        self.edge_norm = before["edge_norm"]
        self.bessel_encode = before["bessel_encode"]
        self.factor = before["factor"]
        cutoff = None if self.edge_norm._per_edge_type or not tabulate else float(self.edge_norm.r_max)
        attributes = before["type_embed"].embed_module.weight.detach()[types]
        self.register_buffer("attributes", attributes)
        fused: list[FusedNequIPLayer] = []
        for name, layer in layers.items():
            table = None if cutoff is None else _tabulated(in_float64, name, cutoff, dtype)
            fused.append(FusedNequIPLayer(layer, attributes, not fused, table, types))
        self.layers = nn.ModuleList(fused)
        self.needs_network = any(not layer.convolution.tabulated for layer in fused)
        self.after = nn.ModuleList(after)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars of the last layer."""
        data = graph_data(self.types, node_types, edge_index, edge_vectors)
        data = self.edge_norm(data)  # lengths, which a pair potential reads too
        embedding = distances = data["edge_lengths"].view(-1)
        if self.needs_network:
            data = self.factor(self.bessel_encode(data))
            embedding = data["edge_embedding"]
        _, harmonics = self.harmonics(edge_vectors)
        blocks = [self.attributes[node_types[:n_owned]].unsqueeze(1)]
        for layer in self.layers:
            blocks = layer(blocks, node_types, n_owned, edge_index, harmonics, distances, embedding)
        features = data["node_features"] = blocks[0].squeeze(1)
        for step in self.after:
            data = step(data)
        return data["atomic_energy"].squeeze(1), features


class FusedNequIPLayer(nn.Module):
    """One of NequIP's layers: interaction block and gate.

    Args:
        original: ConvNetLayer.
        attributes: features of each element [n_elements, channels]; the first layer's input too.
        first: whether this is the first layer, whose neighbours' features depend on their elements alone.
        table: radial table; None to evaluate the radial network.
        types: NequIP's type index of each element.

    Raises:
        NotFusible: for another convolution or nonlinearity than NequIP's own.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("first", "has_norms", "has_self_connection")
    rows: Tensor
    norms: Tensor

    def __init__(self, original: Any, attributes: Tensor, first: bool, table: RadialTable | None, types: list[int]):
        super().__init__()
        block = original.conv
        for module, known in ((block, "InteractionBlock"), (original.equivariant_nonlin, "Gate")):
            if type(module).__name__ != known:
                raise NotFusible(f"a layer has a {type(module).__name__} in place of a {known}")
        self.first = first
        self.has_self_connection = block.sc is not None
        # One over the root of the mean number of neighbours: a factor of the linear map, or one of each element's own.
        norms = block.avg_num_neighbors_norm.norm_const.detach()
        self.has_norms = not first and norms.numel() > 1
        norms = norms[types] if norms.numel() > 1 else norms
        self.register_buffer("norms", norms)
        rows = norms.new_zeros(0)
        if first:
            with torch.no_grad():
                rows = block.linear_1(attributes) * norms
        self.register_buffer("rows", rows)
        factor = 1.0 if norms.numel() > 1 else float(norms)
        self.linear_in: nn.Module = nn.Identity()
        if not first:
            self.linear_in = EquivariantLinear(linear_term(block.linear_1, None, factor), as_rows=True)
        self.convolution = Convolution(block.tp_scatter.tp, block.edge_mlp, table)
        terms = [linear_term(block.linear_2)]
        if self.has_self_connection:
            terms.append(element_term(block.sc, attributes))
        self.linear_out = EquivariantLinear(*terms)
        self.gate = e3nn_gate(original.equivariant_nonlin)

    def forward(
        self,
        blocks: list[Tensor],
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        embedding: Tensor,
    ) -> list[Tensor]:
        types = node_types[:n_owned]
        if self.first:
            rows = self.rows.index_select(0, node_types)
        else:
            owned = self.linear_in(blocks, types)[0]
            if self.has_norms:
                owned = owned * self.norms.index_select(0, types)
            rows = torch.ops.mlip.ghost_gather(owned, node_types.shape[0])
        messages = self.convolution(rows, harmonics, distances, embedding, None, edge_index, n_owned)
        if self.has_self_connection:
            messages = messages + blocks
        activated: list[Tensor] = self.gate(self.linear_out(messages, types))
        return activated


def _sorted(steps: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """(what comes before the layers, by its name in BEFORE; the layers; what comes after them)."""
    before: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    after: list[Any] = []
    for name, step in steps.items():
        kind = type(step).__name__
        if kind in BEFORE and not layers:
            before[BEFORE[kind]] = step
        elif kind == "ConvNetLayer" and not after:
            layers[name] = step
        elif kind in AFTER and layers:
            after.append(step)
        else:
            raise NotFusible(f"the model has a layer {name} ({kind})")
    absent = [kind for kind, name in BEFORE.items() if name not in before]
    if absent:
        raise NotFusible(f"the model has no {' and no '.join(absent)}")
    return before, layers, after


def _tabulated(steps: dict[str, Any], name: str, cutoff: float, dtype: torch.dtype) -> RadialTable | None:
    """The radial network of a layer as a table for a model of type `dtype`, from modules in float64."""
    before = _sorted(steps)[0]
    network = steps[name].conv.edge_mlp

    def weights(r: Tensor) -> Tensor:
        data = {"normed_edge_lengths": r.unsqueeze(1) * before["edge_norm"]._rmax_recip}
        data = before["factor"](before["bessel_encode"](data))
        result: Tensor = network(data["edge_embedding"])
        return result

    return radial_table(weights, cutoff, dtype)
