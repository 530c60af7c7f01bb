"""MatGL's TensorNet behind the model interface: its radial basis and its read-out around the layers that are shared."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.dense import linear_layer
from mlip_deploy.exporters.layers.tensornet import Form, TensorNetNorms


class TensorNetEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV, float64 in either precision.

    Args:
        model: `matgl.models.TensorNet`, extensive, in the type to compute in.
        in_float64, species, fuse: see TensorNetNorms.
        scale: eV, the unit of what the model reads out.
        shifts: float64 [n_elements] eV, energies of the artifact's elements to add.
    """

    shifts: Tensor

    def __init__(
        self, model: Any, in_float64: Any | None, species: list[int], scale: float, shifts: Tensor, fuse: bool
    ):
        super().__init__()
        self.scale = scale
        self.register_buffer("shifts", shifts)
        form = Form(lambda model: radial_basis(model.bond_expansion), _part_by_part, float(model.cutoff))
        self.norms = TensorNetNorms(model, in_float64, species, form, fuse)
        self.norm, self.linear, self.readout = model.out_norm, model.linear, model.final_layer.gated

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are those of the atoms before the last perceptron."""
        norms = self.norms(node_types, n_owned, edge_index, edge_vectors)
        features: Tensor = self.linear(self.norm(norms))
        energies = self.readout(features).squeeze(1).to(torch.float64) * self.scale
        return energies + self.shifts[node_types[:n_owned]], features


def radial_basis(original: Any) -> nn.Module:
    """MatGL's BondExpansion by smooth spherical Bessel functions or by Gaussians."""
    if original.rbf_type == "Gaussian":
        return Gaussians(original.rbf)
    dtype = original.rbf.cutoff.dtype
    return SmoothBessel(float(original.cutoff), int(original.max_n), dtype)


class Gaussians(nn.Module):
    """Distances [n] Å -> [n, n_functions]."""

    centers: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.register_buffer("centers", original.centers.detach().clone())
        self.width = float(original.width)

    def forward(self, distances: Tensor) -> Tensor:
        return torch.exp(-self.width * (distances.unsqueeze(1) - self.centers) ** 2)


class SmoothBessel(nn.Module):
    """Distances [n] Å -> [n, n_functions], which vanish with two derivatives at the cutoff.

    Each function is a sum of sin(kπr/r_max) / r with k up to n_functions + 1.
    """

    frequencies: Tensor
    coefficients: Tensor

    def __init__(self, cutoff: float, n: int, dtype: torch.dtype):
        super().__init__()
        frequencies = torch.arange(1, n + 2, dtype=torch.float64) * (math.pi / cutoff)
        columns: list[Tensor] = []
        d = 1.0
        for i in range(n):
            factor = (-1) ** i * math.sqrt(2.0) * math.pi / cutoff**1.5 * (i + 1) * (i + 2) / math.hypot(i + 1, i + 2)
            column = torch.zeros(n + 1, dtype=torch.float64)
            column[i : i + 2] = factor / frequencies[i : i + 2]
            if i > 0:  # made orthogonal to those before
                e = i**2 * (i + 2) ** 2 / (4 * (i + 1) ** 4 + 1)
                previous, d = d, 1.0 - e / d
                column = (column + math.sqrt(e / previous) * columns[-1]) / math.sqrt(d)
            columns.append(column)
        self.register_buffer("frequencies", frequencies.to(dtype))
        self.register_buffer("coefficients", torch.stack(columns, dim=1).to(dtype))

    def forward(self, distances: Tensor) -> Tensor:
        r = distances.unsqueeze(1)
        return torch.mm(torch.sin(r * self.frequencies) / r, self.coefficients)


def _part_by_part(linear: nn.Linear) -> nn.Linear:
    """MatGL's linear layer to [channels, 3] values as one to [3, channels]."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    return linear_layer(weight.view(-1, 3, weight.shape[1]).transpose(0, 1).flatten(0, 1), bias.view(-1, 3).T.flatten())
