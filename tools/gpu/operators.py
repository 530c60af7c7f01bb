"""mlip's operators on a GPU against the CPU's: both passes, a new thread, another stream, repeated runs, wrong indices.

The device is the environment's DEV, "cuda" or "cpu". operators.py [--quick]: in float32 and a few cases alone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlip_deploy.operators import load_operators

load_operators()
DEVICE = torch.device("cuda", 0) if os.environ.get("DEV", "cuda") == "cuda" else torch.device("cpu")
MLIP = torch.ops.mlip
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}  # of sums of some hundred products of numbers of order one


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution(
    dtype: torch.dtype,
    table: bool,
    n_owned: int = 60,
    n_nodes: int = 80,
    n_edges: int = 900,
    ordered: bool = True,
    seed: int = 0,
) -> list[Any]:
    """Arguments of edge_tensor_product, on the CPU."""
    random = torch.Generator().manual_seed(seed)
    paths: list[int] = []
    outputs: dict[int, tuple[int, int]] = {}
    n_features = n_weights = n_coefficients = 0
    for l1, channels in ((0, 40), (1, 32), (2, 5)):
        for l2 in range(3):
            for l3 in range(abs(l1 - l2), min(l1 + l2, 2) + 1):
                number, offset = outputs.setdefault(l3, (len(outputs), 0))
                paths += [l1, l2, l3, channels, n_features, l2 * l2, n_weights, number, offset]
                outputs[l3] = (number, offset + channels)
                n_weights += channels
                n_coefficients += (2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1)
        n_features += (2 * l1 + 1) * channels
    centres = torch.randint(0, max(n_owned - 1, 1), (n_edges,), generator=random)
    neighbours = torch.randint(0, n_nodes, (n_edges,), generator=random)
    edges = torch.stack([centres.sort()[0] if ordered else centres, neighbours])
    kept = torch.rand(n_coefficients, generator=random) < 0.4
    distances = torch.rand(n_edges, generator=random, dtype=torch.float64) * 2.4
    return [
        normal(n_nodes, n_features, seed=seed).to(dtype),
        normal(n_edges, 9, seed=seed + 1).to(dtype),
        (distances if table else normal(n_edges, n_weights, seed=seed + 2)).to(dtype),
        edges,
        n_owned,
        paths,
        (normal(n_coefficients, seed=seed + 3) * kept).to(dtype),
        (normal(14, n_weights, seed=seed + 4) if table else torch.zeros(0)).to(dtype),
        0.25,
    ]


def moved(arguments: Sequence[Any], device: torch.device) -> list[Any]:
    return [one.to(device) if isinstance(one, Tensor) else one for one in arguments]


def upstream(outputs: Sequence[Tensor]) -> list[Tensor]:
    """A gradient for each output, the same on every device."""
    return [torch.cos(torch.arange(t.numel(), dtype=t.dtype)).reshape(t.shape).to(t.device) for t in outputs]


def both_passes(arguments: Sequence[Any]) -> list[Tensor]:
    features, harmonics, radial, edges, _, *rest = arguments
    outputs = MLIP.edge_tensor_product(*arguments)
    backward = MLIP.edge_tensor_product_backward(upstream(outputs), features, harmonics, radial, edges, *rest, True)
    return [*outputs, *backward]


def compare(found: Sequence[Tensor], wanted: Sequence[Tensor], bound: float) -> str:
    worst = 0.0
    for a, b in zip(found, wanted, strict=True):
        if b.numel():
            difference = float((a.cpu() - b.cpu()).abs().max()) / (1 + float(b.abs().max()))
            worst = difference if not difference <= worst else worst  # NaN too
    if not worst <= bound:
        raise AssertionError(f"differs by {worst:.1e}, bound {bound:.0e}")
    return f"{worst:.1e} of {bound:.0e}"


def convolution_agrees(dtype: torch.dtype, table: bool, **other: Any) -> str:
    arguments = convolution(dtype, table, **other)
    return compare(both_passes(moved(arguments, DEVICE)), both_passes(arguments), TOLERANCE[dtype])


def harmonics_agree(dtype: torch.dtype, l_max: int) -> str:
    vectors = normal(5000, 3, seed=1).to(dtype)
    vectors[7] = 0.0

    def both(rows: Tensor) -> list[Tensor]:
        outputs = MLIP.edge_harmonics(rows, l_max)
        return [*outputs, MLIP.edge_harmonics_backward(*upstream(outputs), rows, l_max)]

    return compare(both(vectors.to(DEVICE)), both(vectors), 1e-12 if dtype == torch.float64 else 1e-5)


def contraction_agrees(dtype: torch.dtype) -> str:
    random = torch.Generator().manual_seed(3)
    factors = torch.randint(0, 17, (60, 3), generator=random)
    terms = torch.nonzero(torch.rand(4, 60, generator=random) < 0.6)
    coefficients = normal(3, 8, len(terms), 16, seed=4).to(dtype)
    features, types = normal(500, 16, 128, seed=5).to(dtype), torch.arange(500) % 3

    def both(device: torch.device) -> list[Tensor]:
        x, t, f, terms_, c = moved([features, types, factors, terms, coefficients], device)
        output = MLIP.symmetric_contraction(x, t, f, terms_, 4, c)
        (gradient,) = upstream([output])
        return [output, MLIP.symmetric_contraction_backward(gradient, x, t, f, terms_, c)]

    return compare(both(DEVICE), both(torch.device("cpu")), TOLERANCE[dtype])


def gate_agrees(dtype: torch.dtype) -> str:
    pieces, factors = [1, 32, 0, 0, -1, 0, 0, 0, 3, 32, 0, 32, 1, 0, 1, 0], [1.7, 1.2]
    inputs = [normal(5000, 1, 64, seed=6).to(dtype), normal(5000, 3, 32, seed=7).to(dtype)]

    def both(blocks: list[Tensor]) -> list[Tensor]:
        outputs = MLIP.gate(blocks, pieces, factors)
        return [*outputs, *MLIP.gate_backward(upstream(outputs), blocks, pieces, factors)]

    return compare(both(moved(inputs, DEVICE)), both(inputs), TOLERANCE[dtype])


def with_gradients(operator: Any, inputs: Sequence[Tensor], constants: Sequence[Any], as_list: bool) -> list[Tensor]:
    """Results of an operator that has no kernels for GPUs, and gradients of its inputs."""
    leaves = [one.clone().requires_grad_() for one in inputs]
    outputs = operator(*([leaves] if as_list else leaves), *constants)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    total = sum((output * weight).sum() for output, weight in zip(outputs, upstream(outputs), strict=True))
    return [*(output.detach() for output in outputs), *torch.autograd.grad(total, leaves)]


def falls_back(dtype: torch.dtype, operator: Any, inputs: list[Tensor], constants: list[Any], as_list: bool) -> str:
    inputs = [one.to(dtype) for one in inputs]
    constants = [one.to(dtype) if isinstance(one, Tensor) and one.is_floating_point() else one for one in constants]
    wanted = with_gradients(operator, inputs, constants, as_list)
    found = with_gradients(operator, moved(inputs, DEVICE), moved(constants, DEVICE), as_list)
    return compare(found, wanted, TOLERANCE[dtype])


def without_kernels() -> dict[str, tuple[Any, list[Tensor], list[Any], bool]]:
    """Operators that a GPU computes with torch's own: the operator, its inputs, the rest, and if inputs are a list."""
    types, centres = torch.arange(300) % 5, torch.arange(900) // 15
    blocks, products = [1, 48, 3, 32], [0, 0, 0, 64, 1, 1, 1, 40]
    matrices, of_elements = normal(2, 64 * 48, seed=8), normal(7, 2, 40 * 32, seed=9)
    terms = [0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 2, 2, 0, 3, 3, 0]
    shifts, sections = [0.8 + 0.4 * k for k in range(8)], [0.4, 1.2, 2.0, 2.7]
    return {
        "element linear": (
            MLIP.element_linear,
            [normal(300, 3, 64, seed=6)],
            [types, normal(7, 64, 48, seed=7)],
            False,
        ),
        "equivariant linear": (
            MLIP.equivariant_linear,
            [normal(300, 1, 64, seed=6), normal(300, 3, 40, seed=7)],
            [types, matrices, of_elements, normal(7, 48 + 3 * 32, seed=10), blocks, products, False],
            True,
        ),
        "environment product": (
            MLIP.environment_product,
            [normal(900, 4, 32, seed=6), normal(900, 2, 32, seed=7), normal(900, 4, seed=8)],
            [torch.stack([centres, centres]), 60, terms, normal(6, 32, seed=9), [-1], [0, 1, 1, 1]],
            False,
        ),
        "symmetry functions": (
            MLIP.symmetry_functions,
            [2.0 * normal(900, 3, seed=6)],
            [types, torch.stack([centres, centres]), 60, 5, shifts, shifts, sections, [8.0, 9.0, 8.0, 14.1, 3.5]],
            False,
        ),
    }


