"""Registers and spills of the kernels of a file, by NVIDIA's assembler, for a list of architectures. Needs no GPU.

    python tools/gpu/registers.py 7net-0.mlip.pt [sm_75 sm_80 sm_90 sm_100 sm_120]

The sources are those that a GPU would compile; the emulator of the tests (make build) writes them down.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

import torch

import mlip_deploy
from mlip_deploy.environment.gpus import run_time_compiler
from mlip_deploy.operators import load_operators

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]


def constant(value: Any) -> Any:
    """Of a value in a TorchScript graph."""
    node = value.node()
    return [constant(one) for one in node.inputs()] if node.kind() == "prim::ListConstruct" else value.toIValue()


def operators(block: Any, kind: str) -> list[Any]:
    found = []
    for node in block.nodes():
        found += [node] if node.kind() == kind else []
        for inner in node.blocks():
            found += operators(inner, kind)
    return found


def sources(path: str) -> dict[str, str]:
    """The text of each distinct convolution of a file, by the layer that has it first, and that of a step's edges."""
    emulator = torch.ops.mlip_gpu_emulator
    graph = torch.jit.load(path, map_location="cpu").graph
    torch._C._jit_pass_inline(graph)
    found: dict[str, str] = {}
    for layer, node in enumerate(operators(graph, "mlip::edge_tensor_product")):
        paths, coefficients, table, step = (constant(value) for value in list(node.inputs())[5:9])
        table = table[0] if table.dim() == 4 else table  # the code does not tell how many there are
        rows = [paths[k : k + 9] for k in range(0, len(paths), 9)]
        n_features = max(row[4] + (2 * row[0] + 1) * row[3] for row in rows)
        n_harmonics = max(row[5] + 2 * row[1] + 1 for row in rows)
        n_weights = max(row[6] + row[3] for row in rows)
        kind = coefficients.dtype
        radial = torch.ones(1, dtype=kind) if table.numel() else torch.ones(1, n_weights, dtype=kind)
        features, harmonics = torch.zeros(2, n_features, dtype=kind), torch.zeros(1, n_harmonics, dtype=kind)
        edges = torch.tensor([[0], [1]])
        emulator.edge_tensor_product(features, harmonics, radial, edges, 1, paths, coefficients, table, step)
        text = emulator.last_source()
        if text not in found.values():
            found[f"layer {layer}"] = text
    found["edges of a step"] = emulator.edges_source(True)
    return found


class Compiler:
    """NVRTC, with the assembler's remarks."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(run_time_compiler()))

    def remarks(self, source: str, architecture: str) -> str:
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"mlip.cu", 0, None, None)
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"--ptxas-options=-v"]
        status = self.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        text = log.value.decode()
        if status != 0:
            raise SystemExit(f"NVIDIA's compiler refuses the kernels for {architecture}:\n{text}")
        return text


def registers(remarks: str) -> dict[str, tuple[int, int]]:
    """-> {kernel: (registers of a thread, bytes spilled)}"""
    pattern = r"Function properties for (\w+)\s.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    return {name: (int(used), int(spilled)) for name, spilled, used in re.findall(pattern, remarks, re.DOTALL)}


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("Type: python tools/gpu/registers.py FILE.mlip.pt [sm_90 ...]")
    load_operators()
    torch.ops.load_library(str(Path(mlip_deploy.__file__).parent / "lib" / "libmlip_gpu_emulator.so"))
    architectures, compiler = sys.argv[2:] or ARCHITECTURES, Compiler()
    print("registers of a thread, and bytes spilled where there are any")
    for layer, source in sources(sys.argv[1]).items():
        columns = [registers(compiler.remarks(source, architecture)) for architecture in architectures]
        print(f"{layer:32s}" + "".join(f"{architecture:>10s}" for architecture in architectures))
        for kernel in columns[0]:
            cells = [f"{used} + {spilled}" if spilled else f"{used}" for used, spilled in (c[kernel] for c in columns)]
            print(f"  {kernel:30s}" + "".join(f"{cell:>10s}" for cell in cells))


if __name__ == "__main__":
    main()
