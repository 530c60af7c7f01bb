"""What a step costs before there is any work: atoms without edges. CPU time per step, and the operators of torch in it.

Installations and files take turns. Each turn is a fresh process on one thread, which calls the C++ core as ASE does,
from positions to forces; of many steps the fastest counts, since other programs only add to the time.

    python fixed_cost.py before.mlip.pt after.mlip.pt --before OLD/bin/python --after NEW/bin/python
"""

import argparse
import json
import os
import subprocess
import sys

TURN = """
import json, sys, time
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from mlip_deploy import _core

path, n_atoms, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = _core.Potential(path, threads=1)
positions = 100.0 * np.arange(n_atoms)[:, None] * np.ones(3)
types, cell, periodic = np.zeros(n_atoms, dtype=np.int64), np.zeros((3, 3)), [False, False, False]
step = lambda: model.compute(positions, types, cell, periodic)
for _ in range(20):
    step()
used = []
for _ in range(steps):
    start = time.process_time_ns()
    step()
    used.append(time.process_time_ns() - start)
with profile(activities=[ProfilerActivity.CPU]) as profiled:
    step()
operators = [event for event in profiled.events() if event.name.startswith(("aten::", "mlip::"))]
print(json.dumps([min(used) / 1000, len(operators)]))
"""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", nargs="+", help="an artifact for both, or one for each")
parser.add_argument("--before", default=sys.executable, help="a Python in which mlip-deploy is installed")
parser.add_argument("--after", default=sys.executable, help="another one")
parser.add_argument("--atoms", type=int, default=8)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--pairs", type=int, default=3)
options = parser.parse_args()


def turn(python: str, model: str) -> tuple[float, int]:
    """CPU microseconds of the fastest step, and the number of operators that torch calls in one."""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", TURN, model, str(options.atoms), str(options.steps)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    used, operators = json.loads(done.stdout.splitlines()[-1])
    return used, operators


first, second = options.models[0], options.models[-1]
for _ in range(options.pairs):
    before, after = turn(options.before, first), turn(options.after, second)
    print(
        f"{options.atoms} atoms, no edges: {before[0]:.0f} -> {after[0]:.0f} µs per step "
        f"({before[0] / after[0]:.2f} times faster), operators {before[1]} -> {after[1]}",
        flush=True,
    )
