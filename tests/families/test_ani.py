"""ANI artifacts against TorchANI: ANI-2x in NeuroChem's files, TorchANI's own stored models, every engine."""

import bz2
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.neighborlist import neighbor_list
from ase.units import Hartree
from conftest import mlip
from models import ani_state
from passes import assert_passes
from tolerances import FLOAT64_SUM, FORCE_SIGNAL

if find_spec("torchani") is None:
    pytest.skip(
        "the package 'torchani' is not installed. Type: pip install torchani --no-deps", allow_module_level=True
    )

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.ani import adapter
from mlip_deploy.exporters.families.ani.model import _columns
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.targets.torchforce import KJ_PER_MOL, write_torchforce

WATER = -76.388284
"""hartree, of ase.build's water with the three members, as TorchANI 2.9.0 itself printed it (six digits)"""

FEATURES = 1e-12
"""sums of a few numbers of order one, in float64"""


@pytest.fixture(scope="module")
def info():
    folder = Path(os.environ.get("MLIP_MODELS_DIR", ""), "ani-2x")
    if not folder.is_dir():
        pytest.skip("MLIP_MODELS_DIR names no folder with ani-2x/")
    return folder / "ani-2x_3x.info"


@pytest.fixture(scope="module")
def double(info, tmp_path_factory):
    """The published weights in float64."""
    return export(info, tmp_path_factory.mktemp("ani") / "double.mlip.pt", "--dtype", "float64")


