"""Small and large cells, lone atoms, and what happens where an atom leaves the reach of others."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from mlip_deploy.artifact.tolerances import Tolerance
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.trial import SOURCE, Trial, agreement, measured_trial, rattled
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Check, Outcome, judged, unmeasured
from mlip_deploy.validation.physics.elements import STRETCH
from mlip_deploy.validation.physics.extent import REPEATS, approaching, copies_agree
from mlip_deploy.validation.physics.tools import largest, outcome

FAR = 30.0
"""Å, beyond any cutoff"""
DIGITS = 1e-6
"""of the conversion between eV and kJ/mol: packages write its constant with six digits or more"""
SPACING = 0.05
"""Å between points of a scan"""


def small_crystal(trial: Trial) -> Atoms:
    """Two atoms in a cell far smaller than a cutoff, with the density of the structure."""
    elements = list(dict.fromkeys(trial.atoms.get_chemical_symbols()))
    radius = float(covalent_radii[atomic_numbers[elements[0]]])
    lattice = STRETCH * max(1.0, radius)
    if trial.atoms.pbc.all():
        lattice = float((4.0 * trial.atoms.get_volume() / len(trial.atoms)) ** (1.0 / 3.0))
    atoms: Atoms = bulk(elements[0], "fcc", a=lattice).repeat((2, 1, 1))
    atoms.symbols = [elements[0], elements[-1]]
    return rattled(atoms, 0.02 * lattice)


@probe("small-cell")
def small_cell(trial: Trial) -> Outcome:
    """A cell far smaller than twice the cutoff gives what its supercell gives.

    Two atoms with the density of the structure, against the same crystal with 54 atoms. A neighbour list of nearest
    images alone misses most neighbours of a small cell, and says nothing; a primitive cell, or a barostat that shrinks
    one, has them. The threshold is twice the noise.
    """
    atoms = small_crystal(trial)
    if trial.target.engine == "openmm":
        atoms = atoms.repeat((2, 2, 2))  # OpenMM's own lower limit is twice the cutoff of its own forces

    def checks() -> list[Check]:
        one, many = trial.evaluate([atoms, atoms.repeat((3, 3, 3))])
        found = copies_agree(trial.limits, "supercell 3×3×3", one, many, 27)
        if one.stress is not None and many.stress is not None:
            difference = largest(one.stress - many.stress)
            found.append(judged("supercell 3×3×3: stress", difference, 2 * trial.limits.stress, "eV/Å³", SOURCE))
        return found

    return outcome(attempt("cell of two atoms", checks))


@probe("extensivity")
def extensivity(trial: Trial) -> Outcome:
    """A supercell has so many times the energy, and the same forces.

    Supercells of 2×1×1 and 1×2×2 of a periodic structure, two copies of an open one 30 Å apart. The threshold is twice
    the noise.
    """
    atoms = trial.atoms
    checks = []
    if atoms.pbc.all():
        base, *replicas = trial.evaluate([atoms, *(atoms.repeat(repeat) for repeat in REPEATS)])
        for repeat, replica in zip(REPEATS, replicas, strict=True):
            label = f"supercell {repeat[0]}×{repeat[1]}×{repeat[2]}"
            checks += copies_agree(trial.limits, label, base, replica, int(np.prod(repeat)))
    else:
        both = atoms.copy()
        copy = atoms.copy()
        direction = int(np.argmin(atoms.pbc))
        copy.positions[:, direction] += np.ptp(atoms.positions[:, direction]) + FAR
        both.extend(copy)
        base, twice = trial.evaluate([atoms, both])
        checks += copies_agree(trial.limits, f"two, {FAR:g} Å apart", base, twice, 2)
    return outcome(checks)


@probe("lone-atoms")
def lone_atoms(trial: Trial) -> Outcome:
    """A lone atom feels nothing, and two far apart have the sum of their energies.

    Each element alone in an open box and in a large periodic one, and two atoms 30 Å apart. An atom without
    neighbours, an empty list of pairs and a type without atoms are what evaporation, insertion and domain decomposition
    make; a tensor of no rows is a classical crash. The threshold is twice the noise; an error that is said is as good.
    """
    elements = list(dict.fromkeys(trial.atoms.get_chemical_symbols()))
    open_box = trial.target.engine != "openmm"

    def alone(symbol: str) -> list[Check]:
        periodic = Atoms([symbol], positions=[[1.0, 2.0, 3.0]], cell=FAR * np.eye(3), pbc=True)
        pair = Atoms([symbol] * 2, positions=[[0.0, 0.0, 0.0], [FAR, 0.5, 0.2]], cell=3 * FAR * np.eye(3), pbc=True)
        frames = [periodic, pair] + ([Atoms([symbol], positions=[[0.0, 0.0, 0.0]])] if open_box else [])
        one, two, *others = trial.evaluate(frames)
        checks = copies_agree(trial.limits, f"{symbol}, two of them", one, two, 2)
        checks.append(judged(f"{symbol}: force", largest(one.forces), trial.limits.forces, "eV/Å", "definition: zero"))
        for other in others:
            checks.append(
                judged(
                    f"{symbol}, open instead of periodic: energy",
                    abs(other.energy - one.energy),
                    2 * trial.limits.energy_per_atom,
                    "eV",
                    SOURCE,
                )
            )
        return checks

    return outcome([check for symbol in elements for check in attempt(f"{symbol} alone", alone, symbol)])


@probe("smoothness")
def smoothness(trial: Trial) -> Outcome:
    """The energy does not jump when an atom leaves the reach of others.

    A third atom moves away from a pair in steps of 0.05 Å, from a bond's length to 12 Å. Each step's change of the
    energy is compared with the forces at its ends. An energy that jumps where a neighbour is cut off is not conserved
    by dynamics. A force that jumps while the energy does not is reported, not judged: many classical potentials have
    one. The threshold is the noise of the energies, and the error of the trapezoidal rule by second differences.
    """
    elements = list(dict.fromkeys(trial.atoms.get_chemical_symbols()))
    kinds = list(dict.fromkeys([(elements[0], elements[0]), (elements[0], elements[-1]), (elements[-1], elements[0])]))
    checks, series = [], []
    for target, moving in kinds:
        start = 1.5 * sum(float(covalent_radii[atomic_numbers[symbol]]) for symbol in (target, moving))
        distances = np.arange(start, 12.0, SPACING)
        results = trial.evaluate([approaching(target, moving, float(r)) for r in distances])
        energies = np.array([result.energy for result in results])
        pull = np.array([float(result.forces[2, 0]) for result in results])
        checks += _jumps(trial, f"{moving} away from {target}", distances, energies, pull)
        series.append(
            Series(label=f"{moving} from {target}", x=distances.tolist(), y=(energies - energies[-1]).tolist())
        )
    curve = Curve(title="An atom leaves a pair", x_label="distance / Å", y_label="energy / eV", series=series)
    return outcome(checks, curves=[curve])


def _jumps(trial: Trial, label: str, distances: Array, energies: Array, force: Array) -> list[Check]:
    """Energy and force along a scan."""
    missing = np.abs(np.diff(energies) + SPACING * 0.5 * (force[1:] + force[:-1]))
    bend = np.abs(np.diff(force, 2))
    nearby = np.maximum.reduce([np.pad(bend, (k, 3 - k), mode="edge")[1:-1] for k in range(4)])
    noise = 2 * 3 * trial.limits.energy_per_atom
    excess = missing - SPACING * nearby - noise
    worst = int(np.argmax(excess))
    step = np.abs(np.diff(force))
    kink = int(np.argmax(step - 2.0 * np.maximum(np.pad(step, (1, 0))[:-1], np.pad(step, (0, 1))[1:])))
    return [
        judged(
            f"{label}: jump of the energy",
            float(missing[worst]),
            float(SPACING * nearby[worst] + noise),
            "eV",
            "noise, and the trapezoidal rule's error by second differences",
            f"at {distances[worst]:.3g} to {distances[worst + 1]:.3g} Å, as of an energy that is cut and not shifted",
        ),
        Check(
            quantity=f"{label}: largest jump of the force",
            value=float(step[kink]),
            unit="eV/Å",
            threshold=None,
            source="",
            verdict="not-applicable",
            reason=f"at {distances[kink]:.3g} Å; reported, not judged",
        ),
    ]


@probe("reference")
def reference(trial: Trial) -> Outcome:
    """The potential gives what the original gives, on the structure and on its supercell.

    The original is the one named by --reference. An offset of the energies, a head or a unit that differs shows itself
    here alone, since such numbers are consistent with each other. The threshold is the noise of both; in OpenMM, where
    potentials of other units are converted, also a millionth of the energy and of the strongest force for the digits of
    constants.
    """
    if trial.reference is None:
        return outcome(
            [unmeasured("reference", "not-tested", "no original given. Add: --reference ase:MODULE:FACTORY")]
        )
    frames = [trial.atoms, trial.large]
    original = measured_trial(trial.reference, trial.atoms)
    own, others = asdict(trial.limits), asdict(original.limits)
    limits = Tolerance(**{key: own[key] + others[key] for key in asdict(trial.noise)})
    checks = []
    source = "the noise of both, twice"
    for label, found, expected in zip(
        ("structure", "supercell"), trial.evaluate(frames), trial.reference.evaluate(frames), strict=True
    ):
        allowed = limits
        if trial.target.engine == "openmm":
            energy, force = abs(expected.energy) / len(expected.forces), largest(expected.forces)
            allowed = replace(
                limits,
                energy_per_atom=limits.energy_per_atom + 0.5 * DIGITS * energy,
                forces=limits.forces + 0.5 * DIGITS * force,
            )
            source = "the noise of both, twice, and a millionth for the digits of constants"
        checks += agreement(allowed, label, found, expected, atomic=False, source=source)
    return outcome(checks)


PROBES: tuple[Probe, ...] = (small_cell, extensivity, lone_atoms, smoothness, reference)
