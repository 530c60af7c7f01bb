"""What a property recipe is: one file with inputs, metrics, thresholds and their sources, and how to measure.

A recipe's file defines `RECIPE`. The files of this package are run by `--suite properties`; a user adds more by
putting files of the same form into a folder and naming it (`--recipes DIR`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.optimize import FIRE

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines import evaluator
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve
from mlip_deploy.validation.case import Hardware


class UnfinishedError(Exception):
    """The recipe came to no number because of the model, such as a relaxation without end: a failed check."""


@dataclass(frozen=True)
class Metric:
    """One number of a recipe, judged by its absolute value."""

    quantity: str
    unit: str
    threshold: float | None
    """None: reported, not judged"""
    source: str
    """of the reference value, then of the threshold"""


@dataclass(frozen=True)
class Measurement:
    values: Mapping[str, float]
    """by the keys of Recipe.metrics"""
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """Where a recipe runs."""

    artifact: Artifact
    engine: str
    directory: Path
    """a folder of its own, for the recipe to make if it writes files"""
    hardware: Hardware
    progress: Progress

    def calculator(self) -> EngineCalculator:
        return EngineCalculator(self)


@dataclass(frozen=True)
class Recipe:
    name: str
    purpose: str
    """one line: what would be wrong with a model that fails"""
    inputs: str
    """structures, cells, steps: what one needs to repeat it by hand"""
    metrics: Mapping[str, Metric]
    materials: Callable[[Sequence[str]], list[str]]
    """(elements that the user named, or none) -> what to measure; few where none is named"""
    elements_of: Callable[[str], set[str]]
    """(material) -> elements that the model must know"""
    measure: Callable[[str, Setting], Measurement]
    needs_stress: bool = False
    """not applicable to engines without one"""
    needs_heat_flux: bool = False
    """not applicable to engines without one, and to files whose heat flux is not exact"""
    packages: tuple[str, ...] = ()
    """that it imports and mlip-deploy does not bring, by their names in pip; looked for before anything runs"""


def of_elements(default: Sequence[str], known: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """`materials` of a recipe over elements: the default ones, or those of the known ones that the user named."""
    return lambda elements: [symbol for symbol in known if symbol in elements] if elements else list(default)


class EngineCalculator(Calculator):
    """An artifact in an engine, one structure at a time, as an ASE calculator."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  as ASE declares it

    def __init__(self, setting: Setting):
        super().__init__()  # type: ignore[no-untyped-call]
        self._setting = setting
        self._evaluate = evaluator(setting.engine)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        result = self._evaluate(self._setting.artifact.path, self.atoms, **self._setting.hardware._asdict())
        self.results = {"energy": result.energy, "free_energy": result.energy, "forces": result.forces}
        if result.stress is not None:
            self.results["stress"] = result.stress
        elif properties and "stress" in properties:
            raise PropertyNotImplementedError(f"{self._setting.engine} gives no stress")


def relax(atoms: Atoms, movable: Any = None, fmax: float = 0.01, steps: int = 300) -> None:
    """Relax in place until no force exceeds fmax (eV/Å).

    Args:
        movable: a filter of ASE over `atoms` to relax the cell as well.

    Raises:
        UnfinishedError: after so many steps.
    """
    optimizer = FIRE(movable if movable is not None else atoms, logfile=None)
    if not optimizer.run(fmax=fmax, steps=steps):
        largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        raise UnfinishedError(f"the relaxation still has forces of {largest:.3f} eV/Å after {steps} steps")


def percent(value: float, reference: float) -> float:
    """Deviation from a reference in percent."""
    return 100.0 * (value / reference - 1.0)
