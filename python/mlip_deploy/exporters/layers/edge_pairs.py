"""Pairs of edges at one node, for models of angles, in code that TorchScript compiles."""

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
