"""Run an artifact on one structure in an engine, with the same result type whichever engine it is.

`EVALUATORS[name](artifact_path, atoms, ranks=..., threads=...)` returns a `mlip_deploy.result.Result`.
"""

from __future__ import annotations

from collections.abc import Callable

from mlip_deploy.result import Result


def evaluator(engine: str) -> Callable[..., Result]:
    """The `evaluate` function of "ase", "lammps" or "openmm"; engines are imported when they are asked for."""
    if engine == "ase":
        from mlip_deploy.engines.ase import evaluate
    elif engine == "lammps":
        from mlip_deploy.engines.lammps import evaluate
    elif engine == "openmm":
        from mlip_deploy.engines.openmm import evaluate
    else:
        raise ValueError(f"engine '{engine}' is not one of: {', '.join(ENGINES)}")
    return evaluate


ENGINES = ("ase", "lammps", "openmm")
