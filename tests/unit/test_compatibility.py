"""Whole files of other versions: taken or refused when they are loaded, in Python and in C++, as docs/compatibility.md
says."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import toy_models
from archives import rewritten
from conftest import mlip

from mlip_deploy import _core, export_module
from mlip_deploy.artifact.format import versions_of
from mlip_deploy.artifact.reader import CONTRACT_RECORD, FIXTURES_RECORD, Artifact
from mlip_deploy.errors import MLIPError


def edited(source, target, changes):
    """A copy with some keys of JSON records set."""

    def change(contents):
        for record, keys in changes.items():
            contents[f"extra/{record}"] = json.dumps(json.loads(contents[f"extra/{record}"]) | keys).encode()

    return rewritten(source, target, change)


def energy(path):
    atoms = Artifact(path).fixtures().structures[0].atoms()
    types = Artifact(path).contract.types_of(atoms.get_chemical_symbols())
    return _core.Potential(str(path)).compute(atoms.positions, types, atoms.cell.array, atoms.pbc.tolist())["energy"]


def test_a_file_of_a_later_minor_schema_runs(tiny, tmp_path):
    changes = {CONTRACT_RECORD: {"schema": "1.9", "new": {"key": 1}}, FIXTURES_RECORD: {"new": 1}}
    path = edited(tiny, tmp_path / "newer.mlip.pt", changes)
    assert energy(path) == energy(tiny)
    assert np.isfinite(energy(path))
    assert json.loads(mlip("info", path, "--json").stdout)["new"] == {"key": 1}
    assert "schema 1.9" in " ".join(mlip("info", path).stdout.split())


def test_unknown_keys_of_this_version_are_errors(tiny, tmp_path):
    path = edited(tiny, tmp_path / "typo.mlip.pt", {FIXTURES_RECORD: {"new": 1}})
    with pytest.raises(MLIPError, match="fixtures: 'new'"):
        Artifact(path).fixtures()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"requires": ["long_range"]}, "the file requires 'long_range', which this mlip-deploy does not know. Type: "),
        (
            {"requires": ["mean_over_atoms"], "collectives": ["mean_over_atoms"]},
            "the file requires 'mean_over_atoms', which this mlip-deploy does not know",
        ),
        (
            {"operators": {"mlip::ghost_gather": 2}},
            "the file needs version 2 of the operator mlip::ghost_gather, this mlip-deploy has version 1. Type: pip",
        ),
    ],
)
def test_refused_by_name(changes, words, tiny, tmp_path):
    path = edited(tiny, tmp_path / "future.mlip.pt", {CONTRACT_RECORD: changes})
    with pytest.raises(MLIPError, match=words):
        Artifact(path)
    with pytest.raises(MLIPError, match=words):
        _core.Potential(str(path))
    done = mlip("info", path)
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())


FUTURE = """
import sys, torch
library = torch.library.Library("mlip", "FRAGMENT")
library.define("of_the_future(Tensor x) -> Tensor")
library.impl("of_the_future", lambda x: x.clone(), "CompositeExplicitAutograd")

class Model(torch.nn.Module):
    def forward(self, types: torch.Tensor, n_owned: int, edges: torch.Tensor, vectors: torch.Tensor):
        return torch.ops.mlip.of_the_future(vectors).sum(1), vectors

torch.jit.save(torch.jit.freeze(torch.jit.script(Model().eval())), sys.argv[1])
"""


def test_an_operator_that_is_not_there_is_named_before_torch_complains(toy_local, tmp_path):
    """torch itself would answer "Unknown builtin op" and a page of code."""
    torch_file = tmp_path / "future.pt"
    script = tmp_path / "future.py"  # TorchScript reads the source
    script.write_text(FUTURE)
    subprocess.run([sys.executable, str(script), str(torch_file)], check=True, capture_output=True)
    with pytest.raises(RuntimeError, match="Unknown builtin op"):
        torch.jit.load(torch_file)
    records = torch._C.PyTorchFileReader(str(torch_file))

    def change(contents):
        for name in [name for name in contents if not name.startswith("extra/")]:
            del contents[name]
        contents.update({name: records.get_record(name) for name in records.get_all_records()})
        contract = json.loads(contents[f"extra/{CONTRACT_RECORD}"])
        contract["operators"] = {"mlip::of_the_future": 1}
        contents[f"extra/{CONTRACT_RECORD}"] = json.dumps(contract).encode()

    path = rewritten(toy_local, tmp_path / "future.mlip.pt", change)
    words = "the file needs the operator mlip::of_the_future, which this mlip-deploy does not have. Type: pip install"
    with pytest.raises(MLIPError, match=words):
        Artifact(path)
    with pytest.raises(MLIPError, match=words):
        _core.Potential(str(path))


# ---- what is written ----------------------------------------------------------------------------------------------


class Linear(torch.nn.Module):
    def __init__(self, cutoff):
        super().__init__()
        self.local = toy_models.LocalEnergy(cutoff)

    def forward(self, node_types, n_owned: int, edge_index, edge_vectors):
        energies = self.local(node_types, n_owned, edge_index, edge_vectors)
        one = torch.ones([3, 1, 1], dtype=energies.dtype)
        return torch.ops.mlip.element_linear(energies.view(-1, 1, 1), node_types[:n_owned], one).flatten()


def export(module, path, **options):
    return export_module(
        module(3.9), path, elements=toy_models.ELEMENTS, cutoff=3.9, name="toy", dtype="float64", **options
    )


def test_the_graph_tells_the_operators(tmp_path):
    """Nobody has to list them."""
    assert export(Linear, tmp_path / "linear.mlip.pt").operators == versions_of(["mlip::element_linear"])
    assert Artifact(tmp_path / "linear.mlip.pt").contract.operators == versions_of(["mlip::element_linear"])


def test_exchange_without_a_call_of_it_is_refused(tmp_path):
    with pytest.raises(MLIPError, match=r"does not call torch\.ops\.mlip\.ghost_gather\. Call it before every"):
        export(toy_models.LocalEnergy, tmp_path / "x.mlip.pt", parallel="exchange", message_passing_layers=1)
    assert not list(tmp_path.iterdir())


def test_an_operator_that_is_not_for_files():
    with pytest.raises(MLIPError, match="the model calls mlip::edge_harmonics_reference, which files may not"):
        versions_of(["mlip::edge_harmonics", "mlip::edge_harmonics_reference"])
