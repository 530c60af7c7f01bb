"""`mlip::edge_tensor_product` against e3nn's own tensor product, gather and sum over neighbours.

The truth is e3nn: its TensorProduct on random irreps, in float64, on graphs with unsorted edges, ghosts, centres
without edges, and no edges at all.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from radial_tables import FORMS, random_table, weights
from random_edges import random_edges

e3nn = pytest.importorskip("e3nn")
from e3nn import o3  # noqa: E402

from mlip_deploy.exporters.layers.equivariant import (  # noqa: E402
    EdgeTensorProduct,
    NotFusible,
    pack_tensor_product,
    to_blocks,
)
from mlip_deploy.exporters.layers.radial_table import (  # noqa: E402
    INTERVALS,
    SLOPE_TOLERANCE,
    VALUE_TOLERANCE,
    RadialTable,
    fewest_intervals,
    radial_table,
    splines,
)
from mlip_deploy.operators import load_operators  # noqa: E402

load_operators()

# Sums of a few hundred products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 2e-4
# What radial_table promises, of weights below 2 and slopes below 7 /Å; and the rounding of its coefficients.
RADIAL_TABLES = [(torch.float32, 2e-7, 7e-6), (torch.float64, 4e-10, 1.4e-8)]
CONTINUITY = 1e-5  # of numbers of order one, a ten millionth of an interval away from each other
# Of the random graphs and numbers.
SEEDS = range(3)


@pytest.fixture(autouse=True)
def _float64_by_default(fastest_instruction_set: None) -> Iterator[None]:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)


def convolution(irreps_in: str, irreps_edge: str, keep: str | None = None) -> o3.TensorProduct:
    """All 'uvu' paths, sorted by output as SevenNet and MACE do."""
    first, second = o3.Irreps(irreps_in), o3.Irreps(irreps_edge)
    entries, instructions = [], []
    for i, (mul, ir1) in enumerate(first):
        for j, (_, ir2) in enumerate(second):
            for ir3 in ir1 * ir2:
                if keep is None or ir3 in o3.Irreps(keep):
                    instructions.append((i, j, len(entries), "uvu", True))
                    entries.append((mul, ir3))
    irreps_out, places, _ = o3.Irreps(entries).sort()
    instructions = sorted(((i, j, places[k], mode, train) for i, j, k, mode, train in instructions), key=lambda x: x[2])
    return o3.TensorProduct(first, second, irreps_out, instructions, shared_weights=False, internal_weights=False)


def rows(x: torch.Tensor, irreps: o3.Irreps) -> torch.Tensor:
    """e3nn's layout as the operator's: component-major blocks behind each other."""
    return torch.cat([block.flatten(1) for block in to_blocks(x, irreps)], dim=1)


def expected(tp: o3.TensorProduct, x, y, w, edges, n_owned):
    messages = tp(x[edges[1]], y, w)
    total = torch.zeros(n_owned, messages.shape[1], dtype=x.dtype).index_add(0, edges[0], messages)
    return to_blocks(total, tp.irreps_out)


def inputs(tp: o3.TensorProduct, n_nodes: int, n_edges: int, dtype=torch.float64, seed: int = 3):
    random = torch.Generator().manual_seed(seed)
    shapes = [(n_nodes, tp.irreps_in1.dim), (n_edges, tp.irreps_in2.dim), (n_edges, tp.weight_numel)]
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def compare(
    tp: o3.TensorProduct, n_owned: int, n_nodes: int, n_edges: int, ordered: bool = True, seed: int = 0
) -> None:
    edges = random_edges(n_owned, n_nodes, n_edges, seed, ordered)
    x, y, w = inputs(tp, n_nodes, n_edges, seed=seed)
    fused = EdgeTensorProduct(tp)
    outputs = fused(rows(x, tp.irreps_in1), y, w, edges, n_owned)
    truth = expected(tp, x, y, w, edges, n_owned)
    assert len(outputs) == len(truth)
    random = torch.Generator().manual_seed(seed + 5)
    factors = [torch.randn(block.shape, generator=random) for block in truth]
    for a, b in zip(outputs, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=FLOAT64)
    gradients = torch.autograd.grad(sum((f * o).sum() for f, o in zip(factors, outputs, strict=True)), (x, y, w))
    wanted = torch.autograd.grad(
        sum((f * o).sum() for f, o in zip(factors, truth, strict=True)), (x, y, w), materialize_grads=True
    )
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=FLOAT64)


def test_every_form_of_the_kernels_runs_on_any_processor() -> None:
    """The form of AVX-512 too, which a processor without it runs in its own instructions."""
    assert {"portable", "portable_wide"} <= set(torch.ops.mlip.instruction_sets())
    assert "wide" not in torch.ops.mlip.instruction_sets()[0]


SEVENNET = "16x0e+8x1e+4x2e", "0e+1e+2e"
MACE = "12x0e+12x1o", "0e+1o+2e+3o"


@pytest.mark.parametrize("irreps", [SEVENNET, MACE], ids=["sevennet", "mace"])
@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_e3nn(name: str, irreps: tuple[str, str]) -> None:
    torch.ops.mlip.use_instruction_set(name)
    tp = convolution(*irreps)
    for seed in SEEDS:
        compare(tp, n_owned=9, n_nodes=13, n_edges=70, seed=seed)


irreps_entries = st.lists(
    st.tuples(st.integers(1, 19), st.integers(0, 3), st.sampled_from("eo")),
    min_size=1,
    max_size=3,
    unique_by=lambda e: e[1:],
)


@settings(max_examples=15, deadline=None)
@given(
    irreps_entries, st.lists(st.tuples(st.integers(0, 3), st.sampled_from("eo")), min_size=1, max_size=3, unique=True)
)
def test_random_irreps_equal_e3nn(features: list[tuple[int, int, str]], harmonics: list[tuple[int, str]]) -> None:
    tp = convolution(
        "+".join(f"{mul}x{degree}{p}" for mul, degree, p in features),
        "+".join(f"{degree}{p}" for degree, p in harmonics),
    )
    compare(tp, n_owned=4, n_nodes=5, n_edges=11)


@pytest.mark.parametrize(
    ("n_owned", "n_nodes", "n_edges", "ordered"),
    [(5, 5, 0, True), (0, 4, 0, True), (0, 0, 0, True), (3, 9, 1, True), (40, 60, 700, True), (40, 60, 700, False)],
    ids=["no edges", "no owned atoms", "nothing", "one edge", "many edges", "edges out of order"],
)
def test_graphs(n_owned: int, n_nodes: int, n_edges: int, ordered: bool) -> None:
    compare(convolution(*SEVENNET), n_owned, n_nodes, n_edges, ordered)


def test_threads_do_not_race() -> None:
    previous = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for _ in range(5):
            compare(convolution(*SEVENNET), n_owned=50, n_nodes=50, n_edges=1000)
    finally:
        torch.set_num_threads(previous)


def test_components_beyond_the_compiled_ones() -> None:
    compare(convolution("3x4e+2x1o", "0e+1o", keep="5o+4e+4o+3o+1o"), n_owned=4, n_nodes=5, n_edges=9)


def test_gradients_by_finite_differences() -> None:
    tp = convolution("3x0e+2x1e", "0e+1e")
    edges = random_edges(3, 4, 7)
    x, y, w = inputs(tp, 4, 7)
    fused = EdgeTensorProduct(tp)
    assert torch.autograd.gradcheck(lambda *a: tuple(fused(*a, edges, 3)), (x, y, w))


@pytest.mark.parametrize("form", FORMS)
def test_tabulated_weights_by_finite_differences(form: str) -> None:
    tp = convolution("3x0e+2x1e", "0e+1e")
    edges = random_edges(3, 4, 7)
    x, y, _ = inputs(tp, 4, 7)
    table = random_table(form, 10, tp.weight_numel, 0.5, torch.Generator().manual_seed(2))
    distances = torch.tensor([0.6, 1.13, 2.49, 3.01, 4.02, 4.4, 4.999], requires_grad=True)
    fused = EdgeTensorProduct(tp, table)
    assert torch.autograd.gradcheck(lambda *a: tuple(fused(*a, edges, 3)), (x, y, distances))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("any_numbers", [False, True])
def test_reference_operator_is_the_same(any_numbers: bool, form: str) -> None:
    """What runs on devices without kernels of their own; with numbers of a file that are no Clebsch-Gordan coefficients
    too, of which l2 = 0 has multiples of the unit matrix."""
    tp = convolution(*SEVENNET)
    edges = random_edges(9, 13, 70, ordered=False)
    x, y, _ = inputs(tp, 13, 70)
    table = random_table(form, 10, tp.weight_numel, 0.5, torch.Generator().manual_seed(2))
    distances = torch.linspace(0.3, 4.97, 70).requires_grad_()
    fused = EdgeTensorProduct(tp, table)
    coefficients = torch.randn(fused.coefficients.shape) if any_numbers else fused.coefficients
    arguments = (
        rows(x, tp.irreps_in1),
        y,
        distances,
        edges,
        9,
        fused.paths,
        coefficients,
        fused.table,
        fused.step,
        None,
        fused.kink,
    )
    results = []
    for operator in (torch.ops.mlip.edge_tensor_product, torch.ops.mlip.edge_tensor_product_reference):
        outputs = operator(*arguments)
        energy = sum((o**2).sum() for o in outputs)
        results.append([*outputs, *torch.autograd.grad(energy, (x, y, distances))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_distances_outside_of_the_table(name: str, form: str) -> None:
    """Taken with the polynomial of the nearest interval, as the reference does; what is not a number is refused."""
    torch.ops.mlip.use_instruction_set(name)
    tp = convolution(*SEVENNET)
    edges = random_edges(3, 4, 7)
    x, y, _ = inputs(tp, 4, 7)
    table = random_table(form, 10, tp.weight_numel, 0.5, torch.Generator().manual_seed(2))
    distances = torch.tensor([-1.3, -0.51, -0.2, 0.0, 4.99, 5.0, 5.6], requires_grad=True)
    fused = EdgeTensorProduct(tp, table)
    features = rows(x, tp.irreps_in1)
    rest = (edges, 3, fused.paths, fused.coefficients, fused.table, fused.step, None, fused.kink)
    results = []
    for operator in (torch.ops.mlip.edge_tensor_product, torch.ops.mlip.edge_tensor_product_reference):
        outputs = operator(features, y, distances, *rest)
        energy = sum((o**2).sum() for o in outputs)
        results.append([*outputs, *torch.autograd.grad(energy, (x, y, distances), retain_graph=True)])
        with pytest.raises(RuntimeError, match="distance of an edge is not a number"):
            operator(features, y, distances.detach() * torch.nan, *rest)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("several", [True, False], ids=["several tables", "one table"])
@pytest.mark.parametrize("ordered", [True, False], ids=["in order", "out of order"])
@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_tables(name: str, ordered: bool, several: bool, form: str) -> None:
    """Against e3nn with the weights that the table gives; in float32 against float64."""
    torch.ops.mlip.use_instruction_set(name)
    tp = convolution(*MACE)
    edges = random_edges(9, 13, 70, ordered=ordered)
    x, y, _ = inputs(tp, 13, 70)
    random = torch.Generator().manual_seed(2)
    table = random_table(form, 10, tp.weight_numel, 0.5, random, n_tables=3 if several else 0)
    of_edge = torch.randint(0, 3, (70,), generator=random) if several else None
    distances = (5.2 * torch.rand(70, generator=random)).requires_grad_()  # beyond the last interval too
    truth = expected(tp, x, y, weights(table, distances, of_edge), edges, 9)
    fused = EdgeTensorProduct(tp, table)
    factors = [torch.randn(block.shape, generator=random) for block in truth]

    def gradients(outputs):
        total = sum((f * o).sum() for f, o in zip(factors, outputs, strict=True))
        return torch.autograd.grad(total, (x, y, distances), retain_graph=True)

    arguments = (rows(x, tp.irreps_in1), y, distances, edges, 9)
    found = fused(*arguments, of_edge)
    reference = torch.ops.mlip.edge_tensor_product_reference(
        *arguments, fused.paths, fused.coefficients, fused.table, fused.step, of_edge, fused.kink
    )
    for outputs in (found, reference):
        for a, b in zip([*outputs, *gradients(outputs)], [*truth, *gradients(truth)], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    narrow = fused.float()(*(t.detach().float() for t in arguments[:3]), edges, 9, of_edge)
    for a, b in zip(narrow, truth, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=FLOAT32, atol=float(b.detach().abs().max()) * FLOAT32)


def test_a_table_that_is_not_there_is_refused() -> None:
    tp = convolution("3x0e", "0e")
    x, y, _ = inputs(tp, 4, 2)
    fused = EdgeTensorProduct(tp, RadialTable(torch.zeros(2, 15, 3), 0.5, 0))
    arguments = (x, y, torch.ones(2), random_edges(3, 4, 2), 3)
    for wrong in ([0, 2], [-1, 0]):
        with pytest.raises(IndexError, match=r"a table outside \[0, 2\)"):
            fused(*arguments, torch.tensor(wrong))
    for wrong in (torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(RuntimeError, match="a table of each edge, int64"):
            fused(*arguments, wrong)
    with pytest.raises(RuntimeError, match=r"table is \[2, 15, 3\], expected \[n_rows, 3\]"):
        fused(*arguments)
    one = EdgeTensorProduct(tp, RadialTable(torch.zeros(15, 3), 0.5, 0))
    with pytest.raises(RuntimeError, match="with a table, radial is"):
        one(x, y, torch.ones(2, 3), *arguments[3:])
    for kink in (-1, 5, 6):
        with pytest.raises(RuntimeError, match=f"a kink at knot {kink} of a table of 15 rows"):
            EdgeTensorProduct(tp, RadialTable(torch.zeros(15, 3), 0.5, kink))(*arguments)
    for n_rows, kink in ((5, 0), (0, 0)):
        values = torch.zeros(n_rows, 3)
        expected_error = "a table of 5 rows" if n_rows else "without a table"
        with pytest.raises(RuntimeError, match=expected_error):
            EdgeTensorProduct(tp, RadialTable(values, 0.5, kink))(*arguments)


@pytest.mark.parametrize("seed", SEEDS)
def test_float32(seed: int) -> None:
    tp = convolution(*SEVENNET)
    edges = random_edges(9, 13, 70, seed)
    x, y, w = (t.detach() for t in inputs(tp, 13, 70, seed=seed))
    truth = expected(tp, x, y, w, edges, 9)
    fused = EdgeTensorProduct(tp).float()
    for a, b in zip(fused(rows(x, tp.irreps_in1).float(), y.float(), w.float(), edges, 9), truth, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize(
    "bad", [torch.tensor([[0, 3], [0, 0]]), torch.tensor([[0, 1], [0, 7]]), torch.tensor([[-1, 0], [0, 0]])]
)
def test_an_edge_out_of_range_is_refused(bad: torch.Tensor) -> None:
    tp = convolution("3x0e", "0e")
    x, y, w = inputs(tp, 4, 2)
    with pytest.raises(IndexError, match="outside"):
        EdgeTensorProduct(tp)(x, y, w, bad, 3)


def test_mixed_types_are_refused() -> None:
    tp = convolution("3x0e", "0e")
    x, y, w = inputs(tp, 4, 2)
    with pytest.raises(RuntimeError, match="one type"):
        EdgeTensorProduct(tp)(x, y.float(), w, random_edges(3, 4, 2), 3)


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(RuntimeError, match="abacus"):
        torch.ops.mlip.use_instruction_set("abacus")


def test_other_connection_modes_are_not_fused() -> None:
    tp = o3.FullyConnectedTensorProduct("3x0e", "2x0e", "3x0e")
    with pytest.raises(NotFusible, match="uvw"):
        pack_tensor_product(tp)


@pytest.mark.parametrize(("dtype", "value_tolerance", "slope_tolerance"), RADIAL_TABLES)
def test_radial_table_sees_a_jump_of_curvature(dtype, value_tolerance, slope_tolerance) -> None:
    """Cutoff functions in two pieces, such as XPLOR's, must not cost accuracy."""

    def network(r: torch.Tensor) -> torch.Tensor:
        u = (r - 4.5).clamp(min=0.0) / 0.5
        return (
            torch.sin(torch.outer(r, torch.arange(1.0, 5.0))) * (1 - 3 * u**2 + 2 * u**3).unsqueeze(1)
        ) / r.unsqueeze(1)

    found = radial_table(network, 5.0, dtype)
    assert found is not None
    assert found.kink * found.step == pytest.approx(4.5)
    r = torch.linspace(0.6, 4.999, 3001, requires_grad=True)
    value = weights(found, r)
    truth = network(r)
    torch.testing.assert_close(value, truth, rtol=0, atol=value_tolerance)
    for k in range(truth.shape[1]):
        slope, true_slope = (torch.autograd.grad(w[:, k].sum(), r, retain_graph=True)[0] for w in (value, truth))
        torch.testing.assert_close(slope, true_slope, rtol=0, atol=slope_tolerance)


