"""Runs in LAMMPS: what a potential gave on the way is what it gives for the same positions in a new run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlip_deploy.conformance.lammps import COMPUTES, Output, dump, state
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.trial import SOURCE, Trial
from mlip_deploy.engines.lammps_files import DumpFrame
from mlip_deploy.result import Result
from mlip_deploy.validation.case import Check, Outcome, judged
from mlip_deploy.validation.physics.dynamics import time_step
from mlip_deploy.validation.physics.tools import largest, outcome

KT = 0.1
"""eV (for lj, energies): 1160 K, at which atoms enter and leave each other's reach within a hundred steps"""
FRESH = f"{SOURCE}; the same positions in a new run"
SKIN = 0.3
"""Å: a thin skin, so that the neighbour list is built anew several times in a short run"""


def time_step_of(trial: Trial) -> float:
    """In the unit of time of the target: 1 fs, less for light atoms."""
    return time_step(trial.atoms) / 1e-3 * trial.lammps.scale.femtosecond


def hot(trial: Trial) -> str:
    """Commands that give the atoms velocities and choose a time step."""
    temperature = KT / trial.lammps.scale.boltzmann / trial.lammps.scale.energy
    return (
        f"velocity all create {temperature:.6g} 4711 mom yes rot no dist gaussian\ntimestep {time_step_of(trial):.6g}\n"
    )


def barostat(trial: Trial) -> str:
    """A command that lets all components of the cell that it has move."""
    couple = "tri" if trial.large.cell.array[np.tril_indices(3, -1)].any() else "aniso"
    return f"fix nph all nph {couple} 0.0 0.0 {1000 * time_step_of(trial):.6g}\n"


def refreshed(trial: Trial, frames: Sequence[DumpFrame]) -> list[Result]:
    """What the potential gives for the positions of frames, in a process that knows nothing of the run."""
    return trial.evaluate([frame.atoms for frame in frames])


def replayed(trial: Trial, label: str, found: Output, name: str) -> list[Check]:
    """Forces and atomic energies of the frames of a dump against those of a new run."""
    frames = found.dumps[name]
    checks = []
    for frame, fresh in zip(frames, refreshed(trial, frames), strict=True):
        forces = frame.vectors("f") * trial.lammps.scale.energy
        text = f"{label}, step {frame.step}: "
        limit = 2 * trial.limits.forces
        checks.append(judged(f"{text}forces", largest(forces - fresh.forces), limit, "eV/Å", FRESH))
        energies = frame.columns.get("c_conform_energy")
        if energies is not None and fresh.atomic_energies is not None:
            difference = largest(energies * trial.lammps.scale.energy - fresh.atomic_energies)
            limit = 2 * trial.limits.atomic_energies
            checks.append(judged(f"{text}atomic energies", difference, limit, "eV", FRESH))
    return checks


def replayed_states(trial: Trial, label: str, found: Output, names: Sequence[str]) -> list[Check]:
    """Everything that `state` reported against a new run."""
    snapshots = [found.snapshot(name) for name in names]
    fresh = trial.evaluate([snapshot.atoms for snapshot in snapshots])
    return [
        check
        for name, snapshot, result in zip(names, snapshots, fresh, strict=True)
        for check in trial.agreement(f"{label}{name}", snapshot.result, result, source=FRESH)
    ]


@probe("dynamics", engines=("lammps",))
def dynamics(trial: Trial) -> Outcome:
    """Forces in the middle of a run are those of the same positions in a new run.

    100 steps at 1160 K with a thin skin, so that neighbour lists are rebuilt and atoms enter and leave each other's
    reach, then 30 steps under a barostat; forces and atomic energies are dumped on the way. A neighbour list, a graph
    or a cell that is not renewed gives a trajectory that looks stable and is wrong. The threshold is twice the noise.
    """

    def nve() -> list[Check]:
        body = (
            f"neighbor {SKIN} bin\nneigh_modify delay 0 every 1 check yes\n"
            + hot(trial)
            + "fix nve all nve\nthermo 50\n"
            + dump("forces", 33, "fx fy fz")
            + dump("energies", 50)
            + "run 100\n"
        )
        found = trial.lammps.deck(trial.large, body)
        return replayed(trial, "NVE", found, "forces") + replayed(trial, "NVE", found, "energies")

    def breathing() -> list[Check]:
        body = hot(trial) + barostat(trial) + dump("breathing", 15, "fx fy fz") + "thermo 30\nrun 30\n"
        return replayed(trial, "NPH", trial.lammps.deck(trial.large, body), "breathing")

    checks = attempt("NVE", nve)
    if trial.atoms.pbc.all():
        checks += attempt("NPH", breathing)
    return outcome(checks)


