"""Dimer curves down to short distances: is there a wall, and is there one minimum?

Foundation models see few short distances in training; holes and wiggles there are common and known (the homonuclear
diatomics of MLIP Arena show them: Chiang et al., arXiv:2509.20630, 2025). They say nothing about the deployment, so a
hole is an expected failure with its cure, and not a reason to refuse the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Case, Check, Context, Outcome
from mlip_deploy.validation.physics.tools import case, evaluate, outcome, tested_elements

SHORTEST, LONGEST, POINTS = 0.5, 2.5, 33
"""Distances in sums of covalent radii."""
CLOSE = 0.7
"""Sum of covalent radii: a bond compressed by 30 % costs several eV, which thermal motion does not reach."""
MOST_MIXED = 6
"""Up to so many elements have a curve with each other. 89 of them would make 4005 curves: there each meets each other
one at the distances `WALL` only, since whether there is a wall does not need the well."""
WALL = np.geomspace(SHORTEST, CLOSE, 4)
"""Distances in sums of covalent radii."""
NAMED = 12
"""partners that a reason names"""
PER_PLOT = 8
SHOWN = (-8.0, 15.0)
"""eV: the part of a curve that a plot shows."""
SOURCE = (
    f"definition: cores repel; {CLOSE:g} times the sum of covalent radii is closer than thermal motion brings two "
    "atoms. MLIP Arena (Chiang et al., arXiv:2509.20630) looks at the same curves, with other measures"
)
CURE = "keep atoms apart with ZBL (docs/lammps.md: hybrid/overlay), or stay near equilibrium"


def cases(context: Context) -> list[Case]:
    return [
        case(
            "dimers",
            "Atoms that fall into each other at high temperature, in a collision cascade or in a random start.",
            _run,
        )
    ]


def _run(context: Context, progress: Progress) -> Outcome:
    symbols = tested_elements(context)
    few = len(symbols) <= MOST_MIXED
    pairs = list(combinations_with_replacement(symbols, 2)) if few else [(symbol, symbol) for symbol in symbols]
    cutoff = context.artifact.contract.cutoff
    distances = [np.geomspace(SHORTEST * _radii(*pair), min(LONGEST * _radii(*pair), cutoff), POINTS) for pair in pairs]
    frames = [
        Atoms(pair, positions=[[0, 0, 0], [r, 0, 0]]) for pair, rs in zip(pairs, distances, strict=True) for r in rs
    ]
    progress(f"{len(pairs)} pairs, {len(frames)} frames")
    results = evaluate(context, frames)
    checks, curves = [], []
    for k, (pair, rs) in enumerate(zip(pairs, distances, strict=True)):
        part = results[k * POINTS : (k + 1) * POINTS]
        energies = np.array([result.energy for result in part])
        repulsion = np.array([float(result.forces[1, 0]) for result in part])
        checks.append(judge(pair, rs, energies - energies[-1], repulsion))
        shown = np.clip(energies - energies[-1], *SHOWN)
        curves.append(Series(label="-".join(pair), x=(rs / _radii(*pair)).tolist(), y=shown.tolist()))
    plots = [
        Curve(
            title=f"Dimers {group[0].label} to {group[-1].label}",
            x_label="distance / sum of covalent radii",
            y_label="energy / eV (cut)",
            series=group,
        )
        for group in (curves[k : k + PER_PLOT] for k in range(0, len(curves), PER_PLOT))
    ]
    if few:
        return outcome(checks, curves=plots)
    note = f"Curves of different elements with each other: name up to {MOST_MIXED} with --elements."
    return outcome([*checks, *_walls(context, symbols, progress)], curves=plots, notes=[note])


def _walls(context: Context, symbols: list[str], progress: Progress) -> list[Check]:
    """Each element with each other one, close up."""
    pairs = list(combinations(symbols, 2))
    frames = [Atoms(pair, positions=[[0, 0, 0], [r * _radii(*pair), 0, 0]]) for pair in pairs for r in WALL]
    progress(f"{len(pairs)} mixed pairs, {len(frames)} frames")
    results = evaluate(context, frames)
    repulsion = np.array([float(result.forces[1, 0]) for result in results]).reshape(len(pairs), len(WALL))
    return [judge_walls(symbol, pairs, repulsion) for symbol in symbols]


def judge_walls(symbol: str, pairs: Sequence[tuple[str, str]], repulsion: Array) -> Check:
    """One element against all others.

    Args:
        pairs: of different elements.
        repulsion: [pairs, distances] eV/Å, force that pushes the atoms apart.
    """
    of_symbol = [k for k, pair in enumerate(pairs) if symbol in pair]
    partners = [pairs[k][0] if pairs[k][1] == symbol else pairs[k][1] for k in of_symbol]
    attracts = repulsion[of_symbol] < 0.0
    bad = [partner for partner, row in zip(partners, attracts, strict=True) if row.any()]
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return Check(
        quantity=f"{symbol} with each other element: share of close distances (up to {CLOSE:g}) at which they attract",
        value=float(attracts.mean()),
        unit="",
        threshold=0.0,
        source=SOURCE,
        verdict="expected-fail" if bad else "pass",
        reason=f"attraction to {', '.join(bad[:NAMED])}{more}: {CURE}" if bad else "",
    )


def judge(pair: tuple[str, str], distances: Array, energies: Array, repulsion: Array) -> Check:
    """One pair.

    Args:
        distances: Å, rising.
        energies: eV, zero at the longest distance.
        repulsion: eV/Å, force that pushes the atoms apart.
    """
    threshold = CLOSE * _radii(*pair)
    close = distances <= threshold
    attractive = distances[close & (repulsion < 0.0)]
    flips = int((np.diff(np.sign(repulsion)) != 0).sum())
    minima = int(((energies[1:-1] < energies[:-2]) & (energies[1:-1] < energies[2:])).sum())
    bond = int(np.argmin(np.where(close, np.inf, energies)))
    facts = (
        f"well {energies[bond]:.3g} eV at {distances[bond]:.3g} Å, {minima} minimum/minima, {flips} change(s) of "
        f"sign of the force, {energies[0]:.3g} eV at {distances[0]:.3g} Å"
    )
    holds = attractive.size == 0
    return Check(
        quantity=f"{'-'.join(pair)}: share of the distances up to {threshold:.3g} Å at which the atoms attract",
        value=float(attractive.size / max(1, close.sum())),
        unit="",
        threshold=0.0,
        source=SOURCE,
        verdict="pass" if holds else "expected-fail",
        reason=facts if holds else f"{facts}; attraction from {attractive.max():.3g} Å down: {CURE}",
    )


def _radii(first: str, second: str) -> float:
    return float(covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])
