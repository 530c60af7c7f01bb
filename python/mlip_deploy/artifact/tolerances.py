"""Every accuracy bound of the project, with where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from mlip_deploy.artifact.contract import Dtype
from mlip_deploy.artifact.fixtures import Bounds, Fixtures, SelfTest, self_test_structure


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted difference from the original framework in float64."""

    energy_per_atom: float
    """of the total energy, eV/atom"""
    atomic_energies: float
    """of one atom's energy, eV"""
    forces: float
    """eV/Å, per component"""
    stress: float
    """eV/Å³, per component"""


# Seen over the fixtures of 7net-0 in all engines: 2e-12 eV/atom, 1.2e-10 eV/Å, 3e-12 eV/Å³ (and 5e-12 eV for one
# atom). The forces' part is
# the model's own: its Clebsch-Gordan constants are stored in float32, so that rotating the frame, as LAMMPS and
# OpenMM do with a triclinic cell, changes a force in the tenth digit. A hundred times what was seen.
FLOAT64 = Tolerance(energy_per_atom=2e-10, atomic_energies=1e-9, forces=1e-8, stress=3e-10)

# A float32 engine adds its own rounding to that of the original, which the noise in the fixtures measures.
FLOAT32_NOISE_FACTOR = 3.0


def tolerance(dtype: Dtype, fixtures: Fixtures, isolated_atom: bool = False) -> Tolerance:
    """What an artifact of a floating-point type is held to.

    Args:
        fixtures: hold the float32 noise measured at export.
        isolated_atom: for a single atom without neighbours, whose energy has a noise of its own.
    """
    if dtype == "float64":
        return FLOAT64
    noise = fixtures.float32_noise
    energy = fixtures.isolated_atom_noise
    return Tolerance(
        energy_per_atom=FLOAT32_NOISE_FACTOR * (energy if isolated_atom else noise.energy_per_atom),
        atomic_energies=FLOAT32_NOISE_FACTOR * (energy if isolated_atom else noise.atomic_energies),
        forces=FLOAT32_NOISE_FACTOR * noise.forces,
        stress=FLOAT32_NOISE_FACTOR * noise.stress,
    )


def with_self_test(fixtures: Fixtures, dtype: Dtype) -> Fixtures:
    """The fixtures with one marked, and the bounds of an artifact of this type, for those who load it."""
    bounds = Bounds(**asdict(tolerance(dtype, fixtures)))
    return fixtures.model_copy(
        update={"self_test": SelfTest(structure=self_test_structure(fixtures).name, bounds=bounds)}
    )
