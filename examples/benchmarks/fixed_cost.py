"""What a step costs before there is any work: atoms without edges. CPU time per step, and the operators of torch in it.

Files take turns. Each turn is a fresh process on one thread, which runs the TorchScript module alone; of many turns the
fastest counts, since other programs only add to the time.

    python fixed_cost.py before.mlip.pt after.mlip.pt --before OLD/bin/python --after NEW/bin/python
"""

import argparse
import json
import os
import subprocess
import sys

TURN = """
import collections, json, sys, time
import torch
from torch.profiler import ProfilerActivity, profile
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.exporters.interface import TORCH_DTYPE
from mlip_deploy.operators import load_operators

path, n_atoms, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
load_operators()
torch._C._set_graph_executor_optimize(False)  # as csrc/model/torchscript_backend.cpp
model = torch.jit.load(path)
types = torch.zeros(n_atoms, dtype=torch.int64)
edges = torch.zeros(2, 0, dtype=torch.int64)
vectors = torch.zeros(0, 3, dtype=TORCH_DTYPE[Artifact(path).contract.dtype])
for _ in range(20):
    model(types, n_atoms, edges, vectors)
used = []
for _ in range(steps):
    start = time.process_time_ns()
    model(types, n_atoms, edges, vectors)
    used.append(time.process_time_ns() - start)
with profile(activities=[ProfilerActivity.CPU]) as profiled:
    model(types, n_atoms, edges, vectors)
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
