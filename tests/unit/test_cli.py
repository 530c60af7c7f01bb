"""The command line: examples in --help, exit codes, messages, and files that survive an interruption."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import mlip

from mlip_deploy import files
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.cli.main import main, parser
from mlip_deploy.environment.doctor import _family, examine
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions, Family

COMMANDS = [
    "export",
    "info",
    "check",
    "validate",
    "domain",
    "select",
    "compare",
    "datasheet",
    "atlas",
    "conform",
    "prepare",
    "run",
    "bench",
    "deploy",
    "doctor",
    "completion",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command):
    done = mlip(command, "--help")
    assert done.returncode == 0
    assert f"example: mlip {command}" in " ".join(done.stdout.split())


def test_info(tiny):
    done = mlip("info", tiny)
    assert done.returncode == 0
    assert "3 message-passing layers" in " ".join(done.stdout.split())
    assert re.search("^heat flux +exact *$", done.stdout, re.MULTILINE)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["export", "sevennet", "7net-0", "--head", "PBE", "-o", "x.mlip.pt"],
            "modalities, not heads. Type: --modal PBE",
        ),
        (["export", "chgnet", "0.3.0", "--head", "PBE", "-o", "x.mlip.pt"], "have no heads. Leave --head out"),
        (["export", "sevennet", "7net-0", "-o", "/proc/x.mlip.pt"], "no file can be written in '/proc'"),
        (["info", "nothing.mlip.pt"], "no such file"),
        (
            ["export", "sevennet"],
            "required: source, -o/--output. For example: mlip export sevennet 7net-0 -o 7net-0.mlip.pt",
        ),
        (["export", "sevennet", "7net-0", "-o", "model.pt"], "file names end in .mlip.pt here. Type: -o model.mlip.pt"),
        (
            ["export", "sevennet", "8net-0", "-o", "x.mlip.pt"],
            "neither a file nor a SevenNet model. Known models: 7net-0",
        ),
        (
            ["export", "sevennet", "7net-0", "--device", "cuda", "-o", "x.mlip.pt"],
            "a file is written for no device, '*.mlip.pt' runs on CPUs and GPUs. Leave it out, and give it where the "
            "file runs: mlip check NAME.mlip.pt --device cuda",
        ),
        (
            ["export", "sevennet", "7net-0", "--backend", "aotinductor", "--device", "cuda", "-o", "x.mlip.pt2"],
            "--device cuda: code for a GPU is compiled on a machine that has one, and torch",
        ),
        (["export", "sevennet", "no/such.pth", "-o", "x.mlip.pt"], "no such checkpoint file"),
        (["export", "sevennet", "7net-mf-0", "-o", "x.mlip.pt"], "has several modalities (PBE, R2SCAN)"),
        (["export", "sevennet", "7net-mf-0", "--modal", "HSE", "-o", "x.mlip.pt"], "--modal HSE is not one of them"),
        (["export", "sevennet", "7net-0", "--modal", "PBE", "-o", "x.mlip.pt"], "7net-0 has no modalities"),
        (["check", "x.mlip.pt", "--engines", "gromacs"], "'gromacs' is not one of ase, lammps, openmm"),
        (["check", "x.mlip.pt", "--ranks", "two"], "expected positive numbers such as 1,2"),
    ],
)
def test_wrong_input(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = mlip(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


WITHOUT_COMPILER = """
import sys
from mlip_deploy.cli.main import main
status = main(sys.argv[1:])
assert "torch" in sys.modules or sys.argv[1] == "info"
assert "torch._dynamo" not in sys.modules
sys.exit(status)
"""


@pytest.mark.parametrize("words", [["info"], ["check", "--engines", "ase"]], ids=["info", "check"])
def test_torchs_compiler_is_not_imported(words, toy_local):
    """It takes three seconds, and a file is run without it."""
    command = [sys.executable, "-c", WITHOUT_COMPILER, words[0], str(toy_local), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_deprecation_of_torch_is_shown_to_who_cannot_act_on_it(tmp_path, artifacts):
    command = [sys.executable, "-W", "always", "-m", "mlip_deploy.cli.main"]
    export = ["export", "sevennet", str(artifacts.checkpoint()), "-o", str(tmp_path / "tiny.mlip.pt")]
    done = subprocess.run([*command, *export], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "next: mlip check" in done.stdout
    assert "torch.jit" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_failed_export_leaves_the_old_file(tmp_path, tiny):
    output = tmp_path / "model.mlip.pt"
    output.write_bytes(tiny.read_bytes())
    assert mlip("export", "sevennet", "8net-0", "-o", output).returncode == 2
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


@pytest.mark.slow
def test_doctor_finds_nothing_wrong_here():
    done = mlip("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded by lmp without a 'plugin load' line" in " ".join(done.stdout.split())
    findings = json.loads(mlip("doctor", "--json").stdout)
    assert [finding["item"] for finding in findings if finding["problem"]] == []
    assert all(finding["item"] in done.stdout for finding in findings)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["check", "x", "--engines", "ase, lammps"], {"engines": ["ase", "lammps"]}),
        (["check", "--engines", "ase,", "lammps", "x"], {"engines": ["ase", "lammps"], "file": Path("x")}),
        (["check", "--engine=ase ,", "lammps", "x"], {"engines": ["ase", "lammps"], "file": Path("x")}),
        (["check", "--engine", "ase", ",lammps", "x", "--ranks", "1, 4"],
         {"engines": ["ase", "lammps"], "ranks": [1, 4]}),
        (["bench", "x", "--engine", "lammps", "--threads", "1, 2"], {"engines": ["lammps"], "threads": [1, 2]}),
        (["validate", "x", "--engines", "ase", "--suite", "fidelity, physics", "-o", "y"],
         {"engine": "ase", "suites": ["fidelity", "physics"], "out": Path("y")}),
        (["compare", "x", "y", "--engines", "ase", "--elements", "Si,", "O", "--out", "z"],
         {"engine": "ase", "elements": ["Si", "O"], "files": [Path("x"), Path("y")]}),
        (["export", "--elements", "Si", "O", "sevennet", "7net-0", "-o", "y"],
         {"elements": ["Si", "O"], "family": "sevennet", "source": "7net-0"}),
        (["export", "mace", "--elements", "Si, O", "a.model", "-o", "y"],
         {"elements": ["Si", "O"], "source": "a.model"}),
        (["export", "mace", "a.model", "-o", "y", "--elements", "Si O"], {"elements": ["Si", "O"]}),
        (["info", "x", "--json"], {"json": "-"}),
        (["info", "x", "--json", "y"], {"json": "y"}),
    ],
)  # fmt: skip
def test_lists_and_their_spellings(words, expected):
    found = vars(parser().parse_args(words))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "x", "--elements", "Si"], "unrecognized arguments: --elements"),
        (["validate", "x", "-o", "y", "--eng", "ase"], "unrecognized arguments: --eng ase"),
        (["validate", "x", "-o", "y", "--engines", "ase,lammps"], "invalid choice: 'ase,lammps'"),
        (["check", "x", "--ranks", "0"], "'0': expected positive numbers such as 1,2"),
        (["info", "--json", "x.mlip.pt"], "is the name of an artifact, which would be replaced. Put x.mlip.pt before"),
        (["check", "x", "--engines", "ase,", "--ranks", "1", "--surprise"], "unrecognized arguments: --surprise"),
        (
            ["run", "ase", "x", "y", "-o", "z", "--temprature=9"],
            "--temprature=9. Did you mean --temperature? For example: mlip run",
        ),
    ],
)
def test_wrong_usage(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(words)
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_json_goes_to_a_file_or_to_standard_output(tiny, tmp_path):
    written = mlip("check", tiny, "--engines", "ase", "--json", tmp_path / "out.json")
    printed = mlip("check", tiny, "--engines", "ase", "--json")
    assert "verdict" in written.stdout
    assert json.loads(printed.stdout) == json.loads((tmp_path / "out.json").read_text())
    assert mlip("info", tiny, "--json", tmp_path / "contract.json").returncode == 0
    assert json.loads((tmp_path / "contract.json").read_text()) == json.loads(Artifact(tiny).contract.to_json())


def test_tables_in_a_log_file_are_not_cut(tiny):
    """Eighty columns are what rich takes a file for."""
    lines = mlip("check", tiny, "--engines", "ase").stdout.splitlines()
    assert max(map(len, lines)) > 80
    assert all(word in "\n".join(lines) for word in ("tolerance", "lone atom eV", "Δσ eV/Å³"))
    assert "…" not in "".join(lines)
    citation = next(line for line in mlip("info", tiny).stdout.splitlines() if line.startswith("citation"))
    assert citation.endswith(Artifact(tiny).contract.model.citation)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/proc/out.json", "no file can be written in '/proc'"),
        ("/dev/null", "is not a regular file"),
        (".", "is a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_before_the_work(target, message, tiny):
    done = mlip("check", tiny, "--json", target)
    assert done.returncode == 2
    assert message in done.stderr
    assert "structures" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_export_that_is_ended_leaves_nothing(end, status, artifacts, tmp_path):
    command = [sys.executable, "-m", "mlip_deploy.cli.main", "export", "sevennet", artifacts.checkpoint(), "-o"]
    with subprocess.Popen([*command, tmp_path / "x.mlip.pt"], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("fixture"):
                process.send_signal(end)
                break
        said = process.stderr.read()
    assert process.returncode == status
    assert said.splitlines()[-1] == ("interrupted" if status == 130 else "terminated")
    assert not list(tmp_path.iterdir())


def test_the_handler_of_a_caller_comes_back(tiny, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(["info", str(tiny)]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interruption_that_is_heard_while_an_error_is_shown(tmp_path, monkeypatch):
    """Ctrl-C ends the engine too, whose end may be known first."""
    module, shown = sys.modules[main.__module__], []

    def interrupted_once(text):
        shown.append(text)
        if len(shown) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.errors, "print", interrupted_once)
    assert main(["info", str(tmp_path / "nothing.mlip.pt")]) == 130
    assert shown[-1] == "interrupted"


def test_completion():
    script = mlip("completion", "bash").stdout
    ask = 'COMP_WORDS=(mlip che); COMP_CWORD=1; COMP_LINE="mlip che"; _shtab_mlip; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True)
    assert done.stdout.split() == ["check"], done.stderr
    assert "_files" in mlip("completion", "zsh").stdout
    assert mlip("completion", "csh").returncode == 2


def test_doctor_lists_every_family():
    lines = [finding.item for finding in examine()]
    assert [f"export {name}" for name in FAMILIES] == lines[-len(FAMILIES) :]
    absent = _family(Family("mine", "no_such_package", "pip install it", "a file"))
    assert absent.ok
    assert absent.found == "not installed. To export: pip install it"
