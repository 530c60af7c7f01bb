"""The table that an engine prints as it runs, whichever engine it is: temperature, energies, volume over the steps."""

from __future__ import annotations

import csv
import re

import numpy as np
from ase import units

from mlip_deploy.result import Array

COLUMNS = {
    # LAMMPS, units metal
    "Step": ("step", 1.0),
    "Time": ("time", 1.0),
    "Temp": ("temperature", 1.0),
    "PotEng": ("potential", 1.0),
    "TotEng": ("total", 1.0),
    "Volume": ("volume", 1.0),
    "Press": ("pressure", 1.0),
    "c_largest": ("largest_force", 1.0),
    # OpenMM's StateDataReporter; its first column is "Step" too
    "Time (ps)": ("time", 1.0),
    "Temperature (K)": ("temperature", 1.0),
    "Potential Energy (kJ/mole)": ("potential", units.kJ / units.mol),
    "Total Energy (kJ/mole)": ("total", units.kJ / units.mol),
    "Box Volume (nm^3)": ("volume", 1000.0),
    # the script for ASE
    "step": ("step", 1.0),
    "time/ps": ("time", 1.0),
    "temperature/K": ("temperature", 1.0),
    "potential energy/eV": ("potential", 1.0),
    "total energy/eV": ("total", 1.0),
    "volume/Å3": ("volume", 1.0),
    "pressure/bar": ("pressure", 1.0),
}
"""Headings of the engines: our name for the column, and the factor to ps, K, eV, Å³, bar and eV/Å."""
LARGEST_FORCE = re.compile(r"largest force: (\S+) eV/Å")
"""eV/Å, which the scripts for ASE and OpenMM print after a row of a relaxation"""


class Table:
    """Filled line by line from an engine's output; lines that are no part of its table are passed over."""

    def __init__(self) -> None:
        self._headings: list[str] = []
        self._rows: dict[int, dict[str, float]] = {}

    def take(self, line: str) -> dict[str, float] | None:
        """The row that a line completes, by column; None for any other line."""
        if (found := LARGEST_FORCE.match(line)) and self._rows:
            row = self._rows[max(self._rows)]
            row["largest_force"] = float(found[1])
            return row
        line = line.strip().lstrip("#")
        words = next(csv.reader([line])) if "," in line else line.split()
        if len(words) > 1 and words[0] in ("Step", "step") and set(words) <= set(COLUMNS):
            self._headings = words
            return None
        if not words or len(words) != len(self._headings):
            return None
        try:
            values = [float(word) for word in words]
        except ValueError:
            return None
        columns = zip(map(COLUMNS.__getitem__, self._headings), values, strict=True)
        row = {name: factor * value for (name, factor), value in columns}
        # where one `run` of LAMMPS ends and the next begins, a step is printed twice
        self._rows[int(row["step"])] = row
        return row

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return any(name in row for row in self._rows.values())

    def __getitem__(self, name: str) -> Array:
        """A column, [rows], in the order of the steps; not a number where a row lacks it."""
        return np.array([row.get(name, np.nan) for row in self._rows.values()])
