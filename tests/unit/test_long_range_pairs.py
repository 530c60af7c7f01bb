"""`mlip::long_range_pairs` against SO3LR's own electrostatics and dispersion, with its gradient, and what it refuses.

The truth is `so3krates_torch`: ElectrostaticInteraction and DispersionInteraction, in float64.
"""

from __future__ import annotations

import pytest
import torch
from random_edges import random_edges

pytest.importorskip(
    "so3krates_torch", reason="the package 'so3krates_torch' is not installed. Type: pip install so3krates-torch"
)

from so3krates_torch.blocks import physical_potentials as original

from mlip_deploy.exporters.families.so3lr.pair_terms import Dispersion, Electrostatics, FusedPairs
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

FLOAT64, FLOAT32 = 1e-13, 1e-5
"""Relative to the largest value: seen were 4e-15 and 6e-7."""
NUMBERS = torch.tensor([1, 8, 16])
KE, SMEARING, SCALE, SWITCHING = 14.399645351950548, 4.0, 1.2, 2.0
N_NODES = 9
NAMES = ("charges", "ratios", "distances")


class Case:
    """Pairs up to a cutoff, Å, of charges with a smearing, Å."""

    def __init__(self, cutoff: float = 12.0, smearing: float = SMEARING, dtype: torch.dtype = torch.float64) -> None:
        self.cutoff, self.smearing = cutoff, smearing
        alphas, c6 = (table[NUMBERS - 1].to(dtype) for table in (original.ALPHAS, original.C6_COEF))
        dispersion = Dispersion(alphas, c6, SCALE, cutoff, SWITCHING, original.BOHR, original.HARTREE)
        self.fused = FusedPairs(Electrostatics(KE, smearing, cutoff), dispersion)
        self.types = torch.arange(N_NODES) % len(NUMBERS)

    def inputs(self, n_edges: int) -> list[torch.Tensor]:
        """Those of NAMES."""
        random = torch.Generator().manual_seed(1)
        charges, ratios = (torch.rand(N_NODES, generator=random, dtype=torch.float64) for _ in range(2))
        distances = 0.8 + (self.cutoff - 0.8) * torch.rand(n_edges, generator=random, dtype=torch.float64)
        return [x.requires_grad_() for x in (charges - 0.5, 0.5 + ratios, distances)]

    def truth(self, inputs: list[torch.Tensor], edges: torch.Tensor, n_owned: int) -> torch.Tensor:
        charges, ratios, distances = inputs
        others = (edges[1], edges[0], distances.unsqueeze(1), N_NODES)
        with default_dtype(torch.float64):
            coulomb = original.ElectrostaticInteraction(ke=KE)(charges, *others, self.cutoff, self.smearing)
            numbers = NUMBERS[self.types]
            dispersion = original.DispersionInteraction()(ratios, numbers, *others, self.cutoff, SWITCHING, SCALE)
        result: torch.Tensor = (coulomb + dispersion).squeeze(1)[:n_owned]
        return result

    def found(self, inputs: list[torch.Tensor], edges: torch.Tensor, n_owned: int) -> torch.Tensor:
        charges, ratios, distances = inputs
        result: torch.Tensor = self.fused(charges, ratios, self.types, n_owned, edges, distances)
        return result


def graph(n_owned: int, n_edges: int, ordered: bool = True) -> torch.Tensor:
    """With centres of one edge and of none, where there are more of them than edges."""
    return random_edges(n_owned, N_NODES, n_edges, seed=2, ordered=ordered)


def assert_near(found: torch.Tensor, expected: torch.Tensor, relative: float, what: str) -> None:
    assert found.shape == expected.shape, what
    scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
    difference = float((found - expected).detach().abs().max()) if expected.numel() else 0.0
    assert difference <= relative * scale, (what, difference, scale)


