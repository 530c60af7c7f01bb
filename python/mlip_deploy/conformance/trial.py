"""One potential on one structure: what the probes get, with the noise of its numbers measured first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from ase import Atoms

from mlip_deploy.artifact.tolerances import FLOAT64, Tolerance
from mlip_deploy.conformance.ase import ASETarget
from mlip_deploy.conformance.lammps import LAMMPSTarget
from mlip_deploy.errors import MLIPError
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Check, judged
from mlip_deploy.validation.physics.tools import MOST_GROWTH, Bounds, displaced, largest

if TYPE_CHECKING:
    from mlip_deploy.conformance.openmm import OpenMMTarget  # which loads torch


class Target(Protocol):
    """A potential in its engine."""

    name: str
    """for the reader: "sw", "module:factory" """
    engine: str
    """lammps, openmm or ase"""
    energy_unit: float
    """of the engine, in which it gets energies, for an eV"""
    elements: Sequence[str]
    """that the structures may have"""

    def evaluate(self, frames: Sequence[Atoms]) -> list[Result]:
        """Each structure, in eV and Å."""

    def total_energies(self, atoms: Atoms, step: float, n_steps: int) -> Array:
        """Potential and kinetic, in eV at each step of `step` ps of velocity Verlet, from rest: [n_steps + 1]."""

    def describe(self) -> dict[str, Any]:
        """All that the outcome depends on: commands or code, versions."""

    def close(self) -> None:
        """End what runs."""


RATTLE = 0.05
"""Å, standard deviation of the displacements that break the symmetry of a crystal"""
SHEAR = 0.02
"""largest strain that makes its cell triclinic"""
SAFETY = 10.0
"""times the largest difference that a few translations and displacements make, and no less than FLOAT64"""
SAMPLES = 6
NUDGE = 1e-6
"""Å: each coordinate goes there and back. The mean of both differs from the middle by 1e-11 eV or less in exact
arithmetic, and by its rounding in float32, which a translation of a few atoms may not change."""
ROUNDING = 1e-14
"""of an energy: a hundred roundings of float64, which a few samples may not show"""
MOST_NOISE = Bounds(energy_per_atom=1e-4, atomic_energies=1e-3, forces=5e-3, stress=1e-4)
"""Arithmetic in float32 (in TF32, the forces) makes no more. What differs by more is no noise, and the probe of
translations fails."""
MANY = 48
"""atoms of the structure for several ranks and for dynamics"""


SIGNAL = 100.0 * FLOAT64.forces
"""eV/Å, which the strongest force must exceed so that a probe can show anything"""
SOURCE = (
    "twice the noise, which is ten times the largest of a few samples, and no less than float64 has (tolerances.py)"
)


@dataclass(frozen=True)
class Trial:
    target: Target
    atoms: Atoms
    """small, without symmetry, triclinic where it is periodic in three directions"""
    base: Result
    """of the structure"""
    translated: Tolerance
    """largest difference over a few translations"""
    noise: Tolerance
    """the same, and over a few displacements too small to matter"""
    reference: Target | None = None
    """the original, to compare with"""
    ranks: Sequence[int] = (1,)

    @property
    def large(self) -> Atoms:
        """The same with more atoms, where it can be repeated."""
        if not self.atoms.pbc.any():
            return self.atoms
        atoms = self.atoms
        while len(atoms) < MANY:
            widths = np.where(atoms.pbc, np.linalg.norm(atoms.cell.array, axis=1), np.inf)
            repeat = np.ones(3, dtype=int)
            repeat[int(np.argmin(widths))] = 2
            atoms = atoms.repeat(tuple(repeat))
        return rattled(atoms, seed=12) if len(atoms) > len(self.atoms) else atoms

    @property
    def lammps(self) -> LAMMPSTarget:
        """The target, for probes of LAMMPS alone."""
        assert isinstance(self.target, LAMMPSTarget)
        return self.target

    @property
    def ase(self) -> ASETarget:
        """The target, for probes of ASE alone."""
        assert isinstance(self.target, ASETarget)
        return self.target

    @property
    def openmm(self) -> OpenMMTarget:
        """The target, for probes of OpenMM alone."""
        return cast("OpenMMTarget", self.target)

    def evaluate(self, frames: Sequence[Atoms]) -> list[Result]:
        return self.target.evaluate(frames)

    @property
    def limits(self) -> Bounds:
        """How far a result like that of the structure may be from what exact arithmetic would give."""
        return self.limits_of([])

    def limits_of(self, results: Sequence[Result]) -> Bounds:
        """The same for results with larger forces, which have more noise; up to MOST_GROWTH times."""
        strongest = max((largest(result.forces) for result in results), default=0.0)
        usual = max(largest(self.base.forces), np.finfo(float).tiny)
        growth = float(np.clip(strongest / usual, 1.0, MOST_GROWTH))
        floor, most = asdict(FLOAT64), asdict(MOST_NOISE)
        noise = {key: min(max(SAFETY * value, floor[key]), most[key]) for key, value in asdict(self.noise).items()}
        return Bounds(**{key: growth * value for key, value in noise.items()})

    @property
    def energy_noise(self) -> float:
        """eV, of the structure, without the floor: for derivatives."""
        return max(SAFETY * self.noise.energy_per_atom * len(self.atoms), ROUNDING * abs(self.base.energy))

    def agreement(
        self, label: str, found: Result, expected: Result, atomic: bool = True, source: str = SOURCE
    ) -> list[Check]:
        """Energy, atomic energies, forces and stress of what must be the same."""
        return agreement(self.limits_of([expected]), label, found, expected, atomic, source)


def rattled(atoms: Atoms, amplitude: float = RATTLE, seed: int = 11) -> Atoms:
    """Displaced at random: no symmetry is left that could hide a term."""
    displacement = np.random.default_rng(seed).normal(scale=amplitude, size=(len(atoms), 3))
    return displaced(atoms, displacement)


def sheared(atoms: Atoms) -> Atoms:
    """With a general strain, where the structure is periodic in all directions."""
    atoms = atoms.copy()
    if atoms.pbc.all():
        strain = SHEAR * np.array([[0.6, 0.5, -0.4], [0.5, -0.3, 0.7], [-0.4, 0.7, 0.4]])
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def measured_trial(target: Target, atoms: Atoms, **further: Any) -> Trial:
    """Measure the noise of a potential on a structure: translated a few times, and displaced by next to nothing.

    Raises:
        MLIPError: the engine cannot run the structure, or every force on it is noise.
    """
    atoms = sheared(rattled(atoms))
    random = np.random.default_rng(13)
    shifts = [np.zeros(3), np.zeros(3), *random.uniform(-3.0, 3.0, size=(SAMPLES, 3))]
    nudges = NUDGE * random.choice([-1.0, 1.0], size=(SAMPLES, len(atoms), 3))
    moves = [*shifts, *(sign * nudge for nudge in nudges for sign in (1.0, -1.0))]
    first, *others = target.evaluate([displaced(atoms, move) for move in moves])
    if not np.isfinite(first.energy) or not np.isfinite(first.forces).all():
        raise MLIPError("the energy or a force of the structure is not a finite number. Give one near equilibrium")
    translated, pairs = others[: SAMPLES + 1], others[SAMPLES + 1 :]
    noise = _noise(first, translated, translated)
    steps = float32_rounding(target.energy_unit * np.array([result.energy for result in [first, *others]]))
    rounding = Tolerance(steps / target.energy_unit / len(atoms), 0.0, 0.0, 0.0)
    found = Trial(
        target=target,
        atoms=atoms,
        base=first,
        translated=noise,
        noise=_larger(rounding, _larger(noise, _noise(first, pairs[::2], pairs[1::2]))),
        **further,
    )
    if largest(first.forces) < SIGNAL:
        raise MLIPError(
            f"the largest force on the structure is {largest(first.forces):.2g} eV/Å: nothing could be shown on it. "
            "Give a structure in which the atoms feel each other"
        )
    return found


def float32_rounding(energies: Array) -> float:
    """Largest rounding of energies that are float32 numbers, which a few samples of them may not show; else zero."""
    rounded = energies.astype(np.float32)
    if np.any(np.abs(rounded - energies) > ROUNDING * np.abs(energies)):
        return 0.0
    return 0.5 * float(np.spacing(np.abs(rounded).max()))


def _noise(middle: Result, ups: Sequence[Result], downs: Sequence[Result]) -> Tolerance:
    """Largest (f(up) + f(down)) / 2 - f(middle)."""
    n = len(middle.forces)

    def spread(of: Callable[[Result], Any]) -> float:
        if of(middle) is None:
            return 0.0
        return max(largest(np.asarray(of(u) + of(d)) / 2.0 - of(middle)) for u, d in zip(ups, downs, strict=True))

    return Tolerance(
        energy_per_atom=spread(lambda result: result.energy) / n,
        atomic_energies=spread(lambda result: result.atomic_energies),
        forces=spread(lambda result: result.forces),
        stress=spread(lambda result: result.stress),
    )


def _larger(a: Tolerance, b: Tolerance) -> Tolerance:
    one, other = asdict(a), asdict(b)
    return Tolerance(**{key: max(one[key], other[key]) for key in one})


def agreement(
    limits: Tolerance, label: str, found: Result, expected: Result, atomic: bool = True, source: str = SOURCE
) -> list[Check]:
    """Energy, atomic energies, forces and stress of what must be the same."""
    n = len(expected.forces)
    label = label and f"{label}: "
    energy = abs(found.energy - expected.energy) / n
    forces = largest(found.forces - expected.forces)
    checks = [
        judged(f"{label}energy", energy, 2 * limits.energy_per_atom, "eV/atom", source, _both(found, expected)),
        judged(f"{label}forces", forces, 2 * limits.forces, "eV/Å", source),
    ]
    if atomic and found.atomic_energies is not None and expected.atomic_energies is not None:
        difference = largest(found.atomic_energies - expected.atomic_energies)
        checks.append(judged(f"{label}atomic energies", difference, 2 * limits.atomic_energies, "eV", source))
    if found.stress is not None and expected.stress is not None:
        difference = largest(found.stress - expected.stress)
        checks.append(judged(f"{label}stress", difference, 2 * limits.stress, "eV/Å³", source))
    return checks


def _both(found: Result, expected: Result) -> str:
    return f"{found.energy:.9g} eV where {expected.energy:.9g} eV is right"
