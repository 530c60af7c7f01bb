"""Structures through the ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_deploy.artifact.gate import doubts_ignored
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.result import Result


def evaluate(path: str | Path, atoms: Atoms, ranks: int = 1, threads: int = 0, device: str = "cpu") -> Result:
    """Energy, forces and stress of `atoms` (eV, Å)."""
    if ranks != 1:
        raise ValueError(f"ASE runs on one rank, {ranks} asked for")
    calculator = calculator_of(path, threads, device)
    atoms = atoms.copy()
    atoms.calc = calculator
    forces = np.array(atoms.get_forces())  # and all else in the same evaluation
    return Result(
        energy=float(atoms.get_potential_energy()),
        atomic_energies=np.array(atoms.get_potential_energies()) if "energies" in calculator.results else None,
        forces=forces,
        stress=np.array(atoms.get_stress()) if atoms.pbc.all() else None,
    )


def evaluate_many(
    path: str | Path, frames: Sequence[Atoms], ranks: int = 1, threads: int = 0, device: str = "cpu"
) -> list[Result]:
    """`evaluate` for each structure, one at a time.

    Not `mlip_deploy.evaluate_many`: in one graph with others a small structure is computed as a large one is, and a
    model that is wrong in large systems alone looks consistent.
    """
    return [evaluate(path, atoms, ranks, threads, device) for atoms in frames]


def calculator_of(path: str | Path, threads: int = 0, device: str = "cpu") -> MLIPCalculator:
    """The file's calculator, loaded once.

    Without the self-test, as in the other engines: checks say themselves how far a model is off.
    """
    path = Path(path).resolve()
    return _calculator(path, path.stat().st_mtime_ns, threads, device)


@lru_cache(maxsize=4)
def _calculator(path: Path, modified: int, threads: int, device: str) -> MLIPCalculator:
    """`modified` makes a rewritten file a different one."""
    with doubts_ignored():
        return MLIPCalculator(path, device=device, threads=threads, self_test=False)
