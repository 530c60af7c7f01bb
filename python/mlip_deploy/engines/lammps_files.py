"""The files that LAMMPS reads: data files and dumps of structures, in its own orientation of the cell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.units
import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import atomic_masses, atomic_numbers

from mlip_deploy.files import write_text
from mlip_deploy.result import Array


def atomic_mass(symbol: str) -> float:
    return float(atomic_masses[atomic_numbers[symbol]])


def link_model(path: str | Path, directory: str | Path, name: str = "model") -> Path:
    """A link to an artifact in the folder where LAMMPS runs, for input scripts.

    LAMMPS drops letters beyond ASCII from its input, and gives $, & and quotation marks meanings of their own: a path
    may hold them all.
    """
    link = Path(directory) / f"{name}.mlip.pt"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(path).resolve())
    return link


def with_paths(text: str, directory: str | Path) -> str:
    """A message of LAMMPS with the artifacts' own paths in place of links to them."""
    for link in Path(directory).glob("*.mlip.pt"):
        if link.is_symlink():
            text = text.replace(link.name, str(link.readlink()))
    return text


def keep_whole_frames(path: Path) -> None:
    """Cut a text dump after its last whole frame: LAMMPS may have been ended within the next one."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        size, back = file.seek(0, 2), 1 << 20
        while True:  # from the end, as these files grow long
            file.seek(max(0, size - back))
            end = file.read()
            start = end.rfind(b"ITEM: TIMESTEP")
            if start >= 0 or back >= size:
                break
            back *= 2
        frame = end[start:] if start >= 0 else b""
        head = frame.split(b"\n", 5)
        whole = len(head) > 4 and frame.count(b"\n") == DUMP_HEADER + int(head[3])
        if not whole:
            file.truncate(size - len(frame))


DUMP_HEADER = 9
"""lines of a frame before its atoms"""


def write_dump(atoms: Atoms, path: Path, elements: Sequence[str], ids: Sequence[int]) -> Prism:
    """Write a LAMMPS dump of one structure with every digit; returns how it was turned."""
    atoms = in_a_box(atoms)
    prism = Prism(atoms.cell.array, pbc=atoms.pbc)
    positions = prism.vector_to_lammps(atoms.positions, wrap=False)
    xhi, yhi, zhi, xy, xz, yz = prism.get_lammps_prism()
    # A dump gives the bounds of the box with its tilt.
    low_x, high_x = min(0.0, xy, xz, xy + xz), xhi + max(0.0, xy, xz, xy + xz)
    lines = [
        "ITEM: TIMESTEP",
        "0",
        "ITEM: NUMBER OF ATOMS",
        f"{len(atoms)}",
        "ITEM: BOX BOUNDS xy xz yz " + " ".join("pp" if periodic else "ff" for periodic in atoms.pbc),
        f"{low_x:.17g} {high_x:.17g} {xy:.17g}",
        f"{min(0.0, yz):.17g} {yhi + max(0.0, yz):.17g} {xz:.17g}",
        f"0.0 {zhi:.17g} {yz:.17g}",
        "ITEM: ATOMS id type x y z",
        *(
            f"{number} {elements.index(symbol) + 1} {x:.17g} {y:.17g} {z:.17g}"
            for number, symbol, (x, y, z) in zip(ids, atoms.get_chemical_symbols(), positions, strict=True)
        ),
        "",
    ]
    path.write_text("\n".join(lines))
    return prism


@dataclass(frozen=True)
class DumpFrame:
    """One frame of a dump with `id type x y z` and more, in LAMMPS's own orientation of the cell."""

    step: int
    ids: tuple[int, ...]
    atoms: Atoms
    columns: dict[str, Array]
    """[n] each, by the name in the dump"""

    def vectors(self, name: str) -> Array:
        """[n, 3] of the columns NAMEx, NAMEy, NAMEz."""
        return np.column_stack([self.columns[f"{name}{axis}"] for axis in "xyz"])


def read_dump(path: Path, elements: Sequence[str]) -> list[DumpFrame]:
    """All frames of a dump.

    Args:
        elements: of the types, in order.
    """
    frames = []
    for block in path.read_text().split("ITEM: TIMESTEP\n")[1:]:
        header, _, rows = block.partition("ITEM: ATOMS ")
        names, *lines = rows.splitlines()
        values = np.array([line.split() for line in lines], dtype=float).reshape(len(lines), len(names.split()))
        columns = dict(zip(names.split(), values.T, strict=True))
        flags = re.search(r"BOX BOUNDS.*?((?: [pfsm]{2}){3})", header)
        assert flags is not None
        cell, low = _cell(np.array([line.split() for line in header.splitlines()[-3:]], dtype=float))
        atoms = Atoms(
            [elements[int(kind) - 1] for kind in columns["type"]],
            positions=np.column_stack([columns[axis] for axis in "xyz"]) - low,
            cell=cell,
            pbc=[flag == "pp" for flag in flags[1].split()],
        )
        frames.append(DumpFrame(int(header.split()[0]), tuple(columns["id"].astype(int)), atoms, columns))
    return frames


