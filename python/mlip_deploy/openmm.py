"""`MLIPForce`: an OpenMM force whose energy is that of an artifact.

from mlip_deploy.openmm import MLIPForce
system.addForce(MLIPForce("7net-0.mlip.pt", topology))
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openmm
import openmm.version
from ase import Atoms
from openmm import unit
from openmm.app import Element, Simulation, Topology

from mlip_deploy.artifact.contract import Setting
from mlip_deploy.artifact.gate import warn_if_in_doubt
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.guard import Check, Guard, GuardError
from mlip_deploy.libraries import LIBRARY_DIRECTORY, load_library, openmm_mismatch
from mlip_deploy.result import Array

if _mismatch := openmm_mismatch(openmm.version.full_version):
    raise _mismatch.error()
load_library()
# Registers the XML form of MLIPForce, through which Python makes the C++ object.
_library = ctypes.CDLL(str(LIBRARY_DIRECTORY / "openmm" / "libOpenMMMLIP.so"), mode=ctypes.RTLD_GLOBAL)
_library.mlip_openmm_seconds_in_models.restype = ctypes.c_double
_library.mlip_openmm_deviation.restype = ctypes.c_char_p
_library.mlip_openmm_deviation.argtypes = [ctypes.c_void_p] * 4
_library.mlip_openmm_grades.restype = ctypes.c_char_p
_library.mlip_openmm_grades.argtypes = [ctypes.c_void_p] * 3
_library.mlip_openmm_uncertainty.restype = ctypes.c_char_p
_library.mlip_openmm_uncertainty.argtypes = [ctypes.c_void_p] * 4
_library.mlip_openmm_why_not.restype = ctypes.c_char_p
_library.mlip_openmm_why_not.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]


@dataclass(frozen=True)
class Deviation:
    """How far apart the members of a committee are: standard deviations over the members."""

    of_atoms: Array
    """[n] eV/Å, of the force on each atom that the model sees, in the order of `MLIPForce.atoms`"""
    summary: Array
    """[6], a line of DeePMD-kit's model_devi.out: the largest, smallest and mean deviation of virial components (eV per
    atom), then those of forces (eV/Å)"""


@dataclass(frozen=True)
class Uncertainty:
    """How uncertain energies are, calibrated with labels (docs/trust.md)."""

    of_energy: float
    """eV, of the energy of all atoms together"""
    of_atoms: Array
    """[n] eV, of each atom's energy alone, in the order of `MLIPForce.atoms`: these do not add up"""


