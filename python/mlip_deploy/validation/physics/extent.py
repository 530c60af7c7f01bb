"""Extensivity, parts with ghosts, locality, and smoothness where an atom crosses the cutoff."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.units import Bohr, Hartree

from mlip_deploy.engines import many_evaluator
from mlip_deploy.exporters.parts import enlarged
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Result
from mlip_deploy.validation.case import Case, Check, Context, Outcome, judged
from mlip_deploy.validation.parts import TWICE, parts_with_ghosts
from mlip_deploy.validation.physics.tools import (
    Bounds,
    bounds,
    case,
    evaluate,
    fixture_structures,
    largest,
    lone_atom_bound,
    not_applicable,
    outcome,
    periodic_structure,
    reported,
    tested_elements,
)

REPEATS = ((2, 1, 1), (1, 2, 2))
COULOMB = Hartree * Bohr
"""eV Å: energy of two unit charges, times their distance"""
MARGIN = 1.0
"""Å beyond the interaction range."""


def cases(context: Context) -> list[Case]:
    return [
        case(
            "extensivity",
            "Energies that do not add up: a cell and its supercell, or two bodies out of each other's reach, differ.",
            _extensivity,
        ),
        case(
            "parts with ghosts",
            "Energies that depend on all atoms at once, or on how they are divided: parallel runs go wrong.",
            _parts,
        ),
        case(
            "locality",
            "An atom feels another one beyond the interaction range that the file declares: parallel runs go wrong.",
            _locality,
        ),
        case(
            "smoothness across the cutoff",
            "An energy or a force that jumps when an atom crosses the cutoff: no conservation, no minimisation.",
            _smoothness,
            without_cell=True,
        ),
    ]


def _extensivity(context: Context, progress: Progress) -> Outcome:
    found = fixture_structures(context)
    crystal = periodic_structure(context)
    bodies = {
        name: found[name]
        for name in ("molecule without periodicity", "slab periodic in two directions")
        if name in found
    }
    gap = context.artifact.contract.interaction_range + MARGIN
    pairs = [_beside(atoms, atoms, gap) for atoms in bodies.values()]
    # A mean over the system is the same for two equal bodies.
    stretched = {name: _stretched(atoms) for name, atoms in bodies.items() if not atoms.pbc.any()}
    unlike = [_beside(bodies[name], other, gap) for name, other in stretched.items()]
    many = found["sheared crystal"]
    large = enlarged(many)
    frames = [crystal, *(crystal.repeat(repeat) for repeat in REPEATS), many, large]
    frames += [*bodies.values(), *pairs, *stretched.values(), *unlike]
    progress(f"{len(frames)} structures")
    results = evaluate(context, frames)
    base, replicas = results[0], results[1 : 1 + len(REPEATS)]
    limits = bounds(context, [base])
    checks = []
    for repeat, replica in zip(REPEATS, replicas, strict=True):
        copies = int(np.prod(repeat))
        label = f"supercell {repeat[0]}×{repeat[1]}×{repeat[2]}"
        checks += copies_agree(limits, label, base, replica, copies)
        if base.stress is not None and replica.stress is not None:
            difference = largest(replica.stress - base.stress)
            checks.append(judged(f"{label}: stress", difference, 2 * limits.stress, "eV/Å³", TWICE + limits.remark))
    of_many, of_large, *results = results[1 + len(REPEATS) :]
    label, n_copies = f"supercell of {len(large)} atoms", len(large) // len(many)
    checks += copies_agree(bounds(context, [of_many]), label, of_many, of_large, n_copies)
    if context.engine == "lammps":
        checks += _ranks(context, large, of_large, progress)
    alone = dict(zip(bodies, results, strict=False))
    for (name, one), both in zip(alone.items(), results[len(bodies) :], strict=False):
        checks += copies_agree(bounds(context, [one]), f"two, {gap:.3g} Å apart: {name}", one, both, 2)
    of_unlike = results[2 * len(bodies) :]
    for name, other, both in zip(stretched, of_unlike, of_unlike[len(stretched) :], strict=False):
        one = alone[name]
        limits = bounds(context, [one, other])
        energy = abs(both.energy - one.energy - other.energy) / len(both.forces)
        forces = largest(both.forces - np.concatenate([one.forces, other.forces]))
        label = f"two unlike ones, {gap:.3g} Å apart: {name}"
        checks.append(judged(f"{label}: energy", energy, 2 * limits.energy_per_atom, "eV/atom", TWICE + limits.remark))
        checks.append(judged(f"{label}: forces", forces, 2 * limits.forces, "eV/Å", TWICE + limits.remark))
    return outcome(checks)


def copies_agree(limits: Bounds, label: str, one: Result, many: Result, copies: int) -> list[Check]:
    """Energy and forces of a body that is there several times, against those of one."""
    n = len(many.forces)
    energy = abs(many.energy - copies * one.energy) / n
    forces = largest(many.forces - np.tile(one.forces, (copies, 1)))
    return [
        judged(f"{label}: energy", energy, 2 * limits.energy_per_atom, "eV/atom", TWICE + limits.remark),
        judged(f"{label}: forces", forces, 2 * limits.forces, "eV/Å", TWICE + limits.remark),
    ]


def _ranks(context: Context, atoms: Atoms, one: Result, progress: Progress) -> list[Check]:
    """A large system on two ranks against the same on one."""
    progress(f"{len(atoms)} atoms on two ranks")
    (two,) = many_evaluator("lammps")(context.artifact.path, [atoms], ranks=2, **context.hardware._asdict())
    return copies_agree(bounds(context, [one]), f"{len(atoms)} atoms on two ranks instead of one", one, two, 1)


def _parts(context: Context, progress: Progress) -> Outcome:
    """The model itself on a large crystal, and on parts of it with ghosts, in this process."""
    atoms = enlarged(fixture_structures(context)["sheared crystal"])
    progress(f"{len(atoms)} atoms")
    return outcome([parts_with_ghosts(context.artifact, atoms)])


def _beside(atoms: Atoms, other: Atoms, gap: float) -> Atoms:
    """A body and another one beside it, along the third direction, which is not periodic."""
    direction = np.array([0.0, 0.0, 1.0])
    if atoms.pbc.any():
        direction = np.cross(atoms.cell.array[0], atoms.cell.array[1])
        direction /= np.linalg.norm(direction)
    moved = other.copy()
    moved.positions += direction * (np.max(atoms.positions @ direction) - np.min(other.positions @ direction) + gap)
    both: Atoms = atoms.copy()
    both.extend(moved)
    return both


def _stretched(atoms: Atoms) -> Atoms:
    """The same atoms, 5 % farther apart."""
    other: Atoms = atoms.copy()
    other.positions *= 1.05
    return other


def _zigzag(symbols: list[str], length: float) -> Atoms:
    """A chain without periodicity in which neighbours are bonded, Å."""
    spacing = sum(float(covalent_radii[atomic_numbers[symbol]]) for symbol in (symbols[0], symbols[-1]))
    n = int(np.ceil(length / spacing)) + 1
    positions = [[k * spacing, 0.4 * (-1) ** k, 0.3 * (k % 3)] for k in range(n)]
    return Atoms([symbols[k % len(symbols)] for k in range(n)], positions=positions)


def _locality(context: Context, progress: Progress) -> Outcome:
    """The first atom of a chain moves.

    An atomic energy depends on atoms within the interaction range R; a force is the derivative of the energies of all
    atoms within R, which depend on atoms within R of those: within 2 R in all.
    """
    if context.artifact.contract.positions:
        return not_applicable("the model sees the positions of all atoms, and is meant to feel them from afar")
    reach = context.artifact.contract.interaction_range
    why = "the contract's interaction range is too short"
    if context.artifact.contract.collectives:
        why = "the model sums over all atoms, so that each feels every other one"
    chain = _zigzag(tested_elements(context)[:2], 2.0 * reach + 4.0)
    moved = chain.copy()
    moved.positions[0] += (0.1, 0.25, -0.15)
    progress(f"a chain of {len(chain)} atoms, {np.ptp(chain.positions[:, 0]):.0f} Å long")
    before, after = evaluate(context, [chain, moved])
    limits = bounds(context, [before, after])
    distance = np.minimum(*(np.linalg.norm(a.positions - a.positions[0], axis=1) for a in (chain, moved)))
    change = np.abs(after.forces - before.forces).max(axis=1)
    checks = [
        judged(
            f"change of the forces beyond twice the interaction range ({2 * reach:.3g} Å)",
            largest(change[distance > 2.0 * reach]),
            2 * limits.forces,
            "eV/Å",
            TWICE + limits.remark,
            why,
        ),
    ]
    noise = 2 * limits.forces
    if before.atomic_energies is not None and after.atomic_energies is not None:
        difference = np.abs(after.atomic_energies - before.atomic_energies)
        checks.append(
            judged(
                f"change of atomic energies beyond the interaction range ({reach:.3g} Å)",
                largest(difference[distance > reach]),
                2 * max(limits.atomic_energies, lone_atom_bound(context)),
                "eV",
                TWICE + limits.remark,
                why,
            )
        )
    felt_at_all = float(change[1]) >= 10.0 * noise
    checks.append(
        Check(
            quantity="change of the force on the moved atom's neighbour, which must exceed the threshold",
            value=float(change[1]),
            unit="eV/Å",
            threshold=10.0 * noise,
            source="ten times the noise: where nothing is felt, nothing is shown",
            verdict="pass" if felt_at_all else "fail",
            reason="" if felt_at_all else "the neighbour does not feel the displacement",
        )
    )
    felt = distance[change > noise]
    checks.append(reported("farthest atom whose force changes by more than the noise", largest(felt), "Å"))
    if felt.size and largest(felt) > 0.0:
        checks.append(
            reported(
                f"long range: force between unit charges at {largest(felt):.3g} Å, beyond which nothing is felt",
                COULOMB / largest(felt) ** 2,
                "eV/Å",
                "what a model without electrostatics leaves out at the least; reported, not judged",
            )
        )
    curve = Curve(
        title="What a displacement of one atom changes",
        x_label="distance / Å",
        y_label="log10 of the change of force / eV/Å",
        series=[Series(label="", x=distance[1:].tolist(), y=np.log10(change[1:] + 1e-16).tolist(), style="points")],
    )
    return outcome(checks, curves=[curve])


CROSSING = 1e-3
"""Å on both sides of the cutoff."""
SCAN = tuple(float(t) for t in (*np.linspace(-0.6, -0.05, 12), -CROSSING, CROSSING, 0.05, 0.2))


def _smoothness(context: Context, progress: Progress) -> Outcome:
    """A probe crosses the cutoff of a bonded pair's nearer atom, for each kind of probe and target."""
    cutoff = context.artifact.contract.cutoff
    symbols = tested_elements(context)
    kinds = [(symbols[0], symbols[0])]
    if len(symbols) > 1:
        kinds += [(symbols[0], symbols[1]), (symbols[1], symbols[0]), (symbols[-1], symbols[-1])]
    kinds = list(dict.fromkeys(kinds))
    frames = [approaching(target, probe, cutoff + t) for target, probe in kinds for t in SCAN]
    progress(f"{len(frames)} frames")
    results = evaluate(context, frames)
    checks, series = [], []
    for k, (target, probe) in enumerate(kinds):
        scan = results[k * len(SCAN) : (k + 1) * len(SCAN)]
        checks += _jump(context, f"{probe} towards {target}", scan)
        outside = scan[-1].energy
        series.append(
            Series(
                label=f"{probe} towards {target}",
                x=[cutoff + t for t in SCAN],
                y=[1000.0 * (result.energy - outside) for result in scan],
            )
        )
    curve = Curve(
        title=f"A probe crosses the cutoff ({cutoff:.3g} Å)",
        x_label="distance / Å",
        y_label="energy / meV, zero outside",
        series=series,
    )
    return outcome(checks, curves=[curve])


