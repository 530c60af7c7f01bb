"""An exported NequIP or Allegro and the same model as nequip-compile writes it, in turn: CPU time of a step in ASE.

One process on one thread, rattled silicon; the first turn of each size is left out. Prints CPU milliseconds, the ratio
of each turn, and the largest difference of a force.

    nequip-compile MODEL.nequip.zip model.nequip.pt2 --mode aotinductor --device cpu --target ase
    OMP_NUM_THREADS=1 python nequip_compiled.py model.mlip.pt model.nequip.pt2
"""

import argparse
import statistics
import time

import torch
from ase.build import bulk
from nequip.integrations.ase import NequIPCalculator

from mlip_deploy.ase import MLIPCalculator

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="*.mlip.pt")
parser.add_argument("compiled", help="*.nequip.pt2")
parser.add_argument("--repeats", default="2,3,4", help="of the cubic cell of 8 atoms, in each direction")
parser.add_argument("--turns", type=int, default=3)
options = parser.parse_args()
torch.set_num_threads(1)
ours = MLIPCalculator(options.model, threads=1)
nequips = NequIPCalculator.from_compiled_model(options.compiled, device="cpu", chemical_species_to_atom_type_map=True)
for repeat in map(int, options.repeats.split(",")):
    atoms = bulk("Si", "diamond", a=5.43, cubic=True) * repeat
    atoms.rattle(0.05, seed=1)
    turns: list[list[float]] = []
    for _ in range(1 + options.turns):
        atoms.positions += 0.001  # so that nothing is remembered
        turns.append([])
        forces = []
        for calculator in (ours, nequips):
            start = time.process_time()
            forces.append(calculator.get_property("forces", atoms))
            turns[-1].append(1e3 * (time.process_time() - start))
    first, second = (statistics.median(values) for values in zip(*turns[1:], strict=True))
    ratios = [other / own for own, other in turns[1:]]
    print(
        f"{len(atoms)} atoms  {first:.0f} and {second:.0f} CPU-ms  {statistics.median(ratios):.2f} times faster "
        f"({', '.join(f'{ratio:.2f}' for ratio in ratios)})  forces within {abs(forces[0] - forces[1]).max():.0e} eV/Å"
    )
