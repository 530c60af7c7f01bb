"""Fidelity: replay an artifact's fixtures in every engine and compare with the original framework."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from mlip_deploy.artifact.fixtures import Structure
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT32_NOISE_FACTOR, Tolerance, tolerance
from mlip_deploy.engines import ENGINES, evaluator, many_evaluator, missing, require_hardware
from mlip_deploy.errors import MLIPError, UnwritableError
from mlip_deploy.exporters.parts import enlarged
from mlip_deploy.progress import Progress, silent
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Result
from mlip_deploy.validation.case import Case, Check, Context, Outcome, unmeasured
from mlip_deploy.validation.parts import parts_with_ghosts

RANKS = (1, 2, 4)
"""MPI rank counts of the suite, for LAMMPS."""


class Comparison(BaseModel):
    """One structure in one engine against the original in float64."""

    engine: str
    ranks: int
    structure: str
    n_atoms: int
    isolated_atom: bool = False
    """one atom without images, whose energy has a tolerance of its own"""
    verdict: Literal["pass", "fail", "not-applicable", "not-tested"]
    energy_per_atom: float | None = None
    """|ΔE| / atoms, eV/atom"""
    atomic_energies: float | None = None
    """largest |ΔE_i| of one atom, eV; None where the engine has no per-atom energies"""
    forces: float | None = None
    """largest |ΔF| component, eV/Å"""
    stress: float | None = None
    """largest |Δσ| component, eV/Å³; None where the engine or the structure has no stress"""
    limit_atomic_energies: float | None = None
    """eV; the tolerance of one atom's energy"""
    reason: str = ""
    """why it failed, does not apply or was not tested"""


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
    parts: Check | None = None
    """of `check`: the model on a large crystal, and on parts of it with ghosts, in this process"""
    forces: list[tuple[float, float]] = Field(default=[], exclude=True)
    """eV/Å: every force component of the original and of the engine, for a parity plot"""

    @property
    def passed(self) -> bool:
        """Whether some structure passed, and neither a structure nor the parts failed."""
        verdicts = [comparison.verdict for comparison in self.comparisons]
        if self.parts is not None and self.parts.verdict == "fail":
            return False
        return "pass" in verdicts and "fail" not in verdicts


