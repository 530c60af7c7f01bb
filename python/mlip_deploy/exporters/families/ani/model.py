"""The layers of ANI: radial and angular symmetry functions of J. S. Smith, O. Isayev, A. E. Roitberg (Chem. Sci. 2017),
then a perceptron of the atom's element for each member of the ensemble.

The functions are TorchANI's `AEVComputer` on directed edges, in `mlip::symmetry_functions` or in torch's operators.
They are computed for the elements that are there, a few of the model's seven: the others' functions are zero, and the
first layers of the networks leave them out. Networks compute in the type of the edge vectors; the self energies,
thousands of electronvolts that no force sees, are added in float64, which a float32 sum would round to 1e-3 eV.
"""

import math
from typing import Any

import torch
from ase.units import Hartree
from torch import Tensor, nn

from mlip_deploy.exporters.layers.edge_pairs import pairs_of_edges
from mlip_deploy.operators import load_operators


class ANIEnergy(nn.Module):
    """Atomic energies in eV, float64 in either precision.

    Args:
        model: `torchani.arch.ANI` with cosine cutoffs, CELU networks and no further potential.
        species: the model's index of each kept element.
        dtype: of the networks and symmetry functions.
        fuse: whether the symmetry functions are mlip's operator, or torch's operators.
    """

    self_energies: Tensor

    def __init__(self, model: Any, species: list[int], dtype: torch.dtype, fuse: bool):
        super().__init__()
        computer = model.aev_computer
        self.hartree = float(Hartree)
        self.n_elements = len(species)
        self.functions = FusedSymmetryFunctions(computer) if fuse else SymmetryFunctions(computer, dtype)
        self.n_radial = int(computer.radial.num_feats)
        self.n_angular = int(computer.angular.num_feats)
        self.n_features = self.n_elements * self.n_radial + n_pairs(self.n_elements) * self.n_angular
        self.register_buffer("self_energies", model.energy_shifter.self_energies.double()[species] * Hartree)
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
        features, columns = self.symmetry_functions(node_types, n_owned, edge_index, edge_vectors)
        return self.mean_energies(features, columns, node_types[:n_owned])

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are the symmetry functions of all elements."""
        features, columns = self.symmetry_functions(node_types, n_owned, edge_index, edge_vectors)
        all_features = features.new_zeros([n_owned, self.n_features]).index_copy(1, columns, features.detach())
        return self.mean_energies(features, columns, node_types[:n_owned]), all_features

    @torch.jit.export
    def extras(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Standard deviation (with n - 1) of each atom's energy over the members [n_owned, 1], eV."""
        features, columns = self.symmetry_functions(node_types, n_owned, edge_index, edge_vectors)
        energies = self.members(features, columns, node_types[:n_owned]).to(torch.float64)
        return (energies.std(dim=0, unbiased=True) * self.hartree).unsqueeze(1)

    def mean_energies(self, features: Tensor, columns: Tensor, owned_types: Tensor) -> Tensor:
        """Atomic energies [n_owned] eV, with the arguments of `members`."""
        energies = self.members(features, columns, owned_types).mean(dim=0)
        return energies.to(torch.float64) * self.hartree + self.self_energies[owned_types]

    def members(self, features: Tensor, columns: Tensor, owned_types: Tensor) -> Tensor:
        """What each member's networks give for each owned atom [n_members, n_owned], hartree.

        Args:
            features, columns: as `symmetry_functions` returns them.
            owned_types: int64 [n_owned].
        """
        if features.shape[0] == 0:  # on a rank without atoms, whose backward pass runs too
            return features.sum(dim=1).unsqueeze(0).expand([self.n_members, 0])
        energies = features.new_zeros([self.n_members, features.shape[0]])
        for element, networks in enumerate(self.networks):
            atoms = torch.nonzero(owned_types == element).squeeze(1)
            if atoms.shape[0] > 0:
                of_atoms = networks(features.index_select(0, atoms), columns)
                energies = energies.index_copy(1, atoms, of_atoms)
        return energies

    def symmetry_functions(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Symmetry functions of owned atoms of the elements that nodes have.

        Returns:
            [n_owned, n], radial ones of each element, then angular ones of each pair of elements; and which of the
            model's functions they are, int64 [n].
        """
        present = torch.nonzero(torch.bincount(node_types, minlength=self.n_elements)).squeeze(1)
        n_present = present.shape[0]
        order = torch.arange(n_present, device=present.device)
        types = torch.zeros([self.n_elements], dtype=torch.int64, device=present.device)
        types = types.index_copy(0, present, order)[node_types]
        features = self.functions(types, n_owned, edge_index, edge_vectors, n_present)

        pairs = present[torch.triu_indices(n_present, n_present, device=present.device)]
        pairs = index_of_pair(pairs[0], pairs[1], self.n_elements)
        radial = present.unsqueeze(1) * self.n_radial + torch.arange(self.n_radial, device=present.device)
        angular = pairs.unsqueeze(1) * self.n_angular + torch.arange(self.n_angular, device=present.device)
        columns = torch.cat([radial.flatten(), angular.flatten() + self.n_elements * self.n_radial])
        return features, columns


def n_pairs(n_elements: int) -> int:
    """How many pairs n elements make, those of an element with itself included."""
    return n_elements * (n_elements + 1) // 2


def index_of_pair(first: Tensor, second: Tensor, n_elements: int) -> Tensor:
    """Which of (0, 0), (0, 1), ..., (1, 1), ... pairs of elements are, of which the first is not the larger one."""
    return torch.div(first * (2 * n_elements - first - 1), 2, rounding_mode="floor") + second


def _columns(computer: Any, species: list[int]) -> Tensor:
    """Which of TorchANI's symmetry functions those of the kept elements are, in the order of `index_of_pair`."""
    n_radial, n_angular = computer.radial.num_feats, computer.angular.num_feats
    kept = torch.tensor(species)
    first, second = torch.triu_indices(len(species), len(species))
    pairs = computer.triu_index[kept[first], kept[second]]
    radial = kept.unsqueeze(1) * n_radial + torch.arange(n_radial)
    angular = computer.radial_len + pairs.unsqueeze(1) * n_angular + torch.arange(n_angular)
    return torch.cat([radial.flatten(), angular.flatten()])


class FusedSymmetryFunctions(nn.Module):
    """TorchANI's AEVComputer in one operator, `mlip::symmetry_functions`."""

    def __init__(self, original: Any):
        super().__init__()
        load_operators()
        radial, angular = original.radial, original.angular
        self.radial_shifts: list[float] = radial.shifts.tolist()
        self.angular_shifts: list[float] = angular.shifts.tolist()
        self.sections: list[float] = angular.sections.tolist()
        constants = (radial.eta, radial.cutoff, angular.eta, angular.zeta, angular.cutoff)
        self.constants: list[float] = [float(one) for one in constants]

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, n_elements: int
    ) -> Tensor:
        """With the arguments and the result of `SymmetryFunctions.forward`."""
        features: Tensor = torch.ops.mlip.symmetry_functions(
            edge_vectors,
            node_types,
            edge_index,
            n_owned,
            n_elements,
            self.radial_shifts,
            self.angular_shifts,
            self.sections,
            self.constants,
        )
        return features


