"""Vacancy formation energy of fcc and hcp metals against PBE."""

from __future__ import annotations

from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states

from mlip_deploy.reference_data.readers import read_vacancies
from mlip_deploy.validation.properties.eos import fit
from mlip_deploy.validation.properties.recipe import Measurement, Metric, Recipe, Setting, of_elements, relax

REFERENCE = "PBE, Angsten et al., New J. Phys. 16, 015018 (2014)"
KNOWN = (
    *("Al", "Ca", "Ni", "Cu", "Sr", "Rh", "Pd", "Ag", "Ir", "Pt", "Au", "Pb"),  # fcc
    *("Be", "Mg", "Sc", "Ti", "Zn", "Y", "Zr", "Tc", "Ru", "Cd", "Hf", "Re", "Os", "Tl"),  # hcp
)
"""elements whose stable lattice is fcc or hcp"""


def supercell(symbol: str) -> tuple[str, Atoms]:
    """Lattice and a cell of 32 (fcc) or 36 (hcp) atoms at ASE's experimental lattice constants."""
    lattice = str(reference_states[atomic_numbers[symbol]]["symmetry"])  # type: ignore[index]
    if lattice == "fcc":
        return lattice, bulk(symbol, "fcc", cubic=True).repeat(2)
    return lattice, bulk(symbol, "hcp").repeat((3, 3, 2))


def measure(symbol: str, setting: Setting) -> Measurement:
    lattice, perfect = supercell(symbol)
    reference = read_vacancies(lattice)[symbol]
    calculator = setting.calculator()
    equilibrium = fit(perfect, calculator)
    scale = (equilibrium.volume * len(perfect) / perfect.get_volume()) ** (1 / 3)
    perfect.set_cell(perfect.cell.array * scale, scale_atoms=True)
    perfect.calc = calculator
    energy = perfect.get_potential_energy()
    n = len(perfect)
    vacancy = perfect.copy()
    del vacancy[0]
    vacancy.calc = calculator
    setting.progress(f"{setting.engine}: vacancy of {symbol}, relaxing {n - 1} atoms")
    relax(vacancy)
    formation = vacancy.get_potential_energy() - energy * (n - 1) / n
    return Measurement(
        values={"formation": formation - reference},
        notes=[f"{symbol} ({lattice}, {n} sites): {formation:.3f} eV (reference {reference:.2f})"],
    )


RECIPE = Recipe(
    name="vacancy",
    purpose="do broken bonds cost the right energy?",
    inputs="2×2×2 cubic cells (fcc) or 3×3×2 cells (hcp) at the model's volume, ions relaxed to 0.01 eV/Å",
    metrics={
        "formation": Metric(
            "vacancy formation energy, difference",
            "eV",
            0.25,
            f"{REFERENCE}; threshold: choice of this project",
        )
    },
    materials=of_elements(("Al", "Cu", "Mg"), KNOWN),
    elements_of=lambda symbol: {symbol},
    measure=measure,
)
