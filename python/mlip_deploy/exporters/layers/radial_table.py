"""A radial network as a table over distance: polynomials of degree five between knots, from its derivatives."""

from bisect import bisect_left
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

    A radial network depends on the distance alone, so it is a table of functions of one variable. The fewest intervals
    are taken that meet the tolerances.

    Args:
        weights: float64 distances [n] in Å -> [n, n_weights].
        cutoff: Å.
        dtype: in which the model computes; it decides the tolerances.

    Returns:
        the table [n_intervals, 6, n_weights], float64, coefficients of s⁰ to s⁵ with s in [0, 1], and the interval's
        width in Å; None when no table of reasonable size is good enough.
    """
    n_intervals = fewest_intervals(weights, cutoff, dtype)
    if n_intervals is None:
        return None
    step = cutoff / n_intervals
    return quintics(weights, n_intervals, step), step


def fewest_intervals(
    weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype, at_least: int = INTERVALS[0]
) -> int | None:
    """The first of INTERVALS from `at_least` on that meets the tolerances; None when none does.

    The slope of a quintic errs as the fifth power of the interval's width, so the error of the first says about how
    many are needed. The search goes on from there, one by one, downwards or upwards.
    """
    choices = INTERVALS[INTERVALS.index(at_least) :]
    error = _error(weights, cutoff, dtype, at_least)
    if error <= 1.0:
        return at_least

    def fits(k: int) -> bool:
        return _error(weights, cutoff, dtype, choices[k]) <= 1.0

    k = max(1, min(bisect_left(choices, at_least * error**0.2), len(choices) - 1))
    if fits(k):
        while k > 1 and fits(k - 1):
            k -= 1
        return choices[k]
    return next((choices[more] for more in range(k + 1, len(choices)) if fits(more)), None)


def _error(weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype, n_intervals: int) -> float:
    """The largest error of a table, in units of the tolerances; not a number where a weight is none."""
    step = cutoff / n_intervals
    table = quintics(weights, n_intervals, step)
    first = int(SHORTEST / step)
    s = torch.tensor([0.13, 0.37, 0.5, 0.71, 0.93], dtype=torch.float64)
    distances = (torch.arange(first, n_intervals, dtype=torch.float64).unsqueeze(1) + s) * step
    value, slope = (x.reshape(*distances.shape, -1) for x in _derivatives(weights, distances.flatten(), 1))
    powers = torch.stack([s**k for k in range(6)])
    slopes = torch.stack([k * s ** max(k - 1, 0) for k in range(6)]) / step
    errors = []
    for factors, truth, tolerance in (powers, value, VALUE_TOLERANCE), (slopes, slope, SLOPE_TOLERANCE):
        worst = (torch.einsum("ks,iku->isu", factors, table[first:]) - truth).abs().max()
        # where all weights are zero, so is the table
        errors.append(worst / (tolerance[dtype] * truth.abs().max()) if worst != 0.0 else worst)
    return float(torch.stack(errors).max())


def quintics(weights: Callable[[Tensor], Tensor], n_intervals: int, step: float) -> Tensor:
    """Quintic Hermite interpolation, as coefficients of powers: [n_intervals, 6, n_weights].

    Value, slope and curvature at the ends of an interval fix its polynomial; the force that follows is its exact
    derivative.
    """
    start = torch.arange(n_intervals, dtype=torch.float64)
    # A hair inside the interval: cutoff functions have pieces, whose curvature jumps where they meet. A basis such as
    # sin(kr)/r needs more than a hair at zero.
    inside = 1e-9
    left, right = (start + inside) * step, (start + 1.0 - inside) * step
    left[0] = 1e-3 * step
    beside = torch.cat([left, right])
    value, slope, curvature = _derivatives(weights, beside, 2)
    # Carried over to the knots from points that are a hair beside them.
    hair = (torch.cat([start, start + 1.0]) * step - beside).unsqueeze(1)
    f0, f1 = (value + hair * (slope + 0.5 * hair * curvature)).chunk(2)
    g0, g1 = (step * (slope + hair * curvature)).chunk(2)
    q0, q1 = (step**2 * curvature).chunk(2)
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


def _derivatives(function: Callable[[Tensor], Tensor], r: Tensor, order: int) -> list[Tensor]:
    """[f, f', f'', ...] of independent values r."""
    from torch.func import jvp

    def with_next(of: Callable[[Tensor], tuple[Tensor, ...]]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """Of (f, ..., f⁽ⁿ⁾): (f, ..., f⁽ⁿ⁺¹⁾)."""

        def both(q: Tensor) -> tuple[Tensor, ...]:
            values, slopes = jvp(of, (q,), (torch.ones_like(q),))[:2]
            return (*values, slopes[-1])

        return both

    all_of: Callable[[Tensor], tuple[Tensor, ...]] = lambda q: (function(q),)  # noqa: E731
    for _ in range(order):
        all_of = with_next(all_of)
    # Not under no_grad: torch then takes a derivative of SiLU that it cannot differentiate again.
    return [f.detach() for f in all_of(r)]
