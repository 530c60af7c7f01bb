"""`mlip check` is a gate: it must go red, say which number, and never leave half a result."""

import json

import numpy as np
import pytest
from archives import rewritten
from ase.build import bulk
from conftest import mlip

from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.reader import FIXTURES_RECORD, Artifact
from mlip_deploy.engines import ENGINES, evaluator
from mlip_deploy.errors import MLIPError


def rewrite_fixtures(source, target, change):
    """The same model with other fixtures."""

    def change_record(contents):
        fixtures = json.loads(contents[f"extra/{FIXTURES_RECORD}"])
        change(fixtures)
        Fixtures.model_validate(fixtures)
        contents[f"extra/{FIXTURES_RECORD}"] = json.dumps(fixtures).encode()

    return rewritten(source, target, change_record)


def shift_energy(fixtures):
    fixtures["structures"][0]["energy"] += 1e-6


def move_energy_between_atoms(fixtures):
    fixtures["structures"][0]["atomic_energies"][0] += 1e-6
    fixtures["structures"][0]["atomic_energies"][1] -= 1e-6


def turn_a_force(fixtures):
    fixtures["structures"][3]["forces"][2][1] += 1e-6


def flip_stress(fixtures):
    fixtures["structures"][0]["stress"] = [-value for value in fixtures["structures"][0]["stress"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shift_energy, "sheared crystal: energy differ by"),
        (move_energy_between_atoms, "sheared crystal: atomic energies differ by 1.00e-06 eV"),
        (turn_a_force, "molecule without periodicity: forces differ by 1.00e-06 eV/Å, tolerance 1.00e-08"),
        (flip_stress, "sheared crystal: stress differ by"),
    ],
)
def test_out_of_tolerance(change, words, tiny, tmp_path):
    path = rewrite_fixtures(tiny, tmp_path / "changed.mlip.pt", change)
    name = words.split(":")[0]
    done = mlip("check", path, "--engines", "ase", "--json", tmp_path / "out.json")
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    comparisons = json.loads((tmp_path / "out.json").read_text())["comparisons"]
    failed = [c["structure"] for c in comparisons if c["verdict"] == "fail"]
    assert failed in ([name], [name, f"{name}, 8 cells"]), "the crystal's supercell is compared with the same numbers"


def test_an_atom_among_its_images_is_no_isolated_atom(tiny):
    """Its energy has the noise of neighbours. In a file of one element, fixtures are such."""
    structures = {structure.name: structure for structure in Artifact(tiny).fixtures().structures}
    single = structures["single atom"]
    assert single.is_isolated_atom
    assert not single.model_copy(update={"pbc": [True, True, False]}).is_isolated_atom
    assert not structures["molecule without periodicity"].is_isolated_atom


def test_green(tiny, tmp_path):
    done = mlip("check", tiny, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert {(c["engine"], c["ranks"]) for c in report["comparisons"]} == {
        ("ase", 1),
        ("lammps", 1),
        ("lammps", 2),
        ("openmm", 1),
    }
    assert report["parts"]["verdict"] == "pass"
    assert np.abs(Artifact(tiny).fixtures().structures[0].stress).max() > 1e-3


def test_an_unreadable_artifact_leaves_out_alone(tmp_path):
    output = tmp_path / "out.json"
    output.write_text("old")
    (tmp_path / "bad.mlip.pt").write_text("no")
    assert mlip("check", tmp_path / "bad.mlip.pt", "--json", output).returncode == 2
    assert output.read_text() == "old"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_device_reaches_every_engine(engine, tiny):
    """A device that no machine has."""
    with pytest.raises(MLIPError, match="'cuda:99' asked for"):
        evaluator(engine)(tiny, bulk("Si"), device="cuda:99")
