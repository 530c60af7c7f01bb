"""`mlip domain`: fit the domain of a model, which grades are distances from."""

from __future__ import annotations

import argparse
from pathlib import Path

import mlip_deploy
from mlip_deploy.cli.console import STANDARD_OUTPUT, console, escape, progress_line, require_json, write_json
from mlip_deploy.cli.options import add_hardware, add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action and its options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser("fit", help="fit it to frames and write it into the file")
    fit.add_argument("file", type=Path, help="artifact written by `mlip export`")
    fit.add_argument(
        "--frames",
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE|NAME",
        help="structures that the model knows: any file that ASE reads, or a reference set; forces in them are labels",
    )
    fit.add_argument(
        "--sample",
        action="extend",
        nargs="+",
        default=[],
        metavar="STRUCTURE",
        help="structure files whose molecular dynamics with the model itself gives frames",
    )
    fit.add_argument(
        "--temperature", nargs="+", type=float, default=[300.0], metavar="T", help="of that dynamics, K; default: 300"
    )
    fit.add_argument("-o", "--out", type=Path, metavar="OUT", help="file to write; default: FILE itself")
    add_hardware(fit)
    add_json(fit, "what was fitted")


def run(options: argparse.Namespace) -> int:
    """Fit, and say in words what was written."""
    from mlip_deploy.domain.frames import read_frames

    require_json(options.json)
    with progress_line() as progress:
        head = mlip_deploy.fit_domain(
            options.file,
            options.frames,
            sampled=[read_frames(source)[0].atoms for source in options.sample],
            temperatures=options.temperature,
            output=options.out,
            device=options.device,
            threads=options.threads,
            progress=progress,
        )
    if options.json:
        write_json(options.json, head.model_dump_json(by_alias=True, indent=1, exclude={"uncertainty": {"matrix"}}))
    if options.json != STANDARD_OUTPUT:
        console.print(f"domain of {escape(str(options.out or options.file))}: {escape(head.describe())}")
    return 0
