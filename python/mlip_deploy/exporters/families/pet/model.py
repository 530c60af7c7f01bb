"""PET's network behind the model interface: its graph, made from the edge list, and its layers on that graph.

PET (S. Pozdnyakov, M. Ceriotti 2023; F. Bigi et al. 2026) has a token for each atom and for each of its edges. In a
layer the tokens of one atom attend to each other; between layers an edge takes the message of its reverse. Here tokens
stand in flat lists, [n_atoms, d_node] and [n_edges, d_pet]; only the attention without fused operators pads them to the
atom with most edges.

Numbers are metatrain's own. What a layer's first matrix makes of an edge's elements is a table, and what it makes of an
edge's vector one matrix, since no activation stands between.

`fuse` takes mlip's operators for the adaptive cutoffs, the attention, and the linear layers of tokens with what stands
between them; otherwise all is made of torch's.
"""

from itertools import zip_longest
from typing import Any

import torch
from metatrain.pet.modules.adaptive_cutoff import get_adaptive_cutoffs_grid, get_adaptive_cutoffs_solver
from metatrain.pet.modules.utilities import cutoff_func_bump, cutoff_func_cosine
from torch import Tensor, nn

from mlip_deploy.exporters.layers.dense import linear_layer
from mlip_deploy.exporters.layers.edge_pairs import hops, reverse_edges
from mlip_deploy.exporters.layers.feed_forward import FeedForward, plain_norm
from mlip_deploy.operators import load_operators


class PETEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, float64 [n_owned], in eV.

    Args:
        model: `metatrain.pet.PET` in the type to compute in.
        target: name of the energy among its targets.
        numbers: atomic number of each type index.
        scales, offsets: of each type index, float64: the factor of the network's energy, and what is added to it, eV.
        fuse: whether to use mlip's operators, or torch's alone.
    """

    __constants__ = ("feedforward",)
    edge_table: Tensor
    scales: Tensor
    offsets: Tensor

    def __init__(self, model: Any, target: str, numbers: list[int], scales: Tensor, offsets: Tensor, fuse: bool):
        super().__init__()
        if fuse:
            load_operators()
        backend = model.backend
        species = backend.species_to_species_index[torch.tensor(numbers)]
        self.cutoffs = Cutoffs(model, fuse)
        # Messages of the last layer are read, too, or are not.
        self.feedforward = backend.featurizer_type == "feedforward"
        self.reach = len(backend.gnn_layers) - (0 if self.feedforward else 1)
        self.register_buffer("edge_table", backend.edge_embedder.weight.detach()[species])
        self.register_buffer("scales", scales)
        self.register_buffer("offsets", offsets)
        nodes = [embedder.weight.detach()[species] for embedder in backend.node_embedders]
        self.layers = nn.ModuleList(
            [
                PETLayer(layer, species, table, self.edge_table, fuse)
                for layer, table in zip_longest(backend.gnn_layers, nodes)
            ]
        )
        self.combinations = nn.ModuleList([nn.Identity() for _ in backend.gnn_layers])
        if self.feedforward:
            pairs = zip(backend.combination_norms, backend.combination_mlps, strict=True)
            self.combinations = nn.ModuleList([FeedForward(norm, mlp[0], mlp[2], fuse=fuse) for norm, mlp in pairs])
        heads = (backend.node_heads, backend.edge_heads, backend.node_last_layers, backend.edge_last_layers)
        self.readouts = nn.ModuleList(
            [ReadOut(*parts, fuse=fuse) for parts in zip(*(part[target] for part in heads), strict=True)]
        )

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are metatrain's last-layer features: of the atom, and summed over its edges."""
        n_nodes = node_types.shape[0]
        centres, neighbours, vectors, factors = self.cutoffs(edge_index, edge_vectors, n_nodes)
        # With ghosts, a layer is needed for atoms within a number of edges of an owned atom, one less in each layer.
        # Rows and edges are in this order, so that what is needed comes first.
        node_hops = hops(n_owned, n_nodes, centres, neighbours, self.reach + 1)
        order = torch.argsort(node_hops, stable=True)
        row_of = torch.empty_like(order).index_copy(0, order, torch.arange(n_nodes, device=order.device))
        edge_order = torch.argsort(row_of[centres], stable=True)
        centres, neighbours = row_of[centres[edge_order]], row_of[neighbours[edge_order]]
        vectors, factors, node_hops = vectors[edge_order], factors[edge_order], node_hops[order]
        reverse = reverse_edges(centres, neighbours, vectors.detach(), n_nodes)
        # A pair as long as the cutoff to the last digit may be an edge in one direction only.
        itself = torch.arange(reverse.shape[0], device=reverse.device)
        reverse = torch.where(reverse < reverse.shape[0], reverse, itself)
        types = node_types[order]
        edge_types, edge_hops = types[neighbours], node_hops[centres]
        geometry = torch.cat([vectors, (vectors.square().sum(1, keepdim=True) + 1e-15).sqrt()], dim=1)
        log_weights = torch.log(factors.clamp(min=1e-15))

        n_rows, n_edges = int((node_hops <= self.reach).sum()), int((edge_hops <= self.reach).sum())
        nodes, messages = factors.new_zeros(0), self.edge_table.index_select(0, edge_types[:n_edges])
        read_nodes: list[Tensor] = []
        read_messages: list[Tensor] = []
        reach = self.reach
        for layer, combination in zip(self.layers, self.combinations):  # noqa: B905  TorchScript knows no strict=
            row_types, neighbour_types = types[:n_rows], edge_types[:n_edges]
            nodes, edges = layer(
                nodes,
                messages,
                geometry[:n_edges],
                row_types,
                neighbour_types,
                centres[:n_edges],
                log_weights[:n_edges],
            )
            reach -= 1
            n_rows, n_edges = int((node_hops <= reach).sum()), int((edge_hops <= reach).sum())
            if not self.feedforward:
                read_nodes.append(first_rows(nodes, n_owned))
                read_messages.append(edges)
            # The pass back of index_select is faster than that of an index.
            reversed_edges, edges = edges.index_select(0, reverse[:n_edges]), first_rows(edges, n_edges)
            nodes, messages = first_rows(nodes, n_rows), first_rows(messages, n_edges)
            if self.feedforward:
                messages = messages + edges + combination(torch.cat([edges, reversed_edges], dim=1))
            else:
                messages = 0.5 * (messages + reversed_edges)
        if self.feedforward:
            read_nodes.append(nodes)
            read_messages.append(messages)

        n_edges = int((edge_hops == 0).sum())
        energies = vectors.new_zeros(n_owned)
        features: list[Tensor] = []
        for k, readout in enumerate(self.readouts):
            messages = first_rows(read_messages[k], n_edges)
            energy, feature = readout(read_nodes[k], messages, factors[:n_edges], centres[:n_edges])
            energies = energies + energy
            features.append(feature)
        owned = node_types[:n_owned]
        return energies.double() * self.scales[owned] + self.offsets[owned], torch.cat(features, dim=1)


def first_rows(rows: Tensor, n: int) -> Tensor:
    """The first n of them; a slice of all would have a pass back that copies them."""
    return rows if rows.shape[0] == n else rows[:n]


