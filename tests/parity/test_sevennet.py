"""SevenNet artifacts against SevenNet itself: real weights, both types, modalities, re-export."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from sevenn.calculator import SevenNetCalculator
from tolerances import STRESS_SIGNAL

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT32_NOISE_FACTOR, FLOAT64
from mlip_deploy.ase import MLIPCalculator
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


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False), False])
def test_stress_of_what_is_not_periodic_everywhere(pbc, tiny, artifacts):
    """Over the volume of the cell, as SevenNet's own calculator has it."""
    slab = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    slab.center(vacuum=6.0, axis=2)
    slab.pbc = pbc
    slab.rattle(0.1, seed=1)
    original = slab.copy()
    original.calc = SevenNetCalculator(str(artifacts.checkpoint()), file_type="checkpoint", device="cpu")
    slab.calc = MLIPCalculator(tiny)
    assert np.abs(original.get_stress()[:2]).min() > STRESS_SIGNAL
    tolerance = FLOAT32_NOISE_FACTOR * Artifact(artifacts.tiny("float32")).fixtures().float32_noise.stress
    np.testing.assert_allclose(slab.get_stress(), original.get_stress(), atol=tolerance)


def test_no_stress_without_a_volume(tiny):
    sheet = Atoms("NaCl", [[0, 0, 0], [2.6, 0, 0]], cell=[5.2, 5.2, 0], pbc=(True, True, False))
    sheet.calc = MLIPCalculator(tiny)
    sheet.get_forces()
    for wanted in (sheet.get_stress, sheet.get_stresses):
        with pytest.raises(PropertyNotImplementedError, match=r"three vectors.*atoms.center\(vacuum=10, axis=2\)"):
            wanted()


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
