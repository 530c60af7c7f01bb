"""Every probe, in the order in which they run: what an error would make the others fail comes first."""

from __future__ import annotations

from mlip_deploy.conformance.probe import Probe
from mlip_deploy.conformance.probes import (
    derivatives,
    dynamics,
    extent,
    lammps_commands,
    lammps_ensembles,
    lammps_outputs,
    lammps_parallel,
    lammps_runs,
    objects,
    symmetries,
)

PROBES: tuple[Probe, ...] = (
    *symmetries.PROBES,
    *derivatives.PROBES,
    *extent.PROBES,
    *dynamics.PROBES,
    *objects.PROBES,
    *lammps_outputs.PROBES,
    *lammps_parallel.PROBES,
    *lammps_runs.PROBES,
    *lammps_commands.PROBES,
    *lammps_ensembles.PROBES,
)
