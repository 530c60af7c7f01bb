"""OpenMM's form of a cell. Without torch and OpenMM: what prepares a run need not wait for them."""

from __future__ import annotations

import numpy as np
from ase import Atoms


def in_reduced_box(atoms: Atoms) -> tuple[Atoms, np.ndarray]:
    """The atoms in OpenMM's form of their cell, and the rotation R [3, 3] that took them there, r' = R r."""
    box, rotation = reduced_box(atoms)
    return Atoms(atoms.symbols, positions=atoms.positions @ rotation.T, cell=box, pbc=atoms.pbc), rotation


def reduced_box(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """OpenMM wants a = (ax, 0, 0), b = (bx, by, 0) and a reduced, right-handed form of the cell.

    Returns:
        the box [3, 3], rows are its vectors, in Å, and the rotation R [3, 3] with r' = R r.
    """
    if not atoms.pbc.any():
        return np.zeros((3, 3)), np.eye(3)
    a, b, c = atoms.cell.array
    if np.linalg.det(atoms.cell.array) < 0:
        c = -c  # the same lattice
    x = a / np.linalg.norm(a)
    z = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    rotation = np.array([x, np.cross(z, x), z])
    box = np.array([a, b, c]) @ rotation.T
    box[np.abs(box) < 1e-14] = 0.0
    box[0, 1:] = 0.0
    box[1, 2] = 0.0
    box[2] -= box[1] * np.round(box[2, 1] / box[1, 1])
    box[2] -= box[0] * np.round(box[2, 0] / box[0, 0])
    box[1] -= box[0] * np.round(box[1, 0] / box[0, 0])
    return box, rotation
