"""Errors against labels: numbers that are known beforehand, and files that cannot be compared."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from conftest import mlip
from tolerances import FLOAT64_SUM

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.reference_data.datasets import DATA_DIR, PBE
from mlip_deploy.reference_data.statistics import errors, fit_shifts, vector_errors
from mlip_deploy.validation.case import CPU, Context, Outcome
from mlip_deploy.validation.reference.suite import cases, energy_differences, load, neighbour_distance, predict

FRAME = "functional=PBE,hubbard_u=none,corrections=none,dispersion=none"
SHIFTS = {"Na": 0.31, "Cl": -1.7}
SOFTENING = 0.7


@pytest.fixture(scope="module")
def artifact(toy_local: Path) -> Artifact:
    artifact = Artifact(toy_local)
    artifact.contract = artifact.contract.model_copy(update={"energy_frame": PBE})
    return artifact


@pytest.fixture(scope="module")
def labels(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels that are the model's own, with a shift per element and forces that are larger by a known factor."""
    calculator = MLIPCalculator(artifact.path)
    random = np.random.default_rng(7)
    frames = []
    for number in range(6):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
        del atoms[[0, 1, 3][: number % 3]]  # so that the counts of the elements are independent
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = calculator
        energy = atoms.get_potential_energy() + sum(SHIFTS[symbol] for symbol in atoms.get_chemical_symbols())
        forces, stress = atoms.get_forces() / SOFTENING, atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
        atoms.info["config_type"] = "rattled" if number < 4 else "hot"
        if number == 0:
            atoms.info["energy_frame"] = FRAME
        frames.append(atoms)
    path = tmp_path_factory.mktemp("labels") / "labels.extxyz"
    write(path, frames, format="extxyz")
    return path


def run(artifact: Artifact, directory: Path, reference: Path | str, **options: object) -> Outcome:
    context = Context(artifact=artifact, engine="ase", directory=directory, reference=[str(reference)], **options)
    (case,) = cases(context)
    return case.run(context, lambda message: None)


def values(outcome: Outcome) -> dict[str, float]:
    return {check.quantity: check.value for check in outcome.checks if check.value is not None}


def test_known_shifts_and_softening_are_found(artifact: Artifact, labels: Path, tmp_path: Path) -> None:
    outcome = run(artifact, tmp_path, labels, frame="shift")
    found = values(outcome)
    assert outcome.case == "labels"
    # extended XYZ is written with 8 digits, of energies of tens of eV
    assert found["energy, MAE"] < 1e-6
    assert found["stress component, MAE"] < 1e-6
    assert found["force, slope through zero, less 1"] == pytest.approx(SOFTENING - 1, abs=1e-6)
    assert found["force, slope through zero of hot, less 1"] == pytest.approx(SOFTENING - 1, abs=1e-6)
    judged = {check.quantity: check.verdict for check in outcome.checks if check.threshold is not None}
    assert judged["energy, MAE"] == "pass"
    assert judged["force, slope through zero, less 1"] == "fail"
    assert {"force component, MAE on Na", "force component, MAE of rattled", "energy, MAE of hot"} <= set(found)
    assert any("Cl -1.7000, Na +0.3100" in note for note in outcome.notes)
    assert [curve.diagonal for curve in outcome.curves] == [True, True, True]


def test_the_domain_of_the_labels_and_the_worst_of_them_are_named(
    artifact: Artifact, labels: Path, tmp_path: Path
) -> None:
    outcome = run(artifact, tmp_path, labels)
    assert any(
        re.fullmatch(
            r"domain that the labels cover: 2 elements \(Cl, Na\), 6 to 8 .* 2\.\d\d to 2\.\d\d Å apart",
            note,
        )
        for note in outcome.notes
    )
    worst = next(check for check in outcome.checks if check.quantity == "energy, largest error")
    assert worst.value > next(check.value for check in outcome.checks if check.quantity == "energy, MAE")
    assert re.fullmatch(r"frame \d \(line \d+\)", worst.reason)


