"""What a run's table says: findings with a verdict, averages with errors, curves."""

from __future__ import annotations

import numpy as np
from ase import units
from ase.formula import Formula

from mlip_deploy.engines.lammps_files import atomic_mass
from mlip_deploy.preparation.plan import COOL, Plan
from mlip_deploy.preparation.prepare import Prepared
from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.simulation.content import Average, Finding
from mlip_deploy.simulation.remedies import BLOW_UP
from mlip_deploy.simulation.statistics import drift, kept, mean_and_error
from mlip_deploy.simulation.table import Table

DRIFT_LIMIT = 0.005 * units.kJ / units.mol * 1000.0
"""meV/atom/ps: what GROMACS accepts by default of its neighbour lists (verlet-buffer-tolerance, 0.005 kJ/mol/ps)"""
SHORTEST = 0.5
"""ps, below which velocity Verlet's own oscillation hides a drift: some periods of a slow vibration"""
ERRORS = 3.0
"""standard errors between two numbers that are not the same"""
RUNAWAY = 10.0
"""times the temperature asked for: three degrees of freedom reach it once in a million samples"""
STILL_HOT = 1.5
"""times the temperature that it was to be cooled to"""
PRESSURE_LIMIT = 1000.0
"""bar, from the pressure that a cell was relaxed to"""

QUANTITIES = (
    # column of the table, its name, unit, and whether it is divided by the number of atoms
    ("temperature", "temperature", "K", False),
    ("potential", "potential energy", "eV/atom", True),
    ("total", "total energy", "eV/atom", True),
    ("volume", "volume", "Å³", False),
    ("density", "density", "g/cm³", False),
    ("pressure", "pressure", "bar", False),
)
IN_CONTACT = ("nvt", "npt")
"""ensembles that have a temperature to reach"""


def findings(prepared: Prepared, table: Table) -> list[Finding]:
    """Of a run that its engine ended without an error."""
    plan = prepared.plan
    wrong = _numbers(plan, table)
    if wrong:
        return wrong
    if plan.relaxes:
        return _relaxation(plan, table)
    if plan.ensemble == "nve":
        return [_conservation(prepared, table)]
    return _equilibrium(plan, table) if plan.ensemble in IN_CONTACT else [_cooling(table)]


def averages(prepared: Prepared, table: Table) -> list[Average]:
    """Of what an ensemble keeps on average; none of relaxations and cooling."""
    if prepared.plan.relaxes or prepared.plan.ensemble == "anneal":
        return []
    found = []
    for column, name, unit, per_atom in QUANTITIES:
        values = _column(prepared, table, column)
        if values is None or np.ptp(values) == 0.0:
            continue
        values = kept(values / prepared.n_atoms if per_atom else values)
        mean, error = mean_and_error(values)
        half = len(values) // 2
        (early, error_early), (late, error_late) = mean_and_error(values[:half]), mean_and_error(values[half:])
        steady = bool(abs(late - early) <= ERRORS * np.hypot(error_early, error_late))
        found.append(Average(quantity=name, unit=unit, mean=mean, error=error, steady=steady))
    return found


def curves(prepared: Prepared, table: Table) -> list[Curve]:
    """Of all that changes, over time or iterations."""
    plan = prepared.plan
    x_label = "iteration" if plan.relaxes else "time / ps"
    x = table["step"] if plan.relaxes else table["time"]
    found = []
    for column, name, unit, per_atom in (*QUANTITIES, ("largest_force", "largest force", "eV/Å", False)):
        values = _column(prepared, table, column)
        if values is None or np.ptp(values) == 0.0 or not np.isfinite(values).all():
            continue
        if column == "total" and plan.ensemble == "nve":
            values, name, unit = 1000.0 * (values - values[0]), "change of total energy", "meV/atom"
        if column in ("total", "density") and plan.ensemble != "nve":
            continue  # with a thermostat the total energy says no more than both of its parts
        values = values / prepared.n_atoms if per_atom else values
        series = [Series(label="", x=x.tolist(), y=values.tolist())]
        target = _target(plan, column, x)
        if target is not None:
            series.append(Series(label="asked for", x=x.tolist(), y=target.tolist(), style="reference"))
        found.append(Curve(title=name.capitalize(), x_label=x_label, y_label=f"{name} / {unit}", series=series))
    return found


def _column(prepared: Prepared, table: Table, column: str) -> Array | None:
    if column == "density":
        volume = _column(prepared, table, "volume")
        mass = sum(n * atomic_mass(symbol) for symbol, n in Formula(prepared.formula).count().items())
        return None if volume is None or not volume.all() else mass / volume * units._amu * 1e27
    return table[column] if column in table and len(table) > 1 else None


def _target(plan: Plan, column: str, x: Array) -> Array | None:
    """What a quantity is held at."""
    if column == "temperature" and plan.ensemble in IN_CONTACT:
        return np.full_like(x, plan.temperature)
    if column == "temperature" and plan.ensemble == "anneal":
        hot = plan.hot_steps * plan.timestep * 1e-3
        return np.interp(x, [hot, plan.ps], [plan.temperature, COOL])
    if column == "pressure" and plan.ensemble in ("npt", "relax-cell"):
        return np.full_like(x, plan.pressure)
    if column == "largest_force":
        return np.full_like(x, plan.force_tolerance)
    return None


