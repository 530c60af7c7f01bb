"""Labels that are not the frames' own, each with its usual cause: what `validate --suite reference` says of them."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr, Hartree, kcal, kJ, mol
from conftest import mlip

from mlip_deploy.ase import CloseAtomsWarning, MLIPCalculator
from mlip_deploy.close_atoms import close_atoms
from mlip_deploy.reference_data.readers import Labelled
from mlip_deploy.result import Result
from mlip_deploy.validation.reference import suite
from mlip_deploy.validation.reference.labels import relation_checks

SHARED = "frames with the labels of another frame"
FORCES = "force labels and model: 1 less the cosine between them"
ENERGIES = "energy labels and model: 1 less the correlation between frames of one composition"
MODEL_ERROR = 0.1
"""eV/Å and, for the cell's energy, eV: what a model is wrong by"""


@pytest.fixture(scope="module")
def truth(toy_local: Path) -> list[tuple[Atoms, Result]]:
    """Rattled crystals of 8 and 16 atoms, and a model's results."""
    calculator = MLIPCalculator(toy_local)
    random = np.random.default_rng(5)
    found = []
    for number in range(12):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat((1 + number % 2, 1, 1))
        atoms.positions += random.normal(scale=0.1 + 0.02 * number, size=atoms.positions.shape)
        atoms.calc = calculator
        found.append((atoms.copy(), Result(atoms.get_potential_energy(), None, atoms.get_forces(), None)))
    return found


def labels_of(truth: list[tuple[Atoms, Result]]) -> list[Labelled]:
    """A reference method that differs from the model as methods do: noise, another zero of energy, 10 % stiffer."""
    random = np.random.default_rng(6)
    return [
        Labelled(
            atoms=atoms,
            name=f"frame {k}",
            config_type="all",
            energies={
                "raw": result.energy + 3.0 * len(atoms) + MODEL_ERROR * random.normal(),
            },
            forces=1.1 * result.forces + MODEL_ERROR * random.normal(size=result.forces.shape),
        )
        for k, (atoms, result) in enumerate(truth)
    ]


def failed(frames: list[Labelled], truth: list[tuple[Atoms, Result]]) -> dict[str, str]:
    checks = relation_checks(frames, [result for _, result in truth], "raw")
    assert {check.quantity for check in checks} >= {SHARED}
    return {check.quantity: check.reason for check in checks if check.verdict == "fail"}


def scaled(frames: list[Labelled], energy: float = 1.0, forces: float = 1.0) -> list[Labelled]:
    return [
        replace(frame, energies={"raw": energy * frame.energies["raw"]}, forces=forces * frame.forces)
        for frame in frames
    ]


def of_frames_after(frames: list[Labelled], shift: int) -> list[Labelled]:
    """Each frame with the labels of the one `shift` later of its size."""
    return [
        replace(frame, energies=frames[(k + 2 * shift) % 12].energies, forces=frames[(k + 2 * shift) % 12].forces)
        for k, frame in enumerate(frames)
    ]


def shuffled(frames: list[Labelled]) -> list[Labelled]:
    random = np.random.default_rng(8)
    return [replace(frame, forces=frame.forces[random.permutation(len(frame.atoms))]) for frame in frames]


def per_atom(frames: list[Labelled]) -> list[Labelled]:
    return [replace(frame, energies={"raw": frame.energies["raw"] / len(frame.atoms)}) for frame in frames]


def random_labels(frames: list[Labelled]) -> list[Labelled]:
    random = np.random.default_rng(9)
    return [
        replace(frame, energies={"raw": random.normal()}, forces=random.normal(size=frame.forces.shape))
        for frame in frames
    ]


def test_labels_of_another_method_are_the_frames_own(truth):
    frames = labels_of(truth)
    assert failed(frames, truth) == {}
    quantities = [check.quantity for check in relation_checks(frames, [result for _, result in truth], "raw")]
    assert quantities == [SHARED, FORCES, ENERGIES]


