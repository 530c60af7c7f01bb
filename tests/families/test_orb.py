"""Orb artifacts against orb-models' own conservative regressor with random weights, small and of the published size."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from models import orb_checkpoint
from passes import assert_equals_the_original, assert_passes
from tolerances import FEATURES_FLOAT64, FLOAT64_SUM, FORCE_SIGNAL

if find_spec("orb_models") is None:
    pytest.skip(
        "the package 'orb_models' is not installed. Type: pip install orb-models --no-deps", allow_module_level=True
    )

from mlip_deploy import MLIPCalculator, export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.orb import adapter
from mlip_deploy.exporters.families.orb.framework import build_model, system_config
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce
from mlip_deploy.operators import load_operators
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.physics import extent

load_operators()
FEW = 20
"""neighbours, as in the models of kind -20"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return orb_checkpoint(tmp_path_factory.mktemp("orb") / "tiny.ckpt")


@pytest.fixture(scope="module")
def double(tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("orb") / "double.mlip.pt"
    fix = {"max_num_neighbors": FEW}
    return export("orb", tiny, output, dtype="float64", elements=["Na", "Cl", "Si"], fix=fix)


def adapt(source, most=120, **fix):
    return FAMILIES["orb"].adapt(str(source), ExportOptions(fix={"max_num_neighbors": most, **fix}))


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def test_float64_in_every_engine(double):
    """With a cap that leaves out neighbours: which, a rank knows of its ghosts too."""
    report = assert_passes(double, ["ase", "lammps", "openmm"], [1, 2, 4])
    assert report.parts.verdict == "pass"
    contract = Artifact(double).contract
    assert (contract.model.name, contract.model.license, contract.parallel) == ("tiny", "unknown", "exchange")
    assert (contract.message_passing_layers, contract.interaction_range) == (3, 18.0)
    assert contract.collectives == ["sum_over_atoms"]
    assert contract.atomic_energies_meaningful is False
    assert {one.name: one.value for one in contract.inputs} == {"max_num_neighbors": "20", "pair_repulsion": "mean"}
    assert np.abs(Artifact(double).fixtures().structures[0].forces).max() > FORCE_SIGNAL


def test_no_energies_of_atoms(double):
    calculator = MLIPCalculator(double)
    assert "energies" not in calculator.implemented_properties


def test_extensivity_fails_as_it_should(double, tmp_path):
    """Two bodies far apart share their mean."""
    context = Context(artifact=Artifact(double), engine="ase", directory=tmp_path)
    case = next(case for case in extent.cases(context) if case.name == "extensivity")
    failed = [check for check in case.run(context, lambda _: None).checks if check.verdict == "fail"]
    (apart,) = [
        check for check in failed if check.quantity.startswith("two unlike ones, 19 Å") and check.unit == "eV/atom"
    ]
    assert apart.value > 1e-3
    locality = next(case for case in extent.cases(context) if case.name == "locality")
    reasons = [check.reason for check in locality.run(context, lambda _: None).checks if check.verdict == "fail"]
    assert any("the model sums over all atoms" in reason for reason in reasons)


def test_float32(tiny, tmp_path):
    options = {"elements": ["Cl", "Na"], "fix": {"max_num_neighbors": 120}}
    path = export("orb", tiny, tmp_path / "single.mlip.pt", **options)
    assert_passes(path, ["lammps"], [1, 2])
    assert Artifact(path).contract.elements == ["Na", "Cl"]
    assert 1e-9 < Artifact(path).fixtures().float32_noise.energy_per_atom < 1e-3


def test_published_size(tmp_path):
    """25.5 million numbers, of which the head that estimates errors is left out, and orb-models' own calculator."""
    from orb_models.forcefield.calculator import ORBCalculator

    published = {"latent_dim": 256, "base_mlp_hidden_dim": 1024, "head_mlp_hidden_dim": 256}
    source = orb_checkpoint(tmp_path / "full.ckpt", num_message_passing_steps=5, **published)
    state = torch.load(source)
    head = sum(value.numel() for key, value in state.items() if key.startswith("heads.confidence.mlp."))
    model = build_model(state, source)
    assert sum(parameter.numel() for parameter in model.parameters()) + head == 25_510_582
    adapted = adapt(source)
    assert (len(adapted.elements), adapted.cutoff, adapted.message_passing_layers) == (94, 6.0, 6)
    atoms = Atoms("NaClNa", positions=[[0, 0, 0], [2.4, 0, 0], [0.3, 2.6, 0.2]])
    assert_equals_the_original(adapted, atoms)
    truth = adapted.original.float64(atoms)
    atoms.calc = ORBCalculator(model, system_config=system_config(120), device="cpu")
    assert atoms.get_potential_energy() == pytest.approx(truth.energy, rel=1e-4)
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=1e-4 * np.abs(truth.forces).max())


