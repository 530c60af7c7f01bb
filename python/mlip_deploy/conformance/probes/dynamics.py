"""Dynamics in each engine keeps the energy."""

from __future__ import annotations

from mlip_deploy.conformance.probe import Probe, probe
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.validation.case import Outcome
from mlip_deploy.validation.physics.dynamics import energy_kept, two_time_steps
from mlip_deploy.validation.physics.tools import outcome


@probe("nve")
def nve(trial: Trial) -> Outcome:
    """The total energy of dynamics without a thermostat is kept, up to the error of the time step.

    100 steps from rest, and twice as many of half their length. The error of velocity Verlet falls as the square of the
    step; what is left of the change of energy when both are extrapolated to a step of zero is an error of the forces.
    The threshold is 0.15 of the largest change at the longer step, the share that the next order may have, and twice
    the noise of the energy. Where the energy changes by more than 1 meV per atom, both time steps are halved.
    """
    atoms = trial.atoms
    runs = two_time_steps(atoms, lambda step, n_steps: trial.target.total_energies(atoms, step, n_steps))
    checks, curve = energy_kept(trial.limits.energy_per_atom, len(atoms), runs)
    return outcome(checks, curves=[curve])


PROBES: tuple[Probe, ...] = (nve,)
