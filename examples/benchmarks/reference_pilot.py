"""The figures of docs/reference-data.md: SevenNet-0 in two energy frames of one set, and force slopes by temperature.

export MLIP_DATA_DIR=…      # or let the sets be downloaded
python reference_pilot.py 7net-0.mlip.pt
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.reference_data.statistics import errors
from mlip_deploy.validation.reference.suite import Reference, load, predict


def results_of(artifact: Artifact, reference: Reference, threads: int):
    return predict(artifact, reference, "ase", threads, progress=lambda message: None)


def two_frames(artifact: Artifact, threads: int) -> None:
    """Errors against the raw and the corrected energies of the crystals that carry corrections, and of the others."""
    wbm = load(artifact, "wbm")
    predicted = np.array([result.energy for result in results_of(artifact, wbm, threads)])
    sizes = np.array([len(frame.atoms) for frame in wbm.frames])
    types = np.array([frame.config_type for frame in wbm.frames])
    for config_type in sorted(set(types)):
        of_type = types == config_type
        for kind in ("raw", "mp2020"):
            label = np.array([frame.energies[kind] for frame in wbm.frames])
            found = errors((label / sizes)[of_type], (predicted / sizes)[of_type])
            print(
                f"wbm, {found.n} crystals {config_type}, {kind} energies: "
                f"MAE {1000 * found.mae:.0f}, median {1000 * found.median:.0f} meV/atom"
            )


def slopes(artifact: Artifact, symbol: str, threads: int) -> None:
    """Force slope of the frames of ab initio MD at each temperature."""
    everything = load(artifact, f"mlearn-{symbol}", frame="shift")
    md = [frame for frame in everything.frames if frame.config_type == "AIMD-NVT"]
    found = results_of(artifact, Reference(everything.name, md, everything.agreement, []), threads)
    at = np.array([float(re.search(r"at ([\d.]+) K", frame.name).group(1)) for frame in md])
    for temperature in [*sorted(set(at)), None]:
        chosen = [k for k in range(len(md)) if temperature in (None, at[k])]
        label = np.concatenate([md[k].forces for k in chosen])
        slope = errors(label, np.concatenate([found[k].forces for k in chosen])).slope
        where = "all temperatures" if temperature is None else f"{temperature:.0f} K"
        print(f"mlearn-{symbol}, AIMD, {where}: force slope {slope:.2f} ({len(chosen)} frames)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    artifact = Artifact(options.model)
    two_frames(artifact, options.threads)
    for symbol in ("Si", "Li", "Ni", "Cu"):
        slopes(artifact, symbol, options.threads)


if __name__ == "__main__":
    main()