class Cutoffs(nn.Module):
    """Edges within the cutoff of their pair, and the factor of each, which vanishes there.

    With adaptive cutoffs, that of a pair is the mean of both atoms', each of which depends on the distances of the
    atom's own neighbours.
    """

    __constants__ = ("adaptive", "by_grid", "bump", "fuse")

    def __init__(self, model: Any, fuse: bool):
        super().__init__()
        self.fuse = fuse
        self.cutoff, self.width = float(model.cutoff), float(model.cutoff_width)
        self.adaptive = model.num_neighbors_adaptive is not None
        self.n_neighbours = float(model.num_neighbors_adaptive or 0.0)
        self.by_grid = model.adaptive_cutoff_method.lower() == "grid"
        self.adaptive_width = float(model.cutoff_width_adaptive)
        self.bump = model.cutoff_function.lower() == "bump"

    def forward(self, edge_index: Tensor, edge_vectors: Tensor, n_nodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centres and neighbours [n_kept], vectors [n_kept, 3] and factors [n_kept] of the edges that are kept."""
        centres, neighbours = edge_index[0], edge_index[1]
        distances = torch.linalg.vector_norm(edge_vectors, dim=[1]) + 1e-15
        if self.adaptive:
            if self.by_grid:
                of_atoms = get_adaptive_cutoffs_grid(
                    centres, distances, self.n_neighbours, n_nodes, self.cutoff, self.adaptive_width
                )
            elif self.fuse:
                of_atoms = torch.ops.mlip.adaptive_cutoffs(
                    distances, centres, n_nodes, self.n_neighbours, self.cutoff, self.adaptive_width
                )[0]
            else:
                of_atoms = get_adaptive_cutoffs_solver(
                    centres, distances, self.n_neighbours, n_nodes, self.cutoff, self.adaptive_width
                )
            cutoffs = 0.5 * (of_atoms[centres] + of_atoms[neighbours])
        else:
            cutoffs = torch.full_like(distances, self.cutoff)
        kept = torch.nonzero(distances <= cutoffs).squeeze(1)
        distances, cutoffs = distances[kept], cutoffs[kept]
        if self.bump:
            factors = cutoff_func_bump(distances, cutoffs, self.width)
        else:
            factors = cutoff_func_cosine(distances, cutoffs, self.width)
        return centres[kept], neighbours[kept], edge_vectors[kept], factors


class PETLayer(nn.Module):
    """metatrain's CartesianTransformer: tokens of edges from vectors, elements and messages; transformer blocks.

    Args:
        species: the model's index of each type index.
        node_table: features of atoms by type index, with which the layer starts; None to go on with the layer's before.
        edge_table: the first messages, by type index of the neighbour.
        fuse: see PETEnergy.
    """

    __constants__ = ("first", "starts")
    node_table: Tensor
    table: Tensor
    from_geometry: Tensor

    def __init__(self, original: Any, species: Tensor, node_table: Tensor | None, edge_table: Tensor, fuse: bool):
        super().__init__()
        self.first = original.is_first
        self.starts = node_table is not None
        into, activation, out = original.compress
        self.into_edges = nn.Sequential(activation, FeedForward(nn.Identity(), out, fuse=fuse))
        weight = into.weight.detach()
        parts = weight.split(out.in_features, dim=1)
        embedder = original.edge_embedder
        elements = edge_table if self.first else original.neighbor_embedder.weight.detach()[species]
        constant = into.bias.detach() + parts[0] @ embedder.bias.detach()
        self.register_buffer("node_table", weight.new_zeros(0) if node_table is None else node_table)
        self.register_buffer("table", elements @ parts[1].T + (constant if self.first else 0.0))
        self.register_buffer("from_geometry", parts[0] @ embedder.weight.detach())
        self.from_messages: nn.Module = nn.Identity()
        if not self.first:  # the first messages are in the table
            self.from_messages = FeedForward(nn.Identity(), linear_layer(parts[2], constant), fuse=fuse)
        self.blocks = nn.ModuleList([TransformerBlock(block, fuse) for block in original.trans.layers])

    def forward(
        self,
        nodes: Tensor,
        messages: Tensor,
        geometry: Tensor,
        types: Tensor,
        edge_types: Tensor,
        centres: Tensor,
        log_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            nodes: [n_rows, d_node]; anything where the layer starts.
            messages: [n_edges, d_pet].
            geometry: [n_edges, 4], vector and length, Å.
            types: int64 [n_rows], type index.
            edge_types: int64 [n_edges], type index of the neighbour.
            centres: int64 [n_edges], row of each edge's centre, ascending.
            log_weights: [n_edges], logarithm of the factor of `Cutoffs`.
        """
        if self.starts:
            nodes = self.node_table.index_select(0, types)
        edges = self.table.index_select(0, edge_types) + torch.matmul(geometry, self.from_geometry.T)
        if not self.first:
            edges = edges + self.from_messages(messages)
        edges = self.into_edges(edges)
        for block in self.blocks:
            nodes, edges = block(nodes, edges, centres, log_weights)
        return nodes, edges


class TransformerBlock(nn.Module):
    """metatrain's TransformerLayer on flat lists of tokens."""

    __constants__ = ("norm_first", "wide_nodes")

    def __init__(self, original: Any, fuse: bool):
        super().__init__()
        self.norm_first = original.transformer_type == "PreLN"
        self.wide_nodes = original.expanded_node_features
        attention, mlp = original.attention, original.mlp
        norms, nothing = [original.norm_attention, original.norm_mlp], [nn.Identity(), nn.Identity()]
        before, after = (norms, nothing) if self.norm_first else (nothing, norms)
        self.projection = FeedForward(before[0], attention.input_linear, fuse=fuse)
        self.attention = (FusedAttention if fuse else PlainAttention)(attention)
        self.output = FeedForward(nn.Identity(), attention.output_linear, fuse=fuse)
        self.mlp = FeedForward(before[1], mlp.w_in, mlp.w_out, mlp.is_swiglu, add=True, fuse=fuse)
        self.norm_attention, self.norm_mlp = plain_norm(after[0]), plain_norm(after[1])
        self.contraction, self.expansion = original.center_contraction, original.center_expansion
        self.node_mlp: nn.Module = nn.Identity()
        if self.wide_nodes:
            # Not fused: to pack these matrices, which are large, takes as long as to multiply few atoms with them.
            norm, mlp = original.norm_center_features, original.center_mlp
            self.node_mlp = FeedForward(norm, mlp.w_in, mlp.w_out, mlp.is_swiglu, add=True, fuse=False)

    def forward(self, nodes: Tensor, edges: Tensor, centres: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
        n_rows = nodes.shape[0]
        tokens = torch.cat([self.contraction(nodes), edges])
        attended = self.output(self.attention(self.projection(tokens), centres, log_weights))
        if not self.norm_first:
            attended = self.norm_mlp(self.mlp(self.norm_attention(tokens + attended)))
        of_nodes, of_edges = attended.split([n_rows, edges.shape[0]])
        edges = self.mlp(edges + of_edges) if self.norm_first else of_edges
        nodes = self.node_mlp(nodes + self.expansion(of_nodes)) if self.wide_nodes else of_nodes
        return nodes, edges


class FusedAttention(nn.Module):
    """metatrain's AttentionBlock between its linear layers: the tokens of each atom attend to each other, weighted by
    their cutoff factors."""

    def __init__(self, original: Any):
        super().__init__()
        self.n_heads = int(original.num_heads)
        self.scale = 1.0 / (original.head_dim**0.5 * original.temperature)

    def forward(self, projected: Tensor, centres: Tensor, log_weights: Tensor) -> Tensor:
        """Rows of tokens [n_rows + n_edges, d_pet] from their queries, keys and values, side by side.

        Args:
            centres: int64 [n_edges], ascending.
            log_weights: see `PETLayer.forward`.
        """
        result: Tensor = torch.ops.mlip.token_attention(projected, log_weights, centres, self.n_heads, self.scale)
        return result


class PlainAttention(nn.Module):
    """The same by torch's operators, on a table that is padded to the atom with most edges."""

    def __init__(self, original: Any):
        super().__init__()
        self.n_heads, self.width = int(original.num_heads), int(original.head_dim)
        self.scale = 1.0 / (original.head_dim**0.5 * original.temperature)

    def forward(self, projected: Tensor, centres: Tensor, log_weights: Tensor) -> Tensor:
        n_rows = projected.shape[0] - centres.shape[0]
        places, weights = padding(centres, log_weights, n_rows)
        n_places = weights.shape[1]
        table = projected.new_zeros([n_rows * n_places, projected.shape[1]]).index_copy(0, places, projected)
        n_batches = n_rows * self.n_heads
        queries, keys, values = (
            table.reshape(n_rows, n_places, 3, self.n_heads, self.width)
            .permute(2, 0, 3, 1, 4)
            .reshape(3, n_batches, n_places, self.width)
            .unbind(0)
        )
        # Views and batched products: this part moves memory more than it computes.
        logarithms = weights.unsqueeze(1).expand(n_rows, self.n_heads, n_places).reshape(n_batches, 1, n_places)
        scores = torch.baddbmm(
            logarithms.expand(n_batches, n_places, n_places), queries, keys.transpose(1, 2), alpha=self.scale
        )
        attended = torch.bmm(torch.softmax(scores, dim=2), values).reshape(n_rows, self.n_heads, n_places, self.width)
        attended = attended.transpose(1, 2).reshape(n_rows * n_places, self.n_heads * self.width)
        return attended.index_select(0, places)


def padding(centres: Tensor, log_weights: Tensor, n_rows: int, nothing: float = -1e30) -> tuple[Tensor, Tensor]:
    """Where the tokens of atoms and edges stand in a table with a row for each atom, and their weights.

    Args:
        centres: [n_edges] row of each edge's centre, ascending.
        log_weights: [n_edges].
        nothing: logarithm of the weight of a token that is not there.

    Returns:
        int64 [n_rows + n_edges] indices into the flat table: atoms, then edges; and the logarithm of the weight of each
        place [n_rows, n_places], which is 0 for the atom and `nothing` where there is no token.
    """
    counts = torch.bincount(centres, minlength=n_rows)
    n_places = 1 + (int(counts.max()) if n_rows > 0 else 0)
    starts = torch.cumsum(counts, 0) - counts
    atoms = n_places * torch.arange(n_rows, device=centres.device)
    edges = atoms[centres] + 1 + torch.arange(centres.shape[0], device=centres.device) - starts[centres]
    places = torch.cat([atoms, edges])
    values = torch.cat([log_weights.new_zeros(n_rows), log_weights])
    weights = torch.full([n_rows * n_places], nothing, dtype=log_weights.dtype, device=log_weights.device)
    return places, weights.index_copy(0, places, values).reshape(n_rows, n_places)


class ReadOut(nn.Module):
    """Energies [n_atoms] and last-layer features [n_atoms, 2 d_head] of atoms and their messages."""

    def __init__(self, node_head: Any, edge_head: Any, node_layer: Any, edge_layer: Any, *, fuse: bool):
        super().__init__()
        self.node_head, self.edge_head = (
            FeedForward(nn.Identity(), head[0], head[2], fuse=fuse) for head in (node_head, edge_head)
        )
        # A scalar has one block.
        (self.node_layer,), (self.edge_layer,) = node_layer.values(), edge_layer.values()

    def forward(self, nodes: Tensor, messages: Tensor, factors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        of_nodes = nn.functional.silu(self.node_head(nodes))
        of_edges = nn.functional.silu(self.edge_head(messages)) * factors.unsqueeze(1)
        features = of_nodes.new_zeros(of_nodes.shape[0], of_edges.shape[1]).index_add(0, centres, of_edges)
        weight, bias = self.edge_layer.weight, self.edge_layer.bias
        total = factors.new_zeros(of_nodes.shape[0]).index_add(0, centres, factors)
        energies = self.node_layer(of_nodes)[:, 0] + torch.mv(features, weight[0]) + bias[0] * total
        return energies, torch.cat([of_nodes, features], dim=1)
