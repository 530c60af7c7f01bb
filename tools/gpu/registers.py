"""Registers and spills of the kernels of a file, by NVIDIA's assembler, for a list of architectures. Needs no GPU.

    python tools/gpu/registers.py 7net-0.mlip.pt [sm_75 sm_80 sm_90 sm_100 sm_120]

The sources are those that a GPU would compile for a step and for the search for neighbours: the emulator of the tests
(make build) runs a step and writes them down.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

import torch

import mlip_deploy
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.environment.gpus import run_time_compiler
from mlip_deploy.operators import load_operators

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]


def sources(path: str) -> list[str]:
    """The texts of a step's kernels, in the order in which they first run, and of those that search for neighbours."""
    emulator = torch.ops.mlip_gpu_emulator
    emulator.start_device(True)
    contract = Artifact(path).contract
    positions = 0.6 * contract.cutoff * torch.eye(3, dtype=torch.float64)
    types = torch.zeros(3, dtype=torch.int64)
    emulator.step(path, True, positions, types, torch.zeros(3, 3, dtype=torch.float64), False, False, False)
    return [*emulator.sources(), emulator.pair_search_source()]


class Compiler:
    """NVRTC."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(run_time_compiler()))

    def compiled(self, source: str, architecture: str, *options: str) -> tuple[str, bytes]:
        """-> (what the compiler says, machine code)"""
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"mlip.cu", 0, None, None)
        given = [option.encode() for option in (f"--gpu-architecture={architecture}", "--std=c++17", *options)]
        status = self.library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        text = log.value.decode()
        if status != 0:
            raise SystemExit(f"NVIDIA's compiler refuses the kernels for {architecture}:\n{text}")
        self.library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetCUBIN(program, code)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return text, code.raw

    def remarks(self, source: str, architecture: str) -> str:
        """The assembler's."""
        return self.compiled(source, architecture, "--ptxas-options=-v")[0]


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
    print(" " * 32 + "".join(f"{architecture:>10s}" for architecture in architectures))
    for source in sources(sys.argv[1]):
        columns = [registers(compiler.remarks(source, architecture)) for architecture in architectures]
        for kernel in columns[0]:
            cells = [f"{used} + {spilled}" if spilled else f"{used}" for used, spilled in (c[kernel] for c in columns)]
            print(f"  {kernel:30s}" + "".join(f"{cell:>10s}" for cell in cells))
    sys.stdout.flush()
    os._exit(0)  # autograd's thread for the device may ask for an interpreter that is gone


if __name__ == "__main__":
    main()
