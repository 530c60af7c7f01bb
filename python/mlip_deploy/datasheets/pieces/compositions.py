"""Question 1: the share of random known compositions that a model holds together at high temperature.

All crystals move at once, each in its own cell: one pass of the model for many small ones takes half of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes

from mlip_deploy.ase import MLIPCalculator, evaluate_many
from mlip_deploy.close_atoms import close_atoms
from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import NotApplicableError, Piece, Subject, share
from mlip_deploy.engines.ase import calculator_of
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.readers import read_set
from mlip_deploy.result import Array
from mlip_deploy.validation.properties.dynamics import thermostat

COMPOSITIONS, MOST_ATOMS = 100, 12
TEMPERATURE, PICOSECONDS, FRAME = 1000.0, 2.0, 0.05  # K, ps, ps
RUNAWAY = 10.0
"""times the thermal velocity √(3kT/m) at which an atom has been shot out"""
LOOKED_AT = 10
"""frames from one in which close atoms are looked for to the next"""
DRAWN = 5
"""seed"""
TIMESTEP, OF_HYDROGEN = 2.0, 1.0
"""fs; the second for crystals with atoms of less than 4 u"""


def _compositions(subject: Subject, progress: Progress) -> Found:
    known = subject.elements
    crystals = read_set("wbm")
    order = np.random.default_rng(DRAWN).permutation(len(crystals))
    drawn = [crystals[k] for k in order if len(crystals[k].atoms) <= MOST_ATOMS]
    drawn = [one for one in drawn if known.issuperset(one.atoms.get_chemical_symbols())][:COMPOSITIONS]
    if not drawn:
        raise NotApplicableError("elements: no crystal of the set wbm is made of the model's")
    calculator = calculator_of(subject.artifact.path, *subject.hardware)
    lost = []
    for timestep in (TIMESTEP, OF_HYDROGEN):
        chosen = [one for one in drawn if (one.atoms.get_masses().min() > 4.0) == (timestep == TIMESTEP)]
        reasons = _lost(calculator, [one.atoms for one in chosen], timestep, progress)
        lost += [f"{one.name}: {reason}" for one, reason in zip(chosen, reasons, strict=True) if reason]
    kept = len(drawn) - len(lost)
    return Found(
        said=f"{kept} of {len(drawn)} random known compositions survive {PICOSECONDS:g} ps at {TEMPERATURE:g} K",
        numbers=[share(f"compositions that survive {PICOSECONDS:g} ps", kept, len(drawn), sampled=True)],
        notes=[f"lost: {reason}" for reason in lost],
    )


class _Together(Calculator):
    """Forces of the atoms of many crystals, each periodic in its own cell, as of one molecule that holds them all.

    A crystal that the model cannot evaluate any more feels nothing from then on, and has its reason in `stopped`.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  as ASE declares it

    def __init__(self, calculator: MLIPCalculator, crystals: Sequence[Atoms]):
        super().__init__()  # type: ignore[no-untyped-call]
        self._calculator = calculator
        self._crystals = [crystal.copy() for crystal in crystals]
        self._ends = np.cumsum([len(crystal) for crystal in crystals])[:-1]
        self.stopped = [""] * len(crystals)

    def split(self, rows: Array) -> list[Array]:
        """Rows [n_atoms, 3] of each crystal."""
        return np.split(rows, self._ends)

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        for crystal, positions in zip(self._crystals, self.split(self.atoms.positions), strict=True):
            crystal.positions = positions
        while True:
            moving = [k for k, reason in enumerate(self.stopped) if not reason]
            try:
                found = evaluate_many(self._calculator, [self._crystals[k] for k in moving])
                break
            except MLIPError:
                if not self._stop_those_that_fail(moving):
                    raise
        forces = [np.zeros_like(crystal.positions) for crystal in self._crystals]
        for k, result in zip(moving, found, strict=True):
            forces[k] = result.forces
        self.results = {"energy": sum(result.energy for result in found), "forces": np.concatenate(forces)}

    def _stop_those_that_fail(self, moving: Sequence[int]) -> bool:
        for k in moving:
            try:
                evaluate_many(self._calculator, [self._crystals[k]])
            except MLIPError as error:
                self.stopped[k] = str(error)
        return any(self.stopped[k] for k in moving)


def _lost(calculator: MLIPCalculator, crystals: Sequence[Atoms], timestep: float, progress: Progress) -> list[str]:
    """Of each crystal why a run at constant volume went wrong, or nothing."""
    if not crystals:
        return []
    together = _Together(calculator, crystals)
    every, steps = round(1000.0 * FRAME / timestep), round(1000.0 * PICOSECONDS / timestep)
    everything = Atoms(
        np.concatenate([crystal.numbers for crystal in crystals]),
        np.concatenate([crystal.positions for crystal in crystals]),
        calculator=together,
    )
    dynamics = thermostat(everything, TEMPERATURE, timestep)
    frames: list[Array] = []

    def record() -> None:
        progress(f"{len(crystals)} crystals, step {dynamics.nsteps} of {steps}")
        frames.append(everything.get_positions())

    dynamics.attach(record, interval=every)
    dynamics.run(steps)
    return [
        reason or _went_wrong(crystal, np.array(moved))
        for reason, crystal, moved in zip(
            together.stopped, crystals, zip(*map(together.split, frames), strict=True), strict=True
        )
    ]


def _went_wrong(crystal: Atoms, frames: Array) -> str:
    """What is wrong with unwrapped positions [frames, n, 3], or nothing."""
    if not np.isfinite(frames).all():
        return "positions that are not numbers"
    thermal = np.sqrt(3 * units.kB * TEMPERATURE / crystal.get_masses()) * 1000.0 * units.fs  # Å/ps
    steps_of_atoms = np.linalg.norm(np.diff(frames, axis=0), axis=2) / FRAME
    if (steps_of_atoms > RUNAWAY * thermal).any():
        return f"an atom at more than {RUNAWAY:g} times its thermal velocity"
    moved = crystal.copy()
    for positions in frames[::LOOKED_AT]:
        moved.positions = positions
        if words := close_atoms(moved):
            return words
    return ""


PIECE = Piece(
    name="compositions",
    question=1,
    measures=f"{COMPOSITIONS} crystals of up to {MOST_ATOMS} atoms, drawn from the set wbm, in NVT at "
    f"{TEMPERATURE:g} K for {PICOSECONDS:g} ps: lost where a position is no number, atoms are on top of each other or "
    f"one is {RUNAWAY:g} times faster than thermal",
    not_tested="longer runs, other temperatures, larger cells",
    measure=_compositions,
    seconds=240,
)
