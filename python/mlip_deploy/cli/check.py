"""`mlip check`: replay an artifact's fixtures in the engines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

import mlip_deploy
from mlip_deploy.cli.console import (
    STANDARD_OUTPUT,
    console,
    errors,
    escape,
    progress_line,
    require_json,
    show,
    write_json,
)
from mlip_deploy.cli.options import add_device, add_engines, add_json, counts
from mlip_deploy.engines import ENGINES

if TYPE_CHECKING:
    from mlip_deploy.validation.case import Check
    from mlip_deploy.validation.fidelity import FidelityReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.check`."""
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    add_engines(parser, ENGINES, ENGINES)
    parser.add_argument("--ranks", type=counts, default=[1, 2], help="MPI ranks for LAMMPS; default: 1,2")
    add_device(parser)
    add_json(parser, "every number")


def run(options: argparse.Namespace) -> int:
    """Check, and print one line for each engine and number of ranks. Returns 1 if not all is within tolerance."""
    require_json(options.json)
    with progress_line() as progress:
        report = mlip_deploy.check(
            options.file, options.engines, options.ranks, device=options.device, progress=progress
        )
    if options.json:
        write_json(options.json, report.model_dump_json(indent=1))
    if options.json != STANDARD_OUTPUT:
        _print(report)
    return 0 if report.passed else 1


def _print(report: FidelityReport) -> None:
    table = Table(title=f"{report.artifact}: {report.model} in {report.dtype} against {report.reference} in float64")
    for heading in ("engine", "ranks", "structures", "ΔE eV/atom", "lone atom eV", "ΔF eV/Å", "Δσ eV/Å³", "verdict"):
        table.add_column(heading, justify="left" if heading in ("engine", "verdict") else "right")
    for engine, n_ranks in dict.fromkeys((c.engine, c.ranks) for c in report.comparisons):
        rows = [c for c in report.comparisons if (c.engine, c.ranks) == (engine, n_ranks)]
        tested = [c for c in rows if c.verdict in ("pass", "fail")]
        failed = [c for c in rows if c.verdict == "fail"]

        def worst(values: list[float | None]) -> str:
            numbers = [value for value in values if value is not None]
            return f"{max(numbers):.1e}" if numbers else "-"

        table.add_row(
            engine,
            str(n_ranks),
            f"{len(tested)} of {len(rows)}",
            worst([c.energy_per_atom for c in tested if not c.isolated_atom]),
            worst([c.energy_per_atom for c in tested if c.isolated_atom]),
            worst([c.forces for c in tested]),
            worst([c.stress for c in tested]),
            "[red]fail[/]" if failed else "[green]pass[/]" if tested else "[yellow]not tested[/]",
        )
    table.add_section()
    table.add_row(
        "tolerance",
        "",
        "",
        f"{report.tolerance_energy_per_atom:.1e}",
        f"{report.tolerance_isolated_atom:.1e}",
        f"{report.tolerance_forces:.1e}",
        f"{report.tolerance_stress:.1e}",
        "",
    )
    show(table)
    for comparison in report.comparisons:
        where = f"{comparison.engine}, {comparison.ranks} rank(s), {comparison.structure}"
        if comparison.verdict == "fail":
            errors.print(f"[red]fail[/] {where}: {escape(comparison.reason)}")
        elif comparison.verdict == "not-applicable":
            console.print(f"[dim]not applicable: {where}: {comparison.reason}[/]")
    if report.parts is not None:
        _print_parts(report.parts)
    for engine, reason in dict.fromkeys((c.engine, c.reason) for c in report.comparisons if c.verdict == "not-tested"):
        console.print(f"[yellow]not tested[/]: {engine}: {escape(reason)}")
    if not any(comparison.verdict in ("pass", "fail") for comparison in report.comparisons):
        errors.print("[red]nothing was tested[/], so nothing shows that this is the original model")


def _print_parts(parts: Check) -> None:
    found = "" if parts.value is None else f" {parts.value:.1e} {parts.unit}, tolerance {parts.threshold:.1e}"
    reason = f": {parts.reason}" if parts.reason else ""
    if parts.verdict == "fail":
        errors.print(f"[red]fail[/] {escape(parts.quantity + found + reason)}")
    elif parts.verdict == "pass":
        console.print(f"[green]pass[/] {escape(parts.quantity + found)}")
    else:
        console.print(f"[dim]not applicable: {escape(parts.quantity + reason)}[/]")
