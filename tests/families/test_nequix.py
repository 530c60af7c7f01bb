"""Nequix artifacts against nequix's own model in PyTorch: the published weights, small random models, every engine."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import heat_flux_truth as truth
import numpy as np
import pytest
import torch
from ase.build import bulk
from conftest import mlip
from models import tiny_nequix_checkpoint
from passes import assert_passes
from tolerances import FLOAT64_SUM, FORCE_SIGNAL, HEAT_FLUX_FLOAT64, HEAT_FLUX_SIGNAL

if find_spec("nequix") is None:  # which imports JAX when it is imported
    pytest.skip("the package 'nequix' is not installed. Type: pip install nequix --no-deps", allow_module_level=True)

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.nequix import adapter
from mlip_deploy.exporters.families.nequix.checkpoint import read_checkpoint
from mlip_deploy.exporters.families.nequix.framework import build_model, model_class
from mlip_deploy.exporters.families.registry import ExportOptions
from mlip_deploy.exporters.interface import EdgeGradientModel
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.settings import default_dtype, quiet

IRREPS = ["8x0e + 4x1o + 2x2e", "8x0e + 3x1o + 3x1e + 2x2o + 2x2e", "8x0e"]
# eV per atom at the usual lattice constants, as nequix 0.4.5 itself printed them (four digits)
MP_1 = [
    (bulk("Si", a=5.431), -5.417),
    (bulk("Cu", a=3.61), -4.095),
    (bulk("MgO", "rocksalt", a=4.21), -5.973),
]


def published(name):
    folder = os.environ.get("MLIP_MODELS_DIR", "")
    if not Path(folder, "nequix").is_dir():
        pytest.skip("MLIP_MODELS_DIR names no folder with nequix/")
    return Path(folder, "nequix", f"nequix-{name}.nqx")


def export(source, output, *options):
    done = mlip("export", "nequix", source, "-o", output, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_nequix_checkpoint(tmp_path_factory.mktemp("nequix") / "tiny.pt")


def test_published_weights(tmp_path):
    path = export(published("mp-1"), tmp_path / "double.mlip.pt", "--dtype", "float64")
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2, 4])
    contract = Artifact(path).contract
    assert contract.model.name == "nequix-mp-1"
    assert contract.energy_frame.functional == "PBE (MPtrj)"
    assert contract.interaction_range == 24.0
    assert np.abs(Artifact(path).fixtures().structures[0].forces).max() > FORCE_SIGNAL
    for atoms, energy in MP_1:
        atoms.calc = MLIPCalculator(path)
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(energy, abs=6e-4)


@pytest.mark.parametrize(("name", "functional"), [("oam-1", "PBE (MPtrj, sAlex)"), ("omat-1", "PBE (OMat24)")])
def test_other_published_weights(name, functional):
    """Of the same architecture: other weights take no other way through an engine, so the energy model is enough."""
    adapted = adapter.adapt(str(published(name)), ExportOptions())
    contract = adapted.contract("float64")
    assert contract.model.name == f"nequix-{name}"
    assert contract.energy_frame.functional == functional
    with default_dtype(torch.float64), quiet():
        model = EdgeGradientModel(adapted.energy_model(torch.float64)).eval()
    for symbols, a in (("NaCl", 5.5), ("UO", 4.8)):
        atoms = bulk(symbols, "rocksalt", a=a, cubic=True)
        atoms.rattle(0.1, seed=1)
        truth = adapted.original.float64(atoms)
        assert np.abs(truth.forces).max() > FORCE_SIGNAL
        types, edges, vectors = graph(atoms, contract.elements, contract.cutoff, torch.float64)
        energies, gradients = model(types, len(atoms), edges, vectors)
        np.testing.assert_allclose(energies.numpy(), truth.atomic_energies, rtol=0, atol=FLOAT64.atomic_energies)
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, edges[0].numpy(), gradients.numpy())
        np.add.at(forces, edges[1].numpy(), -gradients.numpy())
        np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64.forces)


def test_published_weights_in_float32(tmp_path):
    path = export(published("mp-1"), tmp_path / "single.mlip.pt", "--elements", "Na,Cl")
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2])
    assert 1e-8 < Artifact(path).fixtures().float32_noise.energy_per_atom < 1e-5


def test_both_kinds_of_file_hold_the_same_model(tmp_path):
    """The order of the arrays in *.nqx is JAX's; nequix's own state dictionary has names."""
    checkpoint = read_checkpoint(published("mp-1"))
    model = build_model(checkpoint, Path("mp-1.nqx"), torch.float32)
    save = model_class().__init__.__globals__["save_model"]
    numbers = checkpoint.settings["atomic_numbers"]
    save(tmp_path / "mp-1.pt", model, checkpoint.settings)
    again = build_model(read_checkpoint(tmp_path / "mp-1.pt"), tmp_path / "mp-1.pt", torch.float32)
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.1, seed=0)
    results = []
    for source in (published("mp-1"), tmp_path / "mp-1.pt"):
        adapted = adapter.adapt(str(source), ExportOptions(elements=("Na", "Cl")))
        results.append(adapted.original.float64(atoms))
    np.testing.assert_array_equal(results[0].forces, results[1].forces)
    assert np.abs(results[0].forces).max() > FORCE_SIGNAL
    assert results[0].energy == results[1].energy
    assert len(numbers) == again.n_species


@pytest.mark.parametrize("irreps", IRREPS)
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("options", [(), ("--no-fuse",)])
def test_architectures(irreps, layer_norm, options, tmp_path):
    """No published model has odd tensors, scalars alone, or no norm; the settings of a checkpoint may. Two ranks hand
    every layer's features on; what the engines add to that does not depend on the architecture."""
    source = tiny_nequix_checkpoint(
        tmp_path / "tiny.pt", hidden_irreps=irreps, layer_norm=layer_norm, scale=5.0 if layer_norm else 40.0
    )
    path = export(source, tmp_path / "tiny.mlip.pt", "--dtype", "float64", *options)
    first = layer_norm and irreps == IRREPS[0]
    assert_passes(path, *((["ase", "lammps", "openmm"], [1, 2]) if first else (["lammps"], [2])))
    assert np.abs(Artifact(path).fixtures().structures[0].forces).max() > FORCE_SIGNAL