@pytest.mark.parametrize("form", FORMS[:2])
def test_splines_are_continuous(form: str) -> None:
    """Four derivatives at the end of an interval are those at the start of the next; at the kink they are not."""
    table = random_table(form, 10, 3, 0.5, torch.Generator().manual_seed(2))
    for knot in range(1, 10):
        hair = 1e-7
        r = 0.5 * torch.tensor([knot - hair, knot + hair], requires_grad=True)
        of = weights(table, r).sum(1)
        for order in range(5):
            left, right = of.detach()
            assert (abs(right - left) < CONTINUITY * 20.0**order) == (knot != table.kink), (knot, order)
            of = torch.autograd.grad(of.sum(), r, create_graph=True)[0]


def test_a_second_jump_is_no_table() -> None:
    def network(r: torch.Tensor) -> torch.Tensor:
        return ((r - 2.5).clamp(min=0.0) ** 2 + (r - 4.0).clamp(min=0.0) ** 2).unsqueeze(1)

    assert splines([network], 100, 0.05) is None
    assert radial_table(network, 5.0, torch.float32) is None


def test_networks_without_derivatives_at_zero() -> None:
    """sin(kr)/r, and an Agnesi transform's power of the distance."""

    def network(r: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.sin(3.0 * r) / r, 1.0 / (1.0 + r**0.92 / (1.0 + r**3.66))], dim=1)

    found = radial_table(network, 5.0, torch.float64)
    assert found is not None
    assert found.values.isfinite().all()
    r = torch.linspace(0.5, 4.999, 3001)
    torch.testing.assert_close(weights(found, r), network(r), rtol=0, atol=6e-10)
    assert weights(found, torch.linspace(0.0, 0.5, 101)).abs().max() < 3.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.3, 3.0, 12.0])
