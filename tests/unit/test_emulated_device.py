"""Whole models on a device of torch that is not the CPU, without a GPU (emulated_device.h): with the GPU's kernels, run
by their emulator, and without, as where no kernels can be compiled. In a process of its own, since torch counts devices
once:

    python tests/unit/test_emulated_device.py kernels|torch FILE.mlip.pt ...
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list

import mlip_deploy
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.exporters.interface import TORCH_DTYPE
from mlip_deploy.exporters.targets.aotinductor import _example_settings
from mlip_deploy.operators import load_operators

AGREEMENT = {"float64": 1e-10, "float32": 1e-3}
"""Of sums in another order, relative to the largest number; deep models in float32 multiply what rounding does."""


def arguments_of(path: str) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Of the model interface, for the largest structure among the fixtures."""
    contract = Artifact(path).contract
    structures = [structure.atoms() for structure in Artifact(path).fixtures().structures]
    periodic = [atoms for atoms in structures if contract.positions != "periodic" or atoms.pbc.all()]
    atoms = max(periodic, key=len)
    centres, neighbours, vectors = neighbor_list("ijD", atoms, contract.cutoff)
    dtype = TORCH_DTYPE[contract.dtype]
    positional = [
        torch.tensor(contract.types_of(atoms.get_chemical_symbols())),
        len(atoms),
        torch.tensor(np.stack([centres, neighbours])),
        torch.tensor(vectors, dtype=dtype),
    ]
    others = {}
    if contract.positions:
        others = {"positions": torch.tensor(atoms.positions), "cell": torch.tensor(atoms.cell.array)}
    if contract.settings:
        (others["settings"],) = _example_settings(contract)
    return positional, others


def results_on(path: str, device: str) -> list[torch.Tensor]:
    positional, others = arguments_of(path)
    model = torch.jit.load(path, map_location=device).eval()
    with torch.jit.optimized_execution(False):
        found = model(
            *(one.to(device) if isinstance(one, torch.Tensor) else one for one in positional),
            **{name: one.to(device) for name, one in others.items()},
        )
    for one in found:
        assert one.device == torch.device(device)
    return [one.detach().cpu() for one in found]


def main() -> None:
    kernels, *paths = sys.argv[1:]
    load_operators()
    torch.ops.load_library(str(Path(mlip_deploy.__file__).parent / "lib" / "libmlip_gpu_emulator.so"))
    torch.ops.mlip_gpu_emulator.start_device(kernels == "kernels")
    torch._register_device_module("emulated", ModuleType("torch.emulated"))
    for path in paths:
        expected, dtype = results_on(path, "cpu"), Artifact(path).contract.dtype
        assert float(expected[1].abs().max()) > 1e-3, "no forces"
        for name, a, b in zip(
            ("energies", "gradients", *"xyz"), results_on(path, "emulated:0"), expected, strict=False
        ):
            largest = 1e-12 + float(b.abs().max())
            difference = float((a - b).abs().max()) / largest
            print(f"{path}: {name} differ by {difference:.1e}")
            assert difference < AGREEMENT[dtype], name


def run(kernels: str, *paths: Path) -> None:
    done = subprocess.run([sys.executable, __file__, kernels, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("gradients differ by") == len(paths)


@pytest.mark.parametrize("kernels", ["kernels", "torch"])
def test_models_give_the_same_on_another_device(kernels: str, artifacts, toy_halo: Path) -> None:
    run(kernels, artifacts.tiny("float32"), toy_halo)


if __name__ == "__main__":
    main()
