"""A potential behind an ASE calculator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

from mlip_deploy.conformance.errors import RefusedError
from mlip_deploy.result import Array, Result


class ASETarget:
    """A calculator, which is made once and serves all structures, as users have it.

    Args:
        factory: what makes a calculator when it is called without arguments.
        name: for the reader.
        elements: that the structures may have.
    """

    engine = "ase"
    energy_unit = 1.0

    def __init__(self, factory: Callable[[], Calculator], name: str, elements: Sequence[str] = ()):
        self.factory, self.name = factory, name
        self.elements: Sequence[str] = tuple(elements)
        self._calculator: Calculator | None = None

    def evaluate(self, frames: Sequence[Atoms]) -> list[Result]:
        """Each structure, one after another with the same calculator.

        Raises:
            RefusedError: the calculator raised an exception, whatever it was.
        """
        calculator = self.calculator()
        try:
            return [single_point(calculator, atoms) for atoms in frames]
        except Exception as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error

    def calculator(self) -> Calculator:
        """The one that serves all structures."""
        if self._calculator is None:
            self._calculator = self.factory()
        return self._calculator

    def total_energies(self, atoms: Atoms, step: float, n_steps: int) -> Array:
        """In eV at each step of `step` ps, from rest."""
        moving = atoms.copy()
        moving.calc = self.calculator()
        energies = [moving.get_total_energy()]
        dynamics = VelocityVerlet(moving, timestep=1000.0 * step * units.fs)
        for _ in range(n_steps):
            dynamics.run(1)
            energies.append(moving.get_total_energy())
        return np.array(energies)

    def describe(self) -> dict[str, Any]:
        module = getattr(self.factory, "__module__", "").partition(".")[0]
        versions = {"ase": metadata.version("ase")}
        for package in metadata.packages_distributions().get(module, [])[:1]:
            versions[package] = metadata.version(package)
        return {"factory": self.name, "versions": versions}

    def close(self) -> None:
        self._calculator = None


def single_point(calculator: Calculator, atoms: Atoms) -> Result:
    """Energy, forces, and stress and atomic energies where the calculator gives them."""
    atoms = atoms.copy()
    atoms.calc = calculator
    energy = float(atoms.get_potential_energy())
    forces = np.array(atoms.get_forces())
    stress = _optional(atoms.get_stress) if atoms.pbc.all() else None
    energies = _optional(atoms.get_potential_energies) if "energies" in calculator.implemented_properties else None
    return Result(energy=energy, atomic_energies=energies, forces=forces, stress=stress)


def _optional(ask: Callable[[], Any]) -> Any:
    try:
        return np.array(ask())
    except (PropertyNotImplementedError, NotImplementedError):
        return None
