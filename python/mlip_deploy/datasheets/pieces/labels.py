"""Forces on mlearn's frames, which several pieces look at: computed once in a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlip_deploy.datasheets.evidence import Number
from mlip_deploy.datasheets.pieces.piece import ENGINE, NotApplicableError, Subject
from mlip_deploy.engines import evaluator
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.readers import read_set
from mlip_deploy.reference_data.statistics import bootstrap
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Hardware

MLEARN = ("Si", "Cu", "Ni", "Li")
SMALL = 0.1
"""eV/Å, root mean square of a structure's labels: symmetry leaves no forces below, and a relative error says nothing"""


@dataclass(frozen=True)
class Forces:
    """Of one structure."""

    element: str
    state: str
    """mlearn's configuration type"""
    label: Array
    """[n, 3] eV/Å"""
    model: Array
    """[n, 3] eV/Å"""


def mlearn_forces(subject: Subject, progress: Progress) -> list[Forces]:
    """Of all test frames of mlearn that the model has the element for.

    Raises
    ------
    NotApplicableError
        There is no such element.
    """
    symbols = [symbol for symbol in MLEARN if symbol in subject.elements]
    if not symbols:
        raise NotApplicableError(f"elements: the model knows none of {', '.join(MLEARN)}")
    found: list[Forces] = []
    for symbol in symbols:
        progress(f"mlearn-{symbol}")
        found += _of_element(subject.artifact.path, subject.artifact.content_sha256(), symbol, subject.hardware)
    return found


@lru_cache(maxsize=len(MLEARN))
def _of_element(path: Path, content: str, symbol: str, hardware: Hardware) -> list[Forces]:
    """`content`: of the file, so that a rewritten one is a different one."""
    evaluate = evaluator(ENGINE)
    return [
        Forces(
            element=symbol,
            state=labelled.config_type,
            label=np.asarray(labelled.forces),
            model=evaluate(path, labelled.atoms, **hardware._asdict()).forces,
        )
        for labelled in read_set(f"mlearn-{symbol}")
    ]


def relative_error(quantity: str, structures: list[Forces]) -> Number | None:
    """Root mean square error of force components over that of the labels; None where the labels are zero."""
    pairs = np.array([[float(((s.model - s.label) ** 2).sum()), float((s.label**2).sum())] for s in structures])
    if not len(pairs) or np.sqrt(pairs[:, 1].sum() / sum(s.label.size for s in structures)) < SMALL:
        return None

    def ratio(k: npt.NDArray[np.int64]) -> float:
        error, size = pairs[k].sum(axis=0)
        return float(np.sqrt(error / size))

    everything = np.arange(len(pairs))
    return Number(
        quantity=quantity,
        value=ratio(everything),
        interval=bootstrap(len(pairs), ratio),
        n=len(pairs),
        better="low",
    )


def slope(quantity: str, structures: list[Forces]) -> Number | None:
    """Σ model · label / Σ label² over force components: below 1 the model is too soft; None as above."""
    pairs = np.array([[float((s.model * s.label).sum()), float((s.label**2).sum())] for s in structures])
    if not len(pairs) or np.sqrt(pairs[:, 1].sum() / sum(s.label.size for s in structures)) < SMALL:
        return None

    def ratio(k: npt.NDArray[np.int64]) -> float:
        product, size = pairs[k].sum(axis=0)
        return float(product / size)

    everything = np.arange(len(pairs))
    return Number(quantity=quantity, value=ratio(everything), interval=bootstrap(len(pairs), ratio), n=len(pairs))
