"""Branches on counts of atoms or edges in a module's TorchScript: code that computes one thing in small systems and
another in large ones, which the small structures of the fixtures do not show.

A count is `n_owned`, or the length of what depends on the module's inputs. A comparison with zero may stand, since a
rank can be without atoms or edges, and so may an assertion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

COUNTED_DIMENSION = {"edge_index": 1}
"""of the inputs, where it is not the first"""
ARITHMETIC = (
    *(f"aten::{name}" for name in ("add", "sub", "mul", "div", "floordiv", "remainder", "neg", "pow")),
    *(f"aten::{name}" for name in ("Int", "Float", "Bool", "IntImplicit", "FloatImplicit", "ScalarImplicit")),
    *("prim::min", "prim::max", "prim::NumToTensor"),
)
COMPARISONS = ("aten::eq", "aten::ne", "aten::lt", "aten::le", "aten::gt", "aten::ge")
LOGIC = ("aten::__and__", "aten::__or__", "aten::__not__")


def branches_on_counts(module: torch.jit.ScriptModule, is_library: Callable[[str], bool]) -> list[str]:
    """Places "file:line" of branches on counts in `forward(node_types, n_owned, edge_index, edge_vectors)`.

    Args:
        is_library: whether a branch in this file is not the user's.
    """
    graph: Any = module.inlined_graph
    walk = _Walk(is_library)
    inputs = list(graph.inputs())[1:]
    for value in inputs:
        (walk.counts if str(value.type()) == "int" else walk.tensors).add(value.unique())
    walk.dimension = {
        value.unique(): COUNTED_DIMENSION[name]
        for value in inputs
        if (name := value.debugName().split(".")[0]) in COUNTED_DIMENSION
    }
    walk.block(graph)
    return list(dict.fromkeys(walk.found))


class _Walk:
    """Which values of a graph are counts, and which follow from the inputs."""

    def __init__(self, is_library: Callable[[str], bool]):
        self._is_library = is_library
        self.counts: set[int] = set()
        self.tensors: set[int] = set()
        self.sizes: set[int] = set()
        """lists of sizes"""
        self.dimension: dict[int, int] = {}
        self.found: list[str] = []

    def block(self, block: Any) -> None:
        for node in block.nodes():
            self._node(node)

    def _node(self, node: Any) -> None:
        kind, inputs, outputs = node.kind(), list(node.inputs()), [value.unique() for value in node.outputs()]
        if kind == "prim::If":
            self._if(node)
        elif kind == "prim::Loop":
            self._loop(node)
        elif self._is_count(kind, inputs):
            self.counts.update(outputs)
        elif kind == "aten::size" and len(inputs) == 1 and inputs[0].unique() in self.tensors:
            self.sizes.update(outputs)
            self.dimension.update({output: self.dimension.get(inputs[0].unique(), 0) for output in outputs})
        elif any(value.unique() in self.tensors for value in inputs) and kind != "aten::dim":
            # what a tensor of the system gives is one of the system too, lists and tuples of them included
            self.tensors.update(v.unique() for v in node.outputs() if str(v.type()) not in ("int", "bool", "float"))
        for inner in node.blocks() if kind not in ("prim::If", "prim::Loop") else ():
            self.block(inner)

    def _is_count(self, kind: str, inputs: list[Any]) -> bool:
        names = [value.unique() for value in inputs]
        if kind in ("aten::len", "aten::numel"):
            return names[0] in self.tensors
        if kind in ("aten::size", "aten::__getitem__") and len(inputs) == 2:
            known = names[0] in (self.tensors if kind == "aten::size" else self.sizes)
            return known and inputs[1].toIValue() in (self.dimension.get(names[0], 0), None)
        if kind in COMPARISONS:
            counted = any(name in self.counts for name in names)
            return counted and not any(_is_zero(value) for value in inputs)
        return kind in (*ARITHMETIC, *LOGIC) and any(name in self.counts for name in names)

    def _if(self, node: Any) -> None:
        condition = next(node.inputs())
        blocks = list(node.blocks())
        for block in blocks:
            self.block(block)
        for k, output in enumerate(node.outputs()):
            self._follow([list(block.outputs())[k] for block in blocks], output)
        asserts = any(inner.kind() == "prim::RaiseException" for block in blocks for inner in block.nodes())
        # a condition such as `a and b` is itself a branch that gives a truth value
        gives_truth = [str(value.type()) for value in node.outputs()] == ["bool"]
        if condition.unique() not in self.counts or asserts:
            return
        if gives_truth:
            self.counts.update(value.unique() for value in node.outputs())
            return
        place = self._place(node)
        if place is not None:
            self.found.append(place)

    def _loop(self, node: Any) -> None:
        (block,) = node.blocks()
        inner, carried = list(block.inputs())[1:], list(node.inputs())[2:]
        for _ in range(2):  # what is carried from one turn to the next
            for value, first, last in zip(inner, carried, list(block.outputs())[1:], strict=True):
                self._follow([first, last], value)
            self.block(block)
        for value, last in zip(node.outputs(), list(block.outputs())[1:], strict=True):
            self._follow([last], value)

    def _follow(self, sources: list[Any], value: Any) -> None:
        for kind in (self.counts, self.tensors, self.sizes):
            if any(source.unique() in kind for source in sources):
                kind.add(value.unique())

    def _place(self, node: Any) -> str | None:
        """Where the user wrote it; None for a branch of a library."""
        found = re.findall(r'File "([^"]+)", line (\d+)', str(node.sourceRange()))
        if not found or self._is_library(found[0][0]):
            return None
        return f"{found[0][0]}:{found[0][1]}"


def _is_zero(value: Any) -> bool:
    node = value.node()
    return bool(node.kind() == "prim::Constant" and value.toIValue() == 0)
