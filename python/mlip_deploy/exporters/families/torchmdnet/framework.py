"""TorchMD-Net's own model, on edges that are given to it.

Its neighbour list is a kernel of warp-lang for cells of twice the cutoff at least. The modules of the model are
imported without that package: they then use layers of torch's operators, which TorchMD-Net has for this case.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor, nn

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.empty_packages import EmptyPackages
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.result import Result, tensor_to_voigt

PACKAGES = EmptyPackages(
    "torchmdnet",
    stand_ins={"torchmdnet.extensions.ops": {"get_neighbor_pairs_kernel": None}, "torchmdnet.extensions.warp_ops": {}},
)


@contextlib.contextmanager
def torchmdnet() -> Iterator[None]:
    """While it is open, `torchmdnet` is its models alone."""
    with PACKAGES.in_place(), quiet():
        yield


def load_model(path: Path) -> Any:
    """TorchMD_Net of a checkpoint as TorchMD-Net reads it, which orders the weights of earlier versions anew.

    Raises:
        MLIPError: when TorchMD-Net cannot make the model.
    """
    with torchmdnet(), contextlib.redirect_stdout(None):
        try:
            model = importlib.import_module("torchmdnet.models.model").load_model(
                str(path), derivative=False, static_shapes=False
            )
        except ImportError:
            raise
        except Exception as error:
            raise MLIPError(f"'{path}': TorchMD-Net does not read it ({type(error).__name__}: {error})") from error
    return model.eval().requires_grad_(False)


class GivenEdges(nn.Module):
    """In the place of TorchMD-Net's neighbour list: edges that are given to it, and those of atoms with themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.edge_index, self.shifts = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3)

    def forward(self, positions: Tensor, batch: Tensor, box: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Edge index [2, n_edges], lengths and vectors from neighbours to centres, as TorchMD-Net's."""
        itself = torch.arange(len(positions)).expand(2, -1)
        centres, neighbours = self.edge_index
        vectors = positions[centres] - positions[neighbours] - self.shifts
        zeros = positions.new_zeros(len(positions), 3)
        lengths = torch.cat([torch.linalg.vector_norm(vectors, dim=1), zeros[:, 0]])
        return torch.cat([self.edge_index, itself], dim=1), lengths, torch.cat([vectors, zeros])


def original(
    build: Callable[[], Any], charge: int, unit: float, shifts: Tensor, dtype: torch.dtype
) -> Callable[[Atoms], Result]:
    """TorchMD-Net's own layers in `dtype`, on ASE's neighbours.

    The energies of the elements are added in float64: the noise of the original in float32 is then that of its layers.

    Args:
        build: makes the model without its prior.
        charge: of the system, e.
        unit: eV, of the model's energies.
        shifts: float64 eV, by atomic number.
    """
    model: Any = None

    def evaluate(atoms: Atoms) -> Result:
        nonlocal model
        if model is None:
            model = build().to(dtype)
            model.representation_model.distance = GivenEdges()
        edges = model.representation_model.distance
        repeated = _repeated(atoms, float(model.representation_model.cutoff_upper))
        i, j, shift = neighbor_list("ijS", repeated, float(model.representation_model.cutoff_upper))
        strain = torch.eye(3, dtype=dtype, requires_grad=True)
        positions = torch.tensor(repeated.positions, dtype=dtype, requires_grad=True)
        edges.edge_index = torch.stack([torch.tensor(i), torch.tensor(j)])
        edges.shifts = torch.tensor(shift @ repeated.cell.array, dtype=dtype) @ strain
        energies: list[Tensor] = []
        read_out = model.output_model.output_network.register_forward_hook(
            lambda module, inputs, output: energies.append(output.detach())
        )
        try:
            with default_dtype(dtype), quiet():  # that of a product with a charge
                total, _ = model(torch.tensor(repeated.numbers), positions @ strain, q=torch.tensor([charge]))
        finally:
            read_out.remove()
        gradient, virial = torch.autograd.grad(total.sum(), [positions, strain])
        n, n_cells = len(atoms), len(repeated) // len(atoms)
        of_elements = shifts[torch.tensor(atoms.numbers)]
        atomic_energies = (unit * float(model.std) * energies[0][:n, 0].double() + of_elements).numpy()
        tensor = unit * virial.double().numpy()
        return Result(
            energy=float(unit * total.detach().double() / n_cells + of_elements.sum()),
            atomic_energies=atomic_energies,
            forces=-unit * gradient[:n].double().numpy(),
            stress=tensor_to_voigt(tensor) / repeated.get_volume() if atoms.pbc.all() else None,
        )

    return evaluate


def _repeated(atoms: Atoms, cutoff: float) -> Atoms:
    """In cells as TorchMD-Net asks for, of twice the cutoff: it takes an edge to an atom's image for one to itself."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.complete().array), axis=0)
    repeats = np.where(atoms.pbc, np.ceil(2.0 * cutoff / heights), 1).astype(int)
    repeated: Atoms = atoms.repeat(repeats)
    return repeated
