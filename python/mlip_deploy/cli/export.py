"""`mlip export`: write an artifact, or a TorchForce file, from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

import mlip_deploy
from mlip_deploy.artifact.contract import EXAMPLE_FRAME, EnergyFrame
from mlip_deploy.cli.console import console, escape, progress_line, show
from mlip_deploy.cli.options import symbols
from mlip_deploy.exporters.families.registry import FAMILIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.export`, and `--list`."""
    parser.add_argument("family", choices=list(FAMILIES), help="framework that the model comes from")
    parser.add_argument("source", help="name of a published model, or a checkpoint file")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="file to write, *.mlip.pt")
    parser.add_argument(
        "--list", action=_ListFamilies, nargs=0, help="show the families and how to install each, and exit"
    )
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="default: float32")
    parser.add_argument("--modal", help="training modality, for checkpoints that have several")
    parser.add_argument("--head", help="read-out head, for models that have several")
    parser.add_argument(
        "--member", type=int, metavar="N", help="one of an ensemble, counted from 0; default: the mean of all"
    )
    parser.add_argument(
        "--elements", type=symbols, default=[], metavar="Si,O", help="comma-separated: keep only these; default: all"
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint file that is a pickle, which runs the code in it",
    )
    parser.add_argument(
        "--energy-frame",
        metavar="TERMS",
        help=f'method of the training energies, for a checkpoint of your own: "{EXAMPLE_FRAME.declaration()}"',
    )
    parser.add_argument(
        "--base", metavar="NAME|FILE", help="model that the checkpoint was fine-tuned from; its energy frame is taken"
    )
    parser.add_argument(
        "--fix",
        action="append",
        default=[],
        type=_name_and_value,
        metavar="NAME=VALUE",
        help="give a setting of the model, such as charge=0, its value for good; may be given several times",
    )
    parser.add_argument(
        "--no-fuse", action="store_true", help="keep the framework's own layers instead of the fused operators (slower)"
    )
    parser.add_argument(
        "--radial",
        choices=["auto", "table", "exact"],
        default="auto",
        help="radial networks as tables (faster) or evaluated; auto, the default: tables in float32, exact in float64",
    )
    parser.add_argument(
        "--backend",
        choices=["torchscript", "aotinductor"],
        default="torchscript",
        help="aotinductor: code compiled for this torch and processor, *.mlip.pt2; default: torchscript",
    )
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="what --backend aotinductor compiles for: cuda needs a GPU like the one that will run the file",
    )
    parser.add_argument(
        "--target",
        choices=["artifact", "torchforce"],
        default="artifact",
        help="torchforce: a file for PyPI's openmmtorch, which needs no mlip-deploy to run",
    )


def run(options: argparse.Namespace) -> int:
    """Export, and print what was written."""
    notes: list[str] = []
    with progress_line() as progress:
        path = mlip_deploy.export(
            options.family,
            options.source,
            options.output,
            dtype=options.dtype,
            elements=options.elements,
            modal=options.modal,
            head=options.head,
            member=options.member,
            fuse=not options.no_fuse,
            radial=options.radial,
            trust_checkpoint=options.trust_checkpoint,
            backend=options.backend,
            device=options.device,
            target=options.target,
            energy_frame=EnergyFrame.parse(options.energy_frame) if options.energy_frame else None,
            base=options.base,
            fix=dict(options.fix),
            progress=progress,
            note=notes.append,
        )
    written = f"{path} ({1e-6 * path.stat().st_size:.1f} MB)"
    if options.target == "torchforce":
        console.print(f"{written}: {options.source} of {options.family} for TorchForce, {options.dtype}")
        return 0
    contract = mlip_deploy.Artifact(path).contract
    console.print(
        f"{written}: {contract.model.name}, {len(contract.elements)} elements, cutoff {contract.cutoff:g} Å, "
        f"{contract.dtype}"
    )
    for note in notes:
        console.print(escape(note))
    console.print(f"next: mlip check {path}")
    return 0


def _name_and_value(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE, such as charge=0")
    return name, value


class _ListFamilies(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        table = Table(box=None, pad_edge=False)
        for heading in ("family", "installed", "install with", "SOURCE"):
            table.add_column(heading, no_wrap=heading != "SOURCE")  # a line to copy stays a line
        for family in FAMILIES.values():
            table.add_row(family.name, "yes" if family.installed else "no", family.install, escape(family.sources))
        show(table)
        console.print("A model of your own: mlip_deploy.export_module (docs/extending.md)")
        parser.exit()
