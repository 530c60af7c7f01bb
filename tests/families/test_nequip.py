"""NequIP and Allegro: small models with random weights, from files that NequIP itself writes, in every engine."""

import contextlib
import subprocess
import sys
from pathlib import Path

import heat_flux_truth as truth
import nequip_models
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from conftest import mlip

pytest.importorskip("nequip", reason="the package 'nequip' is not installed. Type: pip install nequip")
pytest.importorskip("allegro", reason="the package 'nequip-allegro' is not installed. Type: pip install nequip-allegro")

from tolerances import FLOAT64_SUM, FORCE_SIGNAL, HEAT_FLUX_FLOAT64, HEAT_FLUX_SIGNAL

import mlip_deploy
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.nequip import adapter
from mlip_deploy.exporters.families.registry import ExportOptions
from mlip_deploy.validation.fidelity import check

KINDS = ("nequip", "allegro")
EMPTY_ZIP = b"PK\x05\x06" + 18 * b"\0"


SUFFIXES = (".ckpt", ".nequip.zip")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Models by kind, kind of file and options, each written once."""
    directory = tmp_path_factory.mktemp("nequip")

    def source(kind, suffix=".ckpt", **options):
        name = "-".join([kind, *options])
        path = directory / f"{name}{suffix}"
        return path if path.exists() else nequip_models.write(kind, path, **options)

    return source


@pytest.fixture(scope="module")
def export(source):
    def export(kind, dtype, *, name="", suffix=".ckpt", elements=(), fuse=True, **model):
        path = source(kind, suffix, **model)
        output = path.with_name(f"{path.name}{name}-{dtype}.mlip.pt")
        if not output.exists():
            trust = suffix == ".nequip.zip"
            mlip_deploy.export(
                "nequip", path, output, dtype=dtype, elements=elements, fuse=fuse, trust_checkpoint=trust
            )
        return output

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


@pytest.mark.parametrize("parity", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_mirror_images_are_equal_with_and_without_odd_features(kind, parity, export):
    """NequIP's `parity` chooses features; the harmonics of the edges are odd in any case."""
    path = export(kind, "float64", parity=parity) if not parity else export(kind, "float64")
    assert Artifact(path).contract.inversion_symmetric is True
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.2, seed=1)
    atoms.calc = MLIPCalculator(path)
    forces = atoms.get_forces()
    atoms.positions *= -1.0
    assert np.abs(forces).max() > FORCE_SIGNAL
    np.testing.assert_allclose(atoms.get_forces(), -forces, rtol=0, atol=1e-9)


def test_contracts(export):
    nequip, allegro = (Artifact(export(kind, "float64")).contract for kind in KINDS)
    assert nequip.inversion_symmetric is allegro.inversion_symmetric is True
    assert (nequip.parallel, nequip.message_passing_layers, nequip.interaction_range) == ("exchange", 3, 12.0)
    assert (allegro.parallel, allegro.message_passing_layers, allegro.interaction_range) == ("local", 0, 4.0)
    assert sorted(nequip.operators) == [
        "mlip::edge_harmonics",
        "mlip::edge_tensor_product",
        "mlip::equivariant_linear",
        "mlip::gate",
        "mlip::ghost_gather",
    ]
    assert sorted(allegro.operators) == [
        "mlip::edge_harmonics",
        "mlip::environment_product",
        "mlip::equivariant_linear",
    ]
    assert nequip.elements == ["Na", "Cl", "Si"]
    assert "Batzner" in nequip.model.citation
    assert "Musaelian" in allegro.model.citation


@pytest.mark.parametrize(("kind", "suffix"), zip(KINDS, SUFFIXES, strict=True))
def test_file_equals_nequips_own_calculator(kind, suffix, source, export):
    """Which is asked in a process of its own, of a model whose layers compute in float64 too."""
    path = export(kind, "float64", suffix=suffix, model_dtype="float64")
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    structure, answer = path.with_suffix(".traj"), path.with_suffix(".npz")
    atoms.write(structure)
    command = [sys.executable, "-c", NEQUIP_CALCULATOR, *map(str, [source(kind, suffix, model_dtype="float64")])]
    subprocess.run([*command, str(structure), str(answer)], check=True)
    wanted = np.load(answer)
    atoms.calc = MLIPCalculator(path)
    assert np.abs(wanted["forces"]).max() > FORCE_SIGNAL
    np.testing.assert_allclose(atoms.get_potential_energies(), wanted["energies"], atol=FLOAT64_SUM, rtol=0)
    np.testing.assert_allclose(atoms.get_forces(), wanted["forces"], atol=FLOAT64_SUM, rtol=0)
    np.testing.assert_allclose(atoms.get_stress(), wanted["stress"], atol=FLOAT64_SUM, rtol=0)


NEQUIP_CALCULATOR = """
import sys
import ase.io, numpy as np
from nequip.integrations.ase import NequIPCalculator

atoms = ase.io.read(sys.argv[2])
atoms.calc = NequIPCalculator._from_saved_model(sys.argv[1], device="cpu")
np.savez(sys.argv[3], energies=atoms.get_potential_energies(), forces=atoms.get_forces(), stress=atoms.get_stress())
"""


def test_nothing_is_left_behind_for_other_families(source):
    """CHGNet's numbers before and after an export of NequIP in one process, and what NequIP sets globally."""
    pytest.importorskip("chgnet", reason="the package 'chgnet' is not installed. Type: pip install chgnet")
    command = [sys.executable, "-c", BEFORE_AND_AFTER, str(source("nequip")), str(source("allegro", ".nequip.zip"))]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True)


