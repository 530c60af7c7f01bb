"""Radial networks as sums of a few functions of the distance, each a Chebyshev series.

All networks of a model depend on one distance and are smooth, so that a few dozen functions span them: products with a
small matrix stand in for perceptrons.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.radial_table import SHORTEST, SLOPE_TOLERANCE, VALUE_TOLERANCE

TERMS = (32, 48, 64, 80, 96, 128)
NODES = 512
"""where the networks are evaluated"""
START = 0.4
"""Å: nearer the functions are constant; the tolerances are met from SHORTEST on"""
MARGIN = 1.01
"""The series reach beyond the cutoff by this factor: the slope of the angle is infinite at their ends."""


def radial_series(
    weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype
) -> tuple["RadialSeries", Tensor] | None:
    """Functions of the distance, and the matrix that makes the weights of them.

    Args:
        weights: float64 distances [n] in Å -> [n, n_weights]; smooth beyond the cutoff, too.
        cutoff: Å.
        dtype: in which the model computes; it decides the tolerances.

    Returns:
        the functions, and a matrix [n_functions, n_weights] in float64; None when the weights are not smooth enough.
    """
    end = MARGIN * cutoff
    angles = (torch.arange(NODES, dtype=torch.float64) + 0.5) * (math.pi / NODES)
    values = weights(0.5 * (angles.cos() + 1.0) * (end - START) + START)
    tests = torch.linspace(SHORTEST, cutoff, 2 * NODES, dtype=torch.float64)
    value, slope = _with_slope(weights, tests)
    value_limit = VALUE_TOLERANCE[dtype] * float(value.abs().max())
    slope_limit = SLOPE_TOLERANCE[dtype] * float(slope.abs().max())

    def fits(series: RadialSeries, matrix: Tensor) -> bool:
        found, found_slope = _with_slope(lambda r: series(r) @ matrix, tests)
        within = float((found - value).abs().max()) <= value_limit
        return within and float((found_slope - slope).abs().max()) <= slope_limit

    for n_terms in TERMS:
        orders = torch.arange(n_terms, dtype=torch.float64)
        coefficients = torch.cos(orders.unsqueeze(1) * angles) @ values * (2.0 / NODES)
        coefficients[0] *= 0.5
        left, singular, right = torch.linalg.svd(coefficients, full_matrices=False)
        if not fits(RadialSeries(left, end, torch.float64), singular.unsqueeze(1) * right):
            continue
        rank = next(
            rank
            for rank in [*range(16, left.shape[1], 4), left.shape[1]]
            if rank == left.shape[1]
            or fits(RadialSeries(left[:, :rank], end, torch.float64), singular[:rank].unsqueeze(1) * right[:rank])
        )
        matrix = singular[:rank].unsqueeze(1) * right[:rank]
        return RadialSeries(left[:, :rank].contiguous(), end, dtype), matrix
    return None


def _with_slope(function: Callable[[Tensor], Tensor], r: Tensor) -> tuple[Tensor, Tensor]:
    from torch.func import jvp

    found = jvp(function, (r,), (torch.ones_like(r),))
    return found[0].detach(), found[1].detach()


class RadialSeries(nn.Module):
    """Functions of the distance.

    Args:
        coefficients: float64 [n_terms, n_functions], of Chebyshev polynomials.
        end: of the series, Å.
        dtype: of the result; angles are float64, since high orders multiply their rounding.
    """

    coefficients: Tensor
    orders: Tensor
    kind: Tensor

    def __init__(self, coefficients: Tensor, end: float, dtype: torch.dtype):
        super().__init__()
        self.end = end
        self.start: float = START
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("orders", torch.arange(coefficients.shape[0], dtype=torch.float64))
        self.register_buffer("kind", torch.zeros(0, dtype=dtype))

    def forward(self, distances: Tensor) -> Tensor:
        """Distances [n] in Å to functions [n, n_functions]."""
        r = distances.to(torch.float64).clamp(self.start, self.end)
        x = (2.0 * (r - self.start) / (self.end - self.start) - 1.0).clamp(-1.0 + 1e-9, 1.0 - 1e-9)
        polynomials = torch.cos(torch.acos(x).unsqueeze(1) * self.orders)
        return (polynomials @ self.coefficients).to(self.kind.dtype)
