"""`mlip bench`: how fast an artifact runs, beside another artifact or the framework that it came from.

Two things are compared only when they were measured alternately, pair by pair, in one run: a ratio then survives
another program on the machine. Each case runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from rich.console import Console
from rich.table import Table

from mlip_deploy.artifact import Artifact
from mlip_deploy.command_line import comma_separated
from mlip_deploy.errors import MLIPError

ORIGINAL = "original"
ENGINES = ("ase", "lammps")
WARM_UP = 2
"""Evaluations before the clock starts."""


@dataclass(frozen=True)
class Case:
    """One line of the table: what runs where."""

    system: str
    engine: str
    threads: int
    ranks: int


@dataclass
class Measurement:
    """Samples of one contestant in one case; a sample is the mean over the steps between two looks at the clock."""

    name: str
    n_atoms: int
    n_edges: int | None = None
    wall: list[float] = field(default_factory=list)
    """s per step"""
    cpu: list[float] = field(default_factory=list)
    """CPU-s per step, summed over threads; empty for several ranks"""
    outside: list[float] = field(default_factory=list)
    """time outside the model over time in the model: neighbour list, forces, copies"""
    peak_memory_per_atom: float | None = None
    """bytes: growth of the process's peak memory over that after a tiny system, divided by the atoms"""

    def summary(self) -> dict[str, Any]:
        wall = statistics.median(self.wall)
        return {
            **asdict(self),
            "ms_per_step": 1e3 * wall,
            "cpu_ms_per_step": 1e3 * statistics.median(self.cpu) if self.cpu else None,
            "katom_step_per_s": 1e-3 * self.n_atoms / wall,
            "share_outside_model": statistics.median(self.outside) if self.outside else None,
        }


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
    parser.add_argument("--ranks", type=_counts, default=[1], help="MPI ranks, for LAMMPS, such as 1,2")
    parser.add_argument("--pairs", type=int, default=5, help="samples of each contestant, taken in turn")
    parser.add_argument("--steps", type=int, default=2, help="steps in one sample")
    parser.add_argument(
        "--against",
        help="another artifact, or 'original' for the training framework's own ASE calculator "
        "('original:CHECKPOINT' if the artifact came from a file)",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the peak memory, which needs processes of its own"
    )
    parser.add_argument(
        "--roofline",
        action="store_true",
        help="also count the operations and bytes of a step and measure this processor's ceilings (one thread)",
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
    contestants = [arguments.file]
    Artifact(arguments.file).contract  # noqa: B018  says what is wrong with the file before a process is started
    if arguments.against:
        if not arguments.against.startswith(ORIGINAL):
            Artifact(arguments.against).contract  # noqa: B018
        contestants.append(arguments.against)
    for system in arguments.systems:
        build_system(system)
    cases = [
        Case(system, engine, threads, ranks)
        for system in arguments.systems
        for engine in arguments.engines
        for threads in arguments.threads
        for ranks in arguments.ranks
        if engine == "lammps" or ranks == 1
    ]
    if not cases:
        raise MLIPError(f"--ranks {arguments.ranks}: only LAMMPS runs on several ranks. Add: --engines lammps")
    records = []
    for case in cases:
        console.print(f"[dim]{_label(asdict(case))} ...", highlight=False)
        measurements = _in_process(measure, case, contestants, arguments.pairs, arguments.steps)
        if not arguments.no_memory and case.engine == "ase":
            for measurement, contestant in zip(measurements, contestants, strict=True):
                measurement.peak_memory_per_atom = _in_process(peak_memory_per_atom, case, contestant, arguments.file)
        records.append({"case": asdict(case), **_compare(case, measurements)})
    console.print(_table(records, len(contestants) > 1))
    rooflines = []
    if arguments.roofline:
        for system in arguments.systems:
            console.print(f"[dim]{system}, counting operations ...", highlight=False)
            rooflines.append(_in_process(roofline, arguments.file, system))
        console.print(_roofline_table(rooflines))
    report = {
        "machine": _machine(),
        "file": arguments.file,
        "against": arguments.against,
        "records": records,
        "rooflines": rooflines,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    if arguments.plot:
        _plot(records, arguments.plot)
    return 0


# ---- systems ------------------------------------------------------------------------------------------------------

RATTLE = 0.05
"""Å, standard deviation of the displacement that takes a crystal off its symmetric point."""


def build_system(name: str) -> Atoms:
    """A periodic system by name: "si512" (diamond), "nacl512" (rocksalt) or "water192", with that many atoms.

    Deterministic. Crystals are cubes of 8-atom cells, so they have 8 n³ atoms; water is n³ molecules on a grid, turned
    at random, at 1 g/cm³.

    Raises:
        MLIPError: for an unknown name or a number of atoms that does not make a cube.
    """
    match = re.fullmatch(r"(si|nacl|water)(\d+)", name.lower())
    if not match:
        raise MLIPError(
            f"system '{name}' is not known. Take si64, si216, si512, si1728, nacl64, nacl512, water192, water648 ..."
        )
    kind, n_atoms = match[1], int(match[2])
    per_cell = 3 if kind == "water" else 8
    repeats = round((n_atoms / per_cell) ** (1 / 3))
    if repeats < 1 or per_cell * repeats**3 != n_atoms:
        nearest = sorted({per_cell * max(1, repeats + k) ** 3 for k in (-1, 0, 1)})
        names = ", ".join(f"{kind}{n}" for n in nearest)
        raise MLIPError(f"system '{name}': {n_atoms} atoms do not make a cube. Take one of: {names}")
    random = np.random.default_rng(7)
    if kind == "water":
        return _water(repeats, random)
    cell = bulk("Si", "diamond", a=5.43, cubic=True) if kind == "si" else bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms: Atoms = cell.repeat(repeats)
    atoms.positions += random.normal(scale=RATTLE, size=atoms.positions.shape)
    return atoms


def _water(repeats: int, random: np.random.Generator) -> Atoms:
    spacing = (18.015 / 6.02214076e23 * 1e24) ** (1 / 3)  # Å, one molecule at 1 g/cm³
    atoms = Atoms(cell=3 * [repeats * spacing], pbc=True)
    for corner in np.ndindex(repeats, repeats, repeats):
        one = molecule("H2O")
        one.euler_rotate(*random.uniform(0, 360, size=3), center="COM")
        one.positions += spacing * np.array(corner) - one.get_center_of_mass()
        atoms += one
    return atoms


# ---- measuring ----------------------------------------------------------------------------------------------------


def measure(case: Case, contestants: list[str], pairs: int, steps: int) -> list[Measurement]:
    """Samples of all contestants, taken in turn. Meant for a process of its own: it sets torch's threads."""
    if case.engine == "lammps":
        return _measure_lammps(case, contestants, pairs, steps)
    runners = [_runner(contestant, contestants[0], case.threads) for contestant in contestants]
    atoms = build_system(case.system)
    measurements = [Measurement(name, len(atoms)) for name in contestants]
    for runner in runners:
        for _ in range(WARM_UP):
            runner(atoms)
    random = np.random.default_rng(11)
    for _ in range(pairs):
        frames = [_moved(atoms, random) for _ in range(steps)]
        for runner, measurement in zip(runners, measurements, strict=True):
            inside_before = _seconds_in_model(runner)
            wall, cpu = time.perf_counter(), time.process_time()
            for frame in frames:
                runner(frame)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            measurement.wall.append(wall / steps)
            measurement.cpu.append(cpu / steps)
            if inside_before is not None:
                inside = _seconds_in_model(runner) - inside_before
                measurement.outside.append((wall - inside) / inside)
    return measurements


def peak_memory_per_atom(case: Case, contestant: str, artifact: str) -> float:
    """Bytes per atom by which one evaluation of the system raises the peak of this (fresh) process.

    The peak after a tiny system holds the libraries and the weights.
    """
    runner = _runner(contestant, artifact, case.threads)
    tiny = build_system(
        "".join(c for c in case.system if c.isalpha()) + ("3" if case.system.startswith("water") else "8")
    )
    atoms = build_system(case.system)
    runner(tiny)
    before = _peak_memory()
    runner(atoms)
    return (_peak_memory() - before) / len(atoms)


def _peak_memory() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _runner(contestant: str, artifact: str, threads: int) -> Callable[[Atoms], Any]:
    """Something that evaluates energy, forces and stress of a structure."""
    import torch

    if not contestant.startswith(ORIGINAL):
        from mlip_deploy.ase import MLIPCalculator

        return _ArtifactRunner(MLIPCalculator(contestant, threads=threads))
    torch.set_num_threads(threads)
    contract = Artifact(artifact).contract
    source = contestant.partition(":")[2] or contract.model.name
    if contract.model.family != "sevennet":
        raise MLIPError(f"--against original: no calculator is known for the family '{contract.model.family}'")
    from sevenn.calculator import SevenNetCalculator

    from mlip_deploy.export.wrapper import quiet

    modal = next((entry.value for entry in contract.inputs if entry.name == "modal"), None)
    with quiet():
        calculator: Any = SevenNetCalculator(source, modal=modal, device="cpu")

    def evaluate(atoms: Atoms) -> None:
        calculator.calculate(atoms)

    return evaluate


class _ArtifactRunner:
    """Evaluates through the ASE calculator and knows how long the bare model took."""

    def __init__(self, calculator: Any):
        self.calculator = calculator

    def __call__(self, atoms: Atoms) -> None:
        self.calculator.calculate(atoms)

    def seconds_in_model(self) -> float:
        seconds: float = self.calculator.potential.timings()[1]
        return seconds


def _seconds_in_model(runner: Callable[[Atoms], Any]) -> Any:
    return runner.seconds_in_model() if isinstance(runner, _ArtifactRunner) else None


def _moved(atoms: Atoms, random: np.random.Generator) -> Atoms:
    """A step of molecular dynamics moves atoms by about a hundredth of an Ångström."""
    moved: Atoms = atoms.copy()
    moved.positions += random.normal(scale=0.01, size=moved.positions.shape)
    return moved


# Loads each model anew for each sample, so that both can take turns in one LAMMPS process; only `run` is timed.
LAMMPS_HEAD = """\
units metal
boundary p p p
atom_style atomic
read_data data.lammps
velocity all create 300.0 4928459
timestep 0.001
fix nve all nve
thermo 100000
"""
LAMMPS_SAMPLE = """\
pair_style mlip threads {threads}
pair_coeff * * "{path}" {elements}
run {warm_up}
print "mlip_sample {index}"
run {steps}
"""
LOOP_TIME = re.compile(
    r"mlip_sample (\d+)\n.*?Loop time of (\S+) on .*?pair_style mlip:.*?, (\S+) edges"
    r".*?outside the model .*?\((\S+) %\)",
    re.DOTALL,
)


def _measure_lammps(case: Case, contestants: list[str], pairs: int, steps: int) -> list[Measurement]:
    from mlip_deploy.engines.lammps import run as run_lammps
    from mlip_deploy.engines.lammps import write_data

    atoms = build_system(case.system)
    measurements = [Measurement(name, len(atoms)) for name in contestants]
    artifacts = {k: path for k, path in enumerate(contestants) if not path.startswith(ORIGINAL)}
    originals = {
        k: _runner(name, contestants[0], case.threads)
        for k, name in enumerate(contestants)
        if name.startswith(ORIGINAL)
    }
    with tempfile.TemporaryDirectory(prefix="mlip-bench-") as directory:
        frame = write_data(atoms, Path(directory) / "data.lammps")
        random = np.random.default_rng(11)
        # Without the framework in the game one process takes all samples; with it they alternate between processes.
        for _ in range(pairs if originals else 1):
            script = LAMMPS_HEAD
            for _ in range(1 if originals else pairs):
                for k, path in artifacts.items():
                    script += LAMMPS_SAMPLE.format(
                        threads=case.threads, path=Path(path).resolve(), elements=" ".join(frame.elements),
                        warm_up=WARM_UP, steps=steps, index=k,
                    )  # fmt: skip
            output = run_lammps(script, directory, ranks=case.ranks)
            samples = LOOP_TIME.findall(output)
            if len(samples) != len(artifacts) * (1 if originals else pairs):
                raise MLIPError(f"LAMMPS printed {len(samples)} timings:\n{output[-2000:]}")
            for index, seconds, _edges, outside in samples:
                measurements[int(index)].wall.append(float(seconds) / steps)
                measurements[int(index)].outside.append(0.01 * float(outside))
            for k, runner in originals.items():
                frames = [_moved(atoms, random) for _ in range(WARM_UP + steps)]
                for moved in frames[:WARM_UP]:
                    runner(moved)
                start = time.perf_counter()
                for moved in frames[WARM_UP:]:
                    runner(moved)
                measurements[k].wall.append((time.perf_counter() - start) / steps)
    return measurements


def _in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a fresh process: nothing of an earlier case is in its memory or its thread pools."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


# ---- roofline -----------------------------------------------------------------------------------------------------


def roofline(path: str, system: str) -> dict[str, Any]:
    """Operations and least memory traffic of one step, by operator, beside what this processor can do on one thread.

    Counted, not measured: two operations for each multiply-add that the mathematics needs. The convolution's bytes are
    those that must move if every row of features, every radial coefficient and every gradient comes from beyond the
    first cache once for each edge; its outputs stay there while a centre's edges are summed.
    """
    import torch

    from mlip_deploy.export.wrapper import quiet
    from mlip_deploy.operators import load_operators

    load_operators()
    torch.set_num_threads(1)
    contract = Artifact(path).contract
    if contract.backend != "torchscript":
        raise MLIPError(f"--roofline {path}: a compiled file does not say what it computes. Give a TorchScript file")
    module = torch.jit.load(path)  # type: ignore[no-untyped-call]
    atoms = build_system(system)
    types = torch.tensor(contract.types_of(atoms.get_chemical_symbols()))
    centres, neighbours, vectors = _pairs(atoms, contract.cutoff)
    edges = torch.tensor(np.stack([centres, neighbours]).astype(np.int64))
    dtype = torch.float32 if contract.dtype == "float32" else torch.float64
    inputs = (types, len(atoms), edges, torch.tensor(vectors, dtype=dtype))
    size = dtype.itemsize
    torch._C._jit_set_profiling_executor(False)
    with quiet():
        for _ in range(WARM_UP):
            module(*inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as profile:
            module(*inputs)
    seconds = {"convolution": 0.0, "symmetric contraction": 0.0, "matrix products": 0.0, "the rest": 0.0}
    operations = {"convolution": 0.0, "matrix products": 0.0}
    for event in profile.key_averages():
        if event.key.startswith("mlip::edge_tensor_product"):
            kind = "convolution"
        elif event.key.startswith("mlip::symmetric_contraction"):
            kind = "symmetric contraction"
        elif event.key in ("aten::mm", "aten::bmm", "aten::addmm"):
            kind = "matrix products"
            operations[kind] += event.flops
        else:
            kind = "the rest"
        seconds[kind] += 1e-6 * event.self_cpu_time_total
    bytes_moved = 0.0
    graph = module.inlined_graph  # its nodes live no longer than this name
    for k, node in enumerate(graph.findAllNodes("mlip::edge_tensor_product")):
        numbers, table = node.inputsAt(5).toIValue(), node.inputsAt(7).toIValue()
        paths = [numbers[p : p + 9] for p in range(0, len(numbers), 9)]
        per_edge, per_edge_bytes = convolution_cost(paths, table.numel() > 0, first=k == 0)
        operations["convolution"] += per_edge * len(centres)
        bytes_moved += per_edge_bytes * size * len(centres)
    return {
        "system": system,
        "n_atoms": len(atoms),
        "n_edges": len(centres),
        "seconds": seconds,
        "operations": operations,
        "convolution_bytes": bytes_moved,
        "ceiling_operations_per_s": _matrix_product_ceiling(dtype),
        "ceiling_bytes_per_s": _copy_ceiling(),
    }


def convolution_cost(paths: list[list[int]], tabulated: bool, first: bool) -> tuple[float, float]:
    """(operations, values moved) per edge of `mlip::edge_tensor_product`, forward and backward together.

    Args:
        paths: rows as the operator takes them.
        tabulated: whether radial weights are polynomials, evaluated twice, the second time with their slope.
        first: in the first layer features depend on the element alone, and their gradient is not wanted.
    """
    operations, features, n_weights = 0.0, 0, 0
    for l1, l2, l3, channels, start, *_ in paths:
        n1, n2, n3 = 2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1
        # x w and then c over n1 x n3: forward. Backward: c over n1 x n3, dE/dw, w x, dE/dx, dE/dc.
        forward = n1 + 2 * n1 * n3
        backward = 2 * n1 * n3 + 2 * n1 + n1 + (0 if first else 2 * n1) + 2 * n1 * n3
        if tabulated:
            forward += 10
            backward += 18 + 2
        operations += channels * (forward + backward) + 3 * 2 * n1 * n2 * n3
        features = max(features, start + n1 * channels)
        n_weights += channels
    # forward: features; backward: features, and their gradient read and written. Weights: stored ones are read twice
    # and their gradient is written, tabulated ones are six rows, twice.
    values = features * (2 if first else 4) + n_weights * (12 if tabulated else 3)
    return operations, values


def _pairs(atoms: Atoms, cutoff: float) -> tuple[Any, Any, Any]:
    from vesin import NeighborList

    pairs = NeighborList(cutoff=cutoff, full_list=True, sorted=True)
    i, j, vectors = pairs.compute(atoms.positions, atoms.cell.array, True, "ijD")
    return i, j, vectors


def _matrix_product_ceiling(dtype: Any) -> float:
    """Operations per second of a large matrix product: the most arithmetic that this processor is seen to do."""
    import torch

    a, b = torch.rand(1024, 1024, dtype=dtype), torch.rand(1024, 1024, dtype=dtype)
    return 2 * 1024**3 / _best_time(lambda: torch.mm(a, b))


def _copy_ceiling() -> float:
    """Bytes per second, read and written, of a copy much larger than the caches."""
    import torch

    source = torch.ones(1 << 27, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best_time(lambda: target.copy_(source))


def _best_time(action: Callable[[], Any], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def _roofline_table(rooflines: list[dict[str, Any]]) -> Table:
    table = Table(title="one step on one thread")
    for title in ("system", "part"):
        table.add_column(title)
    for title in ("ms", "share", "GFLOP", "GFLOP/s", "of the ceiling", "GB/s if nothing is cached"):
        table.add_column(title, justify="right")
    for entry in rooflines:
        total = sum(entry["seconds"].values())
        for part, seconds in entry["seconds"].items():
            operations = entry["operations"].get(part)
            cells = [entry["system"], part, f"{1e3 * seconds:.1f}", f"{100 * seconds / total:.0f} %"]
            if operations:
                rate = operations / seconds
                share = rate / entry["ceiling_operations_per_s"]
                cells += [f"{1e-9 * operations:.2f}", f"{1e-9 * rate:.1f}", f"{100 * share:.0f} %"]
                if part == "convolution":
                    cells.append(f"{1e-9 * entry['convolution_bytes'] / seconds:.1f}")
            table.add_row(*cells)
        table.add_row(
            entry["system"], "ceilings", "", "", "", f"{1e-9 * entry['ceiling_operations_per_s']:.1f}", "",
            f"{1e-9 * entry['ceiling_bytes_per_s']:.1f} (copy)", end_section=True,
        )  # fmt: skip
    return table


# ---- reporting ----------------------------------------------------------------------------------------------------


def _compare(case: Case, measurements: list[Measurement]) -> dict[str, Any]:
    """Summaries, and the ratio of each pair of samples: how many times faster the first contestant is.

    On one thread in ASE both run in this process and CPU seconds are compared, which other programs on the machine
    do not change; otherwise wall-clock seconds.
    """
    record: dict[str, Any] = {"results": [measurement.summary() for measurement in measurements]}
    if len(measurements) == 2:
        first, second = measurements
        clock = "cpu" if case.threads == 1 and first.cpu and second.cpu else "wall"
        ratios = [b / a for a, b in zip(getattr(first, clock), getattr(second, clock), strict=True)]
        record |= {"clock": clock, "ratios": ratios, "ratio": statistics.median(ratios)}
    return record


def _table(records: list[dict[str, Any]], compared: bool) -> Table:
    table = Table(title="mlip bench (medians)")
    table.add_column("case", no_wrap=True)
    table.add_column("file", overflow="fold")
    for title in ("ms/step", "CPU ms/step", "katom-step/s", "kB/atom", "outside model"):
        table.add_column(title, justify="right", no_wrap=True)
    if compared:
        table.add_column("times faster (pair by pair)", justify="right")
    for record in records:
        for k, result in enumerate(record["results"]):
            cpu, memory, outside = (
                result["cpu_ms_per_step"],
                result["peak_memory_per_atom"],
                result["share_outside_model"],
            )
            cells = [
                _label(record["case"]) if k == 0 else "",
                Path(result["name"]).name,
                f"{result['ms_per_step']:.1f}",
                "" if cpu is None else f"{cpu:.1f}",
                f"{result['katom_step_per_s']:.3f}",
                "" if memory is None else f"{memory / 1000:.0f}",
                "" if outside is None else f"{100 * outside:.2f} %",
            ]
            if compared:
                pairs = ", ".join(f"{ratio:.2f}" for ratio in record["ratios"])
                cells.append(f"[bold]{record['ratio']:.2f}x[/] {record['clock']} ({pairs})" if k == 0 else "")
            table.add_row(*cells, end_section=k == len(record["results"]) - 1)
    return table


def _label(case: dict[str, Any], separator: str = ", ") -> str:
    """Such as "si512, lammps, 2 threads"; ranks only where there are several."""
    parts = [case["system"], case["engine"], f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}"]
    if case["ranks"] > 1:
        parts.append(f"{case['ranks']} ranks")
    return separator.join(parts)


def _plot(records: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(1.5 + 1.4 * len(records), 4.0), layout="constrained")
    names = [Path(result["name"]).name for result in records[0]["results"]]
    for k, name in enumerate(names):
        heights = [record["results"][k]["katom_step_per_s"] for record in records]
        bars = axes.bar(
            np.arange(len(records)) + 0.8 * (k + 0.5) / len(names) - 0.4, heights, 0.8 / len(names), label=name
        )
        axes.bar_label(bars, fmt="%.3g")
    labels = [_label(record["case"], "\n") for record in records]
    axes.set_xticks(np.arange(len(records)), labels)
    axes.set_ylabel("10³ atom·steps / s")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _machine() -> dict[str, Any]:
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.*)", cpuinfo.read_text())
        processor = found[1] if found else processor
    return {
        "processor": processor,
        "cores": multiprocessing.cpu_count(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in comma_separated(text)]
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of positive numbers")
    return counts


def main() -> int:
    """`python -m mlip_deploy.bench`, the same as `mlip bench`."""
    parser = argparse.ArgumentParser(prog="mlip bench")
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except MLIPError as error:
        print(f"mlip bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
