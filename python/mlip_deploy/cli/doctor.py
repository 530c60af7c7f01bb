"""`mlip doctor`: show versions, devices and problems with their cure."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from mlip_deploy.cli.console import STANDARD_OUTPUT, escape, progress_line, require_json, show, write_json
from mlip_deploy.cli.options import add_json

if TYPE_CHECKING:
    from mlip_deploy.environment.doctor import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--lammps`, `--json`."""
    parser.add_argument(
        "--lammps",
        nargs="?",
        const="",
        metavar="DIR",
        help="look at this LAMMPS of your own instead, or at the one that LAMMPS_ROOT or the PATH names",
    )
    add_json(parser, "the findings")


def run(options: argparse.Namespace) -> int:
    """Examine, and print. Returns 1 when there is a problem."""
    from mlip_deploy.environment.doctor import examine
    from mlip_deploy.environment.lammps_findings import examine_lammps

    require_json(options.json)
    with progress_line() as step:
        if options.lammps is None:
            step("looking at the environment")
            findings = examine()
        else:
            step("looking at LAMMPS")
            findings = examine_lammps(Path(options.lammps) if options.lammps else None)
    if options.json:
        write_json(options.json, json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    if options.json != STANDARD_OUTPUT:
        show(_table(findings))
    return 0 if all(finding.ok for finding in findings) else 1


def _table(findings: list[Finding]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for finding in findings:
        table.add_row(finding.item, escape(finding.found) if finding.ok else f"[red]{escape(finding.found)}[/]")
        if not finding.ok:
            table.add_row("", f"[red]{escape(finding.problem)}[/]")
            table.add_row("", f"type: [bold]{escape(finding.remedy)}[/]")
    return table
