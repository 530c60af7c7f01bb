"""docs/validate.md: its commands run as they stand there, on a toy that has other elements."""

import re
import shlex
import shutil

import pytest
import toy_models
from conftest import EXAMPLES, mlip

PAGE = (EXAMPLES.parent / "docs" / "validate.md").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    fixtures = toy_models.fixtures_of(tmp_path)
    energy = toy_models.LocalEnergy(3.9)
    toy_models.write(tmp_path / "7net-0.mlip.pt", energy, "local", "float64", 3.9, fixtures)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands(folder):
    block = re.search(r"^```sh\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE).group(1)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [command[1] for command in commands] == ["check", "check", "validate", "validate"]
    for command in commands:
        done = mlip(*["Na,Cl" if word == "O,H" else word for word in command[1:]])
        assert done.returncode == 0, done.stdout + done.stderr
    for name in ("report.html", "validation.json", "timing.json", "cases"):
        assert (folder / "validation" / name).exists()
        assert f"`{name}" in PAGE
    assert "water at 300 K" in (folder / "water" / "report.html").read_text()
    shutil.rmtree(folder / "water")
