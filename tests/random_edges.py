"""Edges between nodes drawn at random, for tests of operators."""

import torch


def random_edges(n_owned: int, n_nodes: int, n_edges: int, seed: int = 0, ordered: bool = True) -> torch.Tensor:
    """Centres and neighbours, int64 [2, n_edges]. Some centres have one edge or none where edges are few.

    Args:
        ordered: whether edges are in the order of their centres.
    """
    random = torch.Generator().manual_seed(seed)
    centres = torch.randint(0, max(n_owned, 1), (n_edges,), generator=random)
    neighbours = torch.randint(0, max(n_nodes, 1), (n_edges,), generator=random)
    return torch.stack([centres.sort()[0] if ordered else centres, neighbours])
