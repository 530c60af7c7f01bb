"""Steps through the core, as ASE takes them: time, memory, and what the GPU does in one, by torch's profiler. And
searches for neighbours, on the host and where the edges are.

From the environment: MODEL, DEV, SIZES (atoms of silicon, such as 512,4096), LOGS (folder for steps.json).
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench.systems import build_system

MODEL, DEVICE = os.environ["MODEL"], os.environ["DEV"]
SIZES = [int(size) for size in os.environ["SIZES"].split(",")]
CUDA = DEVICE == "cuda"
PROFILED = 3
"""Steps in a profile."""
LARGEST_PROFILED = 40_000
STEPS_FOR_MEMORY = 120
"""In which the number of edges changes: does reserved memory grow?"""


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def profiled(step: Callable[[], Any]) -> dict[str, Any]:
    """Operators, kernels and calls of the driver in one step; prints the longest kernels."""
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]) as found:
        for _ in range(PROFILED):
            step()
        wait()
    kernels: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    calls: collections.Counter[str] = collections.Counter()
    n_operators = 0
    for event in found.events() or []:
        if event.device_type == torch.autograd.DeviceType.CUDA:
            kernels[event.name[:90]][0] += 1 / PROFILED
            kernels[event.name[:90]][1] += 1e-3 * event.self_device_time_total / PROFILED
        elif event.name.startswith("cu"):
            calls[event.name] += 1
        elif event.name.startswith(("aten::", "mlip::")):
            n_operators += 1
    busy = sum(ms for _, ms in kernels.values())
    n_kernels = sum(n for n, _ in kernels.values())
    print(f"  in 1 step: {n_operators / PROFILED:.0f} operators, {n_kernels:.0f} kernels, GPU busy {busy:.3f} ms")
    print("  calls:", {name: round(n / PROFILED, 1) for name, n in calls.most_common(12)})
    for name, (n, ms) in sorted(kernels.items(), key=lambda one: -one[1][1])[:28]:
        print(f"    {ms:9.3f} ms {n:6.1f} x  {name}")
    return {"operators": n_operators / PROFILED, "gpu_busy_ms": busy, "kernels": kernels, "calls": calls}


def measured(potential: Any, n_atoms: int) -> dict[str, Any]:
    atoms = build_system(f"si{n_atoms}")
    types = np.asarray(Artifact(MODEL).contract.types_of(atoms.get_chemical_symbols()))
    cell, random, positions = atoms.cell.array, np.random.default_rng(5), atoms.positions.copy()

    def step() -> Any:
        nonlocal positions
        positions = positions + random.normal(scale=0.003, size=positions.shape)
        return potential.compute(positions, types, cell, [True] * 3)

    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        found = step()
    wait()
    whole, inside = [], []
    for _ in range(3 if n_atoms > 50_000 or not CUDA else 8 if n_atoms > 5000 else 25):
        before, start = potential.timings()[1], time.perf_counter()
        found = step()
        wait()
        whole.append(time.perf_counter() - start)
        inside.append(potential.timings()[1] - before)
    row = {
        "n_atoms": n_atoms,
        "n_edges": int(found["n_edges"]),
        "ms": 1e3 * float(np.median(whole)),
        "ms_in_model": 1e3 * float(np.median(inside)),
        "peak_MB": torch.cuda.max_memory_allocated() / 1e6 if CUDA else None,
        "energy": float(np.sum(found["energies"])) if "energies" in found else None,
    }
    peak = f", peak {row['peak_MB']:.0f} MB" if CUDA else ""
    print(
        f"RESULT si{n_atoms}: {row['ms']:.2f} ms a step, {row['ms_in_model']:.2f} in the model, {row['n_edges']} "
        f"edges{peak}, {1e3 * row['ms'] / n_atoms:.2f} µs per atom",
        flush=True,
    )
    if n_atoms < LARGEST_PROFILED:
        row["profile"] = profiled(step)
    if CUDA and n_atoms == 4096:
        reserved = []
        for k in range(STEPS_FOR_MEMORY):
            step()
            if k % 20 == 0:
                reserved.append(round(torch.cuda.memory_reserved() / 1e6))
        print(f"RESULT reserved MB over {STEPS_FOR_MEMORY} steps: {reserved}")
        row["reserved_MB"] = reserved
    return row


def searches(potential: Any, n_atoms: int) -> float:
    """-> ms of a search with a skin"""
    atoms = build_system(f"si{n_atoms}")
    types = np.asarray(Artifact(MODEL).contract.types_of(atoms.get_chemical_symbols()))
    taken = []
    for k in range(7):
        atoms.positions[0, 0] += (-1) ** k  # Å, farther than half the skin
        before = potential.search_seconds()
        potential.compute(atoms.positions, types, atoms.cell.array, [True] * 3, forces=False)
        taken.append(potential.search_seconds() - before)
    return 1e3 * float(np.median(taken[2:]))  # the first searches without a skin


def main() -> None:
    start = time.perf_counter()
    threads = 4 if CUDA else 1
    potential = _core.Potential(MODEL, device=DEVICE, threads=threads)
    on_host = _core.Potential(MODEL, device=DEVICE, threads=threads, edges="host")
    print(f"RESULT loaded in {time.perf_counter() - start:.1f} s on {potential.device}")
    rows, failed = [], False
    for size in SIZES:
        try:
            rows.append(measured(potential, size))
            ms = {where: searches(one, size) for where, one in (("auto", potential), ("host", on_host))}
            rows[-1]["ms_of_search"] = ms
            print(f"RESULT si{size}: a search {ms['auto']:.2f} ms, {ms['host']:.2f} on the host")
        except Exception as error:  # the other sizes are still worth knowing
            failed = True
            print(f"RESULT si{size}: FAILED {type(error).__name__}: {str(error)[:300]}")
    Path(os.environ["LOGS"], "steps.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
