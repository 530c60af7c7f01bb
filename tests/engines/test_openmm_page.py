"""docs/openmm.md: every piece of Python on the page runs, in order, as one script."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import EXAMPLES

PAGE = EXAMPLES.parent / "docs" / "openmm.md"


def pieces():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_page(artifacts, tiny, tmp_path):
    pytest.importorskip("openmmml", reason="openmm-ml is not installed. Type: pip install openmmml")
    shutil.copy(tiny, tmp_path / "7net-0.mlip.pt")
    for name in ("methanol.pdb", "methanol.xml"):
        shutil.copy(EXAMPLES / "openmm" / name, tmp_path)
    # openmmtorch lives in an environment of its own: test_openmmtorch.py runs that piece.
    script = "\n".join(piece for piece in pieces() if "import openmmtorch" not in piece)
    assert script.count("MLIPForce(") >= 4
    script = script.replace('"CHECKPOINT"', repr(str(artifacts.checkpoint())))
    environment = {**os.environ, "OPENMM_DEFAULT_PLATFORM": "CPU"}  # not pocl, see the page
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "methanol.torchforce.pt").stat().st_size > 0
    assert (tmp_path / "system.xml").stat().st_size > tiny.stat().st_size
