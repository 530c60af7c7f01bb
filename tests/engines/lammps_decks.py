"""Decks that share a LAMMPS process, and their snapshots: what LAMMPS computed, for positions that ASE can repeat."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.engines.lammps_files import LAMMPS_METAL_NKTV2P, write_data
from mlip_deploy.result import VOIGT

# Sums over the centroid virials of all atoms, and the pair style's own global virial.
COMPUTES = """\
compute energies all pe/atom pair
compute centroid all centroid/stress/atom NULL pair
compute pairwise all stress/atom NULL pair
compute virial all pressure NULL pair
compute sums all reduce sum c_centroid[*] c_pairwise[*]
dump snapshots all custom {every} {name}.dump id type x y z fx fy fz c_energies
dump_modify snapshots sort id format float %.17g
thermo {every}
thermo_style custom step temp pe etotal press vol c_virial[1] c_sums[1]
"""
LAST = """\
undump snapshots
dump last all custom 1 {name}.last.dump id type x y z fx fy fz c_energies
dump_modify last sort id format float %.17g
run 0
print "DECK {name} PE $(pe:%.17g)"
print "DECK {name} VIRIAL $(-c_virial[1]*vol:%.17g) $(-c_virial[2]*vol:%.17g) $(-c_virial[3]*vol:%.17g) \
$(-c_virial[4]*vol:%.17g) $(-c_virial[5]*vol:%.17g) $(-c_virial[6]*vol:%.17g)"
print "DECK {name} CENTROID $(c_sums[1]:%.17g) $(c_sums[2]:%.17g) $(c_sums[3]:%.17g) $(c_sums[4]:%.17g) \
$(c_sums[5]:%.17g) $(c_sums[6]:%.17g)"
print "DECK {name} PAIRWISE $(c_sums[10]:%.17g) $(c_sums[11]:%.17g) $(c_sums[12]:%.17g) $(c_sums[13]:%.17g) \
$(c_sums[14]:%.17g) $(c_sums[15]:%.17g)"
"""


@dataclass(frozen=True)
class Deck:
    """One simulation. `{model}` and `{elements}` are filled in; the last step is always a `run 0`."""

    atoms: Atoms
    body: str = ""
    before: str = ""
    """Commands before the box exists."""
    settings: str = ""
    """Commands between read_data and pair_style."""
    pair: str = "pair_style mlip\npair_coeff * * {model} {elements}"
    style: str = "atomic"
    ids: tuple[int, ...] | None = None
    boundary: str | None = None
    every: int = 1000000
    """Steps between snapshots on the way, of which the atomic energies are compared."""
    absent: tuple[int, ...] = ()
    """Ids of atoms that are in the box but not in the model's system."""
    ranks: tuple[int, ...] = (1, 2)
    model: str = "tiny"

    def script(self, name: str, model: Path, directory: Path) -> str:
        data = directory / f"{name}.data"
        frame = write_data(self.atoms, data)
        restyle(data, self.style, self.ids)
        boundary = self.boundary or " ".join("p" if periodic else "f" for periodic in self.atoms.pbc)
        pair = self.pair.format(model=model, elements=" ".join(frame.elements))
        style = "full" if self.style == "bonded" else self.style
        lines = ["clear", "units metal", f"atom_style {style}", f"boundary {boundary}", "box tilt large"]
        lines += [self.before, f"read_data {data.name}", self.settings, pair]
        lines += [COMPUTES.format(name=name, every=self.every), self.body, LAST.format(name=name)]
        return "\n".join(lines) + "\n"

    @property
    def elements(self) -> list[str]:
        return list(dict.fromkeys(self.atoms.get_chemical_symbols()))


@dataclass(frozen=True)
class Snapshot:
    """One frame of a dump, in LAMMPS's own frame of reference."""

    step: int
    ids: np.ndarray
    types: np.ndarray
    atoms: Atoms
    forces: np.ndarray
    energies: np.ndarray


