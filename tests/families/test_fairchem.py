"""eSEN and UMA artifacts against fairchem's own models: random weights in its inference checkpoints, every engine."""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from models import tiny_fairchem_checkpoint
from passes import assert_passes
from tolerances import FLOAT64_SUM, FORCE_SIGNAL, STRESS_SIGNAL

if find_spec("fairchem") is None:
    pytest.skip(
        "the package 'fairchem.core' is not installed. Type: pip install fairchem-core --no-deps",
        allow_module_level=True,
    )

from mlip_deploy import export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.engines.lammps_files import write_data
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.fairchem.framework import fairchem
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.fixed_settings import fix_settings
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce
from mlip_deploy.operators import load_operators
from mlip_deploy.result import VOIGT

load_operators()
SALT = ["Na", "Cl", "Si"]
CHARGED = {
    "dataset_mapping": {"omol": "omol", "omat": "omat"},
    "charge_balanced_channels": [0, 1],
    "spin_balanced_channels": [2],
    "ff_type": "spectral",
    "model_changes": {
        "heads": {
            "efs": {"module": "fairchem.core.models.uma.escn_md.MLP_EFS_Head", "prefix": "omol", "wrap_property": False}
        }
    },
}


DATASETS = {"omat": "omat", "omol": "omol"}
UMA = {
    "model": "fairchem.core.models.uma.escn_moe.eSCNMDMoeBackbone",
    "num_experts": 4,
    "use_composition_embedding": True,
    "dataset_mapping": DATASETS,
    "ff_type": "spectral",
    "model_changes": {
        "model_id": "UMA-S-1.2.1",
        "heads": {
            "energyandforcehead": {
                "module": "fairchem.core.models.uma.escn_moe.DatasetSpecificMoEWrapper",
                "dataset_mapping": DATASETS,
                "head_cls": "fairchem.core.models.uma.escn_md.MLP_EFS_Head",
                "head_kwargs": {"wrap_property": False},
            }
        },
    },
}


def adapt(source, **options):
    return FAMILIES["fairchem"].adapt(str(source), ExportOptions(**options))


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapt(source, **options)
    return str(error.value)


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.4)
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.06, 0], [0, 0.97, 0.05], [0, 0, 1.02]]), scale_atoms=True)
    atoms.rattle(0.2, seed=5)
    return atoms


