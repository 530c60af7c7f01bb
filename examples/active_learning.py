"""Active learning without a workflow engine: guard a run, select frames, label them, widen the domain, run again.

python examples/active_learning.py MODEL.mlip.pt REFERENCE.mlip.pt

The domain of the model begins as its crystal at room temperature. A hot run leaves it: the guard keeps frames. The
second model stands in for the reference method, which would be your DFT code. With these frames the domain is wider,
and the same run stays inside. A fine-tuning of the model on the labelled frames would come before the new domain.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin

import mlip_deploy
from mlip_deploy.ase import MLIPCalculator, MLIPGuard
from mlip_deploy.guard import GuardWarning

THRESHOLD = 1.5


def hot_run(model: Path, crystal: Atoms, temperature: float, steps: int, dump: Path | None = None) -> MLIPGuard:
    """The same run each time: Langevin dynamics from the crystal."""
    atoms = crystal.copy()
    atoms.calc = MLIPCalculator(model)
    random = np.random.default_rng(1)
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(widths[:, None] * random.standard_normal((len(atoms), 3)))
    dynamics = Langevin(
        atoms, 1 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=random, fixcm=False
    )
    guard = MLIPGuard(dynamics, 5, grade=THRESHOLD, dump=dump, spacing=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuardWarning)  # what it found is printed below
        dynamics.run(steps)
    return guard


def say(guard: MLIPGuard) -> int:
    """Print how often the guard had an alarm, and return it."""
    alarms = sum(check.n_above > 0 for check in guard.checks)
    worst = max(check.worst["grade"] for check in guard.checks)
    print(
        f"   {alarms} of {len(guard.checks)} checks had atoms above grade {THRESHOLD}, the largest grade is {worst:.2f}"
    )
    return alarms


def label(frames: list[Atoms], reference: Path) -> list[Atoms]:
    """Forces of the reference method on the frames."""
    calculator = MLIPCalculator(reference)
    labelled = []
    for frame in frames:
        atoms = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = SinglePointCalculator(atoms, forces=calculator.get_forces(atoms))
        labelled.append(atoms)
    return labelled


def main() -> None:
    """Run the loop once."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("reference", type=Path)
    arguments.add_argument("--temperature", type=float, default=2500.0, help="of the hot run, K")
    arguments.add_argument("--steps", type=int, default=400, help="of the hot run")
    arguments.add_argument("--n", type=int, default=20, help="frames to label")
    arguments.add_argument("--repeat", type=int, default=2, help="cells of the crystal along each axis")
    arguments.add_argument("--out", type=Path, default=Path(), help="folder for what is written")
    options = arguments.parse_args()
    out, collected = options.out, options.out / "frames.extxyz"
    out.mkdir(parents=True, exist_ok=True)
    collected.unlink(missing_ok=True)  # a guard appends
    crystal = bulk("Si", cubic=True).repeat(options.repeat)

    print("1. the domain of the crystal at 300 K, sampled by the model itself")
    narrow = out / "narrow.mlip.pt"
    mlip_deploy.fit_domain(options.model, sampled=[crystal], temperatures=[300.0], output=narrow)
    print(f"2. a run at {options.temperature:g} K, guarded")
    if not say(hot_run(narrow, crystal, options.temperature, options.steps, collected)):
        raise SystemExit("no alarm: nothing to learn")
    frames = read(collected, ":")
    chosen = mlip_deploy.select_frames(narrow, frames, options.n)
    print(f"3. {len(frames)} frames were kept, the {len(chosen)} most informative are labelled by the reference")
    labelled = label([frames[k] for k in chosen], options.reference)
    write(out / "labelled.extxyz", labelled)
    errors = [atoms.get_forces() - frames[k].arrays["model_forces"] for atoms, k in zip(labelled, chosen, strict=True)]
    print(f"   the model's forces differ from it by {np.sqrt(np.mean(np.square(errors))):.3f} eV/Å (RMS)")
    print("4. the domain of the crystal and these frames")
    wide = out / "wide.mlip.pt"
    mlip_deploy.fit_domain(
        options.model, [out / "labelled.extxyz"], sampled=[crystal], temperatures=[300.0], output=wide
    )
    print("5. the same run again")
    raise SystemExit(say(hot_run(wide, crystal, options.temperature, options.steps)) > 0)


if __name__ == "__main__":
    main()
