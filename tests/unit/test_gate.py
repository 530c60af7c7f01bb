"""`mlip::gate` against e3nn's own gate, with its gradient, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from e3nn import nn
from tolerances import FLOAT64_SUM

from mlip_deploy.exporters.layers.equivariant import ACTIVATIONS, NotFusible, activations_of, e3nn_gate, to_blocks
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()


def gates() -> list[nn.Gate]:
    """Even and odd scalars and gates; scalars alone."""
    silu, tanh = torch.nn.functional.silu, torch.tanh
    with default_dtype(torch.float64):
        mixed = nn.Gate("9x0e+4x0o", [silu, tanh], "17x0e+3x0o", [torch.sigmoid, torch.abs], "17x1o+3x2e")
        return [mixed, nn.Gate("5x0e", [silu], "", [], "")]


@pytest.mark.parametrize("original", gates(), ids=["even and odd", "scalars alone"])
@pytest.mark.parametrize("n_atoms", [6, 1, 0])
def test_against_e3nn(original: nn.Gate, n_atoms: int) -> None:
    x = 3 * torch.randn(n_atoms, original.irreps_in.dim, dtype=torch.float64)
    found = e3nn_gate(original)(to_blocks(x, original.irreps_in))
    for a, b in zip(found, to_blocks(original(x), original.irreps_out), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("original", gates(), ids=["even and odd", "scalars alone"])
def test_gradient(original: nn.Gate) -> None:
    leaves = to_blocks(torch.randn(3, original.irreps_in.dim, dtype=torch.float64), original.irreps_in)
    strided = [leaf.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for leaf in leaves]
    gate = e3nn_gate(original)
    assert torch.autograd.gradcheck(lambda *blocks: tuple(gate(list(blocks))), strided)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_activations_anywhere(number: int, dtype: torch.dtype) -> None:
    """Also where e^x is no finite number, with the slope; not-a-number stays one."""
    places = torch.tensor([0.0, 1e-4, 0.01, 0.3, 1.0, 5.0, 20.0, 90.0, 720.0, 1e4], dtype=dtype)
    x = torch.cat([places, -places]).reshape(1, 1, -1).requires_grad_()
    (found,) = torch.ops.mlip.gate([x], [number, x.numel(), 0, 0, -1, 0, 0, 0], [1.0])
    exact = x.detach().double().requires_grad_()
    expected = ACTIVATIONS[number](exact)
    bound = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=bound, atol=bound)
    slopes = [torch.autograd.grad(y.sum(), z)[0].double() for y, z in ((found, x), (expected, exact))]
    torch.testing.assert_close(*slopes, rtol=bound, atol=bound)
    nowhere = torch.full([1, 1, 33], torch.nan, dtype=dtype)
    assert torch.ops.mlip.gate([nowhere], [number, 33, 0, 0, -1, 0, 0, 0], [1.0])[0].isnan().all()


def test_an_activation_that_is_not_known() -> None:
    assert activations_of(lambda x: 1.5 * torch.tanh(x), 2) == [(2, pytest.approx(1.5))] * 2
    with pytest.raises(NotFusible, match=r"an activation .* that the fast path does not know"):
        activations_of(torch.sin, 1)


def test_what_it_refuses() -> None:
    x = [torch.zeros(2, 1, 4), torch.zeros(2, 3, 4)]
    with pytest.raises(RuntimeError, match="piece 0 does not fit"):
        torch.ops.mlip.gate(x, [0, 5, 0, 0, -1, 0, 0, 0], [1.0])
    with pytest.raises(RuntimeError, match="piece 0 does not fit"):
        torch.ops.mlip.gate(x, [0, 4, 1, 0, -1, 0, 0, 0], [1.0])  # gates are scalars
    with pytest.raises(RuntimeError, match="channels of no piece"):
        torch.ops.mlip.gate(x, [0, 3, 0, 0, -1, 0, 0, 1], [1.0])
    with pytest.raises(RuntimeError, match="of one type"):
        torch.ops.mlip.gate([x[0], x[1].double()], [0, 4, 0, 0, 1, 0, 0, 0], [1.0])


def test_no_second_derivative() -> None:
    x = torch.ones(2, 1, 4, requires_grad=True)
    (y,) = torch.ops.mlip.gate([x], [1, 4, 0, 0, -1, 0, 0, 0], [1.0])
    with pytest.raises(NotImplementedError, match="mlip::gate has no second derivative"):
        torch.autograd.grad(y.sum(), x, create_graph=True)
