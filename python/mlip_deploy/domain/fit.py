"""Fit a domain to frames of reference, and write it into the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ase import Atoms
from scipy.stats import rankdata, spearmanr

from mlip_deploy.artifact.domain_record import (
    MOST_BYTES,
    DomainHead,
    OfElement,
    Shown,
    pack,
    write_domain,
)
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.domain.frames import Frame, read_frames, sample
from mlip_deploy.domain.space import AXES, POINTS, space_of
from mlip_deploy.domain.uncertainty import FOLDS, MOST_FEATURES, uncertainty_of
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_file
from mlip_deploy.progress import Progress, silent
from mlip_deploy.reference_data.datasets import DATASETS
from mlip_deploy.result import Array

LEAST_ENVIRONMENTS = 20
"""of an element; fewer say nothing about what is far"""
FARTHEST = 0.01
"""share of the reference environments that have a grade above 1 when their frames are left out"""
LARGE_ERROR = 0.3
"""eV/Å, of an atom's force"""


@dataclass(frozen=True)
class Environments:
    """Atoms of all frames, one after the other."""

    symbols: npt.NDArray[np.str_]
    """[n] chemical symbols"""
    features: Array
    """[n, n_features]"""
    frames: npt.NDArray[np.int64]
    """[n] number of the frame"""
    errors: Array
    """[n] eV/Å, length of the force's error; NaN without labels"""
    differences: Array
    """[number of frames] eV, energy of the label minus that of the model; NaN without labels"""


def fit_domain(
    path: str | Path,
    frames: Sequence[str | Path | Sequence[Atoms]] = (),
    *,
    sampled: Sequence[Atoms] = (),
    temperatures: Sequence[float] = (300.0,),
    output: str | Path | None = None,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress = silent,
) -> DomainHead:
    """Fit the domain of a model to frames of reference, and write it into its file.

    Grade 1 is what one in a hundred of the reference environments of an element exceeds when its frame is left out
    (cross-validation in five parts). Forces in the frames are labels: the record then says how well grades tell large
    errors. So are energies, of twenty frames or more: the record then holds calibrated uncertainties of energies.

    Parameters
    ----------
    path
        Artifact.
    frames
        Files of structures, names of reference sets (of which those structures count that the model has elements for),
        or lists of ASE atoms; labels are what their calculators hold.
    sampled
        Structures whose molecular dynamics with the model itself gives frames.
    temperatures
        Of that dynamics, K.
    output
        File to write; by default the artifact changes in place.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model, for the whole process; 0 leaves torch's setting.
    progress
        Called with a line of text before each piece of work.

    Returns
    -------
    DomainHead
        What was written, but for its arrays.

    Raises
    ------
    MLIPError
        For a file without features, frames of elements that the model does not know, too few frames or environments,
        frames that are all the same, and a file that cannot be written.
    """
    artifact = Artifact(path)
    output = Path(output or path)
    require_file(output)
    require_features(artifact)
    calculator = MLIPCalculator(path, device=device, threads=threads)
    found, sources = _gather(calculator, frames, sampled, temperatures, progress)
    environments = environments_of(calculator, found, progress)
    progress(f"fitting {len(environments.symbols)} environments")
    head, record = fit(artifact, environments, sources)
    write_domain(Path(path), output, record)
    return head


def require_features(artifact: Artifact) -> None:
    """Require that the file gives the features of atoms.

    Raises
    ------
    MLIPError
        Says what to do.
    """
    if artifact.contract.features is not None:
        return
    cure = "Write it anew: mlip export, without --backend aotinductor"
    if artifact.contract.model.family == "composed":
        cure = "It is composed of several. Take the file of a member"
    raise MLIPError(f"'{artifact.path}' has no features, which a domain lives on. {cure}")


def _gather(
    calculator: MLIPCalculator,
    sources: Sequence[str | Path | Sequence[Atoms]],
    sampled: Sequence[Atoms],
    temperatures: Sequence[float],
    progress: Progress,
) -> tuple[list[Frame], list[str]]:
    """All frames, and where they come from in words."""
    frames: list[Frame] = []
    words: list[str] = []
    for source in sources:
        if isinstance(source, str | Path):
            new = read_frames(source)
            if str(source) in DATASETS:
                known = set(calculator.contract.elements)
                new = [frame for frame in new if known.issuperset(frame.atoms.get_chemical_symbols())]
                if not new:
                    name = calculator.contract.model.name
                    raise MLIPError(f"the set {source} has no structure whose elements {name} knows. Name another set")
            words.append(Path(source).name)
        else:
            new = [Frame.of(atoms, f"frame {k}") for k, atoms in enumerate(source, start=1)]
            words.append("given")
        frames += new
    for structure in sampled:
        formula = structure.get_chemical_formula()
        words.append(f"sampled {formula} at {', '.join(f'{t:g}' for t in temperatures)} K")
        for temperature in temperatures:
            frames += sample(calculator, structure, temperature, formula, progress)
    return frames, words


