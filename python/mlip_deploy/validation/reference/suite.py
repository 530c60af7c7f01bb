"""Reference data: energies, forces and stresses of the artifact, in its engine, against labels of another method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.close_atoms import close_atoms
from mlip_deploy.engines import evaluator
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.datasets import DATASETS
from mlip_deploy.reference_data.readers import Labelled, read_extxyz, read_set
from mlip_deploy.reference_data.statistics import Errors, errors, fit_shifts, vector_errors
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Case, Check, Context, Hardware, Outcome, judged
from mlip_deploy.validation.reference import forgetting
from mlip_deploy.validation.reference.frames import (
    AS_IS,
    NO_FORCES,
    Agreement,
    agree,
    parse_request,
)
from mlip_deploy.validation.reference.labels import RELATED, relation_checks

SUITE = "reference"
ENERGY_THRESHOLD = 0.043
ENERGY_SOURCE = "1 kcal/mol per atom, called chemical accuracy"
SLOPE_THRESHOLD = 0.2
SLOPE_SOURCE = (
    "choice of this project, to show the softening described by Deng et al., doi:10.1038/s41524-024-01500-6 (2025)"
)
SLOPE_SIGNAL = 0.1
"""eV/Å, root mean square of the labels' force components: a slope says nothing where symmetry leaves no forces"""
REPORTED = "reported, not judged"
CLOSE_ATOMS = "frames with atoms on top of each other"
PARITY_POINTS = 2000
"""a plot does not become clearer with more"""


@dataclass(frozen=True)
class Reference:
    """Labelled structures that one model can be compared with."""

    name: str
    frames: list[Labelled]
    agreement: Agreement
    notes: list[str]


def cases(context: Context) -> list[Case]:
    """One case for each set that the model was tuned on, and for each `--reference`."""
    return [_case(name) for name in dict.fromkeys([*context.tuned_on, *context.reference])]


def _case(name: str) -> Case:
    def run(context: Context, progress: Progress) -> Outcome:
        reference = load(context.artifact, name, context.elements, context.frame)
        results = predict(context.artifact, reference, context.engine, context.hardware, progress)
        outcome = judge(reference, results, context.engine)
        if context.base is None:
            return outcome
        return outcome.model_copy(
            update={"checks": outcome.checks + _forgetting(context, context.base, name, reference, results, progress)}
        )

    return Case(SUITE, case_name(name), "do energies, forces and stresses agree with the labels?", run)


def case_name(name: str) -> str:
    """The name of a set, or a file's name without its folder and ending."""
    return name if name in DATASETS else Path(name).stem


def load(artifact: Artifact, name: str, elements: Sequence[str] = (), frame: str | None = None) -> Reference:
    """Read a set or an extended XYZ file and settle the energy frame.

    Args:
        elements: keep structures made of these only. When empty: all of a file, and of a named set those made of
            elements that the model knows.
        frame: the user's `--frame`.

    Raises:
        MLIPError: unknown names, broken files, frames that differ or are unknown, missing forces, elements that the
            model does not know; each says what to type.
    """
    contract, request = artifact.contract, parse_request(frame)
    if name in DATASETS or not Path(name).exists():
        frames = read_set(name)
        dataset = DATASETS[name]
        energies, same_potentials = dataset.energies, dataset.same_potentials
        notes = [f"{dataset.content}; {dataset.licence}; {dataset.citation}; {dataset.url}; sha256 {dataset.sha256}"]
    else:
        file = read_extxyz(Path(name))
        frames, same_potentials, notes = file.frames, True, []
        declared: EnergyFrame = EnergyFrame.parse(file.declared) if file.declared else EnergyFrame.unknown()
        energies = {"raw": declared}
        _require_forces(name, frames, request.energies_only)
    kept = elements or (contract.elements if name in DATASETS else ())
    selected = [f for f in frames if not kept or set(f.atoms.get_chemical_symbols()) <= set(kept)]
    if not selected:
        raise MLIPError(
            f"'{name}' has no structure made of {', '.join(elements)} only. Name more elements: --elements …"
        )
    if len(selected) < len(frames):
        which = ", ".join(elements) or "elements that the model knows"
        notes.append(f"{len(selected)} of {len(frames)} structures: those made of {which}")
    for labelled in selected:
        strange = sorted(set(labelled.atoms.get_chemical_symbols()) - set(contract.elements))
        if strange:
            raise MLIPError(
                f"'{name}', {labelled.name}: {', '.join(strange)} is not an element of {contract.model.name}. "
                f"Name the elements to compare: --elements {','.join(contract.elements[:3])},…"
            )
    compositions = {frozenset(f.atoms.get_chemical_symbols()) for f in selected}
    agreement = agree(
        contract.energy_frame, contract.model.name, energies, name, compositions, request, same_potentials
    )
    return Reference(case_name(name), selected, agreement, [agreement.note, *notes])


