"""The terms of SO3LR that are sums over pairs of atoms: repulsion, electrostatics and dispersion.

The same formulas as so3krates_torch.blocks.physical_potentials. Each term gives every owned atom half of its pairs'
energies, in eV.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mlip_deploy.operators import load_operators

FINE_STRUCTURE = 0.0072973525693
GAMMA_FIT = (-0.00433008, 0.24428889, 0.04125273, -0.00078893)
"""of the width of a quantum Drude oscillator in powers of its van der Waals radius, a.u."""
REPULSION_RANGE = 1.5
"""Å: where SO3LR has switched the repulsion off"""
SWITCHED_ON = 0.45
"""of the long cutoff: from here the Coulomb law turns into one whose force ends there"""


def switch(x: Tensor, on: float, off: float) -> Tensor:
    """1 up to `on`, 0 from `off`, with all derivatives continuous."""
    c = (x - on) / (off - on)
    falling, rising = bump(1.0 - c), bump(c)
    return falling / (falling + rising + 1e-12)


def bump(x: Tensor) -> Tensor:
    """exp(-1/x) above zero, 0 below."""
    return torch.where(x > 0.0, torch.exp(-1.0 / x.clamp_min(1e-12)), torch.zeros_like(x))


def sum_of_edges(values: Tensor, centres: Tensor, n_owned: int) -> Tensor:
    """Values of edges [n_edges] added up at their centres [n_owned]."""
    return torch.zeros([n_owned], dtype=values.dtype, device=values.device).index_add(0, centres, values)


class Repulsion(nn.Module):
    """Ziegler, Biersack and Littmark's repulsion with SO3LR's constants, below 1.5 Å.

    Args:
        original: `ZBLRepulsion`, in the type to compute in.
        numbers: atomic number of each element.
    """

    numbers: Tensor
    powers: Tensor
    exponents: Tensor
    shares: Tensor

    def __init__(self, original: Any, numbers: list[int]):
        super().__init__()

        def positive(*names: str) -> Tensor:
            return torch.cat([nn.functional.softplus(getattr(original, f"{name}_raw").detach()) for name in names])

        shares = positive("c1", "c2", "c3", "c4")
        z = torch.tensor(numbers, dtype=shares.dtype)
        self.register_buffer("numbers", z)
        self.register_buffer("powers", z.pow(positive("p")) * positive("d"))
        self.register_buffer("exponents", positive("a1", "a2", "a3", "a4"))
        self.register_buffer("shares", shares / shares.sum())
        self.ke: float = float(original.ke)
        self.range: float = REPULSION_RANGE

    def forward(
        self, types: Tensor, n_owned: int, centres: Tensor, neighbours: Tensor, distances: Tensor, cutoffs: Tensor
    ) -> Tensor:
        """
        Args:
            types: of all nodes.
            centres, neighbours, distances: of edges [n_edges], Å.
            cutoffs: the network's cutoff function of these edges [n_edges].

        Returns:
            [n_owned] eV.
        """
        near = torch.nonzero(distances < self.range).squeeze(1)
        centres, r = centres[near], distances[near]
        first, second = types[centres], types[neighbours[near]]
        coulomb = self.ke * self.numbers[first] * self.numbers[second] / r.clamp(min=1e-6) * cutoffs[near]
        reduced = r * (self.powers[first] + self.powers[second])
        screening = (self.shares * torch.exp(-self.exponents * reduced.unsqueeze(1))).sum(dim=1)
        return sum_of_edges(0.5 * switch(r, 0.0, self.range) * coulomb * screening, centres, n_owned)


class Electrostatics(nn.Module):
    """Coulomb's law of smeared charges, whose potential and force end at the long cutoff.

    Args:
        ke: e²/4πε₀, eV Å.
        width: of the charges' smearing, Å.
        cutoff: Å.
    """

    def __init__(self, ke: float, width: float, cutoff: float):
        super().__init__()
        self.ke, self.width, self.cutoff = ke, width, cutoff
        self.switched_on: float = SWITCHED_ON * cutoff
        self.potential_at_cutoff: float = math.erf(cutoff / width) / cutoff
        gaussian = 2.0 * cutoff * math.exp(-((cutoff / width) ** 2)) / (math.sqrt(math.pi) * width)
        self.slope_at_cutoff: float = (gaussian - math.erf(cutoff / width)) / cutoff**2

    def forward(self, charges: Tensor, n_owned: int, centres: Tensor, neighbours: Tensor, distances: Tensor) -> Tensor:
        """
        Args:
            charges: of all nodes, e.
            centres, neighbours, distances: of edges up to the long cutoff [n_edges], Å.

        Returns:
            [n_owned] eV.
        """
        switched = switch(distances, self.switched_on, self.cutoff)
        shift = (1.0 - switched) * self.slope_at_cutoff * (distances - self.cutoff)
        law = torch.erf(distances / self.width) / distances - self.potential_at_cutoff - shift
        potential = sum_of_edges(law * charges[neighbours], centres, n_owned)
        return 0.5 * self.ke * charges[:n_owned] * potential


class Dispersion(nn.Module):
    """Dispersion of quantum Drude oscillators (doi:10.1021/acs.jctc.3c00797): three damped powers of the distance.

    Args:
        polarizabilities, c6: of free atoms of each element, a.u.
        scale: of the damping radius.
        cutoff, switching: the energy is switched off over the last `switching` Å before the cutoff.
        bohr, hartree: in Å and eV.
    """

    polarizabilities: Tensor
    c6: Tensor

    def __init__(
        self,
        polarizabilities: Tensor,
        c6: Tensor,
        scale: float,
        cutoff: float,
        switching: float,
        bohr: float,
        hartree: float,
    ):
        super().__init__()
        self.register_buffer("polarizabilities", polarizabilities)
        self.register_buffer("c6", c6)
        self.radius: float = scale * 2.0 * 2.54
        self.cutoff, self.switching, self.bohr, self.hartree = cutoff, switching, bohr, hartree
        self.van_der_waals: float = FINE_STRUCTURE ** (-4.0 / 21.0)
        self.b0, self.b1, self.b2, self.b3 = GAMMA_FIT

    def forward(
        self,
        ratios: Tensor,
        types: Tensor,
        n_owned: int,
        centres: Tensor,
        neighbours: Tensor,
        distances: Tensor,
    ) -> Tensor:
        """
        Args:
            ratios: volume of every node's atom over that of a free one.
            types: of all nodes.
            centres, neighbours, distances: of edges up to the long cutoff [n_edges], Å.

        Returns:
            [n_owned] eV.
        """
        polarizabilities, c6 = self.polarizabilities[types] * ratios, self.c6[types] * ratios.square()
        a_i, a_j, c_i, c_j = polarizabilities[centres], polarizabilities[neighbours], c6[centres], c6[neighbours]
        c6_pair = 2.0 * c_i * c_j * a_j * a_i / (a_i.square() * c_j + a_j.square() * c_i)
        root = (0.5 * (a_i + a_j)).pow(1.0 / 7.0)
        radius = self.van_der_waals * root
        # The ratios of C8 and C10 to C6 are powers of the oscillator's width.
        width = (self.b0 + radius * (self.b1 + radius * (self.b2 + radius * self.b3))).square()
        damping, r = (self.radius * root).square(), (distances / self.bohr).square()
        r3, damping3 = r * r * r, damping * damping * damping
        r4, damping4 = r3 * r, damping3 * damping
        powers = 1.0 / (r3 + damping3) + 10.0 * width / (r4 + damping4)
        powers = powers + 122.5 * width.square() / (r4 * r + damping4 * damping)
        energies = -0.5 * self.hartree * c6_pair * powers
        energies = energies * switch(distances, self.cutoff - self.switching, self.cutoff)
        return sum_of_edges(energies, centres, n_owned)


class PlainPairs(nn.Module):
    """Electrostatics and dispersion by torch's operators."""

    def __init__(self, electrostatics: Electrostatics, dispersion: Dispersion):
        super().__init__()
        self.electrostatics, self.dispersion = electrostatics, dispersion

    def forward(
        self, charges: Tensor, ratios: Tensor, types: Tensor, n_owned: int, edge_index: Tensor, distances: Tensor
    ) -> Tensor:
        """
        Args:
            charges, ratios, types: of all nodes, as of the two terms.
            edge_index, distances: of edges up to the long cutoff, Å.

        Returns:
            [n_owned] eV.
        """
        centres, neighbours = edge_index[0], edge_index[1]
        energies: Tensor = self.electrostatics(charges, n_owned, centres, neighbours, distances)
        energies = energies + self.dispersion(ratios, types, n_owned, centres, neighbours, distances)
        return energies


