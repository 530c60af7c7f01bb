"""SevenNet's packaged models on fused operators against the same models on SevenNet's own layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

pytest.importorskip("sevenn")
from vesin import NeighborList

from mlip_deploy.artifact.format import versions_of
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.exporters.families.registry import ExportOptions
from mlip_deploy.exporters.families.sevennet import adapter as sevennet
from mlip_deploy.exporters.interface import TORCH_DTYPE, Adapted, EdgeGradientModel
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.operators import load_operators

load_operators()

FLOAT64_GRADIENT = 1e-9  # eV/Å
TABLE = FLOAT64.forces  # eV/Å, and eV: what radial_table promises of its tables in float64
LEAST_GRADIENT = 0.1  # eV/Å: below it a comparison would show nothing

# 7net-mf-0 differs from 7net-0 by its modality alone: test_sevennet_family.py has it.
MODELS = ["7net-0", "7net-l3i5"]


def structure(name: str) -> Atoms:
    random = np.random.default_rng(5)
    if name == "salt":
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
        atoms.set_cell(atoms.cell.array @ np.array([[1, 0.06, 0], [0, 0.97, 0.05], [0, 0, 1.02]]), scale_atoms=True)
        amplitude = 0.15
    else:
        atoms, amplitude = molecule("CH3CH2OH", vacuum=4.0), 0.05
    atoms.positions += random.normal(scale=amplitude, size=atoms.positions.shape)
    return atoms


def evaluate(model: torch.nn.Module, dtype: torch.dtype, atoms: Atoms, elements: list[str], cutoff: float):
    """Energies [n] and edge gradients [n_edges, 3], float64."""
    pairs = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    i, j, vectors = pairs.compute(atoms.positions, atoms.cell.array, bool(atoms.pbc.any()), "ijD")
    types = torch.tensor([elements.index(symbol) for symbol in atoms.get_chemical_symbols()])
    edges = torch.tensor(np.stack([i, j]).astype(np.int64))
    energies, gradients = model(types, len(atoms), edges, torch.tensor(vectors, dtype=dtype))
    return energies.double(), gradients.double()


def gradient_model(adapted: Adapted, dtype: str) -> torch.nn.Module:
    # SevenNet's own layers give the same numbers without TorchScript, which compiles them for a minute.
    with default_dtype(TORCH_DTYPE[dtype]), quiet(), sevennet.interpreted():
        return EdgeGradientModel(adapted.energy_model(TORCH_DTYPE[dtype])).eval()


@pytest.fixture(scope="module", params=MODELS)
def models(request):
    built = {}
    for fuse in (True, False):
        adapted = sevennet.adapt(request.param, ExportOptions(fuse=fuse))
        for dtype in ("float64", "float32"):
            built[fuse, dtype] = gradient_model(adapted, dtype)
    tabulated = sevennet.adapt(request.param, ExportOptions(radial="table"))
    built["table"] = gradient_model(tabulated, "float64")
    return built, adapted.elements, adapted.cutoff


@pytest.mark.parametrize("radial", ["exact", "table"])
@pytest.mark.parametrize("name", ["salt", "ethanol"])
def test_float64_is_the_same(models, name: str, radial: str) -> None:
    built, elements, cutoff = models
    atoms = structure(name)
    fused = built["table"] if radial == "table" else built[True, "float64"]
    assert any(layer.convolution.tabulated for layer in fused.energy_model.layers) == (radial == "table")
    energies, gradients = evaluate(fused, torch.float64, atoms, elements, cutoff)
    truth, wanted = evaluate(built[False, "float64"], torch.float64, atoms, elements, cutoff)
    assert wanted.abs().max() > LEAST_GRADIENT
    bound = FLOAT64_GRADIENT if radial == "exact" else TABLE
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=bound)
    torch.testing.assert_close(energies, truth, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["salt", "ethanol"])
def test_float32_is_within_three_times_the_noise_of_the_plain_file(models, name: str) -> None:
    built, elements, cutoff = models
    atoms = structure(name)
    truth, wanted = evaluate(built[False, "float64"], torch.float64, atoms, elements, cutoff)
    plain_energies, plain = evaluate(built[False, "float32"], torch.float32, atoms, elements, cutoff)
    energies, gradients = evaluate(built[True, "float32"], torch.float32, atoms, elements, cutoff)
    assert wanted.abs().max() > LEAST_GRADIENT
    assert (gradients - wanted).abs().max() <= 3 * (plain - wanted).abs().max()
    # Energies of eight atoms may happen to round well; the last digit of a float32 is noise all the same.
    last_digit = torch.finfo(torch.float32).eps * truth.abs().max()
    assert (energies - truth).abs().max() <= 3 * max((plain_energies - truth).abs().max(), last_digit)


def test_contract_names_the_operators(artifacts) -> None:
    checkpoint = str(artifacts.checkpoint())
    fused = Artifact(artifacts.export(checkpoint, "float64")).contract.operators
    plain = Artifact(artifacts.export(checkpoint, "float64", "--no-fuse", name="tiny-plain")).contract.operators
    called = ["edge_harmonics", "edge_tensor_product", "equivariant_linear", "gate", "ghost_gather"]
    assert fused == versions_of([f"mlip::{name}" for name in called])
    assert plain == versions_of(["mlip::ghost_gather"])
