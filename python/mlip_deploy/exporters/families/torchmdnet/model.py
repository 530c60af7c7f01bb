"""TorchMD-Net's TensorNet behind the model interface: radial basis and read-out around the layers that are shared."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.tensornet import Form, TensorNetNorms


class TensorNetEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV, float64 in either precision.

    Args:
        model: `torchmdnet.models.model.TorchMD_Net` of a TensorNet, in the type to compute in.
        in_float64: its TensorNet in float64, to make tables of its radial networks; None to evaluate them.
        numbers: atomic number of each of the artifact's elements.
        charge: of the system, e.
        unit: eV, of the model's energies.
        shifts: float64 [n_elements] eV, energies of the artifact's elements to add.
        fuse: whether to use mlip's operators, or torch's alone.
    """

    shifts: Tensor

    def __init__(
        self,
        model: Any,
        in_float64: Any | None,
        numbers: list[int],
        charge: int,
        unit: float,
        shifts: Tensor,
        fuse: bool,
    ):
        super().__init__()
        tensornet = model.representation_model
        form = Form(
            basis=lambda model: copy.deepcopy(model.distance_expansion),
            part_by_part=lambda linear: linear,
            cutoff=float(tensornet.cutoff_upper),
            own_neighbour=True,
            factor=1.0 + 0.1 * charge,
        )
        self.norms = TensorNetNorms(tensornet, in_float64, numbers, form, fuse)
        self.norm, self.linear, self.activation = tensornet.out_norm, tensornet.linear, tensornet.act
        self.readout = model.output_model.output_network.layers
        self.unit = unit * float(model.std)
        self.register_buffer("shifts", shifts)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are those of the atoms before the last perceptron."""
        # TorchMD-Net's edges point from the neighbour to the centre.
        norms = self.norms(node_types, n_owned, edge_index, -edge_vectors)
        features: Tensor = self.activation(self.linear(self.norm(norms)))
        energies = self.readout(features).squeeze(1).to(torch.float64) * self.unit
        return energies + self.shifts[node_types[:n_owned]], features
