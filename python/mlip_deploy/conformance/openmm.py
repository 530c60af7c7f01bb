"""A potential in OpenMM, given by a function that makes its System."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import openmm
from ase import Atoms
from openmm import unit
from openmm.app import Element, Topology

from mlip_deploy import _core
from mlip_deploy.conformance.errors import RefusedError
from mlip_deploy.engines.openmm import single_point, total_energies
from mlip_deploy.engines.openmm_box import in_reduced_box
from mlip_deploy.errors import MLIPError
from mlip_deploy.result import Array, Result


class OpenMMTarget:
    """A System on the Reference platform, where OpenMM has double precision.

    Args:
        factory: makes a System of a Topology, in which each atom has its element; one that is periodic has a box.
        name: for the reader.
    """

    engine = "openmm"
    energy_unit = _core.EV_IN_KJ_PER_MOL

    def __init__(self, factory: Callable[[Topology], openmm.System], name: str, elements: Sequence[str] = ()):
        self.factory, self.name = factory, name
        self.elements: Sequence[str] = tuple(elements)
        self._contents: tuple[object, ...] | None = None
        self._context: openmm.Context | None = None

    def system(self, atoms: Atoms) -> openmm.System:
        """A new System for some atoms.

        Raises:
            MLIPError: the function returned something else.
        """
        system = self.factory(topology_of(in_reduced_box(atoms)[0]))
        if not isinstance(system, openmm.System):
            raise MLIPError(f"{self.name} returned {type(system).__name__}, expected an openmm.System")
        return system

    def context(self, system: openmm.System, step: float = 0.001) -> openmm.Context:
        """A new Context.

        Args:
            step: ps, of velocity Verlet's time step.
        """
        return openmm.Context(system, openmm.VerletIntegrator(step), openmm.Platform.getPlatformByName("Reference"))

    def single_point(self, context: openmm.Context, atoms: Atoms) -> Result:
        """In a Context that is there, back in the frame of the atoms."""
        return single_point(context, *in_reduced_box(atoms))

    def evaluate(self, frames: Sequence[Atoms]) -> list[Result]:
        """Each structure; a Context serves those with the same atoms that follow each other, as in a run.

        Raises:
            RefusedError: OpenMM, or the function, raised an exception.
        """
        return [self._single_point(atoms) for atoms in frames]

    def _single_point(self, atoms: Atoms) -> Result:
        if len(set(atoms.pbc)) > 1:
            raise RefusedError("OpenMM has no mixed periodicity")
        contents = (tuple(atoms.get_chemical_symbols()), bool(atoms.pbc.all()))
        try:
            if self._context is None or contents != self._contents:
                self._context, self._contents = self.context(self.system(atoms)), contents
            return self.single_point(self._context, atoms)
        except MLIPError:
            raise
        except Exception as error:
            self._context = None
            raise RefusedError(f"{type(error).__name__}: {error}") from error

    def total_energies(self, atoms: Atoms, step: float, n_steps: int) -> Array:
        """In eV at each step of `step` ps, from rest."""
        context = self.context(self.system(atoms), step)
        self.single_point(context, atoms)
        return total_energies(context, n_steps)

    def describe(self) -> dict[str, Any]:
        return {"factory": self.name, "versions": {"openmm": metadata.version("openmm")}}

    def close(self) -> None:
        self._context = None


def topology_of(atoms: Atoms) -> Topology:
    """One residue with all atoms."""
    topology = Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for number, symbol in enumerate(atoms.get_chemical_symbols(), 1):
        topology.addAtom(f"{symbol}{number}", Element.getBySymbol(symbol), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in atoms.cell.array * 0.1] * unit.nanometer)
    return topology
