"""Whole models on a device of torch that is not the CPU, without a GPU (emulated_device.h): with the GPU's kernels, run
by their emulator, and without, as where no kernels can be compiled. In a process of its own, since torch counts devices
once:

    python tests/unit/test_emulated_device.py kernels|torch FILE.mlip.pt ...

Steps as engines take them, alone and with ghosts as several ranks have them, and how many operators torch dispatches in
one, as on a GPU:

    python tests/unit/test_emulated_device.py steps kernels|torch FILE.mlip.pt ...

And the trace from which a file for a GPU is compiled (`--backend aotinductor --device cuda`), which is all of that work
that needs no GPU:

    python tests/unit/test_emulated_device.py trace FAMILY CHECKPOINT float32|float64
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ase.neighborlist import neighbor_list
from torch.profiler import ProfilerActivity, profile

import mlip_deploy
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.exporters.families.registry import FAMILIES, ExportOptions
from mlip_deploy.exporters.interface import TORCH_DTYPE
from mlip_deploy.exporters.settings import default_dtype, quiet
from mlip_deploy.exporters.targets.aotinductor import _example_settings, _trace, random_graph
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


def start_device(kernels: bool) -> None:
    load_operators()
    torch.ops.load_library(str(Path(mlip_deploy.__file__).parent / "lib" / "libmlip_gpu_emulator.so"))
    torch.ops.mlip_gpu_emulator.start_device(kernels)
    torch._register_device_module("emulated", ModuleType("torch.emulated"))


def compare_files(kernels: bool, paths: list[str]) -> None:
    start_device(kernels)
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


def compare_steps(kernels: bool, paths: list[str]) -> None:
    """Energies, forces and virials of a step, energies alone, with ghosts and without: on the device and on the CPU."""
    start_device(kernels)
    step = torch.ops.mlip_gpu_emulator.step
    for path in paths:
        contract = Artifact(path).contract
        structures = [structure.atoms() for structure in Artifact(path).fixtures().structures]
        atoms = max(structures, key=lambda atoms: (atoms.pbc.all(), len(atoms)))
        assert atoms.pbc.all(), "no ghosts"
        types = torch.tensor(contract.types_of(atoms.get_chemical_symbols()))
        structure = torch.tensor(atoms.positions), types, torch.tensor(atoms.cell.array), bool(atoms.pbc.all())
        for ghosts in (False, True):
            for only_energies in (False, True):
                expected, found = (step(path, on, *structure, ghosts, only_energies) for on in (False, True))
                for name, a, b in zip(("energies", "forces", "virial"), found, expected, strict=False):
                    difference = float((a - b).abs().max() / b.abs().max())
                    print(f"{path}: {name} differ by {difference:.1e}{' with ghosts' if ghosts else ''}")
                    assert difference < AGREEMENT[contract.dtype], name
                assert only_energies or float(expected[1].abs().max()) > 1e-3, "no forces"
        step(path, True, *structure, False, False)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            step(path, True, *structure, False, False)
        called = Counter(event.name for event in profiled.events() if event.name.startswith(("aten::", "mlip::")))
        del called["aten::_copy_from"]  # a copy's second name on devices that are not torch's own
        print(f"{path}: {called.total()} operators in a step of {len(atoms)} atoms:", *called.most_common(), sep="\n  ")


def compare_trace(family: str, checkpoint: str, name: str) -> None:
    """The trace made on the device, with other numbers of atoms and edges than those it was made with."""
    start_device(kernels=True)
    dtype = TORCH_DTYPE[name]
    adapted = FAMILIES[family].adapt(checkpoint, ExportOptions(trust_checkpoint=True))
    contract = adapted.contract(name)
    with default_dtype(dtype), quiet():
        model = adapted.interface(dtype, with_features=False).eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        examples = []
        for n_atoms, n_edges in (13, 40), (30, 200):
            inputs = random_graph(contract, n_atoms, n_edges)
            examples.append((inputs, [one.detach() for one in model(inputs[0], n_atoms, *inputs[2:])]))
        traced, _ = _trace(model.to("emulated:0"), contract, "emulated:0")
    for inputs, expected in examples:
        assert float(expected[1].abs().max()) > 1e-3, "no forces"
        found = traced(*(x.to("emulated:0") for x in inputs))
        for what, a, b in zip(("energies", "gradients"), found, expected, strict=True):
            assert a.device == torch.device("emulated:0")
            difference = float((a.cpu() - b).abs().max()) / float(b.abs().max())
            print(f"{family}: {what} differ by {difference:.1e}")
            assert difference < AGREEMENT[name], what


def main() -> None:
    if sys.argv[1] == "trace":
        compare_trace(*sys.argv[2:])
    elif sys.argv[1] == "steps":
        compare_steps(sys.argv[2] == "kernels", sys.argv[3:])
    else:
        compare_files(sys.argv[1] == "kernels", sys.argv[2:])
    # autograd's thread for the device may ask for the interpreter when that is gone already, which ends the process.
    sys.stdout.flush()
    os._exit(0)


def run(*arguments: str | Path) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kernels", ["kernels", "torch"])
def test_models_give_the_same_on_another_device(kernels: str, artifacts, toy_halo: Path) -> None:
    printed = run(kernels, artifacts.tiny("float32"), toy_halo)
    assert printed.count("gradients differ by") == 2


# In a step of the fused SevenNet that tests share: it has 3 layers. Fewer are better.
MOST_OPERATORS = 285


@pytest.mark.parametrize("kernels", ["kernels", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_are_the_same_on_another_device(kernels: str, dtype: str, artifacts) -> None:
    printed = run("steps", kernels, artifacts.tiny(dtype))
    assert printed.count("forces differ by") == 2
    assert printed.count("energies differ by") == 4
    if kernels == "kernels":
        assert "mlip::" not in printed, "an operator by torch's dispatcher"
    if kernels == "kernels" and dtype == "float32":  # with a radial table in place of the networks
        (count,) = re.findall(r"(\d+) operators in a step", printed)
        assert int(count) <= MOST_OPERATORS, printed


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), [("nequip", "nequip"), ("nequip", "allegro"), ("nequix", "nequix")])
def test_steps_of_other_families(family: str, kind: str, tmp_path: Path) -> None:
    if not find_spec(kind):  # and no import: nequix's needs JAX, its adapter does not
        pytest.skip(f"{kind} is not installed")
    import nequip_models
    from models import tiny_nequix_checkpoint

    if family == "nequix":
        checkpoint = tiny_nequix_checkpoint(tmp_path / "model.pt")
    else:
        checkpoint = nequip_models.write(kind, tmp_path / "model.ckpt")
    mlip_deploy.export(family, checkpoint, tmp_path / "model.mlip.pt", dtype="float64", trust_checkpoint=True)
    printed = run("steps", "kernels", tmp_path / "model.mlip.pt")
    assert printed.count("forces differ by") == 2


@pytest.mark.slow
def test_steps_of_operators_without_kernels(tmp_path: Path) -> None:
    """PET's, whose gradients on a device are those of torch's operators."""
    pytest.importorskip("metatrain")
    from models import tiny_pet_checkpoint

    checkpoint = tiny_pet_checkpoint(tmp_path / "model.ckpt", num_neighbors_adaptive=8)
    mlip_deploy.export("pet", checkpoint, tmp_path / "model.mlip.pt", dtype="float64")
    assert run("steps", "kernels", tmp_path / "model.mlip.pt").count("forces differ by") == 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_off_the_cpu_fixes_no_count(dtype: str, artifacts) -> None:
    printed = run("trace", "sevennet", artifacts.checkpoint(), dtype)
    assert printed.count("gradients differ by") == 2


@pytest.mark.slow
def test_a_trace_of_operators_without_kernels_fixes_no_count(tmp_path: Path) -> None:
    """Their references are in the graph, with the numbers that C++ makes."""
    pytest.importorskip("fairchem")
    from models import tiny_fairchem_checkpoint

    checkpoint = tiny_fairchem_checkpoint(tmp_path / "esen.pt")
    assert run("trace", "fairchem", checkpoint, "float64").count("gradients differ by") == 2


if __name__ == "__main__":
    main()
