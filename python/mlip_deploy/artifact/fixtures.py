"""Fixtures: small structures with the original framework's own results, stored in the artifact at export.

Every engine can replay them. The original is evaluated in float64 for the truth and in float32 for its noise; the
noise, not a guess, sets the tolerance of a float32 artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from pydantic import BaseModel, ConfigDict

from mlip_deploy.artifact.contract import Positions, Setting
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.result import Array, Result, voigt_to_tensor

Evaluate = Callable[[Atoms], Result]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Noise(_Strict):
    """Largest differences between two kinds of results of the original. As `float32_noise`: in float32, in several
    rotated frames, from float64."""

    energy_per_atom: float
    """of the total energy, eV/atom"""
    atomic_energies: float
    """of one atom's energy, eV"""
    forces: float
    """eV/Å, over components"""
    stress: float
    """eV/Å³, over components"""


class Structure(_Strict):
    name: str
    symbols: list[str]
    positions: list[list[float]]
    """[n, 3] Å"""
    cell: list[list[float]]
    """[3, 3] Å, rows are the cell vectors"""
    pbc: list[bool]
    energy: float
    """eV"""
    atomic_energies: list[float]
    """[n] eV"""
    forces: list[list[float]]
    """[n, 3] eV/Å"""
    stress: list[float] | None
    """[6] eV/Å³: xx yy zz yz xz xy, positive in tension; None without a volume"""
    settings: dict[str, float | int | str] = {}
    """Of the contract's settings, all, with which the original was evaluated"""

    @property
    def is_isolated_atom(self) -> bool:
        """One atom without images."""
        return len(self.symbols) == 1 and not any(self.pbc)

    def atoms(self) -> Atoms:
        """Engines find the settings in `info`."""
        return Atoms(self.symbols, positions=self.positions, cell=self.cell, pbc=self.pbc, info=dict(self.settings))

    def result(self) -> Result:
        return Result(
            energy=self.energy,
            atomic_energies=np.array(self.atomic_energies),
            forces=np.array(self.forces),
            stress=None if self.stress is None else np.array(self.stress),
        )


class Bounds(_Strict):
    """Largest accepted differences from the original framework in float64, in the units of Noise."""

    energy_per_atom: float
    atomic_energies: float
    forces: float
    stress: float


class SelfTest(_Strict):
    """What the file is held to wherever it is loaded (csrc/model/self_test.h)."""

    structure: str
    """name of one of the structures"""
    bounds: Bounds


class Fixtures(_Strict):
    reference: str
    """Package and version of the original framework."""
    float32_noise: Noise
    isolated_atom_noise: float
    """eV, of one atom without neighbours: far outside of what models are trained on, features and so roundings are
    larger there; over several elements, since rotations do not change an isolated atom"""
    structures: list[Structure]
    self_test: SelfTest | None = None
    rotation_error: Noise | None = None
    """of a model that is not symmetric by construction: largest change of the original in float64 where a structure is
    rotated or mirrored. Its structures lie as LAMMPS and OpenMM want cells, which turn others"""


SELF_TEST_ATOMS = 8
"""At least: with fewer, loops over blocks of atoms or edges would not be seen whole."""


def self_test_structure(fixtures: Fixtures) -> Structure:
    """The smallest periodic crystal of enough atoms, which every operator takes part in; else the largest structure."""
    enough = [one for one in fixtures.structures if len(one.symbols) >= SELF_TEST_ATOMS and one.stress is not None]
    if enough:
        return min(enough, key=lambda one: len(one.symbols))
    return max(fixtures.structures, key=lambda one: len(one.symbols))


