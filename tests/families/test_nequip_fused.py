"""NequIP on fused operators against the same models on NequIP's own layers, and pair potentials in both."""

import re

import nequip_models
import numpy as np
import pytest
import torch

pytest.importorskip("nequip", reason="the package 'nequip' is not installed. Type: pip install nequip")

from ase import Atoms
from ase.build import bulk
from conftest import mlip
from tolerances import FLOAT64_SUM, FORCE_SIGNAL
from vesin import NeighborList

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.nequip import adapter as nequip
from mlip_deploy.exporters.families.registry import ExportOptions
from mlip_deploy.exporters.interface import TORCH_DTYPE, EdgeGradientModel
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.operators import load_operators
from mlip_deploy.validation.fidelity import check

load_operators()

FUSED_FLOAT64 = 1e-9  # eV, eV/Å: the same sums in another order
NEIGHBOURS = {"Na": 10.0, "Cl": 12.0, "Si": 8.0}
MODELS = {
    "even and odd irreps": {},
    "a norm of each type, ZBL": {
        "l_max": 2,
        "parity": False,
        "avg_num_neighbors": NEIGHBOURS,
        "radial_mlp_depth": 2,
        "pair_potential": nequip_models.ZBL,
    },
    "cutoffs of pairs": {"per_edge_type_cutoff": {"Na": 3.5, "Cl": {"Na": 3.8}}, "num_features": [8, 4]},
}


