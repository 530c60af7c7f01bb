"""The command line: examples in --help, exit codes, messages, and files that survive an interruption."""

import json
import subprocess
import sys

import pytest
from conftest import mlip

from mlip_deploy import files
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, Family


@pytest.mark.parametrize("command", ["export", "info", "check", "validate", "bench", "deploy", "doctor"])
def test_help_shows_an_example(command):
    done = mlip(command, "--help")
    assert done.returncode == 0
    assert f"example: mlip {command}" in " ".join(done.stdout.split())


def test_info(tiny):
    done = mlip("info", tiny)
    assert done.returncode == 0
    assert "3 message-passing layers" in " ".join(done.stdout.split())
    assert json.loads(mlip("info", tiny, "--json").stdout) == json.loads(Artifact(tiny).contract.to_json())


def test_list_of_families():
    done = mlip("export", "--list")
    assert done.returncode == 0
    lines = {line.split()[0]: " ".join(line.split()) for line in done.stdout.splitlines()}
    assert "sevennet yes pip install sevenn" in lines["sevennet"]
    assert set(FAMILIES) < set(lines)


def test_a_missing_package_is_named_with_the_line_that_installs_it():
    with pytest.raises(MLIPError, match=r"the package 'no_such_package' is not installed. Type: pip install it"):
        Family("mine", "no_such_package", "pip install it", "a file").adapt("x", ExportOptions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing.mlip.pt"], "no such file"),
        (["export", "sevennet"], "mlip export needs FAMILY, SOURCE and -o FILE. Type, for instance: mlip export"),
        (["export", "sevennet", "7net-0", "-o", "model.pt"], "file names end in .mlip.pt here. Type: -o model.mlip.pt"),
        (
            ["export", "sevennet", "8net-0", "-o", "x.mlip.pt"],
            "neither a file nor a SevenNet model. Known models: 7net-0",
        ),
        (["export", "sevennet", "no/such.pth", "-o", "x.mlip.pt"], "no such checkpoint file"),
        (["export", "sevennet", "7net-mf-0", "-o", "x.mlip.pt"], "has several modalities (PBE, R2SCAN)"),
        (["export", "sevennet", "7net-mf-0", "--modal", "HSE", "-o", "x.mlip.pt"], "--modal HSE is not one of them"),
        (["export", "sevennet", "7net-0", "--modal", "PBE", "-o", "x.mlip.pt"], "7net-0 has no modalities"),
        (["check", "x.mlip.pt", "--engines", "gromacs"], "'gromacs' is not one of ase, lammps, openmm"),
        (["check", "x.mlip.pt", "--ranks", "two"], "expected numbers such as 1,2"),
    ],
)
def test_wrong_input(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = mlip(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_deprecation_of_torch_is_shown_to_who_cannot_act_on_it(tmp_path, artifacts):
    command = [sys.executable, "-W", "always", "-m", "mlip_deploy.cli.main"]
    export = ["export", "sevennet", str(artifacts.checkpoint()), "-o", str(tmp_path / "tiny.mlip.pt")]
    done = subprocess.run([*command, *export], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "next: mlip check" in done.stdout
    assert "torch.jit" not in done.stdout + done.stderr


def test_a_failed_export_leaves_the_old_file(tmp_path, tiny):
    output = tmp_path / "model.mlip.pt"
    output.write_bytes(tiny.read_bytes())
    assert mlip("export", "sevennet", "8net-0", "-o", output).returncode == 1
    assert output.read_bytes() == tiny.read_bytes()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    output = tmp_path / "out.json"
    files.write_text(output, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(output, "new")
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_doctor_finds_nothing_wrong_here():
    done = mlip("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded by lmp without a 'plugin load' line" in " ".join(done.stdout.split())
