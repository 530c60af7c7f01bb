"""Forces and stress are derivatives of the energy, and atomic energies add up to it."""

from __future__ import annotations

import numpy as np

from mlip_deploy.conformance.probe import probe
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.validation.case import Outcome, judged, unmeasured
from mlip_deploy.validation.physics import derivatives
from mlip_deploy.validation.physics.stencil import step_for
from mlip_deploy.validation.physics.tools import largest, outcome

MOST_COORDINATES = 24
ACCURACY = 1e-5
"""of the strongest force: what the noise of two energies may make of a mean force"""
SHORTEST_STEP = 1e-6
"""Å"""


def step_of(trial: Trial) -> float:
    """Å: as short as the noise allows, since atoms cross a cutoff on long paths; the best one where it is too large."""
    noise = trial.energy_noise
    wanted = noise / (4.0 * ACCURACY * largest(trial.base.forces))
    return float(np.clip(wanted, SHORTEST_STEP, max(SHORTEST_STEP, step_for(noise))))


def noise_over(trial: Trial, step: float) -> float:
    """eV, of the energy of the structure: measured, and no less than ACCURACY over a path of this step, in Å."""
    return max(trial.energy_noise, 4.0 * ACCURACY * largest(trial.base.forces) * step)


@probe("forces")
def forces(trial: Trial) -> Outcome:
    """Force components are minus the slope of the energy.

    Up to 24 coordinates move along short paths of nine points, and the work of the served force along each is compared
    with the change of the served energy. Forces that are not the gradient of the energy make no ensemble: dynamics
    heats or cools by itself, and every average is wrong. The threshold is what the noise of two energies makes over the
    path (at least 1e-5 of the strongest force), the noise of the forces, and the error of Simpson's rule by fourth
    differences. The net force must vanish within the noise of all forces.
    """
    atoms = trial.atoms
    step = step_of(trial)
    n = 3 * len(atoms)
    chosen = np.random.default_rng(14).permutation(n)[:MOST_COORDINATES]
    coordinates = sorted(int(k) for k in chosen)
    base, *moved = trial.evaluate([atoms, *derivatives.displacements(atoms, step, coordinates)])
    checks, curve = derivatives.forces(trial.limits, base, moved, step, noise_over(trial, step), coordinates)
    return outcome(checks, curves=[curve])


@probe("stress", engines=("lammps", "ase"))
def stress(trial: Trial) -> Outcome:
    """Six components of the stress are slopes of the energy over strain, in a triclinic cell.

    The cell and the atoms are strained along short paths of nine points, for xx, yy, zz, yz, xz and xy, and the served
    stress, integrated along the path, is compared with the change of the served energy. A virial of the wrong sign, or
    without the part of the neighbours across the boundary, leaves energies and forces right and makes every barostat,
    relaxed cell and elastic constant wrong. The threshold is made as that of the forces, over the volume.
    """
    atoms = trial.atoms
    if not atoms.pbc.all():
        return outcome([unmeasured("stress", "not-applicable", "the structure is not periodic in three directions")])
    if trial.base.stress is None:
        return outcome([unmeasured("stress", "not-supported", "the potential gives no stress")])
    step = derivatives.STRAIN_PER_LENGTH * step_of(trial)
    base, *strained = trial.evaluate([atoms, *derivatives.strains(atoms, step)])
    return outcome(derivatives.stresses(trial.limits, atoms, base, strained, step, noise_over(trial, step_of(trial))))


@probe("atomic-energies", engines=("lammps", "ase"))
def atomic_energies(trial: Trial) -> Outcome:
    """Atomic energies add up to the energy of the structure.

    In LAMMPS they are those of `compute pe/atom`, in ASE those of `get_potential_energies`. Analyses by atom, heat
    fluxes, and `fix gcmc` or group-wise energies read them; a potential that forgets to fill them gives zeros, which
    look like numbers. The threshold is the noise of the energy and of each atomic energy.
    """
    result = trial.base
    if result.atomic_energies is None:
        return outcome([unmeasured("sum of atomic energies", "not-supported", "the potential gives none")])
    total = float(result.atomic_energies.sum())
    n = len(trial.atoms)
    check = judged(
        "sum of atomic energies against the energy",
        abs(total - result.energy) / n,
        2 * trial.limits.energy_per_atom + trial.limits.atomic_energies,
        "eV/atom",
        "noise of the energy and of each atomic energy",
        f"the sum is {total:.9g} eV, the energy {result.energy:.9g} eV",
    )
    return outcome([check])


PROBES = (forces, stress, atomic_energies)
