"""Labels that are not the frames' own: shared by several frames, or unlike the model's results altogether.

A poor model is wrong by some amount; labels that were written wrongly have no relation to the model's results, or one
of another kind: a factor, a sign, another order. Each is tried, and what fits is named as the likely cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from ase.units import Bohr, Hartree, Rydberg, kcal, kJ, mol
from scipy.optimize import linear_sum_assignment

from mlip_deploy.reference_data.readers import Labelled
from mlip_deploy.result import Array, Result
from mlip_deploy.validation.case import Check

RELATED = 0.5
"""least cosine of forces or correlation of energies: that of a model half of whose answer is noise"""
FITS = 0.9
"""least one of a cause that explains the labels"""
FACTOR = 0.15
"""relative distance from a unit's factor"""
PLAUSIBLE = (0.6, 1.7)
"""slopes of the model over labels that models have"""
FORCE_SIGNAL = 0.1
"""eV/Å, root mean square of force components, in the labels or the results: noise has no direction"""
ENERGY_SIGNAL = 0.01
"""eV/atom, standard deviation between frames of one composition"""
SAME = 1e-3
"""eV/Å and eV/atom: results that differ by less are of structures that are equal"""
FEWEST = 4
"""frames of one composition that a correlation of energies needs"""
NO_CAUSE = (
    "none of the usual causes fits (one calculator for several frames, units, sign, order of atoms, {kind} of another "
    "frame, energies per atom). Compute the labels of one frame anew"
)
SOURCE = "definition: a label belongs to one structure"
RELATION = f"choice of this project: less than {RELATED:g} is no relation"
# eV/Å and eV over the unit: the factor by which labels must be multiplied
FORCE_UNITS = {
    "Hartree/Bohr": Hartree / Bohr,
    "Rydberg/Bohr": Rydberg / Bohr,
    "kcal/mol/Å": kcal / mol,
    "kJ/mol/nm": kJ / mol / 10.0,
    "kJ/mol/Å": kJ / mol,
    "meV/Å": 1e-3,
}
ENERGY_UNITS = {"Hartree": Hartree, "Rydberg": Rydberg, "kcal/mol": kcal / mol, "kJ/mol": kJ / mol, "meV": 1e-3}


def relation_checks(frames: Sequence[Labelled], results: Sequence[Result], kind: str) -> list[Check]:
    """Whether the labels are those of the frames.

    Args:
        results: of the model, in the order of the frames.
        kind: which of the labels' energies.
    """
    checks = [_shared(frames, results, kind)]
    with_forces = [k for k, labelled in enumerate(frames) if labelled.forces is not None]
    labels = [forces for labelled in frames if (forces := labelled.forces) is not None]
    found = [results[k].forces for k in with_forces]
    if labels and min(_size(labels), _size(found)) > 0.0 and max(_size(labels), _size(found)) >= FORCE_SIGNAL:
        checks.append(_related_forces(labels, found))
    checks += _related_energies(frames, results, kind)
    return checks


def _shared(frames: Sequence[Labelled], results: Sequence[Result], kind: str) -> Check:
    """Frames with the labels of another frame, though the model tells the two structures apart."""
    first: dict[bytes, list[int]] = {}
    for k, labelled in enumerate(frames):
        forces = b"" if labelled.forces is None else labelled.forces.tobytes()
        first.setdefault(np.float64(labelled.energies[kind]).tobytes() + forces, []).append(k)
    groups = [group for group in first.values() if any(not _equal(results[group[0]], results[k]) for k in group[1:])]
    sharing = sum(len(group) for group in groups)
    reason = ""
    if groups:
        largest = max(groups, key=len)
        named = ", ".join(frames[k].name for k in largest[:3]) + (", …" if len(largest) > 3 else "")
        reason = (
            f"{len(largest)} frames carry identical labels ({named}), though the model gives each its own. The usual "
            "cause: one ASE calculator for several frames keeps the last frame's results, and `write` stores them in "
            "each. Give every frame its own: atoms.calc = SinglePointCalculator(atoms, energy=…, forces=…)"
        )
    return Check(
        quantity="frames with the labels of another frame",
        value=float(sharing),
        unit="frames",
        threshold=0.0,
        source=SOURCE,
        verdict="fail" if groups else "pass",
        reason=reason,
    )


def _equal(a: Result, b: Result) -> bool:
    if len(a.forces) != len(b.forces):
        return False
    energy = abs(a.energy - b.energy) / len(a.forces)
    return energy <= SAME and float(np.abs(a.forces - b.forces).max()) <= SAME


def _related_forces(labels: Sequence[Array], found: Sequence[Array]) -> Check:
    cosine = _cosine(labels, found)
    slope = _dot(labels, found) / _dot(labels, labels)
    cause = ""
    if cosine <= -FITS:
        cause = "the sign is another one: the labels are gradients. A force is -dE/dr"
    elif cosine >= FITS:
        cause = _unit(slope, FORCE_UNITS, "forces")
    elif cosine < RELATED:
        cause = _other_order(labels, found) or _other_frame(labels, found)
    related = cosine >= RELATED and not cause
    unexplained = f"unrelated, and {NO_CAUSE.format(kind='forces')}"
    return Check(
        quantity="force labels and model: 1 less the cosine between them",
        value=1.0 - cosine,
        unit="",
        threshold=1.0 - RELATED,
        source=RELATION,
        verdict="pass" if related else "fail",
        reason="" if related else f"cosine {cosine:.2f}, slope {slope:.3g}: {cause or unexplained}",
    )


