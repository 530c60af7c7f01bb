"""Checkpoints of strangers: nothing of theirs runs before the user has said so."""

import pickle

import numpy as np
import pytest
import torch
from conftest import mlip

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.checkpoints import load_checkpoint


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (type(self.trace).touch, (self.trace,))


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture(params=["zip", "legacy", "pickle"])
def malicious(request, tmp_path, trace):
    path = tmp_path / "model.pth"
    content = {"config": {"cutoff": 5.0}, "model_state_dict": Malicious(trace)}
    if request.param == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def test_nothing_runs_without_trust(malicious, trace):
    with pytest.raises(MLIPError, match=r"A checkpoint is a pickle, .* runs the code .* add: --trust-checkpoint"):
        load_checkpoint(malicious, trust=False)
    assert not trace.exists()


def test_the_refusal_names_what_the_file_asks_for(tmp_path, trace):
    torch.save(Malicious(trace), tmp_path / "model.pth")
    with pytest.raises(MLIPError, match=r"it asks for builtins\.getattr, pathlib\."):
        load_checkpoint(tmp_path / "model.pth", trust=False)


def test_trust_runs_it(tmp_path, trace):
    torch.save({"weights": Malicious(trace)}, tmp_path / "model.pth")
    load_checkpoint(tmp_path / "model.pth", trust=True)
    assert trace.exists()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sevennet"])
def test_no_family_runs_it(family, tmp_path, trace):
    torch.save({"config": {}, "model": Malicious(trace)}, tmp_path / "model.pth")
    done = mlip("export", family, tmp_path / "model.pth", "-o", tmp_path / "out.mlip.pt")
    assert done.returncode == 2
    assert "--trust-checkpoint" in done.stderr
    assert not trace.exists()


def test_tensors_arrays_and_plain_values_need_no_trust(tmp_path):
    content = {
        "tensor": torch.ones(2),
        "array": np.arange(3.0),
        "scalar": np.float64(1.5),
        "names": ["H"],
        "none": None,
    }
    torch.save(content, tmp_path / "model.pth")
    found = load_checkpoint(tmp_path / "model.pth", trust=False)
    assert found["array"].tolist() == [0.0, 1.0, 2.0]
    assert found["scalar"] == 1.5


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all"])
def test_not_a_checkpoint(content, tmp_path):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(MLIPError, match=r"model\.pth'"):
        load_checkpoint(tmp_path / "model.pth", trust=False)


def test_no_file(tmp_path):
    with pytest.raises(MLIPError, match="no such checkpoint file"):
        load_checkpoint(tmp_path / "model.pth", trust=True)
