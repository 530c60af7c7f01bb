"""PET artifacts against metatrain's own model: architectures, checkpoints, ghosts, rotations, every engine."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.neighborlist import neighbor_list
from models import ELEMENTS, tiny_pet_checkpoint
from passes import assert_passes
from tolerances import FEATURES_FLOAT64, FLOAT64_SUM, FORCE_SIGNAL

pytest.importorskip(
    "metatrain", reason="the package 'metatrain' is not installed. Type: pip install metatrain --no-deps"
)

import metatrain.pet
from metatomic.torch import ModelOutput, System
from metatrain.utils.neighbor_lists import get_system_with_neighbor_lists

from mlip_deploy import compose, export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.pet import adapter
from mlip_deploy.exporters.families.pet.checkpoint import build_model
from mlip_deploy.exporters.families.registry import ExportOptions
from mlip_deploy.exporters.layers.edge_pairs import hops
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.physics import symmetries

SHIPPED = Path(metatrain.pet.__file__).parent / "tests" / "checkpoints"
ADAPTIVE = {"num_neighbors_adaptive": 8}
OLD = {"featurizer_type": "residual", "transformer_type": "PostLN", "normalization": "LayerNorm"}
ARCHITECTURES = {
    "of today": {"num_attention_layers": 2, "num_heads": 4},
    "of today, adaptive": ADAPTIVE,
    "of old": {**OLD, "activation": "SiLU", "cutoff_function": "Cosine", "d_node": 8},
    "of old, adaptive": {**OLD, **ADAPTIVE, "adaptive_cutoff_method": "grid", "num_gnn_layers": 3},
    "mixed": {**ADAPTIVE, "transformer_type": "PostLN", "activation": "SiLU", "adaptive_cutoff_method": "grid"},
    "one layer": {"num_gnn_layers": 1, "d_node": 8, "attention_temperature": 2.0},
}
RANGE = {
    ("residual", None): 2,
    ("residual", 8): 3,
    ("feedforward", None): 3,
    ("feedforward", 8): 4,
}
"""Cutoffs over which a model of two layers feels a displacement."""


def salt():
    """A sheared and rattled crystal, narrower than two cutoffs, in which some atoms have fewer neighbours."""
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.06, 0], [0, 0.97, 0.05], [0, 0, 1.02]]), scale_atoms=True)
    atoms.rattle(0.15, seed=5)
    del atoms[3]
    return atoms


def adapted_from(path, **options):
    return adapter.adapt(str(path), ExportOptions(**options))


def energies_and_forces(adapted, atoms, scripted=True, dtype=torch.float64):
    """Of the model, as a file has it or as Python runs it."""
    model = adapted.interface(dtype)
    model = adapted.scripted(model) if scripted else model
    types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, dtype)
    energies, gradients = model(types, len(atoms), edges, vectors)
    return energies.numpy(), forces_from(edges.numpy(), gradients.double().numpy(), len(atoms))


def forces_from(edges, gradients, n_atoms):
    forces = np.zeros((n_atoms, 3))
    np.add.at(forces, edges[0], gradients)
    np.subtract.at(forces, edges[1], gradients)
    return forces


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name, fuse, tmp_path):
    adapted = adapted_from(tiny_pet_checkpoint(tmp_path / "tiny.ckpt", **ARCHITECTURES[name]), fuse=fuse)
    atoms = salt()
    truth = adapted.original.float64(atoms)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    energies, forces = energies_and_forces(adapted, atoms)
    np.testing.assert_allclose(energies, truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fused_operators_round_as_torchs_do(name, tmp_path):
    """In float32, fused forces are not farther from the truth than three times those of torch's operators."""
    source, atoms = tiny_pet_checkpoint(tmp_path / "tiny.ckpt", **ARCHITECTURES[name]), salt()
    truth = adapted_from(source).original.float64(atoms).forces
    fused, plain = (
        np.linalg.norm(energies_and_forces(adapted_from(source, fuse=fuse), atoms, dtype=torch.float32)[1] - truth)
        for fuse in (True, False)
    )
    assert 0 < fused < 3 * plain


def test_without_fused_operators(tmp_path):
    source = tiny_pet_checkpoint(tmp_path / "tiny.ckpt", **ADAPTIVE)
    path = export("pet", source, tmp_path / "plain.mlip.pt", fuse=False)
    assert not Artifact(path).contract.operators
    assert_passes(path, ["ase"], [1])


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """A file of a model with adaptive cutoffs."""
    directory = tmp_path_factory.mktemp("pet")
    source = tiny_pet_checkpoint(directory / "tiny.ckpt", **ADAPTIVE)
    return export("pet", source, directory / "tiny.mlip.pt", dtype="float64", elements=["Na", "Cl", "Si"])