DENSE = bulk("Si", "diamond", a=3.4, cubic=True)
DENSE.rattle(0.05, seed=2)
CASES = {
    "an atom": Atoms("Na"),
    "a pair beyond the cutoff": Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 6.1]]),
    "a pair": Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.5]]),
    "two groups": Atoms("Na4", positions=[[0, 0, 0], [2.5, 0, 0], [20, 0, 0], [22, 0, 0]]),
    "a crystal": salt(),
    "a crystal in which atoms have more than 120 neighbours and repel each other": DENSE,
}


@pytest.mark.parametrize("case", CASES)
def test_structures(case, tiny):
    assert_equals_the_original(adapt(tiny), CASES[case], None)


def test_repulsion(tiny):
    """Its mean over the atoms is what orb-models added before 0.7, its sum what it has added since."""
    of_sum = adapt(tiny, pair_repulsion="sum")
    assert_equals_the_original(of_sum, DENSE)
    assert of_sum.original.float64(DENSE).energy - adapt(tiny).original.float64(DENSE).energy > 1.0


@pytest.mark.parametrize("most", [1, FEW])
def test_the_nearest_neighbours(most, tiny):
    """An atom sends along its shortest edges alone; the other end need not answer."""
    assert_equals_the_original(adapt(tiny, most), salt(), 0.01)
    energies = [adapt(tiny, k).original.float64(salt()).energy for k in (most, 120)]
    assert abs(energies[0] - energies[1]) > 1e-3


def test_features(tiny):
    """Those whose mean orb-models reads the energy out of."""
    from orb_models.forcefield.atomic_system import ase_atoms_to_atom_graphs

    model = build_model(torch.load(tiny), tiny).double()
    with default_dtype(torch.float64), quiet():
        graphs = ase_atoms_to_atom_graphs(salt(), system_config(120), device="cpu")
        expected = model(graphs)["node_features"].detach()
    adapted = adapt(tiny)
    types, edges, vectors = graph(salt(), adapted.elements, adapted.cutoff, torch.float64)
    found = adapted.energy_model(torch.float64).energies_and_features(types, len(salt()), edges, vectors)[1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FEATURES_FLOAT64)
    assert np.ptp(expected.numpy(), axis=0).max() > 1e-2


def test_neighbours_at_one_distance_all_count(tiny):
    """orb-models takes some of them, in an order that rounding decides: such structures are no reference."""
    crystal = bulk("NaCl", "rocksalt", a=5.4, cubic=True).repeat((2, 2, 2))
    adapted = adapt(tiny, FEW)
    assert not adapted.original.accepts(crystal)
    assert adapted.original.accepts(DENSE)
    # 6 + 12 + 8: the twentieth is of the third shell
    whole = adapt(tiny, 26).original.float64(crystal)
    model = adapted.energy_model(torch.float64)
    types, edges, vectors = graph(crystal, adapted.elements, adapted.cutoff, torch.float64)
    energy = float(model(types, len(crystal), edges, vectors).sum())
    assert energy == pytest.approx(whole.energy, abs=FLOAT64_SUM * len(crystal))


def test_charge_and_spin(tmp_path):
    """Of OrbMol: settings."""
    source = orb_checkpoint(tmp_path / "mol.ckpt", has_charge_spin_cond=True, num_message_passing_steps=1)
    options = {"dtype": "float64", "elements": ["H", "O"], "fix": {"max_num_neighbors": 120}}
    path = export("orb", source, tmp_path / "mol.mlip.pt", **options)
    assert [setting.name for setting in Artifact(path).contract.settings] == ["charge", "spin"]
    assert_passes(path, ["lammps"], [2])
    atoms, original = molecule("H2O"), adapt(source).original
    energies = []
    for charge, spin in ((0, 1), (-2, 3), (1, 0)):
        atoms.info.update(charge=charge, spin=spin)
        atoms.calc = MLIPCalculator(path)
        energies.append(atoms.get_potential_energy())
        assert energies[-1] == pytest.approx(original.float64(atoms).energy, abs=FLOAT64_SUM)
    assert np.ptp(energies) > 1e-3


@pytest.mark.parametrize("forces", [True, False])
def test_torchforce(forces, tiny, tmp_path):
    adapted = adapt(tiny, FEW)
    atoms = salt()
    truth = adapted.original.float64(atoms)
    output = tmp_path / "x.torchforce.pt"
    write_torchforce(adapted, output, "float64", lambda _: None, atoms.get_chemical_symbols(), forces=forces)
    positions = torch.tensor(0.1 * atoms.positions, requires_grad=True)
    found = torch.jit.load(str(output))(positions, torch.tensor(0.1 * atoms.cell.array))
    energy, slope = found if forces else (found, -torch.autograd.grad(found, positions)[0])
    assert float(energy.detach()) == pytest.approx(truth.energy * KJ_PER_MOL, rel=1e-12)
    np.testing.assert_allclose(0.1 * slope.detach() / KJ_PER_MOL, truth.forces, rtol=0, atol=FLOAT64_SUM)


