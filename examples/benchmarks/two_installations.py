"""Two installations of mlip-deploy in turn, such as before and after a change: CPU time, page faults, peak memory.

Each turn is a fresh process on one thread, in ASE: a rattled crystal of silicon whose atoms move a little from step to
step. Prints medians over all turns, and the ratio of CPU times of each pair of turns.

    python two_installations.py before.mlip.pt after.mlip.pt --before OLD/bin/python --after NEW/bin/python
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

TURN = """
import json, resource, statistics, sys
import numpy as np
from ase.build import bulk
from mlip_deploy.ase import MLIPCalculator

path, repeat, steps, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
barostat = sys.argv[5] == "True"
atoms = bulk("Si", "diamond", a=5.43, cubic=True) * repeat
atoms.rattle(0.05, seed=1)
atoms.calc = MLIPCalculator(path, threads=1)
step = atoms.get_potential_energy if what == "energy" else atoms.get_forces
step()
moves = np.random.default_rng(0)
used, faults = [], []
for _ in range(steps):
    atoms.positions += moves.normal(0, 0.003, atoms.positions.shape)
    if barostat:
        atoms.set_cell(atoms.cell @ (np.eye(3) + moves.normal(0, 1e-4, (3, 3))), scale_atoms=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    faults.append(after.ru_minflt - before.ru_minflt)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([len(atoms), 1e3 * statistics.median(used), statistics.median(faults), peak]))
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", nargs="+", help="an artifact for both, or one for each")
parser.add_argument("--before", default=sys.executable, help="a Python in which mlip-deploy is installed")
parser.add_argument("--after", default=sys.executable, help="another one")
parser.add_argument("--repeat", type=int, default=3, help="of the cubic cell of 8 atoms, in each direction")
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--pairs", type=int, default=3)
parser.add_argument("--what", choices=("forces", "energy"), default="forces", help="what ASE is asked for")
parser.add_argument("--barostat", action="store_true", help="change the cell too in each step, by a strain of 1e-4")
options = parser.parse_args()


def turn(python: str, model: str) -> list[float]:
    """Atoms, CPU milliseconds and page faults per step (medians), peak of the process in MB."""
    arguments = [python, "-W", "ignore", "-c", TURN, model, str(options.repeat), str(options.steps), options.what]
    arguments.append(str(options.barostat))
    done = subprocess.run(
        arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    values: list[float] = json.loads(done.stdout)
    return values


turns = [
    (turn(options.before, options.models[0]), turn(options.after, options.models[-1])) for _ in range(options.pairs)
]
for name, rows in zip(("before", "after"), zip(*turns, strict=True), strict=True):
    atoms, cpu, faults, peak = (statistics.median(values) for values in zip(*rows, strict=True))
    print(f"{name:7} {atoms:.0f} atoms  {cpu:8.1f} CPU-ms  {faults:7.0f} page faults per step  peak {peak:.0f} MB")
ratios = [before[1] / after[1] for before, after in turns]
print(f"{statistics.median(ratios):.2f} times faster ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
