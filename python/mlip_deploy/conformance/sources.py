"""What a user names: files with structures, and factories in modules."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols

from mlip_deploy.errors import MLIPError


def read_structure(path: str | Path) -> tuple[Atoms, list[str]]:
    """A structure, and the elements of its types in order.

    Those of a LAMMPS data file by its masses; of any other file in the order in which they appear.

    Raises:
        MLIPError: there is no such file, or nothing that reads it.
    """
    path = Path(path)
    if not path.is_file():
        raise MLIPError(f"no file {path}. Give a structure: a LAMMPS data file, CIF, extxyz, or what else ASE reads")
    is_data = path.suffix in (".data", ".lmp", ".lammps") or path.name.startswith("data.")
    try:
        found = ase.io.read(path, format="lammps-data", atom_style="atomic") if is_data else ase.io.read(path)
    except Exception as error:  # ASE raises what its readers do
        raise MLIPError(f"{path} cannot be read: {error or type(error).__name__}") from error
    atoms = found[-1] if isinstance(found, list) else found
    elements = _elements_of_types(path.read_text()) if is_data else []
    return Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc), (
        elements or list(dict.fromkeys(atoms.get_chemical_symbols()))
    )


def _elements_of_types(data: str) -> list[str]:
    """The elements whose masses are nearest, by type."""
    section = re.search(r"^\s*Masses[^\n]*\n\s*\n((?:\s*\d+\s+\S+[^\n]*\n)+)", data, flags=re.MULTILINE)
    if section is None:
        return []
    rows = sorted((int(line.split()[0]), float(line.split()[1])) for line in section[1].splitlines() if line.strip())
    return [chemical_symbols[1 + int(np.argmin(np.abs(atomic_masses[1:] - mass)))] for _, mass in rows]


def factory(given: str | Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """What makes a calculator or a System, and its name.

    Args:
        given: itself; "MODULE:NAME", modules in the current folder are found; or "FILE.py:NAME", by default `create`.

    Raises:
        MLIPError: there is no such module or file, or no such name in it.
    """
    if not isinstance(given, str):
        return given, getattr(given, "__qualname__", type(given).__name__)
    specification = given.removeprefix("ase:")
    module, _, name = specification.partition(":")
    if module.endswith(".py"):
        sys.path.insert(0, str(Path(module).resolve().parent))
        module, name = Path(module).stem, name or "create"
    elif os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not module or not name:
        raise MLIPError(f"'{given}': expected MODULE:FACTORY, such as ase.calculators.emt:EMT, or FILE.py:FACTORY")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise MLIPError(f"'{given}': {error}") from error
    return found, specification
