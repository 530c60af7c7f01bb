"""Paths with letters that LAMMPS's input does not take: the tools link the file under a name that it does."""

import json
from pathlib import Path

import pytest
from conftest import mlip

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench.measure import lammps_samples
from mlip_deploy.engines import lammps
from mlip_deploy.engines.lammps_files import link_model
from mlip_deploy.validation import fidelity
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.physics import dynamics

NAMES = ["é", "量子", "with space", "price $x", "a & b", "it's"]


def copied(source: Path, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "net.mlip.pt"
    path.write_bytes(source.read_bytes())
    return path


@pytest.mark.parametrize("name", NAMES)
def test_check_passes_in_every_engine(name, toy_local, tmp_path):
    path = copied(toy_local, tmp_path / name)
    report = fidelity.check(path, ["ase", "lammps", "openmm"], [1])
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]


def test_bench_and_dynamics_run(toy_local, tmp_path):
    path = copied(toy_local, tmp_path / "é")
    atoms = Artifact(path).fixtures().structures[0].atoms()
    assert len(lammps_samples(atoms, [str(path), str(toy_local)], 1, 1, 2)) == 2
    context = Context(artifact=Artifact(path), engine="lammps", directory=tmp_path)
    assert len(dynamics.simulate_lammps(context, atoms, 1e-4, 2)) == 3


def test_the_command_line_too(toy_local, tmp_path):
    path = copied(toy_local, tmp_path / "é")
    done = mlip("validate", path, "--suite", "fidelity,cost", "-o", tmp_path / "é" / "out", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"


def test_a_message_of_lammps_names_the_file_itself(toy_local, tmp_path):
    path = copied(toy_local, tmp_path / "é")
    link = link_model(path, tmp_path)
    assert link.name.isascii()
    with pytest.raises(lammps.LAMMPSError, match=r"é/net\.mlip\.pt"):
        lammps.run(f"read_data {link.name}.missing\n", tmp_path)


def test_a_failure_of_the_tool_is_no_verdict(toy_local, monkeypatch):
    """Whatever is not a message of an engine ends the run, instead of becoming a failed check of the model."""

    def broken(*arguments, **options):
        raise UnicodeDecodeError("utf-8", b"\xa9", 0, 1, "invalid start byte")

    monkeypatch.setattr(fidelity, "many_evaluator", lambda engine: broken)
    with pytest.raises(UnicodeDecodeError):
        fidelity.check(toy_local, ["ase"], [1])
