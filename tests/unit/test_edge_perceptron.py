"""`mlip::edge_perceptron` against MatterSim's own gated perceptrons, with its gradient, and what it refuses.

The truth is `mattersim`: GatedMLP, LinearLayer and SwishLayer, in float64.
"""

from __future__ import annotations

import pytest
import torch
from random_edges import random_edges

pytest.importorskip(
    "mattersim", reason="the package 'mattersim' is not installed. Type: pip install mattersim --no-deps"
)

from mattersim.forcefield.m3gnet.modules.layers import GatedMLP, LinearLayer, SwishLayer

from mlip_deploy.exporters.families.mattersim.model import EdgePerceptron
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of a few hundred products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-4
N_NODES, N_RADIAL = 9, 3
NAMES = ("x", "edges", "radial")


class Case:
    """MatterSim's layers with random weights, and ours made of them."""

    def __init__(self, to_atoms: bool, n_channels: int = 10) -> None:
        torch.manual_seed(3)
        self.to_atoms, self.n_channels = to_atoms, n_channels
        with default_dtype(torch.float64):
            self.gated = GatedMLP(3 * n_channels, [n_channels, n_channels], "swish").requires_grad_(False)
            self.radial = (SwishLayer if to_atoms else LinearLayer)(N_RADIAL, n_channels, bias=False)
        self.radial.requires_grad_(False)
        self.fused = EdgePerceptron(self.gated, self.radial.linear, to_atoms, fuse=True)

    def inputs(self, n_edges: int) -> list[torch.Tensor]:
        """Those of NAMES."""
        shapes = [(N_NODES, self.n_channels), (n_edges, self.n_channels), (n_edges, N_RADIAL)]
        return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def truth(self, inputs: list[torch.Tensor], ends: torch.Tensor, n_owned: int) -> torch.Tensor:
        x, edges, radial = inputs
        update = self.gated(torch.cat([x[ends[0]], x[ends[1]], edges], dim=1)) * self.radial(radial)
        return x.new_zeros(n_owned, self.n_channels).index_add(0, ends[0], update) if self.to_atoms else edges + update

    def found(self, inputs: list[torch.Tensor], ends: torch.Tensor, n_owned: int) -> torch.Tensor:
        x, edges, radial = inputs
        result: torch.Tensor = self.fused(x[:n_owned], x, edges, radial, ends)
        return result


def graph(n_owned: int, n_edges: int, ordered: bool = True) -> torch.Tensor:
    """With centres of one edge and of none, where there are more of them than edges."""
    return random_edges(n_owned, N_NODES, n_edges, seed=2, ordered=ordered)


