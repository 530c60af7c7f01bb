"""SevenNet on fused operators: the same numbers as `sevennet.SevenNetEnergy`, in component-major layout.

Per layer: linear maps as matrix products, `mlip::ghost_gather`, `mlip::edge_tensor_product` in place of gather, tensor
product and sum over neighbours, gate. Radial networks can be tables (see `radial_table`);
in float64 they are evaluated, so that the file agrees with the original to rounding.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.equivariant import (
    Convolution,
    EdgeHarmonics,
    EquivariantLinear,
    Gate,
    NotFusible,
    add_blocks,
    rows_with_ghosts,
    to_blocks,
)
from mlip_deploy.exporters.layers.radial_table import radial_table


class FusedSevenNetEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV.

    Args:
        model: SevenNet's model in `dtype`.
        types: SevenNet's type indices that are kept, in the order of the artifact's elements; the model's rescaling
            has their rows alone.
        cutoff: Å.
        modal_index: index of the modality that is baked in; 0 for a model without.

    Raises:
        NotFusible: for a layer that has no fused form.
    """

    modal_type: Tensor

    def __init__(
        self, model: Any, types: list[int], dtype: torch.dtype, cutoff: float, modal_index: int, tabulate: bool
    ):
        super().__init__()
        modules = dict(model._modules)
        names = list(modules)
        convolutions = [name for name in names if name.endswith("_convolution")]
        rescale = next((name for name in names if name == "rescale_atomic_energy"), None)
        if not convolutions or rescale is None:
            raise NotFusible(f"the model has no convolutions or no rescaling: {', '.join(names)}")
        self.embedding = modules["edge_embedding"]
        self.harmonics = EdgeHarmonics(self.embedding.spherical)
        first = names.index(convolutions[0])
        before_first = [modules[name] for name in names[names.index("edge_embedding") + 1 : first]]
        self.tables = SpeciesTables(before_first, modules, types, modal_index)
        constants = self.tables.modality
        layers: list[FusedSevenNetLayer] = []
        for name in convolutions:
            prefix = name.partition("_")[0]
            layers.append(
                FusedSevenNetLayer(
                    {n.partition("_")[2]: modules[n] for n in names if n.startswith(f"{prefix}_")},
                    name != convolutions[0],
                    constants,
                    _tabulated(self.embedding, modules[name], cutoff, dtype) if tabulate else None,
                )
            )
        self.layers = nn.ModuleList(layers)
        self.needs_network = any(not layer.convolution.tabulated for layer in layers)
        last = max(k for k, n in enumerate(names) if n.startswith(f"{convolutions[-1].partition('_')[0]}_"))
        readout = names[last + 1 : names.index(rescale)]
        for name in readout:
            if type(modules[name]).__name__ != "IrrepsLinear":
                raise NotFusible(f"the read-out has a layer {name} ({type(modules[name]).__name__})")
        self.readout = nn.ModuleList([_linear(modules[name], constants) for name in readout])
        self.rescale = modules[rescale]
        self.rescale_key: str = self.rescale.key_input
        self.energy_key: str = self.rescale.key_output
        self.register_buffer("modal_type", torch.tensor(modal_index))

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars of the last layer."""
        n_nodes = node_types.shape[0]
        distances, harmonics = self.harmonics(edge_vectors)
        embedding = distances
        if self.needs_network:
            cutoff = self.embedding.cutoff_function(distances).unsqueeze(-1)
            embedding = self.embedding.basis_function(distances) * cutoff
        owned_types = node_types[:n_owned]
        rows, self_connection = self.tables(node_types, owned_types)
        blocks: list[Tensor] = []
        for layer in self.layers:
            blocks = layer(blocks, rows, self_connection, harmonics, distances, embedding, edge_index, n_nodes, n_owned)
        features = blocks[0].squeeze(1)
        for linear in self.readout:
            blocks = linear(blocks)
        data: dict[str, Tensor] = {
            self.rescale_key: blocks[0].squeeze(1),
            "atom_type": owned_types,
            "modal_type": self.modal_type,
        }
        energies: Tensor = self.rescale(data)[self.energy_key]
        return energies.squeeze(1), features


class SpeciesTables(nn.Module):
    """What comes before the first convolution, as tables over the elements: features of nodes, self-connection."""

    features: Tensor

    def __init__(self, layers: list[Any], modules: dict[str, Any], types: list[int], modal_index: int):
        super().__init__()
        data = {"x": torch.tensor(types), "modal_type": torch.tensor(modal_index)}
        with torch.no_grad():
            for layer in layers:
                data = layer(data)
        self.modality: Tensor | None = data["modal_attr"].detach().reshape(-1) if "modal_attr" in data else None
        first = next(module for name, module in modules.items() if name.endswith("_convolution"))
        self.register_buffer("features", _rows(data["x"].detach(), first.convolution.irreps_in1))
        blocks: list[Tensor] = []
        if "self_cont_tmp" in data:
            gate = next(module for name, module in modules.items() if name.endswith("_equivariant_gate"))
            blocks = to_blocks(data["self_cont_tmp"].detach(), gate.gate.irreps_in)
        self.blocks = nn.ModuleList([_SpeciesTable(block) for block in blocks])

    def forward(self, node_types: Tensor, owned_types: Tensor) -> tuple[Tensor, list[Tensor]]:
        blocks: list[Tensor] = []
        for table in self.blocks:
            blocks.append(table(owned_types))
        return self.features[node_types], blocks


class _SpeciesTable(nn.Module):
    table: Tensor

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, types: Tensor) -> Tensor:
        return self.table[types]


class FusedSevenNetLayer(nn.Module):
    """One interaction block of SevenNet.

    Args:
        modules: the block's layers by their names without the number.
        has_features: False for the first block, whose input is in the species tables.
        constants: the one-hot modality, or None.
        table: radial table and its step; None to evaluate the radial network.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("has_features", "has_self_connection")

    def __init__(
        self,
        modules: dict[str, Any],
        has_features: bool,
        constants: Tensor | None,
        table: tuple[Tensor, float] | None,
    ):
        super().__init__()
        known = {
            "self_connection_intro": ("SelfConnectionLinearIntro",),
            "self_interaction_1": ("IrrepsLinear",),
            "convolution": ("IrrepsConvolution",),
            "self_interaction_2": ("IrrepsLinear",),
            "self_connection_outro": ("SelfConnectionOutro",),
            "equivariant_gate": ("EquivariantGate",),
        }
        for name, module in modules.items():
            if type(module).__name__ not in known.get(name, ()):
                raise NotFusible(f"an interaction block has a layer {name} ({type(module).__name__})")
        self.has_features = has_features
        self.has_self_connection = "self_connection_outro" in modules
        self.self_connection: nn.Module = nn.Identity()
        self.linear_in: nn.Module = nn.Identity()
        if has_features:
            self.linear_in = _linear(modules["self_interaction_1"], constants)
            if self.has_self_connection:
                self.self_connection = EquivariantLinear(modules["self_connection_intro"].linear)
        convolution = modules["convolution"]
        self.convolution = Convolution(convolution.convolution, convolution.weight_nn, table)
        # The sum over neighbours is divided by a constant, which the next layer's matrices take in.
        self.linear_out = _linear(modules["self_interaction_2"], constants, 1.0 / float(convolution.denominator))
        self.gate = Gate(modules["equivariant_gate"].gate)

    def forward(
        self,
        blocks: list[Tensor],
        rows: Tensor,
        self_connection: list[Tensor],
        harmonics: Tensor,
        distances: Tensor,
        embedding: Tensor,
        edge_index: Tensor,
        n_nodes: int,
        n_owned: int,
    ) -> list[Tensor]:
        if self.has_features:
            if self.has_self_connection:
                self_connection = self.self_connection(blocks)
            rows = rows_with_ghosts(self.linear_in(blocks), n_nodes)
        blocks = self.linear_out(self.convolution(rows, harmonics, distances, embedding, None, edge_index, n_owned))
        if self.has_self_connection:
            blocks = add_blocks(blocks, self_connection)
        result: list[Tensor] = self.gate(blocks)
        return result


def _linear(module: Any, constants: Tensor | None, factor: float = 1.0) -> EquivariantLinear:
    """SevenNet's IrrepsLinear, which appends the one-hot modality to its input when the model has several."""
    return EquivariantLinear(module.linear, constants if module.num_modalities > 1 else None, factor)


def _rows(x: Tensor, irreps: Any) -> Tensor:
    return torch.cat([block.flatten(1) for block in to_blocks(x, irreps)], dim=1)


def _tabulated(embedding: Any, convolution: Any, cutoff: float, dtype: torch.dtype) -> tuple[Tensor, float] | None:
    """The radial network of a convolution as a table, made in float64 for a model of type `dtype`."""
    # Not the whole embedding: what e3nn compiles for its harmonics cannot be copied.
    basis, cutoff_function = copy.deepcopy(embedding.basis_function), copy.deepcopy(embedding.cutoff_function)
    basis, cutoff_function = basis.double(), cutoff_function.double()
    network = copy.deepcopy(convolution.weight_nn).double()

    def weights(r: Tensor) -> Tensor:
        result: Tensor = network(basis(r) * cutoff_function(r).unsqueeze(-1))
        return result

    return radial_table(weights, cutoff, dtype)
