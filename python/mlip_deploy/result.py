"""What any engine returns for one structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """Energy, forces and stress of one structure, in eV and Å, whoever computed them."""

    energy: float
    """eV"""
    atomic_energies: Array | None
    """[n] eV per atom; None where an engine does not give them"""
    forces: Array
    """[n, 3] eV/Å"""
    stress: Array | None
    """[6] eV/Å³ in Voigt order xx yy zz yz xz xy, positive in tension; None without a volume"""


class _Evaluation(TypedDict):
    energy: float
    """eV"""
    energies: Array
    """[n] eV, of each atom"""
    n_edges: int
    """pairs of a centre and a neighbour nearer than the cutoff"""
    extras: dict[str, Array]
    """[n] each, the contract's further outputs by name; empty unless they were asked for"""


class Evaluation(_Evaluation, total=False):
    """What `MLIPCalculator(...).potential.compute` returns for one structure of n atoms, as a dictionary."""

    close_pair: str
    """a sentence, the first time that atoms are on top of each other"""
    forces: Array
    """[n, 3] eV/Å, -dE/dr; there unless they were left out"""
    virial: Array
    """[3, 3] eV, W = -Σ r ⊗ dE/dr over edges; likewise"""
    atom_virials: Array
    """[n, 6] eV, components as in csrc/core/graph.h; there if it was asked for"""
    centroid_virials: Array
    """[n, 9] eV, likewise"""
    features: Array
    """[n, the contract's features], of what enters the model's read-out; likewise"""
    grades: Array
    """[n] how far each atom is from the model's domain (docs/trust.md): above 1 is outside; likewise"""
    energy_uncertainty: float
    """eV, calibrated with labels (docs/trust.md); likewise, with the next"""
    energies_uncertainty: Array
    """[n] eV, of each atom's energy alone"""
    centroid_virials_inexact: str
    """there with them: why only their sum is exact, not each as a heat flux needs it; "" where each is"""
    deviation: Array
    """[n] eV/Å, standard deviation of the force on each atom over a committee; there if it was asked for"""
    deviation_summary: list[float]
    """[6], likewise: largest, smallest and mean deviation of virial components (eV per atom) and of forces (eV/Å)"""


VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


CENTROID = ((0, 3, 4), (6, 1, 5), (7, 8, 2))
"""Where the components of a tensor are among `centroid_virials`."""


def stress_from_virial(virial: Array, volume: float) -> Array:
    """Stress -W/V in Voigt order from the virial W = -Σ r ⊗ dE/dr (eV, [3, 3])."""
    return -tensor_to_voigt(virial) / volume


def tensor_to_voigt(tensor: Array) -> Array:
    """The symmetric part of a tensor [3, 3] in Voigt order, [6]."""
    return np.array([0.5 * (tensor[a, b] + tensor[b, a]) for a, b in VOIGT])


def stresses_from_virials(atom_virials: Array, volume: float) -> Array:
    """Per-atom stresses [n, 6] eV/Å³ in Voigt order from virials [n, 6] eV in the order xx yy zz xy xz yz."""
    return -atom_virials[:, [0, 1, 2, 5, 4, 3]] / volume


def voigt_to_tensor(stress: Array) -> Array:
    """[6] in Voigt order to [3, 3]."""
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
