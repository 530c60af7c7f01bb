"""The hook in tests/conftest.py by which a missing tool fails the run in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ALLOWED = """import pytest

def test_of_a_gpu():
    pytest.skip("no GPU")

def test_of_data():
    pytest.skip("MLIP_DATA_DIR names no folder with reference data")

@pytest.mark.xfail
def test_of_a_known_fault():
    assert False

def test_that_passes():
    pass
"""
SKIPPED_TEST = """
def test_of_opencl():
    pytest.skip("no OpenCL platform. On Debian: apt-get install pocl-opencl-icd")
"""
SKIPPED_FILE = """import pytest
pytest.importorskip("no_such_package", reason="no_such_package is not installed")
"""


def run(folder: Path, ci: str, files: dict[str, str], processes: int) -> subprocess.CompletedProcess[str]:
    for name in ("conftest.py", "command_server.py"):
        shutil.copy(TESTS / name, folder)
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-ra", "-n", str(processes), "-p", "no:cacheprovider", folder]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | {"CI": ci}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("ci", "files", "processes", "words"),
    [
        ("1", {"test_a.py": ALLOWED}, 0, []),
        ("true", {"test_b.py": SKIPPED_FILE}, 0, ["test_b.py: no_such_package is not installed"]),
        (
            "1",
            {"test_a.py": ALLOWED + SKIPPED_TEST, "test_b.py": SKIPPED_FILE},
            1,
            ["test_a.py: no OpenCL platform. On Debian", "test_b.py: no_such_package is not installed"],
        ),
        ("", {"test_a.py": ALLOWED + SKIPPED_TEST, "test_b.py": SKIPPED_FILE}, 0, []),
    ],
    ids=["allowed reasons", "a file", "a test and a file, in pytest-xdist", "outside of CI"],
)
def test_a_missing_tool_fails_the_run(ci, files, processes, words, tmp_path) -> None:
    done = run(tmp_path, ci, files, processes)
    assert done.returncode == bool(words), done.stdout + done.stderr
    refused = done.stdout.partition("skips that fail the run in CI")[2]
    assert bool(refused) == bool(words)
    assert all(word in refused for word in words)
    assert "\nSKIPPED " in done.stdout, "the list of skips is printed at the end"
