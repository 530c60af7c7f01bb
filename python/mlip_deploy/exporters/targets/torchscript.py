"""The back end torchscript: an archive of TorchScript. csrc/model/torchscript_backend.cpp runs it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch

from mlip_deploy.artifact.contract import Contract
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.reader import records
from mlip_deploy.artifact.sealed_archive import write_zip
from mlip_deploy.exporters.settings import quiet
from mlip_deploy.files import replacing

METHODS = ("forward", "energies", "extras")
"""What a file may hold; `forward` it must."""


def operators_of(module: torch.jit.ScriptModule) -> set[str]:
    """mlip's operators that the methods of a file call."""
    graphs = [getattr(module, method).inlined_graph for method in METHODS if hasattr(module, method)]
    return {name for graph in graphs for name in re.findall(r"\bmlip::\w+", str(graph))}


def save(module: torch.jit.ScriptModule, output: Path, contract: Contract, fixtures: Fixtures) -> None:
    """Raises MLIPError when the file cannot be written."""
    buffer = io.BytesIO()  # torch aborts the process when a disk is full
    with quiet():
        torch.jit.save(module, buffer, _extra_files=records(contract, fixtures))
    with replacing(output) as file:
        write_zip(file, buffer)
