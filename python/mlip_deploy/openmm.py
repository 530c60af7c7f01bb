"""`MLIPForce`: an OpenMM force whose energy is that of an artifact.

from mlip_deploy.openmm import MLIPForce
system.addForce(MLIPForce("7net-0.mlip.pt", topology))
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openmm
import torch  # noqa: F401  loads libtorch from this environment before the plugin asks for it
from ase import Atoms
from openmm import unit
from openmm.app import Element, Topology

from mlip_deploy.artifact.gate import warn_if_in_doubt
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.operators import LIBRARY_DIRECTORY
from mlip_deploy.result import Array

# Registers the XML form of MLIPForce, through which Python makes the C++ object.
_library = ctypes.CDLL(str(LIBRARY_DIRECTORY / "openmm" / "libOpenMMMLIP.so"), mode=ctypes.RTLD_GLOBAL)
_library.mlip_openmm_seconds_in_models.restype = ctypes.c_double
_library.mlip_openmm_grades.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p, ctypes.c_size_t]
LONGEST_MESSAGE = 4096


class MLIPForce(openmm.Force):  # type: ignore[misc]
    """An OpenMM Force evaluated from an artifact, on any platform, in OpenMM's units.

    Nothing in the force can change after construction but its group and its name, so it has no
    `updateParametersInContext`.

    Parameters
    ----------
    path
        Artifact written by `mlip export`.
    topology
        The System's topology, or the chemical symbol of every particle of the System in order.
    atoms
        Indices of the particles that the model sees, and which it alone sees; by default all of them. Their order
        does not matter.
    periodic
        Use the Context's periodic box; by default, whether the topology has one.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model, for the whole process; 0 leaves torch's setting.
    embed
        Carry the artifact's bytes in the force, and so in the System's XML, checkpoints of it and pickles. Otherwise
        they hold its path and its SHA-256, and a Context refuses a file that has changed.
    self_test
        A Context evaluates the fixture that the file marks, and refuses a model that gives other numbers here.

    settings
        Of the model, by their names, such as `charge=-1`; `mlip info` lists them. They are the defaults of parameters
        of the Context of the same names, a choice by its index: `context.setParameter("charge", 1)`.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, an element that the model does not know, or atoms that the topology does
        not have.

    Warns
    -----
    ValidationRecordWarning
        Of a file whose validation record says that it failed, or is stale. A Context of a force that was read
        from XML, or copied, warns on standard error, in C++ and Python alike.
    """

    def __init__(
        self,
        path: str | Path,
        topology: Topology | Sequence[str],
        atoms: Iterable[int] | None = None,
        periodic: bool | None = None,
        device: str = "cpu",
        threads: int = 0,
        embed: bool = False,
        self_test: bool = True,
        **settings: float | int | str,
    ):
        symbols = _symbols(topology)
        selected = _selected(atoms, len(symbols))
        if periodic is None:
            periodic = isinstance(topology, Topology) and topology.getPeriodicBoxVectors() is not None
        artifact = Artifact(path)
        defaults = _defaults(artifact, settings)
        for index in selected if selected is not None else range(len(symbols)):
            _check_element(index, symbols[index], artifact)
        content = Path(path).read_bytes()
        root = ElementTree.Element("Force", type="MLIPForce", version="1", forceGroup="0", name="MLIPForce")
        root.set("path", str(Path(path).resolve()))
        root.set("sha256", hashlib.sha256(content).hexdigest())
        root.set("particles", str(len(symbols)))
        root.set("periodic", str(int(periodic)))
        root.set("threads", str(threads))
        root.set("device", device)
        root.set("selfTest", str(int(self_test)))
        listed = ElementTree.SubElement(root, "Atoms")
        if selected is None:
            for symbol in symbols:
                ElementTree.SubElement(listed, "Atom", symbol=str(symbol))
        else:
            for index in selected:
                ElementTree.SubElement(listed, "Atom", symbol=str(symbols[index]), index=str(index))
        parameters = ElementTree.SubElement(root, "Settings")
        for name, value in defaults.items():
            ElementTree.SubElement(parameters, "Setting", name=name, value=repr(value))
        if embed:
            ElementTree.SubElement(root, "Artifact", base64=base64.b64encode(content).decode())
        warn_if_in_doubt(artifact, "openmm")
        root.set("announced", "1")  # so that a Context of this very force does not say it again
        # `this` is SWIG's handle, which owns the C++ object.
        self.this = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode")).this

    @classmethod
    def cast(cls, force: openmm.Force) -> MLIPForce:
        """Give the MLIPForce that a plain Force is, such as `system.getForce(0)` returns: the same C++ object.

        Parameters
        ----------
        force
            Any Force of a System.

        Raises
        ------
        MLIPError
            For any other kind of Force.
        """
        if not cls.is_mlip_force(force):
            raise MLIPError(f"the force '{force.getName()}' is a {_type_of(force)}, not an MLIPForce")
        same = cls.__new__(cls)
        same.this = force.this
        return same

    @staticmethod
    def is_mlip_force(force: openmm.Force) -> bool:
        """Whether `cast` accepts `force`."""
        return _type_of(force) == "MLIPForce"

    @property
    def path(self) -> str:
        """The artifact's absolute path when the force was made."""
        return self._definition().attrib["path"]

    @property
    def sha256(self) -> str:
        """Of the artifact's bytes."""
        return self._definition().attrib["sha256"]

    @property
    def device(self) -> str:
        """Of the model: "cpu", "cuda", "cuda:N" or "auto"."""
        return self._definition().attrib["device"]

    @property
    def threads(self) -> int:
        """CPU threads inside the model; 0 leaves torch's setting."""
        return int(self._definition().attrib["threads"])

    @property
    def self_test(self) -> bool:
        """Whether a Context evaluates the file's marked fixture first, and refuses a model that gives other numbers."""
        return self._definition().get("selfTest", "1") == "1"

    @property
    def embedded(self) -> bool:
        """Whether the force carries the artifact's bytes."""
        return self._definition().find("Artifact") is not None

    @property
    def settings(self) -> dict[str, float]:
        """Defaults of the Context's parameters, a choice by its index."""
        found = self._definition().iterfind("Settings/Setting")
        return {setting.attrib["name"]: float(setting.attrib["value"]) for setting in found}

    @property
    def elements(self) -> list[str]:
        """Chemical symbol of each atom that the model sees."""
        return [atom.attrib["symbol"] for atom in self._definition().iterfind("Atoms/Atom")]

    @property
    def atoms(self) -> list[int]:
        """Index of each particle that the model sees."""
        return [int(atom.get("index", k)) for k, atom in enumerate(self._definition().iterfind("Atoms/Atom"))]

    @staticmethod
    def seconds_in_models() -> float:
        """Wall-clock seconds that this process has spent inside models for all MLIPForces.

        What is left of a step's time is the cost of OpenMM and of the way in and out.
        """
        return float(_library.mlip_openmm_seconds_in_models())

    def grades(self, context: openmm.Context) -> Array:
        """How far each atom of the model is from its domain (docs/trust.md), [n_atoms] in the order of `atoms`.

        A grade above 1 is outside. This takes one evaluation of the model.

        Parameters
        ----------
        context
            Of the System that this very force is part of, with positions.

        Raises
        ------
        MLIPError
            For an artifact without a domain, with the line to type, and for a Context of another System.
        """
        grades = np.empty(len(self.elements))
        message = ctypes.create_string_buffer(LONGEST_MESSAGE)
        failed = _library.mlip_openmm_grades(
            int(self.this), int(context.this), grades.ctypes.data, message, LONGEST_MESSAGE
        )
        if failed:
            raise MLIPError(message.value.decode(errors="replace"))
        return grades

    def _definition(self) -> ElementTree.Element:
        return ElementTree.fromstring(openmm.XmlSerializer.serialize(self))


