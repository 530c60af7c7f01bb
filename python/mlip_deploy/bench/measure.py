"""Samples of time and memory, taken in turn.

Each case runs in a process of its own, so that nothing of an earlier one is in its memory or its thread pools.
"""

from __future__ import annotations

import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes

from mlip_deploy.bench.frameworks import Framework, framework_runner, torch_device
from mlip_deploy.bench.systems import build_system
from mlip_deploy.engines.openmm_box import in_reduced_box
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import temporary_folder
from mlip_deploy.progress import Progress
from mlip_deploy.signals import signals_afterwards, unwind_on_signals

WARM_UP = 2
"""Evaluations before the clock starts, or the profile."""


@dataclass(frozen=True)
class Workload:
    """One line of the table: what runs where."""

    system: str
    engine: str
    threads: int
    ranks: int
    device: str = "cpu"
    """of the model, as the engines take it: cpu, cuda, cuda:N or auto"""


FROM_THE_DOMAIN = {"grades": ("grade", "grade"), "uncertainties": ("energies_uncertainty", "uncertainty")}
"""What a file with a domain can give in every step: the property in ASE, and the name for `fix pair` in LAMMPS."""


@dataclass(frozen=True)
class WithDomain:
    """An artifact that gives a quantity of its domain in every step."""

    path: str
    quantity: str
    """of FROM_THE_DOMAIN"""

    def __str__(self) -> str:
        return f"{Path(self.path).name} with {self.quantity}"


