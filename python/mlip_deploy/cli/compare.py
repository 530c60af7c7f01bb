"""`mlip compare`: arguments, and what is printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

import mlip_deploy
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, progress_line, require_json, show, write_json
from mlip_deploy.cli.options import add_engine, add_hardware, add_json, symbols

if TYPE_CHECKING:
    from mlip_deploy.comparison.content import ModelComparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.compare`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="artifacts, two or more")
    parser.add_argument(
        "--reference", action="append", default=[], metavar="FILE|NAME", help="reference data; may be repeated"
    )
    parser.add_argument(
        "--frame",
        action="append",
        default=[],
        help="as for mlip validate; once for all models, or once for each in their order",
    )
    parser.add_argument("--properties", action="store_true", help="also run the property recipes")
    parser.add_argument("--recipes", type=Path, metavar="FOLDER", help="folder with further recipes")
    parser.add_argument(
        "--elements",
        type=symbols,
        default=[],
        metavar="Si,O",
        help="comma-separated; default: a few that all models know",
    )
    parser.add_argument(
        "--structures", type=Path, metavar="FILE", help="where sampling starts, any format of ASE; default: crystals"
    )
    add_engine(parser, "ase")
    add_hardware(parser, "models")
    add_json(parser, "every number")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder of results")


def run(options: argparse.Namespace) -> int:
    """Compare, and print the tables."""
    require_json(options.json)
    with progress_line() as progress:
        found = mlip_deploy.compare(
            options.files,
            out=options.out,
            reference=options.reference,
            frame=options.frame,
            properties=options.properties,
            recipes=options.recipes,
            elements=options.elements,
            structures=options.structures,
            engine=options.engine,
            threads=options.threads,
            device=options.device,
            progress=progress,
        )
    if options.json:
        write_json(options.json, found.model_dump_json(indent=1))
    if options.json != STANDARD_OUTPUT:
        _print(found)
        console.print(f"report: {options.out / 'compare.html'}")
    return 0


def _print(found: ModelComparison) -> None:
    from mlip_deploy.comparison.page import matrices, number

    if found.rows:
        table = Table(box=None, pad_edge=False)
        for heading in ("case", "quantity", "unit"):
            table.add_column(heading)
        for name in found.models:
            table.add_column(name, justify="right")
        for row in found.rows:
            table.add_row(row.case, row.quantity, row.unit, *(number(value) for value in row.values))
        show(table)
    for title, unit, matrix in matrices(found.cross_prediction):
        table = Table(box=None, pad_edge=False, title=f"cross-prediction: {title} / {unit}", title_justify="left")
        table.add_column("predicts \\ sampled by")
        for name in found.models:
            table.add_column(name, justify="right")
        for name, values in zip(found.models, matrix, strict=True):
            table.add_row(name, *(number(value) for value in values))
        show(table)
    for d in found.cross_prediction.disagreement:
        text = f"disagreement on {d.element}: mean {d.mean:.3f}, largest {d.largest:.3f} eV/Å ({d.where})"
        console.print(text, markup=False)
    for note in found.notes:
        if note.startswith("warning: "):
            console.print(note, style="yellow", markup=False)
    for flag in found.flags:
        console.print(
            f"look at the label: {flag.reference}, {flag.frame}: {flag.quantity} is {flag.label_against_models:.3f} "
            f"{flag.unit} from every model, which differ by {flag.models_among_themselves:.3f}",
            markup=False,
        )
