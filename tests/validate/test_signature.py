"""The gate: who is signed, what makes a signature stale, and what each engine says."""

import json
import subprocess
import warnings
import zipfile

import numpy as np
import openmm
import pytest
import torch
import toy_models
from conftest import mlip
from toy_models import LocalEnergy

from mlip_deploy.artifact import gate as signature_module
from mlip_deploy.artifact.gate import UnvalidatedWarning, problem, sign
from mlip_deploy.artifact.reader import SIGNATURE_RECORD, Artifact
from mlip_deploy.artifact.validation_record import Signature, release
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
    """A toy that `mlip validate --sign` passed and signed, with what the command printed."""
    directory = tmp_path_factory.mktemp("signed")
    fixtures = toy_models.fixtures_of(directory)
    path = toy_models.write(directory / "toy.mlip.pt", LocalEnergy(3.9), "local", "float64", 3.9, fixtures)
    before = path.read_bytes()
    done = mlip("validate", path, "--engine", "ase", "--sign", "-o", directory / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    return path, before, done.stdout


@pytest.fixture
def signed(validated, tmp_path):
    path = tmp_path / "toy.mlip.pt"
    path.write_bytes(validated[0].read_bytes())
    return path


@pytest.fixture
def unsigned(validated, tmp_path):
    path = tmp_path / "unsigned.mlip.pt"
    path.write_bytes(validated[1])
    return path


def with_signature(path, **changes):
    """The file with another record."""
    artifact = Artifact(path)
    record = artifact.signature().model_dump(by_alias=True) | changes
    sign(artifact, Signature.model_validate(record))
    return path


def edited(path):
    """The same archive with another contract, the signature kept."""
    target = path.with_name("edited.mlip.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("contract.json"):
                content = content.replace(b"A toy. No journal.", b"A toy. No journal?")
            new.writestr(entry, content)
    return target


def lammps(path, directory, strict):
    return run(DECK.format(path=path, options=" strict yes" if strict else ""), directory)


def test_signed_in_every_engine(validated, signed, tmp_path):
    found = Artifact(signed)
    assert found.signature().suites == ["fidelity", "physics"]
    assert found.signature().engines == ["ase", "lammps", "openmm"]
    assert found.signature().versions == {name: release(name) for name in ("torch", "lammps", "openmm")}
    assert [problem(found, engine) for engine in ENGINES] == ["", "", ""]
    assert "signed: " in validated[2]
    output = lammps(signed, tmp_path, strict=True)
    assert "  validated fidelity, physics in ase, lammps, openmm (lammps 20" in output
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnvalidatedWarning)
        MLIPCalculator(signed)
        MLIPForce(signed, ["Na", "Cl"])


@pytest.mark.parametrize("embed", [False, True])
def test_a_context_of_a_system_from_xml_warns_on_standard_error(embed, signed, unsigned, capfd):
    """Nobody has said it before, as the constructor of MLIPForce does."""

    def printed(path, from_xml):
        system = openmm.System()
        system.addParticle(22.99)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnvalidatedWarning)
            system.addForce(MLIPForce(path, ["Na"], embed=embed))
        if from_xml:
            system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
        capfd.readouterr()
        openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        return capfd.readouterr().err

    line = f"'{unsigned}': nobody has validated it. Type: mlip validate {unsigned} --sign -o validation"
    assert printed(unsigned, from_xml=True) == f"MLIPForce: warning: {line}\n"
    assert printed(unsigned, from_xml=False) == ""
    assert printed(signed, from_xml=True) == ""


