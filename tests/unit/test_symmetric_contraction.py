"""`mlip::symmetric_contraction`: kernels of every instruction set against torch's operators, and gradients.

That the operator computes MACE's contraction is tested with MACE (tests/families/test_mace.py).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of some dozen products of a few numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 2e-4
BLOCK = 16


def problem(
    n_atoms: int = 5,
    channels: int = 21,
    degree: int = 3,
    n_components: int = 4,
    n_outputs: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[torch.Tensor, ...]:
    """Features, and a random polynomial for two elements in which an output has no term."""
    random = torch.Generator().manual_seed(seed)
    factors = torch.cartesian_prod(*[torch.arange(n_components + 1)] * degree).reshape(-1, degree)
    factors = factors[(factors.diff(dim=1) >= 0).all(dim=1)]
    factors = factors[torch.randperm(len(factors), generator=random)[:12]]
    wanted = torch.rand(n_outputs, len(factors), generator=random) < 0.6
    wanted[1 % n_outputs] &= n_outputs == 1
    terms = torch.nonzero(wanted)
    n_blocks = -(-channels // BLOCK)
    coefficients = torch.randn(2, n_blocks, len(terms), BLOCK, generator=random, dtype=torch.float64)
    features = torch.randn(n_atoms, n_components, channels, generator=random, dtype=torch.float64)
    types = torch.arange(n_atoms) % 2
    return features.to(dtype), types, factors, terms, n_outputs, coefficients.to(dtype)


def gradient(operator, features: torch.Tensor, *rest) -> tuple[torch.Tensor, torch.Tensor]:
    features = features.clone().requires_grad_(True)
    value = operator(features, *rest)
    weights = torch.cos(torch.arange(value.numel(), dtype=value.dtype)).reshape(value.shape)
    (slope,) = torch.autograd.grad((value * weights).sum(), features)
    return value.detach(), slope


@pytest.mark.parametrize("instruction_set", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
@settings(max_examples=25, deadline=None)
@given(
    n_atoms=st.integers(0, 9),
    channels=st.sampled_from([1, 3, 8, 16, 21, 40, 128]),
    degree=st.integers(1, 4),
    n_outputs=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_kernels_agree_with_the_reference(
    instruction_set, dtype, tolerance, n_atoms, channels, degree, n_outputs, seed
):
    torch.ops.mlip.use_instruction_set(instruction_set)
    inputs = problem(n_atoms, channels, degree, n_outputs=n_outputs, dtype=dtype, seed=seed)
    value, slope = gradient(torch.ops.mlip.symmetric_contraction, *inputs)
    truth, wanted = gradient(torch.ops.mlip.symmetric_contraction_reference, *inputs)
    torch.testing.assert_close(value, truth, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slope, wanted, rtol=tolerance, atol=tolerance)


def test_a_polynomial_worked_out_by_hand() -> None:
    """2 x0 x1 + 3 x2² for the first element, half of it for the second."""
    features = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]], dtype=torch.float64)
    coefficients = torch.zeros(2, 1, 2, BLOCK, dtype=torch.float64)
    coefficients[0, 0, :, 0] = torch.tensor([2.0, 3.0])
    coefficients[1] = 0.5 * coefficients[0]
    rest = torch.tensor([0, 1]), torch.tensor([[0, 1], [2, 2]]), torch.tensor([[0, 0], [0, 1]]), 1, coefficients
    value = torch.ops.mlip.symmetric_contraction(features, *rest)
    assert value.flatten().tolist() == [2 * 1 * 2 + 3 * 9, 0.5 * (2 * 4 * 5 + 3 * 36)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_gradient_by_finite_differences(degree: int, seed: int) -> None:
    features, *rest = problem(n_atoms=3, channels=5, degree=degree, seed=seed)
    features.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: torch.ops.mlip.symmetric_contraction(x, *rest), [features])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: [p[0], p[1] + 1, *p[2:]], r"element 2 is outside \[0, 2\)"),
        (lambda p: [*p[:2], p[2] + 1, *p[3:]], r"component 5 is outside \[0, 5\)"),
        (lambda p: [*p[:3], p[3].flip(0), *p[4:]], "is out of order"),
        (lambda p: [*p[:5], p[5][:, :1]], "coefficients are"),
        (lambda p: [*p[:5], p[5].float()], "must have one floating-point type"),
    ],
)
def test_wrong_inputs(change, words: str) -> None:
    with pytest.raises((RuntimeError, IndexError), match=words):
        torch.ops.mlip.symmetric_contraction(*change(problem()))