@dataclass(frozen=True)
class Calculator:
    """Any ASE calculator: what a function without arguments returns."""

    factory: str
    """such as "package.module:function" """

    def __str__(self) -> str:
        return self.factory

    def make(self) -> Any:
        """Call the function, whose module may lie in the working folder.

        Raises:
            MLIPError: says what could not be imported or called.
        """
        module, _, function = self.factory.partition(":")
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            return getattr(import_module(module), function)()
        except Exception as error:  # whatever a stranger's code stumbles over
            raise MLIPError(f"--against {self.factory}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class PairStyle:
    """Any style of LAMMPS, by the lines of an input that set it up."""

    lines: str
    """such as "pair_style sw; pair_coeff * * Si.sw {elements}", files relative to the working folder"""

    def __str__(self) -> str:
        return self.lines.partition(";")[0]

    def script(self, elements: Sequence[str]) -> str:
        """Lines of an input for the atom types of some elements; paths of files are whole, as LAMMPS runs elsewhere."""
        words = self.lines.replace("{elements}", " ".join(elements)).replace(";", " \n ").split(" ")
        return " ".join(str(Path(word).resolve()) if Path(word).is_file() else word for word in words)


Contestant = str | Framework | WithDomain | Calculator | PairStyle
"""The path of an artifact, its framework, or somebody else's code."""


@dataclass
class Measurement:
    """Samples of one contestant in one case; a sample is the mean over the steps between two looks at the clock."""

    name: str
    n_atoms: int
    wall: list[float] = field(default_factory=list)
    """s per step"""
    cpu: list[float] = field(default_factory=list)
    """CPU-s per step, summed over threads, of the samples that told them"""
    outside: list[float] = field(default_factory=list)
    """time outside the model over time in the model: neighbour list, forces, copies"""
    peak_memory_per_atom: float | None = None
    """bytes: growth of the process's peak memory, on a GPU that of torch's memory there, over that after a tiny system,
    divided by the atoms"""
    out_of_memory: bool = False
    """the system does not fit; then there are no samples"""

    @property
    def tells_cpu(self) -> bool:
        """Whether every sample has CPU seconds. LAMMPS tells none of short samples, and would leave the slow ones."""
        return len(self.cpu) == len(self.wall) > 0

    def summary(self) -> dict[str, Any]:
        wall = statistics.median(self.wall) if self.wall else None
        return {
            **asdict(self),
            "ms_per_step": 1e3 * wall if wall else None,
            "cpu_ms_per_step": 1e3 * statistics.median(self.cpu) if self.tells_cpu else None,
            "katom_step_per_s": 1e-3 * self.n_atoms / wall if wall else None,
            "atoms_per_gb": 1e9 / self.peak_memory_per_atom if self.peak_memory_per_atom else None,
            "share_outside_model": statistics.median(self.outside) if self.outside else None,
        }


def measure(case: Workload, contestants: list[Contestant], pairs: int, steps: int) -> list[Measurement]:
    """Samples of all contestants, taken in turn. Meant for a process of its own: it sets torch's threads."""
    if case.engine == "lammps":
        return _measure_lammps(case, contestants, pairs, steps)
    atoms = build_system(case.system)
    measurements = [Measurement(str(contestant), len(atoms)) for contestant in contestants]
    runners: dict[int, Callable[[Atoms], Any]] = {}  # of those that fit; one that does not leaves its memory to others

    random = np.random.default_rng(11)
    # Moved, as a step of dynamics moves them: the second call for the same cell searches for neighbours with a skin,
    # and on a GPU that takes longer than many steps.
    warm_up = [_moved(atoms, random) for _ in range(WARM_UP)]

    def start(k: int) -> None:
        runners[k] = _runner(contestants[k], case)
        for frame in warm_up:
            runners[k](frame)

    def give_up(k: int) -> None:
        measurements[k] = Measurement(str(contestants[k]), len(atoms), out_of_memory=True)
        runners.pop(k, None)
        _free_gpu()

    for k in range(len(contestants)):
        if not _fits(start, k):
            give_up(k)
    for _ in range(pairs):
        frames = [_moved(atoms, random) for _ in range(steps)]
        for k in list(runners):
            if not _fits(_sample, runners[k], frames, measurements[k], case.device):
                give_up(k)
    return measurements


def _sample(runner: Callable[[Atoms], Any], frames: list[Atoms], measurement: Measurement, device: str) -> None:
    inside_before = _seconds_in_model(runner)
    _wait_for_gpu(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for frame in frames:
        runner(frame)
    _wait_for_gpu(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    measurement.wall.append(wall / len(frames))
    measurement.cpu.append(cpu / len(frames))
    if inside_before is not None:
        inside = _seconds_in_model(runner) - inside_before
        measurement.outside.append((wall - inside) / inside)


def _wait_for_gpu(device: str) -> None:
    import torch

    if torch_device(device) != "cpu":
        torch.cuda.synchronize(torch_device(device))


def _free_gpu() -> None:
    """Does nothing without a GPU."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _fits(function: Callable[..., Any], *arguments: Any) -> bool:
    """Call it: false if memory ran out, in the words of torch or of mlip's core."""
    try:
        function(*arguments)
    except (RuntimeError, MLIPError) as failure:
        if not re.search("out of memory|ALLOC_FAILED", str(failure)):  # cuBLAS says the second
            raise
        return False
    return True


def compare(case: Workload, measurements: list[Measurement]) -> dict[str, Any]:
    """Summaries, and beside each but the first the ratio of each pair of samples: how many times faster the first is.

    On one thread of a CPU the CPU seconds of the process are compared, which other programs on the machine change
    little; otherwise, and where a sample has none, wall-clock seconds.
    """
    first = measurements[0]
    results = [first.summary()]
    for other in measurements[1:]:
        told = first.tells_cpu and other.tells_cpu
        clock = "cpu" if case.device == "cpu" and case.threads == 1 and told else "wall"
        ratios = [b / a for a, b in zip(getattr(first, clock), getattr(other, clock), strict=False)]
        ratio = statistics.median(ratios) if ratios else None
        results.append({**other.summary(), "clock": clock, "ratios": ratios, "ratio": ratio})
    return {"results": results}


def peak_memory_per_atom(case: Workload, contestant: Contestant) -> float | None:
    """Bytes per atom by which one evaluation of the system raises the peak of this (fresh) process, or of its GPU.

    The peak after a tiny system holds the libraries and the weights.

    Returns:
        None when the system does not fit.
    """
    runner = _runner(contestant, case)
    device = torch_device(case.device)
    tiny = build_system(
        "".join(c for c in case.system if c.isalpha()) + ("3" if case.system.startswith("water") else "8")
    )
    atoms = build_system(case.system)
    runner(tiny)
    before = peak_memory(device)
    if not _fits(runner, atoms):
        return None
    return (peak_memory(device) - before) / len(atoms)


def in_process(function: Callable[..., Any], *arguments: Any, progress: Progress | None = None) -> Any:
    """Call in a fresh process, which ends with the call, whatever ends it.

    Args:
        progress: called here with each line that the function gives to its keyword `progress` there.

    Raises:
        MLIPError: if the process died, besides what the function raises.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, a second, and not for each process
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments, progress is not None))
    with signals_afterwards():  # which would leave this folder behind
        util.get_temp_dir()
    forkserver.ensure_running()  # while signals are heard, or its processes would not hear any
    try:
        with signals_afterwards():  # a process whose number is not known yet would go on alone
            process.start()
        sender.close()
        kind, value = receiver.recv()
        while kind == "said":
            assert progress is not None
            progress(value)
            kind, value = receiver.recv()
    except EOFError:
        process.join()
        raise MLIPError(f"a process of the measurement ended with status {process.exitcode}") from None
    except BaseException:
        if process.pid is not None:
            process.terminate()
            process.join()
        raise
    process.join()
    if kind == "raised":
        raise value
    return value


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], reports: bool) -> None:
    unwind_on_signals()
    keywords = {"progress": lambda message: sender.send(("said", message))} if reports else {}
    with sender:
        try:
            answer = "returned", function(*arguments, **keywords)
        except Exception as error:
            answer = "raised", error
        sender.send(answer)


def peak_memory(device: str = "cpu") -> int:
    """Bytes: of this process, or what torch has had in use on a GPU.

    Not `getrusage`, whose peak a process inherits from the one that started it.
    """
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB", status, flags=re.MULTILINE)[0])


def _runner(contestant: Contestant, case: Workload) -> Callable[[Atoms], Any]:
    """Something that evaluates energy, forces and stress of a structure."""
    import torch

    torch.set_num_threads(case.threads)
    if isinstance(contestant, Framework):
        return framework_runner(contestant, torch_device(case.device))
    if isinstance(contestant, Calculator):
        calculator = contestant.make()
        properties = [name for name in ("energy", "forces", "stress") if name in calculator.implemented_properties]
        return lambda atoms: calculator.calculate(atoms, properties, all_changes)
    assert not isinstance(contestant, PairStyle), "runs in LAMMPS alone"
    if case.engine == "openmm":
        return _OpenMMRunner(str(contestant), case)
    from mlip_deploy.ase import MLIPCalculator

    properties = ["energy", "forces", "stress"]
    path = contestant.path if isinstance(contestant, WithDomain) else contestant
    if isinstance(contestant, WithDomain):
        properties.append(FROM_THE_DOMAIN[contestant.quantity][0])
    return _ArtifactRunner(MLIPCalculator(path, device=case.device, threads=case.threads), properties)


class _ArtifactRunner:
    """Evaluates through the ASE calculator and knows how long the bare model took."""

    def __init__(self, calculator: Any, properties: list[str]):
        self.calculator, self._properties = calculator, properties

    def __call__(self, atoms: Atoms) -> None:
        self.calculator.calculate(atoms, self._properties)

    def seconds_in_model(self) -> float:
        seconds: float = self.calculator.potential.timings()[1]
        return seconds


class _OpenMMRunner:
    """Takes a step of velocity Verlet in OpenMM at each call; the first one says where the atoms start."""

    def __init__(self, path: str, case: Workload):
        self._path, self._case = path, case
        self._context: Any = None

    def __call__(self, atoms: Atoms) -> None:
        if self._context is None:
            import openmm

            from mlip_deploy.engines.openmm import context_of

            case, integrator = self._case, openmm.VerletIntegrator(0.001)  # ps
            platform = "CPU" if case.device == "cpu" else "CUDA"
            rotated, _ = in_reduced_box(atoms)
            self._context = context_of(rotated, self._path, integrator, case.threads, platform, case.device)
        self._context.getIntegrator().step(1)


def _seconds_in_model(runner: Callable[[Atoms], Any]) -> Any:
    return runner.seconds_in_model() if isinstance(runner, _ArtifactRunner) else None


def _moved(atoms: Atoms, random: np.random.Generator) -> Atoms:
    """A step of molecular dynamics moves atoms by about a hundredth of an Ångström."""
    moved: Atoms = atoms.copy()
    moved.positions += random.normal(scale=0.01, size=moved.positions.shape)
    return moved


# ---- LAMMPS -------------------------------------------------------------------------------------------------------

# Loads each model anew for each sample, so that several can take turns in one LAMMPS process; only `run` is timed.
# Many styles of message-passing models need the map of atom ids.
LAMMPS_HEAD = """\
units metal
boundary p p p
atom_style atomic
atom_modify map yes
read_data data.lammps
velocity all create 300.0 4928459
timestep 0.001
fix nve all nve
thermo 100000
"""
LAMMPS_SAMPLE = """\
{style}
{domain}
run {warm_up}
print "mlip_sample"
run {steps}
{no_domain}
"""
LAMMPS_STYLE = """\
pair_style mlip device {device} threads {threads}
pair_coeff * * "{path}" {elements}"""
LOOP_TIME = re.compile(r"Loop time of (\S+) on ")
CPU_USE = re.compile(r"^(\S+)% CPU use with 1 MPI task", flags=re.MULTILINE)
SHORTEST_CPU_SAMPLE = 0.1
"""s. LAMMPS asks for the user's share of CPU time, which Linux estimates from ticks of 1 to 10 ms."""
OUTSIDE = re.compile(r"outside the model .*?\((\S+) %\)")


class LAMMPSSample(NamedTuple):
    """Of one style in one run."""

    wall: float
    """s per step"""
    cpu: float | None
    """CPU-s per step, summed over threads; None for several ranks, and for samples too short to tell"""
    outside: float | None
    """time outside the model over the time in the model, which other styles do not tell"""


def lammps_samples(
    atoms: Atoms, styles: list[str | WithDomain | PairStyle], threads: int, ranks: int, steps: int, device: str = "cpu"
) -> list[LAMMPSSample]:
    """Run artifacts and other styles one after another in one LAMMPS, and measure each."""
    from mlip_deploy.engines.lammps import run
    from mlip_deploy.engines.lammps_files import link_model, write_data

    with temporary_folder("mlip-bench-") as directory:
        frame = write_data(atoms, directory / "data.lammps")
        script = LAMMPS_HEAD
        for number, one in enumerate(styles):
            given = FROM_THE_DOMAIN[one.quantity][1] if isinstance(one, WithDomain) else None
            if isinstance(one, PairStyle):
                style = one.script(frame.elements)
            else:
                link = link_model(one.path if isinstance(one, WithDomain) else one, directory, f"model-{number}")
                style = LAMMPS_STYLE.format(
                    device=device, threads=threads, path=link.name, elements=" ".join(frame.elements)
                )
            script += LAMMPS_SAMPLE.format(
                style=style,
                domain=f"fix domain all pair 1 mlip {given} 1" if given else "",
                no_domain="unfix domain" if given else "",
                warm_up=WARM_UP,
                steps=steps,
            )
        output = run(script, directory, ranks=ranks)
    samples: list[LAMMPSSample] = []
    for one, said in zip(styles, re.split(r"^mlip_sample$", output, flags=re.MULTILINE)[1:], strict=False):
        seconds, outside = LOOP_TIME.search(said), None if isinstance(one, PairStyle) else OUTSIDE.search(said)
        if seconds:
            wall, use = float(seconds[1]) / steps, CPU_USE.search(said)
            share = 0.01 * float(use[1]) if use and float(seconds[1]) >= SHORTEST_CPU_SAMPLE else 0.0
            cpu = share * wall if share > 0.0 else None
            samples.append(LAMMPSSample(wall, cpu, 0.01 * float(outside[1]) if outside else None))
    if len(samples) != len(styles):
        raise MLIPError(f"LAMMPS printed {len(samples)} timings, expected {len(styles)}:\n{output[-2000:]}")
    return samples


def _measure_lammps(case: Workload, contestants: list[Contestant], pairs: int, steps: int) -> list[Measurement]:
    atoms = build_system(case.system)
    measurements = [Measurement(str(contestant), len(atoms)) for contestant in contestants]
    styles = {k: one for k, one in enumerate(contestants) if not isinstance(one, Framework | Calculator)}
    others = {
        k: _runner(contestant, case)
        for k, contestant in enumerate(contestants)
        if isinstance(contestant, Framework | Calculator)
    }
    random = np.random.default_rng(11)
    # Without code of Python in the game one process takes all samples; with it they alternate between processes.
    rounds, in_one_process = (pairs, 1) if others else (1, pairs)
    for _ in range(rounds):
        order = list(styles) * in_one_process
        samples = lammps_samples(atoms, [styles[k] for k in order], case.threads, case.ranks, steps, case.device)
        for k, sample in zip(order, samples, strict=True):
            measurements[k].wall.append(sample.wall)
            if sample.cpu is not None:
                measurements[k].cpu.append(sample.cpu)
            if sample.outside is not None:
                measurements[k].outside.append(sample.outside)
        for k, evaluate in others.items():
            frames = [_moved(atoms, random) for _ in range(WARM_UP + steps)]
            for moved in frames[:WARM_UP]:
                evaluate(moved)
            wall, cpu = time.perf_counter(), time.process_time()
            for moved in frames[WARM_UP:]:
                evaluate(moved)
            measurements[k].wall.append((time.perf_counter() - wall) / steps)
            measurements[k].cpu.append((time.process_time() - cpu) / steps)
    return measurements