def approaching(target: str, probe: str, distance: float) -> Atoms:
    """The target, bonded to another atom of its kind behind it, and the probe in front."""
    bond = 2.0 * float(covalent_radii[atomic_numbers[target]])
    return Atoms([target, target, probe], positions=[[0, 0, 0], [-0.8 * bond, 0.6 * bond, 0], [distance, 0, 0]])


def _jump(context: Context, label: str, scan: list[Result]) -> list[Check]:
    """Over 2 CROSSING, energy and forces may change by their noise and by their slopes just inside."""
    limits = bounds(context, scan)
    n = len(scan[0].forces)
    inner, before, after = SCAN.index(-CROSSING) - 1, SCAN.index(-CROSSING), SCAN.index(CROSSING)
    noise = 2 * n * max(limits.energy_per_atom, lone_atom_bound(context))
    slope = max(abs(float(scan[k].forces[2, 0])) for k in (inner, before, after))
    bend = largest(scan[before].forces - scan[inner].forces) / (SCAN[before] - SCAN[inner])
    source = f"noise (twice the fidelity bound) and the slope inside the cutoff, over {2 * CROSSING:g} Å{limits.remark}"
    reason = "the cutoff is cut short: neighbours vanish before their contribution does"
    return [
        judged(
            f"{label}: jump of the energy",
            abs(scan[after].energy - scan[before].energy),
            noise + 2 * slope * CROSSING,
            "eV",
            source,
            reason,
        ),
        judged(
            f"{label}: jump of a force",
            largest(scan[after].forces - scan[before].forces),
            4 * limits.forces + 4 * bend * CROSSING,
            "eV/Å",
            source,
            reason,
        ),
    ]