@dataclass(frozen=True)
class Outcome:
    frames: list[Snapshot]
    """on the way; the last one is `last`"""
    last: Snapshot
    energy: float
    virial: np.ndarray
    """[6] xx yy zz xy xz yz, pressure times volume as LAMMPS prints it (bar Å³)"""
    centroid: np.ndarray
    """the same from the sum of compute centroid/stress/atom"""
    pairwise: np.ndarray
    """the same from the sum of compute stress/atom"""
    log: str

    @property
    def stress(self) -> np.ndarray:
        """eV/Å³, Voigt order"""
        xx, yy, zz, xy, xz, yz = self.virial / LAMMPS_METAL_NKTV2P / self.last.atoms.get_volume()
        tensor = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
        return np.array([tensor[a][b] for a, b in VOIGT])


def restyle(data: Path, style: str, ids: tuple[int, ...] | None = None) -> None:
    """Turn a data file of atom_style atomic into another style, with other atom ids.

    "bonded" is atom_style full with a bond between atoms 1 and 2.
    """
    head, rows = data.read_text().split("Atoms # atomic\n\n")
    tail = ""
    if style == "bonded":
        style, tail = "full", "\nBonds\n\n1 1 1 2\n"
        head = re.sub(r"(\d+ atoms\n)", r"\g<1>1 bonds\n1 bond types\n", head, count=1)
    lines = []
    for k, row in enumerate(rows.splitlines()):
        number, kind, *position = row.split()
        number = str(ids[k]) if ids else number
        fields = {"atomic": [number, kind], "charge": [number, kind, "0.5"], "full": [number, "1", kind, "0.5"]}
        lines.append(" ".join(fields[style] + position))
    data.write_text(f"{head}Atoms # {style}\n\n" + "\n".join(lines) + "\n" + tail)


def run_decks(decks: dict[str, Deck], models: dict[str, Path], directory: Path, ranks: int) -> dict[str, object]:
    """Outcome of every deck, all in one LAMMPS process; where one of them stops LAMMPS, each in its own.

    A deck that fails has its LAMMPSError as its outcome.
    """
    script = "".join(deck.script(name, models[deck.model], directory) for name, deck in decks.items())
    try:
        log = run(script, directory, ranks=ranks, timeout=600)
    except LAMMPSError as error:
        if len(decks) == 1:
            return dict.fromkeys(decks, error)
        return {
            key: value
            for name, deck in decks.items()
            for key, value in run_decks({name: deck}, models, directory, ranks).items()
        }
    return {name: outcome(name, deck, log, directory) for name, deck in decks.items()}


def outcome(name: str, deck: Deck, log: str, directory: Path) -> Outcome:
    def numbers(key: str) -> np.ndarray:
        line = re.search(rf"^DECK {re.escape(name)} {key} (.*)$", log, flags=re.MULTILINE)
        assert line, f"{name}: no {key} in the output"
        return np.array(line.group(1).split(), dtype=float)

    return Outcome(
        frames=read_dump(path, deck.elements) if (path := directory / f"{name}.dump").exists() else [],
        last=read_dump(directory / f"{name}.last.dump", deck.elements)[-1],
        energy=float(numbers("PE")[0]),
        virial=numbers("VIRIAL"),
        centroid=numbers("CENTROID"),
        pairwise=numbers("PAIRWISE"),
        log=log,
    )


def read_dump(path: Path, elements: list[str]) -> list[Snapshot]:
    frames = []
    for block in path.read_text().split("ITEM: TIMESTEP\n")[1:]:
        step, rest = block.split("\n", 1)
        header, rows = re.split(r"ITEM: ATOMS .*\n", rest)
        bounds = np.array([line.split() for line in header.splitlines()[-3:]], dtype=float)
        flags = re.search(r"BOX BOUNDS.*?((?: [pfsm]{2}){3})", header).group(1).split()
        xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
        low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
        low[0] -= min(0.0, xy, xz, xy + xz)
        high[0] -= max(0.0, xy, xz, xy + xz)
        low[1] -= min(0.0, yz)
        high[1] -= max(0.0, yz)
        lengths = high - low
        cell = [[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]
        table = np.array([row.split() for row in rows.splitlines()], dtype=float).reshape(-1, 9)
        types = table[:, 1].astype(int)
        atoms = Atoms(
            [elements[kind - 1] for kind in types],
            positions=table[:, 2:5] - low,
            cell=cell,
            pbc=[flag == "pp" for flag in flags],
        )
        frames.append(Snapshot(int(step), table[:, 0].astype(int), types, atoms, table[:, 5:8], table[:, 8]))
    return frames
