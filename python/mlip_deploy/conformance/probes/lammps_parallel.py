"""The same numbers on any number of ranks, however the box is divided, with Newton's third law on or off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms

from mlip_deploy.conformance.lammps import Snapshot, dump, state
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.probes.lammps_runs import SKIN, hot, replayed
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.engines.lammps import LAMMPSError
from mlip_deploy.result import Result
from mlip_deploy.validation.case import Check, Outcome, unmeasured
from mlip_deploy.validation.physics.tools import outcome

TILED = "comm_style tiled\nbalance 1.0 rcb\n"


def _state(trial: Trial, atoms: Atoms, before: str = "", **options: Any) -> Snapshot:
    return trial.lammps.deck(atoms, before + state("state"), **options).snapshot("state")


def _several(trial: Trial) -> list[int]:
    return [ranks for ranks in trial.ranks if ranks > 1]


def _none() -> Outcome:
    return outcome([unmeasured("several ranks", "not-tested", "one rank was asked for. Add: --ranks 1,2,4")])


@probe("ranks", engines=("lammps",))
def ranks(trial: Trial) -> Outcome:
    """Energy, forces, stress and atomic energies do not depend on the number of ranks.

    The same structure on each number of ranks, in bricks and tiled (`comm_style tiled`, `balance rcb`), against one
    rank; and 60 hot steps on several ranks, in which atoms migrate, replayed on one. A ghost whose force is not sent
    back, or a message that does not pass the border, is wrong in parallel alone. The threshold is twice the noise.
    """
    if not _several(trial):
        return _none()
    one = _state(trial, trial.large)
    checks: list[Check] = []

    def compare(label: str, before: str, count: int) -> list[Check]:
        try:
            found = _state(trial, trial.large, before, ranks=count)
        except LAMMPSError as error:
            if before and "comm_style tiled cannot exceed" in str(error):  # of LAMMPS itself, whatever the style
                return [unmeasured(label, "not-tested", f"the structure is too small: {error}")]
            raise
        return trial.agreement(label, found.result, one.result)

    for count in _several(trial):
        checks += attempt(f"{count} ranks", compare, f"{count} ranks", "", count)
        checks += attempt(f"{count} ranks, tiled", compare, f"{count} ranks, tiled", TILED, count)

    def migrating() -> list[Check]:
        body = f"neighbor {SKIN} bin\n" + hot(trial) + "fix nve all nve\n" + dump("moved", 30) + "thermo 30\nrun 60\n"
        found = trial.lammps.deck(trial.large, body, ranks=_several(trial)[0])
        return replayed(trial, f"NVE on {_several(trial)[0]} ranks", found, "moved")

    return outcome(checks + attempt("NVE on several ranks", migrating))


@probe("empty-ranks", engines=("lammps",))
def empty_ranks(trial: Trial) -> Outcome:
    """Ranks without atoms change nothing.

    The structure with a vacuum of four times its height above it, divided along that direction, so that ranks have no
    atoms and others no neighbours. A collective call that an empty rank leaves out waits for ever; here it fails after
    ten minutes. The threshold is twice the noise.
    """
    if not _several(trial):
        return _none()
    atoms = trial.large.copy()
    if atoms.pbc.all():
        cell = atoms.cell.array.copy()
        atoms.wrap()
        cell[2] *= 5.0
        atoms.set_cell(cell)
    one = _state(trial, atoms)

    def compare(count: int) -> list[Check]:
        commands = trial.lammps.commands_given.before(processors=f"1 1 {count}")
        found = _state(trial, atoms, ranks=count, commands=commands)
        return trial.agreement(f"{count} ranks", found.result, one.result)

    return outcome([check for n in _several(trial) for check in attempt(f"{n} ranks", compare, n)])


@probe("newton", engines=("lammps",))
def newton(trial: Trial) -> Outcome:
    """`newton on` and `newton off` give the same.

    With it off, LAMMPS lists pairs across the border on both sides and does not send forces of ghosts back. A style
    that needs one of them must say so. The threshold is twice the noise.
    """
    one = _state(trial, trial.large)

    def compare(setting: str, count: int) -> list[Check]:
        commands = trial.lammps.commands_given.before(newton=setting)
        found = _state(trial, trial.large, ranks=count, commands=commands)
        return trial.agreement(f"newton {setting}, {count} ranks", found.result, one.result)

    counts = [1, *_several(trial)[:1]]
    return outcome(
        [
            check
            for setting in ("on", "off")
            for n in counts
            for check in attempt(f"newton {setting}, {n} ranks", compare, setting, n)
        ]
    )


@probe("ghost-cutoff", engines=("lammps",))
def ghost_cutoff(trial: Trial) -> Outcome:
    """More ghosts than needed change nothing.

    `comm_modify cutoff` 4 Å beyond LAMMPS's own choice, as other styles and fixes ask for. A potential that takes every
    ghost for a neighbour counts too many. The threshold is twice the noise.
    """
    one = trial.lammps.deck(trial.large, state("state"))
    own = next(line for line in one.text.splitlines() if "ghost atom cutoff" in line)
    wider = float(own.split("=")[-1]) + 4.0
    found = _state(trial, trial.large, f"comm_modify cutoff {wider:g}\n")
    return outcome(trial.agreement("wider ghosts", found.result, one.snapshot("state").result))


@probe("ids", engines=("lammps",))
def ids(trial: Trial) -> Outcome:
    """Atom ids with gaps and in no order, and any kind of map of them, change nothing.

    Ids drawn from a range ten times as large as the number of atoms, with `atom_modify map` array and hash. Deleted
    and inserted atoms leave such ids. The threshold is twice the noise.
    """
    atoms = trial.large
    one = _state(trial, atoms)
    numbers = [int(k) + 1 for k in np.random.default_rng(15).choice(10 * len(atoms), len(atoms), replace=False)]

    def compare(label: str, map_of_ids: dict[str, str]) -> list[Check]:
        commands = trial.lammps.commands_given.before(**map_of_ids)
        found = _state(trial, atoms, ids=numbers, commands=commands)
        return trial.agreement(label, _in_order(found, numbers), one.result)

    maps = [("no map", {}), *((f"map {kind}", {"atom_modify": f"map {kind}"}) for kind in ("array", "hash"))]
    return outcome([check for label, settings in maps for check in attempt(label, compare, label, settings)])


def _in_order(found: Snapshot, numbers: list[int]) -> Result:
    """Of atoms whose ids are `numbers`, in that order."""
    rows = [found.ids.index(number) for number in numbers]
    energies = found.result.atomic_energies
    return replace(
        found.result,
        forces=found.result.forces[rows],
        atomic_energies=None if energies is None else energies[rows],
    )


PROBES: tuple[Probe, ...] = (ranks, empty_ranks, newton, ghost_cutoff, ids)
