"""`mlip::environment_product` against Allegro's own modules, with its gradient, and what it refuses.

The truth is `allegro`: weighted harmonics, their sum over the edges of an atom, and its Contracter, in float64.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("allegro", reason="the package 'nequip-allegro' is not installed. Type: pip install nequip-allegro")

from allegro.nn._strided import Contracter, MakeWeightedChannels
from e3nn.o3 import Irreps

from mlip_deploy.exporters.families.nequip.allegro import BY_COMPONENT, EnvironmentProduct, _blocks
from mlip_deploy.exporters.settings import default_dtype
from mlip_deploy.operators import load_operators

load_operators()
pytestmark = pytest.mark.usefixtures("fastest_instruction_set")

# Sums of a few hundred products of numbers of order one.
FLOAT64, FLOAT32 = 1e-11, 1e-3
FACTOR = 0.3
FIRST, LATER, LAST = ("0e+1o+2e", "0e+1o+2e"), ("0e+1o+1e+2e", "0e+1o+2o"), ("0e+1o+2e", "0e")
"""irreps of features and product: a layer of weighted harmonics, one with odd irreps of even l, one to scalars alone"""


class Case:
    """Allegro's modules, and ours made of them."""

    def __init__(self, irreps: tuple[str, str], channels: int, weighted: bool = False, **options: Any) -> None:
        torch.manual_seed(1)
        self.irreps, self.channels, self.weighted = Irreps("0e+1o+2e"), channels, weighted
        individual = options.pop("individual", True)
        with default_dtype(torch.float64):
            self.weighting = MakeWeightedChannels(self.irreps, channels, weight_individual_irreps=individual)
            self.contracter = Contracter(Irreps(irreps[0]), self.irreps, Irreps(irreps[1]), channels, **options)
        blocks = _blocks(self.weighting, self.irreps)
        self.fused = EnvironmentProduct(self.contracter, FACTOR, blocks if weighted else BY_COMPONENT, blocks)

    def inputs(self, n_edges: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        """Features, weights, harmonics."""
        n_blocks = self.weighting.weight_numel // self.channels
        n_features = n_blocks if self.weighted else self.contracter.base_dim1
        shapes = [(n_edges, n_features, self.channels), (n_edges, n_blocks, self.channels), (n_edges, self.irreps.dim)]
        return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]

    def truth(self, features: Any, weights: Any, harmonics: Any, edges: torch.Tensor, n_owned: int) -> torch.Tensor:
        def weigh(factors: torch.Tensor) -> torch.Tensor:  # which are [n_edges, blocks, channels] here
            result: torch.Tensor = self.weighting(harmonics, factors.transpose(1, 2).flatten(1))
            return result

        x = weigh(features) if self.weighted else features.transpose(1, 2).contiguous()
        environment = x.new_zeros(n_owned, self.channels, self.irreps.dim).index_add(0, edges[0], weigh(weights))
        result: torch.Tensor = self.contracter(x, FACTOR * environment, edges[0]).transpose(1, 2)
        return result


def graph(n_owned: int, n_edges: int, ordered: bool = True) -> torch.Tensor:
    """With centres of one edge and of none, where there are more of them than edges."""
    centres = torch.randint(0, n_owned, (n_edges,), generator=torch.Generator().manual_seed(2))
    return torch.stack([centres.sort()[0] if ordered else centres, centres])


def compare(case: Case, n_owned: int, n_edges: int, ordered: bool = True) -> None:
    edges, inputs = graph(n_owned, n_edges, ordered), case.inputs(n_edges)
    wanted = case.truth(*inputs, edges, n_owned)
    product, scalars = case.fused(*inputs, edges, n_owned)
    for found, expected in ((product, wanted), (scalars, wanted[:, 0])):
        torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT64)
    factors, more = torch.randn_like(wanted), torch.randn_like(scalars)
    expected = torch.autograd.grad((factors * wanted).sum() + (more * wanted[:, 0]).sum(), inputs)
    found = torch.autograd.grad((factors * product).sum() + (more * scalars).sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("name", torch.ops.mlip.instruction_sets())
def test_every_instruction_set_equals_allegro(name: str) -> None:
    """With whole vectors of channels and some left over; atoms with few and with many edges."""
    torch.ops.mlip.use_instruction_set(name)
    for irreps, weighted in ((FIRST, True), (LATER, False), (LAST, False)):
        for channels in (1, 21, 32):
            compare(Case(irreps, channels, weighted), n_owned=9, n_edges=70)


@pytest.mark.parametrize(
    "options",
    [{"path_channel_coupling": False}, {"individual": False}],
    ids=["one weight a path", "one weight a channel"],
)
def test_other_weights(options: dict[str, Any]) -> None:
    for irreps, weighted in ((FIRST, True), (LAST, False)):
        compare(Case(irreps, 6, weighted, **options), n_owned=4, n_edges=30)


def test_one_path() -> None:
    compare(Case(("2e", "0e"), 5), n_owned=4, n_edges=30)


def test_edges_in_any_order_and_none() -> None:
    case = Case(FIRST, 5, weighted=True)
    compare(case, n_owned=6, n_edges=40, ordered=False)
    compare(case, n_owned=50, n_edges=20, ordered=False)
    compare(case, n_owned=3, n_edges=0)


def test_float32() -> None:
    case = Case(FIRST, 21, weighted=True)
    edges, inputs = graph(4, 60), case.inputs(60)
    wanted = case.truth(*inputs, edges, 4)
    product, _ = case.fused.float()(*[x.float() for x in inputs], edges, 4)
    assert product.dtype == torch.float32
    torch.testing.assert_close(product.double(), wanted, rtol=0, atol=FLOAT32)


def test_what_it_refuses() -> None:
    case = Case(FIRST, 5, weighted=True)
    fused = case.fused
    features, weights, harmonics = case.inputs(4)
    edges = torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(IndexError, match=r"a centre outside \[0, 3\)"):
        fused(features, weights, harmonics, edges + 3, 3)
    with pytest.raises(RuntimeError, match="blocks of 9 components do not fit"):
        fused(features[:, :2], weights, harmonics, edges, 3)
    with pytest.raises(RuntimeError, match="must have one type"):
        fused(features.float(), weights, harmonics, edges, 3)
    with pytest.raises(RuntimeError, match=r"expected features and weights \[4, "):
        fused(features[:3], weights, harmonics, edges, 3)
    lists = fused.feature_blocks, fused.weight_blocks
    for terms in ([0, 0, 0, 9, 0, 0], [1, 0, 0, 0, 0, 0]):
        with pytest.raises(RuntimeError, match="term 1 does not fit 9 and 9 components, or is out of order"):
            torch.ops.mlip.environment_product(
                features, weights, harmonics, edges, 3, terms, fused.coefficients[:2], *lists
            )


def test_no_second_derivative() -> None:
    case = Case(LAST, 5)
    inputs = case.inputs(4)
    _, scalars = case.fused(*inputs, torch.zeros(2, 4, dtype=torch.int64), 1)
    with pytest.raises(NotImplementedError, match="mlip::environment_product has no second derivative"):
        torch.autograd.grad(scalars.sum(), inputs, create_graph=True)
