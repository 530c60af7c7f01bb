"""The page of a validation: verdict, failures, plots, the evidence on foundation models, then every number, folded."""

from __future__ import annotations

from mlip_deploy.report.page import VERDICTS, Page
from mlip_deploy.validation.case import Check, Outcome
from mlip_deploy.validation.report.foundation import add_foundation_criteria
from mlip_deploy.validation.run import Validation

TITLES = {
    "fidelity": "Fidelity: does each engine compute what the original computes?",
    "physics": "Physics: does the served potential obey what every potential must obey?",
    "reference": "Reference energies: does it agree with reference data in its own energy frame?",
    "properties": "Properties: lattice, elasticity, phonons, defects, liquids",
}


def page(validation: Validation) -> str:
    """The HTML text; the same for the same validation, but for what is marked as measured."""
    out = Page(
        f"Validation of {validation.model}",
        f"{validation.artifact} ({validation.dtype}; sha256 of its content {validation.content_sha256[:16]}…), judged "
        "as the file that runs, in the engines where it runs. Each number stands beside its threshold and the "
        "threshold's source; what was not tested is listed.",
    )
    failures = validation.failures()
    n_checks = sum(len(outcome.checks) for outcome in validation.outcomes)
    out.verdict(
        f"Verdict: {validation.describe_verdict()}",
        "open" if validation.passed and validation.energies_unjudged() else validation.verdict,
        [f"{len(failures)} of {n_checks} checks failed"] if failures else [],
    )
    if failures:
        out.heading("What failed")
        out.table(
            ["suite", "case", *CHECK_HEADINGS],
            [[outcome.suite, outcome.case, *_row(check)] for outcome, check in failures],
        )
    out.table(
        ["suite", "cases", *VERDICTS],
        [
            [suite, str(len(_of(validation, suite))), *(str(validation.count(suite, verdict)) for verdict in VERDICTS)]
            for suite in validation.suites
        ],
        caption="Checks by verdict. There is no composite score: one failed check fails the file.",
    )
    out.table(
        ["", ""],
        [
            ["energies", validation.energy_frame],
            ["engine of the physics", validation.engine],
            ["elements", _elements(validation)],
            ["wanted for", validation.use or "not stated (--use)"],
            *([["domain of the file", validation.domain]] if validation.domain else []),
            ["versions", ", ".join(f"{name} {number}" for name, number in validation.versions.items())],
        ],
    )
    curves = [
        curve.model_copy(update={"title": f"{outcome.suite}, {outcome.case}: {curve.title}"})
        for outcome in validation.outcomes
        for curve in outcome.curves
    ]
    if curves:
        out.heading("Plots")
        out.curves(curves)
    add_foundation_criteria(out, validation)
    for suite in validation.suites:
        out.heading(TITLES.get(suite, suite))
        for outcome in _of(validation, suite):
            _add_outcome(out, outcome)
    if validation.measured:
        with out.measured():
            out.heading("Cost: what differs from run to run")
            for outcome in validation.measured:
                _add_outcome(out, outcome)
                out.curves(outcome.curves)
    return out.html()


def _elements(validation: Validation) -> str:
    """What was asked for; the suite physics alone runs each element of the model."""
    if validation.elements:
        return " ".join(validation.elements)
    of_model = f"{len(validation.model_elements)} of the model"
    return f"all {of_model}" if "physics" in validation.suites else f"those of the structures, not all {of_model}"


CHECK_HEADINGS = ("quantity", "value", "threshold", "unit", "verdict", "reason", "source of the threshold")


def _add_outcome(out: Page, outcome: Outcome) -> None:
    """One line, which opens; it is open where a check failed."""
    verdicts = [check.verdict for check in outcome.checks]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts)
    with out.folded(f"{outcome.case} ({outcome.engine}): {counts or 'reported'}", is_open="fail" in verdicts):
        if outcome.purpose:
            out.paragraph(outcome.purpose)
        out.table(CHECK_HEADINGS, [_row(check) for check in outcome.checks])
        for note in outcome.notes:
            out.paragraph(note)


def _row(check: Check) -> list[str]:
    return [
        check.quantity,
        "–" if check.value is None else f"{check.value:.4g}",
        "–" if check.threshold is None else f"{check.threshold:.3g}",
        check.unit,
        check.verdict,
        check.reason,
        check.source,
    ]


def _of(validation: Validation, suite: str) -> list[Outcome]:
    return [outcome for outcome in validation.outcomes if outcome.suite == suite]
