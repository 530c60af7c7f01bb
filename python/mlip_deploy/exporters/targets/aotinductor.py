"""The back end aotinductor: energies and edge gradients in one graph, compiled to machine code by torch's AOTInductor.

The forward and the backward pass are traced together into one graph of torch's and mlip's operators, in which all
counts of atoms and edges are symbols; AOTInductor writes C++ for it, and the result runs without Python. The
operators of mlip are called as they are (csrc/operators); here they only get what a trace needs, their shapes.
csrc/model/aotinductor_backend.cpp runs the file.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pooch
import torch
from torch import Tensor, nn

from mlip_deploy.artifact.contract import CompiledFor, Contract
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.format import versions_of
from mlip_deploy.artifact.reader import records
from mlip_deploy.artifact.sealed_archive import write_zip
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.interface import TORCH_DTYPE
from mlip_deploy.exporters.targets.slice_gradients import join_slice_gradients
from mlip_deploy.files import replacing
from mlip_deploy.operators import load_operators
from mlip_deploy.progress import Progress

N_NODES, N_OWNED, N_EDGES = 67, 61, 409
"""Sizes of the traced example: ghosts among the nodes, and primes, which are no width of features."""
SECONDS_BETWEEN_MESSAGES = 10.0


def contract_of(contract: Contract, device: str) -> Contract:
    """The contract of the model compiled for "cpu" or "cuda".

    Raises:
        MLIPError: for a model, a processor or a torch that this back end is not for.
    """
    if contract.extras:
        raise MLIPError(
            f"{contract.model.name} has outputs beside energy and forces ({', '.join(contract.extras)}), which "
            "compiled files do not have. Leave out --backend aotinductor"
        )
    if contract.positions:
        raise MLIPError(
            f"{contract.model.name} takes positions and cell beside its edges, which compiled files do not have. Leave "
            "out --backend aotinductor"
        )
    compiled = CompiledFor(torch=_minor_release(), device=device, processor=_processor() if device == "cpu" else _gpu())
    fields = dict(contract) | {"schema": contract.schema_version, "backend": "aotinductor", "compiled_for": compiled}
    fields["differentiable_energies"] = False  # the compiled graph holds the gradient of their sum
    fields["features"] = None
    del fields["schema_version"]
    return Contract(**fields)


def compile_model(model: nn.Module, contract: Contract, progress: Progress) -> tuple[list[Any], set[str]]:
    """
    Args:
        model: the model interface (`EdgeGradientModel`) in the contract's type and on the device to compile for, no
            parameter of which wants gradients.
        contract: from `contract_of`.

    Returns:
        the files of a package, and mlip's operators that they call. The files are kept in the user's cache, so that
        compiling the same graph again is free.

    Raises:
        MLIPError: for a graph that a trace does not catch for all sizes.
    """
    assert contract.compiled_for is not None
    with _elapsed(progress, "tracing the model"):
        graph, inputs = _trace(model, contract, contract.compiled_for.device)
    operators = _operators(graph)
    options = {
        "aot_inductor.package": True,
        # Otherwise the number of threads of this process becomes a constant of the code.
        "cpp.dynamic_threads": True,
        # torch 2.13 may hand a buffer on to an in-place kernel and read it afterwards: a crash (toy_models.HaloEnergy).
        "inplace_buffers": False,
        # Otherwise the code is for this very processor.
        "cpp.march": contract.compiled_for.processor if contract.compiled_for.device == "cpu" else "x86-64",
    }
    folder = (
        Path(pooch.os_cache("mlip-deploy")) / "aotinductor" / _digest(graph, inputs, options, versions_of(operators))
    )
    if not folder.is_dir():
        with _elapsed(progress, f"compiling {len(graph.graph.nodes)} operators for {contract.compiled_for.describe()}"):
            files = _compile(graph, inputs, options)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            complete = Path(temporary) / "complete"
            complete.mkdir()
            for file in files:
                shutil.copy(file, complete)
            with suppress(OSError):  # another process was as fast
                complete.rename(folder)
    return sorted(map(str, folder.iterdir())), operators


def save(files: list[Any], output: Path, contract: Contract, fixtures: Fixtures, model: nn.Module) -> None:
    """Write the package, once it has computed what `model` computes. Raises MLIPError if it does not."""
    from torch.export.pt2_archive._package import package_pt2

    buffer = io.BytesIO()
    package_pt2(buffer, aoti_files={"model": files}, extra_files=records(contract, fixtures))
    with replacing(output) as file:
        write_zip(file, buffer)
        file.flush()
        _compare(file.name, model, contract)


AGREEMENT = {"float32": 1e-3, "float64": 1e-9}
"""Of compiled and eager results, relative to the largest: roundings are far smaller, miscompiled code is far off."""


def _compare(package: str, model: nn.Module, contract: Contract) -> None:
    """On a random graph without ghosts: torch's compiler makes mistakes, and its crashes and wrong numbers are ours."""
    assert contract.compiled_for is not None
    inputs = [x.to(contract.compiled_for.device) for x in random_graph(contract, N_OWNED, N_EDGES)]
    expected = model(inputs[0], N_OWNED, *inputs[2:])
    found = torch._inductor.aoti_load_package(package).loader.run(inputs)
    for a, b in zip(found, expected, strict=True):
        if not float((a - b).abs().max()) <= AGREEMENT[contract.dtype] * float(b.abs().max()):
            raise MLIPError(
                f"{contract.model.name}: torch {torch.__version__} compiles this model to code that computes other "
                "numbers. Export it without --backend aotinductor"
            )


