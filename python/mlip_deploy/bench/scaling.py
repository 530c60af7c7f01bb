"""How much N threads or N ranks gain, beside what the machine itself gives.

Two cores of one machine share its memory, its last cache and its clock, and a virtual machine's cores are shared with
others. N separate processes of one thread each, which wait for nothing, show what N cores can do at all: threads and
ranks are to be judged against that.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlip_deploy.bench.measure import lammps_samples
from mlip_deploy.bench.systems import build_system


def measure_scaling(path: str, system: str, n: int, pairs: int, steps: int) -> dict[str, Any]:
    """In LAMMPS, in turn: one process on one thread, the same on n threads, on n ranks, and n such processes at once.

    Returns:
        s per step of one, and for "threads", "ranks" and "copies" how many times more steps were done in the same
        time, for each turn and their median.
    """
    atoms = build_system(system)

    def seconds(threads: int = 1, ranks: int = 1) -> float:
        return lammps_samples(atoms, [path], threads, ranks, steps)[0].wall

    one: list[float] = []
    gains: dict[str, list[float]] = {"threads": [], "ranks": [], "copies": []}
    for _ in range(pairs):
        one.append(seconds())
        gains["threads"].append(one[-1] / seconds(threads=n))
        gains["ranks"].append(one[-1] / seconds(ranks=n))
        with ThreadPoolExecutor(n) as pool:
            together = list(pool.map(lambda _: seconds(), range(n)))
        gains["copies"].append(n * one[-1] / statistics.mean(together))
    return {
        "system": system,
        "n": n,
        "n_atoms": len(atoms),
        "seconds": one,
        "gains": gains,
        "medians": {kind: statistics.median(values) for kind, values in gains.items()},
    }
