"""A traced graph with gradients of slices put together by concatenation.

A tensor product of e3nn slices its inputs once for each path. Autograd answers with one tensor of the full width for
each slice, zero but for the slice, and adds them all. Inductor makes one loop of the sum, in which every slice is a
branch with indices of its own to simplify. The slices beside one another are the same tensor.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def join_slice_gradients(module: GraphModule) -> None:
    """Rewrite in place the sums of gradients of slices of the last dimension, but where two slices overlap in part."""
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=aten.slice_backward.default):
        gradient, _, _, start, stop, step = _arguments(node)
        if (start, stop, step) == (0, torch.iinfo(torch.int64).max, 1):  # the whole
            node.replace_all_uses_with(gradient)
            graph.erase_node(node)
    for node in reversed(graph.find_nodes(op="call_function", target=aten.add.Tensor)):
        if not node.users or (len(node.users) == 1 and _is_sum(next(iter(node.users)))):
            continue  # part of a larger sum
        terms = _terms(node)
        slices = {term: place for term in terms if len(term.users) == 1 and (place := _place(term)) is not None}
        if len(slices) < 2 or len({width for width, _, _ in slices.values()}) > 1:
            continue
        with graph.inserting_before(node):
            joined = _joined(graph, slices)
            if joined is None:
                continue
            for term in terms:
                if term not in slices:
                    joined = graph.call_function(aten.add.Tensor, (joined, term))
        node.replace_all_uses_with(joined)
    graph.eliminate_dead_code()
    module.recompile()


def _is_sum(node: Node) -> bool:
    return node.target == aten.add.Tensor and not node.kwargs and all(isinstance(term, Node) for term in node.args)


def _arguments(node: Node) -> tuple[Any, ...]:
    return node.args


def _terms(node: Any) -> list[Node]:
    """What a tree of additions adds, each inner one of which nobody else reads."""
    if not _is_sum(node):
        return [node]
    terms: list[Node] = []
    for term in node.args:
        terms += _terms(term) if _is_sum(term) and len(term.users) == 1 else [term]
    return terms


def _place(node: Node) -> tuple[int, int, int] | None:
    """(width of the whole, first, one behind the last) of a gradient of a slice of the last dimension."""
    if node.target != aten.slice_backward.default:
        return None
    _, sizes, dimension, start, stop, step = _arguments(node)
    width = sizes[-1]
    bounds_known = all(isinstance(number, int) for number in (width, start, stop))
    if dimension not in (-1, len(sizes) - 1) or step != 1 or not bounds_known or not 0 <= start < stop:
        return None
    return width, start, min(stop, width)


def _joined(graph: torch.fx.Graph, slices: dict[Node, tuple[int, int, int]]) -> Node | None:
    """The sum of gradients of slices, given with their places in one width; None if two of them overlap in part."""
    places: dict[tuple[int, int], list[Node]] = {}
    for node, (_, start, stop) in slices.items():
        places.setdefault((start, stop), []).append(_arguments(node)[0])
    bounds = sorted(places)
    if any(stop > start for (_, stop), (start, _) in itertools.pairwise(bounds)):
        return None
    some, (width, _, _) = next(iter(slices.items()))
    like, sizes = _arguments(some)[:2]
    parts = []
    end = 0
    for start, stop in [*bounds, (width, width)]:
        if start > end:
            parts.append(graph.call_function(aten.new_zeros.default, (like, [*sizes[:-1], start - end])))
        if stop > start:
            first, *others = places[start, stop]
            for other in others:
                first = graph.call_function(aten.add.Tensor, (first, other))
            parts.append(first)
        end = stop
    return graph.call_function(aten.cat.default, (parts, -1))
