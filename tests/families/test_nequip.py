"""NequIP and Allegro: small models with random weights, from checkpoints that NequIP writes, in every engine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from conftest import mlip

pytest.importorskip("nequip", reason="the package 'nequip' is not installed. Type: pip install nequip")
pytest.importorskip("allegro", reason="the package 'nequip-allegro' is not installed. Type: pip install nequip-allegro")

from tolerances import FORCE_SIGNAL

from mlip_deploy.artifact import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.validate.fidelity import check

KINDS = ("nequip", "allegro")
EMPTY_ZIP = b"PK\x05\x06" + 18 * b"\0"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nequip")
    for kind in KINDS:
        # In a process of its own: NequIP sets torch's default type and e3nn's options for good.
        code = f"import sys; from models import *; tiny_nequip_checkpoint(Path(sys.argv[1]), {kind == 'allegro'})"
        command = [sys.executable, "-c", code, str(directory / f"{kind}.ckpt")]
        subprocess.run(command, cwd=Path(__file__).parents[1], check=True)
    return directory


@pytest.fixture(scope="module")
def export(directory):
    def export(kind, dtype, *options, name=None):
        path = directory / f"{name or kind}-{dtype}.mlip.pt"
        if not path.exists():
            done = mlip("export", "nequip", directory / f"{kind}.ckpt", "-o", path, "--dtype", dtype, *options)
            assert done.returncode == 0, done.stderr
        return path

    return export


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_engine(kind, dtype, export):
    path = export(kind, dtype)
    report = check(path, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [
        f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"
    ]
    fixtures = Artifact(path).fixtures()
    assert np.abs(fixtures.structures[0].forces).max() > FORCE_SIGNAL
    assert 1e-8 < fixtures.float32_noise.forces < 1e-3


def test_contracts(export):
    nequip, allegro = (Artifact(export(kind, "float64")).contract for kind in KINDS)
    assert (nequip.parallel, nequip.message_passing_layers, nequip.interaction_range) == ("exchange", 3, 12.0)
    assert (allegro.parallel, allegro.message_passing_layers, allegro.interaction_range) == ("local", 0, 4.0)
    assert nequip.operators == ["mlip::ghost_gather"]
    assert allegro.operators == []
    assert nequip.elements == ["Na", "Cl", "Si"]
    assert "Batzner" in nequip.model.citation
    assert "Musaelian" in allegro.model.citation


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_conserved(kind, export):
    """60 fs at constant energy, in float64."""
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = MLIPCalculator(export(kind, "float64"))
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(2))
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    totals, potentials = [], []
    for _ in range(24):
        dynamics.run(5)
        totals.append(atoms.get_total_energy() / len(atoms))
        potentials.append(atoms.get_potential_energy() / len(atoms))
    assert np.ptp(potentials) > 0.005  # eV/atom that were exchanged
    assert np.ptp(totals) < 0.02 * np.ptp(potentials)


def test_kept_elements(export):
    part = export("nequip", "float64", "--elements", "Si", "Cl", name="part")
    assert Artifact(part).contract.elements == ["Cl", "Si"]
    assert check(part, ["ase"], [1]).passed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "model.nequip.zip",
            EMPTY_ZIP,
            "carries the model's Python code, which runs when it is loaded",
        ),
        ("model.nequip.zip", b"no", "is not a NequIP package: it is no zip archive"),
        ("model.ckpt", b"no", "not a checkpoint that torch can read"),
        (None, b"", "no such file. Expected a checkpoint (*.ckpt) or a package (*.nequip.zip)"),
    ],
)
def test_wrong_files(name, content, message, tmp_path):
    path = tmp_path / (name or "absent.ckpt")
    if name:
        path.write_bytes(content)
    done = mlip("export", "nequip", path, "-o", tmp_path / "out.mlip.pt")
    assert done.returncode == 1
    assert message in done.stderr or "--trust-checkpoint" in done.stderr
    assert not (tmp_path / "out.mlip.pt").exists()
