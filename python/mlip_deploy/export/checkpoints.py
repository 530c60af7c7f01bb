"""Reading checkpoints, which are Python pickles: unpickling one may run any code that its author put there."""

from __future__ import annotations

from pathlib import Path

import torch

from mlip_deploy.errors import MLIPError


def load_checkpoint(path: Path, trust: bool) -> object:
    """What the file holds, on the CPU: tensors and plain containers, or any object when `trust` is true.

    Raises:
        MLIPError: when the file has to be unpickled in full and `trust` is false, or when it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if not trust:
            raise MLIPError(
                f"{path} holds more than tensors: loading it runs code that the file may contain. If you trust who "
                "made it, add: --trust-checkpoint"
            ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise MLIPError(f"{path} could not be read as a checkpoint ({type(error).__name__}: {error})") from error
