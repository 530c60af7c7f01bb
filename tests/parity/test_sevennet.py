"""SevenNet artifacts against SevenNet itself: real weights, both types, modalities, re-export."""

import json

import numpy as np
import pytest

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.validation.fidelity import check


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sevennet_0_in_every_engine(artifacts, dtype):
    report = check(artifacts.sevennet_0(dtype), ["ase", "lammps", "openmm"], [1, 2])
    failed = [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"]
    assert not failed
    runs = {(c.engine, c.ranks) for c in report.comparisons if c.verdict == "pass"}
    assert runs == {("ase", 1), ("lammps", 1), ("lammps", 2), ("openmm", 1)}
    # Only OpenMM has something that it cannot run.
    assert {c.engine for c in report.comparisons if c.verdict == "not-applicable"} == {"openmm"}


@pytest.mark.parametrize("modal", ["PBE", "R2SCAN"])
def test_modalities(artifacts, modal):
    path = artifacts.export("7net-mf-0", "float64", "--modal", modal, name=f"mf-{modal}")
    assert check(path, ["ase"], [1]).passed
    (given,) = Artifact(path).contract.inputs
    assert (given.name, given.value) == ("modal", modal)


def test_modalities_differ(artifacts):
    energies = [
        [
            s.energy
            for s in Artifact(artifacts.export("7net-mf-0", "float64", "--modal", m, name=f"mf-{m}"))
            .fixtures()
            .structures
        ]
        for m in ("PBE", "R2SCAN")
    ]
    assert np.abs(np.subtract(*energies)).min() > 0.1


def test_a_checkpoint_file(tiny):
    assert check(tiny, ["ase"], [1]).passed


def test_export_again_gives_the_same_contract(artifacts, tiny):
    again = artifacts.export(str(artifacts.checkpoint()), "float64", name="again")
    first, second = (json.loads(Artifact(path).contract.to_json()) for path in (tiny, again))
    assert second == first
    assert Artifact(again).fixtures() == Artifact(tiny).fixtures()


def test_fixtures_cover_what_goes_wrong_elsewhere(artifacts):
    fixtures = Artifact(artifacts.sevennet_0("float64")).fixtures()
    cutoff = Artifact(artifacts.sevennet_0("float64")).contract.cutoff
    cells = [s.atoms() for s in fixtures.structures]
    assert any(len(set(a.symbols)) == 2 and np.abs(a.cell.array - np.diag(a.cell.lengths())).max() > 0.1 for a in cells)
    assert any(a.pbc.all() and a.cell.lengths().min() < 2 * cutoff for a in cells)
    assert any(not a.pbc.any() and len(a) > 2 for a in cells)
    assert any(len(a) == 1 for a in cells)
    assert any(len(a) % 2 == 1 and len(a) > 1 for a in cells)
    for structure in fixtures.structures:
        if structure.name != "single atom":
            assert np.abs(structure.forces).max() > 0.1


def test_tolerances_are_meaningful(artifacts):
    """The noise of float32 is seen, small, and far above the float64 bound."""
    noise = Artifact(artifacts.sevennet_0("float32")).fixtures().float32_noise
    assert 1e-8 < noise.energy_per_atom < 5e-6
    assert 1e-7 < noise.forces < 5e-5
    assert 1e-9 < noise.stress < 1e-6
    assert FLOAT64.forces < 0.01 * noise.forces