def compare(case: Case, n_owned: int, n_edges: int, ordered: bool = True) -> None:
    edges, inputs = graph(n_owned, n_edges, ordered), case.inputs(n_edges)
    wanted, found = case.truth(inputs, edges, n_owned), case.found(inputs, edges, n_owned)
    assert_near(found, wanted, FLOAT64, "energies")
    factors = torch.randn_like(wanted)
    expected = torch.autograd.grad((factors * wanted).sum(), inputs)
    for name, a, b in zip(NAMES, torch.autograd.grad((factors * found).sum(), inputs), expected, strict=True):
        assert_near(a, b, FLOAT64, name)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_so3krates(name: str) -> None:
    """Atoms with whole vectors of edges and some left over; cutoffs with the error function at 1 and below."""
    torch.ops.mlip.use_instruction_set(name)
    for cutoff in (7.0, 12.0, 30.0):
        compare(Case(cutoff), n_owned=7, n_edges=300)


def test_edges_in_any_order_and_none() -> None:
    case = Case()
    compare(case, n_owned=7, n_edges=100, ordered=False)
    compare(case, n_owned=9, n_edges=5, ordered=False)
    for n_edges in (0, 1):
        compare(case, n_owned=3, n_edges=n_edges)


@pytest.mark.parametrize("smearing", [4.0, 3.7, 0.9])
def test_near_the_ends_of_what_switches(smearing: float) -> None:
    """Where the switching functions begin and end, and at the cutoff, where the slope is zero."""
    case = Case(smearing=smearing)
    ends = torch.tensor([5.4, 10.0, 12.0], dtype=torch.float64)
    distances = torch.cat([ends + x for x in (-0.05, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.05)])
    distances = distances[distances <= case.cutoff]
    edges = torch.zeros(2, len(distances), dtype=torch.int64)
    edges[1] = 1
    inputs = [*case.inputs(0)[:2], distances.requires_grad_()]
    results = [x.sum() for x in (case.found(inputs, edges, 1), case.truth(inputs, edges, 1))]
    found, expected = (torch.autograd.grad(x, inputs)[2] for x in results)
    assert_near(found, expected, FLOAT64, "slopes")
    assert float(found[distances == case.cutoff].abs()) < FLOAT64 < float(found.abs().max())


def test_no_atoms() -> None:
    """As on a rank that owns none."""
    assert Case().found(Case().inputs(0), graph(1, 0), 0).shape == (0,)


def test_float32() -> None:
    edges, inputs = graph(7, 300), Case().inputs(300)
    wanted = Case().truth(inputs, edges, 7)
    singles = [x.detach().float().requires_grad_() for x in inputs]
    found = Case(dtype=torch.float32).found(singles, edges, 7)
    assert found.dtype == torch.float32
    assert_near(found.double(), wanted, FLOAT32, "energies")
    expected = torch.autograd.grad(wanted.sum(), inputs)
    for name, a, b in zip(NAMES, torch.autograd.grad(found.sum(), singles), expected, strict=True):
        assert_near(a.double(), b, FLOAT32, name)


def test_what_it_refuses() -> None:
    case, edges = Case(), graph(3, 4)
    charges, ratios, distances = case.inputs(4)
    with pytest.raises(IndexError, match=r"long_range_pairs: an edge has a centre outside \[0, 3\)"):
        case.found([charges, ratios, distances], edges + 3, 3)
    with pytest.raises(RuntimeError, match=r"expected distances \[4\] of Double, found \[3\]"):
        case.found([charges, ratios, distances[1:]], edges, 3)
    with pytest.raises(RuntimeError, match=r"expected polarizabilities \[9\] of Float"):
        case.found([charges.float(), ratios, distances], edges, 3)
    case.fused.constants = case.fused.constants[1:]
    with pytest.raises(RuntimeError, match="expected 15 constants, found 14"):
        case.found([charges, ratios, distances], edges, 3)


def test_no_second_derivative() -> None:
    case = Case()
    inputs = case.inputs(4)
    with pytest.raises(NotImplementedError, match="mlip::long_range_pairs has no second derivative"):
        torch.autograd.grad(case.found(inputs, graph(3, 4), 3).sum(), inputs, create_graph=True)
