"""A radial network as a table over distance: splines of degree five."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

VALUE_TOLERANCE = {torch.float32: 1e-7, torch.float64: 2e-10}

SLOPE_TOLERANCE = {torch.float32: 1e-6, torch.float64: 2e-9}
"""Largest error of a tabulated weight and of its derivative, relative to the largest weight and derivative. Those of
float32 are the network's own rounding; those of float64 keep forces within 1e-8 eV/Å (artifact/tolerances.py)."""

INTERVALS = (100, 120, 140, 170, 200, 230, 270, 320, 370, 430, 500, 600, 700, 850, 1000, 1200, 1400, 1700, 2000, 2500)

SHORTEST = 0.5
"""Å: the tolerances are met from here to the cutoff. Nearer, where no atoms are, weights are those of a longer
distance, since some networks have no derivatives at zero."""


class RadialTable(NamedTuple):
    """Functions of the distance as splines, as `csrc/operators/radial_table_layout.h` describes them.

    A spline has continuous fourth derivatives, but for its kink, where pieces of a cutoff function meet.
    """

    values: Tensor
    """[n_intervals + 5, n_weights], five rows more with a kink, float64; or several [n_tables, ...]"""
    step: float
    """width of an interval, Å"""
    kink: int
    """number of the knot where derivatives jump; 0 for none"""


NO_TABLE = RadialTable(torch.zeros(0), 1.0, 0)
"""For an operator that is given weights instead."""


def radial_table(weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype) -> RadialTable | None:
    """Functions of the distance as splines of degree five in equal intervals.

    A radial network depends on the distance alone, so it is a table of functions of one variable. The fewest intervals
    are taken that meet the tolerances.

    Args:
        weights: float64 distances [n] in Å -> [n, n_weights].
        cutoff: Å.
        dtype: in which the model computes; it decides the tolerances.

    Returns:
        None when no table of reasonable size is good enough.
    """
    n_intervals = fewest_intervals(weights, cutoff, dtype)
    return None if n_intervals is None else splines([weights], n_intervals, cutoff / n_intervals)


