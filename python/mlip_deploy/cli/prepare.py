"""`mlip prepare`: write a folder with a run for an engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlip_deploy.cli.console import console, escape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of `mlip_deploy.prepare`."""
    parser.add_argument("engine", help="lammps, openmm or ase")
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    parser.add_argument("structure", type=Path, help="CIF, POSCAR, extended XYZ, PDB, ...: whatever ASE reads")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--ensemble", default="nvt", help="nve, nvt, npt, min, relax-cell or anneal; default: nvt", metavar="NAME"
    )
    parser.add_argument("--temperature", metavar="K", help="at the start; default: 300")
    parser.add_argument("--pressure", metavar="1bar", help="of npt and relax-cell; default: 0")
    parser.add_argument("--time", metavar="10ps", help="of the dynamics; default: 10ps")
    parser.add_argument("--timestep", default="auto", metavar="1fs", help="default: what fits the lightest element")
    parser.add_argument("--supercell", metavar="2x2x2", help="how often each cell vector is repeated")
    parser.add_argument("--atoms", type=int, metavar="N", help="repeat the structure until it has at least so many")
    parser.add_argument("--dispersion", action="store_true", help="add D3 to a model without dispersion (LAMMPS)")
    parser.add_argument("--zbl", action="store_true", help="add ZBL repulsion at short distances (LAMMPS)")
    parser.add_argument("--device", default="cpu", help="of the model: cpu (default), cuda, cuda:N or auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads in the model; default: the engine's choice")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def run(options: argparse.Namespace) -> int:
    """Prepare, and print what was chosen and the line that runs it."""
    import mlip_deploy

    prepared = mlip_deploy.prepare(
        options.engine,
        options.file,
        options.structure,
        options.output,
        ensemble=options.ensemble,
        temperature=options.temperature,
        pressure=options.pressure,
        time=options.time,
        timestep=options.timestep,
        supercell=options.supercell,
        atoms=options.atoms,
        dispersion=options.dispersion,
        zbl=options.zbl,
        device=options.device,
        threads=options.threads,
        force=options.force,
    )
    console.print(f"{prepared.n_atoms} atoms: {escape(prepared.plan.describe())}", highlight=False)
    if not prepared.plan.relaxes:
        console.print(f"time step {escape(prepared.plan.timestep_reason)}", highlight=False)
    console.print(f"run it: cd {escape(str(prepared.folder))} && {escape(prepared.command)}", highlight=False)
    return 0
