"""Frames of reference: files, named sets, or sampled by the model itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin

from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.errors import MLIPError
from mlip_deploy.progress import Progress
from mlip_deploy.reference_data.datasets import DATASETS
from mlip_deploy.reference_data.readers import read_set
from mlip_deploy.result import Array

TIMESTEP = 1.0
"""fs"""
FRICTION = 0.02
"""1/fs"""
SETTLING, BETWEEN, SAMPLES = 200, 20, 12
"""steps before the first frame and between frames, and frames, at each temperature"""


@dataclass(frozen=True)
class Frame:
    """A structure, with labels where somebody gave them."""

    atoms: Atoms
    name: str
    forces: Array | None = None
    """[n, 3] eV/Å"""
    energy: float | None = None
    """eV, in any energy frame that differs from the model's by a constant for each atom of an element"""

    @classmethod
    def of(cls, atoms: Atoms, name: str) -> Frame:
        """With the labels in the atoms' calculator, if there is one."""
        results = {} if atoms.calc is None else atoms.calc.results
        return cls(atoms, name, results.get("forces"), results.get("energy"))


def read_frames(source: str | Path) -> list[Frame]:
    """The frames of a named reference set, or of any file with structures that ASE reads.

    Raises:
        MLIPError: for what is neither, or cannot be read.
    """
    if str(source) in DATASETS:
        return [
            Frame(labelled.atoms, labelled.name, labelled.forces, next(iter(labelled.energies.values())))
            for labelled in read_set(str(source))
        ]
    if not Path(source).exists():
        raise MLIPError(f"'{source}' is neither a file nor a reference set. Sets: {', '.join(DATASETS)}")
    try:
        found = read(source, index=":")
    except Exception as error:  # ASE raises whatever its parsers met
        raise MLIPError(f"'{source}' could not be read as structures ({type(error).__name__}: {error})") from error
    return [Frame.of(atoms, f"frame {k} of {source}") for k, atoms in enumerate(found, start=1)]


def sample(
    calculator: MLIPCalculator, structure: Atoms, temperature: float, name: str, progress: Progress
) -> list[Frame]:
    """Frames of the model's own molecular dynamics (Langevin) from a structure, at a temperature in K.

    Raises:
        MLIPError: for a temperature that is not positive, and what the model refuses.
    """
    if not temperature > 0.0:
        raise MLIPError(f"a temperature is {temperature:g} K, expected a positive number")
    progress(f"sampling {name} at {temperature:g} K")
    random = np.random.default_rng(0)
    atoms = structure.copy()
    atoms.calc = calculator
    # Half of the kinetic energy of a crystal's start goes into its potential energy.
    widths = np.sqrt(2.0 * atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(widths[:, None] * random.standard_normal((len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=temperature,
        friction=FRICTION / units.fs,
        rng=random,
        fixcm=False,
    )
    dynamics.run(SETTLING)
    frames = []
    for k in range(SAMPLES):
        dynamics.run(BETWEEN)
        frames.append(Frame(atoms.copy(), f"{name}, {temperature:g} K, frame {k + 1}"))
    return frames
