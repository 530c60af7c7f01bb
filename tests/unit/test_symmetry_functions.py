"""`mlip::symmetry_functions` against TorchANI's own modules, with its gradient, and what it refuses.

The truth is `ANIRadial` and `ANIAngular` of `torchani.aev`, called for every edge and for every pair of edges of a
centre, in float64.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchani", reason="the package 'torchani' is not installed. Type: pip install torchani --no-deps")

from torchani.aev import ANIAngular, ANIRadial

from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of a few hundred numbers of order one.
FLOAT64, FLOAT32 = 1e-12, 1e-5
N_ELEMENTS = 3
CUTOFF = 3.5
"""Å, of the angular functions"""


class Functions:
    """TorchANI's modules, and ours with their constants."""

    def __init__(self, radial: Any, angular: Any):
        self.radial, self.angular = radial.double(), angular.double()

    def truth(self, vectors: Tensor, types: Tensor, edges: Tensor, n_owned: int) -> Tensor:
        n_radial, n_angular = self.radial.num_feats, self.angular.num_feats
        blocks = {pair: k for k, pair in enumerate((a, b) for a in range(N_ELEMENTS) for b in range(a, N_ELEMENTS))}
        distances, neighbours = vectors.norm(dim=1), types[edges[1]].tolist()
        radial = vectors.new_zeros(n_owned * N_ELEMENTS, n_radial)
        radial = radial.index_add(0, edges[0] * N_ELEMENTS + types[edges[1]], self.radial(distances))
        near = [e for e in range(len(vectors)) if distances[e] < CUTOFF]
        pairs = [(j, k) for j, k in combinations(near, 2) if edges[0, j] == edges[0, k]]
        angular = vectors.new_zeros(n_owned * len(blocks), n_angular)
        if pairs:
            sides = torch.tensor(pairs).t()
            rows = [
                int(edges[0, j]) * len(blocks) + blocks[min(a, b), max(a, b)]
                for j, k in pairs
                for a, b in [(neighbours[j], neighbours[k])]
            ]
            angular = angular.index_add(0, torch.tensor(rows), self.angular(distances[sides], vectors[sides]))
        return torch.cat([radial.view(n_owned, -1), angular.view(n_owned, len(blocks) * n_angular)], dim=1)

    def ours(self, vectors: Tensor, types: Tensor, edges: Tensor, n_owned: int, **other: Any) -> Tensor:
        constants = [self.radial.eta, self.radial.cutoff, self.angular.eta, self.angular.zeta, self.angular.cutoff]
        arguments = {
            "n_elements": N_ELEMENTS,
            "radial_shifts": self.radial.shifts.tolist(),
            "angular_shifts": self.angular.shifts.tolist(),
            "sections": self.angular.sections.tolist(),
            "constants": [float(one) for one in constants],
        }
        result: Tensor = torch.ops.mlip.symmetry_functions(vectors, types, edges, n_owned, **{**arguments, **other})
        return result


ANI_2X = Functions(ANIRadial.like_2x(), ANIAngular.like_2x())
ANI_1X = Functions(ANIRadial.like_1x(), ANIAngular.like_1x())
ODD = Functions(
    ANIRadial(4.0, [1.0, 1.7, 2.4, 3.1, 3.8], cutoff=5.2),
    ANIAngular(3.0, 1.0, [1.0, 2.0, 2.5], [0.3, 1.5, 3.0], CUTOFF),
)
"""numbers of functions that no vector divides, and ζ = 1"""


def graph(n_owned: int, n_edges: int, ordered: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, types of nodes, edges; on both sides of the angular cutoff."""
    random = torch.Generator().manual_seed(3)
    directions = torch.randn(n_edges, 3, generator=random, dtype=torch.float64)
    lengths = 0.7 + 4.4 * torch.rand(n_edges, 1, generator=random, dtype=torch.float64)
    centres = torch.randint(n_owned, (n_edges,), generator=random)
    neighbours = torch.randint(n_owned + 4, (n_edges,), generator=random)
    types = torch.randint(N_ELEMENTS, (n_owned + 4,), generator=random)
    vectors = directions / directions.norm(dim=1, keepdim=True) * lengths
    return vectors, types, torch.stack([centres.sort()[0] if ordered else centres, neighbours])


def star(*vectors: list[float], types: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One centre with neighbours at these vectors."""
    n = len(vectors)
    edges = torch.stack([torch.zeros(n, dtype=torch.int64), torch.arange(1, n + 1)])
    of_nodes = [0, *types] if types else [k % N_ELEMENTS for k in range(n + 1)]
    return torch.tensor(vectors, dtype=torch.float64), torch.tensor(of_nodes), edges


def compare(functions: Functions, given: tuple[Tensor, Tensor, Tensor], n_owned: int) -> tuple[Tensor, Tensor]:
    """Both are equal, with the gradient of a sum in which every function has its own weight; returns ours."""
    vectors, *rest = given
    vectors = vectors.clone().requires_grad_()
    wanted, found = functions.truth(vectors, *rest, n_owned), functions.ours(vectors, *rest, n_owned)
    torch.testing.assert_close(found, wanted, rtol=0, atol=FLOAT64)
    factors = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = torch.autograd.grad((factors * wanted).sum(), vectors)[0]
    gradient = torch.autograd.grad((factors * found).sum(), vectors)[0]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=FLOAT64)
    return found.detach(), gradient


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
@pytest.mark.parametrize("functions", [ANI_1X, ANI_2X, ODD], ids=["1x", "2x", "odd"])
def test_every_instruction_set_equals_torchani(functions: Functions, name: str) -> None:
    """Atoms with few and with many neighbours, in any order of the edges."""
    torch.ops.mlip.use_instruction_set(name)
    features, gradient = compare(functions, graph(5, 160), 5)
    assert features.max() > 1.0
    assert gradient.abs().max() > 1.0
    compare(functions, graph(20, 60, ordered=False), 20)


