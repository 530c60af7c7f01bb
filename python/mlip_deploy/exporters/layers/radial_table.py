"""A radial network as a table over distance: polynomials of degree five between knots, from its derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor

VALUE_TOLERANCE = {torch.float32: 1e-7, torch.float64: 1e-9}

SLOPE_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-8}
"""Largest error of a tabulated weight and of its derivative, relative to the largest weight and derivative. Those of
float32 are the network's own rounding; those of float64 keep forces within 1e-8 eV/Å (artifact/tolerances.py)."""

INTERVALS = (100, 120, 140, 170, 200, 230, 270, 320, 370, 430, 500, 600, 700, 850, 1000, 1200, 1400, 1700, 2000)

SHORTEST = 0.5
"""Å: the tolerances are met from here to the cutoff; nearer, where no atoms are, the table is only continuous."""


def radial_table(weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype) -> tuple[Tensor, float] | None:
    """Functions of the distance as quintic polynomials in equal intervals, twice continuously differentiable.

    A radial network depends on the distance alone, so it is a table of functions of one variable. Value, slope and
    curvature at the ends of an interval fix its polynomial; the force that follows is its exact derivative. The
    fewest intervals are taken that meet the tolerances.

    Args:
        weights: float64 distances [n] in Å -> [n, n_weights].
        cutoff: Å.
        dtype: in which the model computes; it decides the tolerances.

    Returns:
        the table [n_intervals, 6, n_weights], float64, coefficients of s⁰ to s⁵ with s in [0, 1], and the interval's
        width in Å; None when no table of reasonable size is good enough.
    """
    for n_intervals in INTERVALS:
        step = cutoff / n_intervals
        table = _hermite(weights, n_intervals, step)
        first = int(SHORTEST / step)
        worst_value = worst_slope = largest_value = largest_slope = 0.0
        for s in (0.13, 0.37, 0.5, 0.71, 0.93):
            distances = (torch.arange(first, n_intervals, dtype=torch.float64) + s) * step
            value, slope = _derivatives(weights, distances, 1)
            powers = torch.tensor([s**k for k in range(6)], dtype=torch.float64)
            slopes = torch.tensor([k * s ** (k - 1) if k else 0.0 for k in range(6)], dtype=torch.float64) / step
            worst_value = max(
                worst_value, float((torch.einsum("k,iku->iu", powers, table[first:]) - value).abs().max())
            )
            worst_slope = max(
                worst_slope, float((torch.einsum("k,iku->iu", slopes, table[first:]) - slope).abs().max())
            )
            largest_value = max(largest_value, float(value.abs().max()))
            largest_slope = max(largest_slope, float(slope.abs().max()))
        value_fits = worst_value <= VALUE_TOLERANCE[dtype] * largest_value
        if value_fits and worst_slope <= SLOPE_TOLERANCE[dtype] * largest_slope:
            return table, step
    return None


def _hermite(weights: Callable[[Tensor], Tensor], n_intervals: int, step: float) -> Tensor:
    """Quintic Hermite interpolation, as coefficients of powers."""
    start = torch.arange(n_intervals, dtype=torch.float64)
    # A hair inside the interval: cutoff functions have pieces, whose curvature jumps where they meet. A basis such as
    # sin(kr)/r needs more than a hair at zero.
    inside = 1e-9
    left, right = (start + inside) * step, (start + 1.0 - inside) * step
    left[0] = 1e-3 * step
    f0, g0, q0 = _at(start * step, left, weights)
    f1, g1, q1 = _at((start + 1.0) * step, right, weights)
    g0, g1, q0, q1 = step * g0, step * g1, step**2 * q0, step**2 * q1
    rise = f1 - f0
    return torch.stack(
        [
            f0,
            g0,
            0.5 * q0,
            10 * rise - 6 * g0 - 4 * g1 - 1.5 * q0 + 0.5 * q1,
            -15 * rise + 8 * g0 + 7 * g1 + 1.5 * q0 - q1,
            6 * rise - 3 * g0 - 3 * g1 - 0.5 * q0 + 0.5 * q1,
        ],
        dim=1,
    )


def _at(knots: Tensor, beside: Tensor, weights: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and curvature at knots, carried over from points that are a hair beside them."""
    value, slope, curvature = _derivatives(weights, beside, 2)
    hair = (knots - beside).unsqueeze(1)
    return value + hair * (slope + 0.5 * hair * curvature), slope + hair * curvature, curvature


def _derivatives(function: Callable[[Tensor], Tensor], r: Tensor, order: int) -> list[Tensor]:
    """[f, f', f'', ...] of independent values r."""
    from torch.func import jvp

    def derivative(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda q: jvp(of, (q,), (torch.ones_like(q),))[1]

    functions = [function]
    for _ in range(order):
        functions.append(derivative(functions[-1]))
    # Not under no_grad: torch then takes a derivative of SiLU that it cannot differentiate again.
    return [f(r).detach() for f in functions]
