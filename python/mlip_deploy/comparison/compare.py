"""`mlip compare`: several artifacts side by side, in one table, overlaid plots and a cross-prediction matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from pydantic import BaseModel

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.comparison.audit import Flag, audit, energy_distances, force_distances
from mlip_deploy.comparison.cross import CrossPrediction, cross_predict, start_structures
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve
from mlip_deploy.result import Result
from mlip_deploy.validation import properties
from mlip_deploy.validation.case import CPU, Context, Hardware, Outcome
from mlip_deploy.validation.reference import suite as reference
from mlip_deploy.validation.reference.datasets import DATASETS


class Row(BaseModel):
    """One number of every model."""

    case: str
    quantity: str
    unit: str
    values: list[float | None]
    verdicts: list[str]


class ModelComparison(BaseModel):
    models: list[str]
    files: list[str]
    sha256: list[str]
    frames: list[str]
    """energy frame of each"""
    engine: str
    rows: list[Row]
    curves: list[Curve]
    notes: list[str]
    cross_prediction: CrossPrediction
    flags: list[Flag]


def compare(
    artifacts: Sequence[Artifact],
    directory: Path,
    references: Sequence[str] = (),
    frames: Sequence[str] = (),
    with_properties: bool = False,
    recipes: Path | None = None,
    elements: Sequence[str] = (),
    structures: Path | None = None,
    engine: str = "ase",
    hardware: Hardware = CPU,
    progress: Progress = lambda message: None,
) -> ModelComparison:
    """Run reference sets, property recipes and cross-prediction for two or more artifacts.

    Args:
        frames: `--frame` of all models, or one for each.

    Raises:
        MLIPError: for fewer than two artifacts and whatever the suites refuse; the model is named.
    """
    if len(artifacts) < 2:
        raise MLIPError("compare needs two artifacts or more. For one, type: mlip validate FILE -o OUT")
    if len(frames) not in (0, 1, len(artifacts)):
        raise MLIPError(f"--frame was given {len(frames)} times for {len(artifacts)} models. Give it once, or for each")
    names = _names(artifacts)
    asked = [(frames[k] if len(frames) > 1 else frames[0]) if frames else None for k in range(len(artifacts))]
    outcomes: list[list[Outcome]] = [[] for _ in artifacts]
    flags: list[Flag] = []
    for name in references:
        loaded, predicted = [], []
        # of a public set, what all models know: each is to see the same structures
        kept = list(elements) or (sorted(_common(artifacts)) if name in DATASETS else [])
        for k, artifact in enumerate(artifacts):
            try:
                loaded.append(reference.load(artifact, name, kept, asked[k]))
            except MLIPError as error:
                raise MLIPError(f"{names[k]}: {error}") from error
            predicted.append(reference.predict(artifact, loaded[k], engine, hardware, progress))
            outcomes[k].append(reference.judge(loaded[k], predicted[k], engine))
        flags += _audit(loaded, predicted)
    if with_properties:
        for k, artifact in enumerate(artifacts):
            context = Context(
                artifact=artifact,
                engine=engine,
                directory=directory / f"model-{k}",
                elements=list(elements),
                hardware=hardware,
                recipes=recipes,
            )
            outcomes[k] += [case.run(context, progress) for case in properties.cases(context)]
    starts = _read_structures(structures) if structures else start_structures(artifacts, elements)
    return ModelComparison(
        models=names,
        files=[artifact.path.name for artifact in artifacts],
        sha256=[artifact.sha256() for artifact in artifacts],
        frames=[artifact.contract.energy_frame.describe() for artifact in artifacts],
        engine=engine,
        rows=_rows(outcomes),
        curves=_overlaid(names, outcomes),
        notes=_warnings(names, artifacts)
        + [
            f"{names[k]}, {o.case}: {note}" for k, of_model in enumerate(outcomes) for o in of_model for note in o.notes
        ],
        cross_prediction=cross_predict(artifacts, engine, starts, directory, hardware, progress),
        flags=flags,
    )


def _warnings(names: Sequence[str], artifacts: Sequence[Artifact]) -> list[str]:
    """Models in different energy frames, and in unknown ones."""
    frames = [artifact.contract.energy_frame for artifact in artifacts]
    listed = "; ".join(f"{name}: {frame.describe()}" for name, frame in zip(names, frames, strict=True))
    cure = "Energies of one model must not be subtracted from another's; forces and differences within a model may be"
    if any("unknown" in dict(frame).values() for frame in frames):
        return [f"warning: an energy frame is unknown, so energies may not be comparable ({listed}). {cure}"]
    if len(set(frames)) > 1:
        return [f"warning: the energy frames differ ({listed}). {cure}"]
    return []


def _common(artifacts: Sequence[Artifact]) -> set[str]:
    return set.intersection(*(set(artifact.contract.elements) for artifact in artifacts))


def _names(artifacts: Sequence[Artifact]) -> list[str]:
    """Models' names, or files' where two artifacts are of one model."""
    names = [artifact.contract.model.name for artifact in artifacts]
    return names if len(set(names)) == len(names) else [artifact.path.name for artifact in artifacts]


def _read_structures(path: Path) -> list[tuple[str, Atoms]]:
    try:
        frames = read(path, ":")
    except Exception as error:  # ASE raises whatever its readers met
        raise MLIPError(f"--structures {path}: {type(error).__name__}: {error}") from error
    for number, atoms in enumerate(frames, start=1):
        if not atoms.pbc.all():
            raise MLIPError(f"--structures {path}: structure {number} is not periodic in all directions. Give it a box")
    return [(f"structure {number}", atoms) for number, atoms in enumerate(frames, start=1)]


def _audit(loaded: Sequence[reference.Reference], predicted: Sequence[Sequence[Result]]) -> list[Flag]:
    frames = loaded[0].frames
    names = [labelled.name for labelled in frames]
    pairs = [reference.energy_differences(one, results)[:2] for one, results in zip(loaded, predicted, strict=True)]
    label, model = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    flags = audit(loaded[0].name, names, *energy_distances(label, model), "energy", "eV/atom")
    having = [k for k, labelled in enumerate(frames) if labelled.forces is not None]
    if having:
        labels = [forces for labelled in frames if (forces := labelled.forces) is not None]
        of_models = [[results[k].forces for k in having] for results in predicted]
        in_order = [names[k] for k in having]
        flags += audit(loaded[0].name, in_order, *force_distances(labels, of_models), "forces", "eV/Å")
    return flags


def _rows(outcomes: Sequence[Sequence[Outcome]]) -> list[Row]:
    """Every quantity that some model has, in the order of the first that has it."""
    keys: dict[tuple[str, str, str], None] = {}
    found: list[dict[tuple[str, str, str], tuple[float | None, str]]] = []
    for of_model in outcomes:
        checks = {(o.case, c.quantity, c.unit): (c.value, str(c.verdict)) for o in of_model for c in o.checks}
        keys.update(dict.fromkeys(checks))
        found.append(checks)
    return [
        Row(
            case=key[0],
            quantity=key[1],
            unit=key[2],
            values=[checks.get(key, (None, ""))[0] for checks in found],
            verdicts=[checks.get(key, (None, "not-tested"))[1] for checks in found],
        )
        for key in keys
    ]


def _overlaid(names: Sequence[str], outcomes: Sequence[Sequence[Outcome]]) -> list[Curve]:
    """Curves of one case and title in one plot, the model before each label; a label's own curve appears once."""
    merged: dict[tuple[str, str], Curve] = {}
    for name, of_model in zip(names, outcomes, strict=True):
        for outcome in of_model:
            for curve in outcome.curves:
                series = [s.model_copy(update={"label": f"{name}: {s.label}"}) for s in curve.series]
                key = (outcome.case, curve.title)
                if key in merged:
                    merged[key] = merged[key].model_copy(update={"series": [*merged[key].series, *series]})
                else:
                    merged[key] = curve.model_copy(update={"series": series, "title": f"{outcome.case}: {curve.title}"})
    return list(merged.values())