def test_atoms_with_no_neighbour_with_one_and_with_two() -> None:
    for n_edges in (0, 1, 2):
        compare(ANI_2X, graph(3, n_edges), 3)
    features = ANI_2X.ours(*graph(3, 0), 3)
    assert features.shape == (3, 3 * 16 + 6 * 32)
    assert not features.any()
    # a rank without atoms
    assert ANI_2X.ours(
        torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64), 0
    ).shape == (0, 240)


def test_neighbours_in_a_line() -> None:
    for vectors in ([[1.0, 0.0, 0.0], [-1.2, 0.0, 0.0]], [[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]):
        for types in ([1, 1], [2, 1]):
            features, gradient = compare(ANI_2X, star(*vectors, types=types), 1)
            assert features[0, 48:].any()
            assert gradient.isfinite().all()


def test_an_angle_whose_function_is_zero() -> None:
    """The logarithm behind a power has no value there."""
    angle = math.acos(0.95 * 0.6)
    opposite = Functions(ANIRadial.like_2x(), ANIAngular(12.5, 14.1, [1.0], [angle + math.pi], CUTOFF))
    features, gradient = compare(opposite, star([1.0, 0.0, 0.0], [0.6, 0.8, 0.0]), 1)
    assert features[0, 48:].abs().max() < FLOAT64
    assert gradient.isfinite().all()


def test_edges_between_both_cutoffs_make_no_angle() -> None:
    beyond = star([CUTOFF + 1e-9, 0.0, 0.0], [0.0, 2.0, 0.0])
    features, _ = compare(ANI_2X, beyond, 1)
    assert not features[0, 48:].any()
    assert features[0, :48].any()
    within, _ = compare(ANI_2X, star([CUTOFF - 1e-9, 0.0, 0.0], [0.0, 2.0, 0.0]), 1)
    torch.testing.assert_close(within, features, rtol=0, atol=1e-8)


def test_float32() -> None:
    """As near to float64 as torch's own operators are."""
    vectors, *rest = graph(5, 160)
    wanted = ANI_2X.ours(vectors, *rest, 5)
    found = ANI_2X.ours(vectors.float(), *rest, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=FLOAT32)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    vectors, *rest = graph(40, 900)
    vectors.requires_grad_()
    results = []
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            features = ANI_2X.ours(vectors, *rest, 40)
            results.append((features, torch.autograd.grad(features.square().sum(), vectors)[0]))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_the_pass_back_runs_again() -> None:
    """As heat fluxes need it, one atom's energy after the other."""
    vectors, *rest = graph(4, 50)
    vectors.requires_grad_()
    features = ANI_2X.ours(vectors, *rest, 4)
    rows = [torch.autograd.grad(features[i].sum(), vectors, retain_graph=True)[0] for i in range(4)]
    whole = torch.autograd.grad(features.sum(), vectors)[0]
    torch.testing.assert_close(sum(rows), whole, rtol=0, atol=FLOAT64)


def test_no_second_derivative() -> None:
    vectors, *rest = graph(2, 9)
    features = ANI_2X.ours(vectors.requires_grad_(), *rest, 2)
    with pytest.raises(NotImplementedError, match="mlip::symmetry_functions has no second derivative"):
        torch.autograd.grad(features.sum(), vectors, create_graph=True)


def test_what_it_refuses() -> None:
    vectors, types, edges = graph(3, 8)
    with pytest.raises(IndexError, match=r"a centre outside \[0, 3\) or a neighbour outside \[0, 7\)"):
        ANI_2X.ours(vectors, types, edges + 3, 3)
    with pytest.raises(IndexError, match=r"a node has a type outside \[0, 2\)"):
        ANI_2X.ours(vectors, types, edges, 3, n_elements=2)
    with pytest.raises(RuntimeError, match=r"expected floating-point edge_vectors \[8, 3\], found Double \[7, 3\]"):
        ANI_2X.ours(vectors[:7], types, edges, 3)
    with pytest.raises(RuntimeError, match=r"expected edge_index int64 \[2, n_edges\], found Int"):
        ANI_2X.ours(vectors, types, edges.int(), 3)
    with pytest.raises(RuntimeError, match="expected node_types int64 of 3 nodes or more"):
        ANI_2X.ours(vectors, types[:2], edges, 3)
    with pytest.raises(RuntimeError, match="found 0 radial shifts, 8 angular shifts and 4 sections"):
        ANI_2X.ours(vectors, types, edges, 3, radial_shifts=[])
    with pytest.raises(RuntimeError, match="expected 5 constants, found 2"):
        ANI_2X.ours(vectors, types, edges, 3, constants=[1.0, 2.0])
    with pytest.raises(RuntimeError, match="the angular cutoff 6 has to be above zero and no longer than"):
        ANI_2X.ours(vectors, types, edges, 3, constants=[19.7, 5.1, 12.5, 14.1, 6.0])
