"""`mlip::element_linear` against a matrix gathered for each atom, with its gradient."""

import pytest
import torch
from tolerances import FLOAT64_SUM

from mlip_deploy.operators import load_operators

load_operators()


def problem(types: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(len(types), 3, 5, generator=random, dtype=torch.float64)
    matrices = torch.randn(4, 5, 7, generator=random, dtype=torch.float64)
    return x, torch.tensor(types, dtype=torch.int64), matrices


@pytest.mark.parametrize(
    "types",
    [[2, 0, 3, 0, 2, 2, 0], [1, 1, 1], []],
    ids=["mixed, one element absent", "one element", "no atoms"],
)
@pytest.mark.parametrize("seed", range(3))
def test_against_a_matrix_for_each_atom(types, seed):
    x, types, matrices = problem(types, seed)
    x.requires_grad_(True)
    found = torch.ops.mlip.element_linear(x, types, matrices)
    expected = torch.einsum("nmi,nio->nmo", x, matrices[types])
    assert found.shape == (len(types), 3, 7)
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT64_SUM)
    weights = torch.cos(torch.arange(found.numel(), dtype=torch.float64)).reshape(found.shape)
    slopes = [torch.autograd.grad((value * weights).sum(), x)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=0, atol=FLOAT64_SUM)


def test_a_type_without_a_matrix():
    with pytest.raises(RuntimeError, match="element_linear: type 4 is not one of 4 elements"):
        torch.ops.mlip.element_linear(*problem([0, 4]))


def test_shapes_that_do_not_fit():
    x, types, matrices = problem([0, 1])
    with pytest.raises(RuntimeError, match=r"expected features .* found \[2, 3, 5\], \[1\] and \[4, 5, 7\]"):
        torch.ops.mlip.element_linear(x, types[:1], matrices)
