"""Draw time per step and atom over the number of atoms, from what `mlip bench --json` wrote.

    mlip bench 7net-0.mlip.pt --against original --systems si64,si216,si512 --pairs 3 --steps 1 --json bench.json
    python speed_over_size.py bench.json -o speed.svg

CPU seconds where `mlip bench` compared those, otherwise wall-clock seconds.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mlip_deploy.bench.report import label


def curves(records: list[dict]) -> dict[str, list[tuple[int, float]]]:
    """(atoms, µs of a step for each atom) by contestant, and by what the cases differ in beside their size."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        case = record["case"]
        where = label({**case, "system": ""}).removeprefix(", ")
        cpu = all(result["cpu_ms_per_step"] for result in record["results"])
        for result in record["results"]:
            time = result["cpu_ms_per_step" if cpu else "ms_per_step"]
            atoms = result["n_atoms"]
            if time:  # none where memory ran out
                name = result["name"] if result["name"].startswith("original") else Path(result["name"]).name
                found.setdefault(f"{name} ({where})", []).append((atoms, 1000 * time / atoms))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("speed.svg"))
    options = parser.parse_args()
    records = [record for file in options.files for record in json.loads(file.read_text())["records"]]
    matplotlib.rcParams["svg.hashsalt"] = "mlip-deploy"  # the same numbers give the same file
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, points in curves(records).items():
        axes.loglog(*zip(*sorted(points), strict=True), "o-", label=name)
    sizes = sorted({result["n_atoms"] for record in records for result in record["results"]})
    axes.set(xlabel="atoms", ylabel="µs per step and atom")
    axes.set_xticks(sizes, sizes, minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.output, metadata={"Date": None} if options.output.suffix == ".svg" else None)
    print(options.output)
