"""What a step of molecular dynamics costs in each engine: time and memory, for structures of growing size.

These are the only numbers of a report that differ from run to run and from machine to machine. So they are judged by
nothing, stand in timing.json and not in validation.json, and are marked in the page (see `report.reproducible`).
`mlip bench` measures more carefully, and compares.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_deploy.bench.measure import in_process, peak_memory
from mlip_deploy.bench.report import machine
from mlip_deploy.engines import ENGINES, missing
from mlip_deploy.files import temporary_folder
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.case import Case, Check, Context, Outcome, unmeasured
from mlip_deploy.validation.physics.tools import fixture_structures, reported

SUITE = "cost"
REPEATS = ((1, 1, 1), (2, 1, 1), (2, 2, 2))
"""of the sheared crystal of the fixtures"""
WARM_UP, STEPS = 2, 3
TIMESTEP = 0.5  # fs
PURPOSE = "Which simulations are within reach?"


def cases(context: Context) -> list[Case]:
    return [Case(SUITE, "time and memory", PURPOSE, _run)]


def _run(context: Context, progress: Progress) -> Outcome:
    crystal = fixture_structures(context)["sheared crystal"]
    frames = [crystal.repeat(repeat) for repeat in REPEATS]
    sizes = [len(atoms) for atoms in frames]
    threads = max(1, context.hardware.threads)
    checks: list[Check] = []
    series: list[Series] = []
    for engine in ENGINES:
        if reason := missing(engine):
            checks.append(unmeasured(f"{engine}: one step", "not-tested", reason))
            continue
        progress(f"{engine}: {', '.join(map(str, sizes))} atoms, {STEPS} steps each")
        # A process of its own for each engine: its peak of memory is that of no other.
        measured = in_process(measure, engine, context.artifact.path, frames, threads)
        seconds, peaks = zip(*measured, strict=True)
        milliseconds = [1000.0 * value for value in seconds]
        per_atom = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        checks += [
            reported(f"{engine}: one step of {sizes[-1]} atoms", milliseconds[-1], "ms"),
            reported(f"{engine}: one step, per atom", milliseconds[-1] / sizes[-1], "ms"),
            reported(f"{engine}: growth of the peak of memory, per atom", 1e-6 * per_atom, "MB"),
        ]
        series.append(Series(label=engine, x=[float(size) for size in sizes], y=milliseconds))
    found = machine()
    return Outcome(
        suite=SUITE,
        case="time and memory",
        engine=", ".join(ENGINES),
        purpose=PURPOSE,
        checks=checks,
        curves=[
            Curve(
                title="Cost of a step",
                x_label="atoms",
                y_label="ms per step",
                series=series,
                logarithmic=True,
            )
        ],
        notes=[
            f"Measured on {found['processor']} ({found['instruction_set']}, {found['cores']} cores), torch "
            f"{found['torch']}, {threads} thread(s): velocity Verlet, mean of {STEPS} steps. Other programs on the "
            f"machine slow it down."
        ],
    )


def measure(engine: str, path: Path, frames: list[Atoms], threads: int) -> list[tuple[float, int]]:
    """Seconds per step and peak memory in bytes for each structure. Meant for a fresh process."""
    step = {"ase": _ase, "lammps": _lammps, "openmm": _openmm}[engine]
    found = []
    for atoms in frames:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, such as that of importing libraries
        found.append((step(path, atoms, threads), peak_memory()))
    return found


def _ase(path: Path, atoms: Atoms, threads: int) -> float:
    from ase.md.verlet import VelocityVerlet
    from ase.units import fs

    from mlip_deploy.artifact.gate import doubts_ignored
    from mlip_deploy.ase import MLIPCalculator

    atoms = atoms.copy()
    with doubts_ignored():
        atoms.calc = MLIPCalculator(path, threads=threads)
    dynamics = VelocityVerlet(atoms, TIMESTEP * fs)
    dynamics.run(WARM_UP)
    start = time.perf_counter()
    dynamics.run(STEPS)
    return (time.perf_counter() - start) / STEPS


DECK = """\
units           metal
atom_style      atomic
box             tilt large
read_data       {data}
pair_style      mlip threads {threads}
pair_coeff      * * "{path}" {elements}
timestep        {timestep}
fix             nve all nve
run             {warm_up} post no
"""


def _lammps(path: Path, atoms: Atoms, threads: int) -> float:
    from mlip_deploy.engines.lammps import instance
    from mlip_deploy.engines.lammps_files import link_model, write_data

    lammps = instance()
    with temporary_folder("mlip-cost-") as directory:
        data = directory / "data.lammps"
        frame = write_data(atoms, data)
        lammps.commands_string(
            DECK.format(
                data=data,
                threads=threads,
                path=link_model(path, directory),
                elements=" ".join(frame.elements),
                timestep=0.001 * TIMESTEP,
                warm_up=WARM_UP,
            )
        )
        start = time.perf_counter()
        lammps.command(f"run {STEPS} pre no post no")
        seconds = time.perf_counter() - start
    lammps.close()
    return seconds / STEPS


def _openmm(path: Path, atoms: Atoms, threads: int) -> float:
    import openmm

    from mlip_deploy.engines.openmm import context_of
    from mlip_deploy.engines.openmm_box import in_reduced_box

    rotated, _ = in_reduced_box(atoms)
    context = context_of(rotated, path, openmm.VerletIntegrator(0.001 * TIMESTEP), threads)
    context.setVelocities(np.zeros((len(atoms), 3)))
    context.getIntegrator().step(WARM_UP)
    start = time.perf_counter()
    context.getIntegrator().step(STEPS)
    return (time.perf_counter() - start) / STEPS
