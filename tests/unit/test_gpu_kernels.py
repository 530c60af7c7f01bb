"""The GPU kernels, without a GPU: their very sources, run by an emulator (emulated_kernels.h), against the reference
operators and the CPU's kernels; and compiled by NVIDIA's run-time compiler, as a GPU would have them compiled.
step_tests.cpp runs those for the edges of a step, pair_search_tests.cpp those for the search for neighbours.

What this shows: formulas, indices, sums over lanes, and that each source is accepted for every generation of GPUs.
What it cannot show: speed, and anything that only a GPU does.
"""

from __future__ import annotations

import ctypes
import os
import re
import runpy
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from radial_tables import FORMS, random_table

import mlip_deploy
from mlip_deploy.environment.gpus import run_time_compiler
from mlip_deploy.exporters.layers.equivariant import ACTIVATIONS
from mlip_deploy.exporters.layers.radial_table import NO_TABLE
from mlip_deploy.operators import load_operators

load_operators()
torch.ops.load_library(str(Path(mlip_deploy.__file__).parent / "lib" / "libmlip_gpu_emulator.so"))
EMULATED = torch.ops.mlip_gpu_emulator

# Sums of a few hundred products of numbers of order one, in another order than the reference's.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}
# One factor each and a sum of five; e^x is rounded otherwise than in torch's activations.
GATE_TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-5}
# An architecture of each generation that torch 2.13 has code for.
SPLINES = (FORMS[0], 0)
ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]


