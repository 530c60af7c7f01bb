"""`MLPotential("mlip", model="7net-0.mlip.pt")` for openmm-ml: pure and mixed ML/MM systems.

openmm-ml finds the factory through the entry-point group `openmmml.potentials` (pyproject.toml) and imports this
file with every other potential: torch and the core are loaded only when a System is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import openmm
from openmm.app import Topology
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.errors import MLIPError

OPTIONS = ("device", "threads", "embed")
"""Of MLIPForce, which MLPotential and its methods take too."""


class MLIPPotentialImplFactory(MLPotentialImplFactory):  # type: ignore[misc]
    """Makes the implementation behind MLPotential("mlip", model=...)."""

    def createImpl(self, name: str, model: str | Path | None = None, **options: Any) -> MLPotentialImpl:  # noqa: N802
        """Make the implementation behind a potential.

        Parameters
        ----------
        name
            "mlip".
        model
            Artifact written by `mlip export`.
        options
            `device`, `threads`, `embed` of MLIPForce, and the model's settings, such as `charge=-1`.

        Raises
        ------
        MLIPError
            Without a model, and for any other option.
        """
        if model is None:
            raise MLIPError(
                f'MLPotential("{name}") needs an artifact. Type: MLPotential("{name}", model="NAME.mlip.pt")'
            )
        known = _known(model)
        _refuse(f'MLPotential("{name}", ...)', [option for option in options if option not in known], known)
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

        Parameters
        ----------
        topology
            Of the whole System.
        system
            Gets the force.
        atoms
            Indices of the atoms that the model sees; None for all.
        forceGroup
            Of the force.
        arguments
            Those of createSystem or createMixedSystem; `device`, `threads`, `embed` and settings override the
            potential's. In a
            mixed System others belong to openmm-ml's embedding.

        Raises
        ------
        MLIPError
            For an option that is not known; in a mixed System for one that is almost one of ours.
        """
        from mlip_deploy.openmm import MLIPForce

        names = _known(self.model)
        others = [name for name in arguments if name not in names]
        if atoms is None:
            _refuse("createSystem", others, names)
        almost = [name for name in others if get_close_matches(name.lower(), names, cutoff=0.8)]
        _refuse("createMixedSystem", almost, names)
        known = {key: value for key, value in arguments.items() if key in names}
        periodic = topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions()
        force = MLIPForce(self.model, topology, atoms=atoms, periodic=periodic, **{**self.options, **known})
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def getMLLongRange(self) -> bool:  # noqa: N802
        """Say whether the model sees positions beyond its edges, as sums over k-vectors do."""
        return Artifact(self.model).contract.positions is not None


def _known(model: str | Path) -> list[str]:
    """Options of MLIPForce, and settings of the model."""
    return [*OPTIONS, *(setting.name for setting in Artifact(model).contract.settings)]


def _refuse(call: str, unknown: list[str], known: list[str]) -> None:
    if unknown:
        raise MLIPError(f"{call}: '{unknown[0]}' is not an option of mlip. Options: {', '.join(known)}")
