"""Bulk and shear modulus of binary crystals from six strains, against the Materials Project."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.filters import FrechetCellFilter
from ase.units import GPa

from mlip_deploy.reference_data.readers import Moduli, read_moduli
from mlip_deploy.result import VOIGT, Array
from mlip_deploy.validation.properties.recipe import Measurement, Metric, Recipe, Setting, percent, relax

REFERENCE = "PBE, Materials Project, de Jong et al., Sci. Data 2, 150009 (2015)"
DEFAULT = ("mp-1265", "mp-22862", "mp-8062", "mp-1487")
"""MgO, NaCl, SiC, NiAl"""
LARGEST, MOST = 8, 4
"""atoms in a cell and number of crystals that are picked for named elements"""
STRAIN = 0.005


@cache
def _moduli() -> dict[str, Moduli]:
    return {record.material: record for record in read_moduli()}


def materials(elements: Sequence[str]) -> list[str]:
    """The default crystals, or the smallest ones made of the named elements only."""
    if not elements:
        return [f"{_moduli()[key].formula} {key}" for key in DEFAULT if key in _moduli()]
    made_of = [
        record
        for record in _moduli().values()
        if set(record.atoms.get_chemical_symbols()) <= set(elements) and len(record.atoms) <= LARGEST
    ]
    made_of.sort(key=lambda record: (len(record.atoms), record.material))
    return [f"{record.formula} {record.material}" for record in made_of[:MOST]]


def stiffness(atoms: Atoms, calculator: Calculator) -> Array:
    """Elastic constants C [6, 6] in eV/Å³ (Voigt order xx yy zz yz xz xy) of a relaxed crystal, with ions relaxed.

    Central differences of the stress over strains of ±0.5 %, made symmetric.
    """
    constants = np.zeros((6, 6))
    for k, (a, b) in enumerate(VOIGT):
        stresses = []
        for sign in (1, -1):
            # engineering strain: γ_ab = 2 ε_ab for a shear
            strain = np.eye(3)
            strain[a, b] += sign * STRAIN / (1 if a == b else 2)
            strain[b, a] = strain[a, b]
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.calc = calculator
            relax(strained)
            stresses.append(strained.get_stress())
        constants[k] = (stresses[0] - stresses[1]) / (2 * STRAIN)
    return np.asarray(0.5 * (constants + constants.T))


def voigt_reuss_hill(constants: Array) -> tuple[float, float]:
    """Bulk and shear modulus of a polycrystal, in the unit of the constants (Hill, Proc. Phys. Soc. A 65, 349)."""
    compliances: Array = np.asarray(np.linalg.inv(constants), dtype=np.float64)

    def sums(m: Array) -> tuple[float, float, float]:
        return m[0, 0] + m[1, 1] + m[2, 2], m[0, 1] + m[0, 2] + m[1, 2], m[3, 3] + m[4, 4] + m[5, 5]

    diagonal, off, shear = sums(constants)
    voigt = (diagonal + 2 * off) / 9, (diagonal - off + 3 * shear) / 15
    diagonal, off, shear = sums(compliances)
    reuss = 1 / (diagonal + 2 * off), 15 / (4 * diagonal - 4 * off + 3 * shear)
    return (voigt[0] + reuss[0]) / 2, (voigt[1] + reuss[1]) / 2


def measure(material: str, setting: Setting) -> Measurement:
    record = _moduli()[material.split()[-1]]
    atoms = record.atoms.copy()
    atoms.calc = calculator = setting.calculator()
    relax(atoms, FrechetCellFilter(atoms))
    bulk, shear = (modulus / GPa for modulus in voigt_reuss_hill(stiffness(atoms, calculator)))
    return Measurement(
        values={"bulk": percent(bulk, record.bulk), "shear": percent(shear, record.shear)},
        notes=[f"{material}: K {bulk:.1f} GPa (reference {record.bulk:.1f}), G {shear:.1f} GPa ({record.shear:.1f})"],
    )


RECIPE = Recipe(
    name="elastic",
    purpose="does a crystal answer to strain as it should?",
    inputs="crystals of the set mp-elasticity, relaxed with their cells; 6 strains of ±0.5 %, ions relaxed",
    metrics={
        "bulk": Metric("bulk modulus, deviation", "%", 25.0, f"{REFERENCE}; threshold: choice of this project"),
        "shear": Metric("shear modulus, deviation", "%", 25.0, f"{REFERENCE}; threshold: choice of this project"),
    },
    materials=materials,
    elements_of=lambda material: set(_moduli()[material.split()[-1]].atoms.get_chemical_symbols()),
    measure=measure,
    needs_stress=True,
)
