"""What a validation suite is made of: cases, which run an artifact in an engine, and the checks that they report.

A suite is a module with `cases(context) -> list[Case]`. `mlip validate` runs the cases one by one, stores each outcome
as soon as it is there (so that an interrupted run goes on where it stopped), and judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Verdict


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Strict):
    """One number against its threshold."""

    quantity: str
    """what was measured, such as "largest difference of a force component" """
    value: float | None
    """in `unit`; None when nothing was measured"""
    unit: str
    threshold: float | None
    """in `unit`; None for a number that is reported and not judged"""
    source: str
    """where the threshold comes from: a measured noise, a publication, a definition"""
    verdict: Verdict
    reason: str = ""
    """why it failed, was expected to fail, does not apply or was not tested; names atoms, elements, frames"""


def unmeasured(quantity: str, verdict: Verdict, reason: str, unit: str = "", source: str = "") -> Check:
    """A check without a number: what it would have measured does not apply, was not tested, or could not be."""
    return Check(
        quantity=quantity, value=None, unit=unit, threshold=None, source=source, verdict=verdict, reason=reason
    )


def judged(quantity: str, value: float, threshold: float, unit: str, source: str, reason: str = "") -> Check:
    """Passes up to the threshold; a value that is not a number fails."""
    passed = bool(np.isfinite(value)) and value <= threshold
    return Check(
        quantity=quantity,
        value=float(value) if np.isfinite(value) else None,
        unit=unit,
        threshold=threshold,
        source=source,
        verdict="pass" if passed else "fail",
        reason=reason if not passed else "",
    )


class Outcome(_Strict):
    """What one case found."""

    suite: str
    case: str
    engine: str
    purpose: str
    checks: list[Check]
    curves: list[Curve] = []
    notes: list[str] = []
    """facts that the reader needs and no number carries, such as a fitted shift"""


class Hardware(NamedTuple):
    """Where the model runs, as arguments that every engine takes by these names."""

    threads: int = 0
    """on the CPU; 0: the engine's own choice"""
    device: str = "cpu"
    """cpu, cuda, cuda:N or auto"""


CPU = Hardware()


@dataclass(frozen=True)
class Context:
    """What the user asked for."""

    artifact: Artifact
    engine: str
    """ase, lammps or openmm"""
    directory: Path
    """for the files of a run; a case uses a folder of its own name in it"""
    elements: list[str] = field(default_factory=list)
    """the elements to test with; all of the model's when empty"""
    use: str | None = None
    """what the model is wanted for, in the user's words; printed in the report"""
    reference: list[str] = field(default_factory=list)
    """reference sets, by name or as extxyz files"""
    base: Artifact | None = None
    """the model before it was fine-tuned"""
    tuned_on: list[str] = field(default_factory=list)
    """reference sets that the model was fine-tuned on, by name or as extxyz files"""
    frame: str | None = None
    """conversion of reference energies that the user asked for"""
    hardware: Hardware = CPU
    recipes: Path | None = None
    """folder with further property recipes"""


@dataclass(frozen=True)
class Case:
    suite: str
    name: str
    """unique in its suite; also the name of its stored outcome"""
    purpose: str
    """one line: what would be wrong with a model or a deployment that fails"""
    run: Callable[[Context, Progress], Outcome]
    """(context, progress) -> outcome; raises MLIPError for wrong input only, never for a bad model"""
