"""Question 6: hydrogen in iron, which makes steel brittle: energies of its sites, and of its way between them."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import FIRE

from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import Piece, Subject, number
from mlip_deploy.progress import Progress
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.validation.properties.eos import fit
from mlip_deploy.validation.properties.recipe import UnfinishedError, relax

SOURCE = "Jiang and Carter, Phys. Rev. B 70, 064102 (2004)"
SOLUTION, OCTAHEDRAL, BARRIER = 0.19, 0.13, 0.088
"""eV, PBE without zero-point energies, from SOURCE: solution of half a molecule at the tetrahedral site, the octahedral
site above that, and the barrier between neighbouring tetrahedral sites, which is all that hydrogen has to climb.
examples/alpha_fe_h/README.md says how far each was verified."""
CELLS = 3
"""of two atoms, along each axis"""
SITES = {"tetrahedral": (0.5, 0.25, 0.0), "next": (0.75, 0.5, 0.0), "octahedral": (0.5, 0.5, 0.0)}
"""in units of the lattice constant"""
IMAGES, LARGEST_FORCE, STEPS = 5, 0.02, 300
"""of the band between two sites; eV/Å; iterations"""


def _with_hydrogen(iron: Atoms, site: str) -> Atoms:
    lattice_constant = iron.cell.lengths()[0] / CELLS
    atoms: Atoms = iron.copy()
    atoms.extend(Atoms("H", positions=[lattice_constant * np.array(SITES[site])]))
    return atoms


def _barrier(first: Atoms, last: Atoms, calculator: Calculator) -> list[float]:
    """Energies along the path of least energy between two relaxed structures, eV above the first."""
    images = [first, *(first.copy() for _ in range(IMAGES)), last]
    for image in images:
        image.calc = calculator
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    if not FIRE(band, logfile=None).run(fmax=LARGEST_FORCE, steps=STEPS):
        raise UnfinishedError(f"the path between two sites still has larger forces after {STEPS} steps")
    energies = np.array([image.get_potential_energy() for image in images])
    return [float(energy) for energy in energies - energies[0]]


def _hydrogen_in_iron(subject: Subject, progress: Progress) -> Found:
    calculator = subject.setting(progress).calculator()
    cell = bulk("Fe", "bcc", a=2.83, cubic=True)
    scale = (fit(cell, calculator).volume * len(cell) / cell.get_volume()) ** (1 / 3)
    cell.set_cell(cell.cell.array * scale, scale_atoms=True)
    iron = cell.repeat(CELLS)
    molecule = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.75]])
    at = {site: _with_hydrogen(iron, site) for site in SITES}
    # where it stays by symmetry alone, and noise would let it slide down
    at["octahedral"].set_constraint(FixAtoms([len(iron)]))
    for name, atoms in (("half a molecule", molecule), *at.items()):
        progress(f"hydrogen: {name}")
        atoms.calc = calculator
        relax(atoms)
    iron.calc = calculator
    solved = at["tetrahedral"].get_potential_energy()
    solution = float(solved - iron.get_potential_energy() - molecule.get_potential_energy() / 2)
    octahedral = float(at["octahedral"].get_potential_energy() - solved)
    progress("hydrogen: the way between two sites")
    path = _barrier(at["tetrahedral"], at["next"], calculator)
    barrier = max(path) - min(path)
    return Found(
        said=f"hydrogen in iron: solution {solution:.2f} eV ({SOLUTION:.2f}), barrier {1000 * barrier:.0f} meV "
        f"({1000 * BARRIER:.0f})",
        numbers=[
            number("solution of hydrogen in iron, difference from PBE", abs(solution - SOLUTION), "eV", "low"),
            number(
                "its octahedral over its tetrahedral site, difference from PBE",
                abs(octahedral - OCTAHEDRAL),
                "eV",
                "low",
            ),
            number("its barrier between tetrahedral sites, difference from PBE", abs(barrier - BARRIER), "eV", "low"),
        ],
        details=[
            number(f"solution of half a molecule of hydrogen in iron (PBE: {SOLUTION:g})", solution, "eV"),
            number(f"octahedral over tetrahedral site (PBE: {OCTAHEDRAL:g})", octahedral, "eV"),
            number(f"barrier between tetrahedral sites (PBE: {BARRIER:g})", barrier, "eV"),
        ],
        curves=[
            Curve(
                title="Hydrogen in iron from one tetrahedral site to the next",
                x_label="part of the way",
                y_label="energy / eV",
                series=[
                    Series(label="model", x=[float(x) for x in np.linspace(0, 1, len(path))], y=path),
                    Series(label="PBE, barrier", x=[0.0, 1.0], y=[BARRIER, BARRIER], style="reference"),
                ],
            )
        ],
        notes=[
            f"PBE without zero-point energies: {SOURCE}",
            *(["the model prefers the octahedral site, which PBE does not"] if octahedral < 0.0 else []),
        ],
    )


PIECE = Piece(
    name="hydrogen-in-iron",
    question=6,
    measures=f"hydrogen in {2 * CELLS**3} atoms of iron: solution, the octahedral above the tetrahedral site, and the "
    f"barrier between two tetrahedral sites (nudged elastic band), against PBE ({SOURCE})",
    not_tested="vacancies, dislocations, grain boundaries, surfaces; zero-point energies",
    measure=_hydrogen_in_iron,
    seconds=60,
    elements=frozenset({"Fe", "H"}),
)
