"""`mlip validate`: run the suites, write the report, record the verdict in the file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.table import Table

import mlip_deploy
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, errors, progress_line, require_json, show, write_json
from mlip_deploy.cli.options import add_engine, add_hardware, add_json, comma_separated, symbols
from mlip_deploy.validation.suites import DEFAULT_SUITES, SUITES

if TYPE_CHECKING:
    from mlip_deploy.validation.run import Validation


ENERGIES_UNJUDGED = 3
"""exit status: no check failed, but the energies of a reference set had no verdict"""


class _Renamed(argparse.Action):
    """Says what `--sign` is called now."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error("--sign is not an option: what is written is a record. Use --record")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.validate`."""
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    parser.add_argument(
        "--suites",
        "--suite",
        type=comma_separated,
        default=list(DEFAULT_SUITES),
        metavar="SUITES",
        help=f"comma-separated, of {', '.join(SUITES)}; default: {','.join(DEFAULT_SUITES)}",
    )
    add_engine(parser, "lammps", "where physics and properties run, ")
    parser.add_argument(
        "--elements", type=symbols, default=[], metavar="Si,O", help="comma-separated; default: all of the model's"
    )
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
    add_hardware(parser)
    parser.add_argument("--sign", action=_Renamed, nargs=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the verdict, pass or fail, into the file, and the domain of its reference frames",
    )
    add_json(parser, "every outcome")
    parser.add_argument(
        "-o", "--out", required=True, type=Path, metavar="OUT", help="folder of results; run again to go on"
    )


def run(options: argparse.Namespace) -> int:
    """Validate, and print the verdict. Returns 1 when a check failed, 3 when none did and reference energies
    were not judged.
    """
    require_json(options.json)
    with progress_line() as progress:
        validation = mlip_deploy.validate(
            options.file,
            options.suites,
            out=options.out,
            engine=options.engine,
            elements=options.elements,
            use=options.use,
            reference=options.reference,
            base=options.base,
            tuned_on=options.tuned_on,
            frame=options.frame,
            recipes=options.recipes,
            threads=options.threads,
            device=options.device,
            record=options.record,
            progress=progress,
        )
    if options.json:
        write_json(options.json, validation.model_dump_json(indent=1))
    if options.json != STANDARD_OUTPUT:
        _print(validation)
        console.print(f"report: {options.out / 'report.html'}")
        if options.record:
            console.print(f"recorded in {options.file}: {validation.verdict}", markup=False)
        if validation.domain:
            console.print(f"domain of {options.file}: {validation.domain}", markup=False)
    if not validation.passed:
        return 1
    return ENERGIES_UNJUDGED if validation.energies_unjudged() else 0


def _print(validation: Validation) -> None:
    from mlip_deploy.report.page import VERDICTS

    table = Table(title=f"{validation.artifact}: {validation.model} in {validation.dtype}")
    table.add_column("suite")
    for verdict in VERDICTS:
        table.add_column(verdict, justify="right")
    for suite in validation.suites:
        table.add_row(suite, *(str(validation.count(suite, verdict)) for verdict in VERDICTS))
    show(table)
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
