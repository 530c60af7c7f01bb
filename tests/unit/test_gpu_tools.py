"""tools/gpu without a GPU: the scripts run on the CPU, and the pack is what pip installs."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools/gpu"


def test_operators_agree_with_themselves_on_a_cpu() -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "operators.py", "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "DEV": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("RESULT all agree\n")
    assert done.stdout.count("FAILED") == 0


@pytest.mark.parametrize("script", ["steps.py", "dynamics.py lammps", "dynamics.py openmm"])
def test_a_stage_runs(script: str, tiny: Path, tmp_path: Path) -> None:
    name, *arguments = script.split()
    done = subprocess.run(
        [sys.executable, TOOLS / name, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "DEV": "cpu", "SIZES": "8", "MODEL": str(tiny), "LOGS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^RESULT .*si8.*: \d+\.\d\d ms a step", done.stdout, re.MULTILINE), done.stdout


def test_the_script_is_read_by_bash() -> None:
    subprocess.run(["bash", "-n", TOOLS / "first_run.sh"], check=True)
    pack = runpy.run_path(str(TOOLS / "pack.py"))
    for name in pack["SCRIPTS"]:
        assert (TOOLS / name).is_file()
        if name.endswith(".py"):
            assert f"$HERE/{name}" in (TOOLS / "first_run.sh").read_text()


def test_a_wheel_is_slimmed_to_one_that_pip_takes(tmp_path: Path) -> None:
    pack = runpy.run_path(str(TOOLS / "pack.py"))
    wheel, record = tmp_path / "sevenn-1.0-py3-none-any.whl", "sevenn-1.0.dist-info/RECORD"
    kept = {"sevenn/__init__.py": b"x = 1\n", "sevenn/SevenNet_0__11Jul2024.pth": b"weights"}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**kept, "sevenn/SevenNet_l3i5.pth": b"more", record: b"old"}.items():
            archive.writestr(name, content)
    (tmp_path / "slim").mkdir()
    pack["slim"](wheel, tmp_path / "slim")
    with zipfile.ZipFile(tmp_path / "slim" / wheel.name) as archive:
        assert {*archive.namelist()} == {*kept, record}
        rows = dict(line.split(",", 1) for line in archive.read(record).decode().splitlines())
    for name, content in kept.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert rows[name] == f"sha256={digest},{len(content)}"


def test_releases_are_those_that_are_tested() -> None:
    pack = runpy.run_path(str(TOOLS / "pack.py"))
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text()
    found = dict(line.split("==") for line in pack["requirements"]() if "==" in line)
    assert f"lammps=={found['lammps']}\n" in constraints
    assert found["openmm-cuda-13"] == found["openmm"]
