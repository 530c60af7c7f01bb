"""`MLIPCalculator`: an ASE calculator that evaluates an artifact with the C++ core."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  loads libtorch from this environment before the core asks for it
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.optimize.optimize import Dynamics

from mlip_deploy import _core
from mlip_deploy.artifact.contract import Contract
from mlip_deploy.artifact.gate import warn_if_in_doubt
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.guard import Check, Guard
from mlip_deploy.result import CENTROID, Array, Evaluation, Result, stress_from_virial, stresses_from_virials

ON_DEMAND = ("virials", "heat_flux")
"""Properties that cost two steps more, and are computed when they are asked for."""

OF_COMMITTEE = ("deviation", "model_deviation")
"""Properties that cost a step of each member, and are computed when they are asked for."""


GRADE = "grade"
"""Property of a file with a domain."""
UNCERTAINTIES = ("energy_uncertainty", "energies_uncertainty")
"""Properties of a file whose domain was fitted to frames with energies."""


class CloseAtomsWarning(UserWarning):
    """Two atoms are closer than any bond. Energy and forces are meaningless there."""


class MLIPCalculator(Calculator):
    """Energy, per-atom energies, forces and stress (eV, Å) of an artifact, for ASE.

    Atoms may be periodic in any directions, in cells of any size. The stress (eV/Å³, Voigt order xx yy zz yz xz xy) is
    positive in tension. It is divided by the volume of the cell, the vacuum of a slab included, as in ASE and the
    models' frameworks, so it needs a cell of three vectors. Per-atom stresses, `atoms.get_stresses()`, add up to it;
    each atom of an edge gets half of the edge's contribution. A model's extra outputs, such as CHGNet's "magmoms" (μB),
    are properties too. They are computed on request, `atoms.get_magnetic_moments()`. Threads may share a calculator;
    they take turns. Copies and pickles of it load the file again, from its path.

    A file with a domain (docs/trust.md) has the property "grade", [n]. Where the domain was fitted to frames with
    energies there are "energy_uncertainty", eV, and "energies_uncertainty", [n] eV, of each atom's energy alone: these
    do not add up.

    For thermal conductivities there are two more properties (docs/heat-flux.md), exact for models with messages too.
    `calculator.get_property("virials", atoms)`, [n, 3, 3] in eV, holds W_j,ab = Σ_i (r_i - r_j)_a ∂E_i/∂r_j,b of each
    atom j. `calculator.get_property("heat_flux", atoms)`, [3] in eV Å per ASE's unit of time, is
    Σ_j W_j v_j + Σ_i v_i (E_i + K_i) with the velocities of the atoms; divide it by the volume for a flux density.

    Several files are a committee, `MLIPCalculator([a, b, c])`: the first drives, or their mean does, and two more
    properties say how far apart they are (docs/committee.md). `calculator.get_property("deviation", atoms)`, [n] in
    eV/Å, is the standard deviation of the force on each atom; "model_deviation", [6], is a line of DeePMD-kit's
    model_devi.out: the largest, smallest and mean deviation of virial components (eV per atom), then those of forces.

    Parameters
    ----------
    path
        Artifact written by `mlip export`, or several of them. The file determines the precision.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model, for the whole process; 0 leaves torch's setting.
    self_test
        Evaluate one reference structure of the file on this device, and refuse a model whose result differs.
    precision
        Of products of float32 matrices on a GPU: "full", or "tf32", faster, with forces that are a thousandth off.
        Whatever `torch.set_float32_matmul_precision` says does not reach the model.
    drive
        Whose energies, forces and stress a committee gives: "first", or "mean". The other properties are the first's.
    grade
        Give `results["grade"]` with every calculation: how far each atom is from the model's domain (docs/trust.md);
        above 1 is outside. Otherwise `get_property("grade", atoms)` gives it when it is asked for.
    settings
        Settings of the model by name, such as `charge=-1`; `mlip info` lists them. A value in `atoms.info` under the
        name of a setting applies to those atoms and has priority.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, a device that is not here, results here that are not those in the file, and
        for the mean of energies in different frames; in a calculation for an element that a model does not know and
        for positions that are not finite.

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
        path: str | Path | Sequence[str | Path],
        device: str = "cpu",
        threads: int = 0,
        self_test: bool = True,
        drive: str = "first",
        grade: bool = False,
        precision: str = "full",
        **settings: float | int | str,
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        self._turn = threading.RLock()
        paths = [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]
        self._arguments = ([one.resolve() for one in paths], device, threads, self_test, drive, grade, precision)
        self._with_grade = grade
        self._forces_asked = False  # of the last atoms
        self.artifacts = [Artifact(one) for one in paths]
        self._require_settings(settings, "MLIPCalculator")
        self._settings = self._given_settings(settings)
        self._evaluated_settings: dict[str, float | int | str] = {}
        self.potential = _core.Potential(
            [str(one) for one in paths],
            device=device,
            threads=threads,
            self_test=self_test,
            drive=drive,
            precision=precision,
        )
        self.implemented_properties = [*type(self).implemented_properties, *self.contract.extras]
        if len(paths) > 1:
            self.implemented_properties += OF_COMMITTEE
        if not self.potential.no_grades:
            self.implemented_properties.append(GRADE)
        elif grade:
            raise MLIPError(self.potential.no_grades)
        if not self.potential.no_uncertainties:
            self.implemented_properties += UNCERTAINTIES
        driving = self.artifacts if drive == "mean" else self.artifacts[:1]
        if not all(artifact.contract.atomic_energies_meaningful for artifact in driving):
            self.implemented_properties.remove("energies")
        if any(artifact.contract.positions for artifact in driving):
            self.implemented_properties = [
                name for name in self.implemented_properties if name not in ("stresses", *ON_DEMAND)
            ]
        for artifact in self.artifacts:
            warn_if_in_doubt(artifact, "ase")

    @property
    def artifact(self) -> Artifact:
        """The file; the first one of a committee."""
        return self.artifacts[0]

    @property
    def contract(self) -> Contract:
        """What the file says of its model; the first one of a committee."""
        return self.artifact.contract

    def _require_settings(self, names: Iterable[str], where: str) -> None:
        """Each is one of some member's."""
        known = {setting.name for artifact in self.artifacts for setting in artifact.contract.settings}
        self.contract.require_settings([name for name in names if name not in known], where)

    def _given_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of all members."""
        found: dict[str, Any] = {}
        for artifact in self.artifacts:
            found |= artifact.contract.given_settings(given)
        return found

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
        self._require_settings(settings, "MLIPCalculator.set()")
        changed = self._given_settings(settings)
        with self._turn:
            self._settings = {**self._settings, **changed}
            self.reset()  # type: ignore[no-untyped-call]
        return dict(changed)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation: ASE knows nothing of settings in `atoms.info`."""
        changes: list[str] = super().check_state(atoms, tol)  # type: ignore[no-untyped-call]
        return changes or (["settings"] if self._settings_of(atoms) != self._evaluated_settings else [])

    def _settings_of(self, atoms: Atoms) -> dict[str, Any]:
        return {**self._settings, **self._given_settings(atoms.info)}

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

        An energy alone costs about a third. If forces or stress of these atoms were asked for before, they are computed
        together with the energy, so that asking for both, one after the other, costs one evaluation.

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
        deviation = bool({*OF_COMMITTEE} & {*(properties or [])})
        virials = bool({*ON_DEMAND} & {*(properties or [])})
        if (virials or "stresses" in wanted) and "stresses" not in self.implemented_properties:
            raise PropertyNotImplementedError(
                f"{self.contract.model.name} has no virials of single atoms: its energy depends on the positions of "
                "all atoms. atoms.get_stress() is exact"
            )
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
            grades=with_grade,
            deviation=deviation,
            uncertainties=with_uncertainty,
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
            self.results |= {name: values[name] for name in UNCERTAINTIES}  # type: ignore[literal-required]
        if with_forces and has_volume:
            self.results["stress"] = stress_from_virial(values["virial"], system.get_volume())
        if "stresses" in wanted:
            self.results["stresses"] = stresses_from_virials(values["atom_virials"], system.get_volume())
        if virials:
            self._add_heat_flux(system, values)
        if deviation:
            self.results["deviation"] = values["deviation"]
            self.results["model_deviation"] = np.array(values["deviation_summary"])

    def _evaluate_together(self, frames: list[Atoms], settings: dict[str, Any], before: int) -> list[Result]:
        """In one pass; `before`: how many frames came before these, for messages."""
        structures = []
        for k, atoms in enumerate(frames):
            try:
                types = self.contract.types_of(atoms.get_chemical_symbols())
            except MLIPError as error:
                raise MLIPError(f"frame {before + k} (counted from 0): {error}") from error
            structures.append((atoms.positions, types, atoms.cell.array, atoms.pbc.tolist()))
        with self._turn:
            found = self.potential.compute_many(structures, settings=list(settings.items()), counted_from=before)
        results = []
        for atoms, values in zip(frames, found, strict=True):
            if "close_pair" in values:
                warnings.warn(values["close_pair"], CloseAtomsWarning, stacklevel=4)
            volume = atoms.get_volume() if atoms.cell.rank == 3 else None
            results.append(
                Result(
                    energy=values["energy"],
                    atomic_energies=values["energies"] if self.contract.atomic_energies_meaningful else None,
                    forces=values["forces"],
                    stress=stress_from_virial(values["virial"], volume) if volume else None,
                )
            )
        return results

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


