"""The gate: what is recorded, what makes a record stale, and what each engine says."""

import json
import subprocess
import warnings
import zipfile

import numpy as np
import openmm
import pytest
import torch
import toy_models
from archives import rewritten
from conftest import mlip
from toy_models import LocalEnergy

from mlip_deploy import files
from mlip_deploy.artifact.gate import ValidationRecordWarning, problem, write_validation_record
from mlip_deploy.artifact.reader import VALIDATION_RECORD, Artifact
from mlip_deploy.artifact.validation_record import ValidationRecord, release
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import ENGINES, evaluator
from mlip_deploy.engines.lammps import LAMMPSError, launcher, run
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import MLIPForce

DECK = """
units metal
region box block 0 9 0 9 0 9
create_box 2 box
create_atoms 1 single 1 1 1
create_atoms 2 single 3 1 1
mass 1 22.99
mass 2 35.45
pair_style mlip{options}
pair_coeff * * {path} Na Cl
run 0
"""


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A toy that `mlip validate --record` passed, its bytes before, and what the command printed."""
    directory = tmp_path_factory.mktemp("recorded")
    fixtures = toy_models.fixtures_of(directory)
    path = toy_models.write(directory / "toy.mlip.pt", LocalEnergy(3.9), "local", "float64", 3.9, fixtures)
    before = path.read_bytes()
    done = mlip("validate", path, "--engine", "ase", "--record", "-o", directory / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    return path, before, done.stdout


@pytest.fixture
def recorded(validated, tmp_path):
    path = tmp_path / "toy.mlip.pt"
    path.write_bytes(validated[0].read_bytes())
    return path


@pytest.fixture
def fresh(validated, tmp_path):
    path = tmp_path / "fresh.mlip.pt"
    path.write_bytes(validated[1])
    return path


@pytest.fixture
def stale(recorded):
    return edited(recorded)


def with_record(path, **changes):
    """The file with another record."""
    artifact = Artifact(path)
    record = artifact.validation_record().model_dump(by_alias=True) | changes
    write_validation_record(artifact, ValidationRecord.model_validate(record))
    return path


def edited(path):
    """The same archive with another contract, the record kept."""

    def change(contents):
        contract = contents["extra/mlip/contract.json"]
        contents["extra/mlip/contract.json"] = contract.replace(b"A toy. No journal.", b"A toy. No journal?")

    return rewritten(path, path.with_name("edited.mlip.pt"), change)


def lammps(path, directory, strict):
    return run(DECK.format(path=path, options=" strict yes" if strict else ""), directory)


def test_validated_in_every_engine(validated, recorded, tmp_path):
    found = Artifact(recorded)
    assert found.validation_record().suites == ["fidelity", "physics"]
    assert found.validation_record().engines == ["ase", "lammps", "openmm"]
    assert found.validation_record().versions == {name: release(name) for name in ("torch", "lammps", "openmm")}
    assert [problem(found, engine) for engine in ENGINES] == ["", "", ""]
    assert f"recorded in {validated[0]}: pass" in " ".join(validated[2].split())
    output = lammps(recorded, tmp_path, strict=True)
    assert "  validated fidelity, physics in ase, lammps, openmm (lammps 20" in output
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValidationRecordWarning)
        MLIPCalculator(recorded)
        MLIPForce(recorded, ["Na", "Cl"])


@pytest.mark.parametrize("embed", [False, True])
def test_a_context_of_a_system_from_xml_warns_on_standard_error(embed, recorded, stale, fresh, capfd):
    """Nobody has said it before, as the constructor of MLIPForce does."""

    def printed(path, from_xml):
        system = openmm.System()
        system.addParticle(22.99)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidationRecordWarning)
            system.addForce(MLIPForce(path, ["Na"], embed=embed))
        if from_xml:
            system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
        capfd.readouterr()
        openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        return capfd.readouterr().err

    line = f"'{stale}': it was changed after it was validated. Type: mlip validate {stale} --record -o validation"
    assert printed(stale, from_xml=True) == f"MLIPForce: warning: {line}\n"
    assert printed(stale, from_xml=False) == ""
    assert printed(fresh, from_xml=True) == ""
    assert printed(recorded, from_xml=True) == ""


def test_recording_changes_nothing_else(recorded, validated):
    """The file gives the same energies everywhere; records keep torch's alignment; recording twice is once."""
    _, before, _ = validated
    old = recorded.with_name("old.mlip.pt")
    old.write_bytes(before)
    atoms = Artifact(old).fixtures().structures[0].atoms()
    for engine in ENGINES:
        first, second = evaluator(engine)(old, atoms), evaluator(engine)(recorded, atoms)
        assert first.energy == second.energy
        np.testing.assert_array_equal(first.forces, second.forces)
    assert Artifact(old).content_sha256() == Artifact(recorded).content_sha256()
    size = recorded.stat().st_size
    with_record(recorded)
    assert recorded.stat().st_size == size
    with zipfile.ZipFile(recorded) as archive, recorded.open("rb") as file:
        names = archive.namelist()
        assert len(set(names)) == len(names)
        for entry in archive.infolist():
            file.seek(entry.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename
    torch.jit.load(str(recorded))


def test_a_fresh_file_runs_without_a_warning(fresh, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ValidationRecordWarning)
        MLIPCalculator(fresh)
        MLIPForce(fresh, ["Na"])
    output = lammps(fresh, tmp_path, strict=False)
    assert "  validated no\n" in output
    assert "WARNING: pair_style mlip" not in output
    line = rf"it has not been validated. Type: mlip validate {fresh} --record -o validation"
    with pytest.raises(LAMMPSError, match=rf"pair_style mlip strict yes: {fresh}: {line}"):
        lammps(fresh, tmp_path, strict=True)


def is_doubted(path, directory, reason):
    """Every engine warns with the reason and the line to type, and strict refuses."""
    text = f"{reason}. Type: mlip validate {path} --record -o validation"
    for use in (lambda: MLIPCalculator(path), lambda: MLIPForce(path, ["Na"])):
        with pytest.warns(ValidationRecordWarning) as caught:
            use()
        assert str(caught[0].message) == f"'{path}': {text}"
        assert caught[0].filename == __file__
    output = lammps(path, directory, strict=False)
    assert f"  validated no: {reason}\n" in output
    assert f"WARNING: pair_style mlip: {path}: {text}" in output
    with pytest.raises(LAMMPSError) as refused:
        lammps(path, directory, strict=True)
    assert f"pair_style mlip strict yes: {path}: {text}" in str(refused.value)


def test_a_failed_validation_is_recorded(tmp_path):
    """A model with two elements swapped, beside the fixtures of the right one."""
    fixtures = toy_models.fixtures_of(tmp_path)
    energy = LocalEnergy(3.9)
    energy.strength = energy.strength[[1, 0, 2]]
    path = toy_models.write(tmp_path / "swapped.mlip.pt", energy, "local", "float64", 3.9, fixtures)
    done = mlip("validate", path, "--engine", "ase", "--record", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert f"recorded in {path}: fail" in " ".join(done.stdout.split())
    record = Artifact(path).validation_record()
    assert record.verdict == "fail"
    assert record.engines == ["ase", "lammps", "openmm"]
    assert any(name.startswith("ase: ") for name in record.failures)
    n_failed, first = len(record.failures), record.failures[0]
    is_doubted(path, tmp_path, f"it failed its validation ({n_failed} check(s), the first: {first})")
    words = " ".join(mlip("info", path).stdout.split())
    assert "validated no: failed in fidelity, physics in ase, lammps, openmm" in words
    assert "--record -o validation" in words


def test_sign_is_called_record_now(fresh, tmp_path):
    done = mlip("validate", fresh, "--sign", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "--sign is not an option: what is written is a record. Use --record" in done.stderr


def test_strict_takes_a_validated_file_from_where_potentials_are(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("LAMMPS_POTENTIALS", str(recorded.parent))
    (tmp_path / "run").mkdir()
    output = lammps(recorded.name, tmp_path / "run", strict=True)
    assert "WARNING: pair_style mlip" not in output


def test_strict_on_two_ranks(fresh, tmp_path):
    (tmp_path / "in.two").write_text(DECK.format(path=fresh, options=" strict yes"))
    done = subprocess.run([*launcher(2), "-in", "in.two"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "strict yes: " in done.stdout + done.stderr


def test_an_edited_file_is_stale(stale, tmp_path):
    is_doubted(stale, tmp_path, "it was changed after it was validated")
    assert "Stale: not for ase: it was changed after" in " ".join(mlip("info", stale).stdout.split())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": {"torch": "2.9.0"}}, "it was validated with torch 2.9.0, this is "),
        ({"versions": {"lammps": "2024.8.29"}}, "it was validated with lammps 2024.8.29, this is 20"),
        ({"engines": ["ase", "openmm"]}, "it was validated in ase, openmm, not in lammps"),
    ],
)
def test_other_versions_and_engines_are_stale(changes, reason, recorded, tmp_path):
    path = with_record(recorded, **changes)
    assert problem(Artifact(path), "lammps").startswith(reason)
    with pytest.raises(LAMMPSError, match=reason):
        lammps(path, tmp_path, strict=True)
    assert f"validated no: {reason}" in lammps(path, tmp_path, strict=False)


def test_strict_takes_yes_or_no(fresh, tmp_path):
    with pytest.raises(LAMMPSError, match=r"perhaps"):
        run(DECK.format(path=fresh, options=" strict perhaps"), tmp_path)


def test_a_file_that_changed_meanwhile_is_not_recorded(recorded):
    found = Artifact(recorded).validation_record()
    other = edited(recorded)
    before = other.read_bytes()
    with pytest.raises(MLIPError, match=r"changed while it was validated. Type: mlip validate"):
        write_validation_record(Artifact(other), found)
    assert other.read_bytes() == before


def test_an_interruption_leaves_the_file(recorded, monkeypatch):
    before = recorded.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_validation_record(Artifact(recorded), Artifact(recorded).validation_record())
    assert recorded.read_bytes() == before
    assert list(recorded.parent.iterdir()) == [recorded]


def test_info(recorded):
    assert "physics with 3 of 3 elements" in " ".join(mlip("info", recorded).stdout.split())


def test_info_of_a_fresh_file(fresh):
    assert "validated no. Type: mlip validate" in " ".join(mlip("info", fresh).stdout.split())


def test_a_foreign_record_is_named_and_doubted(recorded, tmp_path):
    record = f"extra/{VALIDATION_RECORD}"

    def change(contents):
        contents[record] = json.dumps(json.loads(contents[record]) | {"schema": "9.0"}).encode()

    target = rewritten(recorded, recorded.with_name("foreign.mlip.pt"), change)
    words = " ".join(mlip("info", target).stdout.split())
    assert "validated no: " in words
    assert "validation record: 'schema'" in words
    with pytest.warns(ValidationRecordWarning, match="its validation record cannot be read"):
        MLIPCalculator(target)
    output = lammps(target, tmp_path, strict=False)
    assert "the validation record is of another schema. Validate the file again: mlip validate" in output
