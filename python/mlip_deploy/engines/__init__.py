"""Run an artifact on structures in an engine, with the same result type whichever engine it is.

`evaluator(name)(artifact_path, atoms, ranks=..., threads=...)` returns a `mlip_deploy.result.Result`; the engine stays
open for the next structure. `many_evaluator(name)` takes a list of structures and returns a list.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from mlip_deploy.result import Result


def evaluator(engine: str) -> Callable[..., Result]:
    """The `evaluate` function of "ase", "lammps" or "openmm"; engines are imported when they are asked for."""
    evaluate: Callable[..., Result] = _module(engine).evaluate
    return evaluate


def many_evaluator(engine: str) -> Callable[..., list[Result]]:
    """The `evaluate_many` function of an engine."""
    evaluate_many: Callable[..., list[Result]] = _module(engine).evaluate_many
    return evaluate_many


def _module(engine: str) -> ModuleType:
    if engine not in ENGINES:
        raise ValueError(f"engine '{engine}' is not one of: {', '.join(ENGINES)}")
    return import_module(f"mlip_deploy.engines.{engine}")


ENGINES = ("ase", "lammps", "openmm")