def _other_order(labels: Sequence[Array], found: Sequence[Array]) -> str:
    """Whether forces fit after the atoms of each frame are put in another order, and their opposites do not."""
    left = {1: 0.0, -1: 0.0}
    for label, model in zip(labels, found, strict=True):
        for sign in left:
            distance = ((sign * label[:, None, :] - model[None, :, :]) ** 2).sum(axis=2)
            left[sign] += float(distance[linear_sum_assignment(distance)].sum())
    # forces of some other structure are as far from these as from their opposites
    if left[1] < (1.0 - FITS) * _dot(labels, labels) and left[1] < 0.25 * left[-1]:
        return "the atoms are in another order: forces fit once they are exchanged between atoms of a frame"
    return ""


def _other_frame(labels: Sequence[Array], found: Sequence[Array]) -> str:
    """Whether the labels of most frames fit another frame's results."""
    elsewhere = []
    for k, label in enumerate(labels):
        fitting = [j for j, model in enumerate(found) if len(model) == len(label) and _cosine([label], [model]) >= FITS]
        elsewhere += [fitting[0] - k] if fitting and k not in fitting else []
    if 2 * len(elsewhere) <= len(labels):
        return ""
    shift, often = Counter(elsewhere).most_common(1)[0]
    where = f", mostly {abs(shift)} {'later' if shift > 0 else 'earlier'}" if 2 * often > len(elsewhere) else ""
    return f"the labels are another frame's: those of {len(elsewhere)} of {len(labels)} frames fit another one{where}"


def _related_energies(frames: Sequence[Labelled], results: Sequence[Result], kind: str) -> list[Check]:
    """Differences of energies between frames of one composition, where no zero of energy matters."""
    label, model, sizes = [], [], []
    groups: dict[str, list[int]] = {}
    for k, labelled in enumerate(frames):
        groups.setdefault(labelled.atoms.get_chemical_formula(), []).append(k)
    for group in groups.values():
        energies = np.array([frames[k].energies[kind] for k in group])
        computed = np.array([results[k].energy for k in group])
        n = len(frames[group[0]].atoms)
        if len(group) < FEWEST or computed.std() / n < ENERGY_SIGNAL:
            continue
        label.append(energies - energies.mean())
        model.append(computed - computed.mean())
        sizes.append(np.full(len(group), n))
    per_atom = _per_atom(frames, results, kind)
    if not label or max(float(np.abs(part).max()) for part in label) == 0.0:
        if not per_atom:
            return []
        return [_energy_check(None, per_atom)]
    correlation = _cosine(label, model)
    cause = ""
    if correlation <= -FITS:
        cause = "the sign is another one"
    elif correlation >= FITS:
        slope = _dot(label, model) / _dot(label, label)
        of_atoms = _dot(label, [part / n for part, n in zip(model, sizes, strict=True)]) / _dot(label, label)
        if max(part[0] for part in sizes) > 1 and not _plausible(slope) and abs(of_atoms - 1.0) <= FACTOR:
            cause = PER_ATOM
        else:
            cause = _unit(slope, ENERGY_UNITS, "energies")
    elif correlation < RELATED:
        cause = per_atom or _shifted(label, model) or f"unrelated, and {NO_CAUSE.format(kind='energies')}"
    return [_energy_check(correlation, cause)]


PER_ATOM = "these are energies per atom. A label is the energy of the whole frame: multiply by its number of atoms"


def _energy_check(correlation: float | None, cause: str) -> Check:
    measured = "" if correlation is None else f"correlation {correlation:.2f}: "
    return Check(
        quantity="energy labels and model: 1 less the correlation between frames of one composition",
        value=None if correlation is None else 1.0 - correlation,
        unit="",
        threshold=1.0 - RELATED,
        source=RELATION,
        verdict="fail" if cause else "pass",
        reason=f"{measured}{cause}" if cause else "",
    )


def _per_atom(frames: Sequence[Labelled], results: Sequence[Result], kind: str) -> str:
    """Whether the labels lie close to the model's energies per atom, and far from its energies."""
    label = np.array([labelled.energies[kind] for labelled in frames])
    model = np.array([result.energy for result in results])
    sizes = np.array([len(labelled.atoms) for labelled in frames])
    close, far = np.median(np.abs(label - model / sizes)), np.median(np.abs(label - model))
    fits = sizes.min() > 1 and close < (1.0 - FITS) * far and close < (1.0 - FITS) * np.median(np.abs(label))
    return PER_ATOM if fits else ""


def _shifted(label: Sequence[Array], model: Sequence[Array]) -> str:
    """Whether the energies fit those of frames before or after."""
    for shift in (1, -1, 2, -2):
        if _cosine(label, [np.roll(part, -shift) for part in model]) >= FITS:
            return f"the labels are another frame's: they fit {abs(shift)} {'later' if shift > 0 else 'earlier'}"
    return ""


def _unit(slope: float, units: dict[str, float], what: str) -> str:
    """The unit whose factor is the slope of the model over the labels."""
    if _plausible(slope):
        return ""
    for unit, factor in units.items():
        if abs(slope / factor - 1.0) <= FACTOR:
            return f"the {what} are in {unit}: multiply the labels by {factor:.6g}"
    return ""


def _plausible(slope: float) -> bool:
    return PLAUSIBLE[0] <= slope <= PLAUSIBLE[1]


def _dot(a: Sequence[Array], b: Sequence[Array]) -> float:
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


def _size(parts: Sequence[Array]) -> float:
    """Root mean square."""
    return float(np.sqrt(_dot(parts, parts) / sum(part.size for part in parts)))


def _cosine(a: Sequence[Array], b: Sequence[Array]) -> float:
    norm = float(np.sqrt(_dot(a, a) * _dot(b, b)))
    return _dot(a, b) / norm if norm > 0.0 else 0.0
