"""An atom whose position is not a number, in the ASE calculators of SevenNet and CHGNet: docs/conform.md."""

import numpy as np
from ase.build import bulk
from chgnet.model.dynamics import CHGNetCalculator
from sevenn.calculator import SevenNetCalculator

for calculator in (SevenNetCalculator("7net-0", device="cpu"), CHGNetCalculator(use_device="cpu")):
    atoms = bulk("CuNi", "cesiumchloride", a=2.87).repeat((2, 1, 1))
    atoms.calc = calculator
    before = atoms.get_potential_energy()
    atoms.positions[0, 1] = np.nan
    print(f"{type(calculator).__name__}: {before:.2f} eV; with the nan {atoms.get_potential_energy():.2f} eV")
    print("all forces finite:", bool(np.isfinite(atoms.get_forces()).all()))