class MLIPGuard:
    """Says when ASE dynamics or an optimisation leaves what its models know, and keeps the frames (docs/guard.md).

    `MLIPGuard(dynamics, 10, grade=1.5, dump="frames.extxyz")` attaches itself. What it found is in `checks`.

    Parameters
    ----------
    dynamics
        Dynamics or an optimiser, of atoms with an MLIPCalculator.
    every
        Steps between checks.
    grade
        Threshold of the grade of any atom, for a file with a domain.
    deviation
        Threshold of the standard deviation of the force on any atom over the committee, eV/Å.
    uncertainty
        Threshold of the calibrated uncertainty of any atom's energy, eV, for a file with a domain that was fitted to
        frames with energies.
    action
        "warn", or "stop", which raises GuardError out of `dynamics.run`.
    dump
        Where to append frames with an atom above a threshold, in extended XYZ.
    max
        Frames that are written at most.
    spacing
        Å: a frame is written when an atom has moved this far since the last one.

    Raises
    ------
    MLIPError
        For atoms without an MLIPCalculator, a grade without a domain, an uncertainty without calibration, a
        deviation without a committee, and what cannot be used as it is given.

    Warns
    -----
    GuardWarning
        With action "warn": at the first alarm, and with each frame that is written.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        every: int,
        grade: float | None = None,
        deviation: float | None = None,
        action: str = "warn",
        dump: str | Path | None = None,
        max: int = 200,
        spacing: float = 0.5,
        uncertainty: float | None = None,
    ):
        self._dynamics = dynamics
        calculator = dynamics.atoms.calc
        if not isinstance(calculator, MLIPCalculator):
            raise MLIPError("MLIPGuard: the atoms have no MLIPCalculator. Type: atoms.calc = MLIPCalculator(path)")
        if grade is not None and calculator.potential.no_grades:
            raise MLIPError(f"MLIPGuard: grade is guarded, but {calculator.potential.no_grades}")
        if uncertainty is not None and calculator.potential.no_uncertainties:
            raise MLIPError(f"MLIPGuard: uncertainty is guarded, but {calculator.potential.no_uncertainties}")
        if deviation is not None and len(calculator.artifacts) == 1:
            raise MLIPError(
                "MLIPGuard: deviation is guarded, but one model does not deviate. Type: "
                "atoms.calc = MLIPCalculator([a, b, c])"
            )
        thresholds = {"grade": grade, "deviation": deviation, "uncertainty": uncertainty}
        self._guard = Guard(thresholds, action, dump, max, spacing)
        dynamics.attach(self, interval=every)

    @property
    def checks(self) -> list[Check]:
        """What was found, check by check."""
        return self._guard.checks

    def __call__(self) -> None:
        """Look at the atoms now, as the dynamics does every `every` steps."""
        atoms = self._dynamics.atoms
        properties = {"uncertainty": "energies_uncertainty"}
        values = {name: atoms.calc.get_property(properties.get(name, name), atoms) for name in self._guard.thresholds}
        self._guard.check(self._dynamics.nsteps, atoms, values, atoms.get_forces())


def evaluate_many(calculator: MLIPCalculator, frames: Iterable[Atoms], atoms_per_pass: int = 512) -> list[Result]:
    """Energy, forces and stress of many structures, small ones several at a time.

    For eight atoms a pass of the model costs more than the atoms do, so one pass for many structures is several times
    faster than one for each: screening, images of a path, replicas.

    Parameters
    ----------
    calculator
        Of the model, with its settings. What stands in the `info` of a structure is of that one.
    frames
        Structures of any sizes and elements; their own calculators are left alone.
    atoms_per_pass
        A pass takes structures up to this many atoms in all, or one larger structure. More need more memory.

    Returns
    -------
    list of Result
        In the order of the frames: eV, eV/Å, eV/Å³. The same as one by one, to the noise of the file's precision.

    Raises
    ------
    MLIPError
        For an element that the model does not know, and positions that are not finite: names the frame.

    Warns
    -----
    CloseAtomsWarning
        Once, of atoms on top of each other.
    """
    results: list[Result] = []
    for settings, together in _passes(calculator, frames, atoms_per_pass):
        results += calculator._evaluate_together(together, settings, len(results))
    return results


def _passes(
    calculator: MLIPCalculator, frames: Iterable[Atoms], most: int
) -> Iterator[tuple[dict[str, Any], list[Atoms]]]:
    """Neighbours in the list that have the same settings, of `most` atoms in all or a single one of more."""
    together: list[Atoms] = []
    settings: dict[str, Any] = {}
    for atoms in frames:
        own = calculator._settings_of(atoms)
        if together and (own != settings or sum(map(len, together)) + len(atoms) > most):
            yield settings, together
            together = []
        settings = own
        together.append(atoms)
    if together:
        yield settings, together


def _load(
    kind: type[MLIPCalculator], arguments: tuple[list[Path], str, int, bool, str, bool], settings: dict[str, Any]
) -> MLIPCalculator:
    return kind(*arguments, **settings)
