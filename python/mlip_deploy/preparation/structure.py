"""The structure that a run starts from: read, refused where it would be nonsense, and repeated."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from mlip_deploy.artifact.contract import Contract
from mlip_deploy.close_atoms import close_atoms
from mlip_deploy.errors import MLIPError

VACUUM = 10.0
"""Å: a gap between layers in which nothing holds a cell together"""
THINNEST = 1.0
"""Å, height of a periodic cell"""


def read_structure(path: Path) -> Atoms:
    """The last structure of a file of any kind that ASE reads.

    Raises
    ------
    MLIPError
        For a file that is not there, that ASE cannot read, or in which a site is occupied in part.
    """
    if not path.is_file():
        raise MLIPError(f"'{path}': no such structure file")
    try:
        atoms = ase.io.read(path, index=-1)
    except Exception as error:  # each of ASE's formats has its own
        raise MLIPError(
            f"'{path}' could not be read as a structure ({type(error).__name__}: {error}). Formats are those of "
            "ase.io.read: CIF, POSCAR, extended XYZ, PDB, ..."
        ) from error
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise MLIPError(f"'{path}' holds no atoms")
    for site, species in (atoms.info.get("occupancy") or {}).items():
        if len(species) > 1 or any(share < 1.0 for share in species.values()):
            shares = ", ".join(f"{symbol} {share:g}" for symbol, share in species.items())
            raise MLIPError(
                f"'{path}': site {site} is occupied in part ({shares}): it describes an average, not atoms. Make an "
                "ordered structure of it first"
            )
    return atoms


def check_structure(atoms: Atoms, contract: Contract, moves_cell: bool) -> None:
    """Refuse what would run and mean nothing.

    Args:
        moves_cell: whether the run changes the cell.

    Raises
    ------
    MLIPError
        For elements that the model does not know, atoms on top of each other, positions that are not finite, a cell
        that is too thin, and a cell that would have to be moved but is open or has a gap.
    """
    unknown = sorted(set(atoms.get_chemical_symbols()) - set(contract.elements))
    if unknown:
        raise MLIPError(
            f"the structure has {', '.join(unknown)}, which {contract.model.name} does not know. Its "
            f"{len(contract.elements)} elements: {' '.join(contract.elements)}"
        )
    if not np.isfinite(atoms.positions).all():
        raise MLIPError("the structure has a position that is not finite")
    heights = _heights(atoms)
    for axis in range(3):
        if atoms.pbc[axis] and heights[axis] < THINNEST:
            raise MLIPError(
                f"the structure is periodic along cell vector {'abc'[axis]}, but {heights[axis]:.2g} Å high there. "
                "Give the cell its third dimension, or say in the file that it is open there"
            )
    if found := close_atoms(atoms):
        raise MLIPError(f"{found}: they are on top of each other")
    if not moves_cell:
        return
    if not atoms.pbc.all():
        raise MLIPError(
            "the structure is not periodic in three directions, so that it has no volume to move. Take --ensemble nvt "
            "or min"
        )
    for axis in range(3):
        if (gap := _largest_gap(atoms, axis)) > VACUUM:
            raise MLIPError(
                f"the structure has a gap of {gap:.3g} Å along cell vector {'abc'[axis]}: its cell would collapse. "
                "Take --ensemble nvt or min"
            )


def enlarge(atoms: Atoms, repeats: tuple[int, int, int] | None, n_atoms: int | None) -> Atoms:
    """Repeat a structure in its periodic directions: so often, or until it has at least so many atoms.

    Raises
    ------
    MLIPError
        For a structure that is open in a direction in which it is to be repeated.
    """
    if repeats is not None:
        for axis in range(3):
            if repeats[axis] > 1 and not atoms.pbc[axis]:
                raise MLIPError(f"--supercell: the structure is not periodic along cell vector {'abc'[axis]}")
        larger: Atoms = atoms.repeat(repeats)
        return larger
    if n_atoms is None or len(atoms) >= n_atoms:
        return atoms
    if not atoms.pbc.any():
        raise MLIPError(f"--atoms {n_atoms}: the structure is not periodic, so that it cannot be repeated")
    times = np.ones(3, dtype=int)
    while len(atoms) * times.prod() < n_atoms:  # always along what is shortest then
        lengths = np.where(atoms.pbc, times * _heights(atoms), np.inf)
        times[int(lengths.argmin())] += 1
    repeated: Atoms = atoms.repeat(times)
    return repeated


def _heights(atoms: Atoms) -> np.ndarray:
    """[3] Å between the faces of the cell; 0 along a vector that is missing."""
    cell = atoms.cell.complete().array
    volume = abs(np.linalg.det(cell))
    areas = [np.linalg.norm(np.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])) for k in range(3)]
    missing = ~atoms.cell.any(1)
    return np.where(missing, 0.0, volume / np.maximum(areas, 1e-12))


def _largest_gap(atoms: Atoms, axis: int) -> float:
    """Å along a cell vector, between layers of atoms."""
    places = np.sort(atoms.get_scaled_positions()[:, axis])
    return float(np.diff([*places, places[0] + 1.0]).max() * _heights(atoms)[axis])
