"""`mlip deploy`: arguments, and what is printed."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlip_deploy.environment.build_plugin import build, find_mpi
from mlip_deploy.environment.lammps_headers import NotUsableError, find_lammps
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the one engine that is compiled against."""
    engines = parser.add_subparsers(dest="engine", required=True)
    lammps = engines.add_parser("lammps", help="build pair_style mlip for your own LAMMPS")
    lammps.add_argument(
        "--lammps-root",
        type=Path,
        required=True,
        metavar="DIR",
        help="where LAMMPS was installed (with include/lammps), or its source tree (with src/pair.h)",
    )
    lammps.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder for mlipplugin.so (default: DIR/lib/mlip)"
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


def run(arguments: argparse.Namespace) -> int:
    """Build, and print what to put into the input file."""
    root = arguments.lammps_root.resolve()
    try:
        lammps = find_lammps(root, arguments.lammps_version, arguments.define)
    except NotUsableError as error:
        raise MLIPError(str(error)) from error
    mpi = find_mpi(lammps, arguments.mpi_include)
    output = (arguments.output or root / "lib" / "mlip").resolve()
    require_folder(output)
    library = build(lammps, mpi, output)
    print(f"built     {library}")
    print(f"for       LAMMPS {lammps.version} in {lammps.include}")
    print("\nAt the top of the input file:")
    print(f"  plugin load {library}")
    print("  pair_style mlip")
    print("  pair_coeff * * NAME.mlip.pt Si O      # one element per atom type")
    print("or, without the first line, for every run:")
    print(f"  export LAMMPS_PLUGIN_PATH={output}")
    return 0
