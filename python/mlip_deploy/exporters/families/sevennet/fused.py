"""SevenNet on fused operators: the same numbers as `sevennet.SevenNetEnergy`, in component-major layout.

Per layer: `mlip::equivariant_linear`, `mlip::ghost_gather`, `mlip::edge_tensor_product` in place of gather, tensor
product and sum over neighbours, `mlip::equivariant_linear` of its result and of the self-connection, `mlip::gate`.
Radial networks can be tables (see `radial_table`); in float64 they are evaluated, so that the file agrees with the
original to rounding.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.equivariant import (
    Convolution,
    EdgeHarmonics,
    EquivariantLinear,
    LinearTerm,
    NotFusible,
    e3nn_gate,
    linear_term,
    table_term,
    to_blocks,
)
from mlip_deploy.exporters.layers.radial_table import RadialTable, radial_table


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

    node_features: Tensor

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
        with torch.no_grad():
            data = _before_first(before_first, types, modal_index)
        constants = data["modal_attr"].reshape(-1) if "modal_attr" in data else None
        node_features = torch.cat(
            [block.flatten(1) for block in to_blocks(data["x"], modules[convolutions[0]].convolution.irreps_in1)], dim=1
        )
        self.register_buffer("node_features", node_features)
        layers: list[FusedSevenNetLayer] = []
        for name in convolutions:
            prefix = name.partition("_")[0]
            layers.append(
                FusedSevenNetLayer(
                    {n.partition("_")[2]: modules[n] for n in names if n.startswith(f"{prefix}_")},
                    data["self_cont_tmp"] if name == convolutions[0] and "self_cont_tmp" in data else None,
                    name == convolutions[0],
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
        terms = [_linear_term(modules[name], constants) for name in readout]
        terms[-1] = _rescaled(terms[-1], modules[rescale], len(types), modal_index)
        self.readout = nn.ModuleList([EquivariantLinear(term) for term in terms])

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
        types = node_types[:n_owned]
        rows = self.node_features.index_select(0, node_types)
        blocks: list[Tensor] = []
        for layer in self.layers:
            blocks = layer(blocks, rows, types, harmonics, distances, embedding, edge_index, n_nodes)
        features = blocks[0].squeeze(1)
        for linear in self.readout:
            blocks = linear(blocks, types)
        return blocks[0].flatten(), features


def _before_first(layers: list[Any], types: list[int], modal_index: int) -> dict[str, Tensor]:
    """What SevenNet's layers before the first convolution compute for an atom of each element."""
    data = {"x": torch.tensor(types), "modal_type": torch.tensor(modal_index)}
    for layer in layers:
        data = layer(data)
    return {key: value.detach() for key, value in data.items()}


class FusedSevenNetLayer(nn.Module):
    """One interaction block of SevenNet.

    Args:
        modules: the block's layers by their names without the number.
        self_connection: in the first block of a model that has them, of each element, in e3nn's layout.
        first: whether this is the first block, whose neighbours' features depend on their elements alone.
        constants: the one-hot modality, or None.
        table: radial table; None to evaluate the radial network.
    """

    # TorchScript then compiles only the branch that is taken.
    __constants__ = ("first", "reads_features")

    def __init__(
        self,
        modules: dict[str, Any],
        self_connection: Tensor | None,
        first: bool,
        constants: Tensor | None,
        table: RadialTable | None,
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
        self.first = first
        self.linear_in: nn.Module = nn.Identity()
        if not first:
            self.linear_in = EquivariantLinear(_linear_term(modules["self_interaction_1"], constants), as_rows=True)
        convolution, gate = modules["convolution"], modules["equivariant_gate"].gate
        self.convolution = Convolution(convolution.convolution, convolution.weight_nn, table)
        # The sum over neighbours is divided by a constant, which the next layer's matrices take in.
        terms = [_linear_term(modules["self_interaction_2"], constants, 1.0 / float(convolution.denominator))]
        if self_connection is not None:
            terms.append(table_term(to_blocks(self_connection, gate.irreps_in)))
        self.reads_features = not first and "self_connection_outro" in modules
        if self.reads_features:
            terms.append(linear_term(modules["self_connection_intro"].linear))
        self.linear_out = EquivariantLinear(*terms)
        self.gate = e3nn_gate(gate)

    def forward(
        self,
        blocks: list[Tensor],
        rows: Tensor,
        types: Tensor,
        harmonics: Tensor,
        distances: Tensor,
        embedding: Tensor,
        edge_index: Tensor,
        n_nodes: int,
    ) -> list[Tensor]:
        if not self.first:
            rows = torch.ops.mlip.ghost_gather(self.linear_in(blocks, types)[0], n_nodes)
        messages = self.convolution(rows, harmonics, distances, embedding, None, edge_index, types.shape[0])
        if self.reads_features:
            messages = messages + blocks
        result: list[Tensor] = self.gate(self.linear_out(messages, types))
        return result


def _linear_term(module: Any, constants: Tensor | None, factor: float = 1.0) -> LinearTerm:
    """SevenNet's IrrepsLinear, which appends the one-hot modality to its input when the model has several."""
    return linear_term(module.linear, constants if module.num_modalities > 1 else None, factor)


def _rescaled(term: LinearTerm, rescale: Any, n_types: int, modal_index: int) -> LinearTerm:
    """A linear layer to one scalar, followed by SevenNet's scale and shift of each element."""
    unshifted = copy.deepcopy(rescale)
    unshifted.shift.data.zero_()

    def of_elements(module: Any, value: float) -> Tensor:
        data = {
            module.key_input: torch.full([n_types, 1], value, dtype=module.scale.dtype),
            "atom_type": torch.arange(n_types),
            "modal_type": torch.tensor(modal_index),
        }
        result: Tensor = module(data)[module.key_output].detach().reshape(n_types, 1, 1)
        return result

    scale, shift = of_elements(unshifted, 1.0), of_elements(rescale, 0.0)
    (matrix,) = term.matrices.values()
    same = bool((scale == scale[0]).all())
    bias = shift + scale * term.biases[0] if term.biases else shift
    return LinearTerm(term.inputs, term.outputs, {(0, 0): matrix * (scale[0] if same else scale)}, {0: bias})


def _tabulated(embedding: Any, convolution: Any, cutoff: float, dtype: torch.dtype) -> RadialTable | None:
    """The radial network of a convolution as a table, made in float64 for a model of type `dtype`."""
    # Not the whole embedding: what e3nn compiles for its harmonics cannot be copied.
    basis, cutoff_function = copy.deepcopy(embedding.basis_function), copy.deepcopy(embedding.cutoff_function)
    basis, cutoff_function = basis.double(), cutoff_function.double()
    network = copy.deepcopy(convolution.weight_nn).double()

    def weights(r: Tensor) -> Tensor:
        result: Tensor = network(basis(r) * cutoff_function(r).unsqueeze(-1))
        return result

    return radial_table(weights, cutoff, dtype)
