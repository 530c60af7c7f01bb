"""Question 3: how far an atom is felt, and what is missing beyond."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import s22
from ase.units import kcal, mol

from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import Piece, Subject, mean, number, run_case
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.physics import extent


def _reach(subject: Subject, progress: Progress) -> Found:
    context = subject.context()
    outcome = run_case(extent.cases(context), "locality", context, progress)
    (felt,) = [check.value for check in outcome.checks if check.quantity.startswith("farthest atom")]
    assert felt is not None
    missing = [check.value for check in outcome.checks if check.quantity.startswith("long range") and check.value]
    numbers = [number("a displacement is felt up to", felt, "Å")]
    numbers += (
        [number("force between unit charges at that distance, which is missing", missing[0], "eV/Å", "low")]
        if missing
        else []
    )
    return Found(said=f"a displacement is felt up to {felt:.3g} Å", numbers=numbers, curves=outcome.curves)


# ---- ions -----------------------------------------------------------------------------------------------------------

DISTANCES = (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0)
"""Å, from nitrogen to chlorine"""
COMPARED = (6.0, 8.0, 12.0)
NH = 1.02  # Å
IONS = frozenset({"N", "H", "Cl"})


def _ammonium_and_chloride(distance: float) -> Atoms:
    corners = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) * NH / np.sqrt(3.0)
    axis = np.array([-1.0, -1.0, -1.0]) / np.sqrt(3.0)  # a face of the tetrahedron
    return Atoms("NH4Cl", positions=[[0, 0, 0], *corners, distance * axis])


def _ions(subject: Subject, progress: Progress) -> Found:
    calculator = subject.setting(progress).calculator()
    pulls = []
    for distance in DISTANCES:
        atoms = _ammonium_and_chloride(distance)
        atoms.calc = calculator
        direction = atoms.positions[5] / distance
        pulls.append(0.0 - float(atoms.get_forces()[5] @ direction))
    coulomb = [extent.COULOMB / distance**2 for distance in DISTANCES]
    ratios = {r: pull / law for r, pull, law in zip(DISTANCES, pulls, coulomb, strict=True)}
    return Found(
        said=f"ammonium pulls chloride at 8 Å with {round(100 * ratios[8.0])} % of the Coulomb force",
        numbers=[
            number(f"force of ammonium on chloride over the Coulomb force, {r:g} Å", ratios[r], better="one")
            for r in COMPARED
        ],
        curves=[
            Curve(
                title="Force of ammonium on chloride",
                x_label="distance / Å",
                y_label="attraction / eV/Å",
                series=[
                    Series(label="model", x=list(DISTANCES), y=pulls),
                    Series(label="Coulomb law", x=list(DISTANCES), y=coulomb, style="reference"),
                ],
            )
        ],
    )


# ---- layers ---------------------------------------------------------------------------------------------------------

SIDE, SPACING = 4, 6.0
"""ions along each side of a layer; Å"""
APART = (8.0, 12.0, 16.0)
"""Å, between the two layers"""


def _layers(distance: float) -> tuple[Atoms, Array]:
    """A layer of ammonium and one of chlorine, and the sites of their charges [2, n, 3] in Å."""
    grid = SPACING * np.array([(i, j, 0.0) for i in range(SIDE) for j in range(SIDE)])
    below, above = grid, grid + np.array([0.0, 0.0, distance])
    ammonium = _ammonium_and_chloride(distance)[:5]
    atoms = Atoms()
    for site in below:
        one = ammonium.copy()
        one.translate(site)
        atoms += one
    return atoms + Atoms(f"Cl{len(above)}", positions=above), np.array([below, above])


def _layer_forces(subject: Subject, progress: Progress) -> Found:
    calculator = subject.setting(progress).calculator()
    ratios = {}
    for distance in APART:
        progress(f"{distance:g} Å")
        atoms, (below, above) = _layers(distance)
        atoms.calc = calculator
        pull = 0.0 - float(atoms.get_forces()[-len(above) :, 2].sum())
        between = above[:, None] - below[None, :]
        coulomb = float((extent.COULOMB * between[..., 2] / np.linalg.norm(between, axis=2) ** 3).sum())
        ratios[distance] = pull / coulomb
    return Found(
        said=f"layers of ions 12 Å apart attract each other with {round(100 * ratios[12.0])} % of the Coulomb force",
        numbers=[
            number(f"force between layers of ions over the Coulomb force, {r:g} Å", ratios[r], better="one")
            for r in APART
        ],
    )


# ---- molecules ------------------------------------------------------------------------------------------------------

STRETCHES = ("0.9", "1.0", "1.2", "1.5", "2.0")
FAR = ("1.5", "2.0")
ORGANIC = frozenset({"H", "C", "N", "O"})
KCAL_PER_MOL = kcal / mol


def _interactions(subject: Subject, progress: Progress) -> Found:
    calculator = subject.setting(progress).calculator()
    label, model = np.zeros((2, len(s22.s22), len(STRETCHES)))
    for row, name in enumerate(s22.s22):
        progress(name)
        first = s22.get_number_of_dimer_atoms(name)[0]
        for column, stretch in enumerate(STRETCHES):
            both = s22.create_s22_system(f"{name}_{stretch}")
            energies = []
            for atoms in (both, both[:first], both[first:]):
                atoms.calc = calculator
                energies.append(atoms.get_potential_energy())
            label[row, column] = s22.get_interaction_energy_s22x5(f"{name}_{stretch}")
            model[row, column] = energies[0] - energies[1] - energies[2]
    off = np.abs(model - label) / KCAL_PER_MOL
    near, far = STRETCHES.index("1.0"), [STRETCHES.index(stretch) for stretch in FAR]
    of_far = float(model[:, far].sum() / label[:, far].sum())
    water = s22.s22.index("Water_dimer")
    apart = [float(stretch) for stretch in STRETCHES]
    found = mean("interaction of molecules at their equilibrium, mean absolute error", off[:, near], "kcal/mol")
    return Found(
        said=f"pairs of molecules are off by {found.value:.1f} kcal/mol",
        numbers=[
            found,
            mean(
                "interaction of molecules 1.5 and 2 times as far apart, mean absolute error",
                off[:, far].mean(axis=1),
                "kcal/mol",
            ),
            number("interaction that is left 1.5 and 2 times as far apart, of what should be", of_far, n=len(s22.s22)),
        ],
        details=[
            number(
                f"{name}: interaction, difference",
                float(model[row, near] - label[row, near]) / KCAL_PER_MOL,
                "kcal/mol",
            )
            for row, name in enumerate(s22.s22)
        ],
        curves=[
            Curve(
                title="Water dimer",
                x_label="distance over that of the equilibrium",
                y_label="interaction / eV",
                series=[
                    Series(label="model", x=apart, y=model[water].tolist()),
                    Series(label="CCSD(T)", x=apart, y=label[water].tolist(), style="reference"),
                ],
            ),
        ],
    )


PIECES = [
    Piece(
        name="reach",
        question=3,
        measures="the farthest atom of a chain that feels a displacement (suite physics)",
        not_tested="reach in a crystal",
        measure=_reach,
        seconds=2,
    ),
    Piece(
        name="ions",
        question=3,
        measures="force of NH4 on Cl in vacuum against the Coulomb law of unit charges",
        not_tested="ions in a medium, charged systems",
        measure=_ions,
        seconds=2,
        elements=IONS,
    ),
    Piece(
        name="layers",
        question=3,
        measures=f"force between a layer of {SIDE**2} ammonium ions and one of {SIDE**2} chlorides, {SPACING:g} Å from "
        "ion to ion, against the Coulomb law of unit charges: in wide layers it hardly falls off with the distance",
        not_tested="slabs of crystals, periodic layers",
        measure=_layer_forces,
        seconds=2,
        elements=IONS,
    ),
    Piece(
        name="interactions",
        question=3,
        measures="interaction energies of 22 pairs of molecules at five distances against CCSD(T) (S22x5 in ASE: "
        "Grafova et al., J. Chem. Theory Comput. 6, 2365, 2010); differences within a model, so that no frame matters",
        not_tested="many-body dispersion, crystals of molecules, layers",
        measure=_interactions,
        seconds=10,
        elements=ORGANIC,
    ),
]
