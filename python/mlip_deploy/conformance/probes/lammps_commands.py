"""Types, other styles, units, exclusions and insertions: what users put around a potential in LAMMPS."""

from __future__ import annotations

import numpy as np
from ase import Atom, Atoms

from mlip_deploy.conformance.lammps import dump, state
from mlip_deploy.conformance.probe import Probe, attempt, probe
from mlip_deploy.conformance.probes.lammps_runs import hot
from mlip_deploy.conformance.trial import SOURCE, Trial
from mlip_deploy.engines.lammps_files import UNITS
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Check, Outcome, judged, unmeasured
from mlip_deploy.validation.physics.tools import largest, outcome


@probe("types", engines=("lammps",))
def types(trial: Trial) -> Outcome:
    """The order of types, a type without atoms, and two types of one element change nothing.

    The pair_coeff is written anew: elements in reverse order, one more type of the same element of which half of the
    atoms are, and one more type of which there are none, NULL. A type taken for an index into the model's own elements
    gives the energy of another material. The threshold is twice the noise; to refuse NULL outside of hybrid is right.
    """
    target, atoms = trial.lammps, trial.large
    old = list(target.elements)
    one = target.deck(atoms, state("state")).snapshot("state")

    def compare(label: str, new: list[str], command: str = "") -> list[Check]:
        commands = target.commands_given.retyped(old, new)
        if commands is None:
            return [unmeasured(label, "not-tested", "pair_coeff does not end with the elements of the types")]
        elements = [symbol if symbol != "NULL" else old[0] for symbol in new]
        found = target.deck(atoms, command + state("state"), commands=commands, elements=elements)
        return trial.agreement(label, found.snapshot("state").result, one.result)

    checks = []
    if len(old) > 1:
        checks += attempt("types in reverse order", compare, "types in reverse order", old[::-1])
    half = f"set type 1 type/fraction {len(old) + 1} 0.5 4711\n"
    checks += attempt("two types of one element", compare, "two types of one element", [*old, old[0]], half)
    checks += attempt("a type without atoms", compare, "a type without atoms", [*old, "NULL"])
    return outcome(checks)


@probe("hybrid-overlay", engines=("lammps",))
def hybrid_overlay(trial: Trial) -> Outcome:
    """Under `hybrid/overlay` the energy, forces, stress and atomic energies are the sum of both styles.

    A weak lj/cut (or morse) before it, each alone and both together, on one rank and on several. A style that sets
    where it should add, or that sizes its buffers by itself, is right alone and wrong in company (D3, ZBL, Coulomb).
    The threshold is twice the noise.
    """
    target, atoms = trial.lammps, trial.large
    nearest = float(np.sort(atoms.get_all_distances(mic=bool(atoms.pbc.any())), axis=1)[:, 1].min())
    strength = 0.01 / target.scale.energy
    style, coefficients = f"lj/cut {2.0 * nearest:.6g}", f"{strength:.6g} {0.8 * nearest:.6g}"
    if any("lj/cut" in line for line in target.commands_given.after_box):  # hybrid numbers styles of the same name
        style, coefficients = f"morse {2.0 * nearest:.6g}", f"{strength:.6g} 1.5 {nearest:.6g}"
    other = target.commands_given.replaced(style, coefficients)
    both = target.commands_given.overlaid(style, coefficients)

    def compare(count: int) -> list[Check]:
        alone, second, sum_ = (
            target.deck(atoms, state("state"), ranks=count, commands=commands).snapshot("state").result
            for commands in (target.commands_given, other, both)
        )
        return trial.agreement(f"sum, {count} ranks", sum_, _sum(alone, second))

    counts = [1, *(n for n in trial.ranks if n > 1)][:2]
    return outcome([check for n in counts for check in attempt(f"sum, {n} ranks", compare, n)])


def _sum(a: Result, b: Result) -> Result:
    return Result(
        energy=a.energy + b.energy,
        atomic_energies=None
        if a.atomic_energies is None or b.atomic_energies is None
        else a.atomic_energies + b.atomic_energies,
        forces=a.forces + b.forces,
        stress=None if a.stress is None or b.stress is None else a.stress + b.stress,
    )


