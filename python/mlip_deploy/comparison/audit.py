"""Label audit: where several models agree with each other against a label, the label is to be looked at.

Models that were trained on other data make different errors. When they agree on a structure far better than any of
them agrees with its label, the label (an unconverged calculation, another magnetic state, a wrong unit) is the more
likely culprit. A flag is a reason to look, not a proof: models of one training set share its errors too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel

from mlip_deploy.result import Array

AGREEMENT = 1.0 / 3.0
"""models agree when they differ by less than this part of their smallest distance from the label"""
OUTLIER = 3.0
"""a distance from the label counts when it is this many times a model's median"""


class Flag(BaseModel):
    """One suspicious label."""

    reference: str
    frame: str
    quantity: str
    """energy or forces"""
    unit: str
    label_against_models: float
    """smallest distance of a model from the label"""
    models_among_themselves: float
    """largest distance between two models"""


def audit(
    reference: str, names: Sequence[str], distances: Array, spread: Array, quantity: str, unit: str
) -> list[Flag]:
    """Flags among structures, worst first.

    Args:
        names: of the structures.
        distances: [models, structures] of each model from the label.
        spread: [structures] largest distance between two models.
    """
    if len(distances) < 2:
        return []
    nearest = distances.min(axis=0)
    outlying = (distances > OUTLIER * np.median(distances, axis=1, keepdims=True)).all(axis=0)
    suspicious = np.flatnonzero(outlying & (spread < AGREEMENT * nearest))
    worst_first = suspicious[np.argsort(-nearest[suspicious])]
    return [
        Flag(
            reference=reference,
            frame=names[k],
            quantity=quantity,
            unit=unit,
            label_against_models=float(nearest[k]),
            models_among_themselves=float(spread[k]),
        )
        for k in worst_first
    ]


def energy_distances(label: Array, predicted: Array) -> tuple[Array, Array]:
    """Distances [models, n] and spread [n] of energies per atom, eV/atom.

    Args:
        label: [models, n], each in its model's own energy frame, in which `predicted` [models, n] is too. The spread
            is over the deviations from the labels, so that models of different frames can be compared.
    """
    deviation = predicted - label
    return np.abs(deviation), np.ptp(deviation, axis=0)


def force_distances(label: Sequence[Array], predicted: Sequence[Sequence[Array]]) -> tuple[Array, Array]:
    """Root mean square over a structure's force components of model less label and of model less model, eV/Å.

    Args:
        label: forces [n, 3] of each structure.
        predicted: the same for each model.
    """

    def rms(difference: Array) -> float:
        return float(np.sqrt((difference**2).mean()))

    distances = np.array([[rms(p - f) for p, f in zip(model, label, strict=True)] for model in predicted])
    spread = np.array(
        [max(rms(a[k] - b[k]) for i, a in enumerate(predicted) for b in predicted[:i]) for k in range(len(label))]
    )
    return distances, spread