def test_mirror_images_are_equal(tiny, tmp_path):
    path = export(tiny, tmp_path / "tiny.mlip.pt", "--dtype", "float64")
    assert Artifact(path).contract.inversion_symmetric is True
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.2, seed=1)
    atoms.calc = MLIPCalculator(path)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.set_cell(-atoms.cell.array)
    atoms.positions *= -1.0
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=FLOAT64_SUM)
    np.testing.assert_allclose(atoms.get_forces(), -forces, rtol=0, atol=FLOAT64_SUM)
    assert np.abs(forces).max() > FORCE_SIGNAL


@pytest.mark.parametrize("options", [(), ("--no-fuse",)])
def test_virials_of_atoms_are_those_of_nequix(options, tiny, tmp_path):
    path = export(tiny, tmp_path / "tiny.mlip.pt", "--dtype", "float64", *options)
    contract = Artifact(path).contract
    atoms = bulk("NaCl", "rocksalt", a=5.4)  # narrower than a cutoff
    atoms = truth.rattled(atoms)
    expected = truth.virials_of_atoms(truth.of_nequix(tiny, contract.elements), atoms, contract.interaction_range)
    assert np.abs(expected).max() > HEAT_FLUX_SIGNAL
    found = MLIPCalculator(path).get_property("virials", atoms)
    np.testing.assert_allclose(found, expected, rtol=0, atol=HEAT_FLUX_FLOAT64 * np.abs(expected).max())


def test_an_export_imports_no_jax_and_changes_no_setting(tiny, tmp_path):
    """`import nequix` imports JAX, and its PyTorch part changes settings of torch and e3nn for the whole process."""
    code = f"""
import sys, torch, e3nn
torch.set_float32_matmul_precision("medium")
before = e3nn.get_optimization_defaults(), torch._dynamo.config.capture_scalar_outputs
import mlip_deploy
mlip_deploy.export("nequix", {str(tiny)!r}, {str(tmp_path / "x.mlip.pt")!r})
assert not [name for name in sys.modules if name.partition(".")[0] in ("jax", "nequix")]
assert torch.get_float32_matmul_precision() == "medium"
assert (e3nn.get_optimization_defaults(), torch._dynamo.config.capture_scalar_outputs) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_of_ones_own_has_an_unknown_frame(tiny):
    adapted = adapter.adapt(str(tiny), ExportOptions())
    assert adapted.identity.license == "unknown"
    assert adapted.energy_frame.functional == "unknown"


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapter.adapt(str(source), ExportOptions(**options)).energy_model(torch.float64)
    return str(error.value)


def test_names():
    assert "'mp-9': neither a file nor a Nequix model. Known models: mp-1, " in refusal("mp-9")
    assert "'gone.nqx': no such model file" in refusal("gone.nqx")


def test_damaged_files(tiny, tmp_path):
    line, _, weights = tiny.read_bytes().partition(b"\n")
    bad = tmp_path / "bad.nqx"
    bad.write_bytes(b"hello\n")
    assert refusal(bad) == f"'{bad}' is no Nequix checkpoint: its first line is no JSON object"
    bad.write_bytes(b'{"cutoff": 6.0}\n' + weights)
    assert "its first line has no atomic_numbers, atom_energies, hidden_irreps" in refusal(bad)
    bad.write_bytes(line + b"\n" + weights[: len(weights) // 2])
    assert "the weights behind the first line could not be read" in refusal(bad)
    bad.write_bytes(line + b"\n")
    assert "has 0 arrays of weights, its settings ask for " in refusal(bad)
    bad.write_bytes(line.replace(b'"radial_mlp_size": 8', b'"radial_mlp_size": 9') + b"\n" + weights)
    assert "its weights do not fit its settings" in refusal(bad)
    assert "bad does not know Po" in refusal(tiny.rename(tmp_path / "bad.pt"), elements=("Po",))


def test_damaged_published_files(tmp_path):
    whole = published("oam-1").read_bytes()  # which has 209 scalars behind the weights
    bad = tmp_path / "bad.nqx"
    bad.write_bytes(whole[:1_000_000])
    assert "the weights behind the first line could not be read" in refusal(bad)
    bad.write_bytes(whole.replace(b'"lmax": 3', b'"lmax": 2', 1))
    assert "its settings ask for" in refusal(bad)
    bad.write_bytes(whole.replace(b'"index_weights": false', b'"index_weights": true ', 1))
    assert "weights for each element (index_weights)" in refusal(bad)


def test_features_in_another_order_are_refused(tmp_path):
    source = tiny_nequix_checkpoint(tmp_path / "tiny.pt", hidden_irreps="4x1o + 8x0e + 2x2e")
    assert "features 4x1o+8x0e+2x2e are not in e3nn's order" in refusal(source)