def assert_the_same(adapted, atoms):
    """Energies, forces and stress of the energy model are those of fairchem, all of them in float64."""
    truth = adapted.original.float64(atoms)
    model = adapted.energy_model(torch.float64)
    types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, torch.float64)
    energies = model(types, len(atoms), edges, vectors.requires_grad_(True))
    (gradients,) = torch.autograd.grad(energies.sum(), vectors)
    np.testing.assert_allclose(energies.detach(), truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)
    forces = torch.zeros_like(torch.tensor(truth.forces))
    forces = forces.index_add(0, edges[0], gradients).index_add(0, edges[1], -gradients)
    np.testing.assert_allclose(forces, truth.forces, rtol=0, atol=FLOAT64_SUM)
    virial = (vectors.detach().T @ gradients).numpy()
    stress = 0.5 * (virial + virial.T) / atoms.get_volume()  # without a grid it is symmetric
    np.testing.assert_allclose([stress[a, b] for a, b in VOIGT], truth.stress, rtol=0, atol=FLOAT64_SUM)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    assert np.abs(truth.stress).max() > STRESS_SIGNAL


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The small model with published kinds of layers, of which the grid is not exactly symmetric."""
    return tiny_fairchem_checkpoint(tmp_path_factory.mktemp("fairchem") / "tiny.pt")


@pytest.fixture(scope="module")
def double(tiny):
    return export("fairchem", tiny, tiny.parent / "double.mlip.pt", dtype="float64", elements=SALT)


def test_every_engine(double):
    assert_passes(double, ["ase", "lammps", "openmm"], [1, 2, 4])
    artifact = Artifact(double)
    contract = artifact.contract
    assert (contract.model.license, contract.energy_frame.functional) == ("unknown", "unknown")
    assert [(one.name, one.value) for one in contract.inputs] == [("task", "omat"), ("charge", "0"), ("spin", "0")]
    assert contract.interaction_range == 8.0
    assert "mlip::so2_convolution" in contract.operators
    fixtures = artifact.fixtures()
    assert np.abs(fixtures.structures[0].forces).max() > FORCE_SIGNAL
    # of rounding; a rotation changes the energies by a hundred times as much
    assert 1e-8 < fixtures.float32_noise.energy_per_atom < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"lmax": 3, "mmax": 2},
        {"lmax": 4, "mmax": 1, "ff_type": "spectral", "hidden_channels": 12},
        {"use_dataset_embedding": False, "chg_spin_emb_type": "rand_emb", "num_layers": 1},
        {"charge_balanced_channels": [1, 2], "spin_balanced_channels": [4]},
    ],
)
def test_architectures(changes, tmp_path):
    """Layers are proven here, with few channels; published weights were not at hand."""
    assert_the_same(adapt(tiny_fairchem_checkpoint(tmp_path / "x.pt", **changes)), salt())


def test_the_edges_that_are_special(tiny):
    """Along, against and across the y axis, where a frame of the edge is chosen."""
    atoms = Atoms("NaCl", cell=[3.0, 3.1, 3.2], pbc=True, positions=[[0, 0, 0], [1.4, 1.5, 1.6]])
    assert_the_same(adapt(tiny), atoms)


def test_charge_and_spin(tmp_path):
    source = tiny_fairchem_checkpoint(tmp_path / "x.pt", **CHARGED)
    assert refusal(source).endswith("has several tasks: omat, omol. Choose one: --modal omat")
    assert "has no task oc20: omat, omol" in refusal(source, modal="oc20")
    with pytest.raises(MLIPError, match="the task omat_energy is no output of the model, which has embeddings, omol_e"):
        adapt(source, modal="omat").original.float64(salt())
    adapted = adapt(source, modal="omol", elements=("H", "C", "O"))
    water = molecule("H2O")
    found = {}
    for charge, spin in ((0, 1), (-1, 2), (0, 3)):
        water.info.update(charge=charge, spin=spin)
        found[charge, spin] = adapted.original.float64(water).energy
    assert np.ptp(list(found.values())) > 0.01
    path = export("fairchem", source, tmp_path / "x.mlip.pt", dtype="float64", modal="omol", elements=["H", "C", "O"])
    assert_passes(path, ["lammps"], [2])
    assert [setting.name for setting in Artifact(path).contract.settings] == ["charge", "spin"]
    for (charge, spin), energy in found.items():
        water.info.clear()
        water.calc = MLIPCalculator(path, charge=charge, spin=spin)
        assert water.get_potential_energy() == pytest.approx(energy, abs=FLOAT64_SUM)
    fixed = fix_settings(adapted, {"charge": -1, "spin": 2})
    assert fixed.original.float64(water).energy == found[-1, 2]


@pytest.fixture(scope="module")
def uma(tmp_path_factory):
    return tiny_fairchem_checkpoint(tmp_path_factory.mktemp("uma") / "tiny.pt", **UMA)


def test_mixed_experts(uma, tmp_path):
    """The original is not mixed: its experts count as it finds them for the system's own composition."""
    path = tmp_path / "x.mlip.pt"
    export("fairchem", uma, path, dtype="float64", modal="omat", fix={"composition": "Na4Cl8"})
    assert_passes(path, ["lammps", "openmm"], [1, 2])
    contract = Artifact(path).contract
    assert contract.elements == ["Na", "Cl"]
    assert [(one.name, one.value) for one in contract.inputs][1:] == [
        ("composition", "NaCl2"),
        ("charge", "0"),
        ("spin", "0"),
    ]
    assert np.abs(Artifact(path).fixtures().structures[0].forces).max() > FORCE_SIGNAL
    refused = "this file is for the composition NaCl2, for which its experts were mixed, and the system has the atoms"
    atoms = salt()
    atoms.calc = MLIPCalculator(path)
    atom = Atoms("Na", positions=[[0.0, 0.0, 0.0]])
    atom.calc = MLIPCalculator(path)
    truth = adapt(uma, modal="omat", fix={"composition": "Na4Cl8"}).original.float64(atom)
    assert atom.get_potential_energy() == pytest.approx(truth.energy, abs=FLOAT64_SUM)  # of no experts
    atom.set_cell(3.0 * np.eye(3))
    atom.pbc = True
    with pytest.raises(MLIPError, match=rf"{refused} Na1\. Export"):
        atom.get_potential_energy()
    with pytest.raises(MLIPError, match=rf"{refused} Na1 Cl1\. Export the model .* --fix composition=Na1Cl1"):
        atoms.get_potential_energy()
    write_data(salt().repeat((3, 3, 3)), tmp_path / "data.lammps")
    deck = f"units metal\nread_data data.lammps\npair_style mlip\npair_coeff * * {path} Na Cl\nrun 0\n"
    for ranks in (1, 2):
        with pytest.raises(LAMMPSError, match=f"{refused} Na27 Cl27"):
            run(deck, tmp_path, ranks=ranks)


