"""The command `mlip`: each subcommand is a module of this package, a thin layer over a function of mlip_deploy."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import mlip_deploy
from mlip_deploy.cli import bench, check, compare, deploy, doctor, export, info, validate
from mlip_deploy.cli.console import errors, escape
from mlip_deploy.errors import MLIPError
from mlip_deploy.signals import unwind_on_signals

COMMANDS: dict[str, tuple[ModuleType, str, str]] = {
    "export": (export, "write an artifact from a checkpoint", "mlip export sevennet 7net-0 -o 7net-0.mlip.pt"),
    "info": (info, "show an artifact's contract", "mlip info 7net-0.mlip.pt"),
    "check": (
        check,
        "replay an artifact's fixtures in the engines; exit 1 when one is out of tolerance",
        "mlip check 7net-0.mlip.pt --engines ase,lammps,openmm --ranks 1,2",
    ),
    "validate": (
        validate,
        "run validation suites on an artifact in an engine; exit 1 when a check fails",
        "mlip validate 7net-0.mlip.pt --suite fidelity,physics --engine lammps --record -o validation",
    ),
    "compare": (
        compare,
        "put several artifacts side by side: references, properties, cross-prediction, label audit",
        "mlip compare A.mlip.pt B.mlip.pt --reference wbm -o comparison/",
    ),
    "bench": (
        bench,
        "measure speed, memory and the share of a step outside the model",
        "mlip bench 7net-0.mlip.pt --systems si64,si512 --engines ase,lammps",
    ),
    "deploy": (deploy, "build pair_style mlip for a LAMMPS of your own", "mlip deploy lammps --lammps-root DIR"),
    "doctor": (doctor, "show versions, devices and problems with their cure", "mlip doctor"),
}
"""The module of each subcommand, with `add_arguments(parser)` and `run(options) -> exit status`; purpose; example."""


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 for a failed check or a wrong input, 2 for a wrong command line (argparse)."""
    if arguments is None:  # then this process is the command, and nobody else's
        unwind_on_signals()
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except MLIPError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}")
        return 1
    except KeyboardInterrupt:
        errors.print("interrupted")
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """The command line of `mlip`."""
    whole = argparse.ArgumentParser(
        prog="mlip", description="Export, inspect and check interatomic potentials for LAMMPS, OpenMM and ASE."
    )
    whole.add_argument("--version", action="version", version=f"mlip-deploy {mlip_deploy.__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, purpose, example) in COMMANDS.items():
        command = commands.add_parser(
            name, help=purpose, description=purpose.capitalize() + ".", epilog=f"example: {example}"
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return whole


if __name__ == "__main__":
    sys.exit(main())
