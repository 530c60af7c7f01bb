"""What a calculator of ASE and a Context of OpenMM keep from one structure to the next, and positions that are none."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import openmm
from ase import Atoms

from mlip_deploy.conformance.ase import single_point as of_calculator
from mlip_deploy.conformance.errors import RefusedError
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.trial import Trial, sheared
from mlip_deploy.result import Result
from mlip_deploy.validation.case import Check, Outcome, judged, unmeasured
from mlip_deploy.validation.physics.tools import displaced, largest, outcome


@probe("calculator-reuse", engines=("ase",))
def calculator_reuse(trial: Trial) -> Outcome:
    """One calculator gives for any structure what a new calculator gives, whatever it computed before.

    One Atoms object keeps its calculator while positions, then the cell alone, then the elements, then the periodicity
    change in place, and comes back to where it began; each is compared with a new calculator. A calculator that looks
    at positions alone, or that keeps a neighbour list of another cell, gives old numbers. Forces that were handed out
    must not change later. The threshold is twice the noise.
    """
    start = trial.atoms
    kept = start.copy()
    kept.calc = trial.ase.factory()
    first = kept.get_forces()
    before = np.array(first)
    checks: list[Check] = []

    def compare(label: str) -> list[Check]:
        try:
            fresh = of_calculator(trial.ase.factory(), kept)
        except Exception as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        stress = kept.get_stress() if fresh.stress is not None else None
        found = Result(float(kept.get_potential_energy()), None, np.array(kept.get_forces()), stress)
        return trial.agreement(label, found, fresh, atomic=False)

    kept.positions[:] = displaced(start, np.random.default_rng(17).normal(scale=0.05, size=(len(start), 3))).positions
    checks += attempt("positions changed in place", compare, "positions changed in place")
    change, source = largest(first - before), "definition: they are the user's"
    checks.append(judged("forces handed out earlier: change", change, 0.0, "eV/Å", source))
    if kept.pbc.all():
        kept.set_cell(sheared(kept).cell, scale_atoms=False)
        checks += attempt("cell changed alone", compare, "cell changed alone")
    if len(set(kept.numbers)) > 1:
        kept.numbers[:] = np.roll(kept.numbers, 1)
        checks += attempt("elements exchanged", compare, "elements exchanged")
    if kept.pbc.all():
        kept.pbc = (True, True, False)
        checks += attempt("periodicity changed", compare, "periodicity changed")
    kept.pbc, kept.numbers[:] = start.pbc, start.numbers
    kept.set_cell(start.cell)
    kept.positions[:] = start.positions
    checks += attempt("back where it began", compare, "back where it began")
    return outcome(checks)


@probe("not-a-number", engines=("ase", "openmm"))
def not_a_number(trial: Trial) -> Outcome:
    """A position that is not a number gives an error, or numbers that are none either.

    A run that blew up hands such positions to the potential. One that leaves the atom out, or clips it to a cell, goes
    on with an energy that looks right. LAMMPS itself refuses such positions, whatever the style. The threshold is a
    definition.
    """
    broken = trial.atoms.copy()
    broken.positions[0, 1] = np.nan

    def check() -> list[Check]:
        (result,) = trial.evaluate([broken])
        finite = bool(np.isfinite(result.energy)) and bool(np.isfinite(result.forces).all())
        reason = f"an energy of {result.energy:.6g} eV and finite forces" if finite else ""
        verdict = "fail" if finite else "pass"
        return [unmeasured("a position that is not a number", verdict, reason, source="definition")]  # type: ignore[arg-type]

    def afterwards() -> list[Check]:
        return trial.agreement("the structure after it", trial.evaluate([trial.atoms])[0], trial.base)

    found = attempt("a position that is not a number", check)
    return outcome(found + attempt("the structure after it", afterwards))


@probe("context", engines=("openmm",))
def context(trial: Trial) -> Outcome:
    """A System that is copied or serialized, and a Context that is made anew, give the same.

    The System as XML and back, a deep copy, and a Context after `reinitialize`; and a Context that has seen other
    positions and another box before. A force that keeps its parameters outside of the System loses them here. A force
    that says that it cannot be serialized has refused. The threshold is twice the noise.
    """
    target, atoms, moved = trial.openmm, trial.atoms, _other(trial.atoms)
    system = target.system(atoms)
    expected = target.single_point(target.context(system), atoms)

    def of(label: str, other: openmm.System) -> list[Check]:
        return trial.agreement(label, target.single_point(target.context(other), atoms), expected)

    def serialized() -> list[Check]:
        return of("serialized", openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system)))

    def copied() -> list[Check]:
        return of("copied", copy.deepcopy(system))

    def moved_and_back(anew: bool) -> list[Check]:
        context = target.context(system)
        target.single_point(context, moved)
        if anew:
            context.reinitialize()
        label = "reinitialized" if anew else "other positions and box, and back"
        return trial.agreement(label, target.single_point(context, atoms), expected)

    checks = attempt("serialized", _said, serialized) + attempt("copied", _said, copied)
    checks += attempt("reinitialized", _said, moved_and_back, True)
    return outcome(checks + attempt("moved and back", _said, moved_and_back, False))


def _said(work: Callable[..., list[Check]], *arguments: object) -> list[Check]:
    """Checks; any exception of the engine is its refusal."""
    try:
        return work(*arguments)
    except Exception as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from error


def _other(atoms: Atoms) -> Atoms:
    moved = displaced(atoms, np.random.default_rng(18).normal(scale=0.05, size=(len(atoms), 3)))
    if atoms.pbc.all():
        moved.set_cell(1.02 * atoms.cell.array, scale_atoms=True)
    return moved


PROBES: tuple[Probe, ...] = (calculator_reuse, not_a_number, context)
