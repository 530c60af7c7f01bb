"""`mlip run`: from a structure to a run and its report."""

from __future__ import annotations

import argparse

import mlip_deploy
from mlip_deploy.cli import prepare
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, errors, progress_line, require_json, write_json
from mlip_deploy.cli.options import add_json

STYLES = {"pass": "", "open": "yellow", "fail": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `mlip prepare`, and the keywords of `mlip_deploy.run`."""
    prepare.add_arguments(parser)
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="MPI ranks (LAMMPS); default: 1")
    add_json(parser, "verdict, averages and curves")


def run(options: argparse.Namespace) -> int:
    """Prepare, run, and print the verdict. Returns 1 when something was found wrong."""
    require_json(options.json)
    prepared = prepare.prepared(options)
    if options.json != STANDARD_OUTPUT:
        prepare.show(prepared)
    with progress_line() as progress:
        done = mlip_deploy.run(prepared, ranks=options.ranks, progress=progress)
    if options.json:
        write_json(options.json, done.model_dump_json(indent=1))
    if options.json != STANDARD_OUTPUT:
        for finding in done.findings:
            where = errors if finding.verdict == "fail" else console
            where.print(f"{finding.verdict:<10} {finding.text}", style=STYLES[finding.verdict], markup=False)
            if finding.remedy:
                where.print(f"{'':<10} {finding.remedy}", markup=False)
        console.print(f"report     {prepared.folder / 'report.html'}", markup=False)
    return 0 if done.passed else 1
