"""Question 1: does the model hold for all of its elements, and away from the crystals that it learnt from?"""

from __future__ import annotations

import numpy as np
from ase.collections import dcdft
from ase.eos import birchmurnaghan
from ase.units import GPa

from mlip_deploy.datasheets.evidence import Found, Number
from mlip_deploy.datasheets.pieces import compositions
from mlip_deploy.datasheets.pieces.labels import SIGNAL, mlearn_forces, relative_error
from mlip_deploy.datasheets.pieces.piece import (
    NotApplicableError,
    Piece,
    Subject,
    mean,
    median,
    number,
    run_case,
    share,
)
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.readers import Labelled, read_set
from mlip_deploy.reference_data.statistics import bootstrap, errors
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.physics import dimers, elements
from mlip_deploy.validation.properties.eos import fit, reference_crystal
from mlip_deploy.validation.properties.recipe import UnfinishedError

# ---- elements and pairs: the physics suite --------------------------------------------------------------------------


def _elements(subject: Subject, progress: Progress) -> Found:
    context = subject.context()
    checks = run_case(elements.cases(context), "every element", context, progress).checks
    failed = [check.quantity.partition(":")[0] for check in checks if check.verdict != "pass"]
    passed = len(checks) - len(failed)
    return Found(
        said=f"{passed} of its {len(checks)} elements pass the test of forces against energies",
        numbers=[share("elements that pass the physics suite", passed, len(checks))],
        notes=[f"do not pass: {', '.join(failed)}"] if failed else [],
    )


def _pairs(subject: Subject, progress: Progress) -> Found:
    context = subject.context()
    outcome = run_case(dimers.cases(context), "dimers", context, progress)
    by_pair = [check for check in outcome.checks if "share of the distances up to" in check.quantity]
    walls = [check for check in outcome.checks if "with each other element" in check.quantity]
    repelling = sum(check.verdict == "pass" for check in by_pair)
    numbers = [share("element pairs that repel each other close up, of those with a curve", repelling, len(by_pair))]
    if walls:
        attracting = float(np.mean([check.value for check in walls if check.value is not None]))
        n = len(walls) * (len(walls) - 1) // 2
        numbers.append(
            number("close distances of different elements at which they repel", 1 - attracting, "", "high", n)
        )
    numbers += [
        number("highest hump of a dimer in reach", check.value, "eV", "low")
        for check in outcome.checks
        if check.quantity.startswith("highest hump") and check.value is not None
    ]
    return Found(
        said=f"{repelling} of {len(by_pair)} dimers have a wall at short distances",
        numbers=numbers,
        details=[number(check.quantity, check.value, check.unit, "low") for check in walls if check.value is not None],
        curves=outcome.curves,
    )


# ---- away from equilibrium ------------------------------------------------------------------------------------------

COMPRESSED = 0.8
"""of the equilibrium volume"""


def _compression(subject: Subject, progress: Progress) -> Found:
    symbols = [symbol for symbol in dcdft.names if symbol in subject.elements]
    if not symbols:
        raise NotApplicableError("elements: the model knows none of the Δ project's")
    calculator = subject.setting(progress).calculator()
    label, model, details, left_out = [], [], [], []
    for symbol in symbols:
        progress(symbol)
        reference = dcdft.data[symbol]
        v0, modulus, derivative = (reference[f"wien2k_{key}"] for key in ("volume", "B", "Bp"))
        crystal = reference_crystal(symbol)
        try:
            volume = fit(crystal, calculator).volume
        except UnfinishedError as error:
            left_out.append(f"{symbol}: {error}")
            continue
        energies = []
        for part in (1.0, COMPRESSED):
            strained = crystal.copy()
            scale = (part * volume * len(crystal) / crystal.get_volume()) ** (1 / 3)
            strained.set_cell(crystal.cell.array * scale, scale_atoms=True)
            strained.calc = calculator
            energies.append(strained.get_potential_energy() / len(crystal))
        label.append(float(birchmurnaghan(COMPRESSED * v0, 0.0, modulus * GPa, derivative, v0)))
        model.append(energies[1] - energies[0])
        details.append(number(f"{symbol}: compression energy over that of PBE", model[-1] / label[-1]))
    if not label:
        raise MLIPError(f"no crystal of an element has an equation of state ({left_out[0]})")
    x, y = np.array(label), np.array(model)
    deviations = 100.0 * np.abs(y / x - 1.0)
    return Found(
        said=f"compression to {100 * COMPRESSED:g} % of the volume costs {errors(x, y).slope:.2f} of what it should",
        numbers=[
            median(f"energy of compression to {100 * COMPRESSED:g} % volume, deviation", deviations, "%"),
            Number(
                quantity="energy of compression, slope through zero",
                value=errors(x, y).slope,
                interval=bootstrap(len(x), lambda k: errors(x[k], y[k]).slope),
                n=len(x),
            ),
        ],
        details=details,
        curves=[
            Curve(
                title=f"Energy of compression to {100 * COMPRESSED:g} % volume",
                x_label="WIEN2k PBE, Birch-Murnaghan / eV per atom",
                y_label="model / eV per atom",
                series=[Series(label="", x=label, y=model, style="points")],
                diagonal=True,
            )
        ],
        notes=[f"without an equation of state: {words}" for words in left_out],
    )