def test_every_engine_in_float64(double):
    assert_passes(double, ["ase", "lammps", "openmm"], [1, 2, 4])
    contract = Artifact(double).contract
    assert (contract.parallel, contract.cutoff, contract.interaction_range) == ("halo", 4.0, 16.0)
    assert contract.elements == ["Na", "Si", "Cl"]  # in the model's order
    assert contract.inversion_symmetric is False
    assert sorted(contract.operators) == ["mlip::adaptive_cutoffs", "mlip::feed_forward", "mlip::token_attention"]
    assert np.abs(Artifact(double).fixtures().structures[0].forces).max() > FORCE_SIGNAL


def test_float32_noise_is_of_rounding_alone(tmp_path):
    """Rotated frames have other energies, by far more than rounding: each is compared with itself in float64."""
    source = tiny_pet_checkpoint(tmp_path / "tiny.ckpt")
    path = export("pet", source, tmp_path / "tiny.mlip.pt", elements=["Na", "Cl"])
    assert_passes(path, ["ase"], [1])
    fixtures = Artifact(path).fixtures()
    assert 1e-9 < fixtures.float32_noise.energy_per_atom < 1e-5
    assert fixtures.rotation_error.energy_per_atom > 1e-3


# ---- rotations ----------------------------------------------------------------------------------------------------


def outcome_of(path, name, tmp_path, monkeypatch, factor=1.0):
    """Verdicts and reasons of a symmetry in ASE, where the file states `factor` times the original's error."""
    artifact = Artifact(path)
    fixtures = artifact.fixtures()
    scaled = {key: factor * value for key, value in fixtures.rotation_error.model_dump().items()}
    stated = fixtures.model_copy(update={"rotation_error": fixtures.rotation_error.model_copy(update=scaled)})
    monkeypatch.setattr(artifact, "fixtures", lambda: stated)
    context = Context(artifact=artifact, engine="ase", elements=["Na", "Cl"], directory=tmp_path)
    (case,) = (case for case in symmetries.cases(context) if case.name == f"symmetry: {name}")
    checks = case.run(context, lambda _: None).checks
    return {check.verdict for check in checks}, [check.reason for check in checks]


@pytest.mark.parametrize("name", ["rotation", "inversion"])
def test_rotation_error_is_the_models_own(name, double, tmp_path, monkeypatch):
    verdicts, reasons = outcome_of(double, name, tmp_path, monkeypatch)
    assert "expected-fail" in verdicts
    assert "fail" not in verdicts
    assert "the model's own: the original changes by up to" in reasons[0]
    # an error beyond the original's is a fault of the file
    verdicts, reasons = outcome_of(double, name, tmp_path, monkeypatch, factor=1e-3)
    assert "fail" in verdicts
    assert "this is more than 3 times that" in reasons[0]


def test_other_symmetries_are_exact(double, tmp_path, monkeypatch):
    for name in ("translation", "permutation", "images of atoms"):
        assert outcome_of(double, name, tmp_path, monkeypatch)[0] == {"pass"}


def test_a_composed_file_states_its_members_error(double, tmp_path):
    path = tmp_path / "mean.mlip.pt"
    compose("mean", [double, double], path)
    assert Artifact(path).fixtures().rotation_error == Artifact(double).fixtures().rotation_error