def test_signing_changes_nothing_else(signed, validated):
    """The file loads everywhere and gives the same energies; records keep torch's alignment; signing twice is once."""
    _, before, _ = validated
    old = signed.with_name("old.mlip.pt")
    old.write_bytes(before)
    atoms = Artifact(old).fixtures().structures[0].atoms()
    for engine in ENGINES:
        first, second = evaluator(engine)(old, atoms), evaluator(engine)(signed, atoms)
        assert first.energy == second.energy
        np.testing.assert_array_equal(first.forces, second.forces)
    assert Artifact(old).content_sha256() == Artifact(signed).content_sha256()
    size = signed.stat().st_size
    with_signature(signed)
    assert signed.stat().st_size == size
    with zipfile.ZipFile(signed) as archive, signed.open("rb") as file:
        names = archive.namelist()
        assert len(set(names)) == len(names)
        for entry in archive.infolist():
            file.seek(entry.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename
    torch.jit.load(str(signed))


def test_an_unsigned_file_is_warned_about(unsigned, tmp_path):
    line = f"Type: mlip validate {unsigned} --sign -o validation"
    for use in (lambda: MLIPCalculator(unsigned), lambda: MLIPForce(unsigned, ["Na"])):
        with pytest.warns(UnvalidatedWarning, match=r"nobody has validated it. Type: mlip validate") as caught:
            use()
        assert line in str(caught[0].message)
        assert caught[0].filename == __file__
    assert f"  validated no: nobody has validated it. {line}" in lammps(unsigned, tmp_path, strict=False)
    with pytest.raises(LAMMPSError, match=r"pair_style mlip strict yes: .*: nobody has validated it. Type: mlip"):
        lammps(unsigned, tmp_path, strict=True)


def test_strict_on_two_ranks(unsigned, tmp_path):
    (tmp_path / "in.two").write_text(DECK.format(path=unsigned, options=" strict yes"))
    done = subprocess.run([*launcher(2), "-in", "in.two"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "strict yes: " in done.stdout + done.stderr


def test_an_edited_file_is_stale(signed, tmp_path):
    path = edited(signed)
    assert problem(Artifact(path), "ase") == "it was changed after it was validated"
    with pytest.raises(LAMMPSError, match=r"it was changed after it was validated. Type: mlip validate"):
        lammps(path, tmp_path, strict=True)
    assert "Stale: not for ase: it was changed after" in " ".join(mlip("info", path).stdout.split())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"versions": {"torch": "2.9.0"}}, "it was validated with torch 2.9.0, this is "),
        ({"versions": {"lammps": "2024.8.29"}}, "it was validated with lammps 2024.8.29, this is 20"),
        ({"engines": ["ase", "openmm"]}, "it was validated in ase, openmm, not in lammps"),
    ],
)
def test_other_versions_and_engines_are_stale(changes, reason, signed, tmp_path):
    path = with_signature(signed, **changes)
    assert problem(Artifact(path), "lammps").startswith(reason)
    with pytest.raises(LAMMPSError, match=reason):
        lammps(path, tmp_path, strict=True)
    assert f"validated no: {reason}" in lammps(path, tmp_path, strict=False)


def test_strict_takes_yes_or_no(unsigned, tmp_path):
    with pytest.raises(LAMMPSError, match=r"perhaps"):
        run(DECK.format(path=unsigned, options=" strict perhaps"), tmp_path)


def test_a_file_that_changed_meanwhile_is_not_signed(signed):
    found = Artifact(signed).signature()
    other = edited(signed)
    before = other.read_bytes()
    with pytest.raises(MLIPError, match=r"changed while it was validated. Type: mlip validate"):
        sign(Artifact(other), found)
    assert other.read_bytes() == before


def test_an_interrupted_signing_leaves_the_file(signed, monkeypatch):
    before = signed.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(signature_module.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sign(Artifact(signed), Artifact(signed).signature())
    assert signed.read_bytes() == before
    assert list(signed.parent.iterdir()) == [signed]


def test_a_folder_that_cannot_be_written_to_is_named(signed, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(signature_module.tempfile, "mkstemp", refuse)
    with pytest.raises(MLIPError, match=r"no file can be made beside '.*' \(Permission denied\). Sign a copy"):
        sign(Artifact(signed), Artifact(signed).signature())


def test_info(signed):
    assert "physics with 3 of 3 elements" in " ".join(mlip("info", signed).stdout.split())


def test_info_of_an_unsigned_file(unsigned):
    assert "validated no. Type: mlip validate" in " ".join(mlip("info", unsigned).stdout.split())


def test_a_foreign_signature_is_named(signed):
    target = signed.with_name("foreign.mlip.pt")
    with zipfile.ZipFile(signed) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(SIGNATURE_RECORD):
                content = json.dumps(json.loads(content) | {"schema": "9.0"}).encode()
            new.writestr(entry, content)
    done = mlip("info", target)
    assert done.returncode == 2
    assert "signature: 'schema'" in done.stderr