@probe("units", engines=("lammps",))
def units(trial: Trial) -> Outcome:
    """In another unit style the potential converts its numbers, or refuses.

    `units real` instead of metal, or metal instead of real, with the same files. Parameters in a file have units of
    their own; a potential that prints eV as kcal/mol is wrong by a factor of 23. Parameters that are typed as numbers
    are in the units of the input, so nothing is to be shown there. The threshold is twice the noise and a millionth of
    the energy and of the strongest force, for the digits of constants.
    """
    target, atoms = trial.lammps, trial.large
    if not target.commands_given.reads_files or target.units == "lj":
        return outcome([unmeasured("another unit style", "not-applicable", "the parameters are typed as numbers")])
    other = "real" if target.units == "metal" else "metal"
    one = target.deck(atoms, state("state")).snapshot("state").result
    found = target.deck(atoms, state("state"), commands=target.commands_given.before(units=other))
    two = found.snapshot("state").result
    digits = 1e-6 * max(abs(one.energy) / len(atoms), largest(one.forces))
    energy, forces = abs(two.energy - one.energy) / len(atoms), largest(two.forces - one.forces)
    ratio = two.energy * target.scale.energy / one.energy / UNITS[other].energy
    reason = f"the number printed is {ratio:.4g} times that in units {target.units}, and it is read in other units"
    source = "twice the noise, and a millionth for the digits of constants"
    limit, of_forces = 2 * trial.limits.energy_per_atom + digits, 2 * trial.limits.forces + digits
    return outcome(
        [
            judged(f"units {other}: energy", energy, limit, "eV/atom", source, reason),
            judged(f"units {other}: forces", forces, of_forces, "eV/Å", source, reason),
        ]
    )


@probe("exclusions", engines=("lammps",))
def exclusions(trial: Trial) -> Outcome:
    """Excluded atoms are gone: the others have the energy and forces that they have without them.

    `neigh_modify exclude group GROUP all` for a quarter of the atoms, against the other atoms alone. The hidden ones
    may keep the energies of lone atoms. `fix gcmc` hides the atoms of a move in this way; a potential that makes its
    own neighbours does not see the exclusion, and every acceptance is wrong. The threshold is twice the noise.
    """
    target, atoms = trial.lammps, trial.large
    hidden = np.arange(len(atoms)) % 4 == 3
    listed = " ".join(str(k + 1) for k in np.flatnonzero(hidden))
    body = f"group hidden id {listed}\nneigh_modify exclude group hidden all\n" + state("state")
    found = target.deck(atoms, body).snapshot("state").result
    rest = target.deck(atoms[~hidden], state("state")).snapshot("state").result
    symbols = np.array(atoms.get_chemical_symbols())[hidden]
    alone = {symbol: trial.evaluate([_lone(symbol)])[0].energy for symbol in set(symbols)}
    right = (rest.energy, rest.energy + sum(alone[symbol] for symbol in symbols))
    return outcome(
        [
            judged(
                "energy against that of the others, without or with the energies of lone atoms",
                min(abs(found.energy - energy) for energy in right) / len(atoms),
                2 * trial.limits.energy_per_atom,
                "eV/atom",
                SOURCE,
                f"{found.energy:.9g} eV where {right[0]:.9g} or {right[1]:.9g} eV is right",
            ),
            judged(
                "forces on the others",
                largest(found.forces[~hidden] - rest.forces),
                2 * trial.limits.forces,
                "eV/Å",
                SOURCE,
            ),
            judged("forces on hidden atoms", largest(found.forces[hidden]), trial.limits.forces, "eV/Å", SOURCE),
        ]
    )


def _lone(symbol: str) -> Atoms:
    return Atoms([symbol], positions=[[15.0, 15.0, 15.0]], cell=30.0 * np.eye(3), pbc=True)


