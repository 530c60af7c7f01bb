"""`mlip bench`: the systems it builds, what it counts, what it writes. No test here looks at how fast anything was."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import asdict
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import units
from packaging.requirements import Requirement
from rich.console import Console

from mlip_deploy.bench import measure as bench_measure
from mlip_deploy.bench.frameworks import ACCELERATORS, Framework, framework_runner, parse_framework
from mlip_deploy.bench.measure import (
    Measurement,
    PairStyle,
    Workload,
    compare,
    lammps_samples,
    measure,
    peak_memory,
    peak_memory_per_atom,
)
from mlip_deploy.bench.report import label, plot, table
from mlip_deploy.bench.roofline import convolution_cost, linear_cost
from mlip_deploy.bench.systems import build_system
from mlip_deploy.cli import bench as command
from mlip_deploy.environment.gpus import driver, gpus
from mlip_deploy.errors import MLIPError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "n_atoms", "symbols"),
    [
        ("si64", 64, {"Si"}),
        ("si96", 96, {"Si"}),
        ("si1728", 1728, {"Si"}),
        ("nacl216", 216, {"Na", "Cl"}),
        ("water192", 192, {"H", "O"}),
    ],
)
def test_systems_have_the_atoms_of_their_names(name: str, n_atoms: int, symbols: set[str]) -> None:
    atoms = build_system(name)
    assert len(atoms) == n_atoms
    assert set(atoms.get_chemical_symbols()) == symbols
    assert atoms.pbc.all()
    assert (atoms.positions == build_system(name).positions).all(), "the same name is the same system"


def test_a_box_is_a_cube_or_the_next_to_one() -> None:
    for name, edges in (("si131072", (16, 32, 32)), ("si4096", (8, 8, 8)), ("si96", (2, 2, 3))):
        assert build_system(name).cell.lengths() == pytest.approx(5.43 * np.array(edges))


def test_water_has_the_density_of_water() -> None:
    atoms = build_system("water192")
    grams_per_cm3 = atoms.get_masses().sum() / units._Nav / (atoms.get_volume() * 1e-24)
    assert grams_per_cm3 == pytest.approx(1.0, abs=1e-3)
    assert atoms.get_all_distances(mic=True)[atoms.get_all_distances(mic=True) > 0].min() > 0.9


@pytest.mark.parametrize(
    ("name", "remedy"), [("ice64", "si64"), ("si100", "si64, si216"), ("si104", "si64, si216"), ("water64", "water81")]
)
def test_an_unknown_system_is_refused_with_names_that_are_known(name: str, remedy: str) -> None:
    with pytest.raises(MLIPError, match=remedy):
        build_system(name)


def test_operations_of_a_path_are_counted() -> None:
    # 4 scalars times a vector, per channel. Forward: x w, 3 multiply-adds. Backward: 3 and 3, and dE/dw, w x, dE/dx.
    stored, values = convolution_cost([[0, 1, 1, 4, 0, 1, 0, 0, 0]], tabulated=False, first=False)
    assert stored == 4 * (1 + 6 + 6 + 2 + 1 + 2 + 6) + 2 * 9
    assert values == 4 * 4 + 4 * 3
    tabulated, _ = convolution_cost([[0, 1, 1, 4, 0, 1, 0, 0, 0]], tabulated=True, first=False)
    # A sum of six terms forward; it and its slope backward, and the slope times dE/dw.
    assert tabulated - stored == 4 * (11 + 11 + 11 + 2)
    first, fewer = convolution_cost([[0, 1, 1, 4, 0, 1, 0, 0, 0]], tabulated=False, first=True)
    assert stored - first == 4 * 2
    assert values - fewer == 4 * 2


def run(*arguments: object) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_operations_of_linear_layers_by_hand() -> None:
    """Four channels of scalars from five, and two of vectors from three: two operations for each product, twice."""
    assert linear_cost([1, 4, 3, 2], [0, 0, 0, 5, 1, 1, 1, 3]) == 2 * 2 * (4 * 5 + 3 * 2 * 3)


def test_pairs_are_written(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    status = run(
        tiny, "--against", tiny, "--systems", "si8", "--engines", "ase,lammps", "--pairs", 2, "--steps", 1,
        "--roofline", "--json", out, "--plot", plot,
    )  # fmt: skip
    assert status == 0
    report = json.loads(out.read_text())
    assert [record["case"]["engine"] for record in report["records"]] == ["ase", "lammps"]
    for record in report["records"]:
        assert len(record["results"]) == 2
        assert len(record["results"][1]["ratios"]) == 2
        for result in record["results"]:
            assert len(result["wall"]) == 2
            assert min(result["wall"]) > 0
            assert result["share_outside_model"] > 0
        first, second = record["results"]
        if record["case"]["engine"] == "ase":  # steps in LAMMPS are too short for its clock
            assert second["clock"] == "cpu"
        ratios = [b / a for a, b in zip(first[second["clock"]], second[second["clock"]], strict=True)]
        assert second["ratios"] == pytest.approx(ratios)
    operations = report["rooflines"][0]["operations"]
    assert min(operations["convolution"], operations["linear layers"]) > 0
    assert {"convolution", "linear layers", "the rest"} <= set(report["rooflines"][0]["seconds"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "katom-step/s" in capsys.readouterr().out


def test_without_cpu_seconds_in_each_sample_wall_seconds_are_compared() -> None:
    """And no CPU seconds are shown: they would be those of the slow samples alone."""
    case = Workload("si8", "lammps", threads=1, ranks=1)
    first = Measurement("file", 8, wall=[2e-3, 2e-3], cpu=[1e-3, 1e-3])
    told = Measurement("other", 8, wall=[8e-3, 8e-3], cpu=[3e-3, 3e-3])
    untold = Measurement("quick", 8, wall=[1e-3, 4e-3], cpu=[1e-3])
    _, slow, quick = compare(case, [first, told, untold])["results"]
    assert (slow["clock"], slow["ratios"]) == ("cpu", pytest.approx([3.0, 3.0]))
    assert (quick["clock"], quick["ratios"]) == ("wall", pytest.approx([0.5, 2.0]))
    assert (slow["cpu_ms_per_step"], quick["cpu_ms_per_step"]) == (pytest.approx(3.0), None)
    assert compare(case, [untold, told])["results"][1]["clock"] == "wall"


@pytest.mark.parametrize(
    ("seconds", "use", "expected"), [("0.25", "50.0", 0.125), ("0.01", "50.0", None), ("0.25", "0.0", None)]
)
def test_a_sample_too_short_for_the_clock_of_lammps_tells_no_cpu_seconds(seconds, use, expected, monkeypatch) -> None:
    said = f"mlip_sample\nLoop time of {seconds} on 1 procs for 1 steps with 8 atoms\n{use}% CPU use with 1 MPI task\n"
    monkeypatch.setattr("mlip_deploy.engines.lammps.run", lambda *_, **__: said)
    style = PairStyle("pair_style lj/cut 4.0; pair_coeff * * 0.01 2.0")
    (sample,) = lammps_samples(build_system("si8"), [style], threads=1, ranks=1, steps=1)
    assert sample.cpu == (pytest.approx(expected) if expected else None)


def test_atoms_per_gigabyte() -> None:
    measured = Measurement("file", 64, wall=[0.1], peak_memory_per_atom=50e3)
    assert measured.summary()["atoms_per_gb"] == pytest.approx(20_000)
    assert Measurement("file", 64, wall=[0.1]).summary()["atoms_per_gb"] is None


def test_a_device_that_is_not_there_is_refused(tiny: Path) -> None:
    with pytest.raises(MLIPError, match=r"'cuda:99' asked for, .* CUDA device"):
        run(tiny, "--systems", "si8", "--device", "cuda:99")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--roofline"], "--roofline measures CPUs, found --device cuda"),
        (["--scaling", 2], "--scaling measures CPUs, found --device cuda"),
    ],
)
def test_what_runs_on_cpus_alone_is_refused_beside_a_gpu(tiny: Path, options: list[object], message: str) -> None:
    with pytest.raises(MLIPError, match=message):
        run(tiny, "--systems", "si8", "--device", "cuda", *options)


def test_gpus_are_described_and_their_memory_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU here: torch's answers are made up."""
    card = SimpleNamespace(name="NVIDIA H100", total_memory=85_000_000_000, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda k: card)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 123}[device])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpus() == ["cuda:0 NVIDIA H100 (85 GB, compute capability 9.0, CUDA 13.0)"]
    assert peak_memory("cuda:1") == 123
    assert peak_memory() > 1_000_000
    assert driver() is None or driver()[0].isdigit()
    case = {"system": "si64", "engine": "ase", "threads": 1, "ranks": 1}
    assert label({**case, "device": "cuda:1"}) == "si64, ase, cuda:1, 1 thread"
    assert label({**case, "device": "cpu"}) == "si64, ase, 1 thread"


