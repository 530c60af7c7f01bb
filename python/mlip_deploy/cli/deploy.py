"""`mlip deploy`: arguments, and what is printed."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from mlip_deploy.environment.build_plugin import LAUNCHER, PLUGIN, STYLE, build, find_mpi
from mlip_deploy.environment.lammps_headers import NotUsableError, find_lammps
from mlip_deploy.environment.lammps_program import LAMMPSProgram, ask, find_program, lammps_root
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the one engine that is compiled against."""
    engines = parser.add_subparsers(dest="engine", required=True)
    lammps = engines.add_parser("lammps", help="build pair_style mlip for your own LAMMPS")
    lammps.add_argument(
        "--lammps-root",
        type=Path,
        metavar="DIR",
        help="where LAMMPS was installed (with include/lammps), or its source tree (with src/pair.h); default: "
        "LAMMPS_ROOT, or that of the lmp on the PATH",
    )
    lammps.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder for what is built (default: lib/mlip in LAMMPS's)"
    )
    lammps.add_argument(
        "--mpi-include", type=Path, metavar="DIR", help="folder of the mpi.h that LAMMPS was built with"
    )
    lammps.add_argument(
        "--lammps-version",
        type=int,
        metavar="YYYYMMDD",
        help="if the installation does not say it",
    )
    lammps.add_argument(
        "--define", action="append", default=[], metavar="NAME", help="LAMMPS_BIGBIG or LAMMPS_SMALLSMALL builds"
    )
    lammps.add_argument(
        "--no-run",
        action="store_true",
        help="do not run what was built: for a LAMMPS that cannot start on this machine",
    )


def run(arguments: argparse.Namespace) -> int:
    """Build, run it once, and print how to use it."""
    root = lammps_root(arguments.lammps_root)
    path = find_program(root)
    program = ask(path) if path and not arguments.no_run else None
    try:
        sizes = arguments.define or (list(program.definitions) if program else None)
        lammps = find_lammps(root, arguments.lammps_version, sizes)
    except NotUsableError as error:
        raise MLIPError(str(error)) from error
    if not (program or lammps.library or arguments.no_run):
        raise MLIPError(
            f"neither lmp nor liblammps.so is in {root}: what is built could not be tried. Build LAMMPS first, or add: "
            "--no-run"
        )
    mpi = find_mpi(root, program.mpi if program else None, arguments.mpi_include)
    output = (arguments.output or root / "lib" / "mlip").resolve()
    require_folder(output)
    # Where no program says what it can load, both ways are there.
    launcher = not program.has_plugins if program else lammps.library is not None
    trial = None if arguments.no_run else partial(_try, None if launcher or program is None else program.path)
    build(lammps, mpi, output, [STYLE, PLUGIN, *([LAUNCHER] if launcher else [])], trial)

    print(f"built     {output / PLUGIN}{f', {output / LAUNCHER}' if launcher else ''}")
    print(f"for       LAMMPS {_describe(program) if program else lammps.version}, headers in {lammps.include}")
    tried = "nothing was run (--no-run)" if arguments.no_run else "one atom's energy is right, before and after `clear`"
    print(f"tried     {tried}\n")
    if launcher:
        lacks = "its lmp lacks" if program else "if its lmp lacks"
        print(f"Start this in the place of lmp, with the same options, since {lacks} the PLUGIN package:")
        print(f"  mpirun -n 4 {output / LAUNCHER} -in run.in")
    if not (launcher and program):
        print("At the top of the input file:")
        print(f"  plugin load {output / PLUGIN}")
        print("or, without that line, for every run:")
        print(f"  export LAMMPS_PLUGIN_PATH={output}")
    print("In the input file:")
    print("  pair_style mlip")
    print("  pair_coeff * * NAME.mlip.pt Si O      # one element per atom type")
    return 0


def _try(program: Path | None, folder: Path) -> None:
    """What was built into the folder: in a program with the PLUGIN package, or by lmp-mlip."""
    from mlip_deploy.environment.proof import prove  # torch

    if program:
        prove(program, folder / PLUGIN)
    else:
        prove(folder / LAUNCHER, None)


def _describe(program: LAMMPSProgram) -> str:
    return f"{program.release} ({program.mpi}, {', '.join(program.definitions).removeprefix('LAMMPS_')})"