@dataclass(frozen=True)
class Original:
    """The model in its own framework, as the truth that an artifact is held to."""

    package: str
    """Name and version, such as "sevenn 0.13.0"."""
    float64: Evaluate
    float32: Evaluate
    calculator: Callable[[str, str, str | None], Any] | None = None
    """The framework's own ASE calculator as its users set it up, of a type ("float32"), on a device of torch's, with
    one of `accelerators` or none. For speed: as truth it may be too coarse."""
    accelerators: tuple[str, ...] = ()
    """of mlip_deploy.bench.frameworks, those that the calculator can be set up with"""
    accepts: Callable[[Atoms], bool] = lambda atoms: True
    """Whether the model takes a structure with the settings in its `info`; what it refuses is no fixture."""


def example_settings(settings: Sequence[Setting], k: int) -> dict[str, float | int | str]:
    """The k-th of several values of each setting."""
    return {setting.name: setting.examples()[k % len(setting.examples())] for setting in settings}


def build_fixtures(
    original: Original,
    elements: list[str],
    progress: Progress,
    settings: Sequence[Setting] = (),
    positions: Positions | None = None,
    rotation_symmetric: bool = True,
    composition: dict[str, int] | None = None,
) -> Fixtures:
    """Evaluate the original on `structures(elements, positions, composition)` and record truth and noise.

    The original reads `settings` in the `info` of the atoms: each structure has others, but for a single atom, which
    some charges would leave without electrons.
    """
    records = []
    noise: list[Noise] = []
    errors: list[Noise] = []
    random = np.random.default_rng(64)
    for k, (name, atoms) in enumerate(structures(elements, positions, composition)):
        given = example_settings(settings, k if len(atoms) > 1 else 0)
        atoms.info.update(given)
        if not original.accepts(atoms):
            continue
        progress(f"fixture {name} ({len(atoms)} atoms)")
        if not rotation_symmetric and atoms.pbc.any():
            atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
        truth = original.float64(atoms)
        for rotation in _rotations(random) if len(atoms) > 1 else []:
            rotated = _rotated(atoms, rotation)
            exact, frame = truth, rotation
            if not rotation_symmetric:
                exact, frame = original.float64(rotated), np.eye(3)
                errors.append(_differences(exact, truth, rotation))
            noise.append(_differences(original.float32(rotated), exact, frame))
        if not rotation_symmetric and len(atoms) > 1:
            errors.append(_differences(original.float64(_rotated(atoms, INVERSION)), truth, INVERSION))
        records.append(
            Structure(
                name=name,
                symbols=atoms.get_chemical_symbols(),
                positions=atoms.positions.tolist(),
                cell=atoms.cell.array.tolist(),
                pbc=atoms.pbc.tolist(),
                energy=truth.energy,
                atomic_energies=_atomic_energies(truth).tolist(),
                forces=truth.forces.tolist(),
                stress=None if truth.stress is None else truth.stress.tolist(),
                settings=given,
            )
        )
    if not noise:
        raise MLIPError(f"{original.package} accepts no reference structure with these settings")
    return Fixtures(
        reference=original.package,
        isolated_atom_noise=_isolated_atom_noise(original, elements, example_settings(settings, 0), positions),
        float32_noise=_largest(noise),
        structures=records,
        rotation_error=_largest(errors) if errors else None,
    )


NOISE_SAMPLES = 6
ISOLATED_SAMPLES = 24
INVERSION = -np.eye(3)
WIDE_CELL = 20.0
"""Å, around an atom on its own where a model needs a cell"""


def _rotations(random: np.random.Generator) -> list[Array]:
    """The frame itself and random rotations of it: one rounding of a float32 result is a small sample."""
    rotations = [np.eye(3)]
    for _ in range(NOISE_SAMPLES - 1):
        q, _ = np.linalg.qr(random.normal(size=(3, 3)))
        rotations.append(q * np.linalg.det(q))
    return rotations


def _rotated(atoms: Atoms, rotation: Array) -> Atoms:
    rotated: Atoms = atoms.copy()
    rotated.positions = atoms.positions @ rotation.T
    rotated.set_cell(atoms.cell.array @ rotation.T)
    return rotated


