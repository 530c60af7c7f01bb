"""`mlip::gated_pairs`: kernels of every instruction set against torch's operators, and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlip_deploy.operators import load_operators

load_operators()

# Roundings of sums of up to 40 products of order 1, and of exponentials to two units of the last place
FLOAT64 = 1e-12
FLOAT32 = 1e-4


@pytest.fixture(autouse=True)
def _keep_instruction_set():
    before = torch.ops.mlip.instruction_set()
    yield
    torch.ops.mlip.use_instruction_set(before)


def problem(n_edges: int, channels: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Of 3 centres among 5 nodes."""
    random = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    index = torch.stack([torch.randint(n, [n_edges], generator=random) for n in (3, 5)])
    rows = [numbers(n, 2 * channels) for n in (3, 5, n_edges)]
    return [*rows, index, numbers(2, channels, channels), numbers(2, channels), numbers(n_edges, channels)]


def with_gradients(operator, inputs: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of all but the constants."""
    inputs = [x.clone().requires_grad_(k in (0, 1, 2, 6)) for k, x in enumerate(inputs)]
    result = operator(*inputs)
    upstream = torch.cos(torch.arange(result.numel(), dtype=result.dtype)).reshape(result.shape)
    return [result, *torch.autograd.grad(result, [inputs[k] for k in (0, 1, 2, 6)], upstream)]


@pytest.mark.parametrize("instruction_set", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
@settings(max_examples=15, deadline=None)
@given(n_edges=st.integers(0, 200), channels=st.sampled_from([1, 3, 8, 21, 40]), seed=st.integers(0, 1000))
def test_kernels_agree_with_the_reference(instruction_set, dtype, tolerance, n_edges, channels, seed):
    torch.ops.mlip.use_instruction_set(instruction_set)
    inputs = problem(n_edges, channels, dtype, seed)
    found = with_gradients(torch.ops.mlip.gated_pairs, inputs)
    expected = with_gradients(torch.ops.mlip.gated_pairs_reference, inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("instruction_set", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_inputs_of_any_size(instruction_set, dtype, tolerance):
    """The exponential over its whole range, beyond which sigmoids are 0 and 1."""
    torch.ops.mlip.use_instruction_set(instruction_set)
    x = torch.linspace(-1000.0, 1000.0, 4001, dtype=torch.float64).to(dtype)
    inputs = problem(len(x), 1, dtype)
    inputs[0].zero_()
    inputs[1].zero_()
    inputs[2] = torch.stack([x, x.flip(0)], dim=1)
    found = with_gradients(torch.ops.mlip.gated_pairs, inputs)
    expected = with_gradients(
        torch.ops.mlip.gated_pairs_reference, [t.double() if t.is_floating_point() else t for t in inputs]
    )
    for a, b in zip(found, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a.double(), b, rtol=50 * tolerance, atol=2000 * tolerance)


def test_gradient_by_finite_differences() -> None:
    centres, neighbours, edges, index, weights, biases, factors = problem(n_edges=7, channels=3)
    assert torch.autograd.gradcheck(
        lambda a, b, c, f: torch.ops.mlip.gated_pairs(a, b, c, index, weights, biases, f),
        [x.requires_grad_(True) for x in (centres, neighbours, edges, factors)],
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: [*p[:3], p[3] + 3, *p[4:]], r"centre \d is outside \[0, 3\)"),
        (lambda p: [p[0], p[1][:2], *p[2:]], r"neighbour \d is outside \[0, 2\)"),
        (lambda p: [*p[:4], p[4][:, :2], *p[5:]], r"found \[9, 4\], .*, \[2, 2, 4\] and \[2, 4\]"),
        (lambda p: [p[0].float(), *p[1:]], "all inputs must have one type, found Float and Double"),
    ],
)
def test_wrong_inputs(change, words: str) -> None:
    with pytest.raises((RuntimeError, IndexError), match=words):
        torch.ops.mlip.gated_pairs(*change(problem(n_edges=9, channels=4)))
