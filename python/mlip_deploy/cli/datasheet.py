"""`mlip datasheet`: arguments, and what is printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

import mlip_deploy
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, progress_line, require_json, show, write_json
from mlip_deploy.cli.options import add_device, add_json, comma_separated

if TYPE_CHECKING:
    from mlip_deploy.datasheets.evidence import Sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.datasheet`."""
    parser.add_argument("path", type=Path, metavar="FILE", help="artifact")
    add_pieces(parser)
    add_json(parser, "the datasheet")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder of results")


def add_pieces(parser: argparse.ArgumentParser) -> None:
    """What a datasheet and an atlas measure, and where."""
    parser.add_argument(
        "--pieces",
        type=comma_separated,
        default=[],
        metavar="NAMES",
        help="comma-separated pieces of evidence to measure; default: all (docs/atlas.md lists them)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave out what takes longer than a minute with SevenNet-0"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads in the model; default: 1")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, and print the numbers."""
    require_json(options.json)
    with progress_line() as progress:
        sheet = mlip_deploy.datasheet(
            options.path,
            out=options.out,
            pieces=options.pieces,
            quick=options.quick,
            threads=options.threads,
            device=options.device,
            progress=progress,
        )
    if options.json:
        write_json(options.json, sheet.model_dump_json(indent=1))
    if options.json != STANDARD_OUTPUT:
        _print(sheet)
        console.print(f"datasheet: {options.out / 'datasheet.html'}")
    return 0


def _print(sheet: Sheet) -> None:
    from mlip_deploy.datasheets.questions import QUESTIONS
    from mlip_deploy.datasheets.sheet_page import shown

    for question, text in QUESTIONS.items():
        table = Table(box=None, pad_edge=False, title=f"{question}. {text}", title_justify="left")
        for heading in ("piece", "quantity", "value", "unit"):
            table.add_column(heading, justify="right" if heading == "value" else "left")
        for evidence in sheet.of(question):
            if evidence.found is None:
                table.add_row(evidence.piece, evidence.status, "", evidence.reason)
                continue
            for number in evidence.found.numbers:
                table.add_row(evidence.piece, number.quantity, shown(number.value), number.unit)
        show(table)
