"""The layers of ANI: radial and angular symmetry functions of J. S. Smith, O. Isayev, A. E. Roitberg (Chem. Sci. 2017),
then a perceptron of the atom's element for each member of the ensemble.

The functions are TorchANI's `AEVComputer` on directed edges. Networks compute in the type of the edge vectors; the
self energies, thousands of electronvolts that no force sees, are added in float64, which a float32 sum would round to
1e-3 eV.
"""

import math
from typing import Any

import torch
from ase.units import Hartree
from torch import Tensor, nn

from mlip_deploy.exporters.layers.edge_pairs import pairs_of_edges


class ANIEnergy(nn.Module):
    """Atomic energies in eV, float64 in either precision.

    Args:
        model: `torchani.arch.ANI` with cosine cutoffs, CELU networks and no further potential.
        species: the model's index of each kept element.
        dtype: of the networks and symmetry functions.
    """

    self_energies: Tensor
    pair_index: Tensor

    def __init__(self, model: Any, species: list[int], dtype: torch.dtype):
        super().__init__()
        computer = model.aev_computer
        n = len(species)
        self.hartree = float(Hartree)
        self.n_elements = n
        self.n_pairs = n * (n + 1) // 2
        self.radial = RadialFunctions(computer.radial, dtype)
        self.angular = AngularFunctions(computer.angular, dtype)
        self.register_buffer("self_energies", model.energy_shifter.self_energies.double()[species] * Hartree)
        first, second = torch.triu_indices(n, n)
        pair_index = torch.zeros(n, n, dtype=torch.int64)
        pair_index[first, second] = pair_index[second, first] = torch.arange(self.n_pairs)
        self.register_buffer("pair_index", pair_index)
        networks = model.neural_networks
        members = list(getattr(networks, "members", [networks]))
        columns = _columns(computer, species)
        self.networks = nn.ModuleList(
            [
                ElementNetworks([member.atomics[model.symbols[element]] for member in members], columns, dtype)
                for element in species
            ]
        )
        self.n_members = len(members)

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Atomic energies [n_owned] eV, with the arguments of `EdgeGradientModel.forward`."""
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the symmetry functions."""
        owned_types = node_types[:n_owned]
        features = self.symmetry_functions(node_types, n_owned, edge_index, edge_vectors)
        energies = self.members(features, owned_types).mean(dim=0)
        return energies.to(torch.float64) * self.hartree + self.self_energies[owned_types], features

    @torch.jit.export
    def extras(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Standard deviation (with n - 1) of each atom's energy over the members [n_owned, 1], eV."""
        features = self.symmetry_functions(node_types, n_owned, edge_index, edge_vectors)
        energies = self.members(features, node_types[:n_owned]).to(torch.float64)
        return (energies.std(dim=0, unbiased=True) * self.hartree).unsqueeze(1)

    def members(self, features: Tensor, owned_types: Tensor) -> Tensor:
        """What each member's networks give for each owned atom [n_members, n_owned], hartree."""
        energies = features.new_zeros([self.n_members, features.shape[0]])
        for element, networks in enumerate(self.networks):
            atoms = torch.nonzero(owned_types == element).squeeze(1)
            energies = energies.index_copy(1, atoms, networks(features.index_select(0, atoms)))
        return energies

    def symmetry_functions(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Symmetry functions of owned atoms [n_owned, n_features]: radial ones of each element, then angular ones of
        each pair of elements."""
        centres, neighbour_types = edge_index[0], node_types[edge_index[1]]
        distances = torch.linalg.norm(edge_vectors, dim=1)
        radial = edge_vectors.new_zeros([n_owned * self.n_elements, self.radial.n_functions])
        radial = radial.index_add(0, centres * self.n_elements + neighbour_types, self.radial(distances))

        short = torch.nonzero(distances < self.angular.cutoff).squeeze(1)
        centres, neighbour_types, distances = centres[short], neighbour_types[short], distances[short]
        first, second = pairs_of_edges(centres, centres, n_owned)
        once = torch.nonzero(first < second).squeeze(1)
        first, second = first[once], second[once]
        pairs = self.pair_index[neighbour_types[first], neighbour_types[second]]
        angular = edge_vectors.new_zeros([n_owned * self.n_pairs, self.angular.n_functions])
        angular = angular.index_add(
            0, centres[first] * self.n_pairs + pairs, self.angular(edge_vectors[short], distances, first, second)
        )
        return torch.cat(
            [
                radial.reshape([n_owned, self.n_elements * self.radial.n_functions]),
                angular.reshape([n_owned, self.n_pairs * self.angular.n_functions]),
            ],
            dim=1,
        )


def _columns(computer: Any, species: list[int]) -> Tensor:
    """Which of TorchANI's symmetry functions `ANIEnergy.symmetry_functions` computes, in its order."""
    n_radial, n_angular = computer.radial.num_feats, computer.angular.num_feats
    kept = torch.tensor(species)
    first, second = torch.triu_indices(len(species), len(species))
    pairs = computer.triu_index[kept[first], kept[second]]
    radial = kept.unsqueeze(1) * n_radial + torch.arange(n_radial)
    angular = computer.radial_len + pairs.unsqueeze(1) * n_angular + torch.arange(n_angular)
    return torch.cat([radial.flatten(), angular.flatten()])


class RadialFunctions(nn.Module):
    """TorchANI's ANIRadial: Gaussians of the distance."""

    shifts: Tensor

    def __init__(self, original: Any, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("shifts", original.shifts.to(dtype))
        self.eta = float(original.eta)
        self.cutoff = float(original.cutoff)
        self.n_functions = int(original.num_feats)

    def forward(self, distances: Tensor) -> Tensor:
        gaussians = torch.exp(-self.eta * (distances.unsqueeze(1) - self.shifts) ** 2)
        return 0.25 * gaussians * cosine_cutoff(distances, self.cutoff).unsqueeze(1)


class AngularFunctions(nn.Module):
    """TorchANI's ANIAngular: functions of the angle between two edges and of their mean length."""

    shifts: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, original: Any, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("shifts", original.shifts.to(dtype))
        sections = original.sections.double()
        self.register_buffer("cosines", torch.cos(sections).to(dtype))
        self.register_buffer("sines", torch.sin(sections).to(dtype))
        self.eta = float(original.eta)
        self.zeta = float(original.zeta)
        self.cutoff = float(original.cutoff)
        self.n_functions = int(original.num_feats)

    def forward(self, vectors: Tensor, distances: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """
        Args:
            vectors, distances: of edges shorter than the cutoff [n_edges, 3] and [n_edges], Å.
            first, second: two edges of each angle [n_angles].

        Returns:
            [n_angles, n_functions].
        """
        directions = vectors / distances.unsqueeze(1)
        # TorchANI takes the angle of 0.95 times its cosine, which keeps the derivative finite. The cosine of that
        # angle less a section follows from both sines and cosines.
        cosine = 0.95 * (directions[first] * directions[second]).sum(dim=1, keepdim=True)
        deviation = cosine * self.cosines + torch.sqrt(1.0 - cosine * cosine) * self.sines
        angular = 2.0 * (0.5 + 0.5 * deviation) ** self.zeta
        mean = 0.5 * (distances[first] + distances[second]).unsqueeze(1)
        cutoffs = cosine_cutoff(distances, self.cutoff)
        radial = torch.exp(-self.eta * (mean - self.shifts) ** 2) * (cutoffs[first] * cutoffs[second]).unsqueeze(1)
        return (radial.unsqueeze(2) * angular.unsqueeze(1)).flatten(1)


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """1 at zero, 0 with a zero slope at the cutoff; for distances below it."""
    return 0.5 * torch.cos(distances * (math.pi / cutoff)) + 0.5


class ElementNetworks(nn.Module):
    """The perceptrons of one element, of all members at once.

    Args:
        networks: TorchANI's AtomicNetwork of each member.
        columns: which of the first layer's inputs are given.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, networks: list[Any], columns: Tensor, dtype: torch.dtype):
        super().__init__()
        first = [network.layers[0] for network in networks]
        # All members read the same features: their first layers are one matrix.
        weights = [layer.weight.detach()[:, columns] for layer in first]
        self.register_buffer("weight", torch.cat(weights).to(dtype).t().contiguous())
        self.register_buffer("bias", torch.cat([layer.bias.detach() for layer in first]).to(dtype))
        self.n_members = len(networks)
        self.width = int(first[0].out_features)
        deeper = [[*network.layers[1:], network.final_layer] for network in networks]
        self.layers = nn.ModuleList([MemberLinear(list(layers), dtype) for layers in zip(*deeper, strict=True)])

    def forward(self, features: Tensor) -> Tensor:
        """[n_atoms, n_features] to [n_members, n_atoms], hartree."""
        x = torch.addmm(self.bias, features, self.weight)
        x = x.reshape([features.shape[0], self.n_members, self.width]).transpose(0, 1)
        for layer in self.layers:
            x = layer(torch.celu(x, alpha=0.1))
        return x.squeeze(2)


class MemberLinear(nn.Module):
    """A linear layer for each member: [n_members, n_atoms, channels in] to [n_members, n_atoms, channels out]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layers: list[Any], dtype: torch.dtype):
        super().__init__()
        self.register_buffer("weight", torch.stack([layer.weight.detach().t() for layer in layers]).to(dtype))
        self.register_buffer("bias", torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)
