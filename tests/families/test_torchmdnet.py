"""TorchMD-Net artifacts against TorchMD-Net's own TensorNet with random weights, small and of the published size."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.units import Hartree
from models import torchmdnet_checkpoint
from passes import assert_equals_the_original, assert_passes
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

if find_spec("torchmdnet") is None:
    pytest.skip(
        "the package 'torchmdnet' is not installed. Type: pip install torchmd-net --no-deps", allow_module_level=True
    )

from mlip_deploy import export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce
from mlip_deploy.operators import load_operators

load_operators()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return torchmdnet_checkpoint(tmp_path_factory.mktemp("torchmdnet") / "tiny.ckpt")


def adapt(source, fuse=True, **fix):
    return FAMILIES["torchmdnet"].adapt(str(source), ExportOptions(fuse=fuse, fix={"energy_unit": "eV", **fix}))


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def test_float64_in_every_engine(tiny, tmp_path):
    options = {"elements": ["Na", "Cl", "O"], "fix": {"energy_unit": "eV", "charge": 1}}
    path = export("torchmdnet", tiny, tmp_path / "double.mlip.pt", dtype="float64", **options)
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2, 4])
    contract = Artifact(path).contract
    assert (contract.model.name, contract.model.license, contract.parallel) == ("tiny", "unknown", "exchange")
    assert (contract.message_passing_layers, contract.interaction_range) == (2, 9.0)
    assert contract.inversion_symmetric is True
    assert {one.name: one.value for one in contract.inputs} == {"charge": "1", "energy_unit": "eV"}
    assert np.abs(Artifact(path).fixtures().structures[0].forces).max() > FORCE_SIGNAL


def test_float32_with_tables(tiny, tmp_path):
    options = {"elements": ["Cl", "Na"], "fix": {"energy_unit": "eV"}}
    path = export("torchmdnet", tiny, tmp_path / "single.mlip.pt", **options)
    assert_passes(path, ["lammps"], [2])
    assert Artifact(path).contract.elements == ["Na", "Cl"]
    assert 1e-9 < Artifact(path).fixtures().float32_noise.energy_per_atom < 1e-5


CASES = {
    "an atom": Atoms("Na"),
    "a pair beyond the cutoff": Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 4.6]]),
    "a pair": Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.5]]),
    "a crystal of two atoms, with edges to their images": Atoms(
        "NaCl", [[0, 0, 0], [1.6, 1.3, 1.9]], cell=3 * [3.4], pbc=True
    ),
    "a crystal": salt(),
}


@pytest.mark.parametrize("case", CASES)
def test_structures(case, tiny):
    assert_equals_the_original(adapt(tiny), CASES[case], None)


@pytest.mark.parametrize(
    "settings",
    [
        {"embedding_dimension": 128, "num_layers": 2, "num_rbf": 32, "max_z": 128},
        {"rbf_type": "gauss", "activation": "tanh", "trainable_rbf": True, "prior_model": None},
        {"equivariance_invariance_group": "SO(3)", "num_layers": 0, "activation": "ssp", "precision": 64},
    ],
)
def test_settings(settings, tmp_path):
    """The first has the sizes that TorchMD-Net's examples train."""
    adapted = adapt(torchmdnet_checkpoint(tmp_path / "other.ckpt", **settings), fuse=settings.get("num_layers") == 2)
    assert_equals_the_original(adapted, salt(), 0.01)
    assert adapted.inversion_symmetric is ("equivariance_invariance_group" not in settings)


def test_charge(tiny):
    """A factor of products in every layer."""
    charged = adapt(tiny, charge=-2)
    assert_equals_the_original(charged, salt())
    assert abs(charged.original.float64(salt()).energy - adapt(tiny).original.float64(salt()).energy) > 1e-2


def test_units(tiny):
    in_hartree = adapt(tiny, energy_unit="Hartree")
    assert_equals_the_original(in_hartree, Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.5]]))
    energies = [one.original.float64(salt()).energy for one in (in_hartree, adapt(tiny))]
    assert energies[0] == pytest.approx(Hartree * energies[1], rel=1e-12)