def _cell(bounds: Array) -> tuple[Array, Array]:
    """The cell [3, 3] and its corner [3] from a dump's bounds [3, 2], or [3, 3] with tilts."""
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
    low = bounds[:, 0] - (min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0)
    high = bounds[:, 1] - (max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0)
    x, y, z = high - low
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]), low


class Orientation:
    """How a structure was turned to fit LAMMPS's box."""

    def __init__(self, prism: Prism, elements: list[str]):
        self.prism = prism
        self.elements = elements
        """Element of each LAMMPS type, in order."""


def in_a_box(atoms: Atoms) -> Atoms:
    """A copy whose cell is right-handed, and encloses the atoms with room to spare where it is not periodic.

    ASE's Prism would fit a left-handed cell into LAMMPS's box by a mirror image, which is another chiral molecule.
    """
    atoms = atoms.copy()
    cell = atoms.cell.array.copy()
    open_directions = [k for k in range(3) if not atoms.pbc[k]]
    if open_directions:
        from ase.geometry import complete_cell

        # Directions of the open vectors: along Cartesian axes if all are open, else out of the periodic plane.
        for k in open_directions:
            cell[k] = 0.0
        cell = complete_cell(cell)
        for k in open_directions:
            direction = cell[k] / np.linalg.norm(cell[k])
            heights = atoms.positions @ direction
            cell[k] = direction * (np.ptp(heights) + 20.0)
            atoms.positions += direction * (10.0 - heights.min())
        atoms.set_cell(cell)
    if np.linalg.det(cell) < 0:
        k = next(k for k in range(3) if atoms.pbc[k])
        cell[k] *= -1.0  # the same lattice
        atoms.set_cell(cell)
    return atoms


def write_data(
    atoms: Atoms, path: Path, elements: Sequence[str] | None = None, ids: Sequence[int] | None = None
) -> Orientation:
    """Write a LAMMPS data file (atom_style atomic, masses in g/mol) with every digit of the positions.

    Args:
        elements: of the types, in order; those of `atoms` when absent.
        ids: in the order of the atoms; 1 to n when absent.
    """
    atoms = in_a_box(atoms)
    prism = Prism(atoms.cell.array, pbc=atoms.pbc)
    symbols = atoms.get_chemical_symbols()
    elements = list(dict.fromkeys(symbols)) if elements is None else list(elements)
    numbers = range(1, len(atoms) + 1) if ids is None else ids
    positions = prism.vector_to_lammps(atoms.positions, wrap=False)
    xhi, yhi, zhi, xy, xz, yz = prism.get_lammps_prism()
    lines = [
        "written by mlip-deploy",
        "",
        f"{len(atoms)} atoms",
        f"{len(elements)} atom types",
        f"0.0 {xhi:.17g} xlo xhi",
        f"0.0 {yhi:.17g} ylo yhi",
        f"0.0 {zhi:.17g} zlo zhi",
        f"{xy:.17g} {xz:.17g} {yz:.17g} xy xz yz",
        "",
        "Masses",
        "",
        *(f"{k + 1} {atomic_mass(symbol):.6f}" for k, symbol in enumerate(elements)),
        "",
        "Atoms # atomic",
        "",
        *(
            f"{number} {elements.index(symbol) + 1} {x:.17g} {y:.17g} {z:.17g}"
            for number, symbol, (x, y, z) in zip(numbers, symbols, positions, strict=True)
        ),
        "",
    ]
    write_text(path, "\n".join(lines))
    return Orientation(prism, elements)


# LAMMPS's own pressure unit in metal units: pressure [bar] times volume [Å³] over this is the virial in eV.
LAMMPS_METAL_NKTV2P = 1.6021765e6


@dataclass(frozen=True)
class Units:
    """Of a LAMMPS unit style whose length is Å (or anything at all), with LAMMPS's own constants (update.cpp)."""

    energy: float
    """eV; 1 where the unit has no size of its own"""
    nktv2p: float
    """pressure times volume over this is an energy"""
    boltzmann: float
    """energy per temperature"""
    mvv2e: float
    """mass times velocity squared times this is an energy"""
    femtosecond: float
    """in the unit of time; for lj a fifth of the usual time step, 0.001"""


UNITS = {
    "metal": Units(1.0, LAMMPS_METAL_NKTV2P, 8.617343e-5, 1.0364269e-4, 1e-3),
    "real": Units(ase.units.kcal / ase.units.mol, 68568.415, 0.0019872067, 48.88821291**2, 1.0),
    "lj": Units(1.0, 1.0, 1.0, 1.0, 1e-3),
}
