"""Open questions on foundation models, and what a validation can say to each: evidence, and what was not tested."""

from __future__ import annotations

from collections.abc import Sequence

from mlip_deploy.report.page import Page, measured
from mlip_deploy.validation.case import Check
from mlip_deploy.validation.reference.suite import DOMAIN
from mlip_deploy.validation.run import JUDGED, Validation


def add_foundation_criteria(out: Page, validation: Validation) -> None:
    """One row for each question. No composite score: the reader weighs the evidence for a use."""
    out.heading("Six open questions on foundation models")
    out.table(
        ["question", "evidence of this validation", "not tested here"],
        [
            ["What is the minimal definition?", _definition(validation), "transfer to phases that no suite contains"],
            [
                "More data, better data or better models?",
                _data(validation),
                "" if validation.base else "forgetting after fine-tuning (--base, --tuned-on)",
            ],
            [
                "Long range?",
                _case(validation, "locality"),
                "electrostatics and dispersion beyond the interaction range",
            ],
            [
                "New physics?",
                f"energies: {validation.energy_frame}; outputs: energy, forces, stress",
                "charges, spins, fields, excited states, finite electronic temperature",
            ],
            [
                "Scale to useful simulations?",
                "; ".join([_case(validation, "extensivity"), _ranks(validation), *_cost(validation)]),
                "larger systems and other machines: mlip bench FILE"
                if validation.measured
                else "cost and memory per atom and step: add the suite cost, or type mlip bench FILE",
            ],
            [
                "How do we know that it is any good?",
                "; ".join([_suites(validation), *_domain(validation)]),
                _missing(validation),
            ],
        ],
    )


def _definition(validation: Validation) -> str:
    tested = validation.elements or validation.model_elements
    if "physics" not in validation.suites:
        return f"none: the suite physics did not run each of the model's {len(validation.model_elements)} elements"
    return (
        f"a run of each of {len(tested)} of the model's {len(validation.model_elements)} elements; "
        f"{_case(validation, 'every element')}; {_case(validation, 'dimers')}; all of physics: "
        f"{_tally(validation, 'physics')}"
    )


def _data(validation: Validation) -> str:
    if not validation.count("reference", "pass") and not validation.count("reference", "fail"):
        return "none: no reference data were compared (--suite reference --reference …)"
    sets = ", ".join(dict.fromkeys([*validation.tuned_on, *validation.reference]))
    if validation.base is None:
        return f"zero-shot against {sets}: {_tally(validation, 'reference')}"
    ratios = [
        f"{outcome.case}: {check.quantity}: {check.value:.2f} ({check.verdict})"
        for outcome in validation.outcomes
        for check in outcome.checks
        if outcome.suite == "reference" and "over zero-shot" in check.quantity and check.value is not None
    ]
    return f"fine-tuned, zero-shot is {validation.base}, against {sets}: {'; '.join(ratios)}"


def _ranks(validation: Validation) -> str:
    done = [
        outcome.case
        for outcome in validation.outcomes
        if outcome.suite == "fidelity"
        and outcome.checks
        and any(check.verdict == "pass" for check in outcome.checks)
        and all(check.verdict != "fail" for check in outcome.checks)
    ]
    return f"same results in {', '.join(done)}" if done else "fidelity not shown in any engine"


def _cost(validation: Validation) -> list[str]:
    """Marked as measured."""
    found = [
        f"{c.quantity}: {c.value:.3g} {c.unit}" for o in validation.measured for c in o.checks if c.value is not None
    ]
    return [measured("; ".join(found))] if found else []


def _suites(validation: Validation) -> str:
    return "; ".join(f"{suite} {_tally(validation, suite)}" for suite in validation.suites)


def _domain(validation: Validation) -> list[str]:
    """The domain of applicability, as far as labels were compared: beyond it nothing was shown."""
    return [
        f"{outcome.case}, {note}"
        for outcome in validation.outcomes
        for note in outcome.notes
        if outcome.suite == "reference" and note.startswith(DOMAIN)
    ]


def _missing(validation: Validation) -> str:
    listed = [
        f"{outcome.suite}, {outcome.case}: {check.quantity}"
        for outcome in validation.outcomes
        for check in outcome.checks
        if check.verdict == "not-tested"
    ]
    others = [suite for suite in ("fidelity", "physics", "reference", "properties") if suite not in validation.suites]
    return "; ".join([*others, *listed]) or "nothing of what was asked for"


def _tally(validation: Validation, suite: str) -> str:
    return _counts([check for outcome in validation.outcomes if outcome.suite == suite for check in outcome.checks])


def _counts(checks: Sequence[Check]) -> str:
    verdicts = [check.verdict for check in checks]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in JUDGED if v in verdicts) or "not tested"


def _case(validation: Validation, name: str) -> str:
    """Verdicts of a physics case, the number closest to its threshold, and what was only reported."""
    checks = [
        check
        for outcome in validation.outcomes
        if outcome.suite == "physics" and outcome.case == name
        for check in outcome.checks
    ]
    parts = [f"{name}: {_counts(checks)}"]
    judged = [check for check in checks if check.value is not None and check.value <= (check.threshold or 0.0)]
    if judged:
        worst = max(judged, key=_closeness)
        parts.append(
            f"closest to its threshold: {worst.quantity}, {worst.value:.2g} of {worst.threshold:.2g} {worst.unit}"
        )
    parts += [
        f"{check.quantity}: {check.value:.3g} {check.unit}"
        for check in checks
        if check.value is not None and check.threshold is None
    ]
    return "; ".join(parts)


def _closeness(check: Check) -> float:
    return (check.value or 0.0) / check.threshold if check.threshold else 0.0