def test_equal_structures_may_share_their_labels(truth):
    twice = [truth[0], truth[0], truth[2]]
    frames = labels_of(truth)
    assert failed([frames[0], frames[0], frames[2]], twice) == {}


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda frames: scaled(frames, forces=-1.0), {FORCES: "the labels are gradients. A force is -dE/dr"}),
        (lambda frames: scaled(frames, forces=Bohr / Hartree), {FORCES: "the forces are in Hartree/Bohr: multiply"}),
        (lambda frames: scaled(frames, forces=2 * Bohr / Hartree), {FORCES: "the forces are in Rydberg/Bohr"}),
        (
            lambda frames: scaled(frames, mol / kcal, mol / kcal),
            {FORCES: "the forces are in kcal/mol/Å", ENERGIES: "the energies are in kcal/mol: multiply"},
        ),
        (lambda frames: scaled(frames, mol / kJ), {ENERGIES: "the energies are in kJ/mol"}),
        (
            lambda frames: scaled(frames, 1 / Hartree),
            {ENERGIES: "the energies are in Hartree: multiply the labels by 27"},
        ),
        (lambda frames: scaled(frames, -1.0), {ENERGIES: "the sign is another one"}),
        (shuffled, {FORCES: "the atoms are in another order"}),
        (
            lambda frames: of_frames_after(frames, 1),
            {FORCES: "of 12 frames fit another one, mostly 2 later", ENERGIES: "another frame's: they fit 1 later"},
        ),
        (per_atom, {ENERGIES: "these are energies per atom"}),
        (random_labels, {FORCES: "none of the usual causes fits", ENERGIES: "none of the usual causes fits"}),
    ],
)
def test_each_cause_is_named(truth, spoil, expected):
    found = failed(spoil(labels_of(truth)), truth)
    assert found.keys() == expected.keys(), found
    for quantity, reason in expected.items():
        assert reason in found[quantity]


def test_energies_per_atom_of_few_frames(truth):
    frames = [
        replace(frame, energies={"raw": result.energy / len(atoms)})
        for frame, (atoms, result) in zip(labels_of(truth)[:2], truth, strict=False)
    ]
    assert "energies per atom" in failed(frames, truth[:2])[ENERGIES]


def test_one_calculator_for_all_frames(toy_local: Path, truth, tmp_path: Path):
    """The slip itself: ASE writes what the calculator holds, which is the last frame's result, into every frame."""
    images = [atoms.copy() for atoms, _ in truth[::2]]
    for frame in images:
        frame.info["energy_frame"] = "functional=none,hubbard_u=none,corrections=none,dispersion=none"
    last = truth[-2][1]
    for frame in images:
        frame.calc = SinglePointCalculator(frame, energy=last.energy, forces=last.forces)
    write(tmp_path / "labels.extxyz", images, format="extxyz")
    done = mlip(
        *("validate", toy_local, "--suite", "reference", "--reference", tmp_path / "labels.extxyz", "--engine", "ase"),
        *("-o", tmp_path / "out"),
    )
    assert done.returncode == 1
    words = " ".join((done.stdout + done.stderr).split())
    assert "6 frames carry identical labels (frame 1 (line 1), frame 2 (line 11), frame 3 (line 21), …)" in words
    assert "one ASE calculator for several frames keeps the last frame's results" in words
    assert "forces are too small" not in words


def test_atoms_on_top_of_each_other_are_named(truth: list[tuple[Atoms, Result]]) -> None:
    frames = labels_of(truth)
    assert not suite._close_atoms(frames)
    atoms = frames[3].atoms.copy()
    atoms.positions[5] = atoms.positions[2] + [0.0, 0.2, 0.0]
    (check,) = suite._close_atoms([*frames[:3], replace(frames[3], atoms=atoms)])
    assert (check.verdict, check.value) == ("fail", 1.0)
    assert re.match(r"frame 3: atoms (2|5) \(..\) and (5|2) \(..\), counted from 0, are 0\.200 Å apart", check.reason)


@pytest.mark.parametrize("distance", [0.45, 0.55, 1.0, 1.3, 1.36, 1.4])
def test_close_atoms_are_those_of_the_engines(distance: float, toy_local: Path) -> None:
    """Sodium and chlorine: below half the sum of their covalent radii, 1.34 Å."""
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [distance, 0, 0]])
    atoms.calc = MLIPCalculator(toy_local)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        atoms.get_potential_energy()
    said = [str(one.message) for one in caught if one.category is CloseAtomsWarning]
    found = close_atoms(atoms)
    assert bool(said) == bool(found) == (distance < 1.34)
    if found:
        assert found.partition("are ")[2] in said[0]
