"""An atom whose position is not a number, in ASE calculators: docs/conform.md.

python not_a_number.py sevennet    or chgnet, nequix
"""

import sys

import numpy as np
from ase.build import bulk

name = sys.argv[1]
if name == "sevennet":
    from sevenn.calculator import SevenNetCalculator as Calculator
elif name == "chgnet":
    from chgnet.model.dynamics import CHGNetCalculator as Calculator
else:
    from nequix.calculator import NequixCalculator as Calculator
atoms = bulk("CuNi", "cesiumchloride", a=2.87).repeat((2, 1, 1))
atoms.calc = Calculator(use_kernel=False) if name == "nequix" else Calculator()
before = atoms.get_potential_energy()
atoms.positions[0, 1] = np.nan
print(f"{name}: {before:.2f} eV; with the nan {atoms.get_potential_energy():.2f} eV")
print("all forces finite:", bool(np.isfinite(atoms.get_forces()).all()))
