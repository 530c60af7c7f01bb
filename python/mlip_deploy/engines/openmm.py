"""Structures through OpenMM's MLIPForce."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import openmm
from ase import Atoms
from openmm import unit

from mlip_deploy import _core
from mlip_deploy.artifact.gate import doubts_ignored
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines.openmm_box import in_reduced_box
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import system_of
from mlip_deploy.result import Array, Result

FIRST_BOX = 20.0
"""Å, edge of the box in which a Context is made, before it gets that of a structure"""


_turn = threading.Lock()
"""Threads share the open Context."""


def evaluate(
    path: str | Path,
    atoms: Atoms,
    ranks: int = 1,
    threads: int = 0,
    platform: str | None = None,
    device: str = "cpu",
) -> Result:
    """Energy and forces of `atoms`, back in eV and Å in the frame of `atoms`.

    OpenMM has no per-atom energies and no virial of its own; both are None. The Context stays for the next call with
    the same file, options and atoms: a relaxation costs one.

    Raises:
        MLIPError: for mixed periodicity, which OpenMM does not have.
    """
    if ranks != 1:
        raise ValueError(f"OpenMM runs on one rank, {ranks} asked for")
    rotated, rotation = in_reduced_box(atoms)
    path = Path(path).resolve()
    contents = tuple(atoms.get_chemical_symbols()), tuple(bool(periodic) for periodic in atoms.pbc)
    settings = tuple(Artifact(path).contract.given_settings(atoms.info).items())
    try:
        with _turn:
            context = _open_context(path, path.stat().st_mtime_ns, contents, settings, threads, platform, device)
            return single_point(context, rotated, rotation)
    except openmm.OpenMMException as error:
        raise MLIPError(str(error)) from error


def evaluate_many(
    path: str | Path,
    frames: Sequence[Atoms],
    ranks: int = 1,
    threads: int = 0,
    platform: str | None = None,
    device: str = "cpu",
) -> list[Result]:
    """`evaluate` for each structure: fastest where structures with the same atoms follow each other."""
    return [evaluate(path, atoms, ranks, threads, platform, device) for atoms in frames]


@lru_cache(maxsize=1)
def _open_context(
    path: Path,
    modified: int,
    contents: tuple[tuple[str, ...], tuple[bool, ...]],
    settings: tuple[tuple[str, float | int | str], ...],
    threads: int,
    platform: str | None,
    device: str,
) -> openmm.Context:
    """The last one stays open; `modified` makes a rewritten file a different one.

    Args:
        contents: symbols and periodicity of the atoms; box and positions are set for each structure.
    """
    symbols, pbc = contents
    cell = FIRST_BOX * np.eye(3)
    atoms = Atoms(symbols, positions=np.zeros((len(symbols), 3)), cell=cell, pbc=pbc, info=dict(settings))
    return context_of(atoms, path, openmm.VerletIntegrator(0.001), threads, platform, device)


def context_of(
    atoms: Atoms,
    path: str | Path,
    integrator: openmm.Integrator,
    threads: int = 0,
    platform: str | None = None,
    device: str = "cpu",
) -> openmm.Context:
    """A Context of `atoms`, which fit OpenMM's box (`in_reduced_box`), with the positions set and no other force.

    For checks and validation, which say themselves how far a model is off: without the self-test, and silent about a
    file that has not been validated yet. On the platform "Reference", or
    on "CUDA" for a model on a GPU, unless another one is named; in double precision where there is a choice.
    """
    with doubts_ignored():
        system = system_of(atoms, path, device=device, threads=threads, self_test=False)
    if platform is None:
        names = {openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())}
        platform = "CUDA" if device != "cpu" and "CUDA" in names else "Reference"
    properties = {"Precision": "double"} if platform in ("CUDA", "OpenCL") else {}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    context.setPositions(atoms.positions * 0.1)
    return context


def single_point(context: openmm.Context, rotated: Atoms, rotation: np.ndarray) -> Result:
    """Of atoms in OpenMM's form of their cell, turned back (`in_reduced_box`); sets box and positions."""
    if rotated.pbc.all():
        context.setPeriodicBoxVectors(*(openmm.Vec3(*row) * 0.1 for row in rotated.cell.array))
    context.setPositions(rotated.positions * 0.1)
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / _core.EV_IN_KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return Result(
        energy=energy,
        atomic_energies=None,
        forces=np.asarray(forces) / _core.EV_IN_KJ_PER_MOL / 10.0 @ rotation,
        stress=None,
    )


def total_energies(context: openmm.Context, n_steps: int) -> Array:
    """Of velocity Verlet from rest, in a Context with OpenMM's VerletIntegrator and positions: [n_steps + 1] eV."""
    integrator, system = context.getIntegrator(), context.getSystem()
    step = integrator.getStepSize().value_in_unit(unit.picosecond)
    masses = [system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(system.getNumParticles())]
    start = context.getState(forces=True).getForces(asNumpy=True)
    start = np.asarray(start.value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    # OpenMM's velocities are those of half a step earlier: these are at rest at time zero.
    context.setVelocities(-0.5 * step * start / np.array(masses)[:, None])
    energies = []
    for _ in range(n_steps + 1):
        state = context.getState(energy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(total.value_in_unit(unit.kilojoule_per_mole) / _core.EV_IN_KJ_PER_MOL)
        integrator.step(1)
    return np.array(energies)
