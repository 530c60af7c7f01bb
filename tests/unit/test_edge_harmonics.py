"""`mlip::edge_harmonics`: against e3nn's own harmonics, against torch's operators, and its gradient."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from mlip_deploy.exporters.layers.equivariant import EdgeHarmonics, NotFusible
from mlip_deploy.operators import load_operators

load_operators()

# Harmonics are of order (2l+1)^½ and their slopes of order l (2l+1)^½ / r: below 30 here. e3nn computes in the type of
# its input, the kernel in double.
FLOAT64, FLOAT32 = 1e-12, 1e-4
# Of the random directions and lengths.
SEEDS = range(3)


def vectors(n: int, dtype: torch.dtype = torch.float64, seed: int = 3) -> torch.Tensor:
    """Of lengths 0.5 to 5 Å, the axes and their opposites first."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 3, generator=random, dtype=torch.float64)
    rows = rows / rows.norm(dim=1, keepdim=True) * (0.5 + 4.5 * torch.rand(n, 1, generator=random, dtype=torch.float64))
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    return torch.cat([axes, rows])[:n].to(dtype)


def gradient(function, rows: torch.Tensor) -> torch.Tensor:
    """Of a sum in which every length and every harmonic has its own weight."""
    rows = rows.clone().requires_grad_(True)
    distances, harmonics = function(rows)
    weights = torch.cos(torch.arange(harmonics.numel(), dtype=rows.dtype)).reshape(harmonics.shape)
    (slope,) = torch.autograd.grad((harmonics * weights).sum() + (distances * distances).sum(), rows)
    return slope


def by_e3nn(rows: torch.Tensor, l_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    harmonics = o3.spherical_harmonics(list(range(l_max + 1)), rows, normalize=True, normalization="component")
    return rows.norm(dim=1), harmonics


@pytest.mark.parametrize("l_max", range(7))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_e3nn(l_max: int, dtype: torch.dtype, tolerance: float, seed: int) -> None:
    rows = vectors(700, dtype, seed)  # more than one thread takes
    distances, harmonics = torch.ops.mlip.edge_harmonics(rows, l_max)
    expected_distances, expected = by_e3nn(rows, l_max)
    assert harmonics.shape == (700, (l_max + 1) ** 2)
    torch.testing.assert_close(distances, expected_distances, rtol=tolerance, atol=0)
    torch.testing.assert_close(harmonics, expected, rtol=0, atol=tolerance)
    slope = gradient(lambda r: torch.ops.mlip.edge_harmonics(r, l_max), rows)
    expected_slope = gradient(lambda r: by_e3nn(r, l_max), rows)
    assert expected_slope.abs().max() > 1.0
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=30 * tolerance)


@pytest.mark.parametrize("l_max", [0, 3, 10])
@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_the_reference(l_max: int, seed: int) -> None:
    rows = vectors(40, seed=seed)
    found = torch.ops.mlip.edge_harmonics(rows, l_max)
    torch.testing.assert_close(found, torch.ops.mlip.edge_harmonics_reference(rows, l_max), rtol=0, atol=FLOAT64)
    slope = gradient(lambda r: torch.ops.mlip.edge_harmonics(r, l_max), rows)
    expected = gradient(lambda r: torch.ops.mlip.edge_harmonics_reference(r, l_max), rows)
    torch.testing.assert_close(slope, expected, rtol=0, atol=300 * FLOAT64)


@pytest.mark.parametrize("normalize", [True, False])
def test_directional_and_solid_harmonics_of_models(normalize: bool) -> None:
    """SevenNet's first published model has solid ones."""
    original = o3.SphericalHarmonics(list(range(4)), normalize=normalize, normalization="component")
    rows = vectors(30)
    distances, harmonics = torch.jit.script(EdgeHarmonics(original))(rows)
    torch.testing.assert_close(distances, rows.norm(dim=1), rtol=FLOAT64, atol=0)
    torch.testing.assert_close(harmonics, original(rows), rtol=FLOAT64, atol=FLOAT64)


def test_another_normalisation_is_refused() -> None:
    with pytest.raises(NotFusible, match="normalised by component"):
        EdgeHarmonics(o3.SphericalHarmonics([0, 1], normalize=True, normalization="norm"))


def test_gradient_by_finite_differences() -> None:
    rows = vectors(9).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda r: torch.ops.mlip.edge_harmonics(r, 4), [rows])


def test_squares_of_one_l_add_up() -> None:
    harmonics = torch.ops.mlip.edge_harmonics(vectors(20), 10)[1]
    for l in range(11):  # noqa: E741  the field's letter
        sums = (harmonics[:, l * l : (l + 1) ** 2] ** 2).sum(dim=1)
        torch.testing.assert_close(sums, torch.full_like(sums, 2 * l + 1), rtol=1e-12, atol=0)


def test_no_edges_and_a_missing_direction() -> None:
    distances, harmonics = torch.ops.mlip.edge_harmonics(torch.zeros(0, 3), 3)
    assert distances.shape == (0,)
    assert harmonics.shape == (0, 16)
    distances, harmonics = torch.ops.mlip.edge_harmonics(torch.zeros(1, 3), 1)
    assert distances.tolist() == [0.0]
    assert harmonics.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert torch.isfinite(gradient(lambda r: torch.ops.mlip.edge_harmonics(r, 3), torch.zeros(1, 3))).all()


@pytest.mark.parametrize(
    ("rows", "l_max", "words"),
    [
        (torch.zeros(4, 2), 1, r"vectors are \[4, 2\], expected floating-point \[n_edges, 3\]"),
        (torch.zeros(4, 3, dtype=torch.int64), 1, "expected floating-point"),
        (torch.zeros(4, 3), 11, "l_max is 11, expected 0 to 10"),
    ],
)
def test_wrong_input_is_named(rows: torch.Tensor, l_max: int, words: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=words):
        torch.ops.mlip.edge_harmonics(rows, l_max)
