"""Steps of one thread and of several, alone on the machine and beside one program that always has work.

    python examples/benchmarks/shared_cores.py 7net-0.mlip.pt

All processes stay loaded and take turns; one at a time computes. Several threads compute once as mlip-deploy lets them
wait for each other, and once as libgomp does of itself. Wall-clock time, since it is what waiting costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mlip_deploy import MLIPCalculator
from mlip_deploy.bench.systems import build_system

SPINS_OF_LIBGOMP = "300000"
"""rounds, its own default; a hundred times fewer where there are more threads than cores"""


def serve(path: str, threads: int, system: str) -> None:
    """Compute as many steps as each line says, and print the seconds."""
    atoms, random = build_system(system), np.random.default_rng(0)
    atoms.calc = MLIPCalculator(path, threads=threads)

    def step() -> None:
        atoms.positions += random.normal(scale=0.003, size=atoms.positions.shape)
        atoms.get_forces()

    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


@contextmanager
def busy(programs: int):
    """So many programs that always have work."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="an exported file")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: as many as there are cores")
    parser.add_argument("--system", default="si216")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="in a turn")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.path, arguments.serve, arguments.system)
        return

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    variants = {
        "1 thread": (1, {}),
        f"{arguments.threads} threads": (arguments.threads, {}),
        f"{arguments.threads} threads, libgomp's own spinning": (
            arguments.threads, {"GOMP_SPINCOUNT": SPINS_OF_LIBGOMP},
        ),
    }  # fmt: skip
    servers = {}
    for name, (threads, extra) in variants.items():
        command = [
            sys.executable,
            Path(__file__),
            arguments.path,
            "--system",
            arguments.system,
            "--serve",
            str(threads),
        ]
        servers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**environment, **extra}
        )
        assert servers[name].stdout.readline() == "ready\n"

    print(f"| {arguments.system} | ms per step | times the steps of one thread (each turn) |")
    print("|---|---|---|")
    for programs in (0, 1):
        seconds = {name: [] for name in servers}
        with busy(programs):
            for _ in range(arguments.turns):
                for name, server in servers.items():
                    server.stdin.write(f"{arguments.steps}\n")
                    server.stdin.flush()
                    seconds[name].append(float(server.stdout.readline()) / arguments.steps)
        for name, samples in seconds.items():
            ratios = [one / own for one, own in zip(seconds["1 thread"], samples, strict=True)]
            each = (
                ""
                if name == "1 thread"
                else f"**{statistics.median(ratios):.2f}** ({', '.join(f'{r:.2f}' for r in ratios)})"
            )
            beside = ", beside a busy program" if programs else ""
            print(f"| {name}{beside} | {1e3 * statistics.median(samples):.1f} | {each} |")
    for server in servers.values():
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    main()
