"""One artifact of several: against its members, in every engine, on several ranks."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import toy_models
from ase.build import bulk
from conftest import mlip
from tolerances import FLOAT64_SUM, FORCE_SIGNAL
from toy_models import LocalEnergy

import mlip_deploy
from mlip_deploy import MLIPCalculator, MLIPError, export_module
from mlip_deploy.artifact.reader import Artifact


@pytest.fixture(scope="module")
def members(tiny, artifacts):
    """The tiny SevenNet, and one of fewer layers and a shorter cutoff."""
    return tiny, artifacts.short()


@pytest.fixture(scope="module")
def composed(members, tmp_path_factory):
    """Of each kind, written by the command that users type."""
    directory = tmp_path_factory.mktemp("composed")
    paths = {kind: directory / f"{kind}.mlip.pt" for kind in ("mean", "committee", "difference")}
    for kind, path in paths.items():
        done = mlip("compose", kind, *members, "-o", path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"next: mlip check {path}" in done.stdout.replace("\n", "")
    return paths


def salt():
    atoms = bulk("NaCl", "rocksalt", a=4.9, cubic=True)
    atoms.positions += np.random.default_rng(3).normal(scale=0.15, size=atoms.positions.shape)
    return atoms


def results(path, atoms, *names):
    calculator = MLIPCalculator(path)
    return [calculator.get_property(name, atoms) for name in ("energy", "energies", "forces", "stress", *names)]


@pytest.mark.parametrize(("kind", "weights"), [("mean", (0.5, 0.5)), ("difference", (1.0, -1.0))])
def test_against_the_members(composed, members, kind, weights):
    found = results(composed[kind], salt())
    first, second = (results(path, salt()) for path in members)
    assert np.abs(first[2] - second[2]).max() > FORCE_SIGNAL
    for value, a, b in zip(found, first, second, strict=True):
        np.testing.assert_allclose(value, weights[0] * a + weights[1] * b, rtol=0, atol=FLOAT64_SUM)


def test_a_committee_is_the_mean_with_the_spread_of_its_members(composed, members):
    *mean, spread = results(composed["committee"], salt(), "energy_std")
    for value, other in zip(mean, results(composed["mean"], salt()), strict=True):
        np.testing.assert_allclose(value, other, rtol=0, atol=FLOAT64_SUM)
    energies = [results(path, salt())[1] for path in members]
    assert spread.min() > 0.01
    np.testing.assert_allclose(spread, np.std(energies, axis=0), rtol=0, atol=FLOAT64_SUM)


def test_every_engine_computes_what_the_frameworks_did(composed):
    report = mlip_deploy.check(composed["difference"], ranks=(1, 2))
    assert report.passed, report
    assert {comparison.engine for comparison in report.comparisons} >= {"ase", "lammps", "openmm"}


def test_what_the_file_says(composed, members):
    contract = Artifact(composed["committee"]).contract
    assert (contract.cutoff, contract.message_passing_layers, contract.parallel) == (4.0, 3, "exchange")
    assert contract.elements == Artifact(members[0]).contract.elements
    assert [output.name for output in contract.outputs][2:] == ["energy_std"]
    assert Artifact(composed["difference"]).contract.energy_frame == toy_models.NO_FRAME  # what is in both is gone


def test_what_members_share_is_computed_once(tiny, tmp_path):
    """Two files of one network under two names: the composed one calls its operators as often as each of them does."""
    other, path = shutil.copy(tiny, tmp_path / "other.mlip.pt"), tmp_path / "committee.mlip.pt"
    mlip_deploy.compose("committee", [tiny, other], path)
    for method in ("forward", "energies", "extras"):
        assert operators_called(path, method) == operators_called(tiny, "forward")
    assert path.stat().st_size < 1.1 * tiny.stat().st_size
    *found, spread = results(path, salt(), "energy_std")
    for value, expected in zip(found, results(tiny, salt()), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=FLOAT64_SUM)
    assert spread.max() == 0.0


def operators_called(path, method):
    graph = str(getattr(torch.jit.load(path), method).inlined_graph)
    assert "mlip::edge_tensor_product" in graph
    return Counter(re.findall(r"mlip::\w+", graph))


def local(path, elements, frame=toy_models.NO_FRAME, dtype="float64"):
    export_module(
        LocalEnergy(3.9), path, elements=elements, cutoff=3.9, name=path.stem, dtype=dtype, energy_frame=frame
    )
    return path


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Files of a local model by what is special in them."""
    directory = tmp_path_factory.mktemp("toys")
    pbe = toy_models.NO_FRAME.model_copy(update={"functional": "PBE"})
    return {
        "plain": local(directory / "plain.mlip.pt", ["Na", "Cl", "Si"]),
        "turned": local(directory / "turned.mlip.pt", ["Cl", "Si", "Na"]),
        "PBE": local(directory / "pbe.mlip.pt", ["Na", "Cl", "Si"], pbe),
        "single": local(directory / "single.mlip.pt", ["Na", "Cl", "Si"], dtype="float32"),
        "iron": local(directory / "iron.mlip.pt", ["Fe", "Ni", "Na"]),
        "metals": local(directory / "metals.mlip.pt", ["Fe", "Ni", "Co"]),
    }


@pytest.mark.parametrize("other", ["turned", "sevennet"])
def test_elements_in_another_order_and_a_local_member(toys, members, tmp_path, other):
    pair = [toys["turned"] if other == "turned" else members[1], toys["plain"]]
    contract = mlip_deploy.compose("difference", pair, tmp_path / "out.mlip.pt")
    assert contract.elements == (["Cl", "Si", "Na"] if other == "turned" else ["Na", "Si", "Cl"])
    assert contract.parallel == ("local" if other == "turned" else "exchange")
    found, first, second = (results(one, salt()) for one in (tmp_path / "out.mlip.pt", *pair))
    assert np.abs(first[2] - second[2]).max() > FORCE_SIGNAL
    np.testing.assert_allclose(found[2], first[2] - second[2], rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize(
    ("kind", "names", "reason"),
    [
        ("mean", ["plain"], "takes two files or more, found 1"),
        ("difference", ["plain", "plain", "plain"], "that of two files, found 3"),
        ("median", ["plain", "plain"], "'median' is not one of mean, committee, difference"),
        ("mean", ["plain", "PBE"], "has energies in the frame: none, .*: PBE, .*Compose files of one kind"),
        ("mean", ["plain", "single"], "computes in: float64; .*: float32. Compose files of one kind"),
        ("mean", ["plain", "metals"], "have no element in common"),
        ("mean", ["plain", "iron"], "no reference structure in common.* Export them all with the same --elements"),
    ],
)
def test_refused(toys, tmp_path, kind, names, reason):
    with pytest.raises(MLIPError, match=reason):
        mlip_deploy.compose(kind, [toys[name] for name in names], tmp_path / "out.mlip.pt")
    assert not list(tmp_path.iterdir())


def test_files_of_other_kinds_are_refused(toys, toy_halo, artifacts, tmp_path):
    for other, reason in ((toy_halo, "halo"), (artifacts.compiled(), "is compiled")):
        with pytest.raises(MLIPError, match=reason):
            mlip_deploy.compose("difference", [toys["plain"], other], tmp_path / "out.mlip.pt")
    with pytest.raises(MLIPError, match=r"file names end in \.mlip\.pt here\. Type: -o out\.mlip\.pt"):
        mlip_deploy.compose("mean", [toys["plain"], toys["plain"]], tmp_path / "out.pt")
