"""Molecular dynamics in each engine keeps the energy.

Velocity Verlet conserves the energy up to an oscillation that falls as the square of the time step. What is left of the
change of energy when the time step goes to zero, extrapolated from two steps, is an error of the forces. Where atoms
collide, the square holds at shorter time steps alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import Atoms

from mlip_deploy.files import temporary_folder
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Case, Check, Context, Outcome, judged
from mlip_deploy.validation.physics.tools import bounds, case, outcome, periodic_structure, reported

STEPS = 100
"""of the longer time step; twice as many of half its length"""
LARGEST = 1.0
"""meV/atom: of a larger change of energy the error is not of the next order alone, and both time steps are halved"""
HALVINGS = 3
"""at most"""
LEFT_OVER = 0.15
"""Share of the oscillation that may remain: the next order is (ω Δt)² / 4 of it for Verlet, and ω Δt < 0.6 for the time
step below and the stiffest bond."""
SOURCE = (
    f"{LEFT_OVER:g} of the largest change of energy at the longer step (velocity Verlet's error falls as the square "
    "of the step; the next order is that small) and twice the fidelity bound of the energy"
)


def cases(context: Context) -> list[Case]:
    purpose = "A drift of the energy heats the system: forces that are cut, noisy or not the energy's gradient."
    return [
        case(f"dynamics in {engine}", purpose, _body(simulate), engine)
        for engine, simulate in (("lammps", simulate_lammps), ("openmm", simulate_openmm))
    ]


Simulate = Callable[[Context, Atoms, float, int], Array]


def _body(simulate: Simulate) -> Callable[[Context, Progress], Outcome]:
    def run(context: Context, progress: Progress) -> Outcome:
        atoms = periodic_structure(context)
        step = time_step(atoms)
        progress(f"{len(atoms)} atoms, {STEPS} steps of {1000 * step:.2g} fs, {2 * STEPS} of half of it")
        runs = two_time_steps(atoms, lambda step, n_steps: simulate(context, atoms, step, n_steps))
        checks, curve = energy_kept(bounds(context).energy_per_atom, len(atoms), runs)
        return outcome(checks, curves=[curve])

    return run


def time_step(atoms: Atoms) -> float:
    """ps: 1 fs for carbon and heavier atoms, less for lighter ones."""
    return 0.001 * min(1.0, float(np.sqrt(atoms.get_masses().min() / 12.0)))


class TwoTimeSteps(NamedTuple):
    """Total energies of the same dynamics with a time step and with half of it, at the same times."""

    step: float
    """ps, the longer one"""
    interval: float
    """ps, between two energies"""
    coarse: Array
    """[STEPS + 1] eV, with the longer time step"""
    fine: Array
    """[STEPS + 1] eV, with half of it"""


def two_time_steps(atoms: Atoms, energies: Callable[[float, int], Array]) -> TwoTimeSteps:
    """Run dynamics with two time steps, both short enough for what is judged of them.

    Args:
        energies: (time step in ps, n_steps) -> [n_steps + 1] eV, total energy of each step, from the same start.
    """
    interval, halves = time_step(atoms), 1
    coarse, fine = energies(interval, STEPS), energies(interval / 2, 2 * STEPS)[::2]
    while np.abs(coarse - coarse[0]).max() > 0.001 * LARGEST * len(atoms) and halves < 2**HALVINGS:
        halves *= 2
        coarse, fine = fine, energies(interval / (2 * halves), 2 * halves * STEPS)[:: 2 * halves]
    return TwoTimeSteps(interval / halves, interval, coarse, fine)


def energy_kept(energy_noise: float, n_atoms: int, runs: TwoTimeSteps) -> tuple[list[Check], Curve]:
    """Judge the total energy of dynamics with two time steps.

    Args:
        energy_noise: eV/atom
    """
    step = runs.step
    change, half = (1000.0 * (energy - energy[0]) / n_atoms for energy in (runs.coarse, runs.fine))
    left = (4.0 * half - change) / 3.0
    noise = 1000.0 * energy_noise
    oscillation = float(np.abs(change).max())
    times = runs.interval * np.arange(len(change))
    checks = [
        judged(
            "change of the total energy, extrapolated to a time step of zero",
            float(np.abs(left).max()),
            LEFT_OVER * oscillation + 2.0 * noise,
            "meV/atom",
            SOURCE,
            f"the change is {oscillation:.3g} meV/atom at {1000 * step:.2g} fs, {np.abs(half).max():.3g} at half of it",
        ),
        reported(f"largest change at {1000 * step:.2g} fs", oscillation, "meV/atom"),
        reported(
            "slope of the total energy at half the time step", float(np.polyfit(times, half, 1)[0]), "meV/atom/ps"
        ),
    ]
    curve = Curve(
        title="Total energy",
        x_label="time / ps",
        y_label="change / meV/atom",
        series=[
            Series(label=f"{1000 * step:.3g} fs", x=times.tolist(), y=change.tolist()),
            Series(label=f"{500 * step:.3g} fs", x=times.tolist(), y=half.tolist()),
            Series(label="extrapolated to 0", x=times.tolist(), y=left.tolist()),
        ],
    )
    return checks, curve


def simulate_lammps(context: Context, atoms: Atoms, step: float, n_steps: int) -> Array:
    """Total energy (eV) of each step, from rest."""
    from mlip_deploy.engines.lammps import run
    from mlip_deploy.engines.lammps_files import link_model, write_data

    with temporary_folder("mlip-dynamics-") as directory:
        frame = write_data(atoms, directory / "data.lammps")
        script = DECK.format(
            device=context.hardware.device,
            threads=max(1, context.hardware.threads),
            path=link_model(context.artifact.path, directory).name,
            elements=" ".join(frame.elements),
            step=step,
            n_steps=n_steps,
        )
        output = run(script, directory)
    rows = re.findall(r"^ +\d+ +(-?[\d.]+(?:e[-+]\d+)?) *$", output, flags=re.MULTILINE)
    return np.array([float(value) for value in rows])


DECK = """\
units           metal
atom_style      atomic
box             tilt large
read_data       data.lammps
pair_style      mlip device {device} threads {threads}
pair_coeff      * * "{path}" {elements}
timestep        {step:.17g}
fix             nve all nve
thermo          1
thermo_style    custom step etotal
thermo_modify   format float %.17g
run             {n_steps}
"""


def simulate_openmm(context: Context, atoms: Atoms, step: float, n_steps: int) -> Array:
    """The same with MLIPForce."""
    import openmm

    from mlip_deploy.engines.openmm import context_of, total_energies
    from mlip_deploy.engines.openmm_box import in_reduced_box
    from mlip_deploy.errors import MLIPError

    rotated, _ = in_reduced_box(atoms)
    integrator = openmm.VerletIntegrator(step)
    try:
        return total_energies(
            context_of(rotated, context.artifact.path, integrator, **context.hardware._asdict()), n_steps
        )
    except openmm.OpenMMException as error:
        raise MLIPError(str(error)) from error
