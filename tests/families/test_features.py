"""Features of atoms: what the original framework hands to its read-out, with and without fused operators.

SevenNet's are in tests/engines/test_grades.py, MACE's in test_mace.py.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from tolerances import FEATURES_FLOAT64

from mlip_deploy.exporters.families.registry import ExportOptions
from mlip_deploy.exporters.interface import Adapted
from mlip_deploy.exporters.parts import graph
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.operators import load_operators

load_operators()


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.06, 0], [0, 0.97, 0.05], [0, 0, 1.02]]), scale_atoms=True)
    atoms.rattle(0.15, seed=5)
    return atoms


def features_of(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    with default_dtype(torch.float64), quiet():
        model = adapted.energy_model(torch.float64).eval()
    return model.energies_and_features(*_arguments(adapted, atoms))[1].detach().numpy()


def _arguments(adapted: Adapted, atoms: Atoms):
    types, edges, vectors = graph(atoms, adapted.elements, adapted.cutoff, torch.float64)
    return types, len(atoms), edges, vectors


def given_to(read_out: Callable[[torch.nn.Module], bool], adapted: Adapted, atoms: Atoms):
    """The last input of a module of the original framework, as it was when it was called."""
    seen: list[object] = []

    def note(module: torch.nn.Module, arguments: tuple[object, ...]) -> None:
        if read_out(module):
            first = arguments[0]
            seen[:] = [dict(first) if isinstance(first, dict) else first]

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        adapted.original.float64(atoms)
    finally:
        hook.remove()
    return seen[0]


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(float)


def of_chgnet(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    def read_out(module: torch.nn.Module) -> bool:
        return type(module).__name__ == "MLP" and module.layers[-1].out_features == 1

    return numpy(given_to(read_out, adapted, atoms))


def of_nequip(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    data = given_to(lambda module: type(module).__name__ == "ScalarMLP", adapted, atoms)
    return numpy(data["node_features"])


def of_allegro(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    data = given_to(lambda module: type(module).__name__ == "ScalarMLP", adapted, atoms)
    of_edges, sums = numpy(data["edge_features"]), np.zeros((len(atoms), data["edge_features"].shape[1]))
    np.add.at(sums, numpy(data["edge_index"])[0].astype(int), of_edges)
    return sums


def of_nequix(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    def read_out(module: torch.nn.Module) -> bool:
        return type(module).__name__ == "Linear" and str(getattr(module, "irreps_out", "")) == "1x0e"

    return numpy(given_to(read_out, adapted, atoms))


def of_mattersim(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    def read_out(module: torch.nn.Module) -> bool:
        return type(module).__name__ == "GatedMLP" and module.g[-1].linear.out_features == 1

    return numpy(given_to(read_out, adapted, atoms))


def of_fairchem(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    def read_out(module: torch.nn.Module) -> bool:
        return type(module).__name__ == "Sequential" and getattr(module[-1], "out_features", 0) == 1

    return numpy(given_to(read_out, adapted, atoms))


def of_matgl(adapted: Adapted, atoms: Atoms) -> np.ndarray:
    def read_out(module: torch.nn.Module) -> bool:
        return type(module).__name__ == "GatedMLP" and module.layers[-1].out_features == 1

    return numpy(given_to(read_out, adapted, atoms))


FAMILIES = {
    "chgnet": ("chgnet", "models", "tiny_chgnet_checkpoint", "tiny.pth.tar", of_chgnet),
    "nequip": ("nequip", "nequip_models", "nequip", "tiny.ckpt", of_nequip),
    "allegro": ("nequip", "nequip_models", "allegro", "tiny.ckpt", of_allegro),
    "nequix": ("nequix", "models", "tiny_nequix_checkpoint", "tiny.pt", of_nequix),
    "mattersim": ("mattersim", "models", "mattersim_checkpoint", "tiny.pth", of_mattersim),
    "fairchem": ("fairchem", "models", "tiny_fairchem_checkpoint", "tiny.pt", of_fairchem),
    "matgl": ("matgl", "models", "matgl_potential", "tiny", of_matgl),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """Adapted with own layers and fused, and the original's features."""
    name, models, make, file, truth = FAMILIES[request.param]
    if not find_spec(request.param):  # and no import: nequix's needs JAX, its adapter does not
        pytest.skip(f"'{request.param}' is not installed")
    source = tmp_path_factory.mktemp(request.param) / file
    if models == "models":
        getattr(import_module(models), make)(source)
    else:
        import_module(models).write(make, source)
    adapter = import_module(f"mlip_deploy.exporters.families.{name}.adapter")
    options = [ExportOptions(fuse=fuse, trust_checkpoint=True) for fuse in (False, True)]
    return [adapter.adapt(str(source), one) for one in options], truth


def test_features_are_what_the_read_out_is_given(family):
    (own_layers, fused), truth = family
    expected = truth(own_layers, salt())
    assert np.ptp(expected, axis=0).max() > 1e-2  # atoms differ
    for adapted in (own_layers, fused):
        np.testing.assert_allclose(features_of(adapted, salt()), expected, atol=FEATURES_FLOAT64, rtol=FEATURES_FLOAT64)
