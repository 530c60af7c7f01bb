"""Fine-tuning: did it help on its own data, and what did the model forget elsewhere?

Zero-shot (the model before, `--base`) and fine-tuned file predict the same labels in the same engine. On data that the
model was tuned on (`--tuned-on`) the error must have fallen. On any other reference set it must not have risen by more
than a fifth: foundation models lose what fine-tuning data do not contain ("catastrophic forgetting").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.progress import Progress
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Check, unmeasured

TUNED, GENERAL = "data it was tuned on", "other data"
IMPROVED = 0.99
FORGIVEN = 0.2
STANDARD_ERRORS = 2.0
IMPROVED_SOURCE = "definition: tuning is to lower the error on its own data; by one percent, which rounding does not"
FORGOTTEN_SOURCE = (
    f"{FORGIVEN:.0%} more than zero-shot (choice of this project), or {STANDARD_ERRORS:g} standard errors of the "
    "paired differences where structures are few"
)


def compare(role: str, quantity: str, zero_shot: Array, tuned: Array) -> Check:
    """The fine-tuned model's mean error over that of the model before.

    Args:
        role: TUNED or GENERAL.
        quantity: such as "energy, MAE".
        zero_shot, tuned: [n] error of each structure, in one unit, not negative.
    """
    before, after = float(zero_shot.mean()), float(tuned.mean())
    name = f"{quantity}, fine-tuned over zero-shot ({role})"
    if before == 0.0:
        return unmeasured(name, "not-applicable", "the model before has no error on these labels")
    worse = int((tuned > zero_shot).sum())
    reason = f"{before:.4g} before, {after:.4g} after; larger for {worse} of {len(tuned)} structures"
    if role == TUNED:
        threshold, source = IMPROVED, IMPROVED_SOURCE
    else:
        scatter = float(np.std(tuned - zero_shot, ddof=1)) / np.sqrt(len(tuned)) if len(tuned) > 1 else 0.0
        threshold, source = 1.0 + max(FORGIVEN, STANDARD_ERRORS * scatter / before), FORGOTTEN_SOURCE
    return Check(
        quantity=name,
        value=after / before,
        unit="",
        threshold=threshold,
        source=source,
        verdict="pass" if after <= threshold * before else "fail",
        reason=reason,
    )


def energy_errors(label: Array, predicted: Array) -> Array:
    """[n] eV/atom, from energies per atom."""
    return np.abs(predicted - label)


def force_errors(labels: Sequence[Array], results: Sequence[Result]) -> Array:
    """[n] eV/Å: mean absolute error of the force components of each structure."""
    return np.array([np.abs(found.forces - label).mean() for label, found in zip(labels, results, strict=True)])


def announced(base: Artifact, progress: Progress) -> Progress:
    """Progress that says that the model before fine-tuning is meant."""
    return lambda message: progress(f"zero-shot ({base.path.name}): {message}")