class Convolution:
    """Paths between random blocks, each with its own place in an output, and tensors for them.

    `table` is its form, with how many there are for the edges to choose from, 0 for one; None for weights.
    """

    def __init__(
        self,
        blocks: list[tuple[int, int]],
        l_max: int,
        dtype: torch.dtype,
        table: tuple[str, int] | None,
        n_owned: int = 6,
        n_nodes: int = 8,
        n_edges: int = 45,
        ordered: bool = True,
        seed: int = 0,
    ) -> None:
        random = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

        self.paths: list[int] = []
        outputs: dict[int, tuple[int, int]] = {}
        n_features = n_weights = n_coefficients = 0
        for l1, channels in blocks:
            for l2 in range(l_max + 1):
                for l3 in range(abs(l1 - l2), min(l1 + l2, 2) + 1):
                    number, offset = outputs.setdefault(l3, (len(outputs), 0))
                    self.paths += [l1, l2, l3, channels, n_features, l2 * l2, n_weights, number, offset]
                    outputs[l3] = (number, offset + channels)
                    n_weights += channels
                    n_coefficients += (2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1)
            n_features += (2 * l1 + 1) * channels
        n_features += 3  # which no path reads
        self.features = normal(n_nodes, n_features)
        self.harmonics = normal(n_edges, (l_max + 1) ** 2)
        self.coefficients = normal(n_coefficients) * (torch.rand(n_coefficients, generator=random) < 0.4)
        self.n_owned = n_owned
        centres = torch.randint(0, max(n_owned - 1, 1), (n_edges,), generator=random)  # the last has no edge
        centres = centres.sort()[0] if ordered else centres
        self.edges = torch.stack([centres, torch.randint(0, n_nodes, (n_edges,), generator=random)])
        self.table_of_edge: torch.Tensor | None = None
        if table:
            form, n_tables = table
            self.table, self.step, self.kink = random_table(form, 9, n_weights, 0.25, random, n_tables)
            self.table = self.table.to(dtype)
            if n_tables:
                self.table_of_edge = torch.randint(0, n_tables, (n_edges,), generator=random)
            # Beyond the last interval too.
            self.radial = (torch.rand(n_edges, generator=random, dtype=torch.float64) * 2.4).to(dtype)
        else:
            self.table, self.step, self.kink = NO_TABLE
            self.table = self.table.to(dtype)
            self.radial = normal(n_edges, n_weights)

    def rest(self) -> tuple[object, ...]:
        return (
            self.edges,
            self.n_owned,
            self.paths,
            self.coefficients,
            self.table,
            self.step,
            self.table_of_edge,
            self.kink,
        )

    def check(self) -> None:
        inputs = [self.features, self.harmonics, self.radial]
        tracked = [tensor.clone().requires_grad_() for tensor in inputs]
        wanted = torch.ops.mlip.edge_tensor_product_reference(*tracked, *self.rest())
        found = EMULATED.edge_tensor_product(*inputs, *self.rest())
        scale = 1 + max((float(tensor.detach().abs().max()) for tensor in wanted if tensor.numel()), default=0.0)
        tolerance = scale * TOLERANCE[self.features.dtype]
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=0, atol=tolerance)
        upstream = [torch.cos(torch.arange(t.numel(), dtype=t.dtype)).reshape(t.shape) for t in wanted]
        total = sum((a * b).sum() for a, b in zip(wanted, upstream, strict=True))
        slopes = torch.autograd.grad(total, tracked, materialize_grads=True)
        edges, _, *rest, tables, kink = self.rest()
        gradients = EMULATED.edge_tensor_product_backward(upstream, *inputs, edges, *rest, True, tables, kink)
        scale = 1 + max(float(tensor.abs().max()) for tensor in slopes if tensor.numel())
        for a, b in zip(gradients, slopes, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=scale * TOLERANCE[self.features.dtype])
        no_features, *others = EMULATED.edge_tensor_product_backward(
            upstream, *inputs, edges, *rest, False, tables, kink
        )
        assert no_features.numel() == 0
        for a, b in zip(others, gradients[1:], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("table", [*((form, n) for form in FORMS for n in (0, 3)), None], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_convolution(dtype: torch.dtype, table: tuple[str, int] | None) -> None:
    Convolution([(0, 40), (1, 32), (2, 5)], 2, dtype, table).check()


def test_convolution_with_components_of_every_l() -> None:
    """MACE's and NequIP's: l up to 3, and two blocks of the same l (its parities)."""
    Convolution([(0, 33), (1, 64), (1, 3), (3, 2)], 3, torch.float64, SPLINES).check()


@pytest.mark.parametrize(
    ("n_owned", "n_nodes", "n_edges", "ordered"),
    [(6, 8, 45, False), (1, 1, 1, True), (3, 3, 0, True), (1, 9, 70, True)],
    ids=["unsorted", "one edge", "no edges", "many of one centre"],
)
def test_convolution_on_graphs(n_owned: int, n_nodes: int, n_edges: int, ordered: bool) -> None:
    Convolution([(0, 34), (1, 2)], 1, torch.float64, SPLINES, n_owned, n_nodes, n_edges, ordered).check()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_distances_outside_of_the_table(dtype: torch.dtype, form: str) -> None:
    """Taken with the polynomial of the nearest interval."""
    convolution = Convolution([(0, 34), (1, 2)], 1, dtype, (form, 0))
    convolution.radial[:4] = torch.tensor([-0.1, -0.3, 0.0, 2.6])
    convolution.check()


def test_a_distance_that_is_not_a_number_gives_none() -> None:
    convolution = Convolution([(0, 34)], 0, torch.float64, SPLINES)
    convolution.radial[3] = torch.nan
    (found,) = EMULATED.edge_tensor_product(
        convolution.features, convolution.harmonics, convolution.radial, *convolution.rest()
    )
    centre = int(convolution.edges[0, 3])
    assert found[centre].isnan().any()
    assert found[torch.arange(len(found)) != centre].isfinite().all()


def test_an_edge_out_of_range_is_refused() -> None:
    """The kernels trust every index."""
    convolution = Convolution([(0, 2)], 0, torch.float64, SPLINES)
    convolution.edges[1, 7] = 8
    with pytest.raises(IndexError, match=r"neighbour outside \[0, 8\)"):
        EMULATED.edge_tensor_product(
            convolution.features, convolution.harmonics, convolution.radial, *convolution.rest()
        )


def test_other_edges_in_the_same_memory_are_seen() -> None:
    """Their order is remembered from call to call."""
    convolution = Convolution([(0, 2), (1, 2)], 1, torch.float64, SPLINES)
    convolution.check()
    convolution.edges.copy_(convolution.edges.flip(1))
    convolution.check()


def test_other_coefficients_of_the_same_shape_are_seen() -> None:
    """The kernels have them as constants, and are remembered by the memory of the coefficients."""
    for seed in range(4):
        Convolution([(0, 2), (1, 2)], 1, torch.float64, SPLINES, seed=seed).check()


def vectors(dtype: torch.dtype) -> torch.Tensor:
    rows = torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[7] = torch.tensor([0.0, 1.5, 0.0])  # the polar axis
    rows[8] = 0.0  # no direction
    return rows.to(dtype)


@pytest.mark.parametrize("l_max", [0, 2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_edge_harmonics(dtype: torch.dtype, l_max: int) -> None:
    """The CPU's kernel has the same recurrences and is checked against e3nn in test_edge_harmonics.py."""
    rows = vectors(dtype)
    wanted = torch.ops.mlip.edge_harmonics(rows, l_max)
    found = EMULATED.edge_harmonics(rows, l_max)
    upstream = [torch.cos(torch.arange(t.numel(), dtype=dtype)).reshape(t.shape) for t in wanted]
    wanted = (*wanted, torch.ops.mlip.edge_harmonics_backward(*upstream, rows, l_max))
    found = (*found, EMULATED.edge_harmonics_backward(*upstream, rows, l_max))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-12)


def gate_arguments(
    n_atoms: int, dtype: torch.dtype, activations: list[int], channels: int, seed: int = 0
) -> tuple[list[torch.Tensor], list[int], list[float]]:
    """Inputs, pieces and factors: scalars and gates of each activation, for values of l = 1 and 2, in turn.

    All channels of the first input are gates; some gate nothing, and one range gates values of both kinds.
    """
    random = torch.Generator().manual_seed(seed)
    sizes = [(1, channels * (len(activations) + 1)), (3, channels * len(activations) + 2), (5, channels)]
    inputs = [3 * torch.randn(n_atoms, *size, generator=random, dtype=torch.float64).to(dtype) for size in sizes]
    pieces, factors = [], []
    for k, activation in enumerate(activations):
        place = channels * (len(activations) - 1 - k)
        pieces += [activation, channels, 0, channels * k, -1, 0, 0, place]
        factors.append(1.0 + 0.3 * k)
    for k, activation in enumerate(activations):
        pieces += [activation, channels, 0, channels * k, 1, 2 + channels * k, 1, channels * k]
        factors.append(1.7 - 0.2 * k)
    pieces += [activations[0], channels, 0, 0, 2, 0, 2, 0]
    return inputs, pieces, [*factors, -0.6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=15, deadline=None)
@given(
    n_atoms=st.integers(0, 5),
    channels=st.sampled_from([1, 7, 32, 50]),
    activations=st.sampled_from([[0, 1, 2, 3, 4, 5], [1], [2, 4]]),
    seed=st.integers(0, 1000),
)
def test_gate(dtype, n_atoms, channels, activations, seed) -> None:
    inputs, *rest = gate_arguments(n_atoms, dtype, activations, channels, seed)
    tracked = [one.clone().requires_grad_() for one in inputs]
    wanted = torch.ops.mlip.gate_reference(tracked, *rest)
    upstream = [torch.cos(torch.arange(t.numel(), dtype=dtype)).reshape(t.shape) for t in wanted]
    total = sum((a * b).sum() for a, b in zip(wanted, upstream, strict=True))
    slopes = torch.autograd.grad(total, tracked)
    found = [*EMULATED.gate(inputs, *rest), *EMULATED.gate_backward(upstream, inputs, *rest)]
    for a, b in zip(found, [*(one.detach() for one in wanted), *slopes], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=GATE_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_activations_of_a_gate_anywhere(number: int, dtype: torch.dtype) -> None:
    """Also where e^x is no finite number, with the slope; not-a-number stays one. The CPU's bound of test_gate.py."""
    places = torch.tensor([0.0, 1e-4, 0.01, 0.3, 1.0, 5.0, 20.0, 90.0, 720.0, 1e4], dtype=dtype)
    x = torch.cat([places, -places]).reshape(1, 1, -1)
    pieces = [number, x.numel(), 0, 0, -1, 0, 0, 0]
    (found,) = EMULATED.gate([x], pieces, [1.0])
    (slope,) = EMULATED.gate_backward([torch.ones_like(x)], [x], pieces, [1.0])
    exact = x.double().requires_grad_()
    expected = ACTIVATIONS[number](exact)
    bound = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected.detach(), rtol=bound, atol=bound)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(expected.sum(), exact)[0], rtol=bound, atol=bound)
    nowhere = torch.full([1, 1, 33], torch.nan, dtype=dtype)
    assert EMULATED.gate([nowhere], [number, 33, 0, 0, -1, 0, 0, 0], [1.0])[0].isnan().all()


def test_other_factors_of_a_gate_are_seen() -> None:
    """They are constants of the code, which is remembered."""
    x = torch.ones(2, 1, 4)
    for factor in (1.0, 2.0, 1.0):
        (found,) = EMULATED.gate([x], [0, 4, 0, 0, -1, 0, 0, 0], [factor])
        assert torch.equal(found, factor * x)


def polynomial(
    n_atoms: int, channels: int, degree: int, n_outputs: int, dtype: torch.dtype, seed: int
) -> tuple[torch.Tensor, ...]:
    """Features, and a polynomial for two elements in which an output has no term."""
    random = torch.Generator().manual_seed(seed)
    n_components, block = 4, 16
    factors = torch.randint(0, n_components + 1, (9, degree), generator=random)
    wanted = torch.rand(n_outputs, len(factors), generator=random) < 0.6
    wanted[n_outputs // 2] &= n_outputs == 1
    terms = torch.nonzero(wanted)
    n_blocks = -(-channels // block)
    coefficients = torch.randn(2, n_blocks, len(terms), block, generator=random, dtype=torch.float64).to(dtype)
    features = torch.randn(n_atoms, n_components, channels, generator=random, dtype=torch.float64).to(dtype)
    return features, torch.arange(n_atoms) % 2, factors, terms, n_outputs, coefficients


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=15, deadline=None)
@given(
    n_atoms=st.integers(0, 5),
    channels=st.sampled_from([1, 16, 21, 40]),
    degree=st.integers(1, 4),
    n_outputs=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_symmetric_contraction(dtype, n_atoms, channels, degree, n_outputs, seed) -> None:
    features, *rest = polynomial(n_atoms, channels, degree, n_outputs, dtype, seed)
    tracked = features.clone().requires_grad_()
    wanted = torch.ops.mlip.symmetric_contraction_reference(tracked, *rest)
    found = EMULATED.symmetric_contraction(features, *rest)
    upstream = torch.cos(torch.arange(wanted.numel(), dtype=dtype)).reshape(wanted.shape)
    (slope,) = torch.autograd.grad((wanted * upstream).sum(), tracked)
    types, factors, terms, _, coefficients = rest
    gradient = EMULATED.symmetric_contraction_backward(upstream, features, types, factors, terms, coefficients)
    for a, b in ((found, wanted.detach()), (gradient, slope)):
        scale = 1 + (float(b.abs().max()) if b.numel() else 0)
        torch.testing.assert_close(a, b, rtol=0, atol=scale * TOLERANCE[dtype])


def test_an_element_that_does_not_exist_is_no_number() -> None:
    features, types, *rest = polynomial(2, 3, 2, 1, torch.float64, 0)
    found = EMULATED.symmetric_contraction(features, types + 1, *rest)
    assert found[0].isfinite().all()
    assert found[1].isnan().all()


def machine_code(source: str, architecture: str, cached: bool = False) -> bytes:
    ctypes.CDLL(str(run_time_compiler()))  # found again by its name
    compiled = EMULATED.cached_machine_code if cached else EMULATED.machine_code
    return bytes(compiled(source, architecture).tolist())


def sources(dtype: torch.dtype) -> list[str]:
    """One of each kind."""
    found = []
    for table in (*((form, 0) for form in (FORMS[0], FORMS[2])), None):
        convolution = Convolution([(0, 40), (1, 32), (2, 5)], 2, dtype, table)
        EMULATED.edge_tensor_product(
            convolution.features, convolution.harmonics, convolution.radial, *convolution.rest()
        )
        found.append(EMULATED.last_source())
    EMULATED.edge_harmonics(vectors(dtype), 3)
    found.append(EMULATED.last_source())
    EMULATED.symmetric_contraction(*polynomial(2, 16, 3, 2, dtype, 0))
    found.append(EMULATED.last_source())
    EMULATED.gate(*gate_arguments(2, dtype, [*range(len(ACTIVATIONS))], 17))
    return [
        *found,
        EMULATED.last_source(),
        EMULATED.edges_source(dtype == torch.float32),
        EMULATED.pair_search_source(),
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvidias_compiler_takes_every_source(architecture: str) -> None:
    texts = {*sources(torch.float32), *sources(torch.float64)}
    assert len(texts) == 15
    for text in texts:
        assert len(machine_code(text, architecture)) > 1000


# What OpenMM's CUDA platform puts before a source of the language that its platforms share.
OPENMM_CUDA = """
#define KERNEL extern "C" __global__
#define GLOBAL
#define RESTRICT __restrict__
#define GLOBAL_ID (blockIdx.x*blockDim.x+threadIdx.x)
#define GLOBAL_SIZE (blockDim.x*gridDim.x)
typedef long long mm_long;
"""


@pytest.mark.parametrize("precision", ["float4", "double4", "mixed"])
def test_nvidias_compiler_takes_the_kernels_for_openmm(precision: str) -> None:
    source = (Path(__file__).parents[2] / "csrc/openmm/platform_arrays.cpp").read_text()
    found = re.search(r'kernels = R"\((.*?)\)";', source, re.DOTALL)
    assert found
    assert found[1].count("KERNEL") == 2
    defines = {"NUM_PARTICLES": 5, "PADDED_NUM_PARTICLES": 32, "LENGTH": 10.0, "FORCE": 964.85}
    if precision == "mixed":
        defines["MIXED_PRECISION"] = 1
    lines = [f"#define {name} {value}" for name, value in defines.items()]
    real4 = "double4" if precision == "double4" else "float4"
    text = "\n".join([OPENMM_CUDA, *lines, f"typedef {real4} real4;", found[1]])
    assert len(machine_code(text, "sm_90")) > 1000


@pytest.mark.parametrize("damage", ["empty", "cut", "one bit"])
def test_a_damaged_cache_is_compiled_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = 'extern "C" __global__ void f(int* x) { *x = 1; }'
    code = machine_code(text, "sm_80")
    assert machine_code(text, "sm_80", cached=True) == code
    (kept,) = tmp_path.rglob("*.cubin")
    whole = kept.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    kept.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "one bit": bytes(changed)}[damage])
    assert machine_code(text, "sm_80", cached=True) == code
    assert kept.read_bytes() == whole


def test_the_cache_is_written_beside_a_process_of_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers on several nodes share a home, and their processes have the same small numbers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = 'extern "C" __global__ void f(int* x) { *x = 2; }'
    machine_code(text, "sm_80", cached=True)
    (kept,) = tmp_path.rglob("*.cubin")
    kept.unlink()
    kept.with_name(f"{kept.name}.{os.getpid()}").mkdir()  # the other's
    machine_code(text, "sm_80", cached=True)
    assert kept.is_file()


def test_gpus_that_the_compiler_does_not_know_yet() -> None:
    """Of the same generation as one that it knows: machine code for that. Of a new one: assembly for the driver."""
    text = 'extern "C" __global__ void f(int* x) { *x = 1; }'
    assert machine_code(text, "sm_129").startswith(b"\x7fELF")
    assert b".version" in machine_code(text, "sm_999")[:2000]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_float32_kernels_compute_in_float32(dtype: torch.dtype) -> None:
    """GPUs for workstations do float64 at a 64th of the rate. The harmonics, once per edge, are meant to be in it."""
    *convolutions, _, _, gate, _, _ = sources(dtype)
    for text in (*convolutions, gate):
        wide = re.findall(r"\.f64\b", machine_code(text, "sm_999").decode())
        assert bool(wide) == (dtype == torch.float64)


def compiler() -> dict[str, Any]:
    """Names of the tool that docs/gpu.md quotes."""
    return runpy.run_path(str(Path(__file__).parents[2] / "tools/gpu/registers.py"))


def test_registers_of_the_kernels_are_printed() -> None:
    """None of the float32 kernels needs more than a GPU has."""
    tool = compiler()
    text, *_, search = sources(torch.float32)
    blocks = range(3)
    for source, kernels in {
        text: {
            "convolution_to_edges",
            *(f"convolution_{block}" for block in blocks),
            *(f"convolution_to_features_{block}" for block in blocks),
        },
        search: {"put_into_bins", "count_pairs", "write_pairs"},
    }.items():
        found = tool["registers"](tool["Compiler"]().remarks(source, "sm_90"))
        assert {*found} == kernels
        assert all(16 <= used <= 255 and spilled == 0 for used, spilled in found.values())


def sections(code: bytes) -> dict[str, bytes]:
    """Of an ELF file of 64 bits."""
    (table,) = struct.unpack_from("<Q", code, 0x28)
    size, n, names = struct.unpack_from("<HHH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", code, table + k * size) for k in range(n)]
    text = headers[names][4]
    return {
        code[text + name : code.index(b"\0", text + name)].decode(): code[start : start + length]
        for name, _, _, _, start, length in headers
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_are_counted_and_written_by_the_same_distances(architecture: str) -> None:
    """No product and sum is left that the compiler could contract in one kernel and not in the other: where it may not,
    its code is the same. The bin of an atom is found once."""
    compiled, source = compiler()["Compiler"]().compiled, EMULATED.pair_search_source()
    free, held = (sections(compiled(source, architecture, *option)[1]) for option in ((), ("--fmad=false",)))
    same = {name for name in free if name.startswith(".text.") and free[name] == held[name]}
    assert same == {".text.count_pairs", ".text.write_pairs"}


def test_nvidias_compiler_is_quoted_when_it_refuses() -> None:
    with pytest.raises(RuntimeError, match=r"refuses them for sm_80(.|\n)*expected"):
        machine_code("int x = ;", "sm_80")
