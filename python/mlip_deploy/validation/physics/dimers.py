"""Dimer curves down to short distances: one well, and a wall inside of it?

Two ranges are judged differently. In reach, which is from 0.8 times the sum of the covalent radii outward, a curve must
be that of two atoms: finite numbers, one well without a hump inside it, no deeper than bonds are, and an energy that is
the forces' work. What is not so there fails. Attraction at 0.8 is no criterion: N2, CO and most transition metals have
their bond there or nearer (Cr2 at 0.60, Huber and Herzberg), and the models know it.

Closer up, foundation models see nothing in training; holes are common there and known (the homonuclear diatomics of
MLIP Arena show them: Chiang et al., arXiv:2509.20630, 2025). They are an expected failure with its cure. The same holds
behind a wall that no thermal motion climbs: the sum of the covalent radii of noble gases is far inside of their cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Case, Check, Context, Outcome, judged
from mlip_deploy.validation.physics.tools import (
    case,
    evaluate,
    noise_far_from_fixtures,
    outcome,
    tested_elements,
)

SHORTEST, LONGEST, POINTS = 0.5, 2.5, 33
"""Distances in sums of covalent radii."""
CLOSE = 0.7
"""Sum of covalent radii: a bond compressed by 30 % costs several eV, which thermal motion does not reach."""
IN_REACH = 0.8
"""Sum of covalent radii, from which on outward a wrong curve fails."""
WALL_HEIGHT = 10.0
"""eV above the lowest energy farther out: at 5000 K (kT = 0.43 eV) one pair in 10^10 climbs it."""
HUMP = 0.3
"""eV; three times the highest that SevenNet-0 and CHGNet 0.3.0 have in reach, over 117 pairs, where they are right
(0.10 eV, Mo-Mo), and above the avoided crossings of real ground states."""
DEEPEST = 22.2
"""eV; twice the bond of CO, 11.1 eV, the strongest between two atoms (Huber and Herzberg, Constants of Diatomic
Molecules, 1979): the zero is the model's own at the longest distance, which may be off by as much as a bond."""
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
            without_cell=True,
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
    checks, curves, in_reach = [], [], {}
    for k, (pair, rs) in enumerate(zip(pairs, distances, strict=True)):
        part = results[k * POINTS : (k + 1) * POINTS]
        energies = np.array([result.energy for result in part])
        repulsion = np.array([float(result.forces[1, 0]) for result in part])
        checks.append(judge(pair, rs, energies - energies[-1], repulsion))
        in_reach["-".join(pair)] = reach(rs, energies - energies[-1], repulsion, IN_REACH * _radii(*pair))
        shown = np.clip(energies - energies[-1], *SHOWN)
        curves.append(Series(label="-".join(pair), x=(rs / _radii(*pair)).tolist(), y=shown.tolist()))
    noise, remark = noise_far_from_fixtures(context, results)
    checks = [*judge_reach(in_reach, noise, remark), *checks]
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
    note = f"Different elements with each other are judged close up alone: name up to {MOST_MIXED} with --elements."
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
    attracts = ~(repulsion[of_symbol] >= 0.0)  # nor is it repulsion if it is no number
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
    attractive = distances[close & ~(repulsion >= 0.0)]
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


@dataclass(frozen=True)
class Reach:
    """What is judged of one curve: from IN_REACH outward, but not behind a wall."""

    finite: bool
    hump: float = 0.0
    """eV: the highest point between two wells above the higher one of them"""
    hump_at: float = 0.0
    """Å"""
    depth: float = 0.0
    """eV, of the well"""
    depth_at: float = 0.0
    """Å"""
    jump: float = 0.0
    """eV: the largest part of a change of energy that the forces around it leave unexplained"""
    jump_at: float = 0.0
    """Å"""


