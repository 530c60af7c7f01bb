"""SevenNet's own layers behind the model interface: the unfused form, which all other forms are compared with."""

from typing import Any

import torch
from torch import Tensor, nn


class SpeciesTables(nn.Module):
    """All that the layers before the first convolution compute, as tables over the elements that are kept."""

    features: Tensor
    attributes: Tensor
    self_connection: Tensor
    modal_attributes: Tensor

    def __init__(self, layers: list[nn.Module], types: list[int], modal_index: int):
        super().__init__()
        data = {
            "x": torch.tensor(types),
            "modal_type": torch.tensor(modal_index),
        }
        with torch.no_grad():
            for layer in layers:
                data = layer(data)
        self.register_buffer("features", data["x"].detach().clone())
        self.register_buffer("attributes", data["node_attr"].detach().clone())
        # What a variant of the model does not have is left out of the data.
        self.has_self_connection = "self_cont_tmp" in data
        self.has_modal = "modal_attr" in data
        absent = torch.zeros(0)
        self.register_buffer("self_connection", data.get("self_cont_tmp", absent).detach().clone())
        self.register_buffer("modal_attributes", data.get("modal_attr", absent).detach().clone())

    def forward(self, data: dict[str, Tensor], node_types: Tensor, n_owned: int) -> dict[str, Tensor]:
        owned_types = node_types[:n_owned]
        data["x"] = self.features[node_types]
        data["atom_type"] = owned_types
        data["node_attr"] = self.attributes[owned_types]
        if self.has_self_connection:
            data["self_cont_tmp"] = self.self_connection[owned_types]
        if self.has_modal:
            data["modal_attr"] = self.modal_attributes
        return data


class Convolution(nn.Module):
    """SevenNet's IrrepsConvolution over owned centres, with neighbours that may be ghosts.

    Args:
        original: the layer whose tensor product and radial network are used.
        gather: whether features of ghosts have to be asked for; the first layer has them from its tables.
    """

    denominator: Tensor

    def __init__(self, original: Any, gather: bool):
        super().__init__()
        self.radial_network = original.weight_nn
        self.tensor_product = original.convolution
        self.gather = gather
        self.register_buffer("denominator", original.denominator.detach().clone())

    def forward(self, data: dict[str, Tensor], n_nodes: int, n_owned: int) -> dict[str, Tensor]:
        x = data["x"]
        if self.gather:
            x = torch.ops.mlip.ghost_gather(x, n_nodes)
        centres, neighbours = data["edge_index"][0], data["edge_index"][1]
        weights = self.radial_network(data["edge_embedding"])
        messages = self.tensor_product(x[neighbours], data["edge_attr"], weights)
        total = torch.zeros([n_owned, messages.shape[1]], dtype=messages.dtype, device=messages.device)
        data["x"] = total.index_add(0, centres, messages) / self.denominator
        return data


class SevenNetLayer(nn.Module):
    """One message-passing layer: what comes before its convolution, the convolution, what comes after."""

    def __init__(self, before: list[nn.Module], convolution: Convolution, after: list[nn.Module]):
        super().__init__()
        self.before = nn.ModuleList(before)
        self.convolution = convolution
        self.after = nn.ModuleList(after)

    def forward(self, data: dict[str, Tensor], n_nodes: int, n_owned: int) -> dict[str, Tensor]:
        for module in self.before:
            data = module(data)
        data = self.convolution(data, n_nodes, n_owned)
        for module in self.after:
            data = module(data)
        return data


class SevenNetEnergy(nn.Module):
    """SevenNet behind the model interface: atomic energies of owned atoms from edge vectors."""

    modal_type: Tensor

    def __init__(self, model: Any, types: list[int], modal: str | None):
        super().__init__()
        names = list(model._modules)
        modules = dict(model._modules)
        modal_index = model.modal_map[modal] if modal else 0
        convolutions = [name for name in names if name.endswith("_convolution")]
        first, last = convolutions[0], names.index("rescale_atomic_energy")
        start = names.index("edge_embedding") + 1
        self.edge_embedding = modules["edge_embedding"]
        embedding = [modules[name] for name in names[start : names.index(first)]]
        self.tables = SpeciesTables(embedding, types, modal_index)
        layers = []
        for name in convolutions:
            here = names.index(name)
            index = name.partition("_")[0]
            before = [modules[n] for n in names[:here] if n.startswith(f"{index}_")] if name != first else []
            after = [modules[n] for n in names[here + 1 :] if n.startswith(f"{index}_")]
            layers.append(SevenNetLayer(before, Convolution(modules[name], gather=name != first), after))
        self.layers = nn.ModuleList(layers)
        end_of_layers = max(k for k, n in enumerate(names) if n.startswith(f"{convolutions[-1].partition('_')[0]}_"))
        self.readout = nn.ModuleList([modules[name] for name in names[end_of_layers + 1 : last + 1]])
        first_block = modules[f"{convolutions[-1].partition('_')[0]}_equivariant_gate"].gate.irreps_out[0]
        self.n_features = first_block.mul * first_block.ir.dim  # e3nn sorts even scalars first
        self.register_buffer("modal_type", torch.tensor(modal_index))

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the scalars of the last layer."""
        data: dict[str, Tensor] = {"edge_index": edge_index, "edge_vec": edge_vectors, "modal_type": self.modal_type}
        data = self.edge_embedding(data)
        data = self.tables(data, node_types, n_owned)
        n_nodes = node_types.shape[0]
        for layer in self.layers:
            data = layer(data, n_nodes, n_owned)
        features = data["x"][:, : self.n_features]
        for module in self.readout:
            data = module(data)
        return data["atomic_energy"].squeeze(1), features


class OneHot(nn.Module):
    """SevenNet's OnehotEmbedding, which always makes float32, in the model's type."""

    def __init__(self, original: Any, dtype: torch.dtype):
        super().__init__()
        self.num_classes: int = original.num_classes
        self.dtype = dtype
        self.key_in: str = original.key_x
        self.keys_out: list[str] = [original.key_output, original.key_additional_output or original.key_output]
        self.key_saved: str = original.key_save or ""

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        index = data[self.key_in]
        one_hot = torch.nn.functional.one_hot(index, self.num_classes).to(self.dtype)
        for key in self.keys_out:
            data[key] = one_hot
        if self.key_saved:
            data[self.key_saved] = index
        return data
