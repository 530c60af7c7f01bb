"""Averages over time, with errors that know that neighbouring values are alike."""

from __future__ import annotations

import numpy as np

from mlip_deploy.result import Array

EQUILIBRATION = 0.2
"""of a run, left out of averages at its beginning"""
FEWEST_BLOCKS = 4
"""whose spread says anything"""


def kept(values: Array) -> Array:
    """Without the beginning, which is no sample of the ensemble yet."""
    return values[int(EQUILIBRATION * len(values)) :]


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean and its standard error (H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461, 1989).

    Pairs of neighbours are put together again and again; the largest error of all such levels is taken. Below
    FEWEST_BLOCKS values nothing is known, and the error is infinite.
    """
    mean, error = float(np.mean(values)), float("inf") if len(values) < FEWEST_BLOCKS else 0.0
    blocks = values
    while len(blocks) >= FEWEST_BLOCKS:
        error = max(error, float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))))
        blocks = blocks[: len(blocks) // 2 * 2].reshape(-1, 2).mean(axis=1)
    return mean, error


def drift(times: Array, values: Array) -> tuple[float, float]:
    """Change per time and its standard error: last quarter against first, which an oscillation changes little.

    A slope fitted by least squares would take the phase of an oscillation for a drift.
    """
    n = max(1, len(values) // 4)
    (first, error_of_first), (last, error_of_last) = mean_and_error(values[:n]), mean_and_error(values[-n:])
    between = float(np.mean(times[-n:]) - np.mean(times[:n]))
    if between <= 0:
        return 0.0, float("inf")
    return (last - first) / between, float(np.hypot(error_of_first, error_of_last)) / between