def _numbers(plan: Plan, table: Table) -> list[Finding]:
    """A table without numbers, or with impossible ones."""
    if not len(table):
        return [Finding(verdict="fail", text="the engine printed no table", remedy="Read output.txt")]
    steps, energy = table["step"], table["total"]
    bad = np.flatnonzero(~np.isfinite(energy))
    if len(bad):
        text = f"the energy is not a number from step {steps[bad[0]]:.0f} on"
        return [Finding(verdict="fail", text=text, remedy=BLOW_UP)]
    hot = np.flatnonzero(table["temperature"] > RUNAWAY * plan.temperature)
    if len(hot) and not plan.relaxes:
        text = (
            f"the temperature reached {table['temperature'].max():.0f} K, from step {steps[hot[0]]:.0f} on more than "
            f"{RUNAWAY:g} times the {plan.temperature:g} K that were asked for"
        )
        return [Finding(verdict="fail", text=text, remedy=BLOW_UP)]
    return []


def _relaxation(plan: Plan, table: Table) -> list[Finding]:
    force, limit = table["largest_force"][-1], plan.force_tolerance
    text = f"the largest force on an atom is {force:.4f} eV/Å after {table['step'][-1]:.0f} iterations"
    converged = force <= 1.001 * limit  # engines print five digits
    found = [
        Finding(verdict="pass", text=f"{text}, below the {limit:g} eV/Å that were asked for")
        if converged
        else Finding(
            verdict="fail",
            text=f"{text}: not converged to {limit:g} eV/Å",
            remedy="Relax again from the last structure. If it stops there too, look at the structure: a file in "
            "float32 has forces with a noise that may be too large for this limit; export it with --dtype float64",
        )
    ]
    if plan.ensemble == "relax-cell" and "pressure" in table:
        pressure = table["pressure"][-1]
        near = abs(pressure - plan.pressure) <= PRESSURE_LIMIT
        found.append(
            Finding(
                verdict="pass" if near else "fail",
                text=f"the pressure is {pressure:.0f} bar; {plan.pressure:g} bar were asked for",
                remedy="" if near else "Relax again from the last structure",
            )
        )
    return found


def _conservation(prepared: Prepared, table: Table) -> Finding:
    change = 1000.0 * (table["total"] - table["total"][0]) / prepared.n_atoms
    times = kept(table["time"])
    slope, error = drift(times, kept(change))
    text = (
        f"the total energy drifts by {with_error(slope, error)} meV/atom/ps; its largest change is "
        f"{np.abs(change).max():.2g} meV/atom"
    )
    long_enough = times[-1] - times[0] >= SHORTEST
    if long_enough and abs(slope) > DRIFT_LIMIT + ERRORS * error:
        return Finding(
            verdict="fail",
            text=f"{text}. More than {DRIFT_LIMIT:.2g} meV/atom/ps is too much",
            remedy=f"Halve the time step: --timestep {prepared.plan.timestep / 2:g}fs. If that changes nothing, the "
            "forces are not the gradient of the energy, or too noisy: mlip validate MODEL -o validation",
        )
    if not long_enough or ERRORS * error > DRIFT_LIMIT:
        return Finding(
            verdict="open",
            text=f"{text}. The run is too short to tell whether this is below {DRIFT_LIMIT:.2g} meV/atom/ps",
            remedy="Run it longer (--time)",
        )
    return Finding(verdict="pass", text=f"{text}. Up to {DRIFT_LIMIT:.2g} meV/atom/ps is accepted")


def _equilibrium(plan: Plan, table: Table) -> list[Finding]:
    """Whether the averages are those that were asked for."""
    held = [("temperature", plan.temperature, "K")]
    if plan.ensemble == "npt" and "pressure" in table:
        held.append(("pressure", plan.pressure, "bar"))
    found = []
    for name, target, unit in held:
        mean, error = mean_and_error(kept(table[name]))
        text = f"the {name} is {with_error(mean, error)} {unit} on average; {target:g} {unit} were asked for"
        if not np.isfinite(error):
            found.append(Finding(verdict="open", text=f"{text}. Too few values", remedy="Run it longer (--time)"))
        elif abs(mean - target) > ERRORS * error:
            text = f"{text}: not in equilibrium yet"
            found.append(Finding(verdict="open", text=text, remedy="Run it longer (--time)"))
        else:
            found.append(Finding(verdict="pass", text=text))
    return found


def _cooling(table: Table) -> Finding:
    end = table["temperature"][-max(1, len(table) // 20) :].mean()
    text = f"it was cooled to {end:.0f} K; {COOL:g} K were asked for"
    if end > STILL_HOT * COOL:
        return Finding(verdict="open", text=text, remedy="The thermostat cannot follow so fast. Run it longer (--time)")
    return Finding(verdict="pass", text=text)


def with_error(mean: float, error: float) -> str:
    """Such as "301.2 ± 2.4": two digits of the error, and the mean to the same place."""
    if not np.isfinite(error) or error <= 0.0:
        return f"{mean:.5g}"
    places = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{mean:.{places}f} ± {error:.{places}f}"
