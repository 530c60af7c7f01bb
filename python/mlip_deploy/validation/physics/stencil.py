"""Work along short paths, and first derivatives: with a step and an error bound from the noise of the values.

Forces are held to the energy by their work: the integral of the force along a path is minus the change of energy. A
difference quotient of the energy would amplify its noise ten times more, and errs where a cutoff function has a kink in
its second derivative (SevenNet's has), which an integral smooths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlip_deploy.result import Array

POINTS = (-4, -3, -2, -1, 1, 2, 3, 4)
"""Displacements in steps; the structure itself is the point between."""
LENGTH = 8
"""of a path, in steps"""
_SIMPSON = np.array([1, 4, 2, 4, 2, 4, 2, 4, 1]) / 3.0
_EIGHTH = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])
NOISE_GAIN = float(np.sqrt((_EIGHTH**2).sum()))
"""Error of a derivative, times the step, for independent errors of size 1 in the values."""

# Simpson's rule errs as step⁴, the noise's part of the mean force falls as 1/step: the best step goes as the fifth root
# of the noise. The prefactor is a length over which interatomic energies change by eV; the result is not sensitive.
STEP_AT_1_EV = 0.2  # Å


def step_for(energy_noise: float) -> float:
    """Step in Å for energies with an error of `energy_noise` eV."""
    return float(STEP_AT_1_EV * energy_noise**0.2)


@dataclass(frozen=True)
class Estimate:
    value: float
    error: float
    """bound of the error that the step makes"""


def integral(values: Sequence[float], step: float) -> Estimate:
    """Over a whole path, from the values at its nine points.

    The error of Simpson's rule in steps is at most a third of the sum of the fourth differences' sizes: for one kink it
    reaches that just inside an end of the path, for a smooth function it is a fortieth. Several kinks add up.
    """
    array = np.asarray(values)
    return Estimate(float(_SIMPSON @ array) * step, float(np.abs(np.diff(array, 4)).sum()) * step / 3.0)


def derivative(values: Array, step: float) -> tuple[Array, float]:
    """At the middle of a path, from the values [9, ...] at its points: of eighth order, and a bound of all errors.

    The error, times the step, is less than a sixth of the sum of the fourth differences' sizes: for one kink it is up
    to 0.145 of it, for a smooth function far less.
    """
    slope = np.tensordot(_EIGHTH, values, axes=1) / step
    return slope, float(np.abs(np.diff(values, 4, axis=0)).sum(axis=0).max()) / (6.0 * step)
