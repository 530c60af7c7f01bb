"""`mlip compare`: arguments, and what is printed."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.cli.console import console, progress_line
from mlip_deploy.cli.options import comma_separated
from mlip_deploy.comparison.compare import ModelComparison, compare
from mlip_deploy.comparison.page import matrices, number, page
from mlip_deploy.engines import ENGINES
from mlip_deploy.files import write_text
from mlip_deploy.validation.case import Hardware


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--recipes", type=Path, metavar="DIR", help="folder with further recipes")
    parser.add_argument("--elements", default="", help="comma-separated; default: a few that all models know")
    parser.add_argument(
        "--structures", type=Path, metavar="FILE", help="where sampling starts, any format of ASE; default: crystals"
    )
    parser.add_argument("--engine", choices=ENGINES, default="ase", help="default: ase")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads in the model")
    parser.add_argument("--device", default="cpu", help="of the models: cpu (default), cuda, cuda:N or auto")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="folder of results")


def run(options: argparse.Namespace) -> int:
    """Compare, print the table, write compare.json and compare.html. Returns the exit status."""
    elements = comma_separated(options.elements)
    with progress_line() as progress:
        found = compare(
            [Artifact(path) for path in options.files],
            options.output,
            references=options.reference,
            frames=options.frame,
            with_properties=options.properties,
            recipes=options.recipes,
            elements=elements,
            structures=options.structures,
            engine=options.engine,
            hardware=Hardware(options.threads, options.device),
            progress=progress,
        )
    write_text(options.output / "compare.json", found.model_dump_json(indent=1) + "\n")
    write_text(options.output / "compare.html", page(found))
    _print(found)
    console.print(f"report: {options.output / 'compare.html'}")
    return 0


def _print(found: ModelComparison) -> None:
    if found.rows:
        table = Table(box=None, pad_edge=False)
        for heading in ("case", "quantity", "unit"):
            table.add_column(heading)
        for name in found.models:
            table.add_column(name, justify="right")
        for row in found.rows:
            table.add_row(row.case, row.quantity, row.unit, *(number(value) for value in row.values))
        console.print(table)
    for title, unit, matrix in matrices(found.cross_prediction):
        table = Table(box=None, pad_edge=False, title=f"cross-prediction: {title} / {unit}", title_justify="left")
        table.add_column("predicts \\ sampled by")
        for name in found.models:
            table.add_column(name, justify="right")
        for name, values in zip(found.models, matrix, strict=True):
            table.add_row(name, *(number(value) for value in values))
        console.print(table)
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
