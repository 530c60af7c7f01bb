"""`mlip::neighbour_attention` against So3krates' own attention, with its gradient, and what it refuses.

The truth is `so3krates_torch`: EuclideanAttentionBlock, in float64.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from radial_tables import FORMS, random_table, weights
from random_edges import random_edges

pytest.importorskip(
    "so3krates_torch", reason="the package 'so3krates_torch' is not installed. Type: pip install so3krates-torch"
)

from models import so3lr_model

from mlip_deploy.exporters.families.so3lr.attention import Differences, FusedAttention
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of a few hundred products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-4
N_FUNCTIONS, N_NODES = 8, 9
N_INTERVALS, STEP = 12, 0.4
"""of a table over the distance, Å"""
NAMES = ("scalars", "vectors", "radial", "cutoffs", "harmonics")


class Half(torch.nn.Module):
    """Half of the columns, in place of a perceptron."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.chunk(2, dim=1)[self.number]


class Case:
    """So3krates' layer with random weights, and ours made of it.

    Args:
        tabulated: whether filters are read from a table over the distance, in place of perceptrons.
        first: whether equivariant features are zero.
        form: of the table.
        changes: of the model's settings.
    """

    def __init__(self, tabulated: bool = True, first: bool = False, form: str = FORMS[0], **changes: Any) -> None:
        torch.manual_seed(3)
        self.tabulated, self.first = tabulated, first
        self.layer = so3lr_model(num_radial_basis_fn=N_FUNCTIONS, **changes).euclidean_transformers[0].double()
        self.layer.requires_grad_(False)
        block = self.layer.euclidean_attention_block
        self.n_features, self.n_harmonics = int(block.num_features), int(block.degree_repeats.sum())
        self.table = random_table(form, N_INTERVALS, 2 * self.n_features, STEP, torch.Generator().manual_seed(3))
        of_layer = self.table.values.clone()
        # A constant: of polynomials the first coefficients; B-splines add up to one.
        constants = of_layer[:, 0] if form == "polynomials" else of_layer
        constants += Differences(self.layer, first).bias
        self.fused = FusedAttention(self.layer, first, self.table._replace(values=of_layer) if tabulated else None)
        if tabulated:
            block.filter_net_inv.mlp_rbf, block.filter_net_ev.mlp_rbf = Half(0), Half(1)

    def inputs(self, n_edges: int) -> list[torch.Tensor]:
        """Those of NAMES."""
        shapes = [
            (N_NODES, self.n_features),
            (N_NODES, self.n_harmonics),
            (n_edges, N_FUNCTIONS),
            (n_edges,),
            (n_edges, self.n_harmonics),
        ]
        tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        if self.first:
            tensors[1].zero_()
        if self.tabulated:  # with some beyond the end
            tensors[2] = (N_INTERVALS + 1) * STEP * torch.rand(n_edges, dtype=torch.float64)
        return [tensor.requires_grad_() for tensor in tensors]

    def truth(self, inputs: list[torch.Tensor], edges: torch.Tensor, n_owned: int) -> list[torch.Tensor]:
        scalars, vectors, radial, cutoffs, harmonics = inputs
        if self.tabulated:
            radial = weights(self.table, radial)
        with default_dtype(torch.float64):
            found = self.layer.euclidean_attention_block(
                scalars, vectors, radial, edges[1], edges[0], harmonics, cutoffs.unsqueeze(1)
            )
        return [x[:n_owned] for x in found]

    def found(self, inputs: list[torch.Tensor], edges: torch.Tensor, n_owned: int) -> list[torch.Tensor]:
        scalars, vectors, radial, cutoffs, harmonics = inputs
        return list(self.fused(scalars, vectors, n_owned, edges, radial, cutoffs, harmonics))


def graph(n_owned: int, n_edges: int, ordered: bool = True) -> torch.Tensor:
    """With centres of one edge and of none, where there are more of them than edges."""
    return random_edges(n_owned, N_NODES, n_edges, seed=2, ordered=ordered)


