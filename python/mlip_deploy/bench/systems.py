"""The systems that `mlip bench` measures, by name: deterministic, and the same on every machine."""

from __future__ import annotations

import re

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from mlip_deploy.errors import MLIPError

RATTLE = 0.05
"""Å, standard deviation of the displacement that takes a crystal off its symmetric point."""


def build_system(name: str) -> Atoms:
    """A periodic system by name: "si512" (diamond), "nacl512" (rocksalt) or "water192", with that many atoms.

    Deterministic. Crystals are of 8-atom cells, water is of molecules on a grid, turned at random, at 1 g/cm³; either
    fills a cube, or the box next to one whose longest edge is at most twice its shortest.

    Raises:
        MLIPError: for an unknown name or a number of atoms that does not make such a box.
    """
    match = re.fullmatch(r"(si|nacl|water)(\d+)", name.lower())
    if not match:
        raise MLIPError(
            f"system '{name}' is not known. Take si64, si216, si512, si1728, nacl64, nacl512, water192, water648 ..."
        )
    kind, n_atoms = match[1], int(match[2])
    per_cell = 3 if kind == "water" else 8
    repeats = _box(n_atoms // per_cell) if n_atoms % per_cell == 0 else None
    if repeats is None:
        nearest = round((n_atoms / per_cell) ** (1 / 3))
        sizes = sorted({per_cell * max(1, nearest + k) ** 3 for k in (-1, 0, 1)})
        names = ", ".join(f"{kind}{n}" for n in sizes)
        raise MLIPError(f"system '{name}': {n_atoms} atoms do not make a cube, or nearly one. Take one of: {names}")
    random = np.random.default_rng(7)
    if kind == "water":
        return _water(repeats, random)
    cell = bulk("Si", "diamond", a=5.43, cubic=True) if kind == "si" else bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms: Atoms = cell.repeat(repeats)
    atoms.positions += random.normal(scale=RATTLE, size=atoms.positions.shape)
    return atoms


def _box(n_cells: int) -> tuple[int, int, int] | None:
    """Numbers of cells along the edges, in ascending order."""
    boxes = [
        (a, b, n_cells // (a * b))
        for a in range(1, round(n_cells ** (1 / 3)) + 1)
        for b in range(a, 2 * a + 1)
        if n_cells % (a * b) == 0 and b <= n_cells // (a * b) <= 2 * a
    ]
    return max(boxes, default=None)  # the longest shortest edge


def _water(repeats: tuple[int, int, int], random: np.random.Generator) -> Atoms:
    spacing = (18.015 / 6.02214076e23 * 1e24) ** (1 / 3)  # Å, one molecule at 1 g/cm³
    atoms = Atoms(cell=np.array(repeats) * spacing, pbc=True)
    for corner in np.ndindex(*repeats):
        one = molecule("H2O")
        one.euler_rotate(*random.uniform(0, 360, size=3), center="COM")
        one.positions += spacing * np.array(corner) - one.get_center_of_mass()
        atoms += one
    return atoms
