"""Equation of state of elemental crystals against the all-electron PBE of the Δ project."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.collections import dcdft
from ase.eos import EquationOfState, birchmurnaghan
from ase.units import GPa
from ase.utils.deltacodesdft import delta

from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.properties.recipe import (
    Measurement,
    Metric,
    Recipe,
    Setting,
    UnfinishedError,
    of_elements,
    percent,
)

REFERENCE = "WIEN2k PBE, Lejaeghere et al., Science 351, aad3000 (2016), through ase.collections.dcdft"
STRAINS = np.linspace(0.94, 1.06, 7)
"""volumes over the equilibrium volume, the range of the Δ project"""


STEPS = 6
"""how often the range is moved to where the energy is lower"""


class Fit(NamedTuple):
    volume: float
    """Å³ per atom"""
    bulk_modulus: float
    """eV/Å³"""
    derivative: float
    """of the bulk modulus with respect to pressure"""
    volumes: list[float]
    """Å³ per atom, of the curve"""
    energies: list[float]
    """eV per atom, likewise"""


def fit(atoms: Atoms, calculator: Calculator) -> Fit:
    """Birch-Murnaghan fit over isotropic strains without relaxation, centred on the model's own minimum.

    Raises:
        UnfinishedError: when the energies have no minimum in reach.
    """
    centre = atoms.get_volume()
    for _ in range(STEPS):
        volumes = centre * STRAINS
        energies = [_energy_at(atoms, volume, calculator) for volume in volumes]
        lowest = int(np.argmin(energies))
        if lowest in (0, len(volumes) - 1):  # a fit would extrapolate
            centre = volumes[lowest]
            continue
        try:
            equation = EquationOfState(volumes, energies, eos="birchmurnaghan")
            v0, _, modulus = equation.fit(warn=False)
        except (RuntimeError, ValueError) as error:
            raise UnfinishedError(f"no equation of state fits the energies: {error}") from error
        if abs(v0 / centre - 1.0) < 0.03:
            n = len(atoms)
            derivative = float(equation.eos_parameters[2])
            return Fit(v0 / n, modulus, derivative, (volumes / n).tolist(), (np.array(energies) / n).tolist())
        centre = float(np.clip(v0, volumes[0], volumes[-1]))
    raise UnfinishedError(f"no minimum of the energy within a third of the volume {atoms.get_volume():.2f} Å³")


def _energy_at(atoms: Atoms, volume: float, calculator: Calculator) -> float:
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    strained.calc = calculator
    return float(strained.get_potential_energy())


def reference_crystal(symbol: str) -> Atoms:
    """The Δ project's crystal at its reference volume, without magnetic moments."""
    atoms = dcdft[symbol]
    return Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)


def measure(symbol: str, setting: Setting) -> Measurement:
    reference = dcdft.data[symbol]
    v_ref, b_ref, bp_ref = (reference[f"wien2k_{key}"] for key in ("volume", "B", "Bp"))
    found = fit(reference_crystal(symbol), setting.calculator())
    b_found = found.bulk_modulus / GPa
    published = birchmurnaghan(np.array(found.volumes), 0.0, b_ref * GPa, bp_ref, v_ref)
    return Measurement(
        values={
            "volume": percent(found.volume, v_ref),
            "modulus": percent(b_found, b_ref),
            "derivative": found.derivative - bp_ref,
            "delta": 1000.0 * delta(found.volume, found.bulk_modulus, found.derivative, v_ref, b_ref * GPa, bp_ref),
        },
        curves=[
            Curve(
                title=f"{symbol}: equation of state",
                x_label="volume / Å³ per atom",
                y_label="energy less the lowest / eV per atom",
                series=[
                    Series(
                        label="model",
                        x=found.volumes,
                        y=[energy - min(found.energies) for energy in found.energies],
                    ),
                    Series(label="WIEN2k PBE", x=found.volumes, y=published.tolist()),
                ],
            )
        ],
        notes=[
            f"{symbol}: V0 {found.volume:.3f} Å³ (reference {v_ref:.3f}), B {b_found:.1f} GPa ({b_ref:.1f}), "
            f"B' {found.derivative:.2f} ({bp_ref:.2f})"
        ],
    )


RECIPE = Recipe(
    name="eos",
    purpose="does a crystal have the right volume and stiffness?",
    inputs="crystals of ase.collections.dcdft, 7 isotropic strains of ±6 % in volume, no relaxation",
    metrics={
        "volume": Metric("equilibrium volume, deviation", "%", 3.0, f"{REFERENCE}; threshold: 1 % in length"),
        "modulus": Metric("bulk modulus, deviation", "%", 20.0, f"{REFERENCE}; threshold: choice of this project"),
        "derivative": Metric("pressure derivative of the bulk modulus, difference", "", None, REFERENCE),
        "delta": Metric("Δ", "meV/atom", None, f"{REFERENCE}; DFT codes agree within about 1 meV/atom"),
    },
    materials=of_elements(("Li", "C", "Na", "Mg", "Al", "Si", "Ca", "Ti", "Ni", "Cu", "Ag", "Au"), list(dcdft.names)),
    elements_of=lambda symbol: {symbol},
    measure=measure,
)
