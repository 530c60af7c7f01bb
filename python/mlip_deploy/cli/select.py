"""`mlip select`: the most informative of collected frames, for labelling."""

from __future__ import annotations

import argparse
from pathlib import Path

import mlip_deploy
from mlip_deploy.cli.console import console, escape, progress_line
from mlip_deploy.cli.options import add_hardware
from mlip_deploy.files import require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.select_frames`."""
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    parser.add_argument("frames", nargs="+", help="structures, such as a guard's dump: any file that ASE reads")
    parser.add_argument("--n", type=int, default=50, metavar="N", help="frames to choose at most; default: 50")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="extended XYZ file for the frames")
    add_hardware(parser)


def run(options: argparse.Namespace) -> int:
    """Choose, and write the frames, the most informative one first."""
    from ase.io import write

    from mlip_deploy.domain.frames import read_frames

    require_file(options.out)
    frames = [frame.atoms for source in options.frames for frame in read_frames(source)]
    with progress_line() as progress:
        chosen = mlip_deploy.select_frames(
            options.file, frames, options.n, device=options.device, threads=options.threads, progress=progress
        )
    write(options.out, [frames[k] for k in chosen], format="extxyz")
    console.print(f"{len(chosen)} of {len(frames)} frames, the most informative one first: {escape(str(options.out))}")
    return 0
