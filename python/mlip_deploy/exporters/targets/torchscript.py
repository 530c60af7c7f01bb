"""The back end torchscript: an archive of TorchScript. csrc/model/torchscript_backend.cpp runs it."""

from __future__ import annotations

from pathlib import Path

import torch

from mlip_deploy.artifact.contract import (
    Contract,
)
from mlip_deploy.artifact.fixtures import Fixtures
from mlip_deploy.artifact.reader import records
from mlip_deploy.exporters.settings import quiet
from mlip_deploy.files import replacing


def save(module: torch.jit.ScriptModule, output: Path, contract: Contract, fixtures: Fixtures) -> None:
    with replacing(output) as temporary, quiet():
        torch.jit.save(module, temporary, _extra_files=records(contract, fixtures))
