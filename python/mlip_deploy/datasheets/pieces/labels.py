"""Forces on mlearn's frames, which several pieces look at: computed once in a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mlip_deploy.datasheets.evidence import Number
from mlip_deploy.datasheets.pieces.piece import ENGINE, NotApplicableError, Subject
from mlip_deploy.engines import evaluator
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.readers import read_set
from mlip_deploy.reference_data.statistics import bootstrap
from mlip_deploy.result import Array
from mlip_deploy.validation.case import Hardware

MLEARN = ("Si", "Cu", "Ni", "Li")
SIGNAL = 0.1
"""eV/Å, root mean square of a structure's labels: where symmetry leaves no forces a relative error says nothing"""
FEWEST = 5
"""structures that say something"""


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


def relative_error(quantity: str, structures: Sequence[Forces]) -> Number | None:
    """Root mean square error of force components over that of the labels, of structures with a signal."""

    def ratio(error: float, size: float) -> float:
        return float(np.sqrt(error / size))

    found = _of_sums(quantity, structures, lambda s: float(((s.model - s.label) ** 2).sum()), ratio)
    return found and found.model_copy(update={"better": "low"})


def slope(quantity: str, structures: Sequence[Forces]) -> Number | None:
    """Σ model · label / Σ label² over force components, likewise: below 1 the model is too soft."""
    found = _of_sums(
        quantity, structures, lambda s: float((s.model * s.label).sum()), lambda product, size: product / size
    )
    return found and found.model_copy(update={"better": "one"})


def _of_sums(
    quantity: str,
    structures: Sequence[Forces],
    of_structure: Callable[[Forces], float],
    ratio: Callable[[float, float], float],
) -> Number | None:
    """`ratio` of a sum over structures with a signal and of Σ label²; None for fewer than `FEWEST` of them."""
    having = [s for s in structures if np.sqrt((s.label**2).mean()) >= SIGNAL]
    if len(having) < FEWEST:
        return None
    sums = np.array([[of_structure(s), float((s.label**2).sum())] for s in having])
    return Number(
        quantity=quantity,
        value=ratio(*sums.sum(axis=0).tolist()),
        interval=bootstrap(len(sums), lambda k: ratio(*sums[k].sum(axis=0).tolist())),
        n=len(sums),
    )
