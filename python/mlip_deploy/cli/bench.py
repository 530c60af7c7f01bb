"""`mlip bench` on the command line: what to measure, and where the results go."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.bench.frameworks import ACCELERATORS, parse_framework
from mlip_deploy.bench.measure import (
    ENGINES,
    Contestant,
    Workload,
    compare,
    in_process,
    measure,
    peak_memory_per_atom,
)
from mlip_deploy.bench.report import label, machine, plot, roofline_table, scaling_table, table
from mlip_deploy.bench.roofline import roofline
from mlip_deploy.bench.scaling import measure_scaling
from mlip_deploy.bench.systems import build_system
from mlip_deploy.cli.options import comma_separated
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure an artifact's speed and memory, alone or against another one, pair by pair in one run."
    )
    parser.add_argument("file", help="artifact written by `mlip export`")
    parser.add_argument(
        "--systems",
        type=comma_separated,
        default=["si64", "si216", "si512"],
        help="comma-separated: si64 si216 si512 si1728 (diamond), nacl64 ... (rocksalt), water192 ... (1 g/cm³)",
    )
    parser.add_argument("--engines", type=comma_separated, default=["ase"], help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--threads", type=_counts, default=[1], help="CPU threads in the model, such as 1,2")
    parser.add_argument("--device", default="cpu", help="of the model: cpu (default), cuda, cuda:N or auto")
    parser.add_argument("--ranks", type=_counts, default=[1], help="MPI ranks, for LAMMPS, such as 1,2")
    parser.add_argument("--pairs", type=int, default=5, help="samples of each contestant, taken in turn")
    parser.add_argument("--steps", type=int, default=2, help="steps in one sample")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        help="another artifact, or 'original' for the training framework's own code "
        "('original:CHECKPOINT' if the artifact came from a file), 'original+ACCELERATOR' with one of "
        f"{', '.join(ACCELERATORS)}; may be given several times",
    )
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="run the code that the CHECKPOINT of --against may contain"
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the peak memory, which needs processes of its own"
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="also count the operations and bytes of a step and measure this processor's ceilings (one thread)",
    )
    parser.add_argument(
        "--scaling",
        type=int,
        metavar="N",
        help="also measure what N threads and N ranks gain in LAMMPS, beside N separate processes",
    )
    parser.add_argument("--json", type=Path, help="write every sample there")
    parser.add_argument("--plot", type=Path, help="write a bar chart there (PNG, PDF or SVG)")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write what was asked for. Returns the exit status."""
    console = Console()
    if not console.is_terminal:
        console.width = 140  # a log has room for the whole table
    for engine in arguments.engines:
        if engine not in ENGINES:
            raise MLIPError(f"--engines: '{engine}' is not one of {', '.join(ENGINES)}")
    if arguments.pairs < 1 or arguments.steps < 1:
        raise MLIPError("--pairs and --steps must be positive")
    if arguments.scaling is not None and arguments.scaling < 2:
        raise MLIPError(f"--scaling {arguments.scaling}: expected two threads and ranks, or more")
    if arguments.device != "cpu":
        for option, value in (("--roofline", arguments.roofline), ("--scaling", arguments.scaling)):
            if value:
                raise MLIPError(f"{option} measures CPUs, found --device {arguments.device}. Leave out one of them")
    contestants = _contestants(arguments)
    for system in arguments.systems:
        build_system(system)
    cases = [
        Workload(system, engine, threads, ranks, arguments.device)
        for system in arguments.systems
        for engine in arguments.engines
        for threads in arguments.threads
        for ranks in arguments.ranks
        if engine == "lammps" or ranks == 1
    ]
    if not cases:
        raise MLIPError(f"--ranks {arguments.ranks}: only LAMMPS runs on several ranks. Add: --engines lammps")
    if arguments.device != "cpu":
        found = machine()
        versions = f"torch {found['torch']}, driver {found['driver'] or 'not found'}"
        console.print("\n".join([*found["gpus"], versions]), highlight=False)
    records = []
    for case in cases:
        console.print(f"[dim]{label(asdict(case))} ...", highlight=False)
        measurements = in_process(measure, case, contestants, arguments.pairs, arguments.steps)
        if not arguments.no_memory and case.engine == "ase":
            for measurement, contestant in zip(measurements, contestants, strict=True):
                measurement.peak_memory_per_atom = in_process(peak_memory_per_atom, case, contestant)
        records.append({"case": asdict(case), **compare(case, measurements)})
    console.print(table(records, len(contestants) > 1))
    rooflines = []
    if arguments.roofline:
        for system in arguments.systems:
            console.print(f"[dim]{system}, counting operations ...", highlight=False)
            rooflines.append(in_process(roofline, arguments.file, system))
        console.print(roofline_table(rooflines))
    scalings = []
    if arguments.scaling:
        for system in arguments.systems:
            console.print(f"[dim]{system}, threads, ranks and separate processes in turn ...", highlight=False)
            scalings.append(
                measure_scaling(arguments.file, system, arguments.scaling, arguments.pairs, arguments.steps)
            )
        console.print(scaling_table(scalings))
    report = {
        "machine": machine(),
        "file": arguments.file,
        "against": arguments.against,
        "records": records,
        "rooflines": rooflines,
        "scalings": scalings,
    }
    if arguments.json:
        write_text(arguments.json, json.dumps(report, indent=1))
    if arguments.plot:
        plot(records, arguments.plot)
    return 0


def _contestants(arguments: argparse.Namespace) -> list[Contestant]:
    """Says what is wrong with a file before a process is started."""
    Artifact(arguments.file)
    contestants: list[Contestant] = [arguments.file]
    for other in arguments.against:
        framework = parse_framework(other, arguments.file, arguments.trust_checkpoint)
        if framework is None:
            Artifact(other)
        contestants.append(framework or other)
    return contestants


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in comma_separated(text)]
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of positive numbers")
    return counts