def _require_forces(name: str, frames: list[Labelled], energies_only: bool) -> None:
    without = [labelled.name for labelled in frames if labelled.forces is None]
    if without and not (energies_only and len(without) == len(frames)):
        cure = f"If the data have none, say so: --frame {NO_FORCES}" if len(without) == len(frames) else ""
        raise MLIPError(
            f"'{name}', {without[0]}: no forces ({len(without)} of {len(frames)} frames lack them). Add the columns "
            f"forces:R:3 (eV/Å) to Properties. {cure}".rstrip()
        )


def predict(
    artifact: Artifact, reference: Reference, engine: str, hardware: Hardware, progress: Progress
) -> list[Result]:
    """The artifact's results in an engine, in the order of the frames."""
    evaluate = evaluator(engine)
    results = []
    for number, labelled in enumerate(reference.frames, start=1):
        progress(f"{engine}: {reference.name}, {number} of {len(reference.frames)} ({labelled.name})")
        results.append(evaluate(artifact.path, labelled.atoms, **hardware._asdict()))
    return results


def energy_differences(reference: Reference, results: Sequence[Result]) -> tuple[Array, Array, dict[str, float]]:
    """Labels and predictions in eV/atom, and the shifts (eV per atom of each element) added to the predictions."""
    kind = reference.agreement.kind
    label = np.array([labelled.energies[kind] for labelled in reference.frames])
    predicted = np.array([result.energy for result in results])
    shifts: dict[str, float] = {}
    symbols = [labelled.atoms.get_chemical_symbols() for labelled in reference.frames]
    if reference.agreement.shift:
        shifts = fit_shifts(symbols, label - predicted)
        predicted = predicted + np.array([sum(shifts[symbol] for symbol in structure) for structure in symbols])
    sizes = np.array([len(structure) for structure in symbols])
    return label / sizes, predicted / sizes, shifts


def judge(reference: Reference, results: Sequence[Result], engine: str) -> Outcome:
    """Errors over everything, per configuration type and per element, with parity plots."""
    frames = reference.frames
    types = np.array([labelled.config_type for labelled in frames])
    elements = sorted({symbol for labelled in frames for symbol in labelled.atoms.get_chemical_symbols()})
    label, predicted, shifts = energy_differences(reference, results)
    notes = [*reference.notes, domain(frames)]
    checks = _close_atoms(frames)
    if shifts:
        listed = ", ".join(f"{symbol} {shift:+.4f}" for symbol, shift in shifts.items())
        notes.append(f"fitted to these labels and added to the predictions (eV per atom): {listed}")
    names = [labelled.name for labelled in frames]
    checks += relation_checks(frames, results, reference.agreement.kind)
    checks += _energy_checks(label, predicted, reference.agreement.judged, names)
    curves = [_parity("energy", "eV/atom", types, label, predicted)]
    for group in _groups(types):
        checks.append(
            _reported(f"energy, MAE of {group}", errors(label[types == group], predicted[types == group]).mae)
        )
    if len(elements) > 1:
        for symbol in elements:
            has = np.array([symbol in labelled.atoms.get_chemical_symbols() for labelled in frames])
            checks.append(_reported(f"energy, MAE of frames with {symbol}", errors(label[has], predicted[has]).mae))

    with_forces = [k for k, labelled in enumerate(frames) if labelled.forces is not None]
    if with_forces:
        forces = np.concatenate([frames[k].forces for k in with_forces])
        found = np.concatenate([results[k].forces for k in with_forces])
        of_atom = np.concatenate([[types[k]] * len(frames[k].atoms) for k in with_forces])
        symbols = np.concatenate([frames[k].atoms.get_chemical_symbols() for k in with_forces])
        checks += _force_checks(forces, found, of_atom, symbols)
        curves.append(_parity("force component", "eV/Å", np.repeat(of_atom, 3), forces.ravel(), found.ravel()))
    else:
        notes.append("the labels have no forces: not tested")

    with_stress = [k for k, labelled in enumerate(frames) if labelled.stress is not None]
    if with_stress and all(results[k].stress is not None for k in with_stress):
        stress = np.array([frames[k].stress for k in with_stress])
        computed = np.array([results[k].stress for k in with_stress])
        both = errors(stress, computed)
        checks += [
            _reported("stress component, MAE", both.mae, "eV/Å³"),
            _reported("stress component, RMSE", both.rmse, "eV/Å³"),
            _reported("stress, slope through zero", both.slope, ""),
        ]
        kinds = np.repeat(types[with_stress], 6)
        curves.append(_parity("stress component", "eV/Å³", kinds, stress.ravel(), computed.ravel()))
    elif with_stress:
        notes.append(f"{engine} gives no stress: not tested")
    return Outcome(
        suite=SUITE,
        case=reference.name,
        engine=engine,
        purpose="do energies, forces and stresses agree with the labels?",
        checks=checks,
        curves=curves,
        notes=notes,
    )