def test_experts_depend_on_what_is_fixed(uma):
    """Another composition, charge or task is another function; without the mixture's own the energies differ."""
    water = molecule("H2O")
    water.rattle(0.1, seed=3)
    types, edges, vectors = graph(water, ["H", "O"], 4.0, torch.float64)
    found = []
    for fix in (("H2O", 0, 1), ("H2O", 1, 2), ("HO2", 0, 1)):
        adapted = adapt(uma, modal="omol", fix=dict(zip(("composition", "charge", "spin"), fix, strict=True)))
        water.info.update(charge=5, spin=5)
        truth = adapted.original.float64(water)
        model = adapted.energy_model(torch.float64)
        found.append(float(getattr(model, "model", model)(types, 3, edges, vectors).sum()))
        if fix[0] == "H2O":
            assert found[-1] == pytest.approx(truth.energy, abs=FLOAT64_SUM)
        else:
            assert abs(found[-1] - truth.energy) > 1e-3
    assert np.ptp(found) > 1e-3


def test_what_uma_has_to_be_told(uma, tmp_path):
    told = "--fix composition=NaCl --fix charge=0 --fix spin=1"
    assert refusal(uma, modal="omol").endswith(f"mixed for one composition, charge, spin. Say which: {told}")
    assert refusal(uma, modal="omat").endswith("mixed for one composition. Say which: --fix composition=NaCl")
    assert "--fix composition=salt: expected a chemical formula" in refusal(
        uma, modal="omat", fix={"composition": "salt"}
    )
    assert "NaCl has its own elements. Leave --elements out" in refusal(
        uma, modal="omat", fix={"composition": "NaCl"}, elements=("Si",)
    )
    fix = {"composition": "H2O", "charge": "0.5", "spin": 1}
    assert (
        refusal(uma, modal="omol", fix=fix) == "--fix charge=0.5: expected an integer from -100 to 100, e; to be given"
    )

    def refused(**changes):
        model = UMA["model_changes"] | changes.pop("model_changes", {})
        source = tiny_fairchem_checkpoint(tmp_path / "x.pt", **(UMA | changes | {"model_changes": model}))
        return refusal(source, modal="omat", fix={"composition": "NaCl"})

    assert "is UMA-S-1.2, whose mixture of experts depends on the number of atoms" in refused(
        model_changes={"model_id": "UMA-S-1.2"}
    )
    assert "is a UMA without a model_id, as UMA 1.0" in refused(model_changes={"model_id": None})
    assert "has experts elsewhere than in all linear maps of its messages" in refused(moe_type="all")


@pytest.mark.parametrize("kind", ["esen", "uma"])
def test_torchforce(kind, tiny, uma, tmp_path):
    if kind == "esen":
        adapted = adapt(tiny, fuse=False)
    else:
        adapted = adapt(uma, modal="omat", fix={"composition": "NaCl"}, fuse=False)
    atoms = salt()
    write_torchforce(adapted, tmp_path / "x.torchforce.pt", "float64", lambda _: None, atoms.get_chemical_symbols())
    module = torch.jit.load(tmp_path / "x.torchforce.pt")
    energy, forces = module(torch.tensor(0.1 * atoms.positions), torch.tensor(0.1 * atoms.cell.array))
    truth = adapted.original.float64(atoms)
    assert energy.item() / KJ_PER_MOL == pytest.approx(truth.energy, abs=FLOAT64_SUM)
    np.testing.assert_allclose(0.1 * forces.detach() / KJ_PER_MOL, truth.forces, rtol=0, atol=FLOAT64_SUM)
    if kind == "uma":
        module.set_atoms(["Na", "Na"], [])
        with pytest.raises(torch.jit.Error, match=r"this file is for the composition NaCl, .* the atoms Na2\. Export"):
            module(torch.tensor(0.1 * atoms.positions), torch.tensor(0.1 * atoms.cell.array))


def test_settings_of_a_training_of_ones_own(tiny, tmp_path):
    """Its checkpoint holds OmegaConf's containers, which are read without running code."""
    source = tiny_fairchem_checkpoint(tmp_path / "x.pt", omegaconf=True)
    own, published = (adapt(one).original.float64(salt()) for one in (source, tiny))
    assert own.energy == published.energy
    np.testing.assert_array_equal(own.forces, published.forces)