@pytest.fixture
def copied(info, tmp_path):
    """The published files, to be damaged."""
    shutil.copytree(info.parent, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        path.chmod(0o755)
    return tmp_path / "copy" / info.name


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state dictionary with random weights, of two members."""
    path = tmp_path_factory.mktemp("ani") / "mine.pt"
    torch.save(ani_state(members=2), path)
    return path


def export(source, output, *options):
    done = mlip("export", "ani", source, "-o", output, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def adapt(source, **options):
    return adapter.adapt(str(source), ExportOptions(**options))


def neurochem_model(info, monkeypatch, **options):
    """As TorchANI reads it, from the folder in which it keeps such files."""
    import torchani.neurochem

    monkeypatch.setattr(torchani.neurochem, "neurochem_dir", lambda: info.parent)
    return torchani.neurochem.load_model_from_info_file(info, **options)


def methanol():
    atoms = molecule("CH3OH")
    atoms.rattle(0.1, seed=2)
    return atoms


def inputs(atoms):
    return torch.tensor(atoms.numbers).unsqueeze(0), torch.tensor(atoms.positions).unsqueeze(0)


def test_published_weights_in_every_engine(double):
    assert_passes(double, ["ase", "lammps", "openmm"], [1, 2, 4])
    contract = Artifact(double).contract
    assert (contract.model.name, contract.parallel, contract.interaction_range) == ("ani-2x_3x", "local", 5.1)
    assert contract.elements == ["H", "C", "N", "O", "S", "F", "Cl"]
    assert np.abs(Artifact(double).fixtures().structures[0].forces).max() > FORCE_SIGNAL
    atoms = molecule("H2O")
    atoms.calc = MLIPCalculator(double)
    assert atoms.get_potential_energy() / Hartree == pytest.approx(WATER, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "operators"), [((), ["mlip::symmetry_functions"]), (("--no-fuse",), [])], ids=["fused", "plain"]
)
def test_every_element_and_pair_of_elements(info, double, options, operators, tmp_path):
    """A clump of all seven, near enough that each atom has each pair of them."""
    path = export(info, tmp_path / "plain.mlip.pt", "--dtype", "float64", *options) if options else double
    assert list(Artifact(path).contract.operators) == operators
    random = np.random.default_rng(5)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)], dtype=float)
    symbols = random.permutation(["H", "C", "N", "O", "S", "F", "Cl"] * 4)[:27]
    atoms = Atoms(symbols, positions=1.7 * grid + random.normal(scale=0.1, size=(27, 3)))
    truth = adapt(info).original.float64(atoms)
    atoms.calc = MLIPCalculator(path)
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(atoms.get_potential_energies(), truth.atomic_energies, rtol=0, atol=FLOAT64_SUM)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("symbols", ["CH3OH", "SH2", "HCl"])
def test_features_of_absent_elements_are_zero(info, symbols, fuse):
    """The features are TorchANI's, for all seven elements, in each molecule."""
    adapted = adapt(info, fuse=fuse)
    atoms = molecule(symbols)
    own = adapter._load(str(info), ExportOptions())[0].double()
    wanted = own.aev_computer(own.species_converter(inputs(atoms)[0]), inputs(atoms)[1])[0].detach()
    centres, neighbours, vectors = neighbor_list("ijD", atoms, adapted.cutoff)
    _, features = adapted.energy_model(torch.float64).energies_and_features(
        torch.tensor([adapted.elements.index(symbol) for symbol in atoms.get_chemical_symbols()]),
        len(atoms),
        torch.tensor(np.stack([centres, neighbours])),
        torch.tensor(vectors),
    )
    order = _columns(own.aev_computer, list(range(7)))
    torch.testing.assert_close(features, wanted[:, order], rtol=0, atol=FEATURES)
    assert wanted.max() > 0.1


def test_published_weights_in_float32(info, tmp_path):
    """Energies of hundreds of hartree are not rounded to float32: the noise is that of the networks."""
    path = export(info, tmp_path / "single.mlip.pt")
    assert_passes(path, ["ase", "lammps", "openmm"], [1, 2])
    noise = Artifact(path).fixtures().float32_noise
    assert 1e-8 < noise.energy_per_atom < 1e-5
    assert noise.forces < 1e-3
    chloride = Atoms("Cl", positions=[[0.0, 0.0, 0.0]])
    truth = adapt(info).original.float64(chloride)
    chloride.calc = MLIPCalculator(path)
    assert abs(truth.energy) > 1e4
    # a float32 of this size has steps of 1e-3
    assert chloride.get_potential_energy() == pytest.approx(truth.energy, abs=1e-5)


def test_neurochem_files_are_read_as_torchani_reads_them(info, monkeypatch):
    expected = neurochem_model(info, monkeypatch).state_dict()
    with torch.no_grad():
        found = adapter._load(str(info), ExportOptions())[0].state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_members_and_their_spread(info, double, monkeypatch, tmp_path):
    atoms = methanol()
    assert Artifact(double).contract.extras == ["energy_std"]
    energies = []
    for k in range(3):
        path = export(info, tmp_path / f"{k}.mlip.pt", "--dtype", "float64", "--member", str(k))
        contract = Artifact(path).contract
        assert [(given.name, given.value, given.choices) for given in contract.inputs] == [
            ("member", str(k), ["0", "1", "2"])
        ]
        assert contract.extras == []
        own = neurochem_model(info, monkeypatch, model_index=k).double()
        atoms.calc = MLIPCalculator(path)
        energies.append(atoms.get_potential_energies())
        expected = own(inputs(atoms)).energies.item() * Hartree
        assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-8)
    atoms.calc = MLIPCalculator(double)
    np.testing.assert_allclose(atoms.get_potential_energies(), np.mean(energies, axis=0), rtol=0, atol=FLOAT64_SUM)
    own = neurochem_model(info, monkeypatch).double()
    stdev = own.atomic_stdev(inputs(atoms)).stdev_atomic_energies[0].detach().numpy() * Hartree
    spread = atoms.calc.get_property("energy_std", atoms)
    np.testing.assert_allclose(spread, stdev, rtol=0, atol=1e-8)
    np.testing.assert_allclose(spread, np.std(energies, axis=0, ddof=1), rtol=0, atol=1e-8)
    assert spread.min() > 1e-3
    assert_passes(tmp_path / "1.mlip.pt", ["lammps"], [1, 2])


def test_fewer_elements(info, tmp_path):
    path = export(info, tmp_path / "cho.mlip.pt", "--dtype", "float64", "--elements", "C,O,H")
    assert Artifact(path).contract.elements == ["H", "C", "O"]
    atoms = methanol()
    truth = adapt(info).original.float64(atoms)
    atoms.calc = MLIPCalculator(path)
    np.testing.assert_allclose(atoms.get_forces(), truth.forces, rtol=0, atol=FLOAT64_SUM)
    assert atoms.get_potential_energy() == pytest.approx(truth.energy, abs=FLOAT64_SUM)


