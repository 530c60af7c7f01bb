"""Several models side by side, and labels that stand against all of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from conftest import mlip
from pair_potential import crystal
from tolerances import FLOAT64_SUM
from toy_models import ELEMENTS, NO_FRAME, LocalEnergy, export

from mlip_deploy import export_module
from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.comparison import cross
from mlip_deploy.comparison.audit import audit
from mlip_deploy.comparison.compare import compare
from mlip_deploy.errors import MLIPError

FRAME = "functional=none,hubbard_u=none,corrections=none,dispersion=none"
WRONG = 4  # the frame of the damaged label


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, toy_local: Path) -> list[Path]:
    """Two local models that differ by their cutoffs alone, by a little."""
    return [toy_local, export(tmp_path_factory.mktemp("toys") / "other.mlip.pt", "local", cutoff=3.92)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ase.build import bulk

    path = tmp_path_factory.mktemp("start") / "start.extxyz"
    write(path, bulk("NaCl", "rocksalt", a=5.6, cubic=True), format="extxyz")
    return path


@pytest.fixture(scope="module")
def labels(models: list[Path], start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of the first model, small errors added, and a wrong energy in one frame."""
    random = np.random.default_rng(5)
    frames = []
    for number in range(8):
        atoms = read(start)
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = MLIPCalculator(models[0])
        energy = atoms.get_potential_energy() + random.normal(scale=0.2) + (40.0 if number == WRONG else 0.0)
        forces = atoms.get_forces() + random.normal(scale=0.05, size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        if number == 0:
            atoms.info["energy_frame"] = FRAME
        frames.append(atoms)
    path = tmp_path_factory.mktemp("labels") / "labels.extxyz"
    write(path, frames, format="extxyz")
    return path


def test_the_command_writes_one_table_matrix_and_flags(
    models: list[Path], labels: Path, start: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.json"
    options = ["--reference", labels, "--structures", start, "-o", tmp_path, "--json", copy]
    done = mlip("compare", *models, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "compare.json").read_text())
    assert json.loads(copy.read_text())["rows"] == found["rows"]
    assert found["models"] == ["toy-local.mlip.pt", "other.mlip.pt"]  # one model's name twice would not tell them apart
    mae = next(row for row in found["rows"] if row["quantity"] == "force component, MAE")
    assert 0.03 < mae["values"][0] < 0.05  # 0.05 times the square root of 2/π
    assert mae["values"][1] > mae["values"][0]
    (flag,) = found["flags"]
    assert flag["frame"].startswith(f"frame {WRONG + 1} ")
    assert flag["label_against_models"] == pytest.approx(5.0, abs=0.2)  # 40 eV over 8 atoms
    assert "look at the label: labels, frame 5" in done.stdout
    overlaid = next(curve for curve in found["curves"] if "force component" in curve["title"])
    assert [series["label"] for series in overlaid["series"]] == ["toy-local.mlip.pt: all", "other.mlip.pt: all"]
    html = (tmp_path / "compare.html").read_text()
    assert "Cross-prediction" in html
    assert "<svg" in html or "data:image/" in html


def test_the_matrix_is_zero_where_a_model_predicts_itself(models: list[Path], start: Path, tmp_path: Path) -> None:
    found = compare(models, out=tmp_path, structures=start).cross_prediction
    forces = np.array(found.forces)
    assert np.diag(forces) == pytest.approx([0.0, 0.0], abs=FLOAT64_SUM)
    assert (forces[~np.eye(2, dtype=bool)] > 1e-3).all()
    assert {d.element for d in found.disagreement} == {"Na", "Cl"}
    assert all(0 < d.mean <= d.largest for d in found.disagreement)
    assert len(found.structures) == 2 * cross.STEPS // cross.EVERY


def test_two_copies_of_one_model_agree_everywhere(pair_potential: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mlip.pt"
    copy.write_bytes(pair_potential.read_bytes())
    start = tmp_path / "copper.extxyz"
    write(start, crystal(2), format="extxyz")
    found = compare([pair_potential, copy], out=tmp_path, structures=start).cross_prediction
    assert np.abs(found.forces).max() < FLOAT64_SUM
    assert found.disagreement[0].largest < FLOAT64_SUM


@pytest.mark.parametrize(
    ("other", "warning"),
    [
        (NO_FRAME, None),
        (NO_FRAME.model_copy(update={"functional": "PBE"}), "warning: the energy frames differ (none: none, Hubbard"),
        (EnergyFrame.unknown(), "warning: an energy frame is unknown, so energies may not be comparable (none: none,"),
    ],
)
def test_models_of_different_energy_frames_are_warned_of(
    other: EnergyFrame, warning: str | None, start: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / "none.mlip.pt", tmp_path / "other.mlip.pt"]
    for path, frame in zip(paths, (NO_FRAME, other), strict=True):
        name = path.name.partition(".")[0]
        export_module(LocalEnergy(3.9), path, elements=ELEMENTS, cutoff=3.9, name=name, energy_frame=frame)
    done = mlip("compare", *paths, "--structures", start, "-o", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    words, html = " ".join(done.stdout.split()), (tmp_path / "compare.html").read_text()
    assert warning in words if warning else "warning: " not in words
    assert ("warning: " in html) == (warning is not None)


def test_an_audit_needs_models_that_agree() -> None:
    near, far = np.full(9, 0.01), np.full(9, 0.01)
    near[3], far[3] = 0.5, 0.5
    names = [str(k) for k in range(9)]
    agree, differ = np.full(9, 0.005), np.full(9, 0.9)
    assert [flag.frame for flag in audit("set", names, np.array([near, far]), agree, "energy", "eV/atom")] == ["3"]
    assert audit("set", names, np.array([near, far]), differ, "energy", "eV/atom") == []
    assert audit("set", names, np.array([near]), agree, "energy", "eV/atom") == []


def test_wrong_input_is_named(models: list[Path], labels: Path, start: Path, tmp_path: Path) -> None:
    first, second = models
    with pytest.raises(MLIPError, match=r"two artifacts or more\. For one, type: mlip validate"):
        compare([first], out=tmp_path)
    with pytest.raises(MLIPError, match="--frame was given 3 times for 2 models"):
        compare([first, second], out=tmp_path, frame=["raw"] * 3)
    with pytest.raises(MLIPError, match=r"toy-local\.mlip\.pt: --frame mp2020: .* carries the energies: raw"):
        compare([first, second], out=tmp_path, reference=[labels], frame=["mp2020"])
    with pytest.raises(MLIPError, match="no model-wide known element among Fe"):
        compare([first, second], out=tmp_path, elements=["Fe"])
    molecule = tmp_path / "molecule.xyz"
    molecule.write_text("1\n\nNa 0 0 0\n")
    with pytest.raises(MLIPError, match="structure 1 is not periodic in all directions"):
        compare([first, second], out=tmp_path, structures=molecule)
