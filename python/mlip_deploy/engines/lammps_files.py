"""The files that LAMMPS reads: data files and dumps of structures, in its own orientation of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.data import atomic_masses, atomic_numbers

from mlip_deploy.files import write_text


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


def write_data(atoms: Atoms, path: Path) -> Orientation:
    """Write a LAMMPS data file (atom_style atomic, metal units) with every digit of the positions."""
    atoms = in_a_box(atoms)
    prism = Prism(atoms.cell.array, pbc=atoms.pbc)
    symbols = atoms.get_chemical_symbols()
    elements = list(dict.fromkeys(symbols))
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
            f"{k + 1} {elements.index(symbol) + 1} {x:.17g} {y:.17g} {z:.17g}"
            for k, (symbol, (x, y, z)) in enumerate(zip(symbols, positions, strict=True))
        ),
        "",
    ]
    write_text(path, "\n".join(lines))
    return Orientation(prism, elements)


# LAMMPS's own pressure unit in metal units: pressure [bar] times volume [Å³] over this is the virial in eV.
LAMMPS_METAL_NKTV2P = 1.6021765e6
