"""Orb v3 behind the model interface: the same numbers as orb-models' conservative regressor.

Orb (B. Rhodes et al. 2025) is a network of dense layers on directed edges and on atoms. An atom sends to its nearest
neighbours within the cutoff, at most so many, and collects what it has sent and what it has received. The energy is the
number of atoms times a function of the mean of their features, so that no atom has an energy of its own: each is given
an equal share, and the reference energy of its element.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.exporters.layers.dense import linear_layer
from mlip_deploy.exporters.layers.polynomial_cutoff import polynomial_cutoff

TIE = {torch.float64: 1e-8, torch.float32: 1e-5}
"""Å: neighbours as far as the last one that counts, but for rounding, count too"""
LARGEST_CHARGE, LARGEST_SPIN = 100, 100
"""in e, and the multiplicity: the range of the settings"""


class OrbEnergy(nn.Module):
    """Shares of owned atoms in the energy, in eV.

    Args:
        original: `ConservativeForcefieldRegressor`, in the type to compute in.
        numbers: atomic number of each element.
        most_neighbours: to which an atom sends.
        mean_of_repulsion: whether the mean over the atoms of their repulsion is added, and not the sum.
    """

    features_of_elements: Tensor
    references: Tensor

    def __init__(self, original: Any, numbers: list[int], most_neighbours: int, mean_of_repulsion: bool):
        super().__init__()
        gns, head = original.model, original.heads["energy"]
        with torch.no_grad():
            embedded = gns._encoder._node_fn(gns.atom_emb(torch.tensor(numbers)))
        self.register_buffer("features_of_elements", embedded.detach())
        self.nearest = Nearest(most_neighbours, TIE[embedded.dtype])
        self.basis = EdgeBasis(gns)
        self.edge_encoder = perceptron(gns._encoder._edge_fn)
        self.layers = nn.ModuleList([Interaction(layer, gns.conditioner is not None) for layer in gns.gnn_stacks])
        self.conditioned = gns.conditioner is not None
        self.conditioner = ChargeAndSpin(gns.conditioner) if self.conditioned else nn.Identity()
        self.read_out = perceptron([head.mlp])
        self.repulsion = Repulsion(original.pair_repulsion_fn, numbers)
        self.mean_of_repulsion = mean_of_repulsion
        self.scale = math.sqrt(float(head.normalizer.bn.running_var))
        self.shift = float(head.normalizer.bn.running_mean)
        # Tens of electronvolts for each atom, which float32 would round.
        self.register_buffer("references", head.reference.linear.weight.detach().double().reshape(-1)[numbers])

    def forward(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> Tensor:
        """`settings`: charge (e) and spin multiplicity, of a model that is conditioned on them."""
        energies: Tensor = self.energies_and_features(node_types, n_owned, edge_index, edge_vectors, settings)[0]
        return energies

    @torch.jit.export
    def energies_and_features(
        self,
        node_types: Tensor,
        n_owned: int,
        edge_index: Tensor,
        edge_vectors: Tensor,
        settings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As forward, and the features of owned atoms whose mean the energy is a function of."""
        n_nodes = node_types.size(0)
        senders, receivers, vectors = self.nearest(n_owned, n_nodes, edge_index, edge_vectors)
        distances = vectors.square().sum(dim=1).sqrt()
        cutoffs = polynomial_cutoff(distances / self.basis.cutoff, 4.0)
        edges = self.edge_encoder(self.basis(vectors, distances, cutoffs))
        owned = self.features_of_elements.index_select(0, node_types[:n_owned])
        condition = self.conditioner(edge_vectors.new_zeros([2]) if settings is None else settings)
        for layer in self.layers:
            owned, edges = layer(owned, edges, n_nodes, senders, receivers, cutoffs, condition)

        repulsion = self.repulsion(node_types, n_owned, senders, receivers, distances)
        of_atoms = torch.cat([owned, repulsion.unsqueeze(1), torch.ones_like(repulsion).unsqueeze(1)], dim=1)
        sums = torch.ops.mlip.sum_over_atoms(of_atoms.to(torch.float64))
        n_atoms = sums[-1]
        mean = (sums[:-2] / n_atoms).to(owned.dtype)
        share = self.scale * self.read_out(mean.unsqueeze(0)).view([]) + self.shift
        repelled = sums[-2] / (n_atoms * n_atoms if self.mean_of_repulsion else n_atoms)
        total: Tensor = share.to(torch.float64) + repelled + self.references[node_types[:n_owned]]
        return total, owned