def compare(case: Case, n_owned: int, n_edges: int, ordered: bool = True) -> None:
    edges, inputs = graph(n_owned, n_edges, ordered), case.inputs(n_edges)
    wanted, found = case.truth(inputs, edges, n_owned), case.found(inputs, edges, n_owned)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64)
    factors = [torch.randn_like(x) for x in wanted]

    def gradients(results: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        total = sum((x * y).sum() for x, y in zip(factors, results, strict=True))
        return torch.autograd.grad(total, inputs)

    for name, a, b in zip(NAMES, gradients(found), gradients(wanted), strict=True):
        if not (case.first and name == "vectors"):  # which stay zero, and have no gradient
            torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_so3krates(name: str) -> None:
    """With heads of whole vectors, of several, and of less than one; a first layer, whose equivariant features are
    zero, and a later one."""
    torch.ops.mlip.use_instruction_set(name)
    for changes in ({"num_features": 128}, {"num_features": 24, "num_heads": 2, "degrees": [0, 2, 3]}):
        for tabulated in (True, False):
            for first in (True, False):
                for form in FORMS if tabulated else FORMS[:1]:
                    compare(Case(tabulated, first, form, **changes), n_owned=7, n_edges=300)


def test_edges_in_any_order_and_none() -> None:
    case = Case()
    compare(case, n_owned=7, n_edges=200, ordered=False)
    compare(case, n_owned=9, n_edges=5, ordered=False)
    for n_edges in (0, 1):
        compare(case, n_owned=3, n_edges=n_edges)


def test_no_atoms() -> None:
    """As on a rank that owns none."""
    case = Case()
    messages, vector_messages = case.found(case.inputs(0), graph(1, 0), 0)
    assert (messages.shape, vector_messages.shape) == ((0, case.n_features), (0, case.n_harmonics))


def test_gradients_of_edges_alone() -> None:
    """As in a first layer, whose features depend on the elements."""
    case, edges = Case(), graph(5, 40)
    inputs = case.inputs(40)
    every = torch.autograd.grad(sum(x.square().sum() for x in case.found(inputs, edges, 5)), inputs)
    of_edges = [x.detach() for x in inputs[:2]] + inputs[2:]
    some = torch.autograd.grad(sum(x.square().sum() for x in case.found(of_edges, edges, 5)), inputs[2:])
    for a, b in zip(some, every[2:], strict=True):
        assert torch.equal(a, b)


def test_several_passes_back() -> None:
    case, edges = Case(), graph(5, 40)
    inputs = case.inputs(40)
    result = case.found(inputs, edges, 5)[0]
    rows = [torch.autograd.grad(row.sum(), inputs, retain_graph=True) for row in result]
    whole = torch.autograd.grad(result.sum(), inputs)
    for k, of_whole in enumerate(whole):
        torch.testing.assert_close(sum(row[k] for row in rows), of_whole, rtol=FLOAT64, atol=FLOAT64)


def test_float32() -> None:
    case = Case()
    edges, inputs = graph(7, 60), case.inputs(60)
    wanted = case.truth(inputs, edges, 7)
    case.fused.float()
    for found, expected in zip(case.found([x.float() for x in inputs], edges, 7), wanted, strict=True):
        assert found.dtype == torch.float32
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=FLOAT32 * scale)


def test_what_it_refuses() -> None:
    case, edges = Case(), graph(3, 4)
    inputs = case.inputs(4)
    with pytest.raises(IndexError, match=r"neighbour_attention: an edge has a centre outside \[0, 3\)"):
        case.found(inputs, edges + torch.tensor([[3], [0]]), 3)
    with pytest.raises(IndexError, match=r"or a neighbour outside \[0, 9\)"):
        case.found(inputs, edges + torch.tensor([[0], [9]]), 3)
    for place, wrong, message in (
        (1, inputs[1][:, 1:], r"expected vectors \[9, 8\]"),
        (2, inputs[2][1:], r"expected distances \[4\]"),
        (2, inputs[2] * torch.nan, "the distance of an edge is not a number"),
        (3, inputs[3][1:], r"expected cutoffs \[4\]"),
        (4, inputs[4].float(), r"expected harmonics \[4, 8\] of Double, found \[4, 8\] of Float"),
    ):
        with pytest.raises(RuntimeError, match=message):
            case.found([*inputs[:place], wrong, *inputs[place + 1 :]], edges, 3)
    plain = Case(tabulated=False)
    plain.fused.radial = torch.nn.Identity()
    with pytest.raises(RuntimeError, match=r"expected radial \[4, 32\] of Double, found \[4, 8\]"):
        plain.found(plain.inputs(4), edges, 3)
    case.fused.n_heads = 3
    with pytest.raises(RuntimeError, match="16 features are not those of 3 equal heads and of 2 degrees"):
        case.found(inputs, edges, 3)


def test_no_second_derivative() -> None:
    case = Case()
    inputs = case.inputs(4)
    messages, _ = case.found(inputs, graph(3, 4), 3)
    with pytest.raises(NotImplementedError, match="mlip::neighbour_attention has no second derivative"):
        torch.autograd.grad(messages.sum(), inputs, create_graph=True)