def test_fairchem_is_as_it_was(tiny, monkeypatch):
    """Its package imports its calculator and what that needs; the models alone are imported, and put away."""
    theirs = ModuleType("fairchem.core")
    theirs.__spec__ = find_spec("fairchem.core")
    monkeypatch.setitem(sys.modules, "fairchem.core", theirs)
    adapt(tiny)
    assert sys.modules["fairchem.core"] is theirs
    assert not [name for name in sys.modules if name.startswith("fairchem.core.") or name in ("torchtnt", "wandb")]


@pytest.mark.skipif(find_spec("torchtnt") is not None, reason="all that fairchem's calculator needs is installed")
def test_its_calculator_needs_more(tiny):
    with pytest.raises(MLIPError, match=r"needs all that its package asks for .* Type: pip install fairchem-core$"):
        adapt(tiny).original.calculator("float32", "cpu", None)


def test_elements(tiny):
    known = adapt(tiny).elements
    assert (known[0], known[-1], len(known)) == ("H", "Rn", 86)  # those with a reference energy
    assert "tiny does not know U" in refusal(tiny, elements=("U",))


def test_models_that_are_not_known(tmp_path):
    def refused(**changes):
        return refusal(tiny_fairchem_checkpoint(tmp_path / "x.pt", **changes))

    heads = {"efs": {"module": "fairchem.core.models.uma.escn_md.Linear_Energy_Head"}}
    assert "has direct_forces: its forces are an output of their own" in refused(direct_forces=True)
    assert "has the heads efs (Linear_Energy_Head); expected one MLP_EFS_Head" in refused(
        model_changes={"heads": heads}
    )
    assert "sees the 30 nearest neighbours of an atom alone (max_neighbors); within 4 Å diamond has 46" in refused(
        max_neighbors=30
    )
    assert adapt(tiny_fairchem_checkpoint(tmp_path / "x.pt", max_neighbors=46)).cutoff == 4.0
    assert "act_type='s2', whose energies depend on random angles that fairchem draws. Known: gate" in refused(
        act_type="s2"
    )
    assert "norm_type='layer_norm'. Known: rms_norm_sh" in refused(norm_type="layer_norm")
    assert "chg_spin_emb_type='lin_emb', which fairchem has in float32 alone" in refused(chg_spin_emb_type="lin_emb")


def test_damaged_files(tiny, tmp_path):
    assert refusal("gone.pt") == "'gone.pt': no such model file"
    with fairchem():
        whole = torch.load(tiny, weights_only=False)

    def refused(**parts):
        with fairchem():
            checkpoint = importlib.import_module("fairchem.core.units.mlip_unit.api.inference").MLIPInferenceCheckpoint
            torch.save(checkpoint(**(vars(whole) | parts)), tmp_path / "x.pt")
        return refusal(tmp_path / "x.pt")

    def task(**changes):
        return {"tasks_config": [whole.tasks_config[0] | changes]}

    torch.save({"config": {}, "state_dict": {}}, tmp_path / "x.pt")
    assert "holds a dict, expected an inference checkpoint of fairchem-core 2" in refusal(tmp_path / "x.pt")
    allscaip = {"backbone": {"model": "fairchem.core.models.allscaip.AllScAIP.AllScAIPBackbone"}}
    assert "has a backbone of kind fairchem.core.models.allscaip.AllScAIP.AllScAIPBackbone" in refused(
        model_config=allscaip
    )
    fewer = dict(list(whole.ema_state_dict.items())[:-1])
    assert "its weights do not fit its settings (missing or unknown: " in refused(ema_state_dict=fewer)
    wide = whole.model_config | {"backbone": whole.model_config["backbone"] | {"sphere_channels": 16}}
    assert "fairchem does not build its model (RuntimeError: " in refused(model_config=wide)
    assert "the task omat_energy adds 2 eV to every system" in refused(
        **task(normalizer=whole.tasks_config[0]["normalizer"] | {"mean": 2.0})
    )
    assert "the task omat_energy has a normaliser of an unknown kind" in refused(**task(normalizer={"file": "x.pt"}))
    assert "has element references of an unknown kind" in refused(**task(element_references={"file": "x.npz"}))
    assert "has no task with an energy" in refused(**task(property="dipole"))
