"""MatterSim artifacts against MatterSim's own M3GNet with random weights, small and of the published sizes."""

import pickle
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from models import mattersim_checkpoint
from passes import assert_equals_the_original, assert_passes
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

if find_spec("mattersim") is None:
    pytest.skip(
        "the package 'mattersim' is not installed. Type: pip install mattersim --no-deps", allow_module_level=True
    )

from mlip_deploy import export
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench.roofline import roofline
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.mattersim import adapter
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce
from mlip_deploy.operators import load_operators

load_operators()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return mattersim_checkpoint(tmp_path_factory.mktemp("mattersim") / "tiny.pth")


def adapt(source, **options):
    return FAMILIES["mattersim"].adapt(str(source), ExportOptions(**options))


def salt(shape=(1, 1, 1)):
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True).repeat(shape)
    atoms.rattle(0.1, seed=3)
    return atoms


def test_float64_in_every_engine(tiny, tmp_path):
    path = export("mattersim", tiny, tmp_path / "double.mlip.pt", dtype="float64")
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2, 4])
    contract = Artifact(path).contract
    assert (contract.model.name, contract.model.license, contract.parallel) == ("tiny", "unknown", "exchange")
    assert (contract.message_passing_layers, contract.interaction_range) == (2, 10.0)
    assert contract.inversion_symmetric is True
    assert sorted(contract.operators) == [
        "mlip::angle_sums",
        "mlip::edge_perceptron",
        "mlip::gated_addition",
        "mlip::ghost_gather",
    ]
    assert contract.energy_frame.functional == "unknown"
    assert contract.elements[0] == "H"
    assert contract.elements[-1] == "Ca"
    assert np.abs(Artifact(path).fixtures().structures[0].forces).max() > FORCE_SIGNAL


def test_float32_and_fewer_elements(tiny, tmp_path):
    path = export("mattersim", tiny, tmp_path / "single.mlip.pt", elements=["Cl", "Na"])
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2])
    assert Artifact(path).contract.elements == ["Na", "Cl"]
    assert 1e-9 < Artifact(path).fixtures().float32_noise.energy_per_atom < 1e-5


def test_without_the_fused_operator(tiny, tmp_path):
    plain, fused = (adapt(tiny, fuse=fuse) for fuse in (False, True))
    assert_equals_the_original(plain, salt())
    types, edges, vectors = graph(salt(), plain.elements, plain.cutoff, torch.float64)
    found = [adapted.energy_model(torch.float64)(types, len(types), edges, vectors) for adapted in (plain, fused)]
    np.testing.assert_allclose(*(x.detach() for x in found), rtol=0, atol=FLOAT64_SUM)
    path = export("mattersim", tiny, tmp_path / "plain.mlip.pt", fuse=False)
    assert list(Artifact(path).contract.operators) == ["mlip::ghost_gather"]
    assert_passes(path, ["ase"], [1])


@pytest.mark.parametrize(("num_blocks", "units", "size"), [(3, 128, 890_034), (4, 256, 4_548_930)])
def test_published_sizes(num_blocks, units, size, tmp_path):
    from mattersim.forcefield.potential import MatterSimCalculator, Potential

    source = mattersim_checkpoint(tmp_path / "full.pth", num_blocks=num_blocks, units=units, max_z=94)
    adapted = adapt(source)
    assert len(adapted.elements) == 94
    assert (adapted.cutoff, adapted.message_passing_layers) == (5.0, num_blocks)
    assert_equals_the_original(adapted, salt())
    # what MatterSim itself makes of the file, in float32
    potential = Potential.from_checkpoint(str(source), device="cpu")
    assert sum(parameter.numel() for parameter in potential.model.parameters()) == size
    atoms, truth = salt(), adapted.original.float64(salt())
    atoms.calc = MatterSimCalculator(potential, device="cpu")
    noise = 3e-5 * np.abs(truth.forces).max()
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=noise)
    np.testing.assert_allclose(atoms.get_stress(), truth.stress, rtol=0, atol=noise)
    assert atoms.get_potential_energy() == pytest.approx(truth.energy, rel=1e-5)


def chain(*positions):
    return Atoms("Na" * len(positions), positions=[[x, 0.0, 0.0] for x in positions])


EDGES = {
    "an atom": chain(0.0),
    "a pair beyond the cutoff of angles": chain(0.0, 4.5),
    "a pair": chain(0.0, 2.5),
    "angles of 0 and 180 degrees, which MatterSim clamps": chain(0.0, 1.9, 3.5),
    "an edge without angles among others": chain(0.0, 1.9, 3.5, 8.1),
    "a crystal of one atom, with edges to its images": bulk("Na", "fcc", a=3.6),
    "two groups": chain(0.0, 2.5, 20.0, 22.0),
}


@pytest.mark.parametrize("case", EDGES)
def test_few_edges_and_angles(case, tiny):
    for fuse in (True, False):
        assert_equals_the_original(adapt(tiny, fuse=fuse), EDGES[case], 0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_l": 2, "max_n": 3},
        {"max_l": 3, "max_n": 1},
        {"max_l": 1, "max_n": 2, "threebody_cutoff": 5.0},
        {"num_blocks": 1, "cutoff": 4.0, "threebody_cutoff": 3.0},
    ],
)
def test_other_settings(settings, tmp_path):
    assert_equals_the_original(adapt(mattersim_checkpoint(tmp_path / "tiny.pth", **settings)), salt(), 0.01)


def test_a_compiled_file_is_refused(tiny, tmp_path):
    """The number of angles would be that of the trace."""
    with pytest.raises(MLIPError, match="tiny selects edges or angles by their values"):
        export("mattersim", tiny, tmp_path / "x.mlip.pt2", backend="aotinductor")
    assert not list(tmp_path.iterdir())


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
    assert np.abs(truth.forces).max() > FORCE_SIGNAL


