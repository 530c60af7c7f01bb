"""`MLPotential("mlip", model="7net-0.mlip.pt")` for openmm-ml: pure and mixed ML/MM systems.

openmm-ml finds the factory through the entry-point group `openmmml.potentials` (pyproject.toml) and imports this
file with every other potential: torch and the core are loaded only when a System is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openmm
from openmm.app import Topology
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from mlip_deploy.errors import MLIPError


class MLIPPotentialImplFactory(MLPotentialImplFactory):  # type: ignore[misc]
    """Makes the implementation behind MLPotential("mlip", model=...)."""

    def createImpl(self, name: str, model: str | Path | None = None, **options: Any) -> MLPotentialImpl:  # noqa: N802
        """
        Args:
            name: "mlip".
            model: artifact written by `mlip export`.
            options: `device`, `threads`, `embed` of MLIPForce.
        """
        if model is None:
            raise MLIPError(
                f'MLPotential("{name}") needs an artifact. Type: MLPotential("{name}", model="NAME.mlip.pt")'
            )
        return MLIPPotentialImpl(model, options)


class MLIPPotentialImpl(MLPotentialImpl):  # type: ignore[misc]
    """One MLIPForce for the whole System or for its ML subset."""

    def __init__(self, model: str | Path, options: dict[str, Any]):
        self.model = model
        self.options = options

    def addForces(  # noqa: N802
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,  # noqa: N803
        **arguments: Any,
    ) -> None:
        """Add the MLIPForce. It is periodic if the topology or the System is.

        Args:
            arguments: those of createSystem or createMixedSystem; `device`, `threads` and `embed` override the
                potential's, others belong to openmm-ml's embedding.
        """
        from mlip_deploy.openmm import MLIPForce

        known = {key: value for key, value in arguments.items() if key in ("device", "threads", "embed")}
        periodic = topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions()
        force = MLIPForce(self.model, topology, atoms=atoms, periodic=periodic, **{**self.options, **known})
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def getMLLongRange(self) -> bool:  # noqa: N802
        """Message passing ends at the contract's interaction range: no electrostatics beyond it."""
        return False
