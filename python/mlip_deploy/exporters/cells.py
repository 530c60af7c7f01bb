"""Cells for frameworks that are periodic in all directions or in none."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from mlip_deploy.result import Array


def closed_cell(atoms: Atoms, cutoff: float) -> Array:
    """Cell vectors [3, 3] Å, rows, with so much vacuum in open directions that no image is within `cutoff` (Å)."""
    cell = atoms.cell.array.copy()
    cell[~atoms.pbc] = 0.0
    closed: Array = complete_cell(cell)
    for k in np.flatnonzero(~atoms.pbc):
        direction = closed[k] / np.linalg.norm(closed[k])
        closed[k] = direction * (np.ptp(atoms.positions @ direction) + 2.0 * cutoff)
    return closed
