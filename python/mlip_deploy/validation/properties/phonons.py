"""Phonons of cubic elements by finite displacements (phonopy) against neutron scattering."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.build import bulk

from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.properties.eos import fit
from mlip_deploy.validation.properties.recipe import Measurement, Metric, Recipe, Setting, of_elements, percent

# lattice, point of the primitive cell, its highest frequency in THz, where from. The papers were not at hand. Each
# value was found quoted again: Al and Cu by Savrasov and Savrasov, Phys. Rev. B 54, 16487 (1996), Table I (from
# Landolt-Börnstein III/13a), Cu also in the data beside LAMMPS's example of fix phonon, Si and Ni in public scripts.
MEASURED = {
    "Si": ("diamond", "Γ", 15.53, "Nilsson and Nelin, Phys. Rev. B 6, 3777 (1972), doi:10.1103/PhysRevB.6.3777"),
    "Al": ("fcc", "X", 9.69, "Stedman and Nilsson, Phys. Rev. 145, 492 (1966), 80 K"),
    "Cu": ("fcc", "X", 7.25, "Nicklow, Gilat, Smith, Raubenheimer and Wilkinson, Phys. Rev. 164, 922 (1967), 49 K"),
    "Ni": ("fcc", "X", 8.55, "Birgeneau, Cordes, Dolling and Woods, Phys. Rev. 136, A1359 (1964), 296 K"),
}
POINTS = {"Γ": (0.0, 0.0, 0.0), "X": (0.5, 0.0, 0.5), "K": (0.375, 0.375, 0.75), "L": (0.5, 0.5, 0.5)}
PATH = ("X", "Γ", "L")
DISPLACEMENT = 0.01  # Å
ROUNDING = 0.05  # THz: acoustic modes at Γ are not exactly zero


def measure(symbol: str, setting: Setting) -> Measurement:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    lattice, point, measured, source = MEASURED[symbol]
    calculator = setting.calculator()
    crystal = bulk(symbol, lattice, cubic=True)
    volume = fit(crystal, calculator).volume
    crystal.set_cell(crystal.cell.array * (volume * len(crystal) / crystal.get_volume()) ** (1 / 3), scale_atoms=True)
    half = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    phonons = Phonopy(
        PhonopyAtoms(
            crystal.get_chemical_symbols(), cell=crystal.cell.array, scaled_positions=crystal.get_scaled_positions()
        ),
        supercell_matrix=np.diag([2, 2, 2]),
        primitive_matrix=half,
    )
    phonons.generate_displacements(distance=DISPLACEMENT)
    forces = []
    for cell in phonons.supercells_with_displacements or []:
        displaced = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        displaced.calc = calculator
        forces.append(displaced.get_forces())
    phonons.forces = forces
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants()
    highest = float(_frequencies(phonons, [POINTS[point]])[0].max())
    phonons.run_mesh([8, 8, 8], is_gamma_center=True)
    lowest = float(np.min(phonons.mesh.frequencies))  # type: ignore[union-attr]
    return Measurement(
        values={"highest": percent(highest, measured), "imaginary": min(0.0, lowest)},
        curves=[_bands(phonons, symbol)],
        notes=[
            f"{symbol} at {point}: {highest:.2f} THz, measured {measured} ({source}); lowest on a mesh {lowest:.2f}"
        ],
    )


def _frequencies(phonons: object, points: list[tuple[float, ...]]) -> np.ndarray:
    phonons.run_qpoints(points)  # type: ignore[attr-defined]
    return np.array(phonons.qpoints.frequencies)  # type: ignore[attr-defined]


def _bands(phonons: object, symbol: str) -> Curve:
    """Along X-Γ-L, at equal steps in reduced coordinates."""
    corners = [np.array(POINTS[name]) for name in PATH]
    steps = np.linspace(0.0, 1.0, 21)
    legs = [start + step * (end - start) for start, end in pairwise(corners) for step in steps]
    frequencies = _frequencies(phonons, [tuple(leg) for leg in legs])
    x = np.concatenate([steps, 1.0 + steps]).tolist()
    return Curve(
        title=f"{symbol}: phonon bands",
        x_label="–".join(PATH),
        y_label="frequency / THz",
        series=[Series(label=f"branch {k + 1}", x=x, y=band.tolist()) for k, band in enumerate(frequencies.T)],
    )


RECIPE = Recipe(
    name="phonons",
    purpose="are the curvatures around a crystal's minimum right, and is it a minimum?",
    inputs=f"2×2×2 cubic cells at the model's volume, displacements of {DISPLACEMENT} Å, an 8×8×8 mesh",
    metrics={
        "highest": Metric(
            "highest frequency, deviation",
            "%",
            10.0,
            "neutron scattering, see notes; threshold: choice of this project, PBE itself is up to 5 % off",
        ),
        "imaginary": Metric("most negative frequency on the mesh", "THz", ROUNDING, "definition of a stable crystal"),
    },
    materials=of_elements(("Si", "Al"), list(MEASURED)),
    elements_of=lambda symbol: {symbol},
    measure=measure,
    packages=("phonopy",),
)