def _close_atoms(frames: Sequence[Labelled]) -> list[Check]:
    """A failed check where atoms are on top of each other: neither labels nor models mean anything there."""
    found = [(labelled.name, words) for labelled in frames if (words := close_atoms(labelled.atoms))]
    if not found:
        return []
    name, words = found[0]
    reason = f"{name}: {words}. Look at the positions, their unit and the cell, or leave these frames out"
    return [judged(CLOSE_ATOMS, len(found), 0.0, "", "no training data reach there", reason)]


def _forgetting(
    context: Context,
    base: Artifact,
    name: str,
    reference: Reference,
    results: Sequence[Result],
    progress: Progress,
) -> list[Check]:
    """The model before fine-tuning on the same labels, each in its own energy frame."""
    try:
        of_base = load(base, name, context.elements, context.frame)
    except MLIPError as error:
        raise MLIPError(f"--base {base.path}: {error}") from error
    before = predict(base, of_base, context.engine, context.hardware, forgetting.announced(base, progress))
    role = forgetting.TUNED if name in context.tuned_on else forgetting.GENERAL
    energies = [
        forgetting.energy_errors(*energy_differences(one, found)[:2])
        for one, found in ((of_base, before), (reference, results))
    ]
    checks = []
    if reference.agreement.judged and of_base.agreement.judged:
        checks.append(forgetting.compare(role, "energy, MAE", *energies))
    having = [k for k, labelled in enumerate(reference.frames) if labelled.forces is not None]
    labels = [forces for labelled in reference.frames if (forces := labelled.forces) is not None]
    if having:
        errors_of = [forgetting.force_errors(labels, [found[k] for k in having]) for found in (before, results)]
        checks.append(forgetting.compare(role, "force component, MAE", *errors_of))
    return checks


NAMED = 12
"""Up to so many elements are listed"""
DOMAIN = "domain that the labels cover: "


def domain(frames: Sequence[Labelled]) -> str:
    """What the labels say something about: elements, sizes and how close atoms come."""
    elements = {symbol for labelled in frames for symbol in labelled.atoms.get_chemical_symbols()}
    sizes = [len(labelled.atoms) for labelled in frames]
    nearest = [neighbour_distance(labelled.atoms) for labelled in frames]
    named = f" ({', '.join(sorted(elements))})" if len(elements) <= NAMED else ""
    return (
        f"{DOMAIN}{len(elements)} elements{named}, {min(sizes)} to {max(sizes)} atoms, nearest neighbours "
        f"{min(nearest):.2f} to {max(nearest):.2f} Å apart"
    )


def neighbour_distance(atoms: Atoms, longest: float = 12.0) -> float:
    """Å: the shortest distance between two atoms or an atom and an image; at most `longest`."""
    for cutoff in (3.0, 6.0, longest):
        distances = neighbor_list("d", atoms, cutoff)
        if distances.size:
            return float(distances.min())
    return longest


