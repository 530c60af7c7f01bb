"""`mlip compose`: one artifact of several."""

from __future__ import annotations

import argparse
from pathlib import Path

import mlip_deploy
from mlip_deploy.cli.console import console, escape, progress_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `mlip_deploy.compose`."""
    parser.add_argument(
        "composition",
        choices=["mean", "committee", "difference"],
        help="mean of the energies; committee: with the members' spread as energy_std of each atom; difference: the "
        "first minus the second",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="artifacts written by `mlip export`")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="file to write, *.mlip.pt")


def run(options: argparse.Namespace) -> int:
    """Compose, and print what was written."""
    with progress_line() as progress:
        contract = mlip_deploy.compose(options.composition, options.files, options.output, progress=progress)
    console.print(f"{escape(str(options.output))}: {escape(contract.model.name)}, {len(contract.elements)} elements")
    console.print(f"next: mlip check {escape(str(options.output))}")
    return 0