def random_graph(contract: Contract, n_atoms: int, n_edges: int) -> list[Tensor]:
    """Inputs of a compiled model (`_CountsAsShapes`) for a graph without ghosts, the same in each call."""
    random = torch.Generator().manual_seed(1)
    types = torch.randint(len(contract.elements), [n_atoms], generator=random)
    centres = torch.randint(n_atoms, [n_edges], generator=random).sort().values
    edges = torch.stack([centres, torch.randint(n_atoms, [n_edges], generator=random)])
    directions = nn.functional.normalize(torch.randn(n_edges, 3, generator=random, dtype=torch.float64), dim=1)
    lengths = contract.cutoff * (0.5 + 0.45 * torch.rand(n_edges, 1, generator=random, dtype=torch.float64))
    vectors = (lengths * directions).to(TORCH_DTYPE[contract.dtype])
    return [types, types, edges, vectors, *_example_settings(contract)]


# ---- tracing ------------------------------------------------------------------------------------------------------


class _CountsAsShapes(nn.Module):
    """The model interface with n_owned as the length of a tensor, since a compiled graph takes tensors alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(
        self, node_types: Tensor, owned_types: Tensor, edge_index: Tensor, edge_vectors: Tensor, *settings: Tensor
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = self.model(
            node_types, owned_types.shape[0], edge_index, edge_vectors, *settings
        )
        return result


def _example_settings(contract: Contract) -> list[Tensor]:
    """The argument of a model with settings, with values that it accepts; nothing for any other."""
    values = [setting.number(setting.examples()[-1]) for setting in contract.settings]
    return [torch.tensor(values, dtype=TORCH_DTYPE[contract.dtype])] if values else []


def _trace(model: nn.Module, contract: Contract, device: str) -> tuple[torch.fx.GraphModule, list[Tensor]]:
    """The graph, and example inputs on the device of the model, whose counts are symbols."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
        free_unbacked_symbols,
    )

    _register_shapes()
    count, fixed = DimDynamic.DYNAMIC, DimDynamic.STATIC
    shapes = ShapeEnv()
    fake = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    examples = [
        (torch.zeros(N_NODES, dtype=torch.int64), [count]),
        (torch.zeros(N_OWNED, dtype=torch.int64), [count]),
        (torch.zeros(2, N_EDGES, dtype=torch.int64), [fixed, count]),
        (torch.zeros(N_EDGES, 3, dtype=TORCH_DTYPE[contract.dtype]), [count, fixed]),
        *((values, [fixed]) for values in _example_settings(contract)),
    ]
    inputs: list[Tensor] = [
        fake.from_tensor(tensor.to(device), symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))
        for tensor, sizes in examples
    ]
    name = contract.model.name
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise MLIPError(
            f"{name} has layers that its framework stores as TorchScript, in which a trace fixes the numbers of atoms "
            "and edges. Leave out --no-fuse if it is there, or --backend aotinductor"
        )
    try:
        with fake:
            graph = make_fx(_CountsAsShapes(model), _allow_non_fake_inputs=True)(*inputs)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise MLIPError(
            f"{name} cannot be traced: {type(error).__name__}: {reason}. Export it without --backend aotinductor"
        ) from error
    if any(
        free_unbacked_symbols(value) for node in graph.graph.nodes if isinstance(value := node.meta.get("val"), Tensor)
    ):
        raise MLIPError(
            f"{name} selects edges or angles by their values. A compiled graph would take the number that the trace "
            "saw for theirs. Export it without --backend aotinductor"
        )
    # What is left of a comparison of counts with one another (n_owned <= n_nodes) holds for all graphs.
    pins = [guard for guard in shapes.guards if len(guard.expr.free_symbols) == 1]
    if pins:
        line = pins[0].sloc.maybe_user_loc or pins[0].sloc.framework_loc
        raise MLIPError(
            f"{name}: the code depends on the number of atoms or edges ({pins[0].expr} at {line}), so that a trace "
            "would be wrong for others. Use x.shape[0] in place of len(x) or int(x.shape[0]), and no 'if' on a count; "
            "or export without --backend aotinductor"
        )
    join_slice_gradients(graph)
    return graph, inputs


