"""What every guard of a Python engine does: find atoms above a threshold, say so, and keep their frames for labelling.

`mlip_deploy.ase.MLIPGuard` and `mlip_deploy.openmm.MLIPGuard` feed it. In LAMMPS `fix mlip/guard` does the same
(csrc/lammps/fix_mlip_guard.cpp), with the same words.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from ase.io import write

from mlip_deploy.errors import MLIPError
from mlip_deploy.result import Array

UNITS = {"deviation": " eV/Å", "uncertainty": " eV"}
NAMES = {"grade": "a grade", "deviation": "a force deviation", "uncertainty": "an energy uncertainty"}
N_NEAR = 4


class GuardWarning(UserWarning):
    """Atoms are above a guard's threshold: the model may not know what it computes there."""


class GuardError(MLIPError):
    """The same, where the guard ends the run."""


@dataclass(frozen=True)
class Check:
    """What a guard found at one step."""

    step: int
    worst: dict[str, float]
    """of each guarded quantity, over the guarded atoms"""
    n_above: int
    """atoms above a threshold"""


class Guard:
    """Compares values of atoms with thresholds.

    Parameters
    ----------
    thresholds
        Of each guarded quantity: "grade", "deviation" in eV/Å, "uncertainty" of an atom's energy in eV; None for one
        that is not guarded.
    action
        "warn" or "stop".
    dump
        Where to append frames with an atom above a threshold, in extended XYZ; none without it.
    max
        Frames that are written at most.
    spacing
        Å: a frame is written when an atom has moved this far since the last one, so that frames are no copies.

    Raises
    ------
    MLIPError
        For no threshold or one that is not positive, an unknown action, and a dump that cannot be written.
    """

    def __init__(
        self,
        thresholds: dict[str, float | None],
        action: str = "warn",
        dump: str | Path | None = None,
        max: int = 200,
        spacing: float = 0.5,
    ):
        self.thresholds = {name: float(value) for name, value in thresholds.items() if value is not None}
        if not self.thresholds:
            raise MLIPError("MLIPGuard guards nothing. Give a threshold: MLIPGuard(..., grade=1.5)")
        for name, value in self.thresholds.items():
            if not value > 0:
                raise MLIPError(f"MLIPGuard: {name}={value:g}, expected a number above 0")
        if action not in ("warn", "stop"):
            raise MLIPError(f"MLIPGuard: action='{action}' is neither 'warn' nor 'stop'")
        self.action, self.max, self.spacing = action, max, spacing
        self.dump = Path(dump) if dump is not None else None
        self.checks: list[Check] = []
        self.n_frames = 0
        self._last: Atoms | None = None
        self._warned = False
        if self.dump is not None:
            try:
                self.dump.open("a").close()
            except OSError as error:
                raise MLIPError(
                    f"MLIPGuard: '{dump}' cannot be written ({error.strerror}). Name another file"
                ) from error

    def check(
        self,
        step: int,
        atoms: Atoms,
        values: dict[str, Array],
        forces: Array | None = None,
        ids: Sequence[int] | None = None,
    ) -> Check:
        """Look at one step.

        Parameters
        ----------
        step
            For messages and frames.
        atoms
            [n] guarded atoms.
        values
            [n] of each guarded quantity.
        forces
            [n, 3] eV/Å of the model, for the frame.
        ids
            [n] names of the atoms in messages, by default their indices.

        Raises
        ------
        GuardError
            With action "stop", where an atom is above a threshold, after its frame was written.

        Warns
        -----
        GuardWarning
            With action "warn": at the first such step, and with each frame that is written.
        """
        ratios = np.max([values[name] / limit for name, limit in self.thresholds.items()], axis=0)
        n_above = int(np.sum(ratios > 1))
        found = Check(step, {name: float(np.max(values[name], initial=0)) for name in self.thresholds}, n_above)
        self.checks.append(found)
        if n_above == 0:
            return found
        message = self._message(step, atoms, values, int(np.argmax(ratios)), n_above, ids or range(len(atoms)))
        written = self._write(step, atoms, values, forces, message)
        if self.action == "stop":
            raise GuardError(message)
        if written or not self._warned:
            warnings.warn(message, GuardWarning, stacklevel=4)
        self._warned = True
        return found

    def _message(
        self, step: int, atoms: Atoms, values: dict[str, Array], worst: int, n_above: int, ids: Sequence[int]
    ) -> str:
        limits = self.thresholds
        name = max(limits, key=lambda one: values[one][worst] / limits[one])
        _, (distances,) = get_distances(atoms.positions[[worst]], atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        order = [k for k in np.argsort(distances) if k != worst][:N_NEAR]
        near = ", ".join(f"{ids[k]} ({atoms.symbols[k]}) at {distances[k]:.2f} Å" for k in order)
        others = f"; {n_above - 1} more atom(s) above" if n_above > 1 else ""
        text = (
            f"MLIPGuard, step {step}: atom {ids[worst]} ({atoms.symbols[worst]}) has {NAMES[name]} of "
            f"{values[name][worst]:.3g}{UNITS.get(name, '')}, above {limits[name]:g}{others}. "
        )
        text += f"Near it: {near}. " if near else ""
        text += "The model may not know such an environment, so that energy and forces may be wrong from here on"
        return text + (f": label the frames in {self.dump}" if self.dump is not None else "")

    def _write(self, step: int, atoms: Atoms, values: dict[str, Array], forces: Array | None, message: str) -> bool:
        if self.dump is None or self.n_frames >= self.max or not self._is_new(atoms):
            return False
        frame = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        for name in self.thresholds:
            frame.arrays[name] = np.asarray(values[name])
        if forces is not None:
            # not "forces", which readers take for a reference method's
            frame.arrays["model_forces"] = np.asarray(forces)
        frame.info = {"step": step, "alarm": message}
        try:
            write(self.dump, frame, format="extxyz", append=True)
        except OSError as error:
            raise MLIPError(
                f"MLIPGuard: '{self.dump}' could not be written at step {step} ({error.strerror})"
            ) from error
        self._last = frame
        self.n_frames += 1
        return True

    def _is_new(self, atoms: Atoms) -> bool:
        last = self._last
        if last is None or len(last) != len(atoms):
            return True
        moved = np.linalg.norm(atoms.positions - last.positions, axis=1)
        return bool(moved.max(initial=0) >= self.spacing)
