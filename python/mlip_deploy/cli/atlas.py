"""`mlip atlas`: arguments, and what is printed."""

from __future__ import annotations

import argparse
from pathlib import Path

import mlip_deploy
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, errors, progress_line, require_json, write_json
from mlip_deploy.cli.datasheet import add_pieces
from mlip_deploy.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.atlas`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="artifacts, two or more")
    add_pieces(parser)
    add_json(parser, "the atlas")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder of results")


def run(options: argparse.Namespace) -> int:
    """Measure, and say where the pages are."""
    require_json(options.json)
    with progress_line() as progress:
        found = mlip_deploy.atlas(
            options.files,
            out=options.out,
            pieces=options.pieces,
            quick=options.quick,
            threads=options.threads,
            device=options.device,
            progress=progress,
        )
    if options.json:
        write_json(options.json, found.model_dump_json(indent=1))
    for file, reason in found.failures.items():
        errors.print(f"{file}: {reason}. To go on, run the same command again", style="yellow", markup=False)
    if options.json != STANDARD_OUTPUT:
        for sheet in found.sheets:
            measured = sum(evidence.status == "measured" for evidence in sheet.evidence)
            missing = [evidence.piece for evidence in sheet.evidence if evidence.status == "missing"]
            words = f"; missing: {', '.join(missing)}" if missing else ""
            console.print(f"{sheet.identity.file}: {measured} pieces of evidence{words}", markup=False)
        console.print(f"atlas: {options.out / 'atlas.html'}")
    return 0
