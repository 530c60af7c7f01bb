"""Run validation suites on an artifact: every outcome is stored as soon as it is there, and found again.

OUT/cases/SUITE/CASE.json   one outcome with the key under which it holds
OUT/validation.json         every number, threshold, source and verdict
OUT/report.html             the same to read (mlip_deploy.validation.report.summary)
OUT/timing.json             seconds of each case and the cost of a step: what changes from run to run
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import mlip_deploy
from mlip_deploy.artifact.reader import file_sha256
from mlip_deploy.artifact.validation_record import REQUIRED_SUITES, VERSIONED, ValidationRecord, release
from mlip_deploy.bench.report import machine
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import write_text
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Verdict
from mlip_deploy.validation.case import Case, Check, Context, Outcome, unmeasured
from mlip_deploy.validation.suites import MEASURED, SUITES

JUDGED: tuple[Verdict, ...] = ("pass", "fail", "expected-fail")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stored(_Strict):
    """An outcome on disk."""

    key: str
    """digest of all that the outcome depends on"""
    seconds: float
    outcome: Outcome


class Validation(_Strict):
    """All outcomes of one artifact."""

    artifact: str
    content_sha256: str
    """of the artifact without its validation record"""
    model: str
    dtype: str
    energy_frame: str
    model_elements: list[str]
    engine: str
    suites: list[str]
    elements: list[str]
    """tested with; all of the model's when empty"""
    use: str | None
    reference: list[str]
    base: str | None = None
    """file of the model before it was fine-tuned"""
    tuned_on: list[str] = []
    frame: str | None
    versions: dict[str, str]
    verdict: Literal["pass", "fail"]
    outcomes: list[Outcome]
    measured: list[Outcome] = Field(default=[], exclude=True)
    """what differs from run to run, and so is not part of validation.json"""
    domain: str | None = Field(default=None, exclude=True)
    """of the file, in words, where a record was written with reference frames"""

    @property
    def passed(self) -> bool:
        """Whether the verdict is "pass": every suite showed something, and no check failed."""
        return self.verdict == "pass"

    def count(self, suite: str, verdict: Verdict) -> int:
        """How many checks of a suite have a verdict."""
        return sum(check.verdict == verdict for o in self.outcomes if o.suite == suite for check in o.checks)

    def failures(self) -> list[tuple[Outcome, Check]]:
        """Every check that failed, with the outcome that it belongs to."""
        return [(o, check) for o in self.outcomes for check in o.checks if check.verdict == "fail"]

    def energies_unjudged(self) -> list[str]:
        """Reference sets whose energies were compared without a verdict."""
        return [name for name, judged in self._judged_by_labels().items() if not judged["energies"]]

    def describe_verdict(self) -> str:
        """With what reference sets did not judge, such as "pass (SET: forces judged, energies not judged)"."""
        parts = []
        for name, judged in self._judged_by_labels().items():
            if not all(judged.values()):
                said = ", ".join(f"{what} {'judged' if done else 'not judged'}" for what, done in judged.items())
                parts.append(f"{name}: {said}")
        return self.verdict + (f" ({'; '.join(parts)})" if parts else "")

    def _judged_by_labels(self) -> dict[str, dict[str, bool]]:
        """For each reference set that was compared, whether its forces and its energies had a verdict."""
        found = {}
        for outcome in self.outcomes:
            if outcome.suite == "reference" and any(check.verdict != "not-tested" for check in outcome.checks):
                judged = [check.quantity for check in outcome.checks if check.verdict in JUDGED]
                forces = any(quantity.startswith("force, ") for quantity in judged)
                found[outcome.case] = {"forces": forces, "energies": "energy, MAE" in judged}
        return found

    def record(self) -> ValidationRecord:
        """The record for the artifact.

        Raises:
            MLIPError: says what is missing.
        """
        judged = {suite: self.count(suite, "pass") + self.count(suite, "fail") for suite in self.suites}
        missing = [suite for suite in REQUIRED_SUITES if not judged.get(suite)]
        if missing:
            raise MLIPError(
                f"--record: the suite(s) {', '.join(missing)} did not run. Type: mlip validate {self.artifact} --suite "
                f"{','.join(dict.fromkeys([*REQUIRED_SUITES, *self.suites]))} --record -o OUT"
            )
        replayed = {
            o.engine
            for o in self.outcomes
            if o.suite == "fidelity" and any(check.verdict in ("pass", "fail") for check in o.checks)
        }
        expected = [f"{o.case}: {c.quantity}" for o in self.outcomes for c in o.checks if c.verdict == "expected-fail"]
        failures = [f"{outcome.case}: {check.quantity}" for outcome, check in self.failures()]
        if self.verdict == "fail" and not failures:
            failures = [f"{suite}: nothing was judged" for suite in self.suites if not judged[suite]]
        return ValidationRecord(
            verdict=self.verdict,
            content_sha256=self.content_sha256,
            suites=self.suites,
            engines=sorted(replayed),
            elements=self.elements or self.model_elements,
            versions={name: self.versions[name] for name in VERSIONED},
            expected_failures=expected,
            failures=failures,
        )


