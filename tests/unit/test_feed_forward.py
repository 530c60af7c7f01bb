"""`mlip::feed_forward` against torch's own modules, with its gradient, and what it refuses.

The truth is torch.nn in float64: RMSNorm or LayerNorm, Linear, SiLU or the gate of metatrain's SwiGLU, Linear.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from mlip_deploy.exporters.layers.feed_forward import FeedForward
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of a few hundred products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-4
NORMS = ("none", "root_mean_square", "layer")
FORMS = list(product(NORMS, ("silu", "glu", "one layer"), (False, True)))
"""norm, activation, whether the rows are added"""


class Case:
    """torch's modules with random weights, and ours made of them."""

    def __init__(self, norm: str, activation: str, add: bool, n_inputs: int = 10, n_hidden: int = 14) -> None:
        torch.manual_seed(3)
        self.activation, self.add, self.n_inputs = activation, add, n_inputs
        n_outputs = n_inputs if add else n_inputs + 3
        with default_dtype(torch.float64):
            self.norm = {
                "none": nn.Identity(),
                "root_mean_square": nn.RMSNorm(n_inputs),
                "layer": nn.LayerNorm(n_inputs),
            }[norm]
            for parameter in self.norm.parameters():
                nn.init.normal_(parameter)
            n_first = n_outputs if activation == "one layer" else 2 * n_hidden if activation == "glu" else n_hidden
            self.first, second = nn.Linear(n_inputs, n_first), nn.Linear(n_hidden, n_outputs)
        self.second = None if activation == "one layer" else second
        for module in (self.norm, self.first, second):
            module.requires_grad_(False)
        self.fused = FeedForward(self.norm, self.first, self.second, activation == "glu", add, fuse=True)

    def inputs(self, n: int) -> torch.Tensor:
        return (2 * torch.randn(n, self.n_inputs, dtype=torch.float64) + 0.5).requires_grad_()

    def truth(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(self.norm(x))
        if self.second is not None:
            if self.activation == "glu":
                values, gates = y.chunk(2, dim=1)
                y = values * torch.sigmoid(gates)
            else:
                y = nn.functional.silu(y)
            y = self.second(y)
        return x + y if self.add else y


def compare(case: Case, n: int) -> None:
    x = case.inputs(n)
    wanted, found = case.truth(x), case.fused(x)
    torch.testing.assert_close(found, wanted, rtol=FLOAT64, atol=FLOAT64)
    assert torch.equal(case.fused(x.detach()), found)
    factors = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((factors * y).sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize("form", FORMS, ids=["-".join(map(str, form)) for form in FORMS])
def test_every_instruction_set_equals_torch(form: tuple[str, str, bool], name: str) -> None:
    """With rows of whole vectors, of vectors and a rest, and of less than one; several blocks of them, one and none."""
    torch.ops.mlip.use_instruction_set(name)
    for n_inputs, n_hidden in ((32, 64), (21, 13), (3, 2)):
        compare(Case(*form, n_inputs, n_hidden), 300)
    for n in (0, 1, 128):
        compare(Case(*form), n)


def test_several_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compare(Case("layer", "glu", True), 1000)
    finally:
        torch.set_num_threads(before)


def test_rows_that_do_not_follow_one_another() -> None:
    case = Case("root_mean_square", "glu", True)
    x = case.inputs(2 * 40)[::2]
    torch.testing.assert_close(case.fused(x), case.truth(x), rtol=FLOAT64, atol=FLOAT64)


def test_a_row_of_zeros() -> None:
    """The norm's epsilon stands in for its deviation."""
    for norm in NORMS:
        case = Case(norm, "silu", False)
        x = torch.zeros(2, case.n_inputs, dtype=torch.float64, requires_grad=True)
        gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (case.fused(x), case.truth(x))]
        assert gradients[1].isfinite().all()
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=FLOAT64)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize("form", FORMS, ids=["-".join(map(str, form)) for form in FORMS])
def test_float32(form: tuple[str, str, bool], name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    case = Case(*form, 21, 13)
    x = case.inputs(200)
    wanted = case.truth(x)
    factors = torch.randn_like(wanted)
    expected = [wanted, *torch.autograd.grad((factors * wanted).sum(), x)]
    case.fused.float()
    single = x.detach().float().requires_grad_()
    result = case.fused(single)
    for a, b in zip([result, *torch.autograd.grad((factors.float() * result).sum(), single)], expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32 * float(b.detach().abs().max()))


def test_what_it_refuses() -> None:
    x = torch.randn(4, 6)
    weights = [torch.randn(6, 8), torch.randn(8), torch.randn(8, 6), torch.randn(6)]

    def feed(rows: torch.Tensor = x, matrices: list[torch.Tensor] = weights, **changes: object) -> None:
        given = {"norm": "none", "epsilon": 1e-5, "activation": "silu", "add": True, "keep": False} | changes
        torch.ops.mlip.feed_forward(rows, matrices, **given)

    feed()
    for message, arguments in (
        (r"expected rows \[n, n_inputs\], found \[4\]", {"rows": x[:, 0]}),
        ("expected 2 or 4 weights, found 3", {"matrices": weights[:3]}),
        (r"expected weights\[0\] \[5, 8\] of Float, found \[6, 8\]", {"rows": x[:, 1:]}),
        (r"expected weights\[0\] \[6, 8\] of Double, found \[6, 8\] of Float", {"rows": x.double()}),
        (r"expected weights\[2\] \[4, 6\] of Float, found \[8, 6\]", {"activation": "glu"}),
        ("the norm is 'batch', expected none, root_mean_square or layer", {"norm": "batch"}),
        ("the activation is 'relu', expected silu or glu", {"activation": "relu"}),
        ("8 outputs are added to 6 inputs", {"matrices": weights[:2]}),
    ):
        with pytest.raises(RuntimeError, match=message):
            feed(**arguments)  # type: ignore[arg-type]


def test_no_second_derivative() -> None:
    case = Case("layer", "glu", True)
    x = case.inputs(4)
    with pytest.raises(NotImplementedError, match="mlip::feed_forward has no second derivative"):
        torch.autograd.grad(case.fused(x).sum(), x, create_graph=True)
