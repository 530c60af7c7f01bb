"""`mlip bench` on the command line: what to measure, and where the results go."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlip_deploy.bench import ACCELERATORS, ENGINES
from mlip_deploy.cli.console import STANDARD_OUTPUT, errors, require_json, show, write_json
from mlip_deploy.cli.options import add_device, add_engines, add_json, comma_separated, counts
from mlip_deploy.engines import require_engine, require_hardware
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_file

if TYPE_CHECKING:
    from mlip_deploy.artifact.reader import Artifact
    from mlip_deploy.bench.measure import Contestant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and where the numbers go."""
    parser.description = (
        "Measure an artifact's speed and memory, alone or against another one, pair by pair in one run."
    )
    parser.add_argument("file", type=Path, help="artifact written by `mlip export`")
    parser.add_argument(
        "--systems",
        type=comma_separated,
        default=["si64", "si216", "si512"],
        help="comma-separated: si64 si216 si512 si1728 (diamond), nacl64 ... (rocksalt), water192 ... (1 g/cm³)",
    )
    add_engines(parser, ENGINES, ["ase"])
    parser.add_argument("--threads", type=counts, default=[1], help="CPU threads in the model, such as 1,2")
    add_device(parser)
    parser.add_argument("--ranks", type=counts, default=[1], help="MPI ranks, for LAMMPS, such as 1,2")
    parser.add_argument("--pairs", type=int, default=5, help="samples of each contestant, taken in turn")
    parser.add_argument(
        "--steps", type=int, default=2, help="steps in one sample; LAMMPS tells CPU time of samples of 0.1 s and more"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        help="another artifact, 'grades' or 'uncertainties' for the same one with these in every step, or 'original' "
        "for the training framework's own code "
        "('original:CHECKPOINT' if the artifact came from a file), 'original+ACCELERATOR' with one of "
        f"{', '.join(ACCELERATORS)}; 'MODULE:FUNCTION' for the ASE calculator that a function returns; "
        "'pair_style ...; pair_coeff ... {elements}' for another style of LAMMPS; may be given several times",
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
        help="also measure the gain of N threads and N ranks in LAMMPS, and of N separate processes",
    )
    add_json(parser, "every sample")
    parser.add_argument("--plot", type=Path, help="write a bar chart there (PNG, PDF or SVG)")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write what was asked for. Returns the exit status."""
    from mlip_deploy.bench.measure import Workload, compare, in_process, measure, peak_memory_per_atom
    from mlip_deploy.bench.report import label, machine, plot, roofline_table, scaling_table, table
    from mlip_deploy.bench.roofline import roofline
    from mlip_deploy.bench.scaling import measure_scaling
    from mlip_deploy.bench.systems import build_system

    for engine in arguments.engines:
        if engine not in ENGINES:
            raise MLIPError(f"--engines: '{engine}' is not one of {', '.join(ENGINES)}")
        require_engine(engine)
    if arguments.pairs < 1 or arguments.steps < 1:
        raise MLIPError("--pairs and --steps must be positive")
    if arguments.scaling is not None and arguments.scaling < 2:
        raise MLIPError(f"--scaling {arguments.scaling}: expected two threads and ranks, or more")
    if arguments.device != "cpu":
        for option, value in (("--roofline", arguments.roofline), ("--scaling", arguments.scaling)):
            if value:
                raise MLIPError(f"{option} measures CPUs, found --device {arguments.device}. Leave out one of them")
    require_hardware(device=arguments.device)
    require_json(arguments.json)
    if arguments.plot:
        require_file(arguments.plot)
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
        errors.print("\n".join([*found["gpus"], versions]))
    records = []
    for case in cases:
        errors.print(f"[dim]{label(asdict(case))} ...")
        measurements = in_process(measure, case, contestants, arguments.pairs, arguments.steps)
        if not arguments.no_memory and case.engine == "ase":
            for measurement, contestant in zip(measurements, contestants, strict=True):
                measurement.peak_memory_per_atom = in_process(peak_memory_per_atom, case, contestant)
        records.append({"case": asdict(case), **compare(case, measurements)})
    tables = [table(records, len(contestants) > 1)]
    file = str(arguments.file)
    rooflines = []
    if arguments.roofline:
        for system in arguments.systems:
            errors.print(f"[dim]{system}, counting operations ...")
            rooflines.append(in_process(roofline, file, system))
        tables.append(roofline_table(rooflines))
    scalings = []
    if arguments.scaling:
        for system in arguments.systems:
            errors.print(f"[dim]{system}, threads, ranks and separate processes in turn ...")
            scalings.append(measure_scaling(file, system, arguments.scaling, arguments.pairs, arguments.steps))
        tables.append(scaling_table(scalings))
    if arguments.json != STANDARD_OUTPUT:
        for one in tables:
            show(one)
    report = {
        "machine": machine(),
        "file": file,
        "against": arguments.against,
        "records": records,
        "rooflines": rooflines,
        "scalings": scalings,
    }
    if arguments.json:
        write_json(arguments.json, json.dumps(report, indent=1))
    if arguments.plot:
        plot(records, arguments.plot)
    return 0


def _contestants(arguments: argparse.Namespace) -> list[Contestant]:
    """Says what is wrong with a file before a process is started."""
    from mlip_deploy.artifact.reader import Artifact
    from mlip_deploy.bench.frameworks import parse_framework
    from mlip_deploy.bench.measure import FROM_THE_DOMAIN, Calculator, PairStyle, WithDomain

    file = str(arguments.file)
    artifact = Artifact(file)
    contestants: list[Contestant] = [file]
    for other in arguments.against:
        if other in FROM_THE_DOMAIN:
            _require_domain(artifact, other)
            if "openmm" in arguments.engines:
                raise MLIPError(f"--against {other}: measured in ase and lammps. Leave openmm out of --engines")
            contestants.append(WithDomain(file, other))
            continue
        if other.startswith("pair_style "):
            if arguments.engines != ["lammps"]:
                raise MLIPError(f"--against '{other}': it runs in LAMMPS alone. Add: --engines lammps")
            contestants.append(PairStyle(other))
            continue
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", other) and not other.startswith("original"):
            Calculator(other).make()
            contestants.append(Calculator(other))
            continue
        framework = parse_framework(other, file, arguments.trust_checkpoint)
        if framework is None:
            Artifact(other)
        contestants.append(framework or other)
    return contestants


def _require_domain(artifact: Artifact, quantity: str) -> None:
    domain, fit = artifact.domain(), f"Type: mlip domain fit {artifact.path} --frames FRAMES"
    if domain is None:
        raise MLIPError(f"--against {quantity}: '{artifact.path}' has no domain. {fit}")
    if quantity == "uncertainties" and domain.uncertainty is None:
        raise MLIPError(
            f"--against {quantity}: '{artifact.path}' has no uncertainties of energies, which its domain needs labels "
            f"for: 20 frames or more with energies. {fit}"
        )