def validate(context: Context, suites: Sequence[str], progress: Progress = lambda message: None) -> Validation:
    """Run the cases of some suites that have no stored outcome yet.

    Args:
        suites: some of SUITES.
        progress: called with a line before each case and by the cases themselves.

    Raises:
        MLIPError: for wrong input. Outcomes up to there are stored.
    """
    versions = {"mlip-deploy": mlip_deploy.__version__, **{name: release(name) for name in VERSIONED}}
    content = context.artifact.content_sha256()
    context.artifact.fixtures()  # says now what is wrong with them
    planned: list[tuple[str, Case | None]] = []
    absent: dict[str, Outcome] = {}
    for suite in suites:
        cases, reason = _cases(suite, context)
        names = [file_name(case.name) for case in cases]
        twice = [case.name for case in cases if names.count(file_name(case.name)) > 1]
        if twice:
            raise MLIPError(f"suite {suite}: two cases would be called '{twice[0]}'. Rename one of the files")
        planned += [(suite, case) for case in cases] if cases else [(suite, None)]
        if not cases:
            absent[suite] = _not_tested(suite, context.engine, reason)

    outcomes, seconds = [], {}
    for number, (suite, case) in enumerate(planned, 1):
        if case is None:
            outcomes.append(absent[suite])
            continue
        label = f"[{number}/{len(planned)}] {suite}: {case.name}"
        stored = _run_or_read(case, context, _arguments(context, suite, content, versions), label, progress)
        outcomes.append(stored.outcome)
        seconds[f"{suite}: {case.name}"] = round(stored.seconds, 3)

    judging = [suite for suite in suites if suite not in MEASURED]
    measured = [outcome for outcome in outcomes if outcome.suite in MEASURED]
    outcomes = [outcome for outcome in outcomes if outcome.suite in judging]
    passed = all(
        any(check.verdict == "pass" for outcome in outcomes for check in outcome.checks if outcome.suite == suite)
        for suite in judging
        if suite not in absent
    )
    failed = any(check.verdict == "fail" for outcome in outcomes for check in outcome.checks)
    contract = context.artifact.contract
    validation = Validation(
        artifact=context.artifact.path.name,
        content_sha256=content,
        model=contract.model.name,
        dtype=contract.dtype,
        energy_frame=contract.energy_frame.describe(),
        model_elements=contract.elements,
        engine=context.engine,
        suites=judging,
        elements=list(context.elements),
        use=context.use,
        reference=list(context.reference),
        base=context.base.path.name if context.base else None,
        tuned_on=list(context.tuned_on),
        frame=context.frame,
        versions=versions,
        verdict="pass" if passed and not failed and len(absent) < len(judging) else "fail",
        outcomes=outcomes,
        measured=measured,
    )
    timing = {"seconds": seconds, "measured": [outcome.model_dump() for outcome in measured]}
    write_text(context.directory / "validation.json", validation.model_dump_json(indent=1) + "\n")
    write_text(context.directory / "timing.json", json.dumps(timing, indent=1) + "\n")
    return validation


def _cases(suite: str, context: Context) -> tuple[list[Case], str]:
    """The cases of a suite, or none and the reason."""
    cases: list[Case] = importlib.import_module(SUITES[suite]).cases(context)
    reason = "no reference data given. Add: --reference FILE.extxyz" if suite == "reference" else "no case applies"
    return cases, reason


def _not_tested(suite: str, engine: str, reason: str) -> Outcome:
    check = unmeasured(suite, "not-tested", reason)
    return Outcome(suite=suite, case=suite, engine=engine, purpose="", checks=[check])


def _run_or_read(case: Case, context: Context, arguments: str, label: str, progress: Progress) -> Stored:
    key = hashlib.sha256(f"{arguments}\n{case.suite}\n{case.name}".encode()).hexdigest()
    path = context.directory / "cases" / case.suite / f"{file_name(case.name)}.json"
    return run_or_read(path, key, lambda progress: case.run(context, progress), label, progress)


def run_or_read(path: Path, key: str, run: Callable[[Progress], Outcome], label: str, progress: Progress) -> Stored:
    """The outcome in a file, if it holds under the same key; else that of `run`, written there."""
    if path.exists():
        try:
            stored = Stored.model_validate_json(path.read_bytes())
        except ValidationError:
            stored = None  # of another version
        if stored is not None and stored.key == key:
            progress(f"{label} (stored)")
            return stored
    progress(label)
    start = time.perf_counter()
    outcome = run(lambda message: progress(f"{label}: {message}"))
    stored = Stored(key=key, seconds=time.perf_counter() - start, outcome=outcome)
    write_text(path, stored.model_dump_json(indent=1) + "\n")
    return stored


def _arguments(context: Context, suite: str, content: str, versions: dict[str, str]) -> str:
    """All that the outcomes of a suite depend on, as text. Files count by what they hold, not by their names."""
    found: dict[str, object] = {"content": content, "versions": versions}
    found |= context.hardware._asdict() if suite != "fidelity" else {"device": context.hardware.device}
    if suite != "fidelity":
        found |= {"engine": context.engine, "elements": context.elements}
    if suite == "reference":
        files, tuned_on = (
            [file_sha256(name) if Path(name).is_file() else name for name in names]
            for names in (context.reference, context.tuned_on)
        )
        base = context.base.content_sha256() if context.base else None
        found |= {"reference": files, "frame": context.frame, "base": base, "tuned on": tuned_on}
    if suite in MEASURED:
        found["machine"] = machine()
    if suite == "properties" and context.recipes is not None:
        found["recipes"] = [file_sha256(path) for path in sorted(context.recipes.glob("*.py"))]
    return json.dumps(found, sort_keys=True)


def file_name(case: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", case)
