"""Choose the most informative of collected frames: farthest points among the environments of their atoms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.domain.fit import environments_of, require_features
from mlip_deploy.domain.frames import Frame
from mlip_deploy.domain.space import space_of
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress, silent
from mlip_deploy.result import Array

SAME = 1e-6
"""of the unit of distances: a frame that brings no more than this is a copy"""


def select_frames(
    path: str | Path,
    frames: Sequence[Atoms],
    n: int,
    *,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress = silent,
) -> list[int]:
    """Choose the frames to label: each brings the environment that is farthest from all that is known by then.

    Known are the domain of the model, where its file has one, and the frames that were chosen before. Distances are
    those of grades.

    Parameters
    ----------
    path
        Artifact.
    frames
        Structures, such as a guard collects.
    n
        Frames to choose at most; there are fewer where all others are copies.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model, for the whole process; 0 leaves torch's setting.
    progress
        Called with a line of text before each piece of work.

    Returns
    -------
    list of int
        Indices of the chosen frames, the most informative one first.

    Raises
    ------
    MLIPError
        For a file without features, no frames, frames of elements that the model does not know, and an n below 1.
    """
    if n < 1:
        raise MLIPError(f"n is {n}, expected 1 or more frames")
    if not frames:
        raise MLIPError("there are no frames to choose from")
    calculator = MLIPCalculator(path, device=device, threads=threads)
    require_features(calculator.artifact)
    environments = environments_of(calculator, [Frame(atoms, f"frame {k + 1}") for k, atoms in enumerate(frames)],
                                   progress)  # fmt: skip
    spaces = calculator.artifact.spaces()
    known = np.full(len(environments.symbols), np.inf)
    coordinates: dict[str, Array] = {}
    members = {element: np.flatnonzero(environments.symbols == element) for element in set(environments.symbols)}
    for element, atoms in members.items():
        features = environments.features[atoms]
        if element in spaces:
            known[atoms] = spaces[element].distances(features)
        space = spaces.get(element) or space_of(features)
        coordinates[element] = np.zeros((len(atoms), 1)) if space is None else space.coordinates(features)

    chosen: list[int] = []
    while len(chosen) < min(n, len(frames)):
        progress(f"choosing frame {len(chosen) + 1} of {n}")
        farthest = np.full(len(frames), -np.inf)
        np.maximum.at(farthest, environments.frames, known)
        farthest[chosen] = -np.inf
        best = int(farthest.argmax())
        if farthest[best] <= SAME:
            break
        chosen.append(best)
        for element, atoms in members.items():
            z = coordinates[element]
            for new in z[environments.frames[atoms] == best]:
                known[atoms] = np.minimum(known[atoms], np.linalg.norm(z - new, axis=1))
    return chosen
