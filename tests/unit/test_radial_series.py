"""Radial networks as Chebyshev series: the tolerances between the nodes, slopes included, and what is not smooth."""

import pytest
import torch

from mlip_deploy.exporters.layers.radial_series import SHORTEST, radial_series
from mlip_deploy.exporters.layers.radial_table import SLOPE_TOLERANCE, VALUE_TOLERANCE

CUTOFF = 4.5


def network(r):
    """Forty different functions, as a perceptron has."""
    k = torch.linspace(0.1, 2.0, 40, dtype=torch.float64)
    return torch.tanh(torch.sin(k * r.unsqueeze(1))) - torch.exp(-k * r.unsqueeze(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_slopes(dtype):
    series, matrix = radial_series(network, CUTOFF, dtype)
    n_terms, n_functions = series.coefficients.shape
    assert n_functions < n_terms
    assert matrix.shape == (n_functions, 40)
    r = SHORTEST + (CUTOFF - SHORTEST) * torch.rand(
        500, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    series.kind = series.kind.double()  # the series alone, without the rounding of its result

    def slope(function):
        return torch.func.jvp(function, (r,), (torch.ones_like(r),))

    found, expected = slope(lambda q: series(q) @ matrix), slope(network)
    for given, wanted, tolerance in zip(found, expected, (VALUE_TOLERANCE, SLOPE_TOLERANCE), strict=True):
        # the tolerances hold at the points that were looked at, and within a factor between them
        assert (given - wanted).abs().max() <= 2.0 * tolerance[dtype] * wanted.abs().max()


def test_the_result_has_the_models_type():
    series, _ = radial_series(network, CUTOFF, torch.float32)
    assert series(torch.tensor([1.0, 0.0, CUTOFF])).dtype == torch.float32
    assert series(torch.tensor([0.0, CUTOFF])).isfinite().all()


def test_a_kink_is_no_series():
    assert radial_series(lambda r: (r - 2.0).abs().unsqueeze(1), CUTOFF, torch.float32) is None