def test_radial_table_has_the_fewest_intervals(dtype, rate) -> None:
    """Whatever number the search starts from."""

    def network(r: torch.Tensor) -> torch.Tensor:
        return torch.sin(torch.outer(r, torch.tensor([0.5 * rate, rate])))

    def error(n_intervals: int) -> float:
        """Of values and slopes, in units of the tolerances; both functions and their values reach one."""
        r = torch.linspace(0.5, 4.999, 20001)
        r = r.requires_grad_()
        table = splines([network], n_intervals, 5.0 / n_intervals)
        assert table is not None
        of = weights(table, r)
        value = (of - network(r)).detach()
        slope = torch.stack([torch.autograd.grad(of[:, k].sum(), r, retain_graph=True)[0] for k in range(2)], dim=1)
        r = r.detach()
        rates = torch.tensor([0.5 * rate, rate])
        slope = slope - rates * torch.cos(torch.outer(r, rates))
        of_value = float(value.abs().max()) / VALUE_TOLERANCE[dtype]
        return max(of_value, float(slope.abs().max()) / (SLOPE_TOLERANCE[dtype] * rate))

    found = fewest_intervals(network, 5.0, dtype)
    assert found is not None
    # where samples of the search miss the largest error by little
    assert error(found) <= 1.1
    assert all(error(n) > 0.9 for n in INTERVALS[: INTERVALS.index(found)])


def test_radial_table_gives_up_on_noise() -> None:
    assert radial_table(lambda r: torch.sin(1e5 * r).unsqueeze(1), 5.0, torch.float32) is None
