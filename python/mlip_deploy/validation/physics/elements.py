"""Every element by a run of its own: finite, and the forces are the energy's derivative."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from mlip_deploy.progress import Progress
from mlip_deploy.validation.case import Case, Context, Outcome, judged
from mlip_deploy.validation.physics.stencil import LENGTH, POINTS, integral, step_for
from mlip_deploy.validation.physics.tools import (
    bounds,
    case,
    displaced,
    evaluate,
    largest,
    lone_atom_bound,
    noise_far_from_fixtures,
    outcome,
    tested_elements,
)

SOURCE = (
    "noise of two energies (the fidelity bound, that of an isolated atom, or ten roundings of the energy) over a path "
    "along a random direction, noise of the forces, and Simpson's rule (fourth differences)"
)
STRETCH = 3.3
"""Lattice constant in covalent radii: neighbours at 1.17 times the sum of radii, as in close-packed metals."""


def cases(context: Context) -> list[Case]:
    return [case("every element", "An element whose parameters are broken or not finite.", _run)]


def _run(context: Context, progress: Progress) -> Outcome:
    symbols = tested_elements(context)
    step = step_for(2 * max(bounds(context).energy_per_atom, lone_atom_bound(context)))
    length = LENGTH * step
    frames, directions = [], []
    random = np.random.default_rng(8)
    for symbol in symbols:
        atoms = crystal(symbol, random)
        direction = random.normal(size=(len(atoms), 3))
        direction /= np.linalg.norm(direction)
        directions.append(direction)
        frames += [atoms, *(displaced(atoms, k * step * direction) for k in POINTS)]
    progress(f"{len(symbols)} elements, {len(frames)} frames")
    results = evaluate(context, frames)
    checks = []
    for k, symbol in enumerate(symbols):
        base, *moved = results[k * (1 + len(POINTS)) : (k + 1) * (1 + len(POINTS))]
        nodes = [*moved[: len(POINTS) // 2], base, *moved[len(POINTS) // 2 :]]
        noise, remark = noise_far_from_fixtures(context, nodes)
        limits = bounds(context, nodes)
        work = integral([float((node.forces * directions[k]).sum()) for node in nodes], step)
        by_force, by_energy = work.value / length, -(nodes[-1].energy - nodes[0].energy) / length
        checks.append(
            judged(
                f"{symbol}: difference between the force along a random direction and the slope of the energy",
                abs(by_force - by_energy),
                (2 * len(base.forces) * noise + work.error) / length + np.sqrt(base.forces.size) * limits.forces,
                "eV/Å",
                SOURCE + (remark or limits.remark),
                f"force {by_force:.6g}, slope {by_energy:.6g} eV/Å; largest force {largest(base.forces):.3g} eV/Å",
            )
        )
    return outcome(checks)


def crystal(symbol: str, random: np.random.Generator) -> Atoms:
    """Two atoms of a rattled face-centred cubic crystal with neighbours as far apart as in metals."""
    radius = max(1.0, float(covalent_radii[atomic_numbers[symbol]]))
    atoms: Atoms = bulk(symbol, "fcc", a=STRETCH * radius).repeat((2, 1, 1))
    atoms.positions += random.normal(scale=0.04 * radius, size=atoms.positions.shape)
    return atoms
