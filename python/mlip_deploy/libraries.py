"""The compiled libraries: where they are, what they were compiled for, and the one of several for the installed torch.

A libmlip.so works with one minor release of torch; lib/ holds a folder for each, such as torch-2.13. The shells of
LAMMPS, OpenMM and Python work with any of them: the dynamic linker gives them the libmlip.so that is loaded before
they are.
"""

from __future__ import annotations

import ctypes
import json
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mlip_deploy.errors import MLIPError

LIBRARY_DIRECTORY = Path(__file__).parent / "lib"
REBUILD_LINE = "pip install --force-reinstall --no-deps .   (in the source folder of mlip-deploy)"


def build_info() -> dict[str, str | list[str]]:
    """Versions that the libraries were compiled against: of torch one or several, of LAMMPS and OpenMM one."""
    info: dict[str, str | list[str]] = json.loads((LIBRARY_DIRECTORY / "build_info.json").read_text())
    return info


class Mismatch(NamedTuple):
    """An installed package that is not the one which the libraries were compiled for."""

    problem: str
    remedy: str
    """the line to type"""

    def error(self) -> MLIPError:
        """Says both."""
        return MLIPError(f"{self.problem}. Type: {self.remedy}")


def torch_mismatch() -> Mismatch | None:
    """Why there is no library for the installed torch."""
    built = sorted(map(minor_release, build_info()["torch"]), key=lambda release: [*map(int, release.split("."))])
    install = f"pip install 'torch=={built[-1]}.*'"
    try:
        installed = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Mismatch("torch is not installed", install)
    if minor_release(installed) in built:
        return None
    problem = f"this mlip-deploy was built for torch {' and '.join(built)}, but torch {installed} is installed"
    return Mismatch(problem, f"{install}   or build it for your torch: {REBUILD_LINE}")


def openmm_mismatch(installed: str) -> Mismatch | None:
    """Why MLIPForce cannot work in the OpenMM of this version."""
    built = minor_release(str(build_info()["openmm"]))
    if minor_release(installed) == built:
        return None
    problem = f"this mlip-deploy was built for OpenMM {built}, but OpenMM {installed} is installed"
    return Mismatch(problem, f"pip install 'openmm=={built}.*'   or build it for your OpenMM: {REBUILD_LINE}")


def library() -> Path:
    """The libmlip.so for the installed torch.

    Raises
    ------
        MLIPError: there is none.
    """
    if mismatch := torch_mismatch():
        raise mismatch.error()
    return LIBRARY_DIRECTORY / f"torch-{minor_release(metadata.version('torch'))}" / "libmlip.so"


def load_library() -> None:
    """Load it, and torch's own libraries with it. Idempotent."""
    path = library()
    if not (LIBRARY_DIRECTORY.parents[1] / "torch").exists():
        import torch  # noqa: F401  of another site folder, where the linker does not look
    ctypes.CDLL(str(path))


def minor_release(version: str) -> str:
    """Such as 2.13 of 2.13.0+cpu."""
    return ".".join(version.split("+")[0].split(".")[:2])
