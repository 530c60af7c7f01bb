"""CHGNet's network behind the model interface: its graph, made from the edge list, and its layers on that graph.

CHGNet has features of atoms, of undirected bonds (pairs within the atom cutoff, 6 Å) and of angles between short bonds
(within the bond cutoff, 3 Å). Here a bond's features stand on both of its directed edges, which compute the same from
the same numbers; only where both ends of a short bond contribute, an edge looks at its reverse.

Numbers are the checkpoint's own. The first matrix of each gated perceptron acts on concatenated features of atoms,
bonds and angles; it is cut into one matrix per part, so that atoms and bonds are multiplied once each and not once per
edge or angle.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.layers.dense import linear_layer
from mlip_deploy.exporters.layers.edge_pairs import hops, pairs_of_edges, reverse_edges


class CHGNetEnergy(nn.Module):
    """Atomic energies of owned atoms from edge vectors, in eV.

    Args:
        model: CHGNet in the type to compute in.
        numbers: atomic number of each type index.

    Raises:
        MLIPError: for layers that the published models do not have.
    """

    embedding: Tensor
    reference_energies: Tensor

    def __init__(self, model: Any, numbers: list[int]):
        super().__init__()
        _check_architecture(model)
        rows = torch.tensor(numbers) - 1  # hydrogen is row 0
        weight = model.atom_embedding.embedding.weight.detach()
        self.register_buffer("embedding", weight[rows].clone())
        self.register_buffer("reference_energies", model.composition_model.fc.weight.detach()[0, rows].to(weight))
        encoder = model.bond_basis_expansion
        self.radial, self.short_radial = RadialBasis(encoder.rbf_expansion_ag), RadialBasis(encoder.rbf_expansion_bg)
        self.bond_embedding, self.angle_embedding = model.bond_embedding, model.angle_embedding
        self.bond_weights, self.short_bond_weights = model.bond_weights_ag, model.bond_weights_bg
        self.angular = AngularBasis(model.angle_basis_expansion.fourier_expansion)
        self.bond_cutoff = float(model.graph_converter.bond_graph_cutoff)
        self.n_layers = int(model.n_conv)
        self.layers = nn.ModuleList(
            [
                CHGNetLayer(atom, bond, angle)
                for atom, bond, angle in zip(
                    model.atom_conv_layers[:-1], model.bond_conv_layers, model.angle_layers, strict=True
                )
            ]
        )
        self.last_layer = AtomConvolution(model.atom_conv_layers[-1])
        self.readout_norm = nn.Identity() if model.readout_norm is None else model.readout_norm
        self.readout = nn.Sequential(*_without_dropout(model.mlp))
        self.site_wise = model.site_wise

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]
        return energies

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features are those of the atoms after the last layer, with the read-out's norm."""
        x, bonds, weights, remaining = self.before_last(node_types, n_owned, edge_index, edge_vectors)
        x = self.last_layer(x, bonds, weights, edge_index, remaining, 0)[:n_owned]
        features: Tensor = self.readout_norm(x)
        energies: Tensor = self.readout(features).squeeze(1)
        return energies + self.reference_energies[node_types[:n_owned]], features

    @torch.jit.export
    def extras(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        """Absolute magnetic moments of owned atoms [n_owned, 1], μB."""
        x = self.before_last(node_types, n_owned, edge_index, edge_vectors)[0]
        moments: Tensor = self.site_wise(x[:n_owned]).abs()
        return moments

    def before_last(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of nodes and edges before the last layer, weights of edges, and `hops` of the edges' centres."""
        centres, neighbours = edge_index[0], edge_index[1]
        n_nodes = node_types.shape[0]
        distances = torch.linalg.norm(edge_vectors, dim=1)
        basis = self.radial(distances)
        bonds, weights = self.bond_embedding(basis), self.bond_weights(basis)

        short = torch.nonzero(distances < self.bond_cutoff).squeeze(1)
        short_centres, short_neighbours = centres[short], neighbours[short]
        reverse = reverse_edges(short_centres, short_neighbours, edge_vectors[short].detach(), n_nodes)
        short_weights = self.short_bond_weights(self.short_radial(distances[short]))
        first, second = pairs_of_edges(short_centres, short_centres, n_nodes)
        first, second = first[first != second], second[first != second]
        directions = edge_vectors[short] / distances[short].unsqueeze(1)
        angles = self.angle_embedding(
            self.angular(directions.index_select(0, first), directions.index_select(0, second))
        )

        # With ghosts, what layer t computes is right, and needed, for atoms within n_layers - 1 - t hops of an owned
        # atom; nodes further out are left as they are.
        node_hops = hops(n_owned, n_nodes, centres, neighbours, self.n_layers)
        edge_hops = node_hops[centres]
        x = self.embedding[node_types]
        short_bonds = bonds[short]
        for t, layer in enumerate(self.layers):
            reach = self.n_layers - 1 - t
            if n_nodes > n_owned:
                kept = node_hops[short_centres[first]] <= reach
                first, second, angles = first[kept], second[kept], angles[kept]
            vertices = short_centres[first]
            x, bonds, short_bonds, angles = layer(
                x, bonds, weights, edge_index, edge_hops, reach,
                short, short_bonds, short_weights, reverse, angles, first, second, vertices,
            )  # fmt: skip
        return x, bonds, weights, edge_hops


class RadialBasis(nn.Module):
    """Bessel functions times a polynomial that vanishes at the cutoff: CHGNet's RadialBessel."""

    frequencies: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.register_buffer("frequencies", original.frequencies.detach().clone())
        self.inverse_cutoff: float = original.inv_cutoff
        self.norm: float = original.norm_const
        envelope = original.smooth_cutoff
        self.power = int(envelope.p)
        self.a, self.b, self.c = float(envelope.a), float(envelope.b), float(envelope.c)

    def forward(self, distances: Tensor) -> Tensor:
        d = distances.unsqueeze(1)
        s = d * self.inverse_cutoff
        envelope = 1.0 + s**self.power * (self.a + s * (self.b + s * self.c))
        envelope = torch.where(s < 1.0, envelope, torch.zeros_like(s))
        return envelope * self.norm * torch.sin(self.frequencies * s) / d


class AngularBasis(nn.Module):
    """Fourier series of the angle between two unit vectors."""

    frequencies: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.register_buffer("frequencies", original.frequencies.detach().clone())
        self.constant = float(torch.tensor(0.5, dtype=torch.float32).sqrt())  # as CHGNet rounds it
        self.norm = 1.0 / math.sqrt(math.pi)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        # CHGNet keeps the derivative of acos finite in this way.
        angle = torch.acos((first * second).sum(dim=1) * (1.0 - 1e-6)).unsqueeze(1)
        phase = angle * self.frequencies
        constant = torch.full_like(angle, self.constant)
        return torch.cat([constant, torch.sin(phase), torch.cos(phase)], dim=1) * self.norm


class CHGNetLayer(nn.Module):
    """One interaction block: atoms, then bonds, then angles."""

    def __init__(self, atoms: Any, bonds: Any, angles: Any):
        super().__init__()
        self.atoms = AtomConvolution(atoms)
        self.bonds = BondConvolution(bonds)
        self.angles = AngleUpdate(angles)

    def forward(
        self,
        x: Tensor,
        bonds: Tensor,
        weights: Tensor,
        edge_index: Tensor,
        edge_hops: Tensor,
        reach: int,
        short: Tensor,
        short_bonds: Tensor,
        short_weights: Tensor,
        reverse: Tensor,
        angles: Tensor,
        first: Tensor,
        second: Tensor,
        vertices: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """New (x, bonds, short_bonds, angles); `short` [n_short] says which edges the short ones are."""
        x = self.atoms(x, bonds, weights, edge_index, edge_hops, reach)
        # As in CHGNet, no angle at all leaves every bond as it is, also where a layer would add a bias.
        if first.shape[0] > 0:
            short_bonds = self.bonds(x, short_bonds, short_weights, angles, first, second, vertices, reverse)
            bonds = (bonds + self.bonds.bias).index_copy(0, short, short_bonds)
            angles = self.angles(x, short_bonds, angles, first, second, vertices)
        return x, bonds, short_bonds, angles


class GatedPerceptron(nn.Module):
    """CHGNet's GatedMLP, with its first matrix cut into parts.

    Args:
        original: the GatedMLP.
        n_parts: how many features of equal width its input is concatenated from.
    """

    bias: Tensor

    def __init__(self, original: Any, n_parts: int):
        super().__init__()
        core, self.core = _first_linear(original.mlp_core)
        gate, self.gate = _first_linear(original.mlp_gate)
        weight = torch.cat([core.weight, gate.weight]).detach()
        self.parts = nn.ModuleList(linear_layer(part) for part in weight.chunk(n_parts, dim=1))
        self.register_buffer("bias", torch.cat([core.bias, gate.bias]).detach())
        self.core_norm = original.bn1 if original.bn1 is not None else nn.Identity()
        self.gate_norm = original.bn2 if original.bn2 is not None else nn.Identity()
        self.activation = original.activation

    def forward(self, sum_of_parts: Tensor) -> Tensor:
        core, gate = (sum_of_parts + self.bias).chunk(2, dim=1)
        gate = torch.sigmoid(self.gate_norm(self.gate(gate)))
        result: Tensor = self.activation(self.core_norm(self.core(core))) * gate
        return result


class AtomConvolution(nn.Module):
    """CHGNet's AtomConv: messages along edges to their centres."""

    def __init__(self, original: Any):
        super().__init__()
        self.perceptron = GatedPerceptron(original.twoBody_atom, 3)
        (self.mlp_out,) = _without_dropout(original.mlp_out)

    def forward(
        self, x: Tensor, bonds: Tensor, weights: Tensor, edge_index: Tensor, edge_hops: Tensor, reach: int
    ) -> Tensor:
        """
        Args:
            x: [n_nodes, channels].
            bonds, weights: [n_edges, channels].
            edge_hops: [n_edges] hops of each edge's centre; edges with more than `reach` are left out.
        """
        centres, neighbours = edge_index[0], edge_index[1]
        needed = edge_hops <= reach
        if not bool(needed.all()):
            centres, neighbours = centres[needed], neighbours[needed]
            bonds, weights = bonds[needed], weights[needed]
        parts = self.perceptron.parts
        features = parts[0](x).index_select(0, centres) + parts[1](bonds) + parts[2](x).index_select(0, neighbours)
        total = torch.zeros_like(x).index_add(0, centres, self.perceptron(features) * weights)
        result: Tensor = self.mlp_out(total) + x
        return result


class BondConvolution(nn.Module):
    """CHGNet's BondConv on directed short edges: messages of angles to their first edge, from both ends of a bond."""

    bias: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.perceptron = GatedPerceptron(original.twoBody_bond, 4)
        (linear,) = _without_dropout(original.mlp_out)
        self.mlp_out = linear
        # What every bond gets, also one without angles.
        weight = linear.weight.detach()
        bias = weight.new_zeros(weight.shape[0]) if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(
        self,
        x: Tensor,
        bonds: Tensor,
        weights: Tensor,
        angles: Tensor,
        first: Tensor,
        second: Tensor,
        vertices: Tensor,
        reverse: Tensor,
    ) -> Tensor:
        """
        Args:
            bonds, weights: [n_short, channels].
            angles: [n_angles, channels].
            first, second, vertices: [n_angles], two short edges and the node where both start.
            reverse: [n_short], see `reverse_edges`.
        """
        parts = self.perceptron.parts
        features = parts[2](angles)
        features = features + parts[0](bonds).index_select(0, first) + parts[1](bonds).index_select(0, second)
        features = features + parts[3](x).index_select(0, vertices)
        messages = self.perceptron(features) * weights.index_select(0, first) * weights.index_select(0, second)
        total = torch.zeros_like(bonds).index_add(0, first, messages)
        nothing = total.new_zeros(1, total.shape[1])
        total = total + torch.cat([total, nothing]).index_select(0, reverse)
        result: Tensor = self.mlp_out(total) + bonds
        return result


class AngleUpdate(nn.Module):
    """CHGNet's AngleUpdate."""

    def __init__(self, original: Any):
        super().__init__()
        self.perceptron = GatedPerceptron(original.twoBody_bond, 4)

    def forward(
        self, x: Tensor, bonds: Tensor, angles: Tensor, first: Tensor, second: Tensor, vertices: Tensor
    ) -> Tensor:
        parts = self.perceptron.parts
        features = parts[2](angles)
        features = features + parts[0](bonds).index_select(0, first) + parts[1](bonds).index_select(0, second)
        features = features + parts[3](x).index_select(0, vertices)
        result: Tensor = self.perceptron(features) + angles
        return result


def _without_dropout(mlp: Any) -> list[Any]:
    return [layer for layer in mlp.layers if not isinstance(layer, nn.Dropout)]


def _first_linear(mlp: Any) -> tuple[Any, nn.Module]:
    """The first matrix of CHGNet's MLP and the rest of it."""
    first, *rest = _without_dropout(mlp)
    return first, nn.Sequential(*rest)


def _check_architecture(model: Any) -> None:
    widths = {model.model_args[f"{kind}_fea_dim"] for kind in ("atom", "bond", "angle")}
    layers = [*model.atom_conv_layers, *model.bond_conv_layers, *model.angle_layers]
    unexpected = {
        "features of several widths": len(widths) > 1,
        "a read-out other than a sum of atomic energies": not model.mlp_first,
        "no composition model": model.composition_model is None,
        "no updates of bonds or angles": any(layer is None for layer in layers),
        "normalised or non-residual layers": any(
            not getattr(layer, "resnet", False)
            or any(getattr(layer, f"{kind}_norm", None) is not None for kind in ("atom", "bond", "angle"))
            for layer in layers
        ),
        "no smooth cutoff": model.bond_basis_expansion.rbf_expansion_ag.smooth_cutoff is None,
    }
    found = [what for what, present in unexpected.items() if present]
    if found:
        raise MLIPError(f"this CHGNet has {', '.join(found)}; the adapter knows the architecture of 0.2.0 to r2scan")
