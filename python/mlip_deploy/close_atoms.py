"""Atoms on top of each other in a structure: the rule of csrc/core/close_pair.h, before any model is there."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

SHORTEST_BOND = 0.5
"""Å: below it no pair of atoms is a bond"""


def close_atoms(atoms: Atoms) -> str | None:
    """The two atoms that are closest for their elements, in words; None where all have room.

    Two atoms are on top of each other below half the sum of their covalent radii, and below SHORTEST_BOND.
    """
    radii = covalent_radii[atoms.numbers]
    first, second, distances = neighbor_list("ijd", atoms, max(SHORTEST_BOND, float(radii.max(initial=0.0))))
    expected = np.maximum(SHORTEST_BOND, 0.5 * (radii[first] + radii[second]))
    if len(distances) == 0 or (ratios := distances / expected).min() >= 1.0:
        return None
    worst = int(ratios.argmin())
    i, j = first[worst], second[worst]
    return (
        f"atoms {i} ({atoms.symbols[i]}) and {j} ({atoms.symbols[j]}), counted from 0, are {distances[worst]:.3f} Å "
        f"apart, closer than {expected[worst]:.2f} Å"
    )