class FusedPairs(nn.Module):
    """The same by `mlip::long_range_pairs`."""

    polarizabilities: Tensor
    c6: Tensor
    constants: list[float]

    def __init__(self, electrostatics: Electrostatics, dispersion: Dispersion):
        super().__init__()
        load_operators()
        self.register_buffer("polarizabilities", dispersion.polarizabilities)
        self.register_buffer("c6", dispersion.c6)
        # in the order of PairConstants, csrc/operators/long_range_pairs/long_range_pairs_kernels.h
        self.constants = [
            electrostatics.ke,
            electrostatics.width,
            electrostatics.cutoff,
            electrostatics.switched_on,
            electrostatics.potential_at_cutoff,
            electrostatics.slope_at_cutoff,
            dispersion.cutoff - dispersion.switching,
            dispersion.radius,
            dispersion.van_der_waals,
            *GAMMA_FIT,
            dispersion.bohr,
            dispersion.hartree,
        ]

    def forward(
        self, charges: Tensor, ratios: Tensor, types: Tensor, n_owned: int, edge_index: Tensor, distances: Tensor
    ) -> Tensor:
        """As of `PlainPairs`."""
        polarizabilities, c6 = self.polarizabilities[types] * ratios, self.c6[types] * ratios.square()
        energies: Tensor = torch.ops.mlip.long_range_pairs(
            charges, polarizabilities, c6, distances, edge_index, n_owned, self.constants
        )
        return energies
