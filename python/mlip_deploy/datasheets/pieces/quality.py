"""Question 6: forces, properties, conformance, and whether the model knows where it errs."""

from __future__ import annotations

from functools import partial

import numpy as np

from mlip_deploy.artifact.gate import doubts_ignored
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.conformance.conform import conform
from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces import hydrogen_in_iron
from mlip_deploy.datasheets.pieces.labels import MLEARN, SIGNAL, mlearn_forces, relative_error, slope
from mlip_deploy.datasheets.pieces.piece import (
    ENGINE,
    NotApplicableError,
    Piece,
    Subject,
    mean,
    number,
    require_numbers,
    share,
)
from mlip_deploy.domain.fit import LARGE_ERROR, fit_domain
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import temporary_folder
from mlip_deploy.progress import Progress
from mlip_deploy.validation.physics.tools import fixture_structures
from mlip_deploy.validation.properties import cases as property_cases

# ---- forces ---------------------------------------------------------------------------------------------------------


def _forces(subject: Subject, progress: Progress) -> Found:
    structures = mlearn_forces(subject, progress)
    off = np.array([float(np.abs(s.model - s.label).mean()) for s in structures])
    numbers = [mean("force component, mean absolute error", off, "eV/Å")]
    whole = [slope("slope of forces", structures), relative_error("error of forces over the forces", structures)]
    numbers += [one for one in whole if one]
    details = []
    for element in dict.fromkeys(s.element for s in structures):
        of_element = [s for s in structures if s.element == element]
        for words, chosen in (("", of_element), (", in motion", [s for s in of_element if s.state == "AIMD-NVT"])):
            details += [one for one in [slope(f"{element}: slope of forces{words}", chosen)] if one]
    softest = min(details, key=lambda one: one.value)
    return Found(
        said=f"forces are off by {numbers[0].value:.2f} eV/Å and have {100 * numbers[1].value:.0f} % of their size",
        numbers=numbers,
        details=details,
        notes=[f"softest: {softest.quantity}, {softest.value:.2f}"],
    )


# ---- properties -----------------------------------------------------------------------------------------------------


def _recipe(recipe: str, what: str, subject: Subject, progress: Progress) -> Found:
    context = subject.context()
    chosen = [case for case in property_cases(context) if case.name == recipe or case.name.startswith(f"{recipe}-")]
    outcomes = [case.run(context, progress) for case in chosen]
    checks = [check for outcome in outcomes for check in outcome.checks]
    require_numbers(checks)
    numbers, details = [], []
    by_metric: dict[tuple[str, str, bool], list[float]] = {}
    for check in checks:
        if check.value is None:
            continue
        material, _, quantity = check.quantity.partition(": ")
        by_metric.setdefault((quantity, check.unit, check.threshold is not None), []).append(check.value)
        details.append(number(f"{material}: {quantity}", check.value, check.unit))
    for (quantity, unit, is_judged), values in by_metric.items():
        found = mean(f"{quantity}, mean size", np.abs(values), unit)
        numbers.append(found if is_judged else found.model_copy(update={"better": None}))
    judged = [check for check in checks if check.verdict in ("pass", "fail")]
    passed = sum(check.verdict == "pass" for check in judged)
    return Found(
        said=f"{what}: {passed} of {len(judged)} within their thresholds",
        numbers=numbers,
        details=details,
        curves=[curve for outcome in outcomes for curve in outcome.curves],
        notes=[f"no number for {check.quantity}: {check.reason}" for check in checks if check.value is None],
    )


# ---- conformance ----------------------------------------------------------------------------------------------------


def _conformance(subject: Subject, progress: Progress) -> Found:
    atoms = fixture_structures(subject.context())["sheared crystal"]
    threads, device = subject.hardware

    def calculator() -> MLIPCalculator:
        with doubts_ignored():
            return MLIPCalculator(subject.artifact.path, device=device, threads=threads)

    found = conform(ENGINE, calculator, atoms, out=subject.directory, progress=progress)
    verdicts = found.verdicts()
    counted = [name for name, verdict in verdicts.items() if verdict in ("pass", "refused", "expected-fail", "fail")]
    failed = [name for name in counted if verdicts[name] == "fail"]
    return Found(
        said=f"{len(counted) - len(failed)} of {len(counted)} probes of conformance pass",
        numbers=[share("probes of conformance that pass", len(counted) - len(failed), len(counted))],
        notes=[found.summary(), *(f"fails: {name}" for name in failed)],
    )


# ---- grades ---------------------------------------------------------------------------------------------------------


def _grades(subject: Subject, progress: Progress) -> Found:
    if subject.artifact.contract.features is None:
        raise NotApplicableError("the file has no features, on which grades live")
    sets = [f"mlearn-{symbol}" for symbol in MLEARN if symbol in subject.elements]
    if not sets:
        raise NotApplicableError(f"elements: the model knows none of {', '.join(MLEARN)}")
    threads, device = subject.hardware
    with temporary_folder("mlip-datasheet-") as folder:
        copy = folder / subject.artifact.path.name
        head = fit_domain(subject.artifact.path, sets, output=copy, device=device, threads=threads, progress=progress)
    if head.shown is None or head.shown.auroc is None:
        raise MLIPError(f"no atom has an error above {LARGE_ERROR:g} eV/Å, or all have: nothing to rank")
    return Found(
        said=f"grades rank large errors of forces with an AUROC of {head.shown.auroc:.2f}",
        numbers=[
            number("AUROC of the grade for large errors of forces", head.shown.auroc, "", "high", head.shown.frames),
            number(f"atoms with an error above {LARGE_ERROR:g} eV/Å", head.shown.large, "", "low", head.shown.frames),
        ],
        notes=[head.shown.describe()],
    )


RECIPES = {
    # recipe: in words, what is left open, seconds
    "eos": ("equations of state", "compounds", 15),
    "elastic": ("elastic moduli", "single constants, other crystals", 15),
    "phonons": ("phonons", "whole dispersions against experiment, compounds", 10),
    "vacancy": ("vacancies", "other elements, compounds, migration", 15),
    "surface": ("surfaces", "other faces, reconstructions, compounds", 10),
    "liquid": ("a liquid", "other liquids; diffusion coefficients, which need longer runs", 30),
}

PIECES = [
    Piece(
        name="forces",
        question=6,
        measures=f"forces of mlearn's test frames ({', '.join(MLEARN)}) against PBE; a slope, of structures with "
        f"forces of {SIGNAL:g} eV/Å at least, below 1 is softening",
        not_tested="compounds",
        measure=_forces,
        seconds=10,
    ),
    *(
        Piece(
            name=name,
            question=6,
            measures=f"{words} (recipe {name} of the suite properties)",
            not_tested=not_tested,
            measure=partial(_recipe, name, words),
            seconds=seconds,
        )
        for name, (words, not_tested, seconds) in RECIPES.items()
    ),
    hydrogen_in_iron.PIECE,
    Piece(
        name="conformance",
        question=6,
        measures="what every potential must obey behind an ASE calculator (mlip conform)",
        not_tested="LAMMPS and OpenMM: mlip conform lammps",
        measure=_conformance,
        seconds=30,
    ),
    Piece(
        name="grades",
        question=6,
        measures="does the grade of an atom tell large errors of its force? Domain and errors: mlearn, cross-validated "
        "(mlip domain fit)",
        not_tested="atoms of other sets",
        measure=_grades,
        seconds=20,
    ),
]