COLD = 600.0
"""Chemical potential in kT. A cold move is accepted where its energy says so, and chance has little part in it; LAMMPS
takes the exponential of this number."""
CHANCE = 25.0
"""kT: chance, the volume and the thermal wavelength together do not accept a move that is so much too high"""
BALANCED = 1e-6
"""eV"""
MOVES = 60
TRIED = 24
"""places for an atom, of which a quarter can be afforded; and atoms, of which none can be removed"""


@probe("gcmc", engines=("lammps",))
def gcmc(trial: Trial) -> Outcome:
    """`fix gcmc` accepts the insertions and deletions that the energy allows, and the energy afterwards is right.

    60 cold exchange moves with a chemical potential that allows a quarter of the insertions, and 60 with one at which
    every deletion costs too much. Each accepted move is judged by the energies of both configurations in new runs: it
    must not cost more than the chemical potential allows. The energy, the forces and the atomic energies after it are
    those of a new run. `fix gcmc` hides the atom that it wants to delete, and a potential that sees it all the same
    deletes what it likes. Most styles leave the hidden atom its energy as a lone one: deletions and insertions are then
    out of balance by it, which is an expected failure. The
    threshold of a move is 25 kT, in which chance, the volume and the thermal wavelength are; that of the energies is
    twice the noise.
    """
    atoms = trial.large
    if not atoms.pbc.all():
        return outcome([unmeasured("exchange", "not-applicable", "the structure is not periodic in three directions")])
    symbol = atoms.get_chemical_symbols()[0]
    random = np.random.default_rng(16)
    places = random.uniform(size=(TRIED, 3)) @ atoms.cell.array
    same = np.flatnonzero(np.array(atoms.get_chemical_symbols()) == symbol)[:TRIED]
    frames = [*(_with(atoms, symbol, place) for place in places), *(_without(atoms, int(k)) for k in same)]
    base, *others = (result.energy for result in trial.evaluate([atoms, *frames]))
    alone = _kept(trial, int(same[0]))
    insertion = float(np.quantile(others[:TRIED], 0.25)) - base
    cheapest = min(others[TRIED:]) + alone - base
    too_low = -cheapest + max(0.3 * abs(cheapest), 4.0 * CHANCE * abs(cheapest) / COLD)
    checks = attempt("insertions", _exchange, trial, symbol, insertion, base, alone)
    none = [unmeasured("insertions", "not-tested", f"none of {MOVES} moves was accepted")]
    dear = attempt("deletions", _exchange, trial, symbol, too_low, base, alone)
    rejected = judged("deletions that cost too much: accepted", 0.0, 0.0, "moves", "definition: none, as none is cheap")
    return outcome([*(checks or none), *(dear or [rejected]), *_balance(symbol, alone)])


def _kept(trial: Trial, number: int) -> float:
    """eV: what the energy may keep of an atom that `fix gcmc` hides: nothing, or that of a lone one."""
    body = f"group hidden id {number + 1}\nneigh_modify exclude group hidden all\n" + state("state")
    hidden = trial.lammps.deck(trial.large, body).snapshot("state").result.energy
    without, alone = trial.evaluate([_without(trial.large, number), _lone(trial.large.get_chemical_symbols()[number])])
    kept = hidden - without.energy
    return alone.energy if abs(kept - alone.energy) < abs(kept) else 0.0


def _balance(symbol: str, alone: float) -> list[Check]:
    """What the energy that a hidden atom keeps does to the balance."""
    if abs(alone) < BALANCED:
        return []
    reason = (
        "the atom that fix gcmc hides for a deletion keeps this energy: deletions are off by it, insertions are not. "
        "Use a potential whose lone atoms have no energy"
    )
    source = "definition: moves there and back cost the same"
    text = f"energy that a hidden {symbol} keeps, by which fix gcmc is out of balance"
    check = judged(text, abs(alone), BALANCED, "eV", source, reason)
    return [check.model_copy(update={"verdict": "expected-fail"})]