def check(
    path: str | Path,
    engines: Sequence[str] = ENGINES,
    ranks: Sequence[int] = (1, 2),
    *,
    device: str = "cpu",
    shuffled_ids: bool = False,
    progress: Progress = silent,
) -> FidelityReport:
    """Compute the reference structures of an artifact in engines, and compare with the original framework's results.

    The largest crystal among them is also computed as a supercell of several hundred atoms, and cut into parts with
    ghosts. An engine that is not installed is not tested; its comparisons say so.

    Parameters
    ----------
    path
        Artifact written by `mlip export`.
    engines
        Some of "ase", "lammps", "openmm".
    ranks
        MPI rank counts for LAMMPS; the others run on one.
    device
        Of the model: "cpu", "cuda", "cuda:N" or "auto".
    shuffled_ids
        Number the atoms in LAMMPS in another order and with gaps.
    progress
        Called with a line of text before each run.

    Returns
    -------
    FidelityReport
        One comparison for each structure, engine and number of ranks; `passed` is true if some structure passed and
        none failed.

    Raises
    ------
    MLIPError
        For a file that is not an artifact, an unknown engine, a number of ranks below 1, and a device that is none
        or is not here: before anything runs.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise MLIPError(f"--engines {','.join(engines)}: '{engine}' is not one of {', '.join(ENGINES)}")
    if not engines:
        raise MLIPError(f"--engines is empty. Name some of {', '.join(ENGINES)}")
    if not ranks or min(ranks) < 1:
        raise MLIPError(f"--ranks {','.join(map(str, ranks))}: expected numbers such as 1,2")
    require_hardware(device=device)
    artifact = Artifact(path)
    structures = artifact.fixtures().structures
    crystals = [structure for structure in structures if all(structure.pbc)]
    if not crystals:
        return _report(artifact, structures, engines, ranks, device, shuffled_ids, progress)
    crystal = max(crystals, key=lambda structure: len(structure.symbols))
    large = _supercell(crystal)
    collective = bool(artifact.contract.collectives)
    replayed = structures if collective else [*structures, large]
    report = _report(artifact, replayed, engines, ranks, device, shuffled_ids, progress)
    if collective:
        report.comparisons += [
            _without_numbers(engine, n_ranks, large, "not-applicable", NOT_EXTENSIVE)
            for engine, n_ranks in _runs(engines, ranks)
        ]
    progress(f"parts with ghosts: {len(large.symbols)} atoms")
    report.parts = parts_with_ghosts(artifact, large.atoms())
    return report


NOT_EXTENSIVE = "the model sums over all atoms, so that a supercell need not have the energy of its cells"


def _supercell(structure: Structure) -> Structure:
    """Several hundred atoms, with the original's results for the crystal, repeated."""
    atoms = enlarged(structure.atoms())
    copies = len(atoms) // len(structure.symbols)
    return structure.model_copy(
        update={
            "name": f"{structure.name}, {copies} cells",
            "symbols": atoms.get_chemical_symbols(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "energy": copies * structure.energy,
            "atomic_energies": copies * structure.atomic_energies,
            "forces": copies * structure.forces,
        }
    )


def _runs(engines: Sequence[str], ranks: Sequence[int]) -> list[tuple[str, int]]:
    """Engines with their numbers of ranks: only LAMMPS has several."""
    return [(engine, n_ranks) for engine in engines for n_ranks in (ranks if engine == "lammps" else (1,))]


def _report(
    artifact: Artifact,
    structures: Sequence[Structure],
    engines: Sequence[str],
    ranks: Sequence[int],
    device: str,
    shuffled_ids: bool,
    progress: Progress,
) -> FidelityReport:
    """The structures in the engines against the original."""
    fixtures = artifact.fixtures()
    bound = tolerance(artifact.contract.dtype, fixtures)
    isolated = tolerance(artifact.contract.dtype, fixtures, isolated_atom=True)
    comparisons = []
    forces: list[tuple[float, float]] = []
    for engine, n_ranks in _runs(engines, ranks):
        if reason := missing(engine):
            comparisons += [_without_numbers(engine, n_ranks, one, "not-tested", reason) for one in structures]
            continue
        progress(f"{engine}, {n_ranks} rank(s): {len(structures)} structures")
        replayed = _replay(engine, n_ranks, artifact.path, structures, shuffled_ids, device)
        for structure in structures:
            limits = isolated if structure.is_isolated_atom else bound
            found = replayed.get(structure.name)
            comparisons.append(_compare(engine, n_ranks, structure, found, limits))
            if isinstance(found, Result):
                forces += zip(structure.result().forces.ravel(), found.forces.ravel(), strict=True)
    return FidelityReport(
        artifact=artifact.path.name,
        sha256=artifact.sha256(),
        model=artifact.contract.model.name,
        dtype=artifact.contract.dtype,
        reference=fixtures.reference,
        tolerance_energy_per_atom=bound.energy_per_atom,
        tolerance_isolated_atom=isolated.energy_per_atom,
        tolerance_forces=bound.forces,
        tolerance_stress=bound.stress,
        comparisons=comparisons,
        forces=forces,
    )


def _replay(
    engine: str, ranks: int, path: str | Path, structures: Sequence[Structure], shuffled_ids: bool, device: str
) -> dict[str, Result | str]:
    """What the engine returned for each structure by name, or why it returned nothing."""
    done: dict[str, Result | str] = {}
    if engine == "openmm":
        mixed = [s.name for s in structures if any(s.pbc) and not all(s.pbc)]
        structures = [s for s in structures if s.name not in mixed]
    frames = [structure.atoms() for structure in structures]
    options: dict[str, Any] = {"ranks": ranks, "device": device}
    if shuffled_ids:
        options["ids"] = [gapped_ids(len(atoms)) for atoms in frames]
    try:
        results = many_evaluator(engine)(path, frames, **options)
        done |= {structure.name: result for structure, result in zip(structures, results, strict=True)}
    except UnwritableError:
        raise
    except MLIPError:
        # One structure stopped the engine: find out which.
        for structure, atoms in zip(structures, frames, strict=True):
            try:
                done[structure.name] = evaluator(engine)(path, atoms, ranks=ranks, device=device)
            except UnwritableError:
                raise
            except MLIPError as error:
                done[structure.name] = str(error)
    return done


def _without_numbers(
    engine: str, ranks: int, structure: Structure, verdict: Literal["not-applicable", "not-tested"], reason: str
) -> Comparison:
    return Comparison(
        engine=engine,
        ranks=ranks,
        structure=structure.name,
        n_atoms=len(structure.symbols),
        isolated_atom=structure.is_isolated_atom,
        verdict=verdict,
        reason=reason,
    )


def gapped_ids(n_atoms: int) -> list[int]:
    """Atom ids in no order and with gaps, the same at every call."""
    return [int(3 + 7 * k) for k in np.random.default_rng(11).permutation(n_atoms)]


def _compare(engine: str, ranks: int, structure: Structure, found: Result | str | None, bound: Tolerance) -> Comparison:
    truth = structure.result()
    base: dict[str, Any] = {
        "engine": engine,
        "ranks": ranks,
        "structure": structure.name,
        "n_atoms": len(structure.symbols),
        "isolated_atom": structure.is_isolated_atom,
    }
    if found is None:
        return Comparison(**base, verdict="not-applicable", reason="OpenMM is periodic in all directions or in none")
    if isinstance(found, str):
        return Comparison(**base, verdict="fail", reason=found)
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
    return Comparison(
        **base,
        **differences,
        limit_atomic_energies=bound.atomic_energies,
        verdict="fail" if reasons else "pass",
        reason="; ".join(reasons),
    )


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


def cases(context: Context) -> list[Case]:
    """The fixtures in every engine, and in LAMMPS on 1, 2 and 4 ranks and with ids out of order."""

    def replay(engine: str, ranks: int, shuffled_ids: bool = False) -> Case:
        name = engine + (f", {ranks} rank(s)" if engine == "lammps" else "")
        name += ", shuffled and gapped ids" if shuffled_ids else ""

        def run(context: Context, progress: Progress) -> Outcome:
            structures = context.artifact.fixtures().structures
            device = context.hardware.device
            report = _report(context.artifact, structures, [engine], [ranks], device, shuffled_ids, progress)
            return _outcome(report, name, engine)

        return Case("fidelity", name, "A file that computes something else here than the original model.", run)

    replays = [replay(engine, n) for engine in ENGINES for n in (RANKS if engine == "lammps" else (1,))]
    return [*replays, *(replay("lammps", n, shuffled_ids=True) for n in RANKS[:2]), PRECISION]


def _outcome(report: FidelityReport, name: str, engine: str) -> Outcome:
    source = (
        f"{FLOAT32_NOISE_FACTOR:g} times the original's own float32 noise, measured at export"
        if report.dtype == "float32"
        else "100 times the largest difference seen for 7net-0 in float64 (mlip_deploy/artifact/tolerances.py)"
    )
    checks = []
    for found in report.comparisons:
        energy = report.tolerance_isolated_atom if found.isolated_atom else report.tolerance_energy_per_atom
        rows = [
            ("energy", found.energy_per_atom, energy, "eV/atom"),
            ("largest difference of an atomic energy", found.atomic_energies, found.limit_atomic_energies, "eV"),
            ("largest difference of a force component", found.forces, report.tolerance_forces, "eV/Å"),
            ("largest difference of a stress component", found.stress, report.tolerance_stress, "eV/Å³"),
        ]
        if found.energy_per_atom is None:
            checks.append(_whole(found))
            continue
        for quantity, value, limit, unit in rows:
            if value is None or limit is None:
                continue
            checks.append(
                Check(
                    quantity=f"{found.structure} ({found.n_atoms} atoms): {quantity}",
                    value=value,
                    unit=unit,
                    threshold=limit,
                    source=source,
                    verdict="pass" if value <= limit else "fail",
                )
            )
    if not checks:
        checks.append(
            Check(
                quantity="fixtures",
                value=0.0,
                unit="structures",
                threshold=1.0,
                source="definition",
                verdict="fail",
                reason="the file holds no fixtures, so nothing shows that it is the original model. Export it anew",
            )
        )
    return Outcome(
        suite="fidelity",
        case=name,
        engine=engine,
        purpose=f"Against {report.reference} in float64, which computed the fixtures at export.",
        checks=checks,
        curves=[_parity(report)] if report.forces else [],
    )


def _parity(report: FidelityReport) -> Curve:
    original, engine = (list(column) for column in zip(*report.forces, strict=True))
    return Curve(
        title="Forces: the engine against the original",
        x_label="original / eV/Å",
        y_label="engine / eV/Å",
        series=[Series(label="", x=original, y=engine, style="points")],
        diagonal=True,
    )


def _whole(found: Comparison) -> Check:
    """A structure without numbers: it does not apply, the engine is not installed, or it stopped."""
    return unmeasured(f"{found.structure} ({found.n_atoms} atoms)", found.verdict, found.reason)


def _precision(context: Context, progress: Progress) -> Outcome:
    dtype = context.artifact.contract.dtype
    other = "float64" if dtype == "float32" else "float32"
    reason = f"this file computes in {dtype}. Export with --dtype {other} and validate that file beside it"
    check = unmeasured(other, "not-tested", reason)
    return Outcome(suite="fidelity", case=PRECISION.name, engine="-", purpose=PRECISION.purpose, checks=[check])


PRECISION = Case("fidelity", "precision", "Says which floating-point type was not tested.", _precision)
