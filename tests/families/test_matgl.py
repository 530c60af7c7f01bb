"""MatGL artifacts against MatGL's own TensorNet with random weights, small and of the published sizes."""

import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from models import matgl_potential
from passes import assert_equals_the_original, assert_passes
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

if find_spec("matgl") is None:
    pytest.skip("the package 'matgl' is not installed. Type: pip install matgl", allow_module_level=True)

from mlip_deploy import export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.matgl import adapter
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce
from mlip_deploy.operators import load_operators

load_operators()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return matgl_potential(tmp_path_factory.mktemp("matgl") / "tiny")


def adapt(source, **options):
    return FAMILIES["matgl"].adapt(str(source), ExportOptions(**options))


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def test_float64_in_every_engine(tiny, tmp_path):
    path = export("matgl", tiny, tmp_path / "double.mlip.pt", dtype="float64")
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2, 4])
    contract = Artifact(path).contract
    assert (contract.model.name, contract.model.license, contract.parallel) == ("tiny", "unknown", "exchange")
    assert (contract.message_passing_layers, contract.interaction_range) == (3, 15.0)
    assert contract.inversion_symmetric is True
    assert contract.energy_frame.functional == "unknown"
    assert contract.elements == ["O", "Na", "Cl", "Ti"]
    assert np.abs(Artifact(path).fixtures().structures[0].forces).max() > FORCE_SIGNAL


def test_float32_with_tables_and_fewer_elements(tiny, tmp_path):
    path = export("matgl", tiny, tmp_path / "single.mlip.pt", elements=["Cl", "Na"])
    assert_passes(path, ["ase", "lammps"], [1, 2])
    assert Artifact(path).contract.elements == ["Na", "Cl"]
    assert 1e-9 < Artifact(path).fixtures().float32_noise.energy_per_atom < 1e-5


@pytest.mark.parametrize(("nblocks", "size"), [(2, 837_378), (3, 1_067_906)])
def test_published_sizes(nblocks, size, tmp_path):
    import matgl
    from matgl.config import DEFAULT_ELEMENTS
    from matgl.ext.ase import PESCalculator

    settings = {"element_types": DEFAULT_ELEMENTS, "units": 128, "nblocks": nblocks}
    source = matgl_potential(tmp_path / "full", **settings)
    adapted = adapt(source)
    assert len(adapted.elements) == 89
    assert (adapted.cutoff, adapted.message_passing_layers) == (5.0, nblocks + 1)
    assert_equals_the_original(adapted, salt())
    # what MatGL itself makes of the folder, in float32
    potential = matgl.load_model(source)
    assert sum(parameter.numel() for parameter in potential.model.parameters()) == size
    atoms, truth = salt(), adapted.original.float64(salt())
    atoms.calc = PESCalculator(potential, stress_unit="eV/A3", use_voigt=True)
    noise = 3e-5 * np.abs(truth.forces).max()
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=noise)
    np.testing.assert_allclose(atoms.get_stress(), truth.stress, rtol=0, atol=noise)
    assert atoms.get_potential_energy() == pytest.approx(truth.energy, rel=1e-5)


EDGES = {
    "an atom": Atoms("Na"),
    "a pair beyond the cutoff": Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 5.1]]),
    "a pair": Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.5]]),
    "a crystal of one atom, with edges to its images": bulk("Na", "fcc", a=3.6),
    "two groups": Atoms("Na4", positions=[[0, 0, 0], [2.5, 0, 0], [20, 0, 0], [22, 0, 0]]),
}


@pytest.mark.parametrize("case", EDGES)
def test_few_edges(case, tiny):
    assert_equals_the_original(adapt(tiny), EDGES[case], None)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"rbf_type": "Gaussian", "num_rbf": 8, "width": 0.3, "activation_type": "tanh"},
        {"max_n": 5, "cutoff": 4.0, "activation_type": "softplus2", "nblocks": 1},
        {"equivariance_invariance_group": "SO(3)", "potential": {"element_refs": None, "data_std": 0.7}},
    ],
)
def test_other_settings(settings, fuse, tmp_path):
    adapted = adapt(matgl_potential(tmp_path / "tiny", **settings), fuse=fuse)
    assert_equals_the_original(adapted, salt(), 0.01)
    assert adapted.inversion_symmetric is ("equivariance_invariance_group" not in settings)