# ---- a graph with ghosts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("featurizer", "adaptive"), RANGE)
def test_the_halo_is_as_wide_as_it_has_to_be(featurizer, adaptive, tmp_path):
    """Ghosts are taken away, farthest first: what is left must not change until they are nearer than the range."""
    source = tiny_pet_checkpoint(
        tmp_path / "tiny.ckpt", featurizer_type=featurizer, num_neighbors_adaptive=adaptive, scale=100.0
    )
    adapted = adapted_from(source)
    layers = RANGE[featurizer, adaptive]
    assert adapted.message_passing_layers == layers
    model = adapted.energy_model(torch.float64)
    # a thin rod, several ranges long
    atoms = bulk("NaCl", "rocksalt", a=5.0).repeat((10, 1, 1))
    atoms.rattle(0.1, seed=1)
    atoms.pbc = False
    i, j, vectors = neighbor_list("ijD", atoms, adapted.cutoff)
    types = torch.tensor([adapted.elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    edges, n_owned = torch.tensor(np.array([i, j])), 2
    away = hops(n_owned, len(atoms), edges[0], edges[1], 20)
    assert away.max() > layers + 1

    def evaluate(n, kept):
        r = torch.tensor(vectors[kept], requires_grad=True)
        energies = model(types, n, edges[:, kept], r)[:n_owned]
        gradient = torch.autograd.grad(energies.sum(), r)[0]
        return energies.detach().numpy(), forces_from(edges[:, kept].numpy(), gradient.numpy(), len(atoms))

    truth, true_forces = evaluate(len(atoms), torch.ones(len(i), dtype=torch.bool))  # every atom is owned
    assert np.abs(true_forces).max() > FORCE_SIGNAL
    changes = {}
    for reach in range(1, layers + 2):
        inside = away <= reach
        energies, forces = evaluate(n_owned, inside[edges[0]] & inside[edges[1]])
        changes[reach] = max(np.abs(energies - truth).max(), np.abs(forces - true_forces).max())
    assert all(changes[reach] < FLOAT64_SUM for reach in (layers, layers + 1)), changes
    assert all(changes[reach] > FLOAT64_SUM for reach in range(1, layers)), changes


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_a_rank_without_atoms(fuse, tmp_path):
    adapted = adapted_from(tiny_pet_checkpoint(tmp_path / "tiny.ckpt", **ADAPTIVE), fuse=fuse)
    model = adapted.scripted(adapted.interface(torch.float64))
    for types in ([], [0, 1]):  # nothing at all, and ghosts alone
        edges = torch.tensor([[0, 1], [1, 0]])[:, : len(types)]
        vectors = torch.tensor([[2.0, 0, 0], [-2.0, 0, 0]], dtype=torch.float64)[: len(types)]
        energies, gradients = model(torch.tensor(types, dtype=torch.int64), 0, edges, vectors)
        assert energies.shape == (0,)
        assert not gradients.any()


# ---- the rest of what a file has ----------------------------------------------------------------------------------


def test_features_are_metatrains(tmp_path):
    source = tiny_pet_checkpoint(tmp_path / "tiny.ckpt", **ADAPTIVE)
    adapted, atoms = adapted_from(source), salt()
    model = build_model(source, False, torch.float64)
    system = System(
        torch.tensor(atoms.numbers), torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), torch.ones(3) > 0
    )
    system = get_system_with_neighbor_lists(system, model.requested_neighbor_lists())
    output = "mtt::aux::energy_last_layer_features"
    expected = model([system], {output: ModelOutput(sample_kind="atom")})[output].block().values
    types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, torch.float64)
    found = adapted.energy_model(torch.float64).energies_and_features(types, len(atoms), edges, vectors)[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FEATURES_FLOAT64)


@pytest.mark.parametrize("forces", [True, False])
def test_torchforce(forces, tmp_path):
    adapted, atoms = adapted_from(tiny_pet_checkpoint(tmp_path / "tiny.ckpt", **ADAPTIVE), fuse=False), salt()
    truth = adapted.original.float64(atoms)
    output = tmp_path / "tiny.torchforce.pt"
    write_torchforce(adapted, output, "float64", lambda _: None, atoms.get_chemical_symbols(), forces=forces)
    positions = torch.tensor(0.1 * atoms.positions, requires_grad=True)
    found = torch.jit.load(str(output))(positions, torch.tensor(0.1 * atoms.cell.array))
    if forces:
        energy, gradient = found[0], -found[1]
    else:
        energy, gradient = found, torch.autograd.grad(found, positions)[0]
    assert float(energy.detach()) == pytest.approx(truth.energy * KJ_PER_MOL, rel=1e-12)
    np.testing.assert_allclose(-0.1 * gradient.detach() / KJ_PER_MOL, truth.forces, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("head", [None, "pbe"])
def test_heads(head, tmp_path):
    """Several energies, beside forces that are no gradient, which are left out."""
    source = tiny_pet_checkpoint(
        tmp_path / "tiny.ckpt", targets=("energy", "energy/pbe", "non_conservative_forces"), num_gnn_layers=1
    )
    adapted, atoms = adapted_from(source, head=head), salt()
    assert [(one.name, one.choices, one.value) for one in adapted.inputs] == [
        ("head", ["energy", "pbe"], head or "energy")
    ]
    truth = adapted.original.float64(atoms)
    np.testing.assert_allclose(energies_and_forces(adapted, atoms)[0], truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)
    other = adapted_from(source, head="energy" if head else "pbe").original.float64(atoms)
    assert abs(truth.energy - other.energy) > 10.0
    assert refusal(source, head="r2scan") == (
        f"{source} has the heads energy, pbe, and --head r2scan is not one of them. Add: --head energy"
    )


def test_metatomics_calculator_gives_the_same(tmp_path):
    """What `mlip bench --against original` runs, in float32."""
    adapted, atoms = adapted_from(tiny_pet_checkpoint(tmp_path / "tiny.ckpt")), salt()
    truth = adapted.original.float64(atoms)
    atoms.calc = adapted.original.calculator("float32", "cpu", None)
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=1e-3)