def autograd_agrees() -> str:
    results = []
    for device in (DEVICE, torch.device("cpu")):
        arguments = moved(convolution(torch.float64, True), device)
        inputs = [one.clone().requires_grad_() for one in arguments[:3]]
        outputs = MLIP.edge_tensor_product(*inputs, *arguments[3:])
        results.append(torch.autograd.grad(sum((output**2).sum() for output in outputs), inputs))
    return compare(*results, 1e-10)


def runs_agree() -> str:
    arguments = moved(convolution(torch.float32, True, n_owned=3000, n_nodes=3000, n_edges=90000), DEVICE)
    first, second = both_passes(arguments), both_passes(arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "two runs differ"
    return "bit for bit"


def new_thread_agrees() -> str:
    """A thread that has never had a CUDA context; in float64, where no kernel of torch's comes before ours."""
    arguments = moved(convolution(torch.float64, True), DEVICE)
    wanted, found, failures = both_passes(arguments), [], []

    def work() -> None:
        try:
            found.extend(both_passes(arguments))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return compare(found, wanted, 0.0)


def other_stream_agrees() -> str:
    if DEVICE.type != "cuda":
        return "no streams here"
    arguments = convolution(torch.float32, True)
    wanted, stream = both_passes(arguments), torch.cuda.Stream()
    busy = torch.randn(6000, 6000, device=DEVICE)
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = (busy @ busy).clamp_(-1, 1)
        found = both_passes(moved(arguments, DEVICE))
    stream.synchronize()
    return compare(found, wanted, TOLERANCE[torch.float32])


def wrong_index_is_refused() -> str:
    arguments = moved(convolution(torch.float32, True), DEVICE)
    arguments[3][1, 3] = 80
    try:
        MLIP.edge_tensor_product(*arguments)
    except (IndexError, RuntimeError) as error:
        return str(error).splitlines()[0][:80]
    raise AssertionError("accepted")


def cases(quick: bool) -> list[tuple[str, Callable[[], str]]]:
    found: list[tuple[str, Callable[[], str]]] = []
    for dtype in (torch.float32,) if quick else (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        variants: dict[str, dict[str, Any]] = {
            "": {},
            ", other edges": {"n_edges": 1300},
            ", unsorted edges": {"ordered": False},
            ", no edges": {"n_edges": 0},
            ", one atom": {"n_owned": 1, "n_nodes": 1, "n_edges": 1},
        }
        if not quick:
            variants[", 300k edges"] = {"n_owned": 9000, "n_nodes": 11000, "n_edges": 300_000}
        for label, other in variants.items():
            found.append((f"convolution {name}{label}", lambda d=dtype, o=other: convolution_agrees(d, True, **o)))
        if not quick:
            found.append((f"convolution {name}, stored weights", lambda d=dtype: convolution_agrees(d, False)))
        for l_max in (2,) if quick else (0, 2, 3, 4):
            found.append((f"harmonics {name} to {l_max}", lambda d=dtype, n=l_max: harmonics_agree(d, n)))
        found.append((f"symmetric contraction {name}", lambda d=dtype: contraction_agrees(d)))
        found.append((f"gate {name}", lambda d=dtype: gate_agrees(d)))
        for operator, call in without_kernels().items():
            found.append((f"{operator} {name}", lambda d=dtype, c=call: falls_back(d, *c)))
    return [
        *found,
        ("autograd through the convolution", autograd_agrees),
        ("two runs of the convolution", runs_agree),
        ("convolution on a new thread", new_thread_agrees),
        ("convolution on another stream", other_stream_agrees),
        ("an edge out of range", wrong_index_is_refused),
    ]


def main() -> None:
    failed = []
    for name, body in cases("--quick" in sys.argv):
        start = time.perf_counter()
        try:
            text = body()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # the others are still worth knowing
            failed.append(name)
            text = f"FAILED {type(error).__name__}: {str(error)[:400]}"
        print(f"{name:44s} {1e3 * (time.perf_counter() - start):9.1f} ms  {text}", flush=True)
    print("RESULT", "all agree" if not failed else f"{len(failed)} FAILED: {'; '.join(failed)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
