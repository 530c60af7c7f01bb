"""`mlip compare`: several artifacts side by side, in one table, overlaid plots and a cross-prediction matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.comparison.audit import Flag, audit, energy_distances, force_distances
from mlip_deploy.comparison.content import ModelComparison, Row
from mlip_deploy.comparison.cross import cross_predict, start_structures
from mlip_deploy.comparison.page import page
from mlip_deploy.engines import require_engine, require_hardware
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_folder, write_text
from mlip_deploy.progress import Progress, silent
from mlip_deploy.reference_data.datasets import DATASETS
from mlip_deploy.report.content import Curve
from mlip_deploy.result import Result
from mlip_deploy.validation.case import Context, Hardware, Outcome
from mlip_deploy.validation.properties import cases as property_cases
from mlip_deploy.validation.reference.suite import Reference, energy_differences, judge, load, predict


def compare(
    files: Sequence[str | Path],
    *,
    out: str | Path,
    reference: Sequence[str | Path] = (),
    frame: Sequence[str] = (),
    properties: bool = False,
    recipes: str | Path | None = None,
    elements: Sequence[str] = (),
    structures: str | Path | None = None,
    engine: str = "ase",
    threads: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> ModelComparison:
    """Run reference sets, property recipes and cross-prediction for two or more artifacts.

    `out` then holds `compare.json` and `compare.html`.

    Parameters
    ----------
    files
        Artifacts, two or more.
    out
        Folder of results.
    reference
        Reference data, by name or as files in extended XYZ.
    frame
        Conversion of the reference energies to the models' energy frames: of all models, or one for each.
    properties
        Also run the property recipes.
    recipes
        Folder with further recipes.
    elements
        Chemical symbols to sample and test with; a few that all models know when empty.
    structures
        File, in any format of ASE, where sampling starts; crystals when it is left out.
    engine
        "ase", "lammps" or "openmm".
    threads
        CPU threads in the models; 0 is the engine's own choice.
    device
        Of the models: "cpu", "cuda", "cuda:N" or "auto".
    progress
        Called with a line of text before each piece of work.

    Returns
    -------
    ModelComparison
        Table, curves, cross-prediction and conspicuous labels.

    Raises
    ------
    MLIPError
        For fewer than two artifacts, an engine that is not installed, a device that is not here, a folder that cannot
        be written to, and whatever the suites refuse; the model is named.
    """
    require_engine(engine)
    require_hardware(threads, device)
    artifacts, hardware = [Artifact(path) for path in files], Hardware(threads, device)
    if len(artifacts) < 2:
        raise MLIPError("compare needs two artifacts or more. For one, type: mlip validate FILE -o OUT")
    if len(frame) not in (0, 1, len(artifacts)):
        raise MLIPError(f"--frame was given {len(frame)} times for {len(artifacts)} models. Give it once, or for each")
    require_folder(out)
    names = _names(artifacts)
    asked = [(frame[k] if len(frame) > 1 else frame[0]) if frame else None for k in range(len(artifacts))]
    contexts = [
        Context(
            artifact=artifact,
            engine=engine,
            directory=Path(out) / f"model-{k}",
            elements=list(elements),
            hardware=hardware,
            recipes=Path(recipes) if recipes is not None else None,
        )
        for k, artifact in enumerate(artifacts)
    ]
    planned = [property_cases(context) if properties else [] for context in contexts]
    starts = _read_structures(Path(structures)) if structures else start_structures(artifacts, elements)

    outcomes: list[list[Outcome]] = [[] for _ in artifacts]
    flags: list[Flag] = []
    for name in map(str, reference):
        loaded, predicted = [], []
        # of a public set, what all models know: each is to see the same structures
        kept = list(elements) or (sorted(_common(artifacts)) if name in DATASETS else [])
        for k, artifact in enumerate(artifacts):
            try:
                loaded.append(load(artifact, name, kept, asked[k]))
            except MLIPError as error:
                raise MLIPError(f"{names[k]}: {error}") from error
            predicted.append(predict(artifact, loaded[k], engine, hardware, progress))
            outcomes[k].append(judge(loaded[k], predicted[k], engine))
        flags += _audit(loaded, predicted)
    for k, context in enumerate(contexts):
        outcomes[k] += [case.run(context, progress) for case in planned[k]]
    found = ModelComparison(
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
        cross_prediction=cross_predict(artifacts, engine, starts, Path(out), hardware, progress),
        flags=flags,
    )
    write_text(Path(out) / "compare.json", found.model_dump_json(indent=1) + "\n")
    write_text(Path(out) / "compare.html", page(found))
    return found


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


def _audit(loaded: Sequence[Reference], predicted: Sequence[Sequence[Result]]) -> list[Flag]:
    frames = loaded[0].frames
    names = [labelled.name for labelled in frames]
    pairs = [energy_differences(one, results)[:2] for one, results in zip(loaded, predicted, strict=True)]
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
