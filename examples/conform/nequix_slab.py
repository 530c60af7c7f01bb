"""Nequix 0.4.5: a slab of Cu that is periodic along its surface, then with 16 Å of vacuum: docs/conform.md."""

from ase.build import fcc111
from nequix.calculator import NequixCalculator

slab = fcc111("Cu", (4, 4, 3), vacuum=8.0)
slab.rattle(0.05, seed=1)
slab.calc = NequixCalculator("nequix-mp-1", use_kernel=False)
for pbc in ((True, True, False), True):
    slab.pbc = pbc
    print(f"{pbc}: {slab.get_potential_energy():.3f} eV, first force {slab.get_forces()[0]}")
