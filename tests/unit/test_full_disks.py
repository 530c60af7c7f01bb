"""Whole commands where a file cannot be written: what could not, and a cure; status 2; the old file; nothing left.

A limit on the size of files stands for a full disk, since it needs no rights.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_signals import files_in
from torch import Tensor, nn
from toy_models import LocalEnergy, fixtures_of, write

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path):
    """Runs `mlip` in a folder of its own with files of at most some bytes, and expects that it fails."""
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()

    def run(limit: int, *arguments: object, folder: Path = temporary) -> str:
        code = (
            "import resource, sys; from mlip_deploy.cli.main import main; "
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY)); sys.exit(main())"
        )
        before = {path: path.read_bytes() for path in files_in(work) if path.is_file()}
        done = subprocess.run(
            [sys.executable, "-B", "-c", code, *map(str, arguments)], cwd=work, capture_output=True, text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        after = {path: path.read_bytes() for path in files_in(work) if path.is_file()}
        assert {path: after[path] for path in before} == before
        assert files_in(temporary) == []
        assert not [path for path in after if path.name.startswith(".")]
        return done.stderr

    run.work = work
    return run


NO_LIMIT = resource.RLIM_INFINITY
TOO_LARGE = "File too large. The limit on the size of files is too low (ulimit -f); nothing was changed"


@pytest.mark.parametrize("old", [None, b"old"])
def test_export(old, run, artifacts) -> None:
    output = run.work / "tiny.mlip.pt"
    if old is not None:
        output.write_bytes(old)
    arguments = ("export", "sevennet", artifacts.checkpoint(), "-o", "tiny.mlip.pt")
    assert f"'tiny.mlip.pt' cannot be written: {TOO_LARGE}" in run(50_000, *arguments)
    assert output.exists() == (old is not None)


@pytest.mark.parametrize("output", ["/proc/tiny.mlip.pt", "/proc/folder/tiny.mlip.pt"])
def test_export_into_a_folder_that_takes_no_files(output, run, artifacts) -> None:
    error = run(NO_LIMIT, "export", "sevennet", artifacts.checkpoint(), "-o", output)
    assert "no file can be written in '/proc'" in error
    assert "fixture" not in error, "found only after the work"


def test_check_json(run, toy_local) -> None:
    check = ("check", toy_local, "--engines", "ase", "--json")
    assert f"'check.json' cannot be written: {TOO_LARGE}" in run(1000, *check, "check.json")
    assert "'/dev/full' is not a regular file" in run(NO_LIMIT, *check, "/dev/full")


def test_validate(run, toy_local) -> None:
    error = run(1000, "validate", toy_local, "--suites", "fidelity", "--engine", "ase", "-o", "out")
    assert f"'out/cases/fidelity/ase.json' cannot be written: {TOO_LARGE}" in error


class Large(nn.Module):
    """LocalEnergy in a file that is larger than any report."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.inner = LocalEnergy(cutoff)
        self.register_buffer("ballast", torch.rand(2_000_000, dtype=torch.float64))

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.inner(node_types, n_owned, edge_index, edge_vectors)
        return energies + 0.0 * self.ballast[node_types[:n_owned]]


LINKS = [("first.mlip.pt", "{work}/large.mlip.pt"), ("second.mlip.pt", "first.mlip.pt")]


def test_the_record(run, tmp_path, monkeypatch) -> None:
    """All of the work is done then: only the file itself is too large."""
    path = write(run.work / "large.mlip.pt", Large(3.9), "local", "float64", 3.9, fixtures_of(tmp_path))
    arguments = ("validate", path.name, "--suites", "fidelity,physics", "-o", "out", "--record")
    error = run(path.stat().st_size - 1, *arguments)
    assert f"'large.mlip.pt' cannot be written: {TOO_LARGE}" in error
    assert (run.work / "out" / "report.html").exists()
    # With space, and through a chain of links: the file is written, and they stay.
    for link, target in LINKS:
        (run.work / link).symlink_to(target.format(work=run.work))
    monkeypatch.chdir(run.work)
    assert main([*arguments[:1], "second.mlip.pt", *arguments[2:]]) in (0, 1)
    assert [os.readlink(run.work / link) for link, _ in LINKS] == [t.format(work=run.work) for _, t in LINKS]
    assert not path.is_symlink()
    assert Artifact(path).validation_record() is not None


def test_temporary_files(run, toy_local) -> None:
    """A failure of the machine is not the model's verdict."""
    error = run(300, "check", toy_local, "--engines", "lammps", "--ranks", "1")
    assert "temporary files cannot be written in '" in error
    assert "File too large. Name a folder with space: export TMPDIR=FOLDER" in error


@pytest.mark.parametrize(
    ("links", "written"),
    [
        ([("link.mlip.pt", "here.mlip.pt")], "here.mlip.pt"),
        ([("link.mlip.pt", "{work}/folder/there.mlip.pt")], "folder/there.mlip.pt"),
        ([("folder/middle.mlip.pt", "../end.mlip.pt"), ("link.mlip.pt", "folder/middle.mlip.pt")], "end.mlip.pt"),
    ],
    ids=["relative", "absolute", "chain"],
)
@pytest.mark.parametrize("dangling", [True, False])
def test_export_through_links(links, written, dangling, artifacts, tmp_path, monkeypatch) -> None:
    """The target is written, and the links stay."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for link, target in links:
        (tmp_path / link).symlink_to(target.format(work=tmp_path))
    if not dangling:
        (tmp_path / written).write_bytes(b"old")
    assert main(["export", "sevennet", str(artifacts.checkpoint()), "-o", "link.mlip.pt"]) == 0
    assert [os.readlink(tmp_path / link) for link, _ in links] == [t.format(work=tmp_path) for _, t in links]
    assert not (tmp_path / written).is_symlink()
    assert Artifact(tmp_path / written).contract.model.family == "sevennet"
    assert sorted(files_in(tmp_path)) == sorted(tmp_path / name for name in ("folder", written, *dict(links)))
