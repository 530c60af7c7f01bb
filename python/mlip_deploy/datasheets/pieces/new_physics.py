"""Question 4: what the file carries beside energies of neutral ground states, and one test of each."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from mlip_deploy.artifact.contract import ENERGY_AND_FORCES
from mlip_deploy.artifact.gate import doubts_ignored
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.datasheets.evidence import Found
from mlip_deploy.datasheets.pieces.piece import NotApplicableError, Piece, Subject, mean, number
from mlip_deploy.progress import Progress
from mlip_deploy.validation.properties.recipe import relax


def _carries(subject: Subject, progress: Progress) -> Found:
    contract = subject.artifact.contract
    settings = [setting.name for setting in contract.settings]
    outputs = [output.name for output in contract.outputs if output not in ENERGY_AND_FORCES]
    carried = [*(f"{name} (given at run time)" for name in settings), *outputs]
    notes = [f"fixed at export: {one.name} = {one.value} (of {', '.join(one.choices)})" for one in contract.inputs]
    if contract.positions:
        notes.append("positions and cell are inputs: a model with a part in reciprocal space")
    if contract.features is not None:
        notes.append(f"{contract.features} features of each atom, on which grades live")
    return Found(
        said=f"it carries {', '.join(carried)}" if carried else "it carries energies, forces and stress alone",
        numbers=[
            number("settings at run time", len(settings), "", "high"),
            number("outputs beside energies and forces", len(outputs), "", "high"),
        ],
        notes=notes,
    )


# ---- charge ---------------------------------------------------------------------------------------------------------

CHARGE, SPIN = "charge", "spin"
"""settings of these names, the second the multiplicity"""
PROTON_AFFINITIES = {"NH3": 8.847, "H2O": 7.162}
"""eV: 853.6 and 691 kJ/mol at 298 K, Hunter and Lias, J. Phys. Chem. Ref. Data 27, 413 (1998)"""


def _charge(subject: Subject, progress: Progress) -> Found:
    if CHARGE not in [setting.name for setting in subject.artifact.contract.settings]:
        raise NotApplicableError("the file takes no charge at run time")
    calculator = subject.setting(progress).calculator()

    def energy(atoms: Atoms, charge: int) -> float:
        progress(f"{atoms.get_chemical_formula()}, charge {charge}")
        atoms.info |= {CHARGE: charge, SPIN: 1}  # whichever the file takes: all four are closed shells
        atoms.calc = calculator
        relax(atoms)
        return float(atoms.get_potential_energy())

    ammonium = Atoms(
        "NH4", positions=[[0, 0, 0], *(0.59 * np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]))]
    )
    angles = np.radians([0.0, 120.0, 240.0])
    hydronium = Atoms(
        "OH3", positions=[[0, 0, 0], *np.array([0.93 * np.cos(angles), 0.93 * np.sin(angles), [0.3] * 3]).T]
    )
    gains = [
        energy(neutral, 0) - energy(ion, 1)
        for neutral, ion in ((molecule("NH3"), ammonium), (molecule("H2O"), hydronium))
    ]
    found, known = gains[0] - gains[1], PROTON_AFFINITIES["NH3"] - PROTON_AFFINITIES["H2O"]
    return Found(
        said=f"a proton prefers ammonia to water by {found:.2f} eV (measured {known:.2f})",
        numbers=[
            number("proton affinity of ammonia less that of water", found, "eV"),
            number("the same, difference from the measured one", abs(found - known), "eV", "low"),
        ],
        notes=[
            "measured enthalpies at 298 K (Hunter and Lias 1998); the model's are energies at rest, and zero-point "
            "energies make some hundredths of an eV"
        ],
    )


# ---- spin -----------------------------------------------------------------------------------------------------------

SPLITTING = 0.390
"""eV, of methylene's lowest singlet above its triplet: 3147 cm⁻¹, Jensen and Bunker, J. Chem. Phys. 89, 1327 (1988)"""


def _spin(subject: Subject, progress: Progress) -> Found:
    if SPIN not in [setting.name for setting in subject.artifact.contract.settings]:
        raise NotApplicableError("the file takes no spin at run time")
    calculator = subject.setting(progress).calculator()
    energies = {}
    for multiplicity, name in ((1, "CH2_s1A1d"), (3, "CH2_s3B1d")):
        progress(f"methylene, multiplicity {multiplicity}")
        atoms = molecule(name)
        atoms.info |= {CHARGE: 0, SPIN: multiplicity}
        atoms.calc = calculator
        relax(atoms)
        energies[multiplicity] = float(atoms.get_potential_energy())
    found = energies[1] - energies[3]
    return Found(
        said=f"the singlet of methylene is {found:.2f} eV above its triplet (measured {SPLITTING:.2f})",
        numbers=[
            number("singlet of methylene above its triplet", found, "eV"),
            number("the same, difference from the measured one", abs(found - SPLITTING), "eV", "low"),
        ],
        notes=["the measured one holds zero-point energies, which make some hundredths of an eV"],
    )


# ---- magnetic moments -----------------------------------------------------------------------------------------------

MOMENTS = "magmoms"
MEASURED = {"Fe": 2.22, "Co": 1.72, "Ni": 0.61, "Cu": 0.0, "Al": 0.0}
"""μB per atom: C. Kittel, Introduction to Solid State Physics, chapter on ferromagnetism"""


def _moments(subject: Subject, progress: Progress) -> Found:
    if MOMENTS not in subject.artifact.contract.extras:
        raise NotApplicableError("the file has no magnetic moments")
    with doubts_ignored():
        calculator = MLIPCalculator(subject.artifact.path, self_test=False, **subject.hardware._asdict())
    found = {}
    for symbol in MEASURED:
        atoms = bulk(symbol)
        found[symbol] = float(np.mean(np.abs(calculator.get_property(MOMENTS, atoms))))
    off = np.array([abs(found[symbol] - known) for symbol, known in MEASURED.items()])
    return Found(
        said=f"iron has {found['Fe']:.2f} μB (measured {MEASURED['Fe']})",
        numbers=[mean("magnetic moment of five metals, mean absolute error", off, "μB")],
        details=[
            number(f"{symbol}: magnetic moment (measured {MEASURED[symbol]:g})", m, "μB") for symbol, m in found.items()
        ],
    )


PIECES = [
    Piece(
        name="carries",
        question=4,
        measures="settings and outputs that the file declares",
        not_tested="electric fields, excited states, electronic temperature",
        measure=_carries,
        seconds=0.1,
    ),
    Piece(
        name="charge",
        question=4,
        measures="the difference of two proton affinities, for which charges 0 and 1 are given",
        not_tested="negative ions, ions in solution",
        measure=_charge,
        seconds=10,
        elements=frozenset({"H", "N", "O"}),
        gives_settings=True,
    ),
    Piece(
        name="spin",
        question=4,
        measures="the singlet of methylene above its triplet, for which multiplicities 1 and 3 are given",
        not_tested="crossings of spin states, open shells of metals",
        measure=_spin,
        seconds=10,
        elements=frozenset({"C", "H"}),
        gives_settings=True,
    ),
    Piece(
        name="magnetic-moments",
        question=4,
        measures="moments of metals against saturation magnetisations",
        not_tested="antiferromagnets, order, temperature",
        measure=_moments,
        seconds=2,
        elements=frozenset(MEASURED),
    ),
]