def _exchange(trial: Trial, symbol: str, chemical_potential: float, energy: float, alone: float) -> list[Check]:
    """Of each accepted move.

    Args:
        chemical_potential, energy, alone: eV; the energies of the structure and of a lone atom.
    """
    target, atoms = trial.lammps, trial.large
    label = f"chemical potential {chemical_potential:.4g} eV"
    kt = max(abs(chemical_potential) / COLD, 0.001)
    kelvin = kt / target.scale.energy / target.scale.boltzmann
    body = (
        f"fix gcmc all gcmc 1 1 0 {target.elements.index(symbol) + 1} 4711 {kelvin:.8g} "
        f"{chemical_potential / target.scale.energy:.8g} 0.1\n"
        "thermo 1\nthermo_style custom step atoms pe vol\nthermo_modify format float %.17g norm no\n"
        + dump("moves")
        + f"run {MOVES}\n"
    )
    found = target.deck(atoms, body, commands=target.commands_given.before(atom_modify="map array"))
    frames, printed = found.dumps["moves"], found.thermo(0)["PotEng"] * target.scale.energy
    changed = [k for k in range(1, len(frames)) if frames[k].ids != frames[k - 1].ids]
    checks, before = [], energy
    for k, result in zip(changed, trial.evaluate([frames[k].atoms for k in changed]), strict=True):
        grown = len(frames[k].atoms) - len(frames[k - 1].atoms)
        cost = result.energy - before - chemical_potential * grown
        kind = "insertion" if grown > 0 else "deletion"
        if grown < 0:
            cost += alone
        checks.append(
            judged(
                f"{label}, step {k}: cost of the accepted {kind}, less the chemical potential",
                float(cost),
                CHANCE * kt,
                "eV",
                f"{CHANCE:g} kT: chance accepts no more",
                f"the {kind} costs {cost + chemical_potential * grown:.4g} eV",
            )
        )
        energies = frames[k].columns["c_conform_energy"] * target.scale.energy
        served = Result(printed[k], energies, frames[k].vectors("f") * target.scale.energy, None)
        checks += trial.agreement(f"{label}, step {k}, after it", served, result)
        before = result.energy
    return checks


def _with(atoms: Atoms, symbol: str, place: Array) -> Atoms:
    grown: Atoms = atoms.copy()
    grown.append(Atom(symbol, place))
    return grown


def _without(atoms: Atoms, number: int) -> Atoms:
    fewer: Atoms = atoms.copy()
    del fewer[number]
    return fewer


@probe("thermostat", engines=("lammps",))
def thermostat(trial: Trial) -> Outcome:
    """A thermostat on a group leaves the forces on the other atoms alone.

    `fix langevin` on half of the atoms, 20 steps on one rank and on several; forces on the other half are those of the
    same positions in a new run. The threshold is twice the noise.
    """
    target, atoms = trial.lammps, trial.large
    n = len(atoms) // 2
    kelvin = 0.05 / target.scale.boltzmann / target.scale.energy
    damping = 100 * target.scale.femtosecond
    body = (
        f"group bath id 1:{n}\n"
        + hot(trial)
        + f"fix bath bath langevin {kelvin:.6g} {kelvin:.6g} {damping:.6g} 4711\nfix nve all nve\n"
        + dump("bath", 10, "fx fy fz")
        + "thermo 20\nrun 20\n"
    )

    def compare(count: int) -> list[Check]:
        frames = target.deck(atoms, body, ranks=count).dumps["bath"][1:]
        fresh = trial.evaluate([frame.atoms for frame in frames])
        return [
            judged(
                f"{count} ranks, step {frame.step}: forces on the atoms without thermostat",
                largest((frame.vectors("f") * target.scale.energy - result.forces)[n:]),
                2 * trial.limits.forces,
                "eV/Å",
                SOURCE,
            )
            for frame, result in zip(frames, fresh, strict=True)
        ]

    counts = [1, *(n for n in trial.ranks if n > 1)][:2]
    return outcome([check for n in counts for check in attempt(f"{n} ranks", compare, n)])


PROBES: tuple[Probe, ...] = (types, hybrid_overlay, units, exclusions, gcmc, thermostat)