def _energy_checks(label: Array, predicted: Array, judged: bool, names: Sequence[str]) -> list[Check]:
    worst = names[int(np.argmax(np.abs(predicted - label)))]
    found = errors(label, predicted)
    reason = "" if judged else f"compared as it is (--frame {AS_IS}), so without a verdict"
    verdict = "not-applicable" if not judged else "pass" if found.mae <= ENERGY_THRESHOLD else "fail"
    if verdict == "fail":
        reason = f"the mean absolute error is {found.mae / ENERGY_THRESHOLD:.1f} times the threshold"
    return [
        Check(
            quantity="energy, MAE",
            value=found.mae,
            unit="eV/atom",
            threshold=ENERGY_THRESHOLD if judged else None,
            source=ENERGY_SOURCE if judged else REPORTED,
            verdict=verdict,  # type: ignore[arg-type]
            reason=reason,
        ),
        _reported("energy, median absolute error", found.median),
        _reported("energy, RMSE", found.rmse),
        _reported("energy, largest error", float(np.abs(predicted - label).max()), reason=worst),
        _reported("energy, slope through zero", found.slope, ""),
    ]


def _force_checks(label: Array, predicted: Array, types: Array, symbols: Array) -> list[Check]:
    components, vectors = errors(label, predicted), vector_errors(label, predicted)
    checks = [
        _reported("force component, MAE", components.mae, "eV/Å"),
        _reported("force component, RMSE", components.rmse, "eV/Å"),
        _reported("force vector |ΔF|, mean", vectors.mae, "eV/Å"),
        _reported("force vector |ΔF|, root mean square", vectors.rmse, "eV/Å"),
    ]
    if _signal(label):
        checks.append(_slope("force, slope through zero", components))
    for group in _groups(types):
        of_group = errors(label[types == group], predicted[types == group])
        checks.append(_reported(f"force component, MAE of {group}", of_group.mae, "eV/Å"))
        if _signal(label[types == group]):
            checks.append(_slope(f"force, slope through zero of {group}", of_group))
    if len(set(symbols)) > 1:
        for symbol in sorted(set(symbols)):
            mae = errors(label[symbols == symbol], predicted[symbols == symbol]).mae
            checks.append(_reported(f"force component, MAE on {symbol}", mae, "eV/Å"))
    return checks


def _signal(label: Array) -> bool:
    return float(np.sqrt((label**2).mean())) >= SLOPE_SIGNAL


def _slope(quantity: str, found: Errors) -> Check:
    """Judged by its distance from 1, which is the threshold; the value is the slope itself less 1."""
    slope = found.slope
    good = abs(slope - 1.0) <= SLOPE_THRESHOLD
    reason = "" if good else f"the slope is {slope:.2f}: forces are too {'small' if slope < 1 else 'large'}"
    if not good and found.cosine < RELATED:
        reason = f"the slope is {slope:.2f}, but labels and model are unrelated (cosine {found.cosine:.2f})"
    return Check(
        quantity=f"{quantity}, less 1",
        value=slope - 1.0,
        unit="",
        threshold=SLOPE_THRESHOLD,
        source=SLOPE_SOURCE,
        verdict="pass" if good else "fail",
        reason=reason,
    )


def _reported(quantity: str, value: float, unit: str = "eV/atom", reason: str = "") -> Check:
    return Check(
        quantity=quantity,
        value=value,
        unit=unit,
        threshold=None,
        source=REPORTED,
        verdict="not-applicable",
        reason=reason,
    )


def _groups(types: Array) -> list[str]:
    """Configuration types, where there are several."""
    found = sorted(set(types.tolist()))
    return found if len(found) > 1 else []


def _parity(quantity: str, unit: str, types: Array, label: Array, predicted: Array) -> Curve:
    """Evenly thinned, so that the same input gives the same plot."""
    keep = np.unique(np.linspace(0, len(label) - 1, min(len(label), PARITY_POINTS)).astype(int))
    series = []
    for group in sorted(set(types[keep].tolist())):
        of_group = keep[types[keep] == group]
        x, y = label[of_group].tolist(), predicted[of_group].tolist()
        series.append(Series(label=str(group), x=x, y=y, style="points"))
    return Curve(
        title=f"{quantity}: model against label",
        x_label=f"label / {unit}",
        y_label=f"model / {unit}",
        series=series,
        diagonal=True,
    )