@probe("second-run", engines=("lammps",))
def second_run(trial: Trial) -> Outcome:
    """After any command between runs the potential gives what a new run gives.

    In one process: `run 0`, `run 0` again, a run, `minimize`, a run, atoms displaced, the box scaled, atoms deleted,
    each followed by `run 0`, and each compared with a process that starts from those positions. What a potential keeps
    from the last run (a list, a size, a cell, a zero energy in `minimize`) is still there in the next one. The
    threshold is twice the noise.
    """
    body = state("first") + state("again") + hot(trial) + "fix nve all nve\nrun 10 post no\n" + state("run")
    body += "minimize 0.0 1e-3 5 20\n" + state("minimized") + "run 10 post no\n" + state("continued")
    body += "displace_atoms all random 0.1 0.1 0.1 4711\n" + state("displaced")
    names = ["first", "again", "run", "minimized", "continued", "displaced"]
    if trial.atoms.pbc.all():
        body += "change_box all x scale 1.01 z scale 0.99 remap\n" + state("scaled")
        names.append("scaled")
    body += "delete_atoms random fraction 0.2 yes all NULL 4711 compress no\n" + state("deleted")
    found = trial.lammps.deck(trial.large, body)
    checks = replayed_states(trial, "", found, [*names, "deleted"])
    # the energy that a run printed at its end, against the `run 0` after it
    for number, name in ((2, "run"), (4, "minimized"), (6, "continued")):
        printed = float(found.thermo(number)["PotEng"][-1]) * trial.lammps.scale.energy
        energy = found.snapshot(name).result.energy
        limit = 2 * trial.limits.energy_per_atom * len(trial.large)
        reason = f"{printed:.9g} eV where {energy:.9g} eV is right"
        checks.append(judged(f"{name}: energy at the end", abs(printed - energy), limit, "eV", SOURCE, reason))
    return outcome(checks)


@probe("restart", engines=("lammps",))
def restart(trial: Trial) -> Outcome:
    """A run that continues from a restart file is the run that was not interrupted.

    10 steps, `write_restart`, 10 more; then `clear`, `read_restart`, the same commands of the potential, and 10 steps.
    The threshold is twice the noise; ten steps do not amplify it.
    """
    target = trial.lammps
    before = "\n".join([*target.commands_given.before(units=target.units).before_box, "box tilt large"])
    again = f"fix nve all nve\nrun 10 post no\n{state('X')}"
    body = (
        hot(trial)
        + "fix nve all nve\nrun 10 post no\nwrite_restart half.restart\nrun 10 post no\n"
        + state("uninterrupted")
        + f"clear\n{before}\nread_restart half.restart\n"
        + "\n".join(target.commands_given.after_box)
        + f"\n{COMPUTES}timestep {time_step_of(trial):.6g}\n"
        + again.replace("X", "restarted")
    )
    found = target.deck(trial.large, body)
    one, two = found.snapshot("uninterrupted"), found.snapshot("restarted")
    return outcome(trial.agreement("restarted", two.result, one.result))


@probe("rerun", engines=("lammps",))
def rerun(trial: Trial) -> Outcome:
    """A trajectory that is read back gives the energies and forces of its positions.

    20 steps at 1160 K, 20 more with the same numbers, which are dumped; `rerun` reads these back in the same process,
    as is done to compute pressures, fluxes or another potential's energies afterwards. Its forces and atomic energies
    are compared with those of the same positions in a new run. Steps come again here and atoms jump between them: what
    a potential keeps by the number of the step, or expects of its last call, is wrong. The threshold is twice the
    noise.
    """
    body = (
        hot(trial)
        + "fix nve all nve\nrun 20 post no\nreset_timestep 0\n"
        + dump("trajectory", 10, "vx vy vz fx fy fz")
        + "run 20 post no\nundump trajectory\nunfix nve\nthermo 10\n"
        + dump("again", 10)
        + "rerun trajectory.dump dump x y z\n"
    )
    found = trial.lammps.deck(trial.large, body)
    return outcome(replayed(trial, "rerun", found, "again"))


PROBES: tuple[Probe, ...] = (dynamics, second_run, restart, rerun)
