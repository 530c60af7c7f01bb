"""Files that are not artifacts: Python and C++ say the same thing, with the line to type."""

import zipfile

import pytest
import torch

from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError


def missing(directory, artifact):
    return directory / "missing.mlip.pt"


def folder(directory, artifact):
    return directory


def checkpoint(directory, artifact):
    torch.save({"model_state_dict": {}}, directory / "model.pth")
    return directory / "model.pth"


def foreign_torchscript(directory, artifact):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), directory / "foreign.pt")
    return directory / "foreign.pt"


def truncated(directory, artifact):
    path = directory / "truncated.mlip.pt"
    content = artifact.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def text(directory, artifact):
    path = directory / "notes.mlip.pt"
    path.write_text("not a model\n")
    return path


def empty(directory, artifact):
    path = directory / "empty.mlip.pt"
    path.touch()
    return path


def other_zip(directory, artifact):
    path = directory / "other.mlip.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/readme.txt", "hello")
    return path


CASES = [
    (missing, "no such file. Write one with: mlip export"),
    (folder, "is a folder, not an artifact"),
    (checkpoint, "is a PyTorch checkpoint, not an exported model. Export it first: mlip export FAMILY"),
    (foreign_torchscript, "is a TorchScript file without a contract"),
    (truncated, r"is truncated or damaged \(\d+ bytes\). Copy it again"),
    (text, "is not an artifact of mlip-deploy"),
    (empty, "is not an artifact of mlip-deploy"),
    (other_zip, "is not an artifact of mlip-deploy"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_message(make, message, tmp_path, tiny):
    path = make(tmp_path, tiny)
    with pytest.raises(MLIPError, match=message):
        Artifact(path)
    with pytest.raises(MLIPError, match=message):
        _core.Potential(str(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "'tpu' is not one of cpu, cuda, cuda:N, auto"),
        ({"precision": "half"}, "precision: 'half' is not one of full, tf32"),
        ({"precision": "tf32"}, "precision: 'tf32' is for a GPU, and the model runs on the CPU"),
        ({"threads": -1}, "expected a positive number, found -1"),
        pytest.param(
            {"device": "cuda"},
            "finds no CUDA device. Use 'device cpu'; a GPU needs its driver and a CUDA build of torch",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
        ),
    ],
)
def test_bad_option(options, message, tiny):
    with pytest.raises(MLIPError, match=message):
        _core.Potential(str(tiny), **options)
