"""`mlip::gated_addition` against MatterSim's own gated layer, with its gradient, and what it refuses.

The truth is `mattersim`: GatedMLP, in float64.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip(
    "mattersim", reason="the package 'mattersim' is not installed. Type: pip install mattersim --no-deps"
)

from mattersim.forcefield.m3gnet.modules.layers import GatedMLP

from mlip_deploy.exporters.families.mattersim.model import GatedAddition
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of some ten products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-5


class Case:
    """MatterSim's layer with random weights, and ours made of it."""

    def __init__(self, n_channels: int = 10, n_inputs: int = 6, bias: bool = True) -> None:
        torch.manual_seed(3)
        self.n_channels, self.n_inputs = n_channels, n_inputs
        with default_dtype(torch.float64):
            self.gated = GatedMLP(n_inputs, [n_channels], "swish", use_bias=bias).requires_grad_(False)
        self.fused, self.plain = (GatedAddition(self.gated, fuse=fuse) for fuse in (True, False))

    def inputs(self, n_rows: int, n: int) -> list[torch.Tensor]:
        """A table, places in any order, and inputs."""
        table = torch.randn(n_rows, self.n_channels, dtype=torch.float64, requires_grad=True)
        inputs = torch.randn(n, self.n_inputs, dtype=torch.float64, requires_grad=True)
        return [table, torch.randperm(n_rows)[:n], inputs]

    def truth(self, table: torch.Tensor, places: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return table.index_add(0, places, self.gated(inputs))


def compare(case: Case, n_rows: int, n: int) -> None:
    inputs = case.inputs(n_rows, n)
    wanted = case.truth(*inputs)
    factors = torch.randn_like(wanted)
    truth = [wanted, *torch.autograd.grad((factors * wanted).sum(), inputs[::2])]
    for layer in (case.fused, case.plain):
        found = layer(*inputs)
        gradients = torch.autograd.grad((factors * found).sum(), inputs[::2])
        for a, b in zip([found, *gradients], truth, strict=True):
            torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64)
        assert n == 0 or float((found - inputs[0]).detach().abs().max()) > 0.05


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_mattersim(name: str) -> None:
    """With channels of whole vectors, of vectors and a rest, and of less than one vector."""
    torch.ops.mlip.use_instruction_set(name)
    for n_channels in (32, 21, 3):
        for bias in (True, False):
            compare(Case(n_channels, bias=bias), n_rows=400, n=300)
    compare(Case(n_inputs=1), n_rows=40, n=40)
    for n in (1, 0):
        compare(Case(), n_rows=3, n=n)


def test_no_inputs_but_biases() -> None:
    """A product over nothing is zero, whatever was in its memory before."""
    table, places = torch.zeros(5, 4, dtype=torch.float64), torch.tensor([3, 0])
    nothing, biases = torch.empty(2, 0, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
    arguments = [table, places, nothing, torch.empty(0, 8, dtype=torch.float64), biases]
    wanted = torch.ops.mlip.gated_addition_reference(*arguments)
    for _ in range(3):
        torch.testing.assert_close(torch.ops.mlip.gated_addition(*arguments), wanted)
    assert float(wanted[3, 0]) > 0.5


def test_several_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compare(Case(), n_rows=1000, n=900)
    finally:
        torch.set_num_threads(before)


def test_the_table_stays() -> None:
    case = Case()
    table, places, inputs = (x.detach() for x in case.inputs(9, 5))
    before = table.clone()
    assert not torch.equal(case.fused(table, places, inputs), before)
    assert torch.equal(table, before)
    across = torch.randn(case.n_channels, 9, dtype=torch.float64).T
    torch.testing.assert_close(case.fused(across, places, inputs), case.truth(across, places, inputs))


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_float32(name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    case = Case(21)
    inputs = case.inputs(200, 150)
    wanted = case.truth(*inputs)
    expected = [wanted, *torch.autograd.grad(wanted.square().sum(), inputs[::2])]
    case.fused.float()
    single = [x.detach().float().requires_grad_() if x.is_floating_point() else x for x in inputs]
    found = case.fused(*single)
    for a, b in zip([found, *torch.autograd.grad(found.square().sum(), single[::2])], expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32 * float(b.detach().abs().max()))


def test_what_it_refuses() -> None:
    table, _, inputs = Case().inputs(5, 3)
    case, places = Case(), torch.tensor([0, 4, 2])
    for wrong, message in (
        (torch.tensor([0, 5, 2]), r"gated_addition: place 5 is outside \[0, 5\)"),
        (torch.tensor([0, -1, 2]), r"gated_addition: place -1 is outside \[0, 5\)"),
        (torch.tensor([0, 2, 2]), "gated_addition: two inputs have place 2"),
    ):
        with pytest.raises(IndexError, match=message):
            case.fused(table, wrong, inputs)
    for arguments, message in (
        ([table, places[1:], inputs], r"expected places \[3\] of Long, found \[2\] of Long"),
        ([table, places.int(), inputs], r"expected places \[3\] of Long, found \[3\] of Int"),
        ([table, places, inputs.float()], r"expected inputs \[3, 6\] of Double, found \[3, 6\] of Float"),
        ([table, places, inputs[:, 1:]], r"expected a matrix \[5, 20\] of Double, found \[6, 20\]"),
        ([table[:, 1:], places, inputs], r"expected a matrix \[6, 18\] of Double, found \[6, 20\]"),
        ([table[0], places, inputs], "expected a table and inputs of two dimensions"),
    ):
        with pytest.raises(RuntimeError, match=message):
            case.fused(*arguments)
    with pytest.raises(RuntimeError, match=r"expected biases \[20\] of Double, found \[19\]"):
        torch.ops.mlip.gated_addition(table, places, inputs, case.fused.matrix, case.fused.biases[1:])


def test_no_second_derivative() -> None:
    inputs = Case().inputs(5, 3)
    with pytest.raises(NotImplementedError, match="mlip::gated_addition has no second derivative"):
        torch.autograd.grad(Case().fused(*inputs).sum(), inputs[2], create_graph=True)
