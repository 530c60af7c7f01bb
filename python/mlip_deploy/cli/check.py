"""`mlip check`: replay an artifact's fixtures in the engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.cli.console import console, errors, escape, progress_line
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path)
    parser.add_argument("--engines", default="ase,lammps,openmm", help="default: ase,lammps,openmm")
    parser.add_argument("--ranks", default="1,2", help="MPI ranks for LAMMPS; default: 1,2")
    parser.add_argument("--device", default="cpu", help="of the model: cpu (default), cuda, cuda:N or auto")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write every number to OUT")


def run(options: argparse.Namespace) -> int:
    from mlip_deploy.engines import ENGINES

    engines = options.engines.split(",")
    for engine in engines:
        if engine not in ENGINES:
            raise MLIPError(f"--engines {options.engines}: '{engine}' is not one of {', '.join(ENGINES)}")
    try:
        ranks = [int(text) for text in options.ranks.split(",")]
    except ValueError:
        ranks = [0]
    if min(ranks) < 1:
        raise MLIPError(f"--ranks {options.ranks}: expected numbers such as 1,2")
    if options.json and options.json.is_dir():
        raise MLIPError(f"--json {options.json} is a folder. Name a file in it")

    Artifact(options.file)  # complain about the file before loading any engine
    from mlip_deploy.validation.fidelity import check

    with progress_line() as step:
        report = check(options.file, engines, ranks, step, device=options.device)
    if options.json:
        write_text(options.json, report.model_dump_json(indent=1) + "\n")

    table = Table(title=f"{report.artifact}: {report.model} in {report.dtype} against {report.reference} in float64")
    for heading in ("engine", "ranks", "structures", "ΔE eV/atom", "lone atom eV", "ΔF eV/Å", "Δσ eV/Å³", "verdict"):
        table.add_column(heading, justify="left" if heading in ("engine", "verdict") else "right")
    for engine, n_ranks in dict.fromkeys((c.engine, c.ranks) for c in report.comparisons):
        rows = [c for c in report.comparisons if (c.engine, c.ranks) == (engine, n_ranks)]
        applicable = [c for c in rows if c.verdict != "not-applicable"]
        failed = [c for c in rows if c.verdict == "fail"]

        def worst(values: list[float | None]) -> str:
            numbers = [value for value in values if value is not None]
            return f"{max(numbers):.1e}" if numbers else "-"

        table.add_row(
            engine,
            str(n_ranks),
            f"{len(applicable)} of {len(rows)}",
            worst([c.energy_per_atom for c in applicable if c.n_atoms > 1]),
            worst([c.energy_per_atom for c in applicable if c.n_atoms == 1]),
            worst([c.forces for c in applicable]),
            worst([c.stress for c in applicable]),
            "[red]fail[/]" if failed else "[green]pass[/]",
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
    console.print(table)
    for comparison in report.comparisons:
        where = f"{comparison.engine}, {comparison.ranks} rank(s), {comparison.structure}"
        if comparison.verdict == "fail":
            errors.print(f"[red]fail[/] {where}: {escape(comparison.reason)}")
        elif comparison.verdict == "not-applicable":
            console.print(f"[dim]not applicable: {where}: {comparison.reason}[/]")
    return 0 if report.passed else 1
