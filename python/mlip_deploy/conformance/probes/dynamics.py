"""Dynamics in each engine keeps the energy."""

from __future__ import annotations

from mlip_deploy.conformance.probe import Probe, probe
from mlip_deploy.conformance.trial import Trial
from mlip_deploy.validation.case import Outcome
from mlip_deploy.validation.physics.dynamics import STEPS, energy_kept, time_step
from mlip_deploy.validation.physics.tools import outcome


@probe("nve")
def nve(trial: Trial) -> Outcome:
    """The total energy of dynamics without a thermostat is kept, up to the error of the time step.

    100 steps from rest, and twice as many of half their length. The error of velocity Verlet falls as the square of the
    step; what is left of the change of energy when both are extrapolated to a step of zero is an error of the forces.
    The threshold is 0.15 of the largest change at the longer step, the share that the next order may have, and twice
    the noise of the energy.
    """
    atoms = trial.atoms
    step = time_step(atoms)
    simulate = trial.target.total_energies
    coarse, fine = simulate(atoms, step, STEPS), simulate(atoms, step / 2.0, 2 * STEPS)[::2]
    checks, curve = energy_kept(trial.limits.energy_per_atom, len(atoms), step, coarse, fine)
    return outcome(checks, curves=[curve])


PROBES: tuple[Probe, ...] = (nve,)
