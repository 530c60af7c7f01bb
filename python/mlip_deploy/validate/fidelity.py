"""Fidelity: replay an artifact's fixtures in every engine and compare with the original framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from mlip_deploy.artifact import Artifact
from mlip_deploy.engines import evaluator
from mlip_deploy.fixtures import Structure
from mlip_deploy.result import Result
from mlip_deploy.tolerances import Tolerance, tolerance

Verdict = Literal["pass", "fail", "not-applicable"]


class Comparison(BaseModel):
    """One structure in one engine against the original in float64."""

    engine: str
    ranks: int
    structure: str
    n_atoms: int
    verdict: Verdict
    energy_per_atom: float | None = None
    """|ΔE| / atoms, eV/atom"""
    atomic_energies: float | None = None
    """largest |ΔE_i| of one atom, eV; None where the engine has no per-atom energies"""
    forces: float | None = None
    """largest |ΔF| component, eV/Å"""
    stress: float | None = None
    """largest |Δσ| component, eV/Å³; None where the engine or the structure has no stress"""
    reason: str = ""
    """why it failed or does not apply"""


class FidelityReport(BaseModel):
    """All comparisons of one artifact."""

    artifact: str
    sha256: str
    model: str
    dtype: str
    reference: str
    tolerance_energy_per_atom: float
    tolerance_isolated_atom: float
    tolerance_forces: float
    tolerance_stress: float
    comparisons: list[Comparison]

    @property
    def passed(self) -> bool:
        verdicts = [comparison.verdict for comparison in self.comparisons]
        return "pass" in verdicts and "fail" not in verdicts


def check(
    path: str | Path,
    engines: Sequence[str],
    ranks: Sequence[int],
    progress: Callable[[str], None] = lambda message: None,
) -> FidelityReport:
    """Replay the fixtures of an artifact.

    Args:
        engines: some of "ase", "lammps", "openmm".
        ranks: MPI rank counts for LAMMPS; the others run on one.
        progress: called with a line before each run.
    """
    artifact = Artifact(path)
    fixtures = artifact.fixtures()
    bound = tolerance(artifact.contract.dtype, fixtures)
    isolated = tolerance(artifact.contract.dtype, fixtures, isolated_atom=True)
    comparisons = []
    for engine in engines:
        evaluate = evaluator(engine)
        for n_ranks in ranks if engine == "lammps" else (1,):
            for structure in fixtures.structures:
                progress(f"{engine}, {n_ranks} rank(s): {structure.name}")
                limits = isolated if len(structure.symbols) == 1 else bound
                comparisons.append(_compare(engine, n_ranks, structure, path, evaluate, limits))
    return FidelityReport(
        artifact=Path(path).name,
        sha256=artifact.sha256(),
        model=artifact.contract.model.name,
        dtype=artifact.contract.dtype,
        reference=fixtures.reference,
        tolerance_energy_per_atom=bound.energy_per_atom,
        tolerance_isolated_atom=isolated.energy_per_atom,
        tolerance_forces=bound.forces,
        tolerance_stress=bound.stress,
        comparisons=comparisons,
    )


def _compare(
    engine: str,
    ranks: int,
    structure: Structure,
    path: str | Path,
    evaluate: Callable[..., Result],
    bound: Tolerance,
) -> Comparison:
    atoms, truth = structure.atoms(), structure.result()
    base: dict[str, Any] = {"engine": engine, "ranks": ranks, "structure": structure.name, "n_atoms": len(atoms)}
    if engine == "openmm" and atoms.pbc.any() and not atoms.pbc.all():
        return Comparison(**base, verdict="not-applicable", reason="OpenMM is periodic in all directions or in none")
    try:
        found = evaluate(path, atoms, ranks=ranks)
    except ValueError as error:
        return Comparison(**base, verdict="fail", reason=str(error))
    differences = differences_from(found, truth)
    per_atom, forces, stress = (differences[key] for key in ("energy_per_atom", "forces", "stress"))
    limits = [
        ("energy", per_atom, bound.energy_per_atom, "eV/atom"),
        # A wrong split of the energy over atoms hides in the total.
        ("atomic energies", differences["atomic_energies"], bound.atomic_energies, "eV"),
        ("forces", forces, bound.forces, "eV/Å"),
        ("stress", stress, bound.stress, "eV/Å³"),
    ]
    reasons = [
        f"{name} differ by {value:.2e} {unit}, tolerance {limit:.2e}"
        for name, value, limit, unit in limits
        if value is not None and not value <= limit
    ]
    return Comparison(**base, **differences, verdict="fail" if reasons else "pass", reason="; ".join(reasons))


def differences_from(found: Result, truth: Result) -> dict[str, Any]:
    """Largest absolute differences; None for what either side does not have."""

    def largest(a: np.ndarray | None, b: np.ndarray | None) -> float | None:
        return None if a is None or b is None else float(np.abs(a - b).max())

    return {
        "energy_per_atom": abs(found.energy - truth.energy) / len(truth.forces),
        "atomic_energies": largest(found.atomic_energies, truth.atomic_energies),
        "forces": largest(found.forces, truth.forces),
        "stress": largest(found.stress, truth.stress),
    }
