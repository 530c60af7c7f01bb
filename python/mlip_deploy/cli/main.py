"""The command `mlip`: each subcommand is a module of this package, a thin layer over a function of mlip_deploy.

Modules of subcommands declare their options without torch, ASE or matplotlib: what is heavy is imported by `run`.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

import mlip_deploy
from mlip_deploy.cli.console import errors, escape
from mlip_deploy.cli.options import Parser
from mlip_deploy.errors import MLIPError
from mlip_deploy.signals import unwind_on_signals

COMMANDS: dict[str, tuple[str, str]] = {
    "export": ("write an artifact from a checkpoint", "mlip export sevennet 7net-0 -o 7net-0.mlip.pt"),
    "info": ("show an artifact's contract", "mlip info 7net-0.mlip.pt"),
    "check": (
        "compute an artifact's reference structures in the engines and compare; exit 1 when one is out of tolerance",
        "mlip check 7net-0.mlip.pt --engines ase,lammps,openmm --ranks 1,2",
    ),
    "validate": (
        "run validation suites on an artifact in an engine; exit 1 when a check fails",
        "mlip validate 7net-0.mlip.pt --suites fidelity,physics --engine lammps --record -o validation",
    ),
    "domain": (
        "fit the domain of a model: the environments that it knows, which grades are distances from",
        "mlip domain fit 7net-0.mlip.pt --frames train.extxyz",
    ),
    "select": (
        "choose the frames to label among those that a guard collected",
        "mlip select 7net-0.mlip.pt frames.extxyz --n 50 -o selected.extxyz",
    ),
    "compose": (
        "write one artifact of several: their mean, a committee, or a difference",
        "mlip compose committee A.mlip.pt B.mlip.pt -o committee.mlip.pt",
    ),
    "compare": (
        "put several artifacts side by side: references, properties, cross-prediction, label audit",
        "mlip compare A.mlip.pt B.mlip.pt --reference wbm -o comparison/",
    ),
    "datasheet": (
        "measure what a model says to six open questions on foundation models, on one page",
        "mlip datasheet 7net-0.mlip.pt -o sheet/",
    ),
    "atlas": (
        "write the datasheets of several models, and one page across them",
        "mlip atlas A.mlip.pt B.mlip.pt -o atlas/",
    ),
    "conform": (
        "probe any potential inside its engine, whoever made it; exit 1 when a probe fails",
        'mlip conform lammps --structure si.cif --commands "pair_style sw; pair_coeff * * Si.sw Si"',
    ),
    "prepare": (
        "write a folder with a run for LAMMPS, OpenMM or ASE, from a structure file",
        "mlip prepare lammps 7net-0.mlip.pt quartz.cif -o run --ensemble nvt --temperature 300",
    ),
    "run": (
        "prepare a run, run it, and write a report; exit 1 when something was found wrong",
        "mlip run lammps 7net-0.mlip.pt quartz.cif -o run --ensemble nvt --time 10ps --ranks 2",
    ),
    "bench": (
        "measure speed, memory and the share of a step outside the model",
        "mlip bench 7net-0.mlip.pt --systems si64,si512 --engines ase,lammps",
    ),
    "deploy": ("build pair_style mlip for a LAMMPS of your own", "mlip deploy lammps --lammps-root DIR"),
    "doctor": ("show versions, devices and problems with their cure; exit 1 when there is one", "mlip doctor"),
    "completion": (
        "print a script that completes the commands and options in a shell",
        "mlip completion bash > ~/.local/share/bash-completion/completions/mlip",
    ),
}
"""Each subcommand's purpose and example; its module has `add_arguments(parser)` and `run(options) -> exit status`."""

GOOD, VERDICT_IS_NO, WRONG_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit statuses; argparse, too, ends with 2."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Returns:
        0 if all is good, 1 if a verdict is no, 2 for wrong input or usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    if arguments is None:  # then this process is the command, and nobody else's
        unwind_on_signals()
    try:
        options = parser().parse_args(arguments)
        try:
            code: int = options.run(options)
        except MLIPError as error:  # Ctrl-C may end an engine before it is heard here
            errors.print(f"[bold red]error[/]: {escape(str(error))}")
            return WRONG_INPUT
    except KeyboardInterrupt:
        errors.print("interrupted")
        return INTERRUPTED
    except SystemExit as end:
        if end.code == TERMINATED:
            errors.print("terminated")
        raise
    return code


class _Version(argparse.Action):
    """Looks the version up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"mlip-deploy {mlip_deploy.__version__}")
        parser.exit()


def parser() -> Parser:
    """The command line of `mlip`."""
    whole = Parser(
        prog="mlip",
        description="Export, inspect and check interatomic potentials for LAMMPS, OpenMM and ASE.",
        epilog="exit status: 0 good, 1 the verdict is no, 2 wrong input or usage, 3 (validate) no check failed, but "
        "reference energies were not judged",
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (purpose, example) in COMMANDS.items():
        command = commands.add_parser(
            name, help=purpose, description=purpose.capitalize() + ".", epilog=f"example: {example}"
        )
        module = import_module(f"mlip_deploy.cli.{name}")
        module.add_arguments(command)
        command.set_defaults(run=module.run, parser=whole)
    return whole


if __name__ == "__main__":
    sys.exit(main())
