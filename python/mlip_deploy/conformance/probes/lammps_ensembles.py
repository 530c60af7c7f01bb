"""Averages over long runs in LAMMPS: probes that run when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from mlip_deploy.conformance.lammps import Output, dump
from mlip_deploy.conformance.probe import Probe, probe
from mlip_deploy.conformance.probes.lammps_runs import time_step_of
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.engines.lammps import LAMMPSError
from mlip_deploy.engines.lammps_files import DumpFrame
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Outcome, judged, unmeasured
from mlip_deploy.validation.physics.tools import outcome, reported

KT = 0.025
"""eV (for lj, energies): 290 K"""
SMALLER = 0.99
"""volume of which the pressure is set, in that of the structure"""
STRETCH = 5e-4
"""of lengths, for the slope of the energy"""
BEFORE, STEPS, EVERY = 1000, 4000, 10
BLOCKS = 16
STANDARD_ERRORS = 5.0
"""a mean of 16 blocks is further off once in 6000 runs (Student's t, 15 degrees of freedom)"""


@probe("npt-pressure", engines=("lammps",), thorough=True)
def npt_pressure(trial: Trial) -> Outcome:
    """The mean pressure of a run under `fix npt` is the pressure that was set.

    The pressure that is set is the one at 99 % of the volume and its kinetic part, or 1 % of the bulk modulus where the
    structure is under tension; 1000 steps to get there and 4000 more at 290 K. The pressure at every tenth step is the
    kinetic part, and the slope of the energy of two cells that are larger and smaller by 0.05 % in each direction: the
    virial, which the barostat follows, is not asked. A virial that is right in a first step and wrong later, or that
    misses what happens at a cutoff, gives a density that looks plausible. It runs with --thorough alone. The threshold
    is five standard errors of the mean of 16 blocks, and kT/V, by which the pressures of ensembles of few atoms differ.
    A run that stops fails, if its first step did not.
    """
    atoms = trial.large
    if not atoms.pbc.all():
        return outcome([unmeasured("pressure", "not-applicable", "the structure is not periodic in three directions")])
    smaller = atoms.copy()
    smaller.set_cell(atoms.cell.array * SMALLER ** (1.0 / 3.0), scale_atoms=True)
    static, pressed = slopes(trial, [atoms, smaller])
    change = abs(pressed - static)
    wanted = max(pressed, change) + len(atoms) * KT / smaller.get_volume()
    _run(trial, atoms, wanted, 0)
    try:
        found = _run(trial, atoms, wanted, BEFORE + STEPS)
    except LAMMPSError as error:
        return outcome([unmeasured("run under fix npt", "fail", str(error), source="definition: its first step ran")])
    frames = [frame for frame in found.dumps["npt"] if frame.step > BEFORE]
    pressures = slopes(trial, [frame.atoms for frame in frames]) + [_kinetic(trial, frame) for frame in frames]
    blocks = pressures.reshape(BLOCKS, -1).mean(axis=1)
    uncertainty = float(blocks.std(ddof=1) / np.sqrt(BLOCKS))
    threshold = STANDARD_ERRORS * uncertainty + KT / smaller.get_volume()
    mean = float(pressures.mean())
    if abs(mean - wanted) <= threshold and threshold > 0.5 * change:
        reason = f"the mean has an error of {uncertainty:.2g} eV/Å³, where a change by {change:.2g} must be seen"
        return outcome([unmeasured("mean pressure", "not-tested", reason)])
    return outcome(
        [
            judged(
                "mean pressure against the one that was set",
                abs(mean - wanted),
                threshold,
                "eV/Å³",
                f"{STANDARD_ERRORS:g} standard errors of {BLOCKS} blocks, and kT/V",
                f"{mean:.5g} eV/Å³ where {wanted:.5g} was set",
            ),
            reported("standard error of the mean pressure", uncertainty, "eV/Å³"),
        ]
    )


def slopes(trial: Trial, frames: Sequence[Atoms]) -> Array:
    """-dE/dV of structures that are strained alike in all directions, by energies alone: [frames] eV/Å³."""
    strained = []
    for atoms in frames:
        for sign in (1.0, -1.0):
            strained.append(atoms.copy())
            strained[-1].set_cell((1.0 + sign * STRETCH) * atoms.cell.array, scale_atoms=True)
    energies = np.array([result.energy for result in trial.evaluate(strained)])
    volumes = np.array([atoms.get_volume() for atoms in strained])
    found: Array = -np.diff(energies)[::2] / np.diff(volumes)[::2]
    return found


def _run(trial: Trial, atoms: Atoms, pressure: float, steps: int) -> Output:
    """Under `fix npt` from a Maxwell distribution; energies are asked for at the steps of a dump alone."""
    units, step = trial.lammps.scale, time_step_of(trial)
    temperature = f"{KT / units.boltzmann / units.energy:.6g}"
    bars = f"{pressure / units.energy * units.nktv2p:.9g}"
    body = (
        f"velocity all create {temperature} 4711 mom yes rot no dist gaussian\ntimestep {step:.6g}\n"
        f"fix npt all npt temp {temperature} {temperature} {100 * step:.6g} iso {bars} {bars} {250 * step:.6g}\n"
        f"{dump('npt', EVERY, 'vx vy vz mass')}thermo {BEFORE}\nrun {steps}\n"
    )
    return trial.lammps.deck(atoms, body)


def _kinetic(trial: Trial, frame: DumpFrame) -> float:
    """eV/Å³."""
    units = trial.lammps.scale
    twice = float((frame.columns["mass"][:, None] * frame.vectors("v") ** 2).sum())
    return units.mvv2e * units.energy * twice / (3.0 * float(frame.atoms.get_volume()))


PROBES: tuple[Probe, ...] = (npt_pressure,)