def test_mirror_images_differ_with_so3(tmp_path):
    """And not with O(3), by MatGL itself."""
    lonely = Atoms("NaClOTi", positions=[[0, 0, 0], [2.1, 0.2, 0], [0.3, 2.3, 0.1], [0.5, 0.4, 2.2]])
    mirrored = Atoms(lonely.symbols, positions=lonely.positions * [1, 1, -1])
    change = {}
    for group in ("O(3)", "SO(3)"):
        adapted = adapt(matgl_potential(tmp_path / group, equivariance_invariance_group=group))
        change[group] = abs(adapted.original.float64(lonely).energy - adapted.original.float64(mirrored).energy)
    assert change["O(3)"] < FLOAT64_SUM
    assert change["SO(3)"] > 1e3 * FLOAT64_SUM


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


def edited(tiny, folder, edit_json=None, **edits):
    """A copy of a saved model: `edit_json(model.json)`, and for each file `edit(content)`, in place."""
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    if edit_json:
        described = json.loads((folder / "model.json").read_text())
        edit_json(described)
        (folder / "model.json").write_text(json.dumps(described))
    for name, edit in edits.items():
        content = torch.load(folder / f"{name}.pt")
        edit(content)
        torch.save(content, folder / f"{name}.pt")
    return folder


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapt(source, **options)
    return str(error.value)


def test_weights_of_another_version(tiny, tmp_path, monkeypatch):
    """Those of 2025.1, for which matgl 4.1.2 has a warning and other energies than matgl 2.0.4."""
    import matgl
    from matgl.models import TensorNet

    old = edited(tiny, tmp_path / "v2025.1", model=lambda content: content["model"].update({"@model_version": 1}))
    message = refusal(old)
    assert message.startswith(f"'{old}' was saved with version 1 of MatGL's TensorNet, the installed matgl ")
    assert "has version 2. It would load these weights with a warning and compute wrong energies" in message
    assert "TensorNet-PES-MatPES-PBE-2025.2" in message
    with pytest.warns(UserWarning, match="Incompatible model version"):
        matgl.load_model(old)
    newer = edited(tiny, tmp_path / "newer", lambda described: described.update({"@model_version": 4}))
    assert "was saved with version 4 of MatGL's Potential" in refusal(newer)
    monkeypatch.setattr(TensorNet, "__version__", 1)
    assert "has version 1 of TensorNet, expected 2. Type: pip install matgl==4.1.2" in refusal(old)


def test_a_published_name(tiny, tmp_path, monkeypatch):
    """Its files come from the hub, or from where MatGL keeps them."""
    import huggingface_hub
    from matgl.config import MATGL_CACHE

    name = "TensorNet-PES-MatPES-r2SCAN-2025.2"
    folder = edited(tiny, tmp_path / name, lambda d: d.update(metadata={"dataset": "MatPES-r2SCAN-2025.2"}))

    def download(repository, file, cache_dir):
        assert cache_dir == str(MATGL_CACHE)
        assert repository.startswith("materialyze/TensorNet-PES-")
        return folder / file

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for source in (name, f"materialyze/{name}"):
        adapted = adapt(source)
        assert (adapted.identity.name, adapted.identity.license) == (name, adapter.LICENSE)
        assert adapted.energy_frame.functional == "r2SCAN (MatPES)"
    assert adapt(folder).energy_frame.functional == "unknown"  # a folder can hold anything
    assert refusal("TensorNet-PES-MatPES-PBE-2025.2-m") == (
        "'TensorNet-PES-MatPES-PBE-2025.2-m' says that its data are MatPES-r2SCAN-2025.2, expected MatPES-PBE-2025.2"
    )

    def fail(*arguments, **keywords):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    message = refusal(name)
    assert f"'{name}' could not be downloaded (ConnectionError: no route)" in message
    assert f"matgl.load_model('{name}')" in message


