"""The page of a run: verdict, plots, averages, settings, and what to do next."""

from __future__ import annotations

import importlib.metadata
from math import isfinite

from mlip_deploy.report.page import Page
from mlip_deploy.simulation.content import Average, Run
from mlip_deploy.simulation.judge import with_error

HEADLINES = {
    "finished": {"pass": "Finished", "open": "Finished, with a question", "fail": "Finished, but not as it should"},
    "interrupted": {"open": "Interrupted"},
    "failed": {"fail": "Stopped by an error"},
}
"""By how it ended, and what was found."""


def page(run: Run) -> str:
    """The HTML text."""
    out = Page(f"Run of {run.structure}", f"{run.plan}. Model: {run.model}. Engine: {run.engine}.")
    out.verdict(HEADLINES[run.ending][run.verdict], run.verdict, [finding.text for finding in run.findings])
    for finding in run.findings:
        if finding.remedy:
            out.paragraph(f"What to do: {finding.remedy}.".replace("..", "."))
    out.curves(run.curves)
    if run.averages:
        out.heading("Averages")
        out.table(["quantity", "mean", "unit", "steady"], [_row(average) for average in run.averages])
        out.paragraph(
            "Without the first fifth of the run. Each error is one standard error of the mean, from blocks (Flyvbjerg "
            "and Petersen, 1989). Steady: both halves have the same mean, within three standard errors."
        )
    if run.warnings:
        out.heading("Warnings of the engine")
        out.items(run.warnings)
    if run.following:
        out.heading("What to do next")
        for sentence, command in run.following:
            out.paragraph(sentence)
            out.preformatted(command)
    out.heading("Settings")
    packages = ("mlip-deploy", "torch", run.engine)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    out.table(
        ["", ""],
        [
            ["structure", run.structure],
            ["model", run.model],
            ["run", run.plan],
            ["done", f"{run.steps_done} of {run.steps}, in {run.seconds:.1f} s"],
            *run.settings,
            ["versions", versions],
        ],
    )
    out.paragraph("The same run, by hand:")
    out.preformatted(run.command)
    return out.html()


def _row(average: Average) -> list[str]:
    known = isfinite(average.error)
    return [
        average.quantity,
        with_error(average.mean, average.error) + ("" if known else " (too few values for an error)"),
        average.unit,
        "yes" if average.steady else "no",
    ]
