"""`mlip export`: write an artifact, or a TorchForce file, from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from mlip_deploy.artifact.contract import EXAMPLE_FRAME, EnergyFrame
from mlip_deploy.artifact.reader import SUFFIX, SUFFIXES
from mlip_deploy.cli.console import console, escape, progress_line
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions

TORCHFORCE_SUFFIX = ".torchforce.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", nargs="?", choices=list(FAMILIES), help="framework that the model comes from")
    parser.add_argument("source", nargs="?", help="name of a published model, or a checkpoint file")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"to be written, *{SUFFIX}")
    parser.add_argument("--list", action="store_true", help="show the families and how to install each, and exit")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="default: float32")
    parser.add_argument("--modal", help="training modality, for checkpoints that have several")
    parser.add_argument("--head", help="read-out head, for models that have several")
    parser.add_argument("--elements", nargs="+", default=[], metavar="El", help="keep only these; default: all")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load a checkpoint file that is a pickle, which runs the code in it",
    )
    parser.add_argument(
        "--energy-frame",
        metavar="TERMS",
        help=f'of a checkpoint of your own: with what its energies may be compared, "{EXAMPLE_FRAME.declaration()}"',
    )
    parser.add_argument(
        "--base", metavar="NAME|FILE", help="what a checkpoint was fine-tuned from: its energy frame is that one's"
    )
    parser.add_argument(
        "--no-fuse", action="store_true", help="keep the framework's own layers instead of the fused operators (slower)"
    )
    parser.add_argument(
        "--backend",
        choices=list(SUFFIXES),
        default="torchscript",
        help="aotinductor: code compiled for this torch and processor, *.mlip.pt2; default: torchscript",
    )
    parser.add_argument(
        "--target",
        choices=["artifact", "torchforce"],
        default="artifact",
        help="torchforce: a file for PyPI's openmmtorch, which needs no mlip-deploy to run",
    )


def run(options: argparse.Namespace) -> int:
    if options.list:
        return _list_families()
    if not (options.family and options.source and options.output):
        raise MLIPError(
            "mlip export needs FAMILY, SOURCE and -o FILE. Type, for instance: mlip export sevennet 7net-0 -o "
            f"7net-0{SUFFIX}. For the families: mlip export --list"
        )
    torchforce = options.target == "torchforce"
    if torchforce and options.backend != "torchscript":
        raise MLIPError(f"--target torchforce is TorchScript. Leave out --backend {options.backend}")
    suffix = TORCHFORCE_SUFFIX if torchforce else SUFFIXES[options.backend]
    if not options.output.name.endswith(suffix):
        stem = options.output.name.split(".")[0]
        compiled = ", or add --backend aotinductor" if options.output.name.endswith(SUFFIXES["aotinductor"]) else ""
        raise MLIPError(f"-o {options.output}: file names end in {suffix} here. Type: -o {stem}{suffix}{compiled}")
    with progress_line() as step:
        step("loading torch and the framework")
        from mlip_deploy.exporters.targets.torchforce import write_torchforce
        from mlip_deploy.exporters.write import write_artifact

        fuse = not options.no_fuse and not torchforce  # TorchForce files hold no custom operator
        adapted = FAMILIES[options.family].adapt(
            options.source,
            ExportOptions(
                modal=options.modal,
                head=options.head,
                fuse=fuse,
                elements=tuple(options.elements),
                trust_checkpoint=options.trust_checkpoint,
                energy_frame=EnergyFrame.parse(options.energy_frame) if options.energy_frame else None,
                base=options.base,
            ),
        )
        if torchforce:
            write_torchforce(adapted, options.output, options.dtype, step)
        else:
            write_artifact(adapted, options.output, options.dtype, step, options.backend)
    size = options.output.stat().st_size / 1e6
    console.print(
        f"{options.output} ({size:.1f} MB): {adapted.identity.name}, {len(adapted.elements)} elements, cutoff "
        f"{adapted.cutoff:g} Å, {options.dtype}"
    )
    if not torchforce:
        console.print(f"next: mlip check {options.output}")
    return 0


def _list_families() -> int:
    table = Table(box=None, pad_edge=False)
    for heading in ("family", "installed", "install with", "SOURCE"):
        table.add_column(heading, no_wrap=heading != "SOURCE")  # a line to copy stays a line
    for family in FAMILIES.values():
        table.add_row(family.name, "yes" if family.installed else "no", family.install, escape(family.sources))
    console.print(table)
    console.print("A model of your own: mlip_deploy.exporters.export_module (docs/extending.md)")
    return 0
