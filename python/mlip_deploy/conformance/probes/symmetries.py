"""What changes the frame or the order of the atoms changes nothing else."""

from __future__ import annotations

from dataclasses import asdict

from mlip_deploy.conformance.probe import Probe, probe
from mlip_deploy.conformance.trial import MOST_NOISE, Trial
from mlip_deploy.validation.case import Check, Outcome, judged
from mlip_deploy.validation.physics.symmetries import SYMMETRIES, compare
from mlip_deploy.validation.physics.tools import outcome

UNITS = {"energy_per_atom": "eV/atom", "atomic_energies": "eV", "forces": "eV/Å", "stress": "eV/Å³"}


def _checks(trial: Trial, name: str) -> list[Check]:
    (symmetry,) = (symmetry for symmetry in SYMMETRIES if symmetry.name == name)
    before, after = trial.evaluate([trial.atoms, symmetry.apply(trial.atoms)])
    return compare(trial.limits, "structure", before, after, symmetry, inversion_symmetric=None)


@probe("translation")
def translation(trial: Trial) -> Outcome:
    """A translated structure has the same energy, forces and stress.

    The same is asked of six small translations, which are a part of the noise of all other probes: a potential that
    depends on where the structure is would otherwise excuse itself. The threshold of those is what arithmetic in
    float32 makes at most (1e-4 eV/atom, 5e-3 eV/Å, 1e-4 eV/Å³).
    """
    most, noise = asdict(MOST_NOISE), asdict(trial.translated)
    source = "what arithmetic in float32, for forces in TF32, makes at most"
    checks = [
        judged(
            f"largest difference over small translations, {key.replace('_', ' ')}", value, most[key], UNITS[key], source
        )
        for key, value in noise.items()
    ]
    return outcome([*checks, *_checks(trial, "translation")])


@probe("rotation")
def rotation(trial: Trial) -> Outcome:
    """A rotated structure has the same energy, and its forces and stress rotate with it.

    The vectors of the cell are named anew as well, since an engine may turn the first one back to x. A potential that
    uses a cell or a stress in another frame than the positions shows itself here. The threshold is twice the noise.
    """
    return outcome(_checks(trial, "rotation"))


@probe("inversion")
def inversion(trial: Trial) -> Outcome:
    """The mirror image of a structure has the same energy and the mirrored forces.

    Some models do not know parity and learn it only; they are excused up to the error that models have anyway
    (30 meV/atom, 50 meV/Å, 0.003 eV/Å³). The threshold otherwise is twice the noise.
    """
    return outcome(_checks(trial, "inversion"))


@probe("permutation")
def permutation(trial: Trial) -> Outcome:
    """Atoms in another order have the same energy and their own forces.

    An engine sorts atoms as it likes; a potential that keeps the order of the first call mixes them up. The threshold
    is twice the noise.
    """
    return outcome(_checks(trial, "permutation"))


@probe("images")
def images(trial: Trial) -> Outcome:
    """Atoms moved by whole vectors of the cell, up to two, change nothing.

    Positions outside of the cell are what every unwrapped trajectory has; a potential that takes its neighbours from
    wrapped positions, or that shifts them once only, gives other numbers. The threshold is twice the noise.
    """
    return outcome(_checks(trial, "images of atoms"))


PROBES: tuple[Probe, ...] = (translation, rotation, inversion, permutation, images)