class SymmetryFunctions(nn.Module):
    """TorchANI's AEVComputer on directed edges, in torch's operators."""

    def __init__(self, original: Any, dtype: torch.dtype):
        super().__init__()
        self.radial = RadialFunctions(original.radial, dtype)
        self.angular = AngularFunctions(original.angular, dtype)

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor, n_elements: int
    ) -> Tensor:
        """
        Args:
            node_types: int64 [n_nodes], in [0, n_elements).
            n_owned, edge_index, edge_vectors: as in `EdgeGradientModel.forward`.

        Returns:
            [n_owned, n_features], radial functions of each element, then angular ones of each pair of elements.
        """
        centres, neighbour_types = edge_index[0], node_types[edge_index[1]]
        distances = torch.linalg.norm(edge_vectors, dim=1)
        radial = edge_vectors.new_zeros([n_owned * n_elements, self.radial.n_functions])
        radial = radial.index_add(0, centres * n_elements + neighbour_types, self.radial(distances))

        short = torch.nonzero(distances < self.angular.cutoff).squeeze(1)
        centres, neighbour_types, distances = centres[short], neighbour_types[short], distances[short]
        first, second = pairs_of_edges(centres, centres, n_owned)
        once = torch.nonzero(first < second).squeeze(1)
        first, second = first[once], second[once]
        a, b = neighbour_types[first], neighbour_types[second]
        pairs = index_of_pair(torch.minimum(a, b), torch.maximum(a, b), n_elements)
        angular = edge_vectors.new_zeros([n_owned * n_pairs(n_elements), self.angular.n_functions])
        angular = angular.index_add(
            0,
            centres[first] * n_pairs(n_elements) + pairs,
            self.angular(edge_vectors[short], distances, first, second),
        )
        return torch.cat(
            [
                radial.reshape([n_owned, n_elements * self.radial.n_functions]),
                angular.reshape([n_owned, n_pairs(n_elements) * self.angular.n_functions]),
            ],
            dim=1,
        )


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
        columns: which of the first layer's inputs can be given.
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

    def forward(self, features: Tensor, columns: Tensor) -> Tensor:
        """[n_atoms, n] to [n_members, n_atoms], hartree; n of the inputs, which `columns` [n] tell."""
        weight = self.weight
        if columns.shape[0] < weight.shape[0]:
            weight = weight.index_select(0, columns)
        x = torch.addmm(self.bias, features, weight)
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