def _defaults(artifact: Artifact, given: dict[str, float | int | str]) -> dict[str, float]:
    """A value of each setting, a choice by its index."""
    artifact.contract.require_settings(given, "MLIPForce")
    defaults = {}
    for setting in artifact.contract.settings:
        value = given.get(setting.name, setting.default)
        if value is None:
            raise MLIPError(
                f"{artifact.contract.model.name} needs its setting '{setting.name}' ({setting.describe()}). Type: "
                f"MLIPForce(path, topology, {setting.name}=...)"
            )
        defaults[setting.name] = setting.number(value)
    return defaults


def _type_of(force: openmm.Force) -> str:
    if type(force) is not openmm.Force:
        return type(force).__name__
    # SWIG knows no wrapper for it, as for MLIPForce; its XML tells.
    try:
        return str(ElementTree.fromstring(openmm.XmlSerializer.serialize(force)).attrib["type"])
    except openmm.OpenMMException:
        return "Force without an XML form"


def _symbols(topology: Topology | Sequence[str]) -> list[str | None]:
    """None stands for a particle without an element, such as a virtual site."""
    if not isinstance(topology, Topology):
        return list(topology)
    return [atom.element.symbol if atom.element is not None else None for atom in topology.atoms()]


def _selected(atoms: Iterable[int] | None, n_particles: int) -> list[int] | None:
    if atoms is None:
        return None
    selected = [int(index) for index in atoms]
    if not selected:
        raise MLIPError("atoms=[] selects no atom. Name at least one, or leave atoms out for all of them")
    for index in selected:
        if not 0 <= index < n_particles:
            raise MLIPError(f"atoms: {index} is not one of the topology's {n_particles} atoms (counted from 0)")
    if len(set(selected)) != len(selected):
        twice = next(index for index in selected if selected.count(index) > 1)
        raise MLIPError(f"atoms: {twice} is named twice. Name each atom once")
    return selected