def test_a_published_name(tiny, tmp_path, monkeypatch):
    """The file is downloaded, or where a download would put it."""
    monkeypatch.setattr(adapter, "CACHE", tmp_path)
    asked = []

    def retrieve(address, known_hash, fname, path):
        asked.append(address)
        (path / fname).write_bytes(tiny.read_bytes())

    monkeypatch.setattr(adapter.pooch, "retrieve", retrieve)
    found = {name: FAMILIES["orb"].adapt(name, ExportOptions()) for name in adapter.PUBLISHED}
    assert f"{adapter.ADDRESS}/orb-v3/orb-v3-conservative-20-mpa-20250404.ckpt" in asked
    caps = {name: one.inputs[0].value for name, one in found.items()}
    assert caps == {name: "20" if "-20-" in name else "120" for name in adapter.PUBLISHED}
    adapted = found["orb-v3-conservative-inf-omat"]
    assert (adapted.identity.license, adapted.energy_frame.functional) == ("Apache-2.0", "PBE (OMat24)")
    assert len(adapted.elements) == 89
    assert len(found["orb-v3-conservative-omol"].elements) == 83
    FAMILIES["orb"].adapt("orb-v3-conservative-inf-omat", ExportOptions())
    assert len(asked) == len(adapter.PUBLISHED)


def test_names_and_caps_are_those_of_the_package(monkeypatch):
    import inspect
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "cached_path", SimpleNamespace(cached_path=None))
    from orb_models.forcefield.pretrained import ORB_PRETRAINED_MODELS

    assert set(adapter.PUBLISHED) == {name for name in ORB_PRETRAINED_MODELS if "conservative" in name}
    for name, published in adapter.PUBLISHED.items():
        function = ORB_PRETRAINED_MODELS[name]
        assert inspect.signature(function).parameters["weights_path"].default == f"{adapter.ADDRESS}/{published.path}"
        assert f"max_num_neighbors={published.most_neighbours})" in inspect.getsource(function)


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        FAMILIES["orb"].adapt(str(source), ExportOptions(**options))
    return str(error.value)


def test_names(tiny, tmp_path, monkeypatch):
    assert refusal("orb-v4").startswith("'orb-v4': neither a file nor an Orb model. Known models: orb-v3-conservative-")
    assert refusal("gone.ckpt").startswith("'gone.ckpt': no such model file.")
    for name in ("orb-v3-direct-20-omat", "orb-v2", "orb-d3-xs-v2"):
        assert "is a direct model: its forces are an output of their own" in refusal(name)
    assert "Add: --fix max_num_neighbors=120" in refusal(tiny)
    assert "max_num_neighbors=0: expected a whole number" in refusal(tiny, fix={"max_num_neighbors": "0"})
    assert "pair_repulsion=none: expected one of mean, sum" in refusal(
        tiny, fix={"max_num_neighbors": 20, "pair_repulsion": "none"}
    )
    assert "does not know Md" in refusal(tiny, fix={"max_num_neighbors": 20}, elements=("Md",))

    def fail(*arguments, **keywords):
        raise ConnectionError("no route")

    monkeypatch.setattr(adapter, "CACHE", tmp_path / "empty")
    monkeypatch.setattr(adapter.pooch, "retrieve", fail)
    message = refusal("orb-v3-conservative-20-omat")
    assert "could not be downloaded (ConnectionError: no route)" in message
    assert f"{adapter.ADDRESS}/orb-v3/orb-v3-conservative-20-omat-20250404.ckpt, copy it here" in message


def test_other_checkpoints(tiny, tmp_path):
    state, bad = torch.load(tiny), tmp_path / "bad.ckpt"

    def saved(content):
        torch.save(content, bad)
        return refusal(bad, fix={"max_num_neighbors": 20})

    assert saved([1, 2]) == f"'{bad}' is no checkpoint of Orb: expected weights by their names (model.state_dict())"
    assert "is a direct model: its forces are" in saved(state | {"heads.forces.mlp.NN-0.weight": torch.zeros(1)})
    assert "is an OrbMol-v2, whose charges" in saved(state | {"heads.latent_charges.mlp.NN-0.weight": torch.zeros(1)})
    assert "has no heads.energy.mlp.NN-0.weight" in saved(
        {key: value for key, value in state.items() if not key.startswith("heads.energy.")}
    )
    wrong = f"'{bad}': its weights are not those of an Orb v3 ("
    assert saved(state | {"model.more": torch.zeros(1)}).startswith(f"{wrong}missing or unknown: model.more")
    cut = {key: value for key, value in state.items() if key != "model.gnn_stacks.1._send_attn.bias"}
    assert saved(cut).startswith(f"{wrong}missing or unknown: model.gnn_stacks.1._send_attn.bias")
    narrow = state | {"model.rbf_transform.bessel_weights": torch.zeros(5)}
    assert saved(narrow).startswith(f"{wrong}Error(s) in loading")


def test_another_release(tiny, monkeypatch):
    monkeypatch.setattr(adapter.metadata, "version", lambda name: "0.7.0")
    message = refusal(tiny)
    assert message.startswith("orb-models 0.7.0 is installed, expected 0.5.5")
    assert message.endswith(FAMILIES["orb"].install)