BEFORE_AND_AFTER = """
import os, sys, tempfile
from pathlib import Path

import e3nn, torch, torch._dynamo
from ase.build import bulk
from models import tiny_chgnet_checkpoint
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.write import write_artifact

directory = Path(tempfile.mkdtemp())
checkpoint = tiny_chgnet_checkpoint(directory / "tiny.pth.tar")
options = ExportOptions(trust_checkpoint=True)

def settings():
    fusion = torch.jit.set_fusion_strategy([])
    torch.jit.set_fusion_strategy(fusion)
    config = torch._dynamo.config
    return {
        "dtype": torch.get_default_dtype(), "e3nn": e3nn.get_optimization_defaults(), "fusion": fusion,
        "sharing": torch.multiprocessing.get_sharing_strategy(), "environment": dict(os.environ),
        "seed": torch.initial_seed(),
        "compiler": (config.capture_dynamic_output_shape_ops, config.capture_scalar_outputs),
    }

def numbers(family, source, name):
    path = directory / f"{name}.mlip.pt"
    write_artifact(FAMILIES[family].adapt(str(source), options), path, "float64", lambda _: None)
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms.calc = MLIPCalculator(path)
    artifact = Artifact(path)
    fixtures = artifact.fixtures().model_dump_json()
    return atoms.get_potential_energies().tolist(), atoms.get_forces().tolist(), fixtures, artifact.contract

before = numbers("chgnet", checkpoint, "before")
known = settings()
for source in sys.argv[1:]:
    first = numbers("nequip", source, "first")
    found = settings()
    assert found == known, {name: (known[name], found[name]) for name in known if found[name] != known[name]}
assert numbers("nequip", source, "second") == first
assert numbers("chgnet", checkpoint, "after") == before
"""


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
    part = export("nequip", "float64", elements=["Si", "Cl"], name="-part")
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
        ("model.ckpt", b"no", "holds more than tensors and plain values"),
        (None, b"", "no such file. Expected a checkpoint (*.ckpt) or a package (*.nequip.zip)"),
    ],
)
def test_wrong_files(name, content, message, tmp_path):
    path = tmp_path / (name or "absent.ckpt")
    if name:
        path.write_bytes(content)
    done = mlip("export", "nequip", path, "-o", tmp_path / "out.mlip.pt")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out.mlip.pt").exists()


@pytest.mark.parametrize("fuse", [True, False])
def test_virials_of_atoms_are_those_of_nequip(fuse, source, export):
    """Each atomic energy differentiated by NequIP itself, with nothing folded: what a heat flux needs."""
    atoms = truth.rattled(bulk("NaCl", "rocksalt", a=5.4))
    path = export("nequip", "float64", fuse=fuse, name="" if fuse else "-plain")
    contract = Artifact(path).contract
    expected = truth.virials_of_atoms(truth.of_nequip(source("nequip")), atoms, contract.interaction_range)
    assert contract.message_passing_layers == 3
    assert np.abs(expected).max() > HEAT_FLUX_SIGNAL
    found = MLIPCalculator(path).get_property("virials", atoms)
    np.testing.assert_allclose(found, expected, rtol=0, atol=HEAT_FLUX_FLOAT64 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["NequIP-OAM-L", "NequIP-OAM-XL", "Allegro-OAM-L"])
def test_published_names(name, source, monkeypatch):
    """A small package in the place of the download; their layers: test_nequip_fused.py."""
    from nequip.model.saved_models import load_utils

    kind = name.partition("-")[0].lower()
    asked = []

    @contextlib.contextmanager
    def fetch(address):
        asked.append(address)
        yield source(kind, ".nequip.zip")

    monkeypatch.setattr(load_utils, "_get_model_file_path", fetch)
    adapted = adapter.adapt(name, ExportOptions(trust_checkpoint=True))
    assert asked[0] == f"nequip.net:mir-group/{name}:0.1"
    assert (adapted.identity.name, adapted.identity.license) == (name, adapter.PUBLISHED_LICENSE)
    assert adapted.energy_frame.functional == "PBE (MPtrj, sAlex)"
    assert adapted.parallel == ("exchange" if kind == "nequip" else "local")
    other = adapter.adapt("nequip.net:lab/mine:2", ExportOptions(trust_checkpoint=True))
    assert (other.identity.name, other.identity.license) == ("mine", "unknown")
    assert other.energy_frame.functional == "unknown"


def test_a_download_that_fails(monkeypatch):
    from nequip.model.saved_models import load_utils

    def fetch(address):
        raise ConnectionError("no route")

    monkeypatch.setattr(load_utils, "_get_model_file_path", fetch)
    with pytest.raises(MLIPError, match=r"'NequIP-OAM-L' is downloaded as a NequIP package, .* --trust-checkpoint$"):
        adapter.adapt("NequIP-OAM-L", ExportOptions())
    message = (
        r"'nequip.net:lab/mine:2' could not be downloaded \(ConnectionError: no route\). On a machine with a "
        r"connection download the package from https://www.nequip.net/models/lab/mine:2, copy it here"
    )
    with pytest.raises(MLIPError, match=message):
        adapter.adapt("nequip.net:lab/mine:2", ExportOptions(trust_checkpoint=True))