# ---- checkpoints --------------------------------------------------------------------------------------------------


def shipped(name, directory):
    path = directory / name.removesuffix(".gz")
    path.write_bytes(gzip.decompress((SHIPPED / name).read_bytes()))
    return path


VERSIONS = [f"v{number + 1}" for number in range(metatrain.pet.PET.__checkpoint_version__)]


def test_every_version_of_checkpoints(tmp_path):
    """None of them needs to be trusted."""
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.symbols[:] = ["C", "H", "O", "N"]
    atoms.rattle(0.1, seed=0)
    for version in VERSIONS:
        name = sorted(path.name for path in SHIPPED.glob(f"model-{version}_*.ckpt.gz"))[-1]
        adapted = adapted_from(shipped(name, tmp_path))
        truth = adapted.original.float64(atoms)
        energies, forces = energies_and_forces(adapted, atoms, scripted=False)
        np.testing.assert_allclose(energies, truth.atomic_energies, rtol=0, atol=FLOAT64_SUM, err_msg=name)
        np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64_SUM, err_msg=name)
        assert np.ptp(truth.atomic_energies) > 0.1, name


def test_a_model_inside_an_uncertainty_model(tmp_path):
    source = tiny_pet_checkpoint(tmp_path / "tiny.ckpt")
    wrapped = tmp_path / "llpr.ckpt"
    torch.save(
        {"architecture_name": "llpr", "wrapped_model_checkpoint": torch.load(source, weights_only=False)}, wrapped
    )
    atoms = salt()
    energies = [adapted_from(path).original.float64(atoms).energy for path in (source, wrapped)]
    assert energies[0] == energies[1]


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapted_from(source, **options)
    return str(error.value)


class Payload:
    def __reduce__(self):
        return print, ("this checkpoint ran code",)


def test_refusals(tmp_path, capsys):
    (conditioned,) = SHIPPED.glob("model-*-conditioning_*.ckpt.gz")
    refused = refusal(shipped(conditioned.name, tmp_path))
    assert "this PET has charge and spin of the system (system_conditioning)" in refused
    source = tiny_pet_checkpoint(tmp_path / "tiny.ckpt", zbl=True)
    assert "this PET has a ZBL repulsion (zbl)" in refusal(source)
    source = tiny_pet_checkpoint(tmp_path / "tiny.ckpt")
    good = torch.load(source, weights_only=False)

    def changed(**changes):
        torch.save(good | changes, tmp_path / "changed.ckpt")
        return refusal(tmp_path / "changed.ckpt")

    hypers = good["model_data"]["model_hypers"]
    long_range = hypers | {"long_range": hypers["long_range"] | {"enable": True}}
    assert "this PET has long-range interactions (long_range)" in changed(
        model_data=good["model_data"] | {"model_hypers": long_range}
    )
    assert "it is of the architecture 'soap_bpnn'" in changed(architecture_name="soap_bpnn")
    assert "it has no 'architecture_name'" in changed(architecture_name=None)
    assert "could not be read as a PET checkpoint" in changed(model_ckpt_version=99)
    assert "holds more than tensors and plain values: it asks for" in changed(extra=Payload())
    assert "ran code" not in capsys.readouterr().out
    (tmp_path / "changed.ckpt").write_bytes(source.read_bytes()[:1000])
    assert "is not a checkpoint that torch can read" in refusal(tmp_path / "changed.ckpt")
    assert f"tiny does not know Po. Its {len(ELEMENTS)} elements: H C O Na Si Cl" in refusal(source, elements=("Po",))
    good["model_data"]["dataset_info"].length_unit = "nanometer"
    assert "its lengths are in nanometer, expected angstrom" in changed()


def test_names():
    assert "'pet-mad-xxl': neither a file nor a PET model. Known models: pet-mad-xs-v1.6.0, " in refusal("pet-mad-xxl")
    assert "'pet-mad-s-v9.9.9': neither a file nor a PET model" in refusal("pet-mad-s-v9.9.9")
    assert "'gone.ckpt': no such model file" in refusal("gone.ckpt")
