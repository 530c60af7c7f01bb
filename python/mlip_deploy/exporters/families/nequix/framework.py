"""nequix's own model in PyTorch, without JAX.

`import nequix` imports JAX, and `nequix.torch_impl` changes settings of torch and e3nn for the whole process. The
modules that hold the model need neither: they are imported behind empty packages of the same names.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlip_deploy.exporters.empty_packages import EmptyPackages
from mlip_deploy.exporters.families.nequix.checkpoint import Checkpoint, load_weights
from mlip_deploy.exporters.settings import default_dtype

PACKAGES = EmptyPackages("nequix", "nequix.torch_impl")


@cache
def model_class() -> Any:
    """`nequix.torch_impl.model.NequixTorch`."""
    with PACKAGES.in_place():
        return importlib.import_module("nequix.torch_impl.model").NequixTorch


def build_model(checkpoint: Checkpoint, path: Path, dtype: torch.dtype) -> Any:
    """nequix's model with a checkpoint's weights, all its constants made in `dtype`.

    Raises:
        MLIPError: when the weights do not fit the settings.
    """
    settings = dict(checkpoint.settings)
    numbers = settings.pop("atomic_numbers")
    energies = settings.pop("atom_energies")
    with default_dtype(dtype):
        model = model_class()(
            n_species=len(numbers), atom_energies=[float(energies[str(number)]) for number in numbers], **settings
        )
    load_weights(model, checkpoint, path)
    return model.to(dtype).eval().requires_grad_(False)


def evaluate(
    model: Any, species: Tensor, positions: Tensor, cell: Tensor, shifts: Tensor, edge_index: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Atomic energies [n_atoms] eV, forces [n_atoms, 3] eV/Å and stress [3, 3] eV/Å³ by nequix's own derivative.

    Args:
        species: int64 [n_atoms].
        positions: float64 [n_atoms, 3], Å.
        cell: float64 [3, 3], rows are vectors, Å; of a finite volume.
        shifts: [n_edges, 3], cell vectors from the centre's to the neighbour's image.
        edge_index: int64 [2, n_edges], centre and neighbour.
    """
    with default_dtype(dtype):
        energies, forces, stress = model(
            species,
            positions.to(dtype),
            shifts.to(dtype),
            edge_index.flip(0),  # nequix has the sender, the neighbour, first
            cell.to(dtype).unsqueeze(0),
            torch.tensor([len(species)]),
            torch.tensor([edge_index.shape[1]]),
            torch.zeros(len(species), dtype=torch.int64),
        )
    return energies.detach(), forces.detach(), stress.detach()[0]
