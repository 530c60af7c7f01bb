"""`mlip::angle_sums` against sums of SciPy's Legendre polynomials, with its gradient, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from random_edges import random_edges
from scipy.special import eval_legendre

from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

sums_of = torch.ops.mlip.angle_sums
# Sums of a few tens of products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-5


def graph(n_edges: int, n_functions: int, n_owned: int, ordered: bool = True) -> list[torch.Tensor]:
    """Directions, terms and centres; some centres have one edge or none where edges are few."""
    random = torch.Generator().manual_seed(n_edges)
    directions = torch.randn(n_edges, 3, dtype=torch.float64, generator=random)
    terms = torch.randn(n_edges, n_functions, dtype=torch.float64, generator=random)
    centres = random_edges(n_owned, n_owned, n_edges, ordered=ordered)[0]
    return [torch.nn.functional.normalize(directions), terms, centres]


def truth(directions: torch.Tensor, terms: torch.Tensor, centres: torch.Tensor, n_polynomials: int) -> torch.Tensor:
    """By a loop over all pairs of edges."""
    sums = torch.zeros_like(terms)
    repeats = terms.shape[1] // n_polynomials
    for e in range(len(centres)):
        for other in range(len(centres)):
            if e != other and centres[e] == centres[other]:
                cosine = float(directions[e] @ directions[other])
                for k in range(terms.shape[1]):
                    sums[e, k] += terms[other, k] * eval_legendre(k // repeats, cosine)
    return sums


def reference(inputs: list[torch.Tensor], n_owned: int, n_polynomials: int) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mlip.angle_sums_reference(*inputs, n_owned, n_polynomials)
    return result


def with_gradients(function, inputs, *sizes) -> list[torch.Tensor]:
    """The sums, and the gradients of some number that they give by directions and terms."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs[:2]]
    sums = function([*leaves, inputs[2]], *sizes)
    factors = torch.randn(sums.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(sums.dtype)
    return [sums.detach(), *torch.autograd.grad((factors * sums).sum(), leaves)]


def fused(inputs: list[torch.Tensor], n_owned: int, n_polynomials: int) -> torch.Tensor:
    result: torch.Tensor = sums_of(*inputs, n_owned, n_polynomials)
    return result


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize(("n_polynomials", "repeats"), [(4, 4), (1, 3), (3, 1), (8, 2)])
def test_sums(n_polynomials: int, repeats: int, name: str) -> None:
    """Centres of more edges than a vector holds, of fewer, of one and of none."""
    torch.ops.mlip.use_instruction_set(name)
    for n_edges, n_owned in ((45, 2), (12, 9), (1, 1), (0, 3)):
        inputs = graph(n_edges, n_polynomials * repeats, n_owned)
        found = fused(inputs, n_owned, n_polynomials)
        torch.testing.assert_close(found, truth(*inputs, n_polynomials), rtol=FLOAT64, atol=FLOAT64)
        assert n_edges < 2 or float(found.abs().max()) > 0.1


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize("ordered", [True, False], ids=["in order", "in any order"])
def test_gradients(ordered: bool, name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    for n_edges in (90, 1, 0):
        inputs = graph(n_edges, 8, 4, ordered)
        wanted, found = (with_gradients(function, inputs, 4, 4) for function in (reference, fused))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64)
        torch.testing.assert_close(wanted[0], truth(*inputs, 4), rtol=FLOAT64, atol=FLOAT64)


def test_gradients_are_differences() -> None:
    """The reference, with which the kernels are compared, by finite differences."""
    directions, terms, centres = graph(7, 6, 2)
    torch.autograd.gradcheck(
        lambda u, t: torch.ops.mlip.angle_sums_reference(u, t, centres, 2, 3),
        [x.clone().requires_grad_() for x in (directions, terms)],
    )


def test_straight_angles() -> None:
    """M3GNet clamps their cosines, where no gradient flows, as in a crystal."""
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    inputs = [directions, torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)]
    found = with_gradients(fused, inputs, 1, 2)
    torch.testing.assert_close(found[0][:, 1], torch.tensor([-1 + 1e-7, -1 + 1e-7, 0.0], dtype=torch.float64))
    for a, b in zip(found, with_gradients(reference, inputs, 1, 2), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=FLOAT64)
    assert float(found[1][0, 2]) == 0.0
    assert abs(float(found[1][0, 0])) > 0.1


def test_several_threads() -> None:
    before = torch.get_num_threads()
    inputs = graph(600, 8, 40, ordered=False)
    one = with_gradients(fused, inputs, 40, 4)
    torch.set_num_threads(3)
    try:
        for a, b in zip(with_gradients(fused, inputs, 40, 4), one, strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_float32(name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    inputs = graph(90, 16, 4)
    wanted = with_gradients(reference, inputs, 4, 4)
    found = with_gradients(fused, [inputs[0].float(), inputs[1].float(), inputs[2]], 4, 4)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32 * float(b.abs().max()))


def test_what_it_refuses() -> None:
    directions, terms, centres = graph(4, 6, 2)
    with pytest.raises(IndexError, match=r"angle_sums: an edge has a centre outside \[0, 1\)"):
        sums_of(directions, terms, centres + 1, 1, 3)
    for inputs, message in (
        ([directions[1:], terms, centres, 2, 3], r"directions \[n_edges, 3\] and terms \[n_edges, n_functions\]"),
        ([directions.float(), terms, centres, 2, 3], r"of one floating-point type, found \[4, 3\] of Float"),
        ([directions, terms, centres[1:], 2, 3], r"expected centres \[4\] of Long, found \[3\] of Long"),
        ([directions, terms, centres.int(), 2, 3], r"expected centres \[4\] of Long, found \[4\] of Int"),
        (
            [directions, terms, centres, 2, 4],
            r"1 to 8 polynomials, of each the same number of functions, found 4 and 6",
        ),
        ([directions, terms, centres, 2, 0], r"found 0 and 6"),
        ([directions, terms.repeat(1, 3), centres, 2, 9], r"found 9 and 18"),
        ([directions[:0], terms[:0], centres[:0], -1, 3], "angle_sums: -1 owned atoms, expected 0 or more"),
    ):
        with pytest.raises(RuntimeError, match=message):
            sums_of(*inputs)


def test_no_second_derivative() -> None:
    directions, terms, centres = graph(4, 6, 2)
    leaf = terms.requires_grad_()
    with pytest.raises(NotImplementedError, match="mlip::angle_sums has no second derivative"):
        torch.autograd.grad(sums_of(directions, leaf, centres, 2, 3).sum(), leaf, create_graph=True)