def test_an_atom_alone_has_no_neighbour() -> None:
    assert neighbour_distance(Atoms("Na")) == 12.0
    assert neighbour_distance(bulk("NaCl", "rocksalt", a=5.6)) == pytest.approx(2.8)


def test_without_the_shift_the_same_data_fail(artifact: Artifact, labels: Path, tmp_path: Path) -> None:
    outcome = run(artifact, tmp_path, labels)
    energy = next(check for check in outcome.checks if check.quantity == "energy, MAE")
    assert energy.verdict == "fail"
    assert energy.value > 0.5
    assert "times the threshold" in energy.reason


def test_across_frames_nothing_is_judged(artifact: Artifact, labels: Path, tmp_path: Path) -> None:
    text = labels.read_text().replace("functional=PBE", "functional=LDA")
    other = tmp_path / "lda.extxyz"
    other.write_text(text)
    with pytest.raises(MLIPError, match="energy frames differ in functional"):
        run(artifact, tmp_path, other)
    outcome = run(artifact, tmp_path, other, frame="as-is")
    energy = next(check for check in outcome.checks if check.quantity == "energy, MAE")
    assert (energy.verdict, energy.threshold) == ("not-applicable", None)


def test_a_run_that_judged_no_energies_says_so(toy_local: Path, labels: Path, tmp_path: Path) -> None:
    """In the terminal, in the exit status and at the top of the report; elements are those of the labels."""
    sound = tmp_path / "labels.extxyz"
    frames = read(labels, ":")
    calculator = MLIPCalculator(toy_local)
    for atoms in frames:
        atoms.calc = calculator
        result = SinglePointCalculator(atoms, energy=atoms.get_potential_energy() + 3.0, forces=atoms.get_forces())
        atoms.calc = result
    frames[0].info["energy_frame"] = FRAME
    write(sound, frames, format="extxyz")
    arguments = ("validate", toy_local, "--suite", "reference", "--engine", "ase", "--reference", sound)
    done = mlip(*arguments, "--frame", "as-is", "-o", tmp_path / "out")
    assert done.returncode == 3, done.stdout + done.stderr
    verdict = "pass (labels: forces judged, energies not judged)"
    assert f"verdict: {verdict}" in done.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert f'<div class="verdict open"><strong>Verdict: {verdict}</strong>' in page
    assert "differs: functional" in page
    assert "2 elements (Cl, Na)" in page
    assert "those of the structures, not all 3 of the model" in page
    assert "3 of the model&#x27;s 3 elements" not in page
    judged = tmp_path / "judged.extxyz"
    judged.write_text(sound.read_text().replace("functional=PBE", "functional=none"))
    done = mlip(*arguments[:-1], judged, "--frame", "shift", "-o", tmp_path / "judged")
    assert (done.returncode, "verdict: pass\n" in done.stdout) == (0, True), done.stdout + done.stderr


