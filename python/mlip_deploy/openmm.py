"""`MLIPForce`: an OpenMM force whose energy is that of an artifact.

from mlip_deploy.openmm import MLIPForce
system.addForce(MLIPForce("7net-0.mlip.pt", topology))
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import openmm
import torch  # noqa: F401  loads libtorch from this environment before the plugin asks for it
from openmm.app import Topology

from mlip_deploy.artifact import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.operators import LIBRARY_DIRECTORY

# Registers the XML form of MLIPForce, through which Python makes the C++ object.
ctypes.CDLL(str(LIBRARY_DIRECTORY / "openmm" / "libOpenMMMLIP.so"), mode=ctypes.RTLD_GLOBAL)


class MLIPForce(openmm.Force):  # type: ignore[misc]
    """An OpenMM Force evaluated from an artifact, on any platform.

    Args:
        path: artifact written by `mlip export`.
        atoms: the System's topology, or the chemical symbol of every particle in order.
        periodic: use the Context's periodic box; by default, whether the topology has one.
        device: "cpu", "cuda", "cuda:N" or "auto".
        threads: CPU threads inside the model, for the whole process; 0 leaves torch's setting.

    Raises:
        MLIPError: for a file that is not an artifact or an element that the model does not know.
    """

    def __init__(
        self,
        path: str | Path,
        atoms: Topology | Sequence[str],
        periodic: bool | None = None,
        device: str = "cpu",
        threads: int = 0,
    ):
        symbols = _symbols(atoms)
        if periodic is None:
            periodic = isinstance(atoms, Topology) and atoms.getPeriodicBoxVectors() is not None
        try:
            Artifact(path).contract.types_of(symbols)
        except MLIPError:
            raise
        except ValueError as error:
            raise MLIPError(f"{error}, see: mlip info {path}") from error
        elements = "".join(f"<Atom symbol={quoteattr(symbol)}/>" for symbol in symbols)
        made = openmm.XmlSerializer.deserialize(
            f'<Force type="MLIPForce" version="1" path={quoteattr(str(Path(path).resolve()))} '
            f'periodic="{int(periodic)}" '
            f'threads="{threads}" device={quoteattr(device)} forceGroup="0" name="MLIPForce">'
            f"<Elements>{elements}</Elements></Force>"
        )
        # `this` is SWIG's handle, which owns the C++ object.
        self.this = made.this


def _symbols(atoms: Topology | Sequence[str]) -> list[str]:
    if not isinstance(atoms, Topology):
        return list(atoms)
    symbols = []
    for atom in atoms.atoms():
        if atom.element is None:
            raise MLIPError(
                f"atom {atom.index} ('{atom.name}') of the topology has no element. Give it one, or pass symbols"
            )
        symbols.append(atom.element.symbol)
    return symbols


def system_of(atoms: Any, path: str | Path, **options: Any) -> openmm.System:
    """An OpenMM System of ASE atoms with one MLIPForce: masses, box and elements.

    Raises:
        MLIPError: for atoms that are periodic in some directions only, which OpenMM cannot describe.
    """
    if atoms.pbc.any() and not atoms.pbc.all():
        raise MLIPError("OpenMM is periodic in all directions or in none; this structure is periodic in some")
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    periodic = bool(atoms.pbc.all())
    if periodic:
        system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) * 0.1 for row in atoms.cell.array))
    system.addForce(MLIPForce(path, atoms.get_chemical_symbols(), periodic=periodic, **options))
    return system