def compare(case: Case, n_owned: int, n_edges: int, ordered: bool = True) -> None:
    ends, inputs = graph(n_owned, n_edges, ordered), case.inputs(n_edges)
    wanted, found = case.truth(inputs, ends, n_owned), case.found(inputs, ends, n_owned)
    torch.testing.assert_close(found, wanted, rtol=FLOAT64, atol=FLOAT64)
    without_gradients = case.found([x.detach() for x in inputs], ends, n_owned)
    assert torch.equal(without_gradients, found)
    factors = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((factors * x).sum(), inputs) for x in (found, wanted)]
    for name, a, b in zip(NAMES, *gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("to_atoms", [False, True], ids=["to edges", "to atoms"])
@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_mattersim(name: str, to_atoms: bool) -> None:
    """With channels of whole vectors, of vectors and a rest, and of less than one vector."""
    torch.ops.mlip.use_instruction_set(name)
    for n_channels in (32, 21, 3):
        compare(Case(to_atoms, n_channels), n_owned=7, n_edges=300)


@pytest.mark.parametrize("to_atoms", [False, True], ids=["to edges", "to atoms"])
def test_edges_in_any_order_and_none(to_atoms: bool) -> None:
    case = Case(to_atoms)
    compare(case, n_owned=7, n_edges=200, ordered=False)
    compare(case, n_owned=9, n_edges=5, ordered=False)
    for n_edges in (0, 1):
        compare(case, n_owned=3, n_edges=n_edges)
    compare(case, n_owned=1, n_edges=300)


@pytest.mark.parametrize("to_atoms", [False, True], ids=["to edges", "to atoms"])
def test_several_threads(to_atoms: bool) -> None:
    """Edges of several threads have one neighbour."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for ordered in (True, False):
            compare(Case(to_atoms), n_owned=8, n_edges=500, ordered=ordered)
    finally:
        torch.set_num_threads(before)


def test_no_atoms() -> None:
    """As on a rank that owns none."""
    case = Case(True)
    assert case.found(case.inputs(0), graph(1, 0), 0).shape == (0, case.n_channels)


@pytest.mark.parametrize("to_atoms", [False, True], ids=["to edges", "to atoms"])
def test_gradients_of_edges_alone(to_atoms: bool) -> None:
    """As in a first layer, whose atoms depend on the elements."""
    case, ends = Case(to_atoms), graph(5, 40)
    inputs = case.inputs(40)
    every = torch.autograd.grad(case.found(inputs, ends, 5).square().sum(), inputs)
    of_edges = [inputs[0].detach(), *inputs[1:]]
    some = torch.autograd.grad(case.found(of_edges, ends, 5).square().sum(), inputs[1:])
    for a, b in zip(some, every[1:], strict=True):
        assert torch.equal(a, b)


def test_several_passes_back() -> None:
    case, ends = Case(True), graph(5, 40)
    inputs = case.inputs(40)
    result = case.found(inputs, ends, 5)
    rows = [torch.autograd.grad(row.sum(), inputs, retain_graph=True) for row in result]
    whole = torch.autograd.grad(result.sum(), inputs)
    for k, of_whole in enumerate(whole):
        torch.testing.assert_close(sum(row[k] for row in rows), of_whole, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize("to_atoms", [False, True], ids=["to edges", "to atoms"])
def test_float32(to_atoms: bool, name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    case = Case(to_atoms, 21)
    ends, inputs = graph(7, 200), case.inputs(200)
    wanted = case.truth(inputs, ends, 7)
    factors = torch.randn_like(wanted)
    expected = [wanted, *torch.autograd.grad((factors * wanted).sum(), inputs)]
    case.fused.float()
    single = [x.detach().float().requires_grad_() for x in inputs]
    result = case.found(single, ends, 7)
    for a, b in zip([result, *torch.autograd.grad((factors.float() * result).sum(), single)], expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32 * float(b.detach().abs().max()))


def test_what_it_refuses() -> None:
    case, ends = Case(False), graph(3, 4)
    inputs = case.inputs(4)
    with pytest.raises(IndexError, match=r"edge_perceptron: an edge has a centre outside \[0, 3\)"):
        case.found(inputs, ends + torch.tensor([[3], [0]]), 3)
    with pytest.raises(IndexError, match=r"or a neighbour outside \[0, 9\)"):
        case.found(inputs, ends + torch.tensor([[0], [9]]), 3)
    for place, wrong, message in (
        (2, inputs[2][1:], r"expected radial \[4, 3\]"),
        (2, inputs[2].float(), r"expected radial \[4, 3\] of Double, found \[4, 3\] of Float"),
        (2, inputs[2][:, 1:], r"expected weights\[3\] \[2, 10\] of Double, found \[3, 10\]"),
        (1, inputs[1][:, 1:], r"expected of_centres \[3, 18\] of Double, found \[3, 20\]"),
    ):
        with pytest.raises(RuntimeError, match=message):
            case.found([*inputs[:place], wrong, *inputs[place + 1 :]], ends, 3)
    with pytest.raises(RuntimeError, match=r"expected edge_index \[2, 4\] of Long, found \[2, 3\]"):
        case.found(inputs, ends[:, 1:], 3)


def test_no_second_derivative() -> None:
    case = Case(True)
    inputs = case.inputs(4)
    with pytest.raises(NotImplementedError, match="mlip::edge_perceptron has no second derivative"):
        torch.autograd.grad(case.found(inputs, graph(3, 4), 3).sum(), inputs, create_graph=True)
