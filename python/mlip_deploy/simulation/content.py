"""What a run came to, as data: verdict, findings, averages."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from mlip_deploy.report.content import Curve

Ending = Literal["finished", "interrupted", "failed"]
Judgement = Literal["pass", "open", "fail"]
"""open: nothing is wrong, and nothing is shown yet"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Finding(_Strict):
    """One sentence on the run, judged."""

    verdict: Judgement
    text: str
    remedy: str = ""
    """What to do where the verdict is not "pass"."""


class Average(_Strict):
    """Of one quantity over the run, without its first fifth."""

    quantity: str
    unit: str
    mean: float
    error: float
    """standard error of the mean; infinite where too few values are there to tell"""
    steady: bool
    """whether both halves have the same mean, within three standard errors"""


class Run(_Strict):
    """A run of a prepared folder.

    Attributes
    ----------
    engine, command, ranks
        What ran.
    model, structure, plan, settings
        In words; settings are pairs of a name and what it was.
    ending
        "finished", "interrupted" by a signal, or "failed".
    steps_done, steps
        Time steps, or iterations of a relaxation: done, and planned (at most).
    seconds
        Wall time.
    findings
        What there is to judge, the worst first.
    averages, curves
        Of the ensembles that have them.
    warnings
        Of the engine.
    following
        What to do next: pairs of a sentence and a line to type.
    """

    engine: str
    command: str
    ranks: int
    model: str
    structure: str
    plan: str
    settings: tuple[tuple[str, str], ...]
    ending: Ending
    steps_done: int
    steps: int
    seconds: float
    findings: tuple[Finding, ...]
    averages: tuple[Average, ...]
    curves: tuple[Curve, ...]
    warnings: tuple[str, ...]
    following: tuple[tuple[str, str], ...]

    @property
    def verdict(self) -> Judgement:
        """The worst of all findings."""
        return max((finding.verdict for finding in self.findings), key=JUDGEMENTS.index)

    @property
    def passed(self) -> bool:
        """Whether it came to its end with nothing found wrong."""
        return self.verdict != "fail"


JUDGEMENTS: tuple[Judgement, ...] = ("pass", "open", "fail")
"""the best first"""
