"""`mlip validate`: run the suites, write the report, sign the file."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from mlip_deploy.artifact.gate import sign
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.validation_record import REQUIRED_SUITES
from mlip_deploy.cli.console import console, errors, progress_line
from mlip_deploy.cli.options import comma_separated
from mlip_deploy.engines import ENGINES
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import write_text
from mlip_deploy.report.page import VERDICTS
from mlip_deploy.validation.case import Context, Hardware
from mlip_deploy.validation.report.summary import page
from mlip_deploy.validation.run import MEASURED, SUITES, Validation, validate

ENERGIES_UNJUDGED = 3
"""exit status: no check failed, but the energies of a reference set had no verdict"""
DEFAULT_SUITES = (*REQUIRED_SUITES, *MEASURED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    parser.add_argument(
        "--suite",
        default=",".join(DEFAULT_SUITES),
        help=f"comma-separated, of {', '.join(SUITES)}; default: {','.join(DEFAULT_SUITES)}",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="lammps", help="where physics and properties run; default: lammps"
    )
    parser.add_argument("--elements", default="", help="comma-separated; default: all of the model's")
    parser.add_argument("--use", help="what the model is wanted for; printed in the report")
    parser.add_argument(
        "--reference", action="append", default=[], metavar="FILE|NAME", help="reference data; may be repeated"
    )
    parser.add_argument("--base", type=Path, metavar="FILE", help="artifact of the model before it was fine-tuned")
    parser.add_argument(
        "--tuned-on",
        action="append",
        default=[],
        metavar="FILE|NAME",
        help="reference data that it was fine-tuned on; may be repeated",
    )
    parser.add_argument("--frame", help="conversion of the reference energies to the model's energy frame")
    parser.add_argument("--recipes", type=Path, metavar="FOLDER", help="property recipes of your own")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads in the model; default: the engine's own")
    parser.add_argument("--device", default="cpu", help="of the model: cpu (default), cuda, cuda:N or auto")
    parser.add_argument("--sign", action="store_true", help="write the verdict into the file if all checks pass")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help="folder of results; run again to go on"
    )


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 when a check failed, 3 when none did and reference energies were not judged.

    Raises:
        MLIPError: for wrong input.
    """
    suites = comma_separated(options.suite)
    for suite in suites:
        if suite not in SUITES:
            raise MLIPError(f"--suite {options.suite}: '{suite}' is not one of {', '.join(SUITES)}")
    if not suites:
        raise MLIPError(f"--suite is empty. Name some of {', '.join(SUITES)}")
    if not set(suites) - set(MEASURED):
        raise MLIPError(
            f"--suite {options.suite} measures and judges nothing. Add a suite, such as fidelity, or type: "
            f"mlip bench {options.file}"
        )
    if options.output.exists() and not options.output.is_dir():
        raise MLIPError(f"-o {options.output} is a file. Name a folder")
    if options.recipes is not None and not options.recipes.is_dir():
        raise MLIPError(f"--recipes {options.recipes}: no such folder")
    if options.tuned_on and options.base is None:
        raise MLIPError(f"--tuned-on {options.tuned_on[0]} needs the model before it was tuned. Add: --base FILE")
    if options.base is not None and not (options.reference or options.tuned_on):
        raise MLIPError(f"--base {options.base} is compared on reference data. Add: --tuned-on FILE --reference NAME")
    if options.base is not None and "reference" not in suites:
        raise MLIPError(f"--base {options.base}: nothing reads it. Add: --suite reference")
    artifact = Artifact(options.file)
    elements = comma_separated(options.elements)
    contract = artifact.contract
    unknown = [symbol for symbol in elements if symbol not in contract.elements]
    if unknown:
        raise MLIPError(
            f"--elements {options.elements}: '{unknown[0]}' is not an element of {contract.model.name} "
            f"({len(contract.elements)} elements, see: mlip info {options.file})"
        )
    context = Context(
        artifact=artifact,
        engine=options.engine,
        directory=options.output,
        elements=elements,
        use=options.use,
        reference=options.reference,
        base=Artifact(options.base) if options.base is not None else None,
        tuned_on=options.tuned_on,
        frame=options.frame,
        hardware=Hardware(options.threads, options.device),
        recipes=options.recipes,
    )
    with progress_line() as progress:
        validation = validate(context, suites, progress)
        progress("writing the report")
        write_text(options.output / "report.html", page(validation))
    _print(validation)
    console.print(f"report: {options.output / 'report.html'}")
    if options.sign:
        sign(artifact, validation.signature())
        console.print(f"signed: {options.file}")
    if validation.verdict != "pass":
        return 1
    return ENERGIES_UNJUDGED if validation.energies_unjudged() else 0


def _print(validation: Validation) -> None:
    table = Table(title=f"{validation.artifact}: {validation.model} in {validation.dtype}")
    table.add_column("suite")
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right")
    for suite in validation.suites:
        table.add_row(suite, *(str(validation.count(suite, verdict)) for verdict in VERDICTS))
    console.print(table)
    for outcome, check in validation.failures():
        text = f"{outcome.suite}, {outcome.case}: {check.quantity}: {_reason(check.value, check.threshold, check.unit)}"
        errors.print("fail " + text + (f" ({check.reason})" if check.reason else ""), style="red", markup=False)
    for outcome in validation.outcomes:
        for verdict in ("not-tested", "expected-fail"):
            found = [check for check in outcome.checks if check.verdict == verdict]
            if found:
                more = f", and {len(found) - 1} more in the report" if len(found) > 1 else ""
                text = f"{verdict}: {outcome.case}: {found[0].quantity}: {found[0].reason}{more}"
                console.print(text, markup=False)
    console.print(f"verdict: {validation.describe_verdict()}", markup=False)
    if validation.energies_unjudged():
        console.print(
            f"energies were compared without a verdict (exit status {ENERGIES_UNJUDGED}). For one, leave out --frame "
            "as-is, and type what is then asked for",
            markup=False,
        )


def _reason(value: float | None, threshold: float | None, unit: str) -> str:
    if value is None:
        return "no value"
    return f"{value:.3g} {unit}" + (f", threshold {threshold:.3g}" if threshold is not None else "")
