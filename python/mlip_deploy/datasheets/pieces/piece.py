"""What a piece of evidence is: a name, a question, and how it is measured; and what the pieces share.

A piece composes what the suites, recipes, `compare`, `bench`, `domain` and `conform` measure. A new one is a `Piece` in
a module of this package, listed in `PIECES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.datasheets.evidence import Found, Number
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.statistics import bootstrap, share_interval
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Case, Check, Context, Hardware, Outcome
from mlip_deploy.validation.properties.recipe import Setting

ENGINE = "ase"
"""of all that is not about an engine: nothing is started, and a thousand small structures take seconds"""


class NotApplicableError(MLIPError):
    """The piece asks what has no meaning for this model, such as for lack of elements."""


@dataclass(frozen=True)
class Subject:
    """The model that is looked at."""

    artifact: Artifact
    directory: Path
    """for the files of the piece"""
    hardware: Hardware

    @property
    def elements(self) -> set[str]:
        """Of the model."""
        return set(self.artifact.contract.elements)

    def context(self, engine: str = ENGINE) -> Context:
        """As validation suites take it."""
        return Context(artifact=self.artifact, engine=engine, directory=self.directory, hardware=self.hardware)

    def setting(self, progress: Progress) -> Setting:
        """As recipes of properties take it."""
        return Setting(self.artifact, ENGINE, self.directory, self.hardware, progress)


@dataclass(frozen=True)
class Piece:
    name: str
    question: int
    measures: str
    """one line"""
    not_tested: str
    """what the piece leaves open"""
    measure: Callable[[Subject, Progress], Found]
    """(model, progress) -> what was found; raises NotApplicableError, or whatever stops it: the evidence is missing
    then"""
    seconds: float
    """about what SevenNet-0 takes on one core: for the time that is left, and `--quick`"""
    elements: frozenset[str] = frozenset()
    """that the model must know"""
    gives_settings: bool = False
    """it can do with a model that must be given settings, such as a charge; the others cannot"""
    on_this_machine: bool = False
    """its numbers belong to the processor"""


def require_elements(known: set[str], needed: Sequence[str] | frozenset[str]) -> None:
    """Raises NotApplicableError for elements that a model does not know."""
    if strange := sorted(set(needed) - known):
        raise NotApplicableError(f"elements: the model does not know {', '.join(strange)}")


def run_case(cases: Sequence[Case], name: str, context: Context, progress: Progress) -> Outcome:
    """One case of a suite.

    Raises
    ------
    MLIPError
        As `require_numbers`.
    """
    (case,) = [case for case in cases if case.name == name]
    outcome = case.run(context, progress)
    require_numbers(outcome.checks)
    return outcome


def require_numbers(checks: Sequence[Check]) -> None:
    """Find out that something was measured.

    Raises
    ------
    NotApplicableError
        Nothing applies, for the reasons of the checks.
    MLIPError
        Nothing was measured, for their reasons.
    """
    if any(check.value is not None for check in checks):
        return
    reasons = "; ".join(dict.fromkeys(check.reason for check in checks if check.reason)) or "nothing was measured"
    if all(check.verdict == "not-applicable" for check in checks):
        raise NotApplicableError(reasons)
    raise MLIPError(reasons)


def share(quantity: str, successes: int, n: int, sampled: bool = False) -> Number:
    """A share of n; with an interval where the n are a sample of more."""
    interval = share_interval(successes, n) if sampled else None
    return Number(quantity=quantity, value=successes / n, interval=interval, n=n, better="high")


def mean(quantity: str, values: Array, unit: str) -> Number:
    """The mean of errors, which are better when low, with its interval."""
    interval = bootstrap(len(values), lambda k: float(values[k].mean()))
    return Number(
        quantity=quantity, value=float(values.mean()), unit=unit, interval=interval, n=len(values), better="low"
    )


def median(quantity: str, values: Array, unit: str) -> Number:
    """The same for the median, which a few wild ones do not move."""
    interval = bootstrap(len(values), lambda k: float(np.median(values[k])))
    return Number(
        quantity=quantity, value=float(np.median(values)), unit=unit, interval=interval, n=len(values), better="low"
    )


def number(quantity: str, value: float, unit: str = "", better: str | None = None, n: int | None = None) -> Number:
    """One that was measured once, or whose statement is exact."""
    return Number.model_validate({"quantity": quantity, "value": value, "unit": unit, "better": better, "n": n})