class Nearest(nn.Module):
    """The directed edges of Orb's graph that end or begin at an owned atom.

    An atom sends along its shortest edges. Which edges of a ghost are among them is told by the length of its last one,
    which its owner knows. Neighbours at one distance, as in a perfect crystal, are not told apart: they all count.

    Args:
        most: edges of an atom.
        tie: Å, see TIE.
    """

    def __init__(self, most: int, tie: float):
        super().__init__()
        self.most, self.tie = most, tie

    def forward(
        self, n_owned: int, n_nodes: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Returns:
            senders and receivers [n], and the vectors from one to the other [n, 3] Å.
        """
        centres, neighbours = edge_index[0], edge_index[1]
        distances = edge_vectors.detach().square().sum(dim=1).sqrt()
        reach = torch.ops.mlip.ghost_gather(self.reach(n_owned, centres, distances).unsqueeze(1), n_nodes).squeeze(1)
        sent = torch.nonzero(distances <= reach.index_select(0, centres)).squeeze(1)
        by_ghosts = (neighbours >= n_owned) & (distances <= reach.index_select(0, neighbours))
        received = torch.nonzero(by_ghosts).squeeze(1)
        senders = torch.cat([centres.index_select(0, sent), neighbours.index_select(0, received)])
        receivers = torch.cat([neighbours.index_select(0, sent), centres.index_select(0, received)])
        vectors = torch.cat([edge_vectors.index_select(0, sent), -edge_vectors.index_select(0, received)])
        return senders, receivers, vectors

    def reach(self, n_owned: int, centres: Tensor, distances: Tensor) -> Tensor:
        """Å [n_owned], up to which an atom sends."""
        reach = torch.full([n_owned], math.inf, dtype=distances.dtype, device=distances.device)
        counts = torch.bincount(centres, minlength=n_owned)
        full = torch.nonzero(counts > self.most).squeeze(1)
        order = torch.argsort(distances)
        order = order.index_select(0, torch.argsort(centres.index_select(0, order), stable=True))
        last = (torch.cumsum(counts, 0) - counts).index_select(0, full) + (self.most - 1)
        return reach.index_copy(0, full, distances.index_select(0, order.index_select(0, last)) + self.tie)


class EdgeBasis(nn.Module):
    """What the network knows of an edge [n_edges, n_radial * n_harmonics]: Bessel functions times harmonics."""

    frequencies: Tensor

    def __init__(self, gns: Any):
        super().__init__()
        self.cutoff = float(gns.rbf_transform.r_max)
        self.prefactor = float(gns.rbf_transform.prefactor)
        self.register_buffer("frequencies", gns.rbf_transform.bessel_weights.detach())
        self.harmonics = gns.angular_transform

    def forward(self, vectors: Tensor, distances: Tensor, cutoffs: Tensor) -> Tensor:
        r = distances.unsqueeze(1)
        radial = (self.prefactor * cutoffs).unsqueeze(1) * torch.sin(self.frequencies * r) / r
        harmonics: Tensor = self.harmonics(vectors)
        return (radial.unsqueeze(2) * harmonics.unsqueeze(1)).flatten(1)


def perceptron(parts: Any) -> nn.Sequential:
    """Orb's dense layers one behind the other, under names that TorchScript takes.

    Args:
        parts: an MLP, with a norm behind it or not.
    """
    flat: list[nn.Module] = []
    for part in parts:
        flat += part if isinstance(part, nn.Sequential) else [part]
    return nn.Sequential(*flat)


class Interaction(nn.Module):
    """Orb's AttentionInteractionNetwork.

    The first matrix for the features of an edge and of its two atoms is multiplied with those of an atom once, and not
    once for each of its edges.

    Args:
        original: the AttentionInteractionNetwork.
        conditioned: whether charge and spin are added to the atoms' features.
    """

    def __init__(self, original: Any, conditioned: bool):
        super().__init__()
        of_edge, *edge_rest = perceptron(original._edge_mlp)
        weights: Tensor = of_edge.weight  # type: ignore[assignment]
        of_edges, of_senders, of_receivers = weights.chunk(3, dim=1)
        self.from_edge = linear_layer(of_edges, of_edge.bias)  # type: ignore[arg-type]
        self.from_atoms = linear_layer(torch.cat([of_senders, of_receivers]))
        self.edge_rest = nn.Sequential(*edge_rest)
        gates = [original._send_attn, original._receive_attn]
        self.gates = linear_layer(*(torch.cat([getattr(gate, name) for gate in gates]) for name in ("weight", "bias")))
        self.node_perceptron = perceptron(original._node_mlp)
        self.condition: nn.Module = original._cond_node_proj if conditioned else nn.Identity()
        self.conditioned = conditioned

    def forward(
        self,
        owned: Tensor,
        edges: Tensor,
        n_nodes: int,
        senders: Tensor,
        receivers: Tensor,
        cutoffs: Tensor,
        condition: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            owned: features of owned atoms [n_owned, n].
            edges: features [n_edges, n].
            senders, receivers, cutoffs: [n_edges].
            condition: of all atoms [n].

        Returns:
            the next ones.
        """
        n_owned = owned.size(0)
        if self.conditioned:
            owned = owned + self.condition(condition)
        of_sender, of_receiver = self.from_atoms(torch.ops.mlip.ghost_gather(owned, n_nodes)).chunk(2, dim=1)
        hidden = self.from_edge(edges) + of_sender.index_select(0, senders) + of_receiver.index_select(0, receivers)
        change = self.edge_rest(hidden)
        gates = torch.sigmoid(self.gates(edges)) * cutoffs.unsqueeze(1)
        nothing = torch.zeros([n_nodes, change.size(1)], dtype=change.dtype, device=change.device)
        sent = nothing.index_add(0, senders, change * gates[:, :1])[:n_owned]
        received = nothing.index_add(0, receivers, change * gates[:, 1:])[:n_owned]
        owned = owned + self.node_perceptron(torch.cat([owned, received, sent], dim=1))
        return owned, edges + change


class ChargeAndSpin(nn.Module):
    """Features [n] of a total charge and a spin multiplicity; a multiplicity of 0, for none, has zeros."""

    charge: Tensor
    spin: Tensor

    def __init__(self, original: Any):
        super().__init__()
        self.register_buffer("charge", 2.0 * math.pi * original.charge_embedding.W.detach())
        self.register_buffer("spin", 2.0 * math.pi * original.spin_embedding.W.detach())

    def forward(self, settings: Tensor) -> Tensor:
        """`settings`: charge and multiplicity [2]."""
        q, s = settings[0] * self.charge, settings[1] * self.spin
        known = (settings[1] != 0.0).to(s.dtype)
        return torch.cat([torch.sin(q), torch.cos(q), known * torch.sin(s), known * torch.cos(s)])


class Repulsion(nn.Module):
    """Ziegler, Biersack and Littmark's repulsion, as Orb has it: of the elements that follow those of the atoms.

    Args:
        original: `ZBLBasis`.
        numbers: atomic number of each element.
    """

    numbers: Tensor
    radii: Tensor
    powers: Tensor
    shares: Tensor
    exponents: Tensor

    def __init__(self, original: Any, numbers: list[int]):
        super().__init__()
        following = torch.tensor(numbers) + 1
        like = original.c
        self.register_buffer("numbers", following.to(like.dtype))
        self.register_buffer("radii", original.covalent_radii[following])
        self.register_buffer("powers", torch.pow(following, original.a_exp).to(like.dtype))
        self.register_buffer("shares", like.squeeze(1))
        self.register_buffer("exponents", original.d.squeeze(1))
        self.prefactor = 0.529 * float(original.a_prefactor)
        self.p = float(original.p)

    def forward(
        self, node_types: Tensor, n_owned: int, senders: Tensor, receivers: Tensor, distances: Tensor
    ) -> Tensor:
        """Half of it for each edge that an atom sends along, eV [n_owned].

        Args:
            node_types: of all nodes.
            senders, receivers, distances: of edges [n_edges], Å.
        """
        first, second = node_types.index_select(0, senders), node_types.index_select(0, receivers)
        range_ = self.radii[first] + self.radii[second]
        near = torch.nonzero((senders < n_owned) & (distances < range_)).squeeze(1)
        first, second, r = first.index_select(0, near), second.index_select(0, near), distances.index_select(0, near)
        reduced = r * ((self.powers[first] + self.powers[second]) / self.prefactor)
        screening = (self.shares * torch.exp(-self.exponents * reduced.unsqueeze(1))).sum(dim=1)
        coulomb = 14.3996 * self.numbers[first] * self.numbers[second] / r
        energies = 0.5 * coulomb * screening * polynomial_cutoff(r / range_.index_select(0, near), self.p)
        nothing = torch.zeros([n_owned], dtype=r.dtype, device=r.device)
        return nothing.index_add(0, senders.index_select(0, near), energies)