def _operators(graph: torch.fx.GraphModule) -> set[str]:
    """mlip's operators that a graph calls. The version of an operator is that of its backward pass too."""
    targets = [node.target for node in graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    called = {target.name() for target in targets}  # type: ignore[no-untyped-call]
    return {name.removesuffix("_backward") for name in called if name.startswith("mlip::")}


# ---- shapes of what mlip's operators return -----------------------------------------------------------------------


def _gather(x: Tensor, n_nodes: int) -> Tensor:
    return x.new_empty([n_nodes, *x.shape[1:]])


def _gather_backward(gradient: Tensor, n_owned: int) -> Tensor:
    return gradient.new_empty([n_owned, *gradient.shape[1:]])


def _sum(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1:])


def _sum_backward(gradient: Tensor, n_owned: int) -> Tensor:
    return gradient.new_empty([n_owned, *gradient.shape])


def _harmonics(vectors: Tensor, l_max: int) -> tuple[Tensor, Tensor]:
    n_edges = vectors.shape[0]
    return vectors.new_empty([n_edges]), vectors.new_empty([n_edges, (l_max + 1) ** 2])


def _harmonics_backward(of_distances: Tensor, of_harmonics: Tensor, vectors: Tensor, l_max: int) -> Tensor:
    return vectors.new_empty(vectors.shape)


def _product(
    features: Tensor, harmonics: Tensor, radial: Tensor, edge_index: Tensor, n_owned: int, paths: list[int], *_: Any
) -> list[Tensor]:
    sizes: dict[int, tuple[int, int]] = {}
    for p in range(0, len(paths), 9):
        l3, channels, output, offset = paths[p + 2], paths[p + 3], paths[p + 7], paths[p + 8]
        sizes[output] = (2 * l3 + 1, max(sizes.get(output, (0, 0))[1], offset + channels))
    return [features.new_empty([n_owned, *sizes[output]]) for output in sorted(sizes)]


def _product_backward(
    gradients: list[Tensor],
    features: Tensor,
    harmonics: Tensor,
    radial: Tensor,
    edge_index: Tensor,
    paths: list[int],
    coefficients: Tensor,
    table: Tensor,
    step: float,
    features_wanted: bool,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        features.new_empty(features.shape if features_wanted else [0]),
        harmonics.new_empty(harmonics.shape),
        radial.new_empty(radial.shape),
    )


