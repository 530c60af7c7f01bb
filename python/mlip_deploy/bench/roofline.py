"""The roofline of a step: operations and bytes counted, the processor's ceilings measured."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench.measure import WARM_UP
from mlip_deploy.bench.systems import build_system
from mlip_deploy.errors import MLIPError

REST = "the rest"
PARTS = {"edge_tensor_product": "convolution", "equivariant_linear": "linear layers"}
"""Fused operators that go by another name than their own."""


def roofline(path: str, system: str) -> dict[str, Any]:
    """Operations and least memory traffic of one step, by operator, beside what this processor can do on one thread.

    Counted, not measured: two operations for each multiply-add that the mathematics needs. The convolution's bytes are
    those that must move if every row of features, every radial coefficient and every gradient comes from beyond the
    first cache once for each edge; its outputs stay there while a centre's edges are summed.
    """
    import torch

    from mlip_deploy.exporters.settings import quiet
    from mlip_deploy.operators import load_operators

    load_operators()
    torch.set_num_threads(1)
    contract = Artifact(path).contract
    if contract.backend != "torchscript":
        raise MLIPError(f"--roofline {path}: a compiled file does not say what it computes. Give a TorchScript file")
    module = torch.jit.load(path)  # type: ignore[no-untyped-call]
    atoms = build_system(system)
    types = torch.tensor(contract.types_of(atoms.get_chemical_symbols()))
    centres, neighbours, vectors = _pairs(atoms, contract.cutoff)
    edges = torch.tensor(np.stack([centres, neighbours]).astype(np.int64))
    dtype = torch.float32 if contract.dtype == "float32" else torch.float64
    inputs = (types, len(atoms), edges, torch.tensor(vectors, dtype=dtype))
    size = dtype.itemsize
    with quiet(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # as engines run it
        for _ in range(WARM_UP):
            module(*inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as profile:
            module(*inputs)
    seconds: dict[str, float] = defaultdict(float)
    operations: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        part = _part(event.key)
        seconds[part] += 1e-6 * event.self_cpu_time_total
        if part == "matrix products":
            operations[part] += event.flops
    bytes_moved = 0.0
    graph = module.inlined_graph  # its nodes live no longer than this name
    for node in graph.findAllNodes("mlip::equivariant_linear"):
        per_atom = linear_cost(_integers(node.inputsAt(5)), _integers(node.inputsAt(6)))
        operations["linear layers"] += per_atom * len(atoms)
    for node in graph.findAllNodes("mlip::edge_perceptron"):
        shapes = [tuple(_attribute(weight, module).shape) for weight in node.inputsAt(5).node().inputs()]
        operations["edge perceptron"] += perceptron_cost(shapes) * len(centres)
    for k, node in enumerate(graph.findAllNodes("mlip::edge_tensor_product")):
        numbers, table = _integers(node.inputsAt(5)), node.inputsAt(7).toIValue()
        paths = [numbers[p : p + 9] for p in range(0, len(numbers), 9)]
        per_edge, per_edge_bytes = convolution_cost(paths, table.numel() > 0, first=k == 0)
        operations["convolution"] += per_edge * len(centres)
        bytes_moved += per_edge_bytes * size * len(centres)
    return {
        "system": system,
        "n_atoms": len(atoms),
        "n_edges": len(centres),
        "seconds": {part: seconds[part] for part in sorted(seconds, key=lambda part: (part == REST, -seconds[part]))},
        "operations": dict(operations),
        "convolution_bytes": bytes_moved,
        "ceiling_operations_per_s": _matrix_product_ceiling(dtype),
        "ceiling_bytes_per_s": _copy_ceiling(),
    }


def _part(name: str) -> str:
    """What the time of one of torch's or of the fused operators is shown under."""
    if name in ("aten::mm", "aten::bmm", "aten::addmm"):
        return "matrix products"
    if not name.startswith("mlip::"):
        return REST
    name = name.removeprefix("mlip::").removesuffix("_backward")
    return PARTS.get(name, name.replace("_", " "))


def _integers(value: Any) -> list[int]:
    """A list in a graph: one constant, or made of constants."""
    whole = value.toIValue()
    return [part.toIValue() for part in value.node().inputs()] if whole is None else list(whole)


def _attribute(value: Any, module: Any) -> Any:
    """What a graph reads from its module, such as a buffer of a layer."""
    node = value.node()
    if node.kind() != "prim::GetAttr":
        return module
    return getattr(_attribute(node.inputsAt(0), module), node.s("name"))


def convolution_cost(paths: list[list[int]], tabulated: bool, first: bool) -> tuple[float, float]:
    """(operations, values moved) per edge of `mlip::edge_tensor_product`, forward and backward together.

    Args:
        paths: rows as the operator takes them.
        tabulated: whether radial weights are splines, sums of six terms, made twice, the second time with their slope.
        first: in the first layer features depend on the element alone, and their gradient is not wanted.
    """
    operations, features, n_weights = 0.0, 0, 0
    for l1, l2, l3, channels, start, *_ in paths:
        n1, n2, n3 = 2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1
        # x w and then c over n1 x n3: forward. Backward: b over n1 x n2, dE/dw, w x, dE/dx, dE/dY over n1 x n2.
        # What all edges of a centre share is left out.
        forward = n1 + 2 * n1 * n3
        backward = 2 * n1 * n2 + 2 * n1 + n1 + (0 if first else 2 * n1) + 2 * n1 * n2
        if tabulated:
            forward += 11
            backward += 2 * 11 + 2
        operations += channels * (forward + backward) + 2 * n1 * n2 * n3
        features = max(features, start + n1 * channels)
        n_weights += channels
    # forward: features; backward: features, and their gradient read and written. Weights: stored ones are read twice
    # and their gradient is written, tabulated ones are six rows, twice.
    values = features * (2 if first else 4) + n_weights * (12 if tabulated else 3)
    return operations, values


def linear_cost(blocks: list[int], products: list[int]) -> int:
    """Operations per atom of `mlip::equivariant_linear`, forward and backward together; arguments as it takes them."""
    sizes = list(zip(blocks[::2], blocks[1::2], strict=True))
    forward = sum(
        2 * math.prod(sizes[block]) * channels_in
        for block, channels_in in zip(products[1::4], products[3::4], strict=True)
    )
    return 2 * forward


def perceptron_cost(weights: list[tuple[int, ...]]) -> int:
    """Operations per edge of `mlip::edge_perceptron`, forward and backward together, from the shapes of its weights."""
    return 2 * sum(2 * math.prod(shape) for shape in weights if len(shape) > 1)  # a bias has one dimension


def _pairs(atoms: Atoms, cutoff: float) -> tuple[Any, Any, Any]:
    i, j, vectors = primitive_neighbor_list("ijD", (True, True, True), atoms.cell.array, atoms.positions, cutoff)
    return i, j, vectors


def _matrix_product_ceiling(dtype: Any) -> float:
    """Operations per second of a large matrix product: the most arithmetic that this processor is seen to do."""
    import torch

    a, b = torch.rand(1024, 1024, dtype=dtype), torch.rand(1024, 1024, dtype=dtype)
    return 2 * 1024**3 / _best_time(lambda: torch.mm(a, b))


def _copy_ceiling() -> float:
    """Bytes per second, read and written, of a copy much larger than the caches."""
    import torch

    source = torch.ones(1 << 27, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best_time(lambda: target.copy_(source))


def _best_time(action: Callable[[], Any], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)
