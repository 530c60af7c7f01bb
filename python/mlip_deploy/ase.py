"""`MLIPCalculator`: an ASE calculator that evaluates an artifact with the C++ core."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  loads libtorch from this environment before the core asks for it
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from mlip_deploy import _core
from mlip_deploy.artifact.contract import Contract
from mlip_deploy.artifact.gate import warn_if_in_doubt
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.result import CENTROID, Array, Evaluation, stress_from_virial, stresses_from_virials

ON_DEMAND = ("virials", "heat_flux")
"""Properties that cost two steps more, and are computed when they are asked for."""


GRADE = "grade"
"""Property of a file with a domain."""
UNCERTAINTIES = ("energy_uncertainty", "energies_uncertainty")
"""Properties of a file whose domain was fitted to frames with energies."""


class CloseAtomsWarning(UserWarning):
    """Two atoms are closer than any bond: energy and forces mean nothing there."""


class MLIPCalculator(Calculator):
    """Energy, per-atom energies, forces and stress (eV, Å) of an artifact, for ASE.

    Any mix of periodic directions; cells of any size. The stress (eV/Å³, Voigt order xx yy zz yz xz xy) is positive in
    tension, and over the volume of the cell, that of a slab's vacuum included, as ASE and the models' frameworks have
    it: it needs a cell of three vectors. Per-atom stresses, `atoms.get_stresses()`, add up to it; half of what an edge
    contributes belongs to each of its atoms. A model's extra outputs, such as CHGNet's "magmoms" (μB), are
    properties too: they are computed when they are asked for, `atoms.get_magnetic_moments()`. Threads may share a
    calculator: they take turns. Copies and pickles of it load the file again, by its path.

    A file with a domain (docs/trust.md) has the property "grade", [n]. Where the domain was fitted to frames with
    energies there are "energy_uncertainty", eV, and "energies_uncertainty", [n] eV, of each atom's energy alone: these
    do not add up.

    For thermal conductivities there are two more properties (docs/heat-flux.md), exact for models with messages too.
    `calculator.get_property("virials", atoms)`, [n, 3, 3] in eV, holds W_j,ab = Σ_i (r_i - r_j)_a ∂E_i/∂r_j,b of each
    atom j. `calculator.get_property("heat_flux", atoms)`, [3] in eV Å per ASE's unit of time, is
    Σ_j W_j v_j + Σ_i v_i (E_i + K_i) with the velocities of the atoms; divide it by the volume for a flux density.

    Parameters
    ----------
    path
        Artifact written by `mlip export`, which also says in which precision it computes.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model, for the whole process; 0 leaves torch's setting.
    self_test
        Evaluate the fixture that the file marks, here, and refuse a model that gives other numbers.
    grade
        Give `results["grade"]` with every calculation: how far each atom is from the model's domain (docs/trust.md);
        above 1 is outside. Otherwise `get_property("grade", atoms)` gives it when it is asked for.
    settings
        Of the model, by their names, such as `charge=-1`; `mlip info` lists them. What stands in `atoms.info` under
        the name of a setting is of those atoms, and comes before it.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, a device that is not here, results here that are not those in the file; in a
        calculation for an element that the model does not know and for positions that are not finite.

    Warns
    -----
    ValidationRecordWarning
        Of a file whose validation record says that it failed, or is stale.
    CloseAtomsWarning
        Once, of atoms on top of each other.
    """

    implemented_properties = [  # noqa: RUF012  ASE declares it on the instance
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
        *ON_DEMAND,
    ]

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        threads: int = 0,
        self_test: bool = True,
        grade: bool = False,
        **settings: float | int | str,
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        self._turn = threading.RLock()
        self._arguments = (Path(path).resolve(), device, threads, self_test, grade)
        self._with_grade = grade
        self._factor: Array | None = None  # of uncertainties
        self._forces_asked = False  # of the last atoms
        self.artifact = Artifact(path)
        self.contract.require_settings(settings, "MLIPCalculator")
        self._settings = self.contract.given_settings(settings)
        self._evaluated_settings: dict[str, float | int | str] = {}
        self.potential = _core.Potential(str(path), device=device, threads=threads, self_test=self_test)
        self.implemented_properties = [*type(self).implemented_properties, *self.contract.extras]
        if not self.potential.no_grades:
            self.implemented_properties.append(GRADE)
            domain = self.artifact.domain()
            self._factor = domain.uncertainty.factor() if domain and domain.uncertainty else None
            if self._factor is not None:
                self.implemented_properties += UNCERTAINTIES
        elif grade:
            raise MLIPError(self.potential.no_grades)
        if not self.contract.atomic_energies_meaningful:
            self.implemented_properties.remove("energies")
        warn_if_in_doubt(self.artifact, "ase")

    @property
    def contract(self) -> Contract:
        """What the file says of its model."""
        return self.artifact.contract

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles load the file again, by its path: what is computed is not part of them."""
        return _load, (type(self), self._arguments, self._settings)

    def set(self, **settings: float | int | str) -> dict[str, object]:
        """Change settings of the model, such as `charge=-1`.

        Raises
        ------
        MLIPError
            For what is no setting, or not accepted by it. What is loaded stays: make another calculator for another
            device or number of threads.
        """
        if not settings:  # as ASE's constructor calls it
            return {}
        self.contract.require_settings(settings, "MLIPCalculator.set()")
        changed = self.contract.given_settings(settings)
        with self._turn:
            self._settings = {**self._settings, **changed}
            self.reset()  # type: ignore[no-untyped-call]
        return dict(changed)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation: ASE knows nothing of settings in `atoms.info`."""
        changes: list[str] = super().check_state(atoms, tol)  # type: ignore[no-untyped-call]
        return changes or (["settings"] if self._settings_of(atoms) != self._evaluated_settings else [])

    def _settings_of(self, atoms: Atoms) -> dict[str, Any]:
        return {**self._settings, **self.contract.given_settings(atoms.info)}

    @property
    def self_test(self) -> str:
        """Of the self-test at load: "passed (1.2e-07 eV/atom, 14 ms)", or why there was none."""
        return self.potential.self_test

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As ASE's, for one thread at a time: it keeps the last atoms and results in the calculator."""
        with self._turn:
            if name == "heat_flux":
                self.results.pop(name, None)  # ASE compares positions, not velocities
            self._forces_asked |= self._is_of_gradients(name)
            return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    def _is_of_gradients(self, name: str) -> bool:
        return name not in ("energy", "free_energy", "energies", GRADE, *UNCERTAINTIES, *self.contract.extras)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute what ASE asks for, into `results`: energies always, extra outputs, forces and stress on demand.

        Energies alone cost about a third. Forces and stress come along with an energy if they were asked for of the
        atoms before: whoever asks for both, one after the other, then pays once.

        Parameters
        ----------
        atoms
            [n] atoms; the ones of the last call when left out.
        properties
            Of `implemented_properties`.
        system_changes
            What ASE found changed since the last call.

        Raises
        ------
        MLIPError
            For an element that the model does not know and positions that are not finite.
        PropertyNotImplementedError
            For the stress of atoms in a cell without a volume, and for virials of atoms that are not exact.
        """
        with self._turn:
            self._calculate(atoms, properties, system_changes)

    def _calculate(self, atoms: Atoms | None, properties: list[str] | None, system_changes: list[str]) -> None:
        self.results = {}  # not those of the atoms before, should anything fail
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        system = self.atoms
        if system is None:
            raise MLIPError("no atoms to calculate. Type: atoms.calc = calculator; atoms.get_potential_energy()")
        extras = [name for name in self.contract.extras if name in (properties or [])]
        wanted = {"stress", "stresses"} & set(properties or [])
        has_volume = system.cell.rank == 3
        if wanted and not has_volume:
            raise PropertyNotImplementedError(
                f"{wanted.pop()} is over the volume of the cell, which needs three vectors. For a slab give it a "
                "height: atoms.center(vacuum=10, axis=2)"
            )
        virials = bool({*ON_DEMAND} & {*(properties or [])})
        of_gradients = properties is None or any(map(self._is_of_gradients, properties))
        with_forces = of_gradients or self._forces_asked
        with_grade = self._with_grade or GRADE in (properties or [])
        with_uncertainty = bool({*UNCERTAINTIES} & {*(properties or [])})
        self._forces_asked = of_gradients
        types = self.contract.types_of(system.get_chemical_symbols())
        settings = self._settings_of(system)
        values = self.potential.compute(
            system.positions,
            types,
            system.cell.array,
            system.pbc.tolist(),
            extras=bool(extras),
            settings=list(settings.items()),
            atom_virials="stresses" in wanted,
            centroid_virials=virials,
            forces=with_forces,
            features=with_uncertainty,
            grades=with_grade,
        )
        self._evaluated_settings = settings
        if "close_pair" in values:
            warnings.warn(values["close_pair"], CloseAtomsWarning, stacklevel=4)
        self.results = {
            "energy": values["energy"],
            "free_energy": values["energy"],
            "energies": values["energies"],
            **{name: values["extras"][name] for name in extras},
        }
        if "energies" not in self.implemented_properties:
            del self.results["energies"]  # one atom's is an arbitrary share of the sum
        if with_forces:
            self.results["forces"] = values["forces"]
        if with_grade:
            self.results[GRADE] = values["grades"]
        if with_uncertainty:
            self._add_uncertainties(values["features"])
        if with_forces and has_volume:
            self.results["stress"] = stress_from_virial(values["virial"], system.get_volume())
        if "stresses" in wanted:
            self.results["stresses"] = stresses_from_virials(values["atom_virials"], system.get_volume())
        if virials:
            self._add_heat_flux(system, values)

    def _add_uncertainties(self, features: Array) -> None:
        assert self._factor is not None  # or ASE knows of no such property
        of_atoms = features @ self._factor.T
        self.results["energy_uncertainty"] = float(np.linalg.norm(of_atoms.sum(axis=0)))
        self.results["energies_uncertainty"] = np.linalg.norm(of_atoms, axis=1)

    def _add_heat_flux(self, system: Atoms, values: Evaluation) -> None:
        if reason := values["centroid_virials_inexact"]:
            name = self.contract.model.name
            raise PropertyNotImplementedError(f"{name}: virials of atoms would not be exact, since {reason}")
        virials: Array = values["centroid_virials"][:, CENTROID]
        velocities = system.get_velocities()
        kinetic = 0.5 * system.get_masses() * (velocities**2).sum(axis=1)
        self.results["virials"] = virials
        self.results["heat_flux"] = np.einsum("nab,nb->a", virials, velocities) + velocities.T @ (
            values["energies"] + kinetic
        )


def _load(
    kind: type[MLIPCalculator], arguments: tuple[Path, str, int, bool, bool], settings: dict[str, Any]
) -> MLIPCalculator:
    return kind(*arguments, **settings)