def reach(distances: Array, energies: Array, repulsion: Array, shortest: float) -> Reach:
    """The part of a curve that must be right.

    Args:
        distances: Å, rising.
        energies: eV, zero at the longest distance.
        repulsion: eV/Å, force that pushes the atoms apart.
        shortest: Å.
    """
    inside = distances >= shortest * (1.0 - 1e-9)
    r, e, f = distances[inside], energies[inside], repulsion[inside]
    broken = ~(np.isfinite(e) & np.isfinite(f))
    if broken.any():
        return Reach(finite=False)
    climbed = e - np.minimum.accumulate(e[::-1])[::-1]
    behind = np.flatnonzero(climbed > WALL_HEIGHT)
    if behind.size:
        r, e, f = (values[behind[-1] + 1 :] for values in (r, e, f))
    within, outside = np.minimum.accumulate(e), np.minimum.accumulate(e[::-1])[::-1]
    humps = e - np.maximum(within, outside)
    hump, well = int(np.argmax(humps)), int(np.argmin(e))
    jumps = _unexplained(r, e, f)
    jump = int(np.argmax(jumps))
    return Reach(
        True, float(humps[hump]), float(r[hump]), -float(e[well]), float(r[well]), float(jumps[jump]), float(r[jump])
    )


def _unexplained(distances: Array, energies: Array, repulsion: Array) -> Array:
    """eV [n - 1]: by how much each change of energy exceeds the work of any force found around it.

    By the mean value theorem the mean force over an interval is the force somewhere in it. That lies between the four
    nearest known forces, or outside by less than they differ.
    """
    excess = np.zeros(len(distances) - 1)
    for k, step in enumerate(np.diff(distances)):
        mean = -(energies[k + 1] - energies[k]) / step
        near = repulsion[max(0, k - 1) : k + 3]
        lowest, highest = near.min(), near.max()
        spread = highest - lowest
        excess[k] = step * max(0.0, mean - highest - spread, lowest - spread - mean)
    return excess


def judge_reach(curves: dict[str, Reach], noise: float, remark: str = "") -> list[Check]:
    """All pairs in reach; each check names the pairs that fail it.

    Args:
        curves: by the pair's name.
        noise: eV/atom of an energy.
        remark: on the noise, for the source.
    """
    where = f"from {IN_REACH:g} times the sum of covalent radii outward, up to a wall of {WALL_HEIGHT:g} eV"
    broken = [pair for pair, curve in curves.items() if not curve.finite]
    finite = {pair: curve for pair, curve in curves.items() if curve.finite}

    def worst(what: str, values: dict[str, tuple[float, float]], threshold: float, source: str, advice: str) -> Check:
        bad = [f"{pair} {value:.3g} eV at {at:.3g} Å" for pair, (value, at) in values.items() if value > threshold]
        largest_value = max((value for value, _ in values.values()), default=0.0)
        return judged(f"{what}, {where}", largest_value, threshold, "eV", source, f"{', '.join(bad)}: {advice}")

    return [
        judged(
            f"pairs of {len(curves)} with an energy or a force that is not a number, {where}",
            len(broken),
            0.0,
            "",
            "definition",
            ", ".join(broken),
        ),
        worst(
            "highest hump of a dimer's energy above both of its sides",
            {pair: (curve.hump, curve.hump_at) for pair, curve in finite.items()},
            HUMP,
            "two atoms have one well; three times the highest hump of SevenNet-0 and CHGNet where they are right",
            f"inside of it the atoms fall into each other; {CURE}",
        ),
        worst(
            "deepest well of a dimer",
            {pair: (curve.depth, curve.depth_at) for pair, curve in finite.items()},
            DEEPEST,
            "twice the strongest bond of two atoms, CO's 11.1 eV (Huber and Herzberg, 1979)",
            f"no two atoms are bound like that; {CURE}",
        ),
        worst(
            "largest change of a dimer's energy that its forces do not explain",
            {pair: (curve.jump, curve.jump_at) for pair, curve in finite.items()},
            4.0 * noise,
            f"noise of two energies of two atoms each{remark}",
            "the energy jumps, or the forces are not its derivative",
        ),
    ]


def _radii(first: str, second: str) -> float:
    return float(covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])