def _check_element(index: int, symbol: str | None, artifact: Artifact) -> None:
    if symbol is None:
        raise MLIPError(
            f"atom {index} (counted from 0) of the topology has no element. Give it one, or leave it out: atoms=[...]"
        )
    if symbol not in artifact.contract.elements:
        try:
            artifact.contract.types_of([symbol])
        except MLIPError as error:
            reason = str(error).replace("atom 0 ", f"atom {index} ", 1)
            raise MLIPError(f"{reason}, see: mlip info {artifact.path}") from error


def system_of(
    atoms: Atoms,
    path: str | Path,
    device: str = "cpu",
    threads: int = 0,
    embed: bool = False,
    self_test: bool = True,
) -> openmm.System:
    """Make an OpenMM System of ASE atoms with one MLIPForce: masses, box, elements and settings in `atoms.info`.

    Parameters
    ----------
    atoms
        Periodic in all directions, with a box in OpenMM's form, or in none.
    path
        Artifact.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model; 0 leaves torch's setting.
    embed
        Carry the artifact's bytes in the force.
    self_test
        See MLIPForce.

    Raises
    ------
    MLIPError
        For atoms that are periodic in some directions only, which OpenMM cannot describe.
    """
    if atoms.pbc.any() and not atoms.pbc.all():
        raise MLIPError("OpenMM is periodic in all directions or in none; this structure is periodic in some")
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    periodic = bool(atoms.pbc.all())
    if periodic:
        system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) * 0.1 for row in atoms.cell.array))
    symbols = atoms.get_chemical_symbols()
    force = MLIPForce(
        path,
        symbols,
        periodic=periodic,
        device=device,
        threads=threads,
        embed=embed,
        self_test=self_test,
        **Artifact(path).contract.given_settings(atoms.info),
    )
    system.addForce(force)
    return system


def topology_of(atoms: Atoms) -> Topology:
    """Make an OpenMM Topology of ASE atoms: one residue without bonds, and the box.

    Parameters
    ----------
    atoms
        As for `system_of`.
    """
    topology = Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in atoms.get_chemical_symbols():
        topology.addAtom(symbol, Element.getBySymbol(symbol), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors(atoms.cell.array * unit.angstrom)
    return topology