def _environment_product(
    features: Tensor,
    weights: Tensor,
    harmonics: Tensor,
    edge_index: Tensor,
    n_owned: int,
    terms: list[int],
    *_: Any,
) -> tuple[Tensor, Tensor]:
    n_edges, channels = features.shape[0], features.shape[2]
    product = features.new_empty([n_edges, 1 + max(terms[2::3]), channels])
    return product, features.new_empty([n_edges, channels])


def _environment_product_backward(
    of_product: Tensor, of_scalars: Tensor, features: Tensor, weights: Tensor, harmonics: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (features, weights, harmonics))  # type: ignore[return-value]


def _element_linear(x: Tensor, types: Tensor, matrices: Tensor) -> Tensor:
    return x.new_empty([x.shape[0], x.shape[1], matrices.shape[2]])


def _linear(
    inputs: list[Tensor],
    types: Tensor,
    matrices: Tensor,
    element_matrices: Tensor,
    bias: Tensor,
    blocks: list[int],
    products: list[int],
    as_rows: bool,
) -> list[Tensor]:
    n_atoms = inputs[0].shape[0]
    sizes = list(zip(blocks[::2], blocks[1::2], strict=True))
    if as_rows:
        return [inputs[0].new_empty([n_atoms, sum(a * b for a, b in sizes)])]
    return [inputs[0].new_empty([n_atoms, *size]) for size in sizes]


def _linear_backward(gradients: list[Tensor], wanted: list[int], input_sizes: list[int], *_: Any) -> list[Tensor]:
    n_atoms = gradients[0].shape[0]
    return [gradients[0].new_empty([n_atoms, *input_sizes[2 * k : 2 * k + 2]]) for k in wanted]


def _gate(inputs: list[Tensor], pieces: list[int], factors: list[float]) -> list[Tensor]:
    sizes: dict[int, tuple[int, int]] = {}
    for p in range(0, len(pieces), 8):
        channels, value, output, first = pieces[p + 1], pieces[p + 4], pieces[p + 6], pieces[p + 7]
        components = 1 if value < 0 else inputs[value].shape[1]
        sizes[output] = (components, max(sizes.get(output, (0, 0))[1], first + channels))
    return [inputs[0].new_empty([inputs[0].shape[0], *sizes[output]]) for output in sorted(sizes)]


def _gate_backward(gradients: list[Tensor], inputs: list[Tensor], *_: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in inputs]


def _pairs(
    charges: Tensor, polarizabilities: Tensor, c6: Tensor, distances: Tensor, edge_index: Tensor, n_owned: int, *_: Any
) -> Tensor:
    return charges.new_empty([n_owned])


def _pairs_backward(gradient: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:4])


