"""The report page of `mlip conform`."""

from __future__ import annotations

from mlip_deploy.conformance.probe import verdict
from mlip_deploy.conformance.result import Conformance
from mlip_deploy.report.page import Page
from mlip_deploy.validation.case import Check, Outcome

INTRODUCTION = (
    "Each probe holds the potential, inside its engine, to what every potential must obey there. A probe passes, "
    "fails, or was refused: the engine stopped with a message, which is as good as a pass, since nobody gets a wrong "
    "number."
)


def page(found: Conformance) -> str:
    """HTML: the verdict, a line for each probe, what failed, then every check, folded."""
    out = Page(f"{found.potential} in {found.engine}", INTRODUCTION)
    failed = [outcome for outcome in found.outcomes if verdict(outcome) == "fail"]
    out.verdict(f"Verdict: {found.verdict}: {found.summary()}", found.verdict, [outcome.purpose for outcome in failed])
    versions = ", ".join(f"{name} {version}" for name, version in found.description["versions"].items())
    out.paragraph(f"Structure: {found.structure}. Versions: {versions}.")
    out.preformatted("\n".join(found.description.get("commands", [found.description.get("factory", "")])))
    for outcome in failed:
        out.heading(f"Failed: {outcome.case}")
        out.paragraph(outcome.purpose)
        rows = [_row(check) for check in outcome.checks if check.verdict == "fail"]
        out.table(["check", "value", "threshold", "unit", "why"], rows)
    out.heading("Probes")
    rows = [[o.case, verdict(o), o.purpose, _worst(o)] for o in found.outcomes]
    out.table(["probe", "verdict", "what must hold", "nearest to its threshold"], rows)
    out.curves([curve for outcome in found.outcomes for curve in outcome.curves])
    out.heading("Every check")
    for outcome in found.outcomes:
        with out.folded(f"{outcome.case}: {verdict(outcome)}"):
            out.table(
                ["check", "value", "threshold", "unit", "verdict", "source or reason"],
                [[*_row(check)[:4], check.verdict, check.reason or check.source] for check in outcome.checks],
            )
    noise = [[name.replace("_", " "), f"{value:.2g}"] for name, value in found.noise.items()]
    out.table(["quantity", "noise: largest difference over translated and hardly displaced copies, in eV and Å"], noise)
    return out.html()


def _row(check: Check) -> list[str]:
    value, threshold = ("–" if number is None else f"{number:.3g}" for number in (check.value, check.threshold))
    return [check.quantity, value, threshold, check.unit, check.reason]


def _worst(outcome: Outcome) -> str:
    """The check of the probe's verdict that is nearest to its threshold, or above it."""
    judged = [check for check in outcome.checks if check.verdict == verdict(outcome)]
    numbers = [check for check in judged if check.value is not None and check.threshold]
    if numbers:
        worst = max(numbers, key=lambda check: (check.value or 0.0) / (check.threshold or 1.0))
        return f"{worst.quantity}: {worst.value:.2g} of {worst.threshold:.2g} {worst.unit}"
    return judged[0].reason if judged else ""
