"""SevenNet's own calculator: a whole step, and its model alone on a graph that is on the GPU already.

The environment as for steps.py, and ACCELERATOR: none, or cueq, flash or oeq, as `mlip bench` names them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sevenn.calculator import SevenNetCalculator

from mlip_deploy.bench.systems import build_system

DEVICE, ACCELERATOR = os.environ["DEV"], os.environ.get("ACCELERATOR", "none")
CUDA = DEVICE == "cuda"


class Timed:
    """A model whose calls are timed."""

    def __init__(self, model: Any) -> None:
        self.model, self.seconds = model, list[float]()

    def __call__(self, data: Any) -> Any:
        wait()
        start = time.perf_counter()
        output = self.model(data)
        wait()
        self.seconds.append(time.perf_counter() - start)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def main() -> None:
    options = {} if ACCELERATOR == "none" else {f"enable_{ACCELERATOR}": True}
    calculator = SevenNetCalculator("7net-0", device=DEVICE, **options)
    timed = Timed(calculator.model)
    calculator.__dict__["model"] = timed
    rows, failed = [], False
    for size in [int(size) for size in os.environ["SIZES"].split(",")][:3]:
        try:
            atoms, random = build_system(f"si{size}"), np.random.default_rng(0)
            if CUDA:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            whole: list[float] = []
            timed.seconds.clear()
            for _ in range(5 if CUDA else 2):
                atoms.positions += random.normal(scale=0.003, size=atoms.positions.shape)
                start = time.perf_counter()
                calculator.calculate(atoms, ["energy", "forces", "stress"], ["positions"])
                wait()
                whole.append(time.perf_counter() - start)
            peak = torch.cuda.max_memory_allocated() / 1e6 if CUDA else 0.0
            ms, alone = 1e3 * min(whole[1:]), 1e3 * min(timed.seconds[1:])
            rows.append({"n_atoms": size, "ms": ms, "ms_in_model": alone, "peak_MB": peak, "accelerator": ACCELERATOR})
            times = f"{ms:.1f} ms a step, {alone:.1f} in the model"
            print(f"RESULT SevenNet si{size}: {times}, peak {peak:.0f} MB", flush=True)
        except Exception as error:  # the other sizes are still worth knowing
            failed = True
            print(f"RESULT SevenNet si{size}: FAILED {type(error).__name__}: {str(error)[:200]}", flush=True)
    Path(os.environ["LOGS"], f"framework-{ACCELERATOR}.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