PUBLISHED = {
    "NequIP-OAM-L": {
        "num_layers": 6,
        "l_max": 3,
        "num_features": [8, 4, 2, 2],
        "type_embed_num_features": 3,
        "num_bessels": 8,
        "polynomial_cutoff_p": 5,
        "pair_potential": nequip_models.ZBL,
    },
    "NequIP-OAM-XL": {
        "num_layers": 3,  # of six
        "l_max": 4,
        "num_features": [20, 6, 4, 2, 2],
        "type_embed_num_features": 2,
        "num_bessels": 8,
        "polynomial_cutoff_p": 5,
        "pair_potential": nequip_models.ZBL,
    },
    "Allegro-OAM-L": {
        "num_layers": 4,
        "l_max": 3,
        "num_scalar_features": 16,
        "num_tensor_features": 4,
        "tp_path_channel_coupling": True,
        "allegro_mlp_hidden_layers_depth": 2,
        "allegro_mlp_hidden_layers_width": 64,
        "readout_mlp_hidden_layers_depth": 1,
        "radial_chemical_embed_dim": 32,
        "scalar_embed_mlp_hidden_layers_width": 32,
    },
}
"""The hyperparameters that Matbench Discovery has of them (models/nequip, models/allegro), a sixteenth as wide."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architecture_of_the_published_models(name, directory):
    """Their weights are not here; random ones are."""
    pytest.importorskip("allegro", reason="'nequip-allegro' is not installed. Type: pip install nequip-allegro")
    kind = name.partition("-")[0].lower()
    path = nequip_models.write(kind, directory / f"{name}.ckpt", parity=False, **PUBLISHED[name])
    truth, wanted = evaluate(path, False, "float64")
    energies, gradients = evaluate(path, True, "float64")
    assert wanted.abs().max() > FORCE_SIGNAL
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=FUSED_FLOAT64)
    torch.testing.assert_close(energies, truth, rtol=0, atol=FUSED_FLOAT64)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("nequip")


@pytest.fixture(scope="module")
def source(directory):
    def source(name):
        path = directory / f"{re.sub('[^a-z]+', '-', name.lower())}.ckpt"
        if path.exists():
            return path
        if name == "allegro":
            pytest.importorskip("allegro", reason="'nequip-allegro' is not installed. Type: pip install nequip-allegro")
            return nequip_models.write("allegro", path, l_max=2)
        if name == "two layers":
            return nequip_models.write("nequip", path, num_layers=2, l_max=1, num_features=4)
        return nequip_models.write("nequip", path, **MODELS[name])

    return source


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.06, 0], [0, 0.97, 0.05], [0, 0, 1.02]]), scale_atoms=True)
    atoms.rattle(0.15, seed=5)
    atoms.symbols[3] = "Si"
    return atoms


def evaluate(source, fuse: bool, dtype: str, elements: tuple[str, ...] = (), atoms: Atoms | None = None):
    """Energies [n] and edge gradients [n_edges, 3], float64: of the fused model as TorchScript, of NequIP's own layers
    as they are (scripting those takes most of the time, and the exports below do it)."""
    atoms = atoms or salt()
    adapted = nequip.adapt(str(source), ExportOptions(fuse=fuse, elements=elements))
    with default_dtype(TORCH_DTYPE[dtype]), quiet():
        model = EdgeGradientModel(adapted.energy_model(TORCH_DTYPE[dtype])).eval()
        if fuse:
            model = adapted.scripted(model)
    pairs = NeighborList(cutoff=adapted.cutoff, full_list=True, sorted=True)
    i, j, vectors = pairs.compute(atoms.positions, atoms.cell.array, True, "ijD")
    types = torch.tensor([adapted.elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    edges = torch.tensor(np.stack([i, j]).astype(np.int64))
    energies, gradients = model(types, len(atoms), edges, torch.tensor(vectors, dtype=TORCH_DTYPE[dtype]))
    return energies.double(), gradients.double()


@pytest.mark.parametrize("name", [*MODELS, "allegro"])
def test_fused_is_the_same(name, source):
    truth, wanted = evaluate(source(name), False, "float64")
    assert wanted.abs().max() > FORCE_SIGNAL
    energies, gradients = evaluate(source(name), True, "float64")
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=FUSED_FLOAT64)
    torch.testing.assert_close(energies, truth, rtol=0, atol=FUSED_FLOAT64)

    plain_energies, plain = evaluate(source(name), False, "float32")
    energies, gradients = evaluate(source(name), True, "float32")
    assert (gradients - wanted).abs().max() <= 3 * (plain - wanted).abs().max()
    # Energies of eight atoms may happen to round well; the last digit of a float32 is noise all the same.
    last_digit = torch.finfo(torch.float32).eps * truth.abs().max()
    assert (energies - truth).abs().max() <= 3 * max((plain_energies - truth).abs().max(), last_digit)


def test_radial_networks_become_tables_unless_the_cutoff_depends_on_types(source):
    for name, wanted in (("even and odd irreps", True), ("cutoffs of pairs", False)):
        model = nequip.adapt(str(source(name)), ExportOptions()).energy_model(torch.float32)
        assert {layer.convolution.tabulated for layer in model.layers} == {wanted}


@pytest.mark.parametrize("fuse", [True, False])
def test_fewer_elements(fuse, source):
    name = "a norm of each type, ZBL"
    atoms = salt()
    atoms.symbols[atoms.symbols == "Na"] = "Si"  # the elements that are kept have other indices then
    whole = evaluate(source(name), fuse, "float64", (), atoms)
    part = evaluate(source(name), fuse, "float64", ("Si", "Cl"), atoms)
    for first, second in zip(whole, part, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=FLOAT64_SUM)


@pytest.mark.parametrize("more", [(), ("--no-fuse",)])
def test_pair_potential_in_every_engine(more, source, directory):
    """Two atoms where ZBL is all that counts, and the fixtures."""
    path = directory / f"zbl{''.join(more)}.mlip.pt"
    done = mlip("export", "nequip", source("a norm of each type, ZBL"), "-o", path, "--dtype", "float64", *more)
    assert done.returncode == 0, done.stderr
    report = check(path, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons]
    close = Atoms("NaCl", positions=[[0, 0, 0], [0.9, 0, 0]], calculator=MLIPCalculator(path))
    forces = close.get_forces()
    assert forces[1, 0] > 100.0
    original = nequip.adapt(str(source("a norm of each type, ZBL")), ExportOptions()).original
    np.testing.assert_allclose(forces, original.float64(close).forces, rtol=1e-12, atol=FLOAT64_SUM)
    fused = ["mlip::edge_harmonics", "mlip::edge_tensor_product", "mlip::equivariant_linear", "mlip::gate"]
    operators = fused * (not more) + ["mlip::ghost_gather"]
    assert list(Artifact(path).contract.operators) == operators


@pytest.mark.parametrize(
    ("name", "more"),
    [("even and odd irreps", []), ("two layers", ["--no-fuse", "--dtype", "float64"]), ("allegro", [])],
)
def test_compiled(source, directory, name, more):
    """The parity table of a file of the back end aotinductor."""
    path = directory / f"compiled-{name.replace(' ', '-')}.mlip.pt2"
    done = mlip("export", "nequip", source(name), "-o", path, "--backend", "aotinductor", *more)
    assert done.returncode == 0, done.stderr
    report = check(path, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons]


def test_a_layer_without_a_fused_form(directory):
    path = nequip_models.write("nequip", directory / "norm.ckpt", convnet_nonlinearity_type="norm")
    with pytest.raises(MLIPError, match=r"a layer has a NormActivation in place of a Gate\. .* add --no-fuse"):
        nequip.adapt(str(path), ExportOptions()).energy_model(torch.float64)


def test_a_residual_connection(directory):
    path = nequip_models.write("nequip", directory / "residual.ckpt", convnet_resnet=True, parity=False)
    with pytest.raises(MLIPError, match="layer1_convnet has a residual connection, which the adapter does not know"):
        nequip.adapt(str(path), ExportOptions())
