"""`mlip::token_attention` against the formula atom by atom, with its gradient, and what it refuses.

The truth is softmax(scale q kᵀ + log weights) v of each atom's tokens and each head, in float64 by torch.
"""

from __future__ import annotations

import pytest
import torch

from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of a few hundred products of numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-4
SCALE = 0.4
attend = torch.ops.mlip.token_attention


def make(n_edges: list[int], n_heads: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Projected rows, logarithms of weights and centres, for atoms with these numbers of edges.

    Weights go down to that of an edge at its cutoff.
    """
    torch.manual_seed(2)
    centres = torch.arange(len(n_edges)).repeat_interleave(torch.tensor(n_edges, dtype=torch.int64))
    projected = torch.randn(len(n_edges) + len(centres), 3 * n_heads * width, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(centres), dtype=torch.float64)
    weights[::5] = 1e-15
    return projected, weights.log().requires_grad_(), centres


def truth(projected: torch.Tensor, log_weights: torch.Tensor, centres: torch.Tensor, n_heads: int) -> torch.Tensor:
    n_atoms = len(projected) - len(centres)
    rows = projected.view(len(projected), 3, n_heads, -1)
    result = torch.zeros_like(rows[:, 0])
    for atom in range(n_atoms):
        edges = torch.nonzero(centres == atom).squeeze(1)
        tokens = torch.cat([torch.tensor([atom]), n_atoms + edges])
        queries, keys, values = rows[tokens].unbind(1)
        scores = SCALE * torch.einsum("shu,thu->hst", queries, keys)
        scores = scores + torch.cat([log_weights.new_zeros(1), log_weights[edges]])
        attended = torch.einsum("hst,thu->shu", torch.softmax(scores, dim=2), values)
        result = result.index_add(0, tokens, attended)
    return result.flatten(1)


def compare(n_edges: list[int], n_heads: int = 2, width: int = 5) -> None:
    projected, log_weights, centres = make(n_edges, n_heads, width)
    wanted = truth(projected, log_weights, centres, n_heads)
    found = attend(projected, log_weights, centres, n_heads, SCALE)
    torch.testing.assert_close(found, wanted, rtol=FLOAT64, atol=FLOAT64)
    assert torch.equal(attend(projected.detach(), log_weights.detach(), centres, n_heads, SCALE), found)
    factors = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((factors * x).sum(), [projected, log_weights]) for x in (found, wanted)]
    for name, a, b in zip(("projected", "log_weights"), *gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_the_formula(name: str) -> None:
    """With heads of whole vectors, of vectors and a rest, and of less than one vector."""
    torch.ops.mlip.use_instruction_set(name)
    for width in (16, 21, 3):
        for n_heads in (1, 3):
            compare([17, 0, 1, 6, 8, 31], n_heads, width)


def test_atoms_without_edges_and_with_many() -> None:
    compare([0, 0, 3, 0])
    compare([0])
    compare([300])
    compare([1])


def test_no_atoms() -> None:
    """As on a rank that owns none."""
    projected, log_weights, centres = make([], 2, 5)
    assert attend(projected, log_weights, centres, 2, SCALE).shape == (0, 10)


def test_several_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        compare([40, 0, 70, 1, 90, 13, 0, 55])
    finally:
        torch.set_num_threads(before)


def test_large_scores() -> None:
    """Whose exponentials have no number in float32."""
    projected, log_weights, centres = make([12, 3], 2, 5)
    projected = (100 * projected).detach().float()
    found = attend(projected, log_weights.float(), centres, 2, SCALE)
    wanted = truth(projected.double(), log_weights.float().double(), centres, 2)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=FLOAT32 * float(wanted.detach().abs().max()))


def test_not_a_number_is_not_lost() -> None:
    projected, log_weights, centres = make([3, 2], 2, 5)
    with torch.no_grad():
        projected[3, 0] = torch.nan  # a query of the first atom's second edge
    found = attend(projected, log_weights, centres, 2, SCALE)
    assert found[3, :5].isnan().all()
    assert found.isfinite().all(dim=1).tolist() == [True, True, True, False, True, True, True]


def test_several_passes_back() -> None:
    projected, log_weights, centres = make([4, 2], 2, 5)
    result = attend(projected, log_weights, centres, 2, SCALE)
    rows = [torch.autograd.grad(row.sum(), [projected, log_weights], retain_graph=True) for row in result]
    whole = torch.autograd.grad(result.sum(), [projected, log_weights])
    for k, of_whole in enumerate(whole):
        torch.testing.assert_close(sum(row[k] for row in rows), of_whole, rtol=FLOAT64, atol=FLOAT64)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_float32(name: str) -> None:
    torch.ops.mlip.use_instruction_set(name)
    projected, log_weights, centres = make([17, 0, 1, 6, 31], 3, 21)
    wanted = truth(projected, log_weights, centres, 3)
    factors = torch.randn_like(wanted)
    expected = [wanted, *torch.autograd.grad((factors * wanted).sum(), [projected, log_weights])]
    single = [x.detach().float().requires_grad_() for x in (projected, log_weights)]
    result = attend(*single, centres, 3, SCALE)
    for a, b in zip([result, *torch.autograd.grad((factors.float() * result).sum(), single)], expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=FLOAT32 * float(b.detach().abs().max()))


def test_what_it_refuses() -> None:
    projected, log_weights, centres = make([2, 1], 2, 5)
    for change, message in (
        ({"projected": projected[:, 1:]}, "29 channels are not queries, keys and values of 2 equal heads"),
        ({"n_heads": 0}, "30 channels are not queries, keys and values of 0 equal heads"),
        ({"projected": projected[0]}, r"expected projected \[n_tokens, channels\] and log_weights \[n_edges\], found"),
        ({"log_weights": log_weights.float()}, "expected log_weights of Double, found Float"),
        ({"log_weights": log_weights[1:]}, r"expected centres \[2\] of Long, found \[3\] of Long"),
        ({"centres": centres.int()}, r"expected centres \[3\] of Long, found \[3\] of Int"),
        ({"projected": projected[:2]}, "2 tokens are fewer than 3 edges"),
        ({"centres": centres.flip(0)}, "expected edges in the order of their centres"),
    ):
        given = {"projected": projected, "log_weights": log_weights, "centres": centres, "n_heads": 2} | change
        with pytest.raises(RuntimeError, match=message):
            attend(**given, scale=SCALE)
    with pytest.raises(IndexError, match=r"token_attention: an edge has a centre outside \[0, 2\)"):
        attend(projected, log_weights, centres + 1, 2, SCALE)


def test_no_second_derivative() -> None:
    projected, log_weights, centres = make([2, 1], 2, 5)
    result = attend(projected, log_weights, centres, 2, SCALE)
    with pytest.raises(NotImplementedError, match="mlip::token_attention has no second derivative"):
        torch.autograd.grad(result.sum(), projected, create_graph=True)
