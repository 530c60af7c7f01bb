"""The floors of csrc: what a folder may include. Arrows go down, so that no change of an engine reaches an operator."""

from __future__ import annotations

import re
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"

# Folder -> folders that it may include, beside itself. A folder of csrc/operators may include csrc/operators, not its
# sisters.
ALLOWED = {
    "core": set[str](),
    "gpu": {"core"},
    "operators": {"core", "gpu"},
    "operators/edge_harmonics": {"core", "gpu", "operators"},
    "operators/edge_tensor_product": {"core", "gpu", "operators"},
    "operators/symmetric_contraction": {"core", "gpu", "operators"},
    "model": {"core", "gpu"},
    "lammps": {"core", "model"},
    "openmm": {"core", "model"},
    "bindings": {"core", "model"},
}
SUFFIXES = {".h", ".cpp", ".cu"}


def includes() -> list[tuple[str, str]]:
    """Every include of one file of csrc by another, as (file, file that it includes), relative to csrc."""
    found = []
    for source in sorted(path for path in CSRC.rglob("*") if path.suffix in SUFFIXES):
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', source.read_text(), flags=re.MULTILINE):
            # Shells name files of their own folder without it; what is in neither place is an engine's header.
            for included in (source.parent / name, CSRC / name):
                if included.exists():
                    found.append((str(source.relative_to(CSRC)), str(included.relative_to(CSRC))))
                    break
    return found


def folder(file: str) -> str:
    return str(Path(file).parent)


def test_every_folder_of_csrc_has_its_floor() -> None:
    assert {folder(str(path.relative_to(CSRC))) for path in CSRC.rglob("*") if path.suffix in SUFFIXES} == set(ALLOWED)


def test_includes_go_down() -> None:
    found = includes()
    assert ("model/model.cpp", "core/archive.h") in found  # they are seen at all
    upwards = [
        f"csrc/{file} includes {included}"
        for file, included in found
        if folder(included) not in ALLOWED[folder(file)] | {folder(file)}
    ]
    assert not upwards, "\n".join(upwards)
