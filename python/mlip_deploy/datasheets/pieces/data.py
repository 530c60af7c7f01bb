"""Question 2: energies on the same labels, in the model's own frame. What changes with data shows across models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import ENGINE, NotApplicableError, Piece, Subject, mean, median
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.datasets import DATASETS
from mlip_deploy.reference_data.readers import Labelled, read_set
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.reference.frames import U_ANIONS, U_METALS, Request, agree
from mlip_deploy.validation.reference.suite import Reference, energy_differences, predict


def _compared(subject: Subject, name: str, frames: Sequence[Labelled], kinds: Sequence[str], shift: bool) -> Reference:
    """The labels in the model's own frame: the first kind of energies that agrees with it.

    Raises
    ------
    NotApplicableError
        None does.
    """
    contract, dataset = subject.artifact.contract, DATASETS[name]
    compositions = {frozenset(labelled.atoms.get_chemical_symbols()) for labelled in frames}
    refused = ""
    for kind in kinds:
        try:
            agreement = agree(
                contract.energy_frame,
                contract.model.name,
                dataset.energies,
                name,
                compositions,
                Request(kind=kind, shift=shift),
                dataset.same_potentials,
            )
        except MLIPError as error:
            refused = refused or str(error)
            continue
        return Reference(name, list(frames), agreement, [agreement.note])
    raise NotApplicableError(f"energy frame: {refused}")


def _frames(subject: Subject, name: str) -> list[Labelled]:
    known = subject.elements
    frames = [one for one in read_set(name) if known.issuperset(one.atoms.get_chemical_symbols())]
    if not frames:
        raise NotApplicableError(f"elements: the set {name} has no structure of the model's elements")
    return frames


def _errors(reference: Reference, results: Sequence[Result]) -> Array:
    label, predicted, _ = energy_differences(reference, results)
    return predicted - label


def _without_corrections(labelled: Labelled) -> bool:
    """Whether all frames of PBE and PBE+U have one energy for it, but for a shift of each element."""
    symbols = set(labelled.atoms.get_chemical_symbols())
    return labelled.config_type == "without corrections" and not (symbols & U_METALS and symbols & U_ANIONS)


def _crystals(subject: Subject, progress: Progress) -> Found:
    frames, kinds = _frames(subject, "wbm"), list(DATASETS["wbm"].energies)
    try:
        own = _compared(subject, "wbm", frames, kinds, shift=False)
    except NotApplicableError as error:
        own, refused = None, str(error)
    plain = [one for one in frames if _without_corrections(one)]
    shifted = _compared(subject, "wbm", plain, kinds, shift=True)
    results = predict(subject.artifact, replace(shifted, frames=frames), ENGINE, subject.hardware, progress)
    by_name = {labelled.name: result for labelled, result in zip(frames, results, strict=True)}
    after = _errors(shifted, [by_name[labelled.name] for labelled in plain])
    numbers = [
        mean("energy of crystals after a shift of each element, mean absolute error", 1000 * np.abs(after), "meV/atom"),
        median("energy of crystals after a shift of each element, median error", 1000 * np.abs(after), "meV/atom"),
    ]
    notes = [f"shifted: the {len(plain)} crystals to which neither U nor corrections apply"]
    errors = {}
    said = f"energies of {len(plain)} crystals are off by {numbers[0].value:.0f} meV/atom after a shift of each element"
    if own is None:
        notes.append(f"not in a frame of the set, {refused}")
    else:
        before = _errors(own, results)
        numbers.insert(
            0, mean("energy of crystals in the model's frame, mean absolute error", 1000 * np.abs(before), "meV/atom")
        )
        errors = {labelled.name: round(float(e), 5) for labelled, e in zip(frames, before, strict=True)}
        notes += own.notes
        said = f"energies of {len(frames)} crystals are off by {numbers[0].value:.0f} meV/atom in its frame"
    return Found(said=said, numbers=numbers, errors=errors, notes=notes)


def _ground_states(subject: Subject, progress: Progress) -> Found:
    frames = _frames(subject, "mp-elements")
    reference = _compared(subject, "mp-elements", frames, ["raw"], shift=False)
    results = predict(subject.artifact, reference, ENGINE, subject.hardware, progress)
    off = 1000 * _errors(reference, results)
    found = median("energy of elements, median error", np.abs(off), "meV/atom")
    worst = sorted(zip(np.abs(off), frames, strict=True), key=lambda pair: -pair[0])[:5]
    return Found(
        said=f"ground states of {len(frames)} elements are off by {found.value:.0f} meV/atom (median)",
        numbers=[found, mean("energy of elements, mean absolute error", np.abs(off), "meV/atom")],
        errors={one.name: round(float(e) / 1000, 5) for one, e in zip(frames, off, strict=True)},
        notes=["farthest off: " + ", ".join(f"{one.name} {e:.0f} meV/atom" for e, one in worst), *reference.notes],
    )


PIECES = [
    Piece(
        name="crystals",
        question=2,
        measures="energies of the set wbm against PBE, in the model's own frame; and after one shift for each element, "
        "of crystals to which neither U nor corrections apply, where all frames of PBE can be compared",
        not_tested="forces away from equilibrium; stability against competing phases",
        measure=_crystals,
        seconds=20,
    ),
    Piece(
        name="ground-states",
        question=2,
        measures="energies of the elements' ground states against PBE of the Materials Project (set mp-elements)",
        not_tested="order of the phases of an element",
        measure=_ground_states,
        seconds=5,
    ),
]