BROKEN = [
    (lambda lines: lines[:-1], r"frame 6, line \d+: the file ends after 5 of 6 atoms. Copy the file again"),
    (lambda lines: [*lines[:4], lines[4].rsplit(maxsplit=1)[0], *lines[5:]], "frame 1, line 5: 6 columns, .* needs 7"),
    (lambda lines: [*lines[:4], "Na 0 0 zero 0 0 0", *lines[5:]], "line 5: column 4 is 'zero', expected a finite"),
    (lambda lines: [*lines[:4], "Na 0 0 nan 0 0 0", *lines[5:]], "line 5: column 4 is 'nan', expected a finite"),
    (lambda lines: [*lines[:4], "Qq 0 0 0 0 0 0", *lines[5:]], "frame 1, line 5: 'Qq' is not a chemical symbol"),
    (lambda lines: [*lines[:10], "Cl 0 0 0 0 0 0", *lines[10:]], "frame 2, line 11: expected the number of atoms"),
    (
        lambda lines: [lines[0], lines[1].replace(" energy=", " dft_energy="), *lines[2:]],
        "frame 1: no energy. .*dft_en",
    ),
    (lambda lines: ["0", *lines[1:]], "frame 1, line 1: expected the number of atoms, found '0'"),
    (
        lambda lines: [lines[0], re.sub(r" energy=\S+", " energy=nan", lines[1]), *lines[2:]],
        "frame 1: energy is nan. Remove the frame",
    ),
    (
        lambda lines: [lines[0], lines[1].replace(FRAME, "nothing"), *lines[2:]],
        "frame 'nothing' needs the terms",
    ),
    (
        lambda lines: [lines[0], lines[1].replace("energy_frame", "remark"), *lines[2:]],
        "is unknown.*Declare what you know",
    ),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_a_broken_file_is_named_by_frame_and_line(
    artifact: Artifact, labels: Path, tmp_path: Path, damage: object, message: str
) -> None:
    path = tmp_path / "broken.extxyz"
    path.write_text("\n".join(damage(labels.read_text().splitlines())) + "\n")
    with pytest.raises(MLIPError, match=message):
        load(artifact, str(path))


def test_missing_forces_and_unknown_elements_say_what_to_add(artifact: Artifact, tmp_path: Path) -> None:
    atoms = Atoms("NaCu", positions=[[0, 0, 0], [2.5, 0, 0]], cell=[9, 9, 9], pbc=True, info={"energy_frame": FRAME})
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    path = tmp_path / "energies.extxyz"
    write(path, atoms, format="extxyz")
    with pytest.raises(MLIPError, match=r"no forces .*Add the columns forces:R:3.*--frame energies-only"):
        load(artifact, str(path))
    with pytest.raises(MLIPError, match=r"frame 1 \(line 1\): Cu is not an element of toy-local.*--elements Na,Cl,Si"):
        load(artifact, str(path), frame="energies-only")
    with pytest.raises(MLIPError, match="no structure made of Si only"):
        load(artifact, str(path), elements=["Si"], frame="energies-only")


def test_statistics_of_vectors_and_components() -> None:
    label = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    predicted = 0.5 * label
    assert errors(label, predicted).slope == pytest.approx(0.5, abs=FLOAT64_SUM)
    assert vector_errors(label, predicted).mae == pytest.approx((2.5 + 1.0) / 2, abs=FLOAT64_SUM)
    assert errors(label, predicted).mae == pytest.approx((1.5 + 2.0 + 1.0) / 6, abs=FLOAT64_SUM)


def test_shifts_of_elements_in_one_ratio_share_their_sum() -> None:
    shifts = fit_shifts([["Na", "Cl"], ["Na", "Na", "Cl", "Cl"]], np.array([1.0, 2.0]))
    assert shifts["Na"] + shifts["Cl"] == pytest.approx(1.0, abs=FLOAT64_SUM)


@pytest.mark.skipif(not os.environ.get(DATA_DIR), reason=f"{DATA_DIR} names no folder with reference data")
def test_the_frame_decides_the_error_of_sevennet_on_wbm(artifacts) -> None:
    """The reason for energy frames: the same model, right and ten times worse, by the labels' corrections alone."""
    artifact = Artifact(artifacts.sevennet_0("float32"))
    reference = load(artifact, "wbm")
    corrected = [frame for frame in reference.frames if frame.config_type == "with corrections"][::7]
    assert len(corrected) > 50
    raw = type(reference)(reference.name, corrected, reference.agreement, [])
    results = predict(artifact, raw, "ase", CPU, lambda message: None)
    label, predicted, _ = energy_differences(raw, results)
    sizes = np.array([len(frame.atoms) for frame in corrected])
    in_other_frame = np.array([frame.energies["mp2020"] for frame in corrected]) / sizes
    # 28 to 34 and 248 to 274 meV/atom over several subsets of this size
    assert 0.02 < errors(label, predicted).mae < 0.045
    assert 0.2 < errors(in_other_frame, predicted).mae < 0.3
    with pytest.raises(MLIPError, match="differ in corrections"):
        load(artifact, "wbm", frame="mp2020")