def test_a_published_name(tmp_path, monkeypatch):
    """The file is where mattersim keeps it, and known by its content under every name."""
    monkeypatch.setattr(adapter, "CACHE", tmp_path)
    source = mattersim_checkpoint(tmp_path / "mattersim-v1.0.0-1M.pth", max_z=94)
    with pytest.raises(
        MLIPError, match=r"mattersim-v1.0.0-1M.pth' is not the published file, which is at https://github"
    ):
        adapt("mattersim-v1.0.0-1m")
    ours = adapter.Published(source.name, adapter._git_blob(source))
    monkeypatch.setitem(adapter.PUBLISHED, "mattersim-v1.0.0-1m", ours)
    for name in ("mattersim-v1.0.0-1m", "MatterSim-v1.0.0-1M.pth", source):
        adapted = adapt(name)
        assert (adapted.identity.name, adapted.identity.license) == ("mattersim-v1.0.0-1m", "MIT")
        assert adapted.energy_frame.functional == "PBE (MatterSim)"
        assert len(adapted.elements) == 89
        assert "Po" not in adapted.elements


def test_git_names_a_file_by_its_content(tmp_path):
    (tmp_path / "x").write_bytes(b"test content\n")
    # as in the book Pro Git, chapter "Git Objects"
    assert adapter._git_blob(tmp_path / "x") == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"


def test_constants_that_a_file_lacks(tiny, tmp_path):
    """The published 5M has as many numbers as the model has without the coefficients of its Bessel functions."""
    content = torch.load(tiny)
    del content["model"]["sbf.coef"]
    torch.save(content, tmp_path / "old.pth")
    found = [adapt(source).original.float64(salt()).forces for source in (tiny, tmp_path / "old.pth")]
    np.testing.assert_array_equal(*found)


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapt(source, **options)
    return str(error.value)


def test_names(tiny, tmp_path, monkeypatch):
    known = "Known models: mattersim-v1.0.0-1m, mattersim-v1.0.0-5m"
    assert refusal("mattersim-v2") == f"'mattersim-v2': neither a file nor a MatterSim model. {known}"
    assert refusal("gone.pth") == f"'gone.pth': no such model file. {known}"
    assert "tiny does not know Fe" in refusal(tiny, elements=("Fe",))

    def fail(*arguments, **keywords):
        raise ConnectionError("no route")

    monkeypatch.setattr(adapter, "CACHE", tmp_path / "empty")
    monkeypatch.setattr(adapter.pooch, "retrieve", fail)
    message = refusal("mattersim-v1.0.0-5m")
    assert "'mattersim-v1.0.0-5M.pth' could not be downloaded (ConnectionError: no route)" in message
    assert f"{adapter.COMMIT}/pretrained_models/mattersim-v1.0.0-5M.pth, copy it here" in message


def test_other_checkpoints(tiny, tmp_path):
    bad = tmp_path / "bad.pth"

    def saved(**changes):
        content = torch.load(tiny)
        for key, change in changes.items():
            content[key] = change(content[key])
        torch.save(content, bad)
        return refusal(bad)

    torch.save({"weights": torch.zeros(2)}, bad)
    assert refusal(bad) == f"'{bad}' is no checkpoint of MatterSim: it has no model_name, model_args, model"
    assert "holds a model of kind 'graphormer'" in saved(model_name=lambda name: "graphormer")
    assert "is no checkpoint of MatterSim's M3GNet (lmax must be less" in saved(model_args=lambda s: s | {"max_l": 5})
    assert "is no checkpoint of MatterSim's M3GNet (Error(s) in loading" in saved(model_args=lambda s: s | {"units": 8})
    fewer = saved(model=lambda state: {k: v for k, v in state.items() if k != "final.g.0.linear.bias"})
    assert "its weights do not fit its settings (missing or unknown: final.g.0.linear.bias)" in fewer
    assert "missing or unknown: charge.weight" in saved(model=lambda state: state | {"charge.weight": torch.zeros(1)})


class Stranger:
    """Something that a pickle names, and that runs code when it is loaded."""

    def __reduce__(self):
        return print, ("stranger",)


def test_a_pickle_needs_trust(tiny, tmp_path, capsys):
    source = tmp_path / "mine.pth"
    torch.save(torch.load(tiny) | {"scheduler": Stranger()}, source, pickle_module=pickle)
    assert "add: --trust-checkpoint" in refusal(source)
    assert "stranger" not in capsys.readouterr().out
    assert adapt(source, trust_checkpoint=True).identity.name == "mine"


def test_a_package_that_mattersim_lacks(tiny, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mattersim.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deprecated", None)
    message = refusal(tiny)
    assert message.startswith("mattersim cannot be imported (")
    assert message.endswith(FAMILIES["mattersim"].install)


def test_roofline(tiny, tmp_path):
    """Steps are counted as engines run them; with torch's own optimisations the second one failed."""
    path = export("mattersim", tiny, tmp_path / "tiny.mlip.pt")
    found = roofline(str(path), "nacl64")
    assert {"edge perceptron", "angle sums", "gated addition", "matrix products"} <= set(found["seconds"])
    assert found["operations"]["matrix products"] > 0
    # two perceptrons in each of two layers of 16 channels with 4 radial functions, forward and back
    per_edge = 2 * 2 * (16 * 32 + 2 * 16 * 16 + 4 * 16) * 2 * 2
    assert found["operations"]["edge perceptron"] == per_edge * found["n_edges"]