def test_names(tiny, tmp_path):
    known = f"Known models: {', '.join(adapter.PUBLISHED)}"
    assert refusal("TensorNet-2") == f"'TensorNet-2': neither a folder nor a model's name. {known}"
    assert "expected the folder, not a file of it" in refusal(tiny / "model.pt")
    assert (
        refusal(tmp_path) == f"'{tmp_path}' is no model that MatGL has saved: it has no model.json, model.pt, state.pt"
    )
    assert "tiny does not know Fe" in refusal(tiny, elements=("Fe",))


def test_other_models(tiny, tmp_path):
    def inner(**changes):
        return lambda content: content["model"].update(changes)

    def settings(**changes):
        return lambda content: content["model"]["init_args"].update(changes)

    def flags(**changes):
        return lambda content: content.update(changes)

    for edit, expected in (
        (inner(**{"@class": "QET"}), "is a QET: its charges are equilibrated over all atoms"),
        (inner(**{"@class": "M3GNet"}), "is a M3GNet: its sums over angles are not known here"),
        (inner(**{"@class": "CHGNet"}), "the family chgnet exports CHGNet's own models"),
        (inner(**{"@class": "Newer"}), "is a Newer: its layers are not known here"),
        (settings(is_intensive=True), "predicts a property of the whole system"),
        (settings(include_state=True), "has attributes of the state"),
        (settings(use_smooth=False), "spherical Bessel functions with use_smooth=False"),
        (settings(rbf_type="ExpNorm"), "has the radial basis ExpNorm"),
        (settings(ntargets=2), "has 2 targets"),
        (settings(units=8), "its weights do not fit its settings"),
        (flags(calc_repuls=True), "asks for a ZBL repulsion, which MatGL's TensorNet cannot run"),
        (flags(calc_charge=True), "asks for charges"),
        (flags(model=None), "model.pt does not hold the arguments of a potential"),
    ):
        assert expected in refusal(edited(tiny, tmp_path / "other", model=edit))
    for edit, expected in (
        (lambda state: state.pop("model.out_norm.weight"), "missing or unknown: model.out_norm.weight"),
        (lambda state: state.update(more=torch.zeros(1)), "missing or unknown: more"),
        (lambda state: state.update(data_mean=torch.tensor(2.0)), "has data_mean=2.0"),
        (lambda state: state.update({"element_refs.property_offset": torch.zeros(2)}), "do not fit its settings"),
    ):
        assert expected in refusal(edited(tiny, tmp_path / "weights", state=edit))
    bare = edited(tiny, tmp_path / "bare", lambda described: described.update({"@class": "TensorNet"}))
    assert "holds a bare TensorNet, expected a potential" in refusal(bare)
    (bare / "model.json").write_text("{}")
    assert "model.json is not MatGL's (KeyError" in refusal(bare)


def test_constants_that_earlier_files_have_or_lack(tiny, tmp_path):
    def edit(state):
        del state["model.bond_expansion.rbf.cutoff"]
        state["element_refs.onehot"] = torch.eye(4)

    found = [adapt(one).original.float64(salt()) for one in (tiny, edited(tiny, tmp_path / "old", state=edit))]
    assert found[0].energy == found[1].energy


def test_matgl_itself_has_no_zbl_in_tensornet(tmp_path):
    """The reason of a refusal."""
    import matgl
    from matgl.ext.ase import PESCalculator

    source = matgl_potential(tmp_path / "zbl", potential={"calc_repuls": True})
    atoms = salt()
    atoms.calc = PESCalculator(matgl.load_model(source), stress_unit="eV/A3")
    with pytest.raises(AttributeError, match="bond_dist"):
        atoms.get_potential_energy()


def test_a_package_that_matgl_lacks(tiny, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("matgl.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sympy", None)
    message = refusal(tiny)
    assert message.startswith("matgl cannot be imported (")
    assert message.endswith(FAMILIES["matgl"].install)
