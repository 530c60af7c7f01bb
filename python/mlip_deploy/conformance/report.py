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
    """HTML."""
    whole = Page(f"{found.potential} in {found.engine}: {found.verdict}", INTRODUCTION)
    versions = ", ".join(f"{name} {version}" for name, version in found.description["versions"].items())
    whole.paragraph(f"{found.summary()}. Structure: {found.structure}. Versions: {versions}.")
    whole.preformatted("\n".join(found.description.get("commands", [found.description.get("factory", "")])))
    whole.heading("Probes")
    rows = [[o.case, verdict(o), o.purpose, _worst(o)] for o in found.outcomes]
    whole.table(["probe", "verdict", "what must hold", "nearest to its threshold"], rows)
    failed = [outcome for outcome in found.outcomes if verdict(outcome) == "fail"]
    if failed:
        whole.heading("What failed")
        for outcome in failed:
            whole.subheading(outcome.case)
            whole.table(
                ["check", "value", "threshold", "unit", "why"], [_row(c) for c in outcome.checks if c.verdict == "fail"]
            )
    whole.heading("Every check")
    for outcome in found.outcomes:
        whole.subheading(outcome.case)
        whole.table(
            ["check", "value", "threshold", "unit", "verdict", "source or reason"],
            [[*_row(check)[:4], check.verdict, check.reason or check.source] for check in outcome.checks],
        )
        whole.curves(outcome.curves)
    whole.heading("Noise")
    whole.table(
        ["quantity", "largest difference over translated copies, in eV and Å"],
        [[name.replace("_", " "), f"{value:.2g}"] for name, value in found.noise.items()],
    )
    return whole.html()


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
