"""Read a structure, and refuse what would make a run meaningless, in words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from ase.io.formats import UnknownFileTypeError
from ase.neighborlist import neighbor_list

from mlip_deploy.artifact.reader import SUFFIXES, Artifact
from mlip_deploy.close_atoms import close_pairs
from mlip_deploy.errors import MLIPError
from mlip_deploy.preparation import quantities

SHORTEST_PERIOD = 1.2
"""Å: no crystal repeats its planes more closely"""
VACUUM = 8.0
"""Å without an atom: wider than the gaps of layered materials"""
MOST_NAMED = 5
"""atoms or pairs in a message"""
AXES = "abc"


def read_structure(path: str | Path) -> tuple[Atoms, list[str]]:
    """The last structure of a file: elements, positions, cell, and nothing else.

    Returns
    -------
        the atoms, and sentences on what was left out or changed.

    Raises
    ------
        MLIPError: for a file that ASE cannot read, and for one whose sites are shared by several elements.
    """
    if not Path(path).exists():
        raise MLIPError(f"'{path}': no such file. Name a structure: CIF, POSCAR, extxyz, PDB, or whatever ASE reads")
    if str(path).endswith(tuple(SUFFIXES.values())):
        raise MLIPError(f"'{path}' is the name of a model. Name the model first, then the structure")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ASE's readers, on details of formats
            frames = read(str(path), index=slice(None))
    except UnknownFileTypeError as error:
        raise MLIPError(
            f"'{path}': ASE does not know this kind of file. Name a structure such as NAME.cif, POSCAR, NAME.extxyz or "
            "NAME.pdb"
        ) from error
    except Exception as error:  # whatever one of ASE's many readers stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MLIPError(f"'{path}' cannot be read as a structure by ASE: {reason}") from error
    found = frames[-1] if frames else Atoms()
    if not isinstance(found, Atoms) or not len(found):
        raise MLIPError(f"'{path}' has no atoms in it")
    notes = [f"the last of the {len(frames)} structures in the file is taken"] if len(frames) > 1 else []
    _require_whole_sites(found, path)
    if found.constraints:
        notes.append("the file fixes atoms; that is not taken over, and all atoms move")
    # a vector that no direction uses is none
    cell = found.cell.array * found.pbc[:, None]
    if found.pbc.all() and np.linalg.det(cell) < 0:
        cell[2] *= -1.0
        notes.append("the cell is left-handed; its vector c was turned round, which describes the same crystal")
    return Atoms(found.get_chemical_symbols(), positions=found.positions, cell=cell, pbc=found.pbc), notes


def _require_whole_sites(atoms: Atoms, path: str | Path) -> None:
    """Refuse sites that are occupied in part, which CIF and PDB files may have."""
    shared = []
    for site, occupants in atoms.info.get("occupancy", {}).items():
        if not np.isclose(sum(occupants.values()), 1.0) or len(occupants) > 1:
            shared.append(f"site {site} is {', '.join(f'{name} {part:g}' for name, part in occupants.items())}")
    parts = np.asarray(atoms.arrays.get("occupancy", []), dtype=float)
    shared += [
        f"atom {k + 1} is {atoms.symbols[k]} {part:g}" for k, part in enumerate(parts) if 0 < part < 1
    ]  # zero is what programs write that do not know it
    if shared:
        raise MLIPError(
            f"'{path}' has partial occupancies: {_some(shared)}. A simulation needs one element on each site. Choose "
            "an ordered structure, or make a supercell and fill its sites"
        )


def check_structure(atoms: Atoms, artifact: Artifact) -> None:
    """Refuse a structure that the model, or any model, has no meaningful energy for.

    Raises
    ------
        MLIPError: for elements that the model lacks, positions that are not finite, a cell that lacks a vector or is
            flat, atoms on top of each other, and atoms too far apart to feel each other.
    """
    contract = artifact.contract
    missing = sorted(set(atoms.get_chemical_symbols()) - set(contract.elements))
    if missing:
        raise MLIPError(
            f"{contract.model.name} does not know {', '.join(missing)}, which {atoms.get_chemical_formula()} contains. "
            f"The file knows {len(contract.elements)} elements: {' '.join(contract.elements)}. Take another model, or "
            "export this one with the elements: mlip export ... --elements"
        )
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
        raise MLIPError("the structure has a position or a cell vector that is not finite")
    _require_cell(atoms)
    _require_distances(atoms)
    if len(atoms) > 1 and not len(neighbor_list("i", atoms, contract.cutoff)):
        raise MLIPError(
            f"no two atoms are closer than the model's cutoff of {contract.cutoff:g} Å, so no atom feels another. Are "
            "the lengths of the file in Å?"
        )


def _require_cell(atoms: Atoms) -> None:
    for axis, vector, periodic in zip(AXES, atoms.cell.array, atoms.pbc, strict=True):
        if periodic and not vector.any():
            raise MLIPError(f"the structure is periodic along {axis}, but has no cell vector {axis}")
    for axis, height in heights(atoms).items():
        if height < SHORTEST_PERIOD:
            raise MLIPError(
                f"the cell is {height:.2f} Å high along {axis}, and would repeat its atoms at that distance. Is it "
                f'a sheet or a molecule? Then make it not periodic along {axis} (extxyz: pbc="T T F"), or add vacuum'
            )


def _require_distances(atoms: Atoms) -> None:
    pairs = close_pairs(atoms)
    if pairs:
        symbols = atoms.get_chemical_symbols()
        named = [
            f"{i + 1} ({symbols[i]}) and {j + 1} ({symbols[j]}) are {d:.3f} Å apart"
            if i != j
            else f"{i + 1} ({symbols[i]}) is {d:.3f} Å from its own image"
            for i, j, d, _ in pairs
        ]
        raise MLIPError(
            f"atoms overlap: {_some(named)} (counted from 1), closer than half a bond. Look for doubled atoms, "
            "alternative positions, or lengths that are not in Å"
        )


def heights(atoms: Atoms) -> dict[str, float]:
    """Å between the faces of the cell, along each periodic direction."""
    found = {}
    for k in range(3):
        if atoms.pbc[k]:
            u, v = (_unit(atoms.cell.array[j]) for j in range(3) if j != k)
            normal = np.cross(u, v) if u.any() and v.any() else None
            others = [w for w in (u, v) if w.any()]
            vector = atoms.cell.array[k]
            if normal is None:  # periodic along one or two directions: what is left of the vector beside the other
                height = float(np.linalg.norm(vector - sum((vector @ w) * w for w in others)))
            else:
                size = np.linalg.norm(normal)
                height = float(abs(vector @ normal) / size) if size > 0 else 0.0
            found[AXES[k]] = height
    return found


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


def vacuum(atoms: Atoms) -> dict[str, float]:
    """Å of the widest gap without an atom, along each periodic direction where that is more than VACUUM."""
    found = {}
    if atoms.pbc.all():
        for axis, height in heights(atoms).items():
            places = np.sort(atoms.get_scaled_positions()[:, AXES.index(axis)])
            gap = float(np.max(np.diff([*places, places[0] + 1.0]))) * height
            if gap > VACUUM:
                found[axis] = gap
    return found


def require_pressure(atoms: Atoms, ensemble: str) -> None:
    """Refuse a barostat or a relaxed cell where the cell has no meaning.

    Raises
    ------
        MLIPError: for a structure that is not periodic in all directions, or that has vacuum.
    """
    instead = "min" if ensemble == "relax-cell" else "nvt"
    if not atoms.pbc.all():
        open_axes = " and ".join(axis for axis, periodic in zip(AXES, atoms.pbc, strict=True) if not periodic)
        where = "not periodic" if not atoms.pbc.any() else f"not periodic along {open_axes}"
        raise MLIPError(
            f"--ensemble {ensemble}: the structure is {where}, so it has no pressure. Take --ensemble {instead}, or a "
            "structure with a cell"
        )
    for axis, gap in vacuum(atoms).items():
        raise MLIPError(
            f"--ensemble {ensemble}: the cell has {gap:.1f} Å without an atom along {axis}, and a pressure would close "
            f"the gap. For a surface, a sheet or a molecule take --ensemble {instead}"
        )


def enlarge(atoms: Atoms, supercell: str | None, at_least: int | None) -> tuple[Atoms, tuple[int, int, int]]:
    """Repeat the cell: as told, or until it holds so many atoms, in its lowest direction each time.

    Raises
    ------
        MLIPError: for both at once, numbers that are none, and a direction that is not periodic.
    """
    if supercell is not None and at_least is not None:
        raise MLIPError("--supercell and --atoms are two ways to say the same. Leave one of them out")
    times = [1, 1, 1]
    if supercell is not None:
        times = list(quantities.repeats("--supercell", supercell))
        for axis, number, periodic in zip(AXES, times, atoms.pbc, strict=True):
            if number > 1 and not periodic:
                raise MLIPError(
                    f"--supercell {supercell}: the structure is not periodic along {axis}, so nothing repeats there"
                )
    if at_least is not None:
        if at_least < 1:
            raise MLIPError(f"--atoms {at_least}: expected a positive number, such as 500")
        if not atoms.pbc.any():
            raise MLIPError(f"--atoms {at_least}: the structure is not periodic, so nothing repeats. Leave --atoms out")
        grown = heights(atoms)
        while len(atoms) * int(np.prod(times)) < at_least:
            axis = min(grown, key=lambda axis: grown[axis] * times[AXES.index(axis)])
            times[AXES.index(axis)] += 1
    a, b, c = times
    return atoms.repeat((a, b, c)), (a, b, c)


def describe(atoms: Atoms, cutoff: float) -> list[str]:
    """Sentences on what is allowed, but worth knowing."""
    notes = []
    low = {axis: height for axis, height in heights(atoms).items() if height < 2 * cutoff}
    if low:
        axis, height = min(low.items(), key=lambda item: item[1])
        notes.append(
            f"the cell is {height:.1f} Å high along {axis}, less than twice the cutoff of {cutoff:g} Å: forces are "
            "right, but averages are those of a small system. For a larger one: --atoms 500"
        )
    for axis, gap in vacuum(atoms).items():
        notes.append(f"{gap:.1f} Å along {axis} hold no atom: taken as a vacuum between periodic images")
    return notes


def _some(items: Sequence[str]) -> str:
    more = len(items) - MOST_NAMED
    return "; ".join(items[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
