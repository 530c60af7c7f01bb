"""Every element by a run of its own: finite, and the forces are the energy's derivative."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from mlip_deploy.result import Array
from mlip_deploy.validate.case import Case, Context, Outcome
from mlip_deploy.validate.physics.stencil import NOISE_GAIN, POINTS, derivative, step_for
from mlip_deploy.validate.physics.tools import (
    Progress,
    bounds,
    case,
    displaced,
    evaluate,
    judged,
    largest,
    lone_atom_bound,
    outcome,
    tested_elements,
)

SOURCE = (
    "error of central differences of eighth order along one random direction: noise of the energies (the fidelity "
    "bound, that of an isolated atom where it is larger) over the step, plus truncation"
)


def cases(context: Context) -> list[Case]:
    return [case("every element", "An element whose parameters are broken or not finite.", _run)]


def _run(context: Context, progress: Progress) -> Outcome:
    symbols = tested_elements(context)
    noise = 2 * max(bounds(context).energy_per_atom, lone_atom_bound(context))
    step = step_for(noise)
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
        energies: list[Array | float] = [result.energy for result in moved]
        found = derivative(energies, step)
        served = -float((base.forces * directions[k]).sum())
        checks.append(
            judged(
                f"{symbol}: slope of the energy along a random direction, difference from the forces",
                abs(float(found.value) - served),
                NOISE_GAIN * noise / step + float(found.truncation) + bounds(context).forces,
                "eV/Å",
                SOURCE,
                f"from the forces {served:.6g}, from the energies {float(found.value):.6g} eV/Å; largest force "
                f"{largest(base.forces):.3g} eV/Å",
            )
        )
    return outcome(checks)


def crystal(symbol: str, random: np.random.Generator) -> Atoms:
    """Two atoms of a rattled face-centred cubic crystal with neighbours near the sum of covalent radii, 2 Å or more."""
    radius = max(1.0, float(covalent_radii[atomic_numbers[symbol]]))
    atoms: Atoms = bulk(symbol, "fcc", a=2.9 * radius).repeat((2, 1, 1))
    atoms.positions += random.normal(scale=0.04 * radius, size=atoms.positions.shape)
    return atoms
