"""What a probe is: one property that a potential has in its engine, or has not."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlip_deploy.conformance.errors import RefusedError
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.engines import ENGINES
from mlip_deploy.engines.lammps import LAMMPSCrashError, LAMMPSError
from mlip_deploy.report.content import Verdict
from mlip_deploy.validation.case import Check, Outcome, unmeasured
from mlip_deploy.validation.physics.tools import outcome

Body = Callable[[Trial], Outcome]


ANSWERS = "definition: an engine answers, or says why not"


@dataclass(frozen=True)
class Probe:
    name: str
    """short, with hyphens: also the name of its stored outcome"""
    description: str
    """what it does, why it matters, and its threshold with the source"""
    body: Body
    engines: Sequence[str] = ENGINES
    thorough: bool = False
    """whether it is long, and runs when it is asked for"""

    @property
    def purpose(self) -> str:
        """The first sentence of the description."""
        return self.description.partition(". ")[0] + "."

    def run(self, trial: Trial) -> Outcome:
        """Never raises for a bad potential: an engine that stops with a message has refused."""
        found: list[Outcome] = []
        stopped = attempt(self.name, lambda: found.append(self.body(trial)))
        return self._named(found[0] if found else outcome(stopped), trial)

    def crashed(self, trial: Trial, reason: str) -> Outcome:
        """Of a run that ended the process."""
        return self._named(outcome([unmeasured(self.name, "fail", reason, source=ANSWERS)]), trial)

    def _named(self, found: Outcome, trial: Trial) -> Outcome:
        named = {"suite": "conform", "case": self.name, "engine": trial.target.engine, "purpose": self.purpose}
        return found.model_copy(update=named)


def probe(name: str, engines: Sequence[str] = ENGINES, thorough: bool = False) -> Callable[[Body], Probe]:
    """Make a probe of a function, which says in its docstring what it does, why, and with which threshold."""
    return lambda body: Probe(name, " ".join((inspect.getdoc(body) or "").split()), body, engines, thorough)


def attempt(label: str, work: Callable[..., Sequence[Check] | None], *arguments: Any) -> list[Check]:
    """The checks of some work; one that says "refused" where the engine stopped with a message of its own.

    A crash, or no answer in time, has no message that a user could act on: it fails.
    """
    try:
        return list(work(*arguments) or [])
    except (LAMMPSCrashError, subprocess.TimeoutExpired) as error:
        return [unmeasured(label, "fail", str(error), source=ANSWERS)]
    except (LAMMPSError, RefusedError) as error:
        return [unmeasured(label, "refused", str(error), source="definition: an error that is said is no wrong number")]


_WORST: tuple[Verdict, ...] = ("fail", "expected-fail", "refused", "pass", "not-supported", "not-tested")


def verdict(found: Outcome) -> Verdict:
    """Of a whole probe: the first of these that one of its checks has."""
    kinds = {check.verdict for check in found.checks}
    return next((kind for kind in _WORST if kind in kinds), "not-applicable")