def fewest_intervals(
    weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype, at_least: int = INTERVALS[0]
) -> int | None:
    """The first of INTERVALS from `at_least` on that meets the tolerances; None when none does.

    The slope of a spline errs as the fifth power of the interval's width, so the error of the first says about how
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


def splines(networks: Sequence[Callable[[Tensor], Tensor]], n_intervals: int, step: float) -> RadialTable | None:
    """The table of one network, or a table for each of several that share their cutoff function.

    Returns:
        None when there are jumps at more than one knot.
    """
    knots = [_at_knots(weights, n_intervals, step) for weights in networks]
    kinks = {kink for ends in knots for kink in _kinks(ends)}
    if len(kinks) > 1:
        return None
    kink = kinks.pop() if kinks else 0
    tables = [_spline(ends, kink) for ends in knots]
    return RadialTable(tables[0] if len(tables) == 1 else torch.stack(tables), step, kink)


def _error(weights: Callable[[Tensor], Tensor], cutoff: float, dtype: torch.dtype, n_intervals: int) -> float:
    """The largest error of a table, in units of the tolerances; not a number where a weight is none."""
    table = splines([weights], n_intervals, cutoff / n_intervals)
    if table is None:
        return float("inf")
    values, step, kink = table
    intervals = torch.arange(int(SHORTEST / step), n_intervals)
    s = torch.tensor([0.13, 0.37, 0.5, 0.71, 0.93], dtype=torch.float64)
    distances = (intervals.unsqueeze(1) + s) * step
    value, slope = (x.reshape(*distances.shape, -1) for x in _derivatives(weights, distances.flatten(), 1))
    first_rows = intervals + 5 * (intervals >= kink) if kink else intervals
    rows = torch.stack([values[first_rows + k] for k in range(6)])
    errors = []
    for order, truth, tolerance in (0, value, VALUE_TOLERANCE), (1, slope, SLOPE_TOLERANCE):
        worst = (torch.einsum("sk,kiu->isu", _pieces(s, order) / step**order, rows) - truth).abs().max()
        # where all weights are zero, so is the table
        errors.append(worst / (tolerance[dtype] * truth.abs().max()) if worst != 0.0 else worst)
    return float(torch.stack(errors).max())


PIECES = torch.tensor(
    [
        [1, -5, 10, -10, 5, -1],
        [26, -50, 20, 20, -20, 5],
        [66, 0, -60, 0, 30, -10],
        [26, 50, 20, -20, -20, 10],
        [1, 5, 10, 10, 5, -5],
        [0, 0, 0, 0, 0, 1],
    ],
    dtype=torch.float64,
)
"""of the uniform B-spline of degree five, times 120: coefficients of s⁰ to s⁵ for s from 0 to 1"""


def _pieces(s: Tensor, order: int) -> Tensor:
    """Their derivatives of an order at s [n]: [n, 6]."""
    powers = [s**power for power in range(6)]
    for _ in range(order):
        powers = [torch.zeros_like(s), *(power * of for power, of in enumerate(powers[:-1], start=1))]
    return torch.stack(powers, dim=1) @ PIECES.T / 120.0


class _Ends(NamedTuple):
    """Of each interval [n_intervals, n_weights], derivatives by the position in it."""

    values: tuple[Tensor, Tensor]
    """at its left and its right end"""
    slopes: tuple[Tensor, Tensor]
    curvatures: tuple[Tensor, Tensor]


def _at_knots(weights: Callable[[Tensor], Tensor], n_intervals: int, step: float) -> _Ends:
    def at_a_distance(r: Tensor) -> Tensor:
        """`weights` at r, or where r is short a little further: nowhere at zero, and five times differentiable."""
        return weights(r + 0.125 * SHORTEST * (1.0 - r / SHORTEST).clamp(min=0.0) ** 6)

    start = torch.arange(n_intervals, dtype=torch.float64)
    # A hair inside the interval: cutoff functions have pieces, whose curvature jumps where they meet.
    inside = 1e-9
    beside = torch.cat([(start + inside) * step, (start + 1.0 - inside) * step])
    value, slope, curvature = _derivatives(at_a_distance, beside, 2)
    # Carried over to the knots.
    hair = (torch.cat([start, start + 1.0]) * step - beside).unsqueeze(1)
    ends = value + hair * (slope + 0.5 * hair * curvature), step * (slope + hair * curvature), step**2 * curvature
    halves = [(of[:n_intervals], of[n_intervals:]) for of in ends]
    return _Ends(*halves)


def _kinks(ends: _Ends) -> list[int]:
    """Numbers of the knots where the curvature of a weight jumps."""
    left, right = ends.curvatures[1][:-1], ends.curvatures[0][1:]
    largest = torch.cat([left, right]).abs().max()
    return [knot + 1 for knot in torch.nonzero(((left - right).abs() > 1e-6 * largest).any(1))[:, 0].tolist()]


def _spline(ends: _Ends, kink: int) -> Tensor:
    """Rows of the spline that has the values at all knots, and slope and curvature at the first, the last and the kink.

    C. de Boor, A Practical Guide to Splines (1978), chapter XIII: one that is given two derivatives at both ends.
    """
    start, end = (_ends_of_pieces(torch.tensor([s], dtype=torch.float64)) for s in (0.0, 1.0))
    rows = []
    bounds = [0, kink, len(ends.values[0])] if kink else [0, len(ends.values[0])]
    for first, last in pairwise(bounds):
        n = last - first
        equations = torch.zeros(n + 5, n + 5, dtype=torch.float64)
        for interval in range(n):
            equations[interval, interval : interval + 6] = start[0]
        equations[n, n - 1 :] = end[0]
        equations[n + 1 : n + 3, :6] = start[1:]
        equations[n + 3 :, n - 1 :] = end[1:]
        known = [ends.values[0][first:last], ends.values[1][last - 1 : last]]
        known += [of[0][first : first + 1] for of in (ends.slopes, ends.curvatures)]
        known += [of[1][last - 1 : last] for of in (ends.slopes, ends.curvatures)]
        rows.append(torch.linalg.solve(equations, torch.cat(known)))
    return torch.cat(rows)


def _ends_of_pieces(s: Tensor) -> Tensor:
    """[3, 6]: the pieces at s [1], their slopes and their curvatures."""
    return torch.cat([_pieces(s, order) for order in range(3)])


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