def test_weights_of_earlier_versions(tiny, tmp_path):
    """TorchMD-Net puts those of 2.x into another order; it knows them by a setting that it no longer has."""
    content = torch.load(tiny)

    def earlier(rows):
        return rows.view(3, len(rows) // 3, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)

    for key, value in content["state_dict"].items():
        if key.rpartition(".")[0].endswith(("tensor_embedding.linears_scalar.1", "layers.0.linears_scalar.2")):
            content["state_dict"][key] = earlier(value)
    content["hyper_parameters"]["check_errors"] = True
    torch.save(content, tmp_path / "old.ckpt")
    found = [adapt(source).original.float64(salt()).energy for source in (tiny, tmp_path / "old.ckpt")]
    assert found[0] == found[1]


@pytest.mark.parametrize("forces", [True, False])
def test_torchforce(forces, tiny, tmp_path):
    adapted = adapt(tiny, fuse=False)
    atoms = salt()
    truth = adapted.original.float64(atoms)
    output = tmp_path / "x.torchforce.pt"
    write_torchforce(adapted, output, "float64", lambda _: None, atoms.get_chemical_symbols(), forces=forces)
    positions = torch.tensor(0.1 * atoms.positions, requires_grad=True)
    found = torch.jit.load(str(output))(positions, torch.tensor(0.1 * atoms.cell.array))
    energy, slope = found if forces else (found, -torch.autograd.grad(found, positions)[0])
    assert float(energy.detach()) == pytest.approx(truth.energy * KJ_PER_MOL, rel=1e-12)
    np.testing.assert_allclose(0.1 * slope.detach() / KJ_PER_MOL, truth.forces, rtol=0, atol=FLOAT64_SUM)


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        FAMILIES["torchmdnet"].adapt(str(source), ExportOptions(**options))
    return str(error.value)


def test_options(tiny):
    assert refusal("gone.ckpt") == "'gone.ckpt': no such checkpoint file of TorchMD-Net (*.ckpt)"
    assert "does not say it. Add: --fix energy_unit=eV" in refusal(tiny)
    assert "energy_unit=Ry is not one of them" in refusal(tiny, fix={"energy_unit": "Ry"})
    assert "charge=half: expected an integer" in refusal(tiny, fix={"energy_unit": "eV", "charge": "half"})
    assert "tiny does not know Fe" in refusal(tiny, fix={"energy_unit": "eV"}, elements=("Fe",))


def test_other_models(tiny, tmp_path):
    bad = tmp_path / "bad.ckpt"

    def saved(change=None, **settings):
        content = torch.load(tiny)
        content["hyper_parameters"].update(settings)
        if change:
            change(content["state_dict"])
        torch.save(content, bad)
        return refusal(bad, fix={"energy_unit": "eV", "charge": 1})

    torch.save({"weights": torch.zeros(2)}, bad)
    expected = f"'{bad}' is no checkpoint of TorchMD-Net: expected hyper_parameters and state_dict"
    assert refusal(bad) == expected
    assert "is a equivariant-transformer: its attention is not known here" in saved(model="equivariant-transformer")
    assert "is a graph-network: its layers are not known here" in saved(model="graph-network")
    assert "is a tensornet2: its charges and its Coulomb energy are not" in saved(model="tensornet2")
    assert "has output_model='DipoleMoment'; only 'Scalar'" in saved(output_model="DipoleMoment")
    assert "has reduce_op='mean'; only 'add'" in saved(reduce_op="mean")
    assert "has cutoff_lower=1.0; only 0" in saved(cutoff_lower=1.0)
    assert "a TensorNet of the group SO(3) takes no charge" in saved(equivariance_invariance_group="SO(3)")
    assert "TorchMD-Net does not read it (RuntimeError" in saved(embedding_dimension=8)
    mean = saved(lambda state: state.update({"model.mean": torch.tensor(2.0)}))
    assert "has a mean of 2, which TorchMD-Net adds once to a system of any size" in mean
    scales = {"atomic_number": list(range(20)), "distance_scale": 1e-10, "energy_scale": 1.6e-19}
    d2 = {"cutoff_distance": 4.0, "max_num_neighbors": 50, **scales}
    dispersion = torchmdnet_checkpoint(bad, prior_model="D2", prior_args=d2)
    assert "has the prior D2; only Atomref" in refusal(dispersion, fix={"energy_unit": "eV"})
