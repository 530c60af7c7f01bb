"""The build for several releases of torch, as for `make wheel TORCHES="2.13.0 2.14.1"`, as far as its configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def test_several_torches(tmp_path: Path) -> None:
    other = tmp_path / "torch"
    other.mkdir()
    (other / "version.py").write_text("__version__ = '2.9.0'\n")
    tools = Path(sys.executable).parent
    folders = f"{Path(torch.__file__).parent};{other}"
    options = [f"-DMLIP_TORCHES={folders}", f"-DPython_EXECUTABLE={sys.executable}", "-DMLIP_BUILD_TESTS=ON"]
    options += [f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-G", "Ninja"]
    done = subprocess.run(
        [tools / "cmake", "-S", ROOT, "-B", tmp_path / "build", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"torch 2.9.0 in {other}" in done.stdout
    ninja = (tmp_path / "build" / "build.ninja").read_text()
    assert all(
        f"torch-{release}/libmlip.so" in ninja for release in (".".join(torch.__version__.split(".")[:2]), "2.9")
    )
