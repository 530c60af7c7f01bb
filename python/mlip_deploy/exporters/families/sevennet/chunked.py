"""SevenNet in the memory of a few thousand edges, from torch's operators alone: for TorchForce files.

A convolution's messages are what fills the memory: thousands of numbers per edge, kept by autograd for each layer. Here
the network is cut at the results of its convolutions. Going forward, each is summed from chunks of edges without
autograd; going back, the messages of a chunk are computed a second time, differentiated and dropped. Between the cuts
are only features of atoms. The work grows by one forward pass of the convolutions.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.families.sevennet.plain import SevenNetEnergy
from mlip_deploy.exporters.interface import EdgeGradientModel

CHUNK = 2048
"""Edges whose messages are in memory at a time. A system with no more is computed in one piece."""


class Between(nn.Module):
    """What lies between two convolutions: layers that act on atoms alone."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        for layer in self.layers:
            data = layer(data)
        return data


class Messages(nn.Module):
    """The messages of a convolution, [n_edges, width], before their sum over neighbours."""

    denominator: Tensor
    modal_type: Tensor

    def __init__(self, edge_embedding: nn.Module, convolution: Any, modal_type: Tensor):
        super().__init__()
        self.edge_embedding = edge_embedding
        self.radial_network = convolution.radial_network
        self.tensor_product = convolution.tensor_product
        self.register_buffer("denominator", convolution.denominator.clone())
        self.register_buffer("modal_type", modal_type.clone())

    def forward(self, features: Tensor, neighbours: Tensor, vectors: Tensor) -> Tensor:
        data: dict[str, Tensor] = {"edge_vec": vectors, "modal_type": self.modal_type}
        data = self.edge_embedding(data)
        weights = self.radial_network(data["edge_embedding"])
        messages: Tensor = self.tensor_product(features[neighbours], data["edge_attr"], weights)
        return messages / self.denominator


class ChunkedSevenNet(nn.Module):
    """The model interface (see `wrapper.EdgeGradientModel`) for owned atoms alone: there are no ghosts.

    Args:
        model: SevenNet's own layers behind the interface.
    """

    modal_type: Tensor

    def __init__(self, model: SevenNetEnergy):
        super().__init__()
        self.whole = EdgeGradientModel(model)
        layers: list[Any] = list(model.layers)
        between = [Between(list(layers[0].before))]
        between += [Between([*previous.after, *layer.before]) for previous, layer in pairwise(layers)]
        messages = [Messages(model.edge_embedding, layer.convolution, model.modal_type) for layer in layers]
        self.between = nn.ModuleList(between)
        self.messages = nn.ModuleList(messages)
        # TorchScript cannot go backwards through a list of modules.
        self.between_back = nn.ModuleList(between[::-1])
        self.messages_back = nn.ModuleList(messages[::-1])
        self.readout = Between([*layers[-1].after, *model.readout])
        self.tables = model.tables
        self.n_layers = len(layers)
        self.chunk = CHUNK
        self.register_buffer("modal_type", model.modal_type.clone())

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        if edge_index.shape[1] <= self.chunk:
            whole: tuple[Tensor, Tensor] = self.whole(node_types, n_owned, edge_index, edge_vectors)
            return whole
        return self.in_chunks(node_types, n_owned, edge_index, edge_vectors.detach())

    def in_chunks(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        # What lies before each convolution begins with: the sum of the messages before, and what went around them.
        sums: list[Tensor] = []
        around: list[Tensor] = []
        features: list[Tensor] = []
        n_edges = edge_index.shape[1]
        total = torch.zeros(0, dtype=edge_vectors.dtype, device=edge_vectors.device)
        passed = total
        with torch.no_grad():
            for k, (between, convolution) in enumerate(zip(self.between, self.messages)):  # noqa: B905  TorchScript
                sums.append(total)
                around.append(passed)
                feature, passed = self.enter(between(self.start(k, node_types, total, passed)))
                features.append(feature)
                for begin in range(0, n_edges, self.chunk):
                    edges, vectors = self.edges(edge_index, edge_vectors, begin)
                    values = convolution(feature, edges[1], vectors)
                    if begin == 0:
                        total = torch.zeros([n_owned, values.shape[1]], dtype=values.dtype, device=values.device)
                    total.index_add_(0, edges[0], values)

        total.requires_grad_(True)
        passed = passed.detach().requires_grad_(True)
        energies = self.readout(self.start(self.n_layers, node_types, total, passed))["atomic_energy"].squeeze(1)
        of_total, of_passed = self.gradients([energies.sum()], total, passed, [torch.ones_like(energies.sum())])

        gradient = torch.zeros_like(edge_vectors)
        for j, (between, convolution) in enumerate(zip(self.between_back, self.messages_back)):  # noqa: B905
            k = self.n_layers - 1 - j
            feature = features[k].detach().requires_grad_(True)
            of_feature = torch.zeros_like(feature)
            for begin in range(0, n_edges, self.chunk):
                edges, vectors = self.edges(edge_index, edge_vectors, begin)
                vectors = vectors.detach().requires_grad_(True)
                values = convolution(feature, edges[1], vectors)
                of_vectors, of_features = self.gradients([values], vectors, feature, [of_total[edges[0]]])
                gradient[begin : begin + self.chunk] = gradient[begin : begin + self.chunk] + of_vectors
                of_feature += of_features
            if k > 0:
                total = sums[k].detach().requires_grad_(True)
                passed = around[k].detach().requires_grad_(True)
                feature, next_passed = self.enter(between(self.start(k, node_types, total, passed)))
                outputs, outer = [feature], [of_feature]
                if next_passed.requires_grad:
                    outputs.append(next_passed)
                    outer.append(of_passed)
                of_total, of_passed = self.gradients(outputs, total, passed, outer)
        return energies.detach(), gradient

    def edges(self, edge_index: Tensor, edge_vectors: Tensor, begin: int) -> tuple[Tensor, Tensor]:
        end = begin + self.chunk
        return edge_index[:, begin:end], edge_vectors[begin:end]

    def start(self, layer: int, node_types: Tensor, total: Tensor, passed: Tensor) -> dict[str, Tensor]:
        data: dict[str, Tensor] = {"modal_type": self.modal_type}
        data = self.tables(data, node_types, node_types.shape[0])
        if layer > 0:
            data["x"] = total
            if "self_cont_tmp" in data:
                data["self_cont_tmp"] = passed
        return data

    def enter(self, data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features for the convolution, and what goes around it."""
        passed = data["x"].new_zeros([0])
        if "self_cont_tmp" in data:
            passed = data["self_cont_tmp"]
        return data["x"], passed

    def gradients(
        self, outputs: list[Tensor], first: Tensor, second: Tensor, outer: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Of Σ outputs · outer with respect to `first` and `second`."""
        weights: list[Tensor | None] = []
        for tensor in outer:
            weights.append(tensor)
        found = torch.autograd.grad(outputs, [first, second], weights, allow_unused=True)
        of_first, of_second = found[0], found[1]
        return (
            torch.zeros_like(first) if of_first is None else of_first,
            torch.zeros_like(second) if of_second is None else of_second,
        )