def environments_of(calculator: MLIPCalculator, frames: Sequence[Frame], progress: Progress) -> Environments:
    """What the model makes of every atom of the frames.

    Raises
    ------
    MLIPError
        Names the frame with an element that the model does not know.
    """
    contract = calculator.contract
    symbols: list[str] = []
    features: list[Array] = [np.empty((0, contract.features or 0))]
    numbers: list[int] = []
    errors: list[float] = []
    differences: list[float] = []
    for k, frame in enumerate(frames):
        progress(f"features, {k + 1} of {len(frames)} ({frame.name})")
        atoms = frame.atoms
        strange = sorted(set(atoms.get_chemical_symbols()) - set(contract.elements))
        if strange:
            raise MLIPError(
                f"{frame.name}: {', '.join(strange)} is not an element of {contract.model.name}. Leave such frames out"
            )
        settings = contract.given_settings(atoms.info)
        for setting in contract.settings:
            if setting.default is None and setting.name not in settings:
                raise MLIPError(
                    f"{frame.name}: {contract.model.name} needs its setting '{setting.name}' ({setting.describe()}), "
                    f"which every frame brings. Give it in atoms.info, or in the second line of each frame in extended "
                    f"XYZ: {setting.name}={setting.examples()[0]}"
                )
        found = calculator.potential.compute(
            atoms.positions,
            contract.types_of(atoms.get_chemical_symbols()),
            atoms.cell.array,
            atoms.pbc.tolist(),
            settings=list(settings.items()),
            forces=frame.forces is not None,
            features=True,
        )
        symbols += atoms.get_chemical_symbols()
        features.append(found["features"])
        numbers += [k] * len(atoms)
        errors += (
            [np.nan] * len(atoms)
            if frame.forces is None
            else np.linalg.norm(found["forces"] - frame.forces, axis=1).tolist()
        )
        differences.append(np.nan if frame.energy is None else frame.energy - found["energy"])
    return Environments(
        np.array(symbols), np.concatenate(features), np.array(numbers), np.array(errors), np.array(differences)
    )


def fit(artifact: Artifact, environments: Environments, sources: list[str]) -> tuple[DomainHead, bytes]:
    """The record of a file, and what its first line says.

    Raises
    ------
    MLIPError
        For too few frames, and too few or equal environments of an element.
    """
    n_frames, n_features = len(environments.differences), environments.features.shape[1]
    if n_frames < FOLDS:
        raise MLIPError(
            f"a domain takes {FOLDS} frames at least, found {n_frames}: each fifth of them is left out once to see how "
            "far new frames are. Add frames, or sample some: mlip domain fit FILE --sample STRUCTURE"
        )
    elements = sorted(set(environments.symbols))
    axes, points = _size(len(elements), n_features)
    grades = np.empty(len(environments.symbols))
    of_elements, arrays = [], []
    for element in elements:
        mine = environments.symbols == element
        features, frames = environments.features[mine], environments.frames[mine]
        if len(features) < LEAST_ENVIRONMENTS:
            raise MLIPError(
                f"{element} has {len(features)} environments in these frames, at least {LEAST_ENVIRONMENTS} are "
                f"needed to say what is far. Add frames with {element}"
            )
        distances = np.empty(len(features))
        for part in range(FOLDS):
            left_out = frames % FOLDS == part
            space = None if left_out.all() else space_of(features[~left_out], axes, points)
            if space is None:
                raise _all_the_same(element)
            distances[left_out] = space.distances(features[left_out])
        whole = space_of(features, axes, points)
        if whole is None:
            raise _all_the_same(element)
        distance = float(np.quantile(distances, 1.0 - FARTHEST))
        grades[mine] = distances / distance
        arrays.append(whole)
        of_elements.append(
            OfElement(
                element=element,
                environments=len(features),
                axes=len(whole.axes),
                points=len(whole.points),
                distance=distance,
            )
        )
    head = DomainHead(
        content_sha256=artifact.content_sha256(),
        features=n_features,
        frames=n_frames,
        sources=sources,
        elements=of_elements,
        shown=_shown(grades, environments),
        uncertainty=uncertainty_of(
            environments.symbols, environments.features, environments.frames, environments.differences
        ),
    )
    return head, pack(head, arrays)


def _all_the_same(element: str) -> MLIPError:
    return MLIPError(
        f"the environments of {element} are all the same in four fifths of the frames, as in a perfect crystal: "
        "nothing says what is far. Add frames of a simulation, or sample some: mlip domain fit FILE --sample STRUCTURE"
    )


def _size(n_elements: int, n_features: int) -> tuple[int, int]:
    """Axes and points of each element, so that the record keeps its size."""
    of_uncertainty = 4 / 3 * n_features**2 if n_features <= MOST_FEATURES else 0  # in base64
    numbers = int((0.95 * MOST_BYTES / 4 - of_uncertainty) / n_elements)
    axes = max(1, min(AXES, numbers // 2 // n_features - 1))
    points = (numbers - (axes + 1) * (n_features + 1)) // (axes + 1)
    return axes, max(1, min(POINTS, points))


def _shown(grades: Array, environments: Environments) -> Shown | None:
    """How well grades of left-out frames tell large errors of forces."""
    labelled = np.isfinite(environments.errors)
    if not labelled.any():
        return None
    grade, error = grades[labelled], environments.errors[labelled]
    constant = np.ptp(grade) == 0.0 or np.ptp(error) == 0.0
    return Shown(
        frames=len(set(environments.frames[labelled])),
        threshold=LARGE_ERROR,
        large=float((error > LARGE_ERROR).mean()),
        auroc=auroc(grade, error > LARGE_ERROR),
        correlation=None if constant else float(spearmanr(grade, error).statistic),
    )


def auroc(scores: Array, positive: npt.NDArray[np.bool_]) -> float | None:
    """Probability that a positive one has a higher score than a negative one, ties by half; None without either."""
    n = int(positive.sum())
    if n in (0, len(positive)):
        return None
    rank_sum = float(rankdata(scores)[positive].sum())
    return (rank_sum - n * (n + 1) / 2) / (n * (len(positive) - n))