def _edge_perceptron(
    of_centres: Tensor,
    of_neighbours: Tensor,
    edges: Tensor,
    radial: Tensor,
    edge_index: Tensor,
    weights: list[Tensor],
    to_atoms: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    n_edges, n_channels = edges.shape
    kept = edges.new_empty([n_edges if keep else 0, 5 * n_channels])
    return edges.new_empty([of_centres.shape[0] if to_atoms else n_edges, n_channels]), kept


def _edge_perceptron_backward(gradient: Tensor, kept: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    inputs, atoms_wanted = arguments[:4], arguments[-1]
    return tuple(x.new_empty(x.shape if atoms_wanted or k >= 2 else [0]) for k, x in enumerate(inputs))


def _feed_forward(
    rows: Tensor, weights: list[Tensor], norm: str, epsilon: float, activation: str, add: bool, keep: bool
) -> tuple[Tensor, Tensor]:
    n_sums, two_layers = weights[1].shape[0], len(weights) == 4
    kept = rows.new_empty([rows.shape[0] if keep else 0, n_sums if two_layers else 0])
    return rows.new_empty([rows.shape[0], weights[-1].shape[0]]), kept


def _feed_forward_backward(gradient: Tensor, kept: Tensor, rows: Tensor, *_: Any) -> Tensor:
    return rows.new_empty(rows.shape)


def _adaptive_cutoffs(distances: Tensor, centres: Tensor, n_atoms: int, *_: Any) -> tuple[Tensor, Tensor]:
    return distances.new_empty([n_atoms]), distances.new_empty(distances.shape)


def _angle_sums(directions: Tensor, terms: Tensor, *_: Any) -> Tensor:
    return terms.new_empty(terms.shape)


def _angle_sums_backward(gradient: Tensor, directions: Tensor, terms: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return directions.new_empty(directions.shape), terms.new_empty(terms.shape)


def _gated_addition(table: Tensor, *_: Any) -> Tensor:
    return table.new_empty(table.shape)


def _gated_addition_backward(gradient: Tensor, places: Tensor, inputs: Tensor, *_: Any) -> Tensor:
    return inputs.new_empty(inputs.shape)


def _token_attention(projected: Tensor, *_: Any) -> Tensor:
    return projected.new_empty([projected.shape[0], projected.shape[1] // 3])


def _token_attention_backward(gradient: Tensor, projected: Tensor, log_weights: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return projected.new_empty(projected.shape), log_weights.new_empty(log_weights.shape)


def _neighbour_attention(
    queries: Tensor, keys: Tensor, values: Tensor, vectors: Tensor, *_: Any
) -> tuple[Tensor, Tensor]:
    n_owned = queries.shape[0]
    return queries.new_empty([n_owned, values.shape[1]]), queries.new_empty([n_owned, vectors.shape[1]])


def _neighbour_attention_backward(
    of_messages: Tensor, of_vector_messages: Tensor, *arguments: Any
) -> tuple[Tensor, ...]:
    inputs, nodes_wanted = arguments[:7], arguments[-1]
    return tuple(x.new_empty(x.shape if nodes_wanted or k >= 3 else [0]) for k, x in enumerate(inputs))


def _so2_convolution(
    nodes: Tensor,
    rotations: Tensor,
    envelope: Tensor,
    basis: Tensor,
    node_types: Tensor,
    edge_index: Tensor,
    n_owned: int,
    radial: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    epsilon: float,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    l_max = math.isqrt(nodes.shape[1]) - 1
    hidden = first[1].shape[0] // (2 * l_max + 1)
    kept = nodes.new_empty([rotations.shape[0] if keep else 0, (l_max + rotations.shape[1]) * hidden])
    return nodes.new_empty([n_owned, *nodes.shape[1:]]), kept


def _so2_convolution_backward(gradient: Tensor, kept: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:4])


def _contraction(
    features: Tensor, types: Tensor, factors: Tensor, terms: Tensor, n_outputs: int, coefficients: Tensor
) -> Tensor:
    return features.new_empty([features.shape[0], n_outputs, features.shape[2]])


def _contraction_backward(gradient: Tensor, features: Tensor, *_: Any) -> Tensor:
    return features.new_empty(features.shape)


def _symmetry_functions(
    edge_vectors: Tensor,
    node_types: Tensor,
    edge_index: Tensor,
    n_owned: int,
    n_elements: int,
    radial_shifts: list[float],
    angular_shifts: list[float],
    sections: list[float],
    constants: list[float],
) -> Tensor:
    n_pairs = n_elements * (n_elements + 1) // 2
    n_features = n_elements * len(radial_shifts) + n_pairs * len(angular_shifts) * len(sections)
    return edge_vectors.new_empty([n_owned, n_features])


def _symmetry_functions_backward(gradient: Tensor, edge_vectors: Tensor, *_: Any) -> Tensor:
    return edge_vectors.new_empty(edge_vectors.shape)


@functools.cache
def _register_shapes() -> None:
    load_operators()
    shapes: dict[str, Callable[..., Any]] = {
        "adaptive_cutoffs": _adaptive_cutoffs,
        "angle_sums": _angle_sums,
        "angle_sums_backward": _angle_sums_backward,
        "ghost_gather": _gather,
        "ghost_gather_backward": _gather_backward,
        "sum_over_atoms": _sum,
        "sum_over_atoms_backward": _sum_backward,
        "edge_harmonics": _harmonics,
        "edge_harmonics_backward": _harmonics_backward,
        "edge_perceptron": _edge_perceptron,
        "edge_perceptron_backward": _edge_perceptron_backward,
        "edge_tensor_product": _product,
        "edge_tensor_product_backward": _product_backward,
        "environment_product": _environment_product,
        "environment_product_backward": _environment_product_backward,
        "element_linear": _element_linear,
        "equivariant_linear": _linear,
        "equivariant_linear_backward": _linear_backward,
        "feed_forward": _feed_forward,
        "feed_forward_backward": _feed_forward_backward,
        "gate": _gate,
        "gate_backward": _gate_backward,
        "gated_addition": _gated_addition,
        "gated_addition_backward": _gated_addition_backward,
        "long_range_pairs": _pairs,
        "long_range_pairs_backward": _pairs_backward,
        "neighbour_attention": _neighbour_attention,
        "neighbour_attention_backward": _neighbour_attention_backward,
        "so2_convolution": _so2_convolution,
        "so2_convolution_backward": _so2_convolution_backward,
        "symmetric_contraction": _contraction,
        "symmetric_contraction_backward": _contraction_backward,
        "symmetry_functions": _symmetry_functions,
        "symmetry_functions_backward": _symmetry_functions_backward,
        "token_attention": _token_attention,
        "token_attention_backward": _token_attention_backward,
    }
    for name, function in shapes.items():
        torch.library.register_fake(f"mlip::{name}", function)


# ---- compiling ----------------------------------------------------------------------------------------------------


def _compile(graph: torch.fx.GraphModule, inputs: list[Tensor], options: dict[str, Any]) -> list[Any]:
    from torch._inductor import aot_compile
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        files: Any = aot_compile(graph, tuple(inputs), options=options)
    except InvalidCxxCompiler as error:
        raise MLIPError("AOTInductor needs a C++ compiler. Type: apt install g++") from error
    except CppCompileError as error:
        raise MLIPError(f"the C++ compiler failed: {str(error).strip().splitlines()[-1]}") from error
    return list(files)


def _digest(
    graph: torch.fx.GraphModule, inputs: list[Tensor], options: dict[str, Any], operators: dict[str, int]
) -> str:
    """Of all that the compiled code depends on: operators and their versions, constants, inputs, options, torch."""
    shapes = [(x.shape, x.dtype, x.device) for x in inputs]
    digest = hashlib.sha256(repr((torch.__version__, options, operators, shapes)).encode())
    digest.update(graph.code.encode())
    for node in graph.graph.find_nodes(op="get_attr"):
        value = getattr(graph, node.target).detach().cpu().contiguous()
        digest.update(repr((node.target, value.shape, value.dtype)).encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _minor_release() -> str:
    return ".".join(str(torch.__version__).split(".")[:2])


def _processor() -> Any:
    """The level of x86-64 whose vectors AOTInductor uses on this machine."""
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    if platform.machine() != "x86_64":
        raise MLIPError(
            f"--backend aotinductor compiles for x86-64 processors, this is {platform.machine()}. Leave it out"
        )
    if not hasattr(config.cpp, "march"):
        raise MLIPError(
            f"torch {torch.__version__} compiles for one model of processor alone. Type: pip install torch==2.13.0, "
            "then build mlip-deploy again"
        )
    vectors = str(pick_vec_isa())
    return "x86-64-v4" if "avx512" in vectors else "x86-64-v3" if "avx2" in vectors else "x86-64"


def _gpu() -> str:
    """The architecture of the GPU that is there, such as "sm_90": code for one runs on no older one."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


@contextmanager
def _elapsed(progress: Progress, message: str) -> Iterator[None]:
    """Repeats a message with the seconds that have passed, for what takes minutes."""
    start = time.monotonic()
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(SECONDS_BETWEEN_MESSAGES):
            progress(f"{message} ({time.monotonic() - start:.0f} s)")

    progress(message)
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