def test_mirror_images_are_equal(state, tmp_path):
    path = export(state, tmp_path / "x.mlip.pt", "--dtype", "float64")
    assert Artifact(path).contract.inversion_symmetric is True
    atoms = methanol()
    atoms.calc = MLIPCalculator(path)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.positions *= -1.0
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=FLOAT64_SUM)
    np.testing.assert_allclose(atoms.get_forces(), -forces, rtol=0, atol=FLOAT64_SUM)
    assert np.abs(forces).max() > FORCE_SIGNAL


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("names", ["today's", "of old"])
@pytest.mark.parametrize("architecture", ["ani1x", "ani2x"])
def test_state_dictionaries(architecture, names, members, tmp_path):
    from torchani.arch import Assembler
    from torchani.utils import SYMBOLS_1X, SYMBOLS_2X

    state = ani_state(architecture, members, old_names=names == "of old")
    assert any(".members." in name or "atomics" in name for name in state) == (names == "today's")
    torch.save(state, tmp_path / "mine.pt")
    path = export(tmp_path / "mine.pt", tmp_path / "mine.mlip.pt", "--dtype", "float64")
    # Names of old are read, and then forgotten.
    assert_passes(path, *((["ase"], [1]) if names == "of old" else (["ase", "lammps", "openmm"], [1, 2])))

    assembler = Assembler()
    assembler.set_symbols(SYMBOLS_1X if architecture == "ani1x" else SYMBOLS_2X)
    assembler.set_global_cutoff_fn("cosine")
    assembler.set_aev_computer(radial=architecture, angular=architecture)
    assembler.set_atomic_networks(ctor=architecture)
    assembler.set_gsaes_as_self_energies("wb97x-631gd")
    own = assembler.assemble(members)
    own.load_state_dict(ani_state(architecture, members))
    atoms = methanol()
    atoms.calc = MLIPCalculator(path)
    expected = own.double()(inputs(atoms)).energies.item() * Hartree
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-8)


def test_a_name_takes_what_torchani_has_stored(monkeypatch, tmp_path):
    import torchani.models

    monkeypatch.setenv("TORCHANI_DATA_DIR", str(tmp_path))
    (tmp_path / "StateDicts").mkdir()
    torch.save(ani_state("ani1x", 8), tmp_path / "StateDicts" / "ani1x_state_dict.pt")
    adapted = adapt("1x")
    assert (adapted.identity.name, adapted.identity.license) == ("ani-1x", "MIT")
    assert adapted.energy_frame.functional == "ωB97X/6-31G(d) (ANI-1x)"
    own = torchani.models.ANI1x().double()
    assert len(own) == 8
    atoms = methanol()
    expected = own(inputs(atoms)).energies.item() * Hartree
    assert adapted.original.float64(atoms).energy == pytest.approx(expected, abs=1e-8)


def test_a_file_has_an_unknown_frame(state):
    adapted = adapt(state)
    assert adapted.identity.license == "unknown"
    assert adapted.energy_frame.functional == "unknown"


@pytest.mark.parametrize("forces", [True, False])
def test_torchforce(state, forces, tmp_path):
    adapted = FAMILIES["ani"].adapt(str(state), ExportOptions(fuse=False))
    atoms = methanol()
    truth = adapted.original.float64(atoms)
    output = tmp_path / "x.torchforce.pt"
    write_torchforce(adapted, output, "float64", lambda _: None, atoms.get_chemical_symbols(), forces=forces)
    positions = torch.tensor(0.1 * atoms.positions, requires_grad=True)
    found = torch.jit.load(str(output))(positions, None)
    energy, slope = found if forces else (found, -torch.autograd.grad(found, positions)[0])
    assert float(energy.detach()) == pytest.approx(truth.energy * KJ_PER_MOL, rel=1e-12)
    np.testing.assert_allclose(0.1 * slope.detach() / KJ_PER_MOL, truth.forces, rtol=0, atol=FLOAT64_SUM)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL


def refusal(source, **options):
    with pytest.raises(MLIPError) as error:
        adapt(source, **options)
    return str(error.value)


