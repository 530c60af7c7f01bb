"""Errors of predictions against labels, their intervals, and the fit of one energy per element."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlip_deploy.result import Array


@dataclass(frozen=True)
class Errors:
    """Of n numbers, in their unit."""

    n: int
    mae: float
    rmse: float
    median: float
    """of the absolute errors"""
    slope: float
    """Σ xy / Σ x² of prediction y over label x: below 1 for forces of a softened model; NaN where all labels are 0"""
    cosine: float
    """Σ xy / sqrt(Σ x² Σ y²): 0 where label and prediction are unrelated; NaN where all of one are 0"""


def errors(label: Array, predicted: Array) -> Errors:
    """Errors over all numbers of two arrays of one shape."""
    x, y = np.ravel(label), np.ravel(predicted)
    difference = np.abs(y - x)
    norm = float(x @ x)
    return Errors(
        n=x.size,
        mae=float(difference.mean()),
        rmse=float(np.sqrt((difference**2).mean())),
        median=float(np.median(difference)),
        slope=float(x @ y) / norm if norm > 0 else float("nan"),
        cosine=float(x @ y) / float(np.sqrt(norm * (y @ y))) if norm > 0 and y.any() else float("nan"),
    )


def vector_errors(label: Array, predicted: Array) -> Errors:
    """Errors of vectors [n, 3]: statistics of |ΔF|, slope from the vectors' own lengths."""
    distance = np.linalg.norm(predicted - label, axis=1)
    lengths = errors(np.linalg.norm(label, axis=1), np.linalg.norm(predicted, axis=1))
    return Errors(
        n=len(distance),
        mae=float(distance.mean()),
        rmse=float(np.sqrt((distance**2).mean())),
        median=float(np.median(distance)),
        slope=lengths.slope,
        cosine=lengths.cosine,
    )


def fit_shifts(symbols: Sequence[Sequence[str]], difference: Array) -> dict[str, float]:
    """Energy per atom of each element (eV) that best explains label minus prediction, by least squares.

    Args:
        symbols: chemical symbols of each structure.
        difference: [n] eV, total energies. Elements that always occur in one ratio share their sum (minimum norm).
    """
    elements = sorted({symbol for structure in symbols for symbol in structure})
    counts = np.array([[Counter(structure)[element] for element in elements] for structure in symbols], dtype=float)
    # per atom, so that a large cell weighs no more than a small one
    sizes = counts.sum(axis=1, keepdims=True)
    solution = np.linalg.lstsq(counts / sizes, difference / sizes[:, 0], rcond=None)[0]
    return dict(zip(elements, solution.tolist(), strict=True))


RESAMPLES = 1000
SEED = 20
COVERED = 0.95
"""of an interval"""
Z = 1.959964
"""standard deviations of a normal distribution on each side of its middle that hold so much"""


def bootstrap(n: int, statistic: Callable[[npt.NDArray[np.int64]], float]) -> tuple[float, float] | None:
    """The interval that holds a statistic of n samples with 95 %, by drawing samples anew (percentiles).

    Args:
        statistic: (indices [n] of the samples, with repetitions) -> value. NaN where such a sample says nothing.

    Returns:
        None for less than three samples.
    """
    if n < 3:
        return None
    random = np.random.default_rng(SEED)
    values = [statistic(random.integers(n, size=n)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(values, [0.5 - COVERED / 2, 0.5 + COVERED / 2])
    return float(low), float(high)


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """The interval that holds a share with 95 %: E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)."""
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    return max(0.0, centre - half), min(1.0, centre + half)
