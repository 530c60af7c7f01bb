"""`mlip conform`: probe any potential inside its engine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

import mlip_deploy
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, errors, progress_line, require_json, show, write_json
from mlip_deploy.cli.options import add_json, comma_separated, counts, symbols
from mlip_deploy.engines import ENGINES
from mlip_deploy.errors import MLIPError

if TYPE_CHECKING:
    from mlip_deploy.conformance.result import Conformance

MOST_LINES = 3
"""of checks that failed or were refused, for each probe; the report has all"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.conform`."""
    parser.add_argument("engine", metavar="ENGINE", choices=ENGINES, help=f"one of {', '.join(ENGINES)}")
    parser.add_argument(
        "potential",
        nargs="?",
        metavar="MODULE:FACTORY",
        help="or FILE.py:FACTORY: what makes an ASE calculator, or an OpenMM System of a Topology; LAMMPS: --commands",
    )
    parser.add_argument("--structure", required=True, type=Path, metavar="FILE", help="data file, CIF, extxyz, ...")
    parser.add_argument("--commands", metavar="TEXT", help='"pair_style sw; pair_coeff * * Si.sw Si" (LAMMPS)')
    parser.add_argument("--elements", type=symbols, default=[], metavar="Si,O", help="of LAMMPS's types, in order")
    parser.add_argument("--reference", metavar="ase:MODULE:FACTORY", help="the original, to compare with")
    parser.add_argument(
        "--ranks", type=counts, default=[1, 2, 4], metavar="1,2,4", help="to compare (LAMMPS); default: 1,2,4"
    )
    parser.add_argument(
        "--probes", type=comma_separated, default=[], metavar="NAMES", help="to run; default: the short ones"
    )
    parser.add_argument("--thorough", action="store_true", help="also the long ones")
    add_json(parser, "every outcome")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="folder of results; run again to go on")


def run(options: argparse.Namespace) -> int:
    """Probe, and print a line for each. Returns 1 when one failed."""
    potential = options.commands if options.engine == "lammps" else options.potential
    if potential is None:
        missing = '--commands "pair_style ...; pair_coeff ..."' if options.engine == "lammps" else "MODULE:FACTORY"
        raise MLIPError(f"no potential given. Add: {missing}")
    require_json(options.json)
    with progress_line() as progress:
        found = mlip_deploy.conform(
            options.engine,
            potential,
            options.structure,
            reference=options.reference,
            elements=options.elements,
            ranks=options.ranks,
            probes=options.probes,
            thorough=options.thorough,
            out=options.out,
            progress=progress,
        )
    if options.json:
        write_json(options.json, found.model_dump_json(indent=1))
    if options.json != STANDARD_OUTPUT:
        _print(found)
        if options.out:
            console.print(f"report: {options.out / 'report.html'}")
    return 0 if found.passed else 1


def _print(found: Conformance) -> None:
    table = Table(title=f"{found.potential} in {found.engine}, {found.structure}")
    table.add_column("probe")
    table.add_column("verdict")
    table.add_column("what must hold")
    verdicts = found.verdicts()
    for outcome in found.outcomes:
        table.add_row(outcome.case, verdicts[outcome.case], outcome.purpose)
    show(table)
    for outcome in found.outcomes:
        shown = [check for check in outcome.checks if check.verdict in ("fail", "refused")]
        for check in shown[:MOST_LINES]:
            numbers = "" if check.value is None else f": {check.value:.3g} > {check.threshold:.3g} {check.unit}"
            text = f"{check.verdict} {outcome.case}: {check.quantity}{numbers}"
            errors.print(text + (f" ({check.reason})" if check.reason else ""), markup=False)
        if len(shown) > MOST_LINES:
            errors.print(f"     {outcome.case}: and {len(shown) - MOST_LINES} more", markup=False)
    console.print(f"{found.verdict}: {found.summary()}", markup=False)
