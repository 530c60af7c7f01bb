"""What the physics cases share: structures, evaluation in the engine, noise, and how a number becomes a check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from mlip_deploy.artifact.fixtures import structures
from mlip_deploy.artifact.tolerances import Tolerance, tolerance
from mlip_deploy.engines import many_evaluator
from mlip_deploy.errors import MLIPError, UnwritableError
from mlip_deploy.progress import Progress
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Case, Check, Context, Outcome, unmeasured

Body = Callable[[Context, Progress], Outcome]


def case(name: str, purpose: str, body: Body, engine: str | None = None, without_cell: bool = False) -> Case:
    """A physics case. An engine that stops with a message is a failed check, not the end of the validation.

    Args:
        without_cell: its structures have none, so that it says nothing about a model that needs one.
    """

    def run(context: Context, progress: Progress) -> Outcome:
        try:
            applies = not (without_cell and context.artifact.contract.positions == "periodic")
            outcome = body(context, progress) if applies else not_applicable(NEEDS_A_CELL)
        except UnwritableError:
            raise
        except MLIPError as error:
            check = unmeasured("the engine ran", "fail", str(error), source="definition")
            outcome = Outcome(suite="physics", case=name, engine=engine or context.engine, purpose="", checks=[check])
        return outcome.model_copy(
            update={"suite": "physics", "case": name, "engine": engine or context.engine, "purpose": purpose}
        )

    return Case("physics", name, purpose, run)


def outcome(checks: Sequence[Check], **further: object) -> Outcome:
    """Name, engine and purpose are filled in by `case`."""
    return Outcome.model_validate(
        {"suite": "physics", "case": "", "engine": "", "purpose": "", "checks": list(checks), **further}
    )


NEEDS_A_CELL = "the model needs cells that are periodic in three directions"


def not_applicable(reason: str) -> Outcome:
    """Of a case that says nothing about this model."""
    return outcome([unmeasured("the case", "not-applicable", reason)])


def tested_elements(context: Context) -> list[str]:
    return context.elements or context.artifact.contract.elements


def fixture_structures(context: Context) -> dict[str, Atoms]:
    """The structures of the fixtures by name, built from the elements that were asked for.

    Without those that have one atom, those that the model refuses, and in OpenMM those periodic in some directions
    only.
    """
    all_of_them = structures(tested_elements(context), context.artifact.contract.positions)
    found = {name: atoms for name, atoms in all_of_them if len(atoms) > 1}
    if context.engine == "openmm":
        found = {name: atoms for name, atoms in found.items() if len(set(atoms.pbc)) == 1}
    return found


def periodic_structure(context: Context) -> Atoms:
    """A small one that all engines can run: with an odd number of atoms, where the elements make one."""
    found = fixture_structures(context)
    return found.get("odd number of atoms", found["sheared crystal"])


def evaluate(context: Context, frames: Sequence[Atoms]) -> list[Result]:
    """All frames in the engine, which starts once."""
    return many_evaluator(context.engine)(context.artifact.path, frames, **context.hardware._asdict())


MOST_GROWTH = 10.0
"""Limits grow up to so many times with the size of a result: a broken model whose numbers explode is not excused."""


@dataclass(frozen=True)
class Bounds(Tolerance):
    """Limits, and for a report what was done to them."""

    remark: str = ""
    """to be added to the source of a threshold; "" unless the growth was capped"""


def bounds(context: Context, results: Sequence[Result] = ()) -> Bounds:
    """How far a result in this engine may be from the exact value of the model: the bounds of fidelity.

    Noise grows with the numbers: for results with larger energies or forces than those of the fixtures, such as of
    elements that the fixtures do not have, the bounds are larger in proportion, up to MOST_GROWTH times.
    """
    fixtures = context.artifact.fixtures()
    known = [structure.result() for structure in fixtures.structures]
    growth = max(1.0, *(_ratio(size, results, known) for size in (_energy_per_atom, lambda r: largest(r.forces))))
    limits = tolerance(context.artifact.contract.dtype, fixtures)
    remark = _capped(f"the results are {growth:.3g} times those of the fixtures") if growth > MOST_GROWTH else ""
    factor = min(growth, MOST_GROWTH)
    return Bounds(
        energy_per_atom=factor * limits.energy_per_atom,
        atomic_energies=factor * limits.atomic_energies,
        forces=factor * limits.forces,
        stress=factor * limits.stress,
        remark=remark,
    )


def _capped(reason: str) -> str:
    return f"; capped at {MOST_GROWTH:g} times the limit for the fixtures, though {reason}"


def _energy_per_atom(result: Result) -> float:
    return abs(result.energy) / len(result.forces)


def _ratio(size: Callable[[Result], float], results: Sequence[Result], known: Sequence[Result]) -> float:
    reference = max((size(result) for result in known), default=0.0)
    found = max((size(result) for result in results), default=0.0)
    return found / reference if reference > 0.0 and np.isfinite(found) else 1.0


def lone_atom_bound(context: Context) -> float:
    """eV: the same for the energy of an atom far outside of the training data."""
    return tolerance(context.artifact.contract.dtype, context.artifact.fixtures(), isolated_atom=True).energy_per_atom


ROUNDINGS = 10.0
"""Roundings of an energy in the floating-point type, for structures unlike the fixtures, with larger numbers inside."""


def noise_far_from_fixtures(context: Context, results: Sequence[Result]) -> tuple[float, str]:
    """eV/atom: the fidelity bound, that of an isolated atom, or a few roundings of the energy per atom if larger.

    Up to MOST_GROWTH times the larger of the two bounds; then with a remark for the source of a threshold.
    """
    base = max(bounds(context).energy_per_atom, lone_atom_bound(context))
    rounding = ROUNDINGS * float(np.finfo(context.artifact.contract.dtype).eps) * max(map(_energy_per_atom, results))
    if rounding <= MOST_GROWTH * base:
        return max(base, rounding), ""
    return MOST_GROWTH * base, _capped(f"{ROUNDINGS:g} roundings of the energy are {rounding:.2g} eV/atom")


def reported(quantity: str, value: float, unit: str, reason: str = "reported, not judged") -> Check:
    return Check(
        quantity=quantity,
        value=float(value) if np.isfinite(value) else None,
        unit=unit,
        threshold=None,
        source="",
        verdict="not-applicable",
        reason=reason,
    )


def displaced(atoms: Atoms, displacement: Array) -> Atoms:
    """A copy with `displacement` [n, 3] Å added."""
    moved: Atoms = atoms.copy()
    moved.positions = atoms.positions + displacement
    return moved


def largest(values: Array) -> float:
    return float(np.abs(values).max()) if values.size else 0.0