def test_names(state, monkeypatch, tmp_path):
    assert refusal("3x") == "'3x': neither a file nor an ANI model. Known models: 2x, 1x, 1ccx"
    assert "'gone.info': no such model file" in refusal("gone.info")
    assert "--member 2: mine has 2 members, counted from 0" in refusal(state, member=2)
    assert "--member -1: mine has 2 members" in refusal(state, member=-1)
    assert "mine does not know Si" in refusal(state, elements=("Si",))

    import torchani.models

    def fail():
        raise ConnectionError("no route")

    monkeypatch.setenv("TORCHANI_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(torchani.models, "ANI2x", fail)
    message = refusal("2x")
    assert "'2x' could not be downloaded (ConnectionError: no route)" in message
    assert 'type: python -c "import torchani; torchani.models.ANI2x()"' in message


def test_a_package_that_torchani_lacks(state, monkeypatch):
    monkeypatch.delitem(sys.modules, "torchani.arch", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = refusal(state)
    assert message.startswith("torchani cannot be imported (")
    assert message.endswith(FAMILIES["ani"].install)


def test_other_state_dictionaries(state, tmp_path):
    bad = tmp_path / "bad.pt"
    weights = torch.load(state)
    torch.save({"model": weights}, bad)
    assert f"'{bad}' is no state dictionary of TorchANI" in refusal(bad)
    torch.save({"weight": torch.zeros(2)}, bad)
    assert f"'{bad}' is no state dictionary of ANI-2x, ANI-1x or ANI-1ccx" in refusal(bad)
    torch.save({k: v for k, v in weights.items() if not k.endswith("H.layers.0.bias")}, bad)
    assert "Missing key(s)" in refusal(bad)
    torch.save({k: v + 0.01 if k.endswith("radial.shifts") else v for k, v in weights.items()}, bad)
    assert "has other symmetry functions (radial.shifts) than ANI-2x" in refusal(bad)


def test_damaged_neurochem_files(copied):
    folder = copied.parent / "ani-2x_3x"
    networks = folder / "train1" / "networks"

    def damage(path, content):
        before = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        message = refusal(copied)
        path.write_bytes(before)
        return message

    assert "is no info file of NeuroChem. Expected four lines" in damage(copied, b"hello\n")
    assert "says that the model has no members" in damage(copied, copied.read_bytes().replace(b"\n3", b"\n0"))
    assert "names 4 members, but " in damage(copied, copied.read_bytes().replace(b"\n3", b"\n4"))
    constants = folder / "rHCNOSFCl-5.1R_16-3.5A_a8-4.params"
    assert "which is not there. Copy the folder whole" in damage(constants, None)
    assert "has no constants of symmetry functions" in damage(constants, b"Rcr = five\n")
    energies = folder / "sae_linfit.dat"
    assert "has no self energies" in damage(energies, b"H = 1\n")
    swapped = energies.read_bytes().replace(b"H,0", b"H,1").replace(b"C,1", b"C,0")
    assert "is of C H N O S F Cl, " in damage(energies, swapped)
    network = networks / "ANN-O.nnf"
    assert "is not there. Copy the folder whole" in damage(network, None)
    assert "is no network of NeuroChem (" in damage(network, b"=\nhello")
    assert "is no network of NeuroChem: expected layers with nodes, " in damage(network, b"=\n" + bz2.compress(b"x"))
    weights = networks / "ANN-O.nnf-l2.wparam"
    assert "bytes, expected 30720 numbers of 4 bytes" in damage(weights, weights.read_bytes()[:-4])
    assert "is not there. Copy the folder whole" in damage(weights, None)


def test_text_of_a_network_is_not_run(copied):
    """TorchANI evaluates it as Python."""
    network = copied.parent / "ani-2x_3x" / "train0" / "networks" / "ANN-H.nnf"
    text = bz2.decompress(network.read_bytes().partition(b"=\n")[2])

    def refused(old, new):
        network.write_bytes(b"=\n" + bz2.compress(text.replace(old, new, 1)))
        return refusal(copied)

    made = copied.parent / "made"
    assert "expected layers with" in refused(b"nodes=256", f"nodes=open({str(made)!r}, 'w') and 256".encode())
    assert not made.exists()
    assert "a layer takes 1007 values, but is given 1008" in refused(b"blocksize=1008", b"blocksize=1007")
    assert "activations [5, 9, 9, 6] and 1 outputs; known are CELU (9)" in refused(b"activation=9", b"activation=5")
