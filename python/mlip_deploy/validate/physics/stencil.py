"""First derivatives from central differences of eighth order, with a step and an error from the noise of the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlip_deploy.result import Array

POINTS = (-4, -3, -2, -1, 1, 2, 3, 4)
"""Displacements in steps."""
_EIGHTH = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
_FOURTH = {1: 2 / 3, 2: -1 / 12, 3: 0.0, 4: 0.0}
NOISE_GAIN = float(np.sqrt(2.0 * sum(weight**2 for weight in _EIGHTH.values())))
"""Error of the derivative, times the step, for independent errors of size 1 in the values."""

# For a smooth function the error of eighth order is far smaller than the difference between the orders. Cutoff functions
# have kinks in a derivative, and where one lies inside the stencil both orders err alike: their errors differ by a third
# of the larger one, or more.
KINK = 3.0

# The truncation of eighth order grows as step⁸, the noise's part falls as 1/step: the best step goes as the ninth root
# of the noise. The prefactor is a length over which interatomic energies change by eV; the result is not sensitive.
STEP_AT_1_EV = 0.1  # Å
ORDER = 8


def step_for(energy_noise: float) -> float:
    """Step in Å for energies with an error of `energy_noise` eV."""
    return float(STEP_AT_1_EV * energy_noise ** (1.0 / (ORDER + 1)))


@dataclass(frozen=True)
class Derivative:
    """Of any shape, that of the values."""

    value: Array
    truncation: Array
    """bound of the error that the step makes: KINK times the difference from the derivative of fourth order"""


def derivative(values: Sequence[Array | float], step: float) -> Derivative:
    """From the values at POINTS times `step`."""
    array = np.array(values, dtype=float)

    def combine(weights: dict[int, float]) -> Array:
        total = sum(np.sign(k) * weights[abs(k)] * array[n] for n, k in enumerate(POINTS))
        return np.asarray(total) / step

    eighth = combine(_EIGHTH)
    return Derivative(eighth, KINK * np.abs(eighth - combine(_FOURTH)))