def _differences(found: Result, truth: Result, rotation: Array) -> Noise:
    """Of a result in a rotated frame from one in the frame itself."""
    stress = 0.0
    if truth.stress is not None and found.stress is not None:
        back = rotation.T @ voigt_to_tensor(found.stress) @ rotation
        stress = float(np.abs(back - voigt_to_tensor(truth.stress)).max())
    return Noise(
        energy_per_atom=abs(found.energy - truth.energy) / len(truth.forces),
        atomic_energies=float(np.abs(_atomic_energies(found) - _atomic_energies(truth)).max()),
        forces=float(np.abs(found.forces @ rotation - truth.forces).max()),
        stress=stress,
    )


def _largest(differences: Sequence[Noise]) -> Noise:
    return Noise(**{name: max(getattr(one, name) for one in differences) for name in Noise.model_fields})


def _isolated_atom_noise(
    original: Original, elements: list[str], settings: dict[str, float | int | str], positions: Positions | None
) -> float:
    sample = elements[:: max(1, len(elements) // ISOLATED_SAMPLES)]
    cell = WIDE_CELL * np.eye(3) if positions == "periodic" else None
    atoms = [
        Atoms([symbol], positions=[[0.1, 0.2, 0.3]], cell=cell, pbc=cell is not None, info=settings)
        for symbol in sample
    ]
    accepted = filter(original.accepts, atoms)
    return max((abs(original.float32(one).energy - original.float64(one).energy) for one in accepted), default=0.0)


CLOSEST = 1.8
"""Å, between neighbours in a crystal: with hydrogen's covalent radius it would be denser than anything known."""
CLOSEST_PACKED = 3.6
"""Å, lattice constant of the face-centred cubic crystal: twelve neighbours need more room than six."""


def structures(
    elements: list[str], positions: Positions | None = None, composition: dict[str, int] | None = None
) -> list[tuple[str, Atoms]]:
    """The structures of a file's fixtures.

    A model that takes positions in periodic cells alone has those that are periodic in three directions, a model of one
    composition (numbers of atoms by element) those of it.
    """
    every = _all_structures(elements) if composition is None else _structures_of(composition)
    return [(name, atoms) for name, atoms in every if positions != "periodic" or atoms.pbc.all()]


def _all_structures(elements: list[str]) -> Iterable[tuple[str, Atoms]]:
    """The cases that go wrong elsewhere: shear, tiny cells, no periodicity, one atom, odd counts, a slab.

    Deterministic, made from elements that the model knows. Atoms are displaced by a tenth of an Ångström or so,
    which makes forces of the order of 1 eV/Å: large enough that a wrong one shows.
    """
    from ase.build import bulk, molecule  # with SciPy behind it, which reading a file does not need

    random = np.random.default_rng(20240711)
    first, second = next(
        (pair for pair in [("Na", "Cl"), ("Si", "O"), ("O", "H")] if set(pair) <= set(elements)),
        (elements[0], elements[-1]),
    )
    if first == second:
        crystal = bulk(first, "sc", a=max(CLOSEST, 2.2 * covalent_radii[atomic_numbers[first]]))
    else:
        crystal = bulk(first + second, "rocksalt", a=_rocksalt_constant(first, second), cubic=True)
    shear = np.array([[1.0, 0.06, -0.03], [0.0, 0.97, 0.05], [0.0, 0.0, 1.02]])

    def rattled(atoms: Atoms, amplitude: float) -> Atoms:
        atoms = atoms.copy()
        atoms.positions += random.normal(scale=amplitude, size=atoms.positions.shape)
        return atoms

    def sheared(atoms: Atoms) -> Atoms:
        atoms = atoms.copy()
        atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
        return atoms

    yield "sheared crystal", rattled(sheared(crystal.repeat((2, 2, 1))), 0.15)

    single = "Si" if "Si" in elements else first
    primitive = (
        bulk("Si", "diamond", a=5.43)
        if single == "Si"
        else bulk(single, "fcc", a=max(CLOSEST_PACKED, 2.9 * covalent_radii[atomic_numbers[single]])).repeat((2, 1, 1))
    )
    yield "cell smaller than twice the cutoff", rattled(sheared(primitive), 0.10)

    vacancy = sheared(crystal.copy())
    if len(vacancy) > 2:
        del vacancy[1]
    yield "odd number of atoms", rattled(vacancy, 0.12)

    if {"C", "H", "O"} <= set(elements):
        isolated = molecule("CH3CH2OH")
    else:
        spacing = covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]]
        isolated = Atoms([first, second, first], positions=[[0, 0, 0], [spacing, 0, 0], [0.3, spacing, 0.2]])
    isolated = rattled(isolated, 0.05)
    isolated.set_cell(np.zeros((3, 3)))
    isolated.pbc = False
    yield "molecule without periodicity", isolated

    slab = rattled(crystal.repeat((1, 1, 1)), 0.12)
    slab.set_cell(slab.cell.array + np.diag([0.0, 0.0, 15.0]))
    slab.pbc = (True, True, False)
    yield "slab periodic in two directions", slab

    yield "single atom", Atoms([single], positions=[[0.1, 0.2, 0.3]])


