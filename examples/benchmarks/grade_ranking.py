"""How well grades rank errors of forces: two forms of a domain, fitted to part of mlearn's sets of Si, Cu, Ni and Li.

    python examples/benchmarks/grade_ranking.py 7net-0.mlip.pt chgnet.mlip.pt --labels 7net-l3i5.mlip.pt

The domain of an element is fitted to every other frame of its set. "rest" are the other frames; "hot" are all frames
that are left when none of molecular dynamics is fitted. Their labels are those of the sets (PBE). "distorted" are
compressed dimers, random displacements, a vacancy, a surface and a liquid at 3000 K (molecular dynamics with the first
model), with forces of the model --labels. An error is large above 0.3 eV/Å. "outside" is the share of atoms with a
grade above 1.
"""

from __future__ import annotations

import argparse

import numpy as np
from ase import Atoms
from ase.build import bulk

from mlip_deploy import MLIPCalculator
from mlip_deploy.domain.fit import LARGE_ERROR, Environments, auroc, environments_of
from mlip_deploy.domain.frames import Frame, sample
from mlip_deploy.domain.space import POINTS, space_of
from mlip_deploy.progress import silent
from mlip_deploy.reference_data.readers import read_set

CRYSTALS = {
    "Si": ("diamond", 5.43, 2.35),
    "Cu": ("fcc", 3.61, 2.55),
    "Ni": ("fcc", 3.52, 2.49),
    "Li": ("bcc", 3.43, 2.97),
}
"""lattice, its constant and the distance of neighbours, Å"""
FORMS = {"nearest centre": POINTS, "Mahalanobis": 1}


def distorted(element: str, calculator: MLIPCalculator) -> list[Atoms]:
    lattice, constant, bond = CRYSTALS[element]
    crystal = bulk(element, lattice, a=constant, cubic=True) * (2, 2, 2)
    random = np.random.default_rng(0)
    frames = [Atoms([element] * 2, [[0, 0, 0], [factor * bond, 0, 0]]) for factor in (0.6, 0.7, 0.8, 0.9)]
    for amplitude in (0.2, 0.4):
        moved = crystal.copy()
        moved.positions += random.normal(scale=amplitude, size=moved.positions.shape)
        frames.append(moved)
    vacancy, surface = crystal.copy(), crystal.copy()
    del vacancy[0]
    surface.center(vacuum=6.0, axis=2)
    for atoms in (vacancy, surface):
        atoms.positions += random.normal(scale=0.05, size=atoms.positions.shape)
    cell = bulk(element, lattice, a=constant, cubic=True) * (2, 2, 1)
    liquid = sample(calculator, cell, 3000.0, element, silent)[-1].atoms
    return [*frames, vacancy, surface, liquid]


def labelled(atoms: Atoms, calculator: MLIPCalculator, name: str) -> Frame:
    plain = atoms.copy()
    plain.calc = calculator
    return Frame(atoms.copy(), name, plain.get_forces())


def part(of: Environments, frames: np.ndarray) -> Environments:
    kept = np.isin(of.frames, frames)
    return Environments(of.symbols[kept], of.features[kept], of.frames[kept], of.errors[kept], of.differences[frames])


def grades(fitted: Environments, of: Environments, points: int) -> np.ndarray:
    """In units of the 99th percentile of what is fitted, which is what a record has but for its cross-validation."""
    space = space_of(fitted.features, points=points)
    assert space is not None
    return space.distances(of.features) / np.quantile(space.distances(fitted.features), 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="artifacts; the first makes the liquids")
    parser.add_argument("--labels", required=True, help="artifact whose forces label distorted frames")
    options = parser.parse_args()
    labels, makes = MLIPCalculator(options.labels), MLIPCalculator(options.models[0])
    strange = {e: [labelled(a, labels, f"{e} {k}") for k, a in enumerate(distorted(e, makes))] for e in CRYSTALS}
    print("| model | element | frames | large errors | outside | AUROC, nearest centre | AUROC, Mahalanobis |")
    print("|---|---|---|---|---|---|---|")
    all_ranks = []
    for path in options.models:
        calculator = MLIPCalculator(path)
        for element in CRYSTALS:
            found = read_set(f"mlearn-{element}")
            numbers, kinds = np.arange(len(found)), np.array([one.config_type for one in found])
            known = environments_of(calculator, [Frame(one.atoms, one.name, one.forces) for one in found], silent)
            far = environments_of(calculator, strange[element], silent)
            fitted, cold = numbers[::2], numbers[::2][kinds[::2] != "AIMD-NVT"]
            hot = np.setdiff1d(numbers, cold)
            for name, of_fit, of_test in (
                ("rest", part(known, fitted), part(known, numbers[1::2])),
                ("hot", part(known, cold), part(known, hot)),
                ("distorted", part(known, fitted), far),
            ):
                large = of_test.errors > LARGE_ERROR
                by_form = [grades(of_fit, of_test, points) for points in FORMS.values()]
                ranks = [auroc(one, large) for one in by_form]
                all_ranks.append(ranks)
                cells = ["none to rank" if rank is None else f"{rank:.2f}" for rank in ranks]
                print(
                    f"| {calculator.contract.model.name} | {element} | {name} | {100 * large.mean():.0f} % | "
                    f"{100 * (by_form[0] > 1.0).mean():.0f} % | {' | '.join(cells)} |",
                    flush=True,
                )
    means = np.array([ranks for ranks in all_ranks if None not in ranks], dtype=float).mean(axis=0)
    print(f"| all | | | | | {means[0]:.3f} | {means[1]:.3f} |")


if __name__ == "__main__":
    main()
