"""Tables and the plot of `mlip bench`, and what machine it ran on."""

from __future__ import annotations

import multiprocessing
import platform
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from mlip_deploy.environment.gpus import driver, gpus
from mlip_deploy.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def table(records: list[dict[str, Any]], compared: bool) -> Table:
    result = Table(title="mlip bench (medians)")
    result.add_column("case", no_wrap=True)
    result.add_column("file", overflow="fold")
    for title in ("ms/step", "CPU ms/step", "katom-step/s", "kB/atom", "atoms/GB", "outside model"):
        result.add_column(title, justify="right", no_wrap=True)
    if compared:
        result.add_column("the first is faster (pair by pair)", justify="right")
    for record in records:
        for k, summary in enumerate(record["results"]):
            cpu, memory, fit, outside = (
                summary["cpu_ms_per_step"],
                summary["peak_memory_per_atom"],
                summary["atoms_per_gb"],
                summary["share_outside_model"],
            )
            cells = [
                label(record["case"]) if k == 0 else "",
                _name(summary),
                "out of memory" if summary["out_of_memory"] else f"{summary['ms_per_step']:.1f}",
                "" if cpu is None else f"{cpu:.1f}",
                "" if summary["katom_step_per_s"] is None else f"{summary['katom_step_per_s']:.3f}",
                "" if memory is None else f"{memory / 1000:.0f}",
                "" if fit is None else f"{fit:.0f}",
                "" if outside is None else f"{100 * outside:.2f} %",
            ]
            if compared:
                cells.append(_times_faster(summary))
            result.add_row(*cells, end_section=k == len(record["results"]) - 1)
    return result


def _name(summary: dict[str, Any]) -> str:
    """Of a file without its folder; of a framework with all that was said of it."""
    name: str = summary["name"]
    return Path(name).name if Path(name).exists() else name


def _times_faster(summary: dict[str, Any]) -> str:
    """How many times the first contestant of a case is faster than this one; nothing where one of them has no time."""
    if not summary.get("ratios"):
        return ""
    pairs = ", ".join(map(_ratio, summary["ratios"]))
    return f"[bold]{_ratio(summary['ratio'])}x[/] {summary['clock']} ({pairs})"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def label(case: dict[str, Any], separator: str = ", ") -> str:
    """Such as "si512, lammps, 2 threads"; ranks only where there are several, the device unless it is the CPU."""
    parts = [case["system"], case["engine"]]
    if case["device"] != "cpu":
        parts.append(case["device"])
    parts.append(f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}")
    if case["ranks"] > 1:
        parts.append(f"{case['ranks']} ranks")
    return separator.join(parts)


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Write a chart: lines over the number of atoms where three sizes or more were measured, otherwise bars."""
    from matplotlib.figure import Figure

    sizes = {record["results"][0]["n_atoms"] for record in records}
    figure = Figure(figsize=(6.4, 4.2) if len(sizes) > 2 else (1.5 + 1.4 * len(records), 4.0), layout="constrained")
    axes = figure.subplots()
    (_lines if len(sizes) > 2 else _bars)(axes, records)
    axes.legend(fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix.removeprefix(".") or None)


def _lines(axes: Axes, records: list[dict[str, Any]]) -> None:
    """Time per atom and step over the number of atoms, one line for each contestant in each surrounding."""
    series: dict[str, list[tuple[int, float]]] = {}
    several = len({label({**record["case"], "system": ""}) for record in records}) > 1
    for record in records:
        where = label({**record["case"], "system": ""}).removeprefix(", ")
        for result in record["results"]:
            if result["ms_per_step"]:
                point = result["n_atoms"], 1e3 * result["ms_per_step"] / result["n_atoms"]
                series.setdefault(_name(result) + (f" ({where})" if several else ""), []).append(point)
    for name, points in series.items():
        axes.loglog(*zip(*sorted(points), strict=True), marker="o", ms=4, label=name)
    sizes = sorted({n_atoms for points in series.values() for n_atoms, _ in points})
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("atoms")
    axes.set_ylabel("µs per atom and step")
    axes.grid(alpha=0.3, which="both")


def _bars(axes: Axes, records: list[dict[str, Any]]) -> None:
    names = [_name(result) for result in records[0]["results"]]
    for k, name in enumerate(names):
        heights = [record["results"][k]["katom_step_per_s"] or 0.0 for record in records]
        bars = axes.bar(
            np.arange(len(records)) + 0.8 * (k + 0.5) / len(names) - 0.4, heights, 0.8 / len(names), label=name
        )
        axes.bar_label(bars, fmt="%.3g")
    labels = [label(record["case"], "\n") for record in records]
    axes.set_xticks(np.arange(len(records)), labels)
    axes.set_ylabel("10³ atom·steps / s")


def scaling_table(scalings: list[dict[str, Any]]) -> Table:
    n = scalings[0]["n"]
    result = Table(title=f"{n} times the cores: how many times the steps (LAMMPS; median, each turn)")
    for title in ("system", "ms/step on one", f"{n} threads", f"{n} ranks", f"{n} separate processes (the ceiling)"):
        result.add_column(title, justify="right")
    for entry in scalings:
        cells = [entry["system"], f"{1e3 * statistics.median(entry['seconds']):.1f}"]
        for kind in ("threads", "ranks", "copies"):
            turns = ", ".join(f"{gain:.2f}" for gain in entry["gains"][kind])
            cells.append(f"[bold]{entry['medians'][kind]:.2f}x[/] ({turns})")
        result.add_row(*cells)
    return result


def roofline_table(rooflines: list[dict[str, Any]]) -> Table:
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


def machine() -> dict[str, Any]:
    """Processor, GPUs, cores, versions: what a timing depends on."""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.*)", cpuinfo.read_text())
        processor = found[1] if found else processor
    return {
        "gpus": gpus(),
        "driver": driver(),
        "processor": processor,
        "cores": multiprocessing.cpu_count(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
    }