COMPOSED = 12
"""atoms at the least of the crystal of one composition"""


def _structures_of(composition: dict[str, int]) -> Iterable[tuple[str, Atoms]]:
    """As `_all_structures`, of one composition: its atoms in order on a simple cubic lattice, displaced."""
    random = np.random.default_rng(20240711)
    formula = [symbol for symbol, number in composition.items() for _ in range(number)]
    spacing = max(CLOSEST, 2.1 * max(float(covalent_radii[atomic_numbers[symbol]]) for symbol in formula))
    shear = np.array([[1.0, 0.0, 0.0], [0.06, 0.97, 0.0], [-0.03, 0.05, 1.02]])

    def crystal(repeats: int, amplitude: float, vacuum: float = 0.0) -> Atoms:
        """Formulas along x, `repeats` of them along y and z: the order of the elements is turned in each row."""
        symbols, sites = [], []
        for y in range(repeats):
            for z in range(repeats):
                for x in range(len(formula)):
                    symbols.append(formula[(x + y + z) % len(formula)])
                    sites.append([x, y, z])
        cell = spacing * np.diag([len(formula), repeats, repeats]).astype(float)
        atoms = Atoms(symbols, positions=spacing * np.array(sites, dtype=float), cell=cell, pbc=True)
        if vacuum:
            atoms.set_cell(atoms.cell.array + np.diag([0.0, 0.0, vacuum]))
            atoms.pbc = (True, True, False)
        else:
            atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
        atoms.positions += random.normal(scale=amplitude, size=atoms.positions.shape)
        return atoms

    repeats = 1
    while len(formula) * repeats**2 < COMPOSED:
        repeats += 1
    yield "sheared crystal", crystal(repeats, 0.15)
    yield "cell smaller than twice the cutoff", crystal(1, 0.10)
    yield "slab periodic in two directions", crystal(repeats, 0.12, vacuum=15.0)
    isolated = crystal(1, 0.12)
    isolated.set_cell(np.zeros((3, 3)))
    isolated.pbc = False
    yield "molecule without periodicity", isolated


def _atomic_energies(result: Result) -> Array:
    if result.atomic_energies is None:
        raise ValueError("the original framework must give the energy of every atom")
    return result.atomic_energies


def _rocksalt_constant(first: str, second: str) -> float:
    if (first, second) == ("Na", "Cl"):
        return 5.64
    bond = float(covalent_radii[atomic_numbers[first]] + covalent_radii[atomic_numbers[second]])
    return 2.0 * max(CLOSEST, 1.05 * bond)