def test_ranks_need_lammps(tiny: Path) -> None:
    with pytest.raises(MLIPError, match="Add: --engines lammps"):
        run(tiny, "--systems", "si8", "--ranks", 2)


def test_an_unknown_engine_is_refused(tiny: Path) -> None:
    with pytest.raises(MLIPError, match="ase, lammps"):
        run(tiny, "--engines", "gromacs")


def test_the_framework_takes_part(artifacts, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    source = f"original:{artifacts.checkpoint()}"
    arguments = (tiny, "--against", source, "--systems", "si8", "--pairs", 1, "--steps", 1, "--no-memory")
    run(*arguments, "--json", out)
    (record,) = json.loads(out.read_text())["records"]
    assert record["results"][1]["name"] == f"original ({artifacts.checkpoint()})"
    assert record["results"][1]["ratio"] > 0


def test_what_against_says(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCELERATORS, "flash", ("json", "pip install json"))
    assert parse_framework("original", str(tiny)) == Framework(str(tiny), "tiny")
    assert parse_framework("original:a+b.pth", str(tiny), True) == Framework(str(tiny), "a+b.pth", None, True)
    accelerated = parse_framework("original+flash:a.pth", str(tiny))
    assert accelerated == Framework(str(tiny), "a.pth", "flash")
    assert str(accelerated) == "original (a.pth, flash)"
    result = Measurement(str(Framework("x", "folder/a.pth", "flash")), 8, wall=[0.1]).summary()
    shown = io.StringIO()
    Console(file=shown, width=200).print(
        table([{"case": asdict(Workload("si8", "ase", 1, 1)), "results": [result]}], False)
    )
    assert "original (folder/a.pth, flash)" in shown.getvalue()
    assert parse_framework("original.mlip.pt", str(tiny)) is None


def test_accelerators_that_cannot_take_part_are_refused(tiny: Path, artifacts, monkeypatch) -> None:
    with pytest.raises(MLIPError, match=r"original\+turbo: 'turbo' is not one of cueq, flash, oeq"):
        parse_framework("original+turbo", str(tiny))
    monkeypatch.setitem(ACCELERATORS, "oeq", ("not_there", "pip install not-there"))
    with pytest.raises(MLIPError, match=r"'not_there' is not installed. Type: pip install not-there"):
        run(tiny, "--against", "original+oeq", "--systems", "si8")
    framework = Framework(str(tiny), str(artifacts.checkpoint()), "turbo")
    with pytest.raises(MLIPError, match=r"original\+turbo: accelerators of sevennet are: cueq, flash, oeq"):
        framework_runner(framework, "cpu")


def test_the_frameworks_own_calculator_on_a_device(artifacts, tiny: Path) -> None:
    """Set up as on a GPU, on the CPU by another name."""
    atoms = build_system("si8")
    framework = Framework(str(artifacts.tiny("float32")), str(artifacts.checkpoint()))
    framework_runner(framework, "cpu:0")(atoms)
    with pytest.raises(MLIPError, match="SevenNet's calculator computes in float32, the artifact in float64"):
        framework_runner(Framework(str(tiny), str(artifacts.checkpoint())), "cpu:0")


def test_several_take_part(artifacts, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    others = ["--against", tiny, "--against", f"original:{artifacts.checkpoint()}"]
    run(tiny, *others, "--systems", "si8", "--pairs", 1, "--steps", 1, "--no-memory", "--json", out)
    (record,) = json.loads(out.read_text())["records"]
    assert [len(result.get("ratios", [])) for result in record["results"]] == [0, 1, 1]
    assert capsys.readouterr().out.count("x cpu (") == 2


@pytest.mark.parametrize("fits", [0, 4])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MLIPError("7net-0: out of memory on"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_who_runs_out_of_memory_does_not_stop_the_others(monkeypatch, error: Exception, fits: int) -> None:
    """At once, or after some steps."""
    calls = {"small": 0, "large": 0}

    def runner(contestant, case):
        calls[contestant] = 0

        def evaluate(atoms):
            calls[contestant] += 1
            if contestant == "large" and len(atoms) > 8 and calls[contestant] > fits:
                raise error

        return evaluate

    monkeypatch.setattr(bench_measure, "_runner", runner)
    case = Workload("si64", "ase", 1, 1)
    for contestants in (["small", "large"], ["large", "small"]):
        record = {"case": asdict(case), **compare(case, measure(case, contestants, 3, 1))}
        by_name = {result["name"]: result for result in record["results"]}
        assert by_name["large"]["out_of_memory"]
        assert len(by_name["small"]["wall"]) == 3
        assert not record["results"][1]["ratios"]
        shown = io.StringIO()
        Console(file=shown, width=200).print(table([record], True))
        assert "out of memory" in shown.getvalue()
    assert (peak_memory_per_atom(case, "large") is None) == (fits == 0)
    assert peak_memory_per_atom(case, "small") >= 0.0
    monkeypatch.setattr(bench_measure, "_runner", lambda *_: lambda atoms: (_ for _ in ()).throw(RuntimeError("else")))
    with pytest.raises(RuntimeError, match="else"):
        measure(case, ["small"], 1, 1)


def test_scaling_is_beside_separate_processes(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    run(tiny, "--systems", "si8", "--pairs", 1, "--steps", 2, "--no-memory", "--scaling", 2, "--json", out)
    (scaling,) = json.loads(out.read_text())["scalings"]
    assert scaling["n"] == 2
    for kind in ("threads", "ranks", "copies"):
        assert len(scaling["gains"][kind]) == 1
        assert scaling["medians"][kind] > 0
    assert "2 separate processes" in " ".join(capsys.readouterr().out.split())


def test_scaling_needs_two(tiny: Path) -> None:
    with pytest.raises(MLIPError, match="expected two threads and ranks, or more"):
        run(tiny, "--scaling", 1)


# ---- other engines, and other people's code -------------------------------------------------------------------------


def test_openmm_takes_steps(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    run(tiny, "--against", tiny, "--systems", "si8", "--engines", "openmm", "--pairs", 2, "--steps", 1, "--json", out)
    (record,) = json.loads(out.read_text())["records"]
    assert record["case"]["engine"] == "openmm"
    assert [len(result["wall"]) for result in record["results"]] == [2, 2]
    assert len(record["results"][1]["ratios"]) == 2
    runner, atoms = bench_measure._runner(str(tiny), Workload("si8", "openmm", 1, 1)), build_system("si8")
    for _ in range(2):
        runner(atoms)
    state = runner._context.getState(positions=True)
    moved = 10 * np.array(state.getPositions(asNumpy=True)._value) - atoms.positions
    assert 1e-6 < np.abs(moved).max() < 0.1
    assert state.getTime()._value == pytest.approx(0.002)


def test_any_calculator_and_any_pair_style_take_part(tiny: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "mine.py").write_text(
        "from ase.calculators.lj import LennardJones\ndef make():\n    return LennardJones(rc=4.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    style = "pair_style lj/cut 4.0; pair_coeff * * 0.01 2.0"
    others = ["--against", "mine:make", "--against", style]
    run(tiny, *others, "--systems", "si8", "--engines", "lammps", "--pairs", 2, "--steps", 1, "--json", "bench.json")
    (record,) = json.loads((tmp_path / "bench.json").read_text())["records"]
    own, calculator, lennard_jones = record["results"]
    assert (calculator["name"], lennard_jones["name"]) == ("mine:make", "pair_style lj/cut 4.0")
    assert all(len(result["wall"]) == 2 and min(result["wall"]) > 0 for result in record["results"])
    assert own["share_outside_model"] > 0
    assert lennard_jones["share_outside_model"] is None
    shown = capsys.readouterr().out
    assert "mine:make" in shown
    assert "pair_style lj/cut 4.0" in shown


def test_a_pair_style_finds_its_files_and_elements(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "Si.sw").write_text("")
    monkeypatch.chdir(tmp_path)
    script = PairStyle("pair_style sw; pair_coeff * * Si.sw {elements}").script(["Si", "C"])
    assert [line.split() for line in script.splitlines()] == [
        ["pair_style", "sw"],
        ["pair_coeff", "*", "*", str(tmp_path / "Si.sw"), "Si", "C"],
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "pair_style sw; pair_coeff * * Si.sw Si"], "it runs in LAMMPS alone. Add: --engines lammps"),
        (["--against", "no_such_module:make"], "--against no_such_module:make: ModuleNotFoundError: No module named"),
        (["--against", "ase.calculators.lj:Nothing"], "--against ase.calculators.lj:Nothing: AttributeError"),
        (["--against", "somewhere/else.mlip.pt"], "no such file"),
    ],
)
def test_code_that_cannot_take_part_is_refused(tiny: Path, options: list[str], message: str) -> None:
    with pytest.raises(MLIPError, match=message):
        run(tiny, *options, "--systems", "si8")


def test_a_plot_over_size_has_a_line_for_each_contestant(tmp_path: Path, monkeypatch) -> None:
    from matplotlib.axes import Axes

    drawn: dict[str, list[tuple[float, float]]] = {}
    loglog = Axes.loglog

    def noted(axes: Axes, x: list[float], y: list[float], **style: object) -> object:
        drawn[str(style["label"])] = list(zip(x, y, strict=True))
        return loglog(axes, x, y, **style)

    monkeypatch.setattr(Axes, "loglog", noted)
    records = [
        {
            "case": asdict(Workload(f"si{n}", "lammps", 1, 1)),
            "results": [Measurement(s, n, wall=[1e-5 * n * k]).summary() for k, s in ((1, "ours"), (3, "theirs"))],
        }
        for n in (512, 8, 64)
    ]
    plot(records, tmp_path / "size.svg")
    assert drawn["ours"] == [(n, pytest.approx(10.0)) for n in (8, 64, 512)]
    assert drawn["theirs"] == [(n, pytest.approx(30.0)) for n in (8, 64, 512)]
    assert "<svg" in (tmp_path / "size.svg").read_text()


class Recorder:
    """An ASE calculator that keeps what it was given."""

    implemented_properties = ("energy",)
    frames: list[np.ndarray] = []  # noqa: RUF012

    def calculate(self, atoms, properties, changes) -> None:
        self.frames.append(atoms.positions.copy())


def test_atoms_move_in_the_warm_up_too() -> None:
    """Or the search for neighbours with a skin, due at the first move, would be timed as a step."""
    Recorder.frames.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_measure.Calculator, "make", lambda self: Recorder())
        measure(Workload("si8", "ase", 1, 1), [bench_measure.Calculator("any:thing")], pairs=1, steps=1)
    assert len(Recorder.frames) == bench_measure.WARM_UP + 1
    for before, after in itertools.pairwise([build_system("si8").positions, *Recorder.frames]):
        assert (before != after).any()


def test_cuequivariance_is_a_release_that_sevennet_takes() -> None:
    line = ACCELERATORS["cueq"][1].removeprefix("pip install ").split()
    wanted = [Requirement(text) for text in requires("sevenn") or []]
    for package in map(Requirement, line):
        (release,) = (specifier.version for specifier in package.specifier)
        (bounds,) = (one.specifier for one in wanted if one.name == package.name and "cueq13" in str(one.marker))
        assert release in bounds