STATES = {"AIMD-NVT": "crystals and liquids in motion", "Vacancy": "vacancies", "Surface": "surfaces",
          "Elastic": "strained crystals"}  # fmt: skip


def _phases(subject: Subject, progress: Progress) -> Found:
    structures = mlearn_forces(subject, progress)
    numbers = [
        found
        for state, words in STATES.items()
        if (
            found := relative_error(
                f"error of forces over the forces, {words}", [s for s in structures if s.state == state]
            )
        )
    ]
    worst = max(numbers, key=lambda one: one.value)
    state = worst.quantity.rpartition(", ")[2]
    return Found(said=f"forces are off by up to {100 * worst.value:.0f} % ({state})", numbers=numbers)


# ---- molecules ------------------------------------------------------------------------------------------------------

BOND_ERROR = 0.1  # Å


def _bonds(subject: Subject, progress: Progress) -> Found:
    curves: dict[str, list[Labelled]] = {}
    for labelled in read_set("diatomics-PBE"):
        if subject.elements.issuperset(labelled.atoms.get_chemical_symbols()):
            curves.setdefault(labelled.name.split(" ")[0], []).append(labelled)
    calculator = subject.setting(progress).calculator()
    differences, unbound, details = [], [], []
    for pair, frames in curves.items():
        progress(pair)
        r = np.array([labelled.atoms.get_distance(0, 1) for labelled in frames])
        label = _bond(r, np.array([labelled.energies["raw"] for labelled in frames]))
        if label is None:
            continue
        energies = []
        for labelled in frames:
            atoms = labelled.atoms.copy()
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
        near = np.abs(r - label) < 1.0
        found = _bond(r[near], np.array(energies)[near])
        if found is None:
            unbound.append(pair)
            continue
        differences.append(found - label)
        details.append(number(f"{pair}: bond length, difference", found - label, "Å"))
    if not differences:
        raise MLIPError("no dimer of the model's elements has a bond within 1 Å of PBE's")
    off: Array = np.abs(differences)
    n = len(off) + len(unbound)
    good = int((off <= BOND_ERROR).sum())
    return Found(
        said=f"{good} of {n} molecules of two equal atoms have their bond within {BOND_ERROR:g} Å",
        numbers=[
            share(f"dimers with PBE's bond length within {BOND_ERROR:g} Å", good, n),
            mean("bond length of dimers, mean absolute error", off, "Å"),
        ],
        details=details,
        notes=[f"no minimum within 1 Å of PBE's bond: {', '.join(unbound)}"] if unbound else [],
    )


def _bond(r: Array, energies: Array) -> float | None:
    """Å: the lowest point of the parabola through the lowest energy and its neighbours; None at an end."""
    k = int(np.argmin(energies)) if len(r) else 0
    if k in (0, len(r) - 1) or not len(r):
        return None
    a, b, _ = np.polyfit(r[k - 1 : k + 2], energies[k - 1 : k + 2], 2)
    return float(-b / (2 * a))


PIECES = [
    Piece(
        name="elements",
        question=1,
        measures="force against slope of the energy in a rattled crystal of each element (suite physics)",
        not_tested="compounds; elements in other charge states",
        measure=_elements,
        seconds=10,
    ),
    Piece(
        name="pairs",
        question=1,
        measures="dimers of each element, and each element with each other one close up (suite physics)",
        not_tested="whole curves of different elements",
        measure=_pairs,
        seconds=90,
    ),
    compositions.PIECE,
    Piece(
        name="compression",
        question=1,
        measures=f"elements of the Δ project at {100 * COMPRESSED:g} % of their volume, against WIEN2k PBE's "
        "Birch-Murnaghan equation of state",
        not_tested="compounds; the equation of state is extrapolated from ±6 %",
        measure=_compression,
        seconds=10,
    ),
    Piece(
        name="phases",
        question=1,
        measures="root mean square error of forces over that of the labels, mlearn's four elements; structures with "
        f"forces of {SIGNAL:g} eV/Å at least",
        not_tested="compounds, molecules in liquids",
        measure=_phases,
        seconds=10,
    ),
    Piece(
        name="bonds",
        question=1,
        measures="bond lengths of homonuclear dimers against PBE (set diatomics-PBE)",
        not_tested="molecules of more atoms, angles",
        measure=_bonds,
        seconds=30,
    ),
]
