"""How much faster many small structures are in one pass than one by one: silicon cells with a file that knows silicon.

python examples/benchmarks/evaluate_many.py 7net-0.mlip.pt
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk

import mlip_deploy as mlip

ROUNDS = 5
STRUCTURES = 32


def structures(cell: Atoms) -> list[Atoms]:
    made = [cell.copy() for _ in range(STRUCTURES)]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.05, seed=seed)
    return made


def one_by_one(calculator: mlip.MLIPCalculator, frames: list[Atoms]) -> None:
    for atoms in frames:
        atoms.calc = calculator
        atoms.get_forces()


Run = Callable[[mlip.MLIPCalculator, list[Atoms]], object]


def seconds(run: Run, calculator: mlip.MLIPCalculator, frames: list[Atoms]) -> float:
    start = time.process_time()
    run(calculator, frames)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    calculator = mlip.MLIPCalculator(parser.parse_args().file, threads=1)
    print("atoms    ms each, one by one    in one pass    ratio    (CPU time, medians of interleaved runs)")
    for cell in (
        bulk("Si"),
        bulk("Si", cubic=True),
        bulk("Si", cubic=True).repeat((2, 1, 1)),
        bulk("Si", cubic=True) * 2,
    ):
        alone, together = [], []
        for _ in range(ROUNDS):
            frames = structures(cell)  # not those of the last round, which ASE would not compute again
            alone.append(seconds(one_by_one, calculator, frames))
            together.append(seconds(mlip.evaluate_many, calculator, frames))
        ratio = np.median(np.array(alone) / np.array(together))
        each = [1000.0 * np.median(times) / STRUCTURES for times in (alone, together)]
        print(f"{len(cell):5d} {each[0]:16.2f} {each[1]:18.2f} {ratio:13.2f}")


if __name__ == "__main__":
    main()
