"""What models of angles and of reversed edges find in an edge list, in code that TorchScript compiles."""

import torch
from torch import Tensor


def pairs_of_edges(vertices: Tensor, centres: Tensor, n_nodes: int) -> tuple[Tensor, Tensor]:
    """All (k, e) where edge e starts at the vertex k: centres[e] == vertices[k]."""
    order = torch.argsort(centres)
    counts = torch.bincount(centres, minlength=n_nodes)
    starts = torch.cumsum(counts, 0) - counts
    n = counts[vertices]
    k = torch.arange(vertices.shape[0], device=centres.device).repeat_interleave(n)
    place = torch.arange(k.shape[0], device=centres.device) - (torch.cumsum(n, 0) - n)[k]
    return k, order[starts[vertices[k]] + place]


def reverse_edges(
    centres: Tensor, neighbours: Tensor, vectors: Tensor, n_nodes: int, tolerance: float = 1e-3
) -> Tensor:
    """Index of each edge's reverse, int64 [n_edges]; n_edges for an edge whose reverse is not in the list.

    Args:
        tolerance: Å; two images of an atom are never this near, and float32 rounds a component to 1e-6 Å.
    """
    # Several edges join the same two nodes where a cell is smaller than the cutoff: their vectors tell them apart.
    order = torch.argsort(centres * n_nodes + neighbours)
    pairs = (centres * n_nodes + neighbours)[order]
    reversed_pairs = neighbours * n_nodes + centres
    first = torch.searchsorted(pairs, reversed_pairs)
    n = torch.searchsorted(pairs, reversed_pairs, right=True) - first
    k = torch.arange(centres.shape[0], device=centres.device).repeat_interleave(n)
    place = torch.arange(k.shape[0], device=centres.device) - (torch.cumsum(n, 0) - n)[k]
    e = order[first[k] + place]
    same = ((vectors[k] + vectors[e]).abs() < tolerance).all(dim=1)
    return torch.full_like(centres, centres.shape[0]).index_copy(0, k[same], e[same])


def hops(n_owned: int, n_nodes: int, centres: Tensor, neighbours: Tensor, most: int) -> Tensor:
    """How many edges lead from an owned atom to each node, int64 [n_nodes]; at most `most`."""
    found = torch.zeros(n_nodes, dtype=torch.int64, device=centres.device)
    found[n_owned:] = most
    if n_nodes > n_owned:
        for _ in range(most - 1):
            # After k rounds, nodes k hops away are right.
            through = found.index_select(0, centres) + 1
            found = found.scatter_reduce(0, neighbours, through, "amin")
    return found
