"""A Morse crystal as an artifact: a stable solid that costs well under a millisecond a step, for long runs.

It is also the smallest example of an adapter: an nn.Module behind the model interface, with ASE's MorsePotential as
the original framework.
"""

from pathlib import Path

import torch
from ase.build import bulk
from ase.calculators.morse import MorsePotential
from torch import Tensor, nn

from mlip_deploy.contract import EnergyFrame, ModelIdentity
from mlip_deploy.export.wrapper import Adapted, write_artifact
from mlip_deploy.fixtures import Original
from mlip_deploy.result import Result

# Copper of Girifalco and Weizer (Phys. Rev. 114, 687, 1959), cut off smoothly
DEPTH, RADIUS, STEEPNESS = 0.3429, 2.866, 1.3588 * 2.866  # eV, Å, 1
INNER, OUTER = 1.3, 1.75  # of RADIUS
LATTICE_CONSTANT = 3.70  # Å, near zero pressure


def crystal(repeats: int):
    return bulk("Cu", "fcc", a=LATTICE_CONSTANT, cubic=True).repeat(repeats)


class Morse(nn.Module):
    def __init__(self):
        super().__init__()
        self.depth, self.radius, self.steepness = DEPTH, RADIUS, STEEPNESS
        self.outer, self.width = OUTER * RADIUS, (OUTER - INNER) * RADIUS

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        distance = (edge_vectors * edge_vectors).sum(dim=1).sqrt()
        s = ((self.outer - distance) / self.width).clamp(0.0, 1.0)
        envelope = s * s * s * (6.0 * s * s - 15.0 * s + 10.0)
        decay = torch.exp(self.steepness * (1.0 - distance / self.radius))
        pair = 0.5 * self.depth * decay * (decay - 2.0) * envelope
        return torch.zeros(n_owned, dtype=pair.dtype, device=pair.device).index_add(0, edge_index[0], pair)


def original(atoms) -> Result:
    atoms = atoms.copy()
    atoms.calc = MorsePotential(epsilon=DEPTH, r0=RADIUS, rho0=STEEPNESS, rcut1=INNER, rcut2=OUTER)
    return Result(
        energy=float(atoms.get_potential_energy()),
        atomic_energies=atoms.calc.results["energies"],
        forces=atoms.get_forces(),
        stress=atoms.get_stress() if atoms.pbc.all() else None,
    )


def write_pair_potential(path: Path) -> Path:
    adapted = Adapted(
        identity=ModelIdentity(
            family="morse", name="copper", source_sha256="0" * 64, license="MIT", citation="10.1103/PhysRev.114.687"
        ),
        elements=["Cu"],
        cutoff=OUTER * RADIUS,
        message_passing_layers=0,
        parallel="local",
        operators=[],
        energy_frame=EnergyFrame(functional="none", hubbard_u="none", corrections="none", dispersion="none"),
        inputs=[],
        energy_model=lambda _: Morse(),
        original=Original(package="ase", float64=original, float32=original),
    )
    write_artifact(adapted, path, "float64", progress=lambda _: None)
    return path