class MLIPForce(openmm.Force):  # type: ignore[misc]
    """An OpenMM Force evaluated from an artifact, on any platform, in OpenMM's units.

    Nothing in the force can change after construction but its group and its name, so it has no
    `updateParametersInContext`. Several files are a committee, `MLIPForce([a, b, c], topology)` (docs/committee.md).

    Parameters
    ----------
    path
        Artifact written by `mlip export`, or several of them.
    topology
        The System's topology, or the chemical symbol of every particle of the System in order.
    atoms
        Indices of the particles that the model sees; by default all of them. The model does not see any others. The
        order of the indices does not matter.
    periodic
        Use the Context's periodic box; by default, whether the topology has one.
    device
        "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads inside the model, for the whole process; 0 leaves torch's setting.
    embed
        Store the artifact's bytes in the force, and so in the System's XML and in pickles. Otherwise they contain its
        path and its SHA-256, and a Context refuses a file that has changed.
    self_test
        A Context first evaluates one reference structure of the file, and refuses a model whose result differs.
    precision
        Of products of float32 matrices on a GPU: "full", or "tf32", faster, with forces that are a thousandth off.
    drive
        Whose energy and forces a committee gives: "first", or "mean". With "first" the others are evaluated by
        `deviation` alone.
    settings
        Settings of the model by name, such as `charge=-1`; `mlip info` lists them. They are defaults of parameters of
        the Context with the same names: `context.setParameter("charge", 1)`. A choice is given by its index.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, an element that a model does not know, or atoms that the topology does
        not have. A Context refuses the mean of energies in different frames.

    Warns
    -----
    ValidationRecordWarning
        Of a file whose validation record says that it failed, or is stale. A Context of a force that was read
        from XML, or copied, warns on standard error, in C++ and Python alike.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        topology: Topology | Sequence[str],
        atoms: Iterable[int] | None = None,
        periodic: bool | None = None,
        device: str = "cpu",
        threads: int = 0,
        embed: bool = False,
        self_test: bool = True,
        drive: str = "first",
        precision: str = "full",
        **settings: float | int | str,
    ):
        symbols = _symbols(topology)
        selected = _selected(atoms, len(symbols))
        if periodic is None:
            periodic = isinstance(topology, Topology) and topology.getPeriodicBoxVectors() is not None
        paths = [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]
        artifacts = [Artifact(one) for one in paths]
        defaults = _defaults(artifacts, settings)
        for index in selected if selected is not None else range(len(symbols)):
            for artifact in artifacts:
                _check_element(index, symbols[index], artifact)
        root = ElementTree.Element("Force", type="MLIPForce", version="1", forceGroup="0", name="MLIPForce")
        _write_file(paths[0], embed, root)
        for member in paths[1:]:
            _write_file(member, embed, ElementTree.SubElement(root, "Member"))
        if len(paths) > 1:
            root.set("version", "2")
            root.set("drive", drive)
        root.set("particles", str(len(symbols)))
        root.set("periodic", str(int(periodic)))
        root.set("threads", str(threads))
        root.set("device", device)
        root.set("selfTest", str(int(self_test)))
        root.set("precision", precision)
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
        for artifact in artifacts:
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

    def deviation(self, context: openmm.Context) -> Deviation:
        """How far apart the members of a committee are, for a Context's positions. Costs a step of each member.

        Parameters
        ----------
        context
            Of a System that has this force.

        Raises
        ------
        MLIPError
            For a force of one model, and for a Context without this force.
        """
        of_atoms = np.zeros(len(self.elements))
        summary = np.zeros(6)
        pointers = [int(self.this), int(context.this), of_atoms.ctypes.data, summary.ctypes.data]
        _require_success(_library.mlip_openmm_deviation(*pointers))
        return Deviation(of_atoms, summary)

    @property
    def path(self) -> str:
        """The artifact's absolute path when the force was made; the first one's of a committee."""
        return self.paths[0]

    @property
    def paths(self) -> list[str]:
        """Of all members."""
        root = self._definition()
        return [root.attrib["path"], *(member.attrib["path"] for member in root.iterfind("Member"))]

    @property
    def sha256(self) -> str:
        """Of the artifact's bytes; the first one's of a committee."""
        return self._definition().attrib["sha256"]

    @property
    def drive(self) -> str:
        """Whose energy and forces a committee gives: "first" or "mean"."""
        return self._definition().get("drive", "first")

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

    def why_not(self, quantity: str, context: openmm.Context) -> str:
        """Why a Context has no "grade" or "uncertainty", with the line to type; "" where it has."""
        reason = _library.mlip_openmm_why_not(int(self.this), int(context.this), quantity.encode())
        return reason.decode(errors="replace") if reason else ""

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
        _require_success(_library.mlip_openmm_grades(int(self.this), int(context.this), grades.ctypes.data))
        return grades

    def uncertainty(self, context: openmm.Context) -> Uncertainty:
        """How uncertain the energy is, and that of each atom. This takes one evaluation of the model.

        Parameters
        ----------
        context
            As for `grades`.

        Raises
        ------
        MLIPError
            For an artifact whose domain was fitted without energies, with the line to type, and for a Context of
            another System.
        """
        of_energy, of_atoms = np.empty(1), np.empty(len(self.elements))
        pointers = [int(self.this), int(context.this), of_energy.ctypes.data, of_atoms.ctypes.data]
        _require_success(_library.mlip_openmm_uncertainty(*pointers))
        return Uncertainty(float(of_energy[0]), of_atoms)

    def _definition(self) -> ElementTree.Element:
        return ElementTree.fromstring(openmm.XmlSerializer.serialize(self))


def _require_success(failure: bytes | None) -> None:
    if failure:
        raise MLIPError(failure.decode(errors="replace"))


class MLIPGuard:
    """Says when a simulation leaves what its models know, keeps the frames, and stops it (docs/guard.md): a reporter.

    `MLIPGuard(simulation, 10, grade=1.5, dump="frames.extxyz")` appends itself to `simulation.reporters`. What it
    found is in `checks`.

    Parameters
    ----------
    simulation
        Of a System with one MLIPForce.
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
        "warn", or "stop", which raises GuardError out of `simulation.step`.
    dump
        Where to append frames with an atom above a threshold, in extended XYZ (Å, eV): the atoms that the model sees.
    max
        Frames that are written at most.
    spacing
        Å: a frame is written when an atom has moved this far since the last one.
    restart
        Where action "stop" writes the state first, as `simulation.loadState` reads it.

    Raises
    ------
    MLIPError
        For a System without an MLIPForce, or with several, a grade without a domain, an uncertainty without
        calibration, a deviation without a committee, and what cannot be used as it is given.

    Warns
    -----
    GuardWarning
        With action "warn": at the first alarm, and with each frame that is written.
    """

    def __init__(
        self,
        simulation: Simulation,
        every: int,
        grade: float | None = None,
        deviation: float | None = None,
        action: str = "warn",
        dump: str | Path | None = None,
        max: int = 200,
        spacing: float = 0.5,
        restart: str | Path = "mlip_guard.xml",
        uncertainty: float | None = None,
    ):
        forces = [force for force in simulation.system.getForces() if MLIPForce.is_mlip_force(force)]
        if len(forces) != 1:
            raise MLIPError(f"MLIPGuard: the System has {len(forces)} MLIPForces, expected one")
        self._force = MLIPForce.cast(forces[0])
        for quantity, threshold in (("grade", grade), ("uncertainty", uncertainty)):
            if threshold is not None and (reason := self._force.why_not(quantity, simulation.context)):
                raise MLIPError(f"MLIPGuard: {quantity} is guarded, but {reason}")
        if deviation is not None and len(self._force.paths) == 1:
            raise MLIPError(
                "MLIPGuard: deviation is guarded, but one model does not deviate. Type: MLIPForce([a, b, c], topology)"
            )
        self._elements, self._atoms = self._force.elements, self._force.atoms
        self._every = every
        self._restart = Path(restart)
        thresholds = {"grade": grade, "deviation": deviation, "uncertainty": uncertainty}
        self._guard = Guard(thresholds, action, dump, max, spacing)
        simulation.reporters.append(self)

    @property
    def checks(self) -> list[Check]:
        """What was found, check by check."""
        return self._guard.checks

    def describeNextReport(self, simulation: Simulation) -> tuple[int, bool, bool, bool, bool, bool]:  # noqa: N802
        """As OpenMM asks every reporter: unwrapped positions, in so many steps."""
        return self._every - simulation.currentStep % self._every, True, False, False, False, False

    def report(self, simulation: Simulation, state: openmm.State) -> None:
        """Look at the positions of a Context, as OpenMM does every `every` steps."""
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)[self._atoms]
        atoms = Atoms(self._elements, positions)
        if self._force.usesPeriodicBoundaryConditions():
            atoms.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
            atoms.pbc = True
        values = {}
        if "grade" in self._guard.thresholds:
            values["grade"] = self._force.grades(simulation.context)
        if "deviation" in self._guard.thresholds:
            values["deviation"] = self._force.deviation(simulation.context).of_atoms
        if "uncertainty" in self._guard.thresholds:
            values["uncertainty"] = self._force.uncertainty(simulation.context).of_atoms
        try:
            self._guard.check(simulation.currentStep, atoms, values, ids=self._atoms)
        except GuardError:
            simulation.saveState(str(self._restart))
            raise


def _write_file(path: Path, embed: bool, element: ElementTree.Element) -> None:
    content = path.read_bytes()
    element.set("path", str(path.resolve()))
    element.set("sha256", hashlib.sha256(content).hexdigest())
    if embed:
        ElementTree.SubElement(element, "Artifact", base64=base64.b64encode(content).decode())


def _defaults(artifacts: list[Artifact], given: dict[str, float | int | str]) -> dict[str, float]:
    """A value of each setting of any member, a choice by its index."""
    declared: dict[str, Setting] = {}
    defaults = {}
    for artifact in artifacts:
        contract = artifact.contract
        for setting in contract.settings:
            if setting != declared.setdefault(setting.name, setting):
                raise MLIPError(
                    f"members of a committee have different settings '{setting.name}': {setting.describe()}, and "
                    f"{declared[setting.name].describe()}. A Context has one parameter of a name"
                )
            value = given.get(setting.name, setting.default)
            if value is None:
                raise MLIPError(
                    f"{contract.model.name} needs its setting '{setting.name}' ({setting.describe()}). Type: "
                    f"MLIPForce(path, topology, {setting.name}=...)"
                )
            defaults[setting.name] = setting.number(value)
    artifacts[0].contract.require_settings([name for name in given if name not in declared], "MLIPForce")
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
