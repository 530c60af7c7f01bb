"""Atoms on top of each other in a structure: the rule of csrc/core/close_pair.h, before any model is there."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

SHORTEST_BOND = 0.5
"""Å: below it no pair of atoms is a bond"""


def close_pairs(atoms: Atoms) -> list[tuple[int, int, float, float]]:
    """Atoms that are on top of each other: (i, j, distance, expected distance) in Å, each pair once, the worst first.

    Two atoms are below half the sum of their covalent radii, and below SHORTEST_BOND. An atom may be close to an image
    of itself.
    """
    radii = covalent_radii[atoms.numbers]
    first, second, distances = neighbor_list("ijd", atoms, max(SHORTEST_BOND, float(radii.max(initial=0.0))))
    expected = np.maximum(SHORTEST_BOND, 0.5 * (radii[first] + radii[second]))
    found = {
        (int(min(i, j)), int(max(i, j)), float(d), float(e))
        for i, j, d, e in zip(first, second, distances, expected, strict=True)
        if d < e
    }
    return sorted(found, key=lambda pair: pair[2] / pair[3])


def close_atoms(atoms: Atoms) -> str | None:
    """The worst of `close_pairs` in words; None where all atoms have room."""
    pairs = close_pairs(atoms)
    if not pairs:
        return None
    i, j, distance, expected = pairs[0]
    return (
        f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}), counted from 0, are {distance:.3f} Å apart, "
        f"closer than {expected:.2f} Å"
    )
