"""`mlip::adaptive_cutoffs` against metatrain's own solver, with its gradient, and what it refuses."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip(
    "metatrain", reason="the package 'metatrain' is not installed. Type: pip install metatrain --no-deps"
)

from metatrain.pet.modules.adaptive_cutoff import get_adaptive_cutoffs_solver

from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Ten steps converge to rounding; the slope of the bump multiplies it.
FLOAT64, FLOAT32 = 1e-11, 1e-4
N_NEIGHBOURS, CUTOFF, WIDTH = 8.0, 6.0, 1.2
solve = torch.ops.mlip.adaptive_cutoffs


def make(n_edges: list[int], ordered: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and centres, for atoms with these numbers of edges, as in a dense gas."""
    random = torch.Generator().manual_seed(4)
    centres = torch.arange(len(n_edges)).repeat_interleave(torch.tensor(n_edges, dtype=torch.int64))
    volumes = torch.rand(len(centres), generator=random, dtype=torch.float64)
    distances = 0.7 + (CUTOFF - 0.7) * volumes.pow(1 / 3)
    order = torch.arange(len(centres)) if ordered else torch.randperm(len(centres), generator=random)
    return distances[order].requires_grad_(), centres[order]


def truth(distances: torch.Tensor, centres: torch.Tensor, n_atoms: int) -> torch.Tensor:
    result: torch.Tensor = get_adaptive_cutoffs_solver(centres, distances, N_NEIGHBOURS, n_atoms, CUTOFF, WIDTH)
    return result


def found_by(distances: torch.Tensor, centres: torch.Tensor, n_atoms: int) -> torch.Tensor:
    result: torch.Tensor = solve(distances, centres, n_atoms, N_NEIGHBOURS, CUTOFF, WIDTH)[0]
    return result


def compare(n_edges: list[int], ordered: bool = True) -> None:
    distances, centres = make(n_edges, ordered)
    wanted, found = (f(distances, centres, len(n_edges)) for f in (truth, found_by))
    torch.testing.assert_close(found, wanted, rtol=FLOAT64, atol=FLOAT64)
    assert torch.equal(found_by(distances.detach(), centres, len(n_edges)), found)
    factors = torch.rand_like(wanted) + 0.5
    gradients = [torch.autograd.grad((factors * x).sum(), distances)[0] for x in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=FLOAT64, atol=FLOAT64)
    reference = torch.ops.mlip.adaptive_cutoffs_reference(
        distances.detach(), centres, len(n_edges), N_NEIGHBOURS, CUTOFF, WIDTH
    )
    direct = solve(distances.detach(), centres, len(n_edges), N_NEIGHBOURS, CUTOFF, WIDTH)
    for a, b in zip(direct, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_metatrain(name: str) -> None:
    """From atoms with fewer neighbours than wanted to atoms with more than fit the smallest cutoff."""
    torch.ops.mlip.use_instruction_set(name)
    compare([0, 1, 5, 8, 16, 31, 80, 300])


def test_edges_in_any_order_and_none() -> None:
    compare([20, 0, 7, 40], ordered=False)
    compare([0, 0])
    compare([])


def test_several_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compare([70, 0, 90, 40, 120, 80])
    finally:
        torch.set_num_threads(before)


def test_the_gradient_is_the_slope() -> None:
    distances, centres = make([30, 60])
    slopes = torch.autograd.grad(found_by(distances, centres, 2).sum(), distances)[0]
    assert float(slopes.abs().max()) > 0.05
    step = 1e-5
    for edge in slopes.abs().topk(5).indices.tolist():
        change = torch.zeros_like(distances)
        change[edge] = step
        ends = [found_by((distances + sign * change).detach(), centres, 2).sum() for sign in (1, -1)]
        assert float(ends[0] - ends[1]) / (2 * step) == pytest.approx(float(slopes[edge]), rel=1e-6, abs=1e-8)


def test_too_many_neighbours_leave_the_least_cutoff() -> None:
    """A sixteenth of the largest, which does not depend on distances."""
    distances = torch.full((400,), 1e-3, dtype=torch.float64, requires_grad=True)
    centres = torch.zeros(400, dtype=torch.int64)
    wanted, found = (f(distances, centres, 1) for f in (truth, found_by))
    torch.testing.assert_close(found, wanted, rtol=FLOAT64, atol=FLOAT64)
    for result in (wanted, found):
        assert not torch.autograd.grad(result.sum(), distances)[0].any()


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_float32(name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    n_edges = [0, 1, 5, 8, 16, 31, 80]
    distances, centres = make(n_edges)
    wanted = truth(distances, centres, len(n_edges))
    expected = [wanted, *torch.autograd.grad(wanted.sum(), distances)]
    single = distances.detach().float().requires_grad_()
    found = found_by(single, centres, len(n_edges))
    for a, b in zip([found, *torch.autograd.grad(found.sum(), single)], expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32 * float(b.detach().abs().max()))


def test_not_a_number_is_not_lost() -> None:
    distances, centres = make([4, 3])
    with torch.no_grad():
        distances[1] = torch.nan
    assert found_by(distances, centres, 2).isnan().tolist() == [True, False]


def test_what_it_refuses() -> None:
    distances, centres = make([2, 1])
    with pytest.raises(IndexError, match=r"adaptive_cutoffs: an edge has a centre outside \[0, 1\)"):
        found_by(distances, centres, 1)
    expected = r"expected distances \[n_edges\] and centres \[n_edges\] of Long, found \[3\] and "
    with pytest.raises(RuntimeError, match=expected + r"\[2\] of Long"):
        found_by(distances, centres[1:], 2)
    with pytest.raises(RuntimeError, match=expected + r"\[3\] of Int"):
        found_by(distances, centres.int(), 2)
    with pytest.raises(RuntimeError, match="expected n_neighbours, cutoff and width above 0, found 8, 6 and 0"):
        solve(distances, centres, 2, N_NEIGHBOURS, CUTOFF, 0.0)


def test_no_second_derivative() -> None:
    distances, centres = make([20])
    with pytest.raises(NotImplementedError, match="mlip::adaptive_cutoffs has no second derivative"):
        torch.autograd.grad(found_by(distances, centres, 1).sum(), distances, create_graph=True)
