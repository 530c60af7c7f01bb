"""Checkpoint files of strangers. They are pickles: loading one may run code that it carries.

torch can load a checkpoint with a restricted unpickler that creates tensors, containers and what it is told is
harmless, and runs nothing else. What does not load in that way is refused until the user says that the file is
trusted. Checkpoints inside an installed package are trusted because the package is: its code runs anyway.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.settings import quiet


def _numpy_arrays() -> list[Any]:
    """What a pickled NumPy array or scalar names, under the names of NumPy 1 and 2."""
    reconstruct, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    names = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((reconstruct, "_reconstruct"), (scalar, "scalar"))
    ]
    return [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdFDSU"}, *names]


def load_checkpoint(path: Path, trust: bool) -> object:
    """The content of a checkpoint file, on the CPU.

    Args:
        trust: run the code that the file may carry, when it does not load without.

    Raises:
        MLIPError: for a file that needs code to load and is not trusted, or that torch cannot read.
    """
    if not path.is_file():
        raise MLIPError(f"'{path}': no such checkpoint file")
    try:
        with torch.serialization.safe_globals(_numpy_arrays()), quiet():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise MLIPError(_refusal(path)) from error
    except Exception as error:
        raise MLIPError(
            f"'{path}' is not a checkpoint that torch can read ({type(error).__name__}: {error})"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MLIPError(f"'{path}' is not a checkpoint that torch can read ({reason})") from error


def _refusal(path: Path) -> str:
    try:
        with torch.serialization.safe_globals(_numpy_arrays()):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a zip archive: a pickle of old, which cannot be looked into without loading it
        names = []
    found = f": it asks for {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}" if names else ""
    return (
        f"'{path}' holds more than tensors and plain values{found}. A checkpoint is a pickle, and loading this one "
        "runs the code that it carries. If you trust whoever wrote it, add: --trust-checkpoint"
    )
