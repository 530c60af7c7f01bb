"""Thermal conductivity of a crystal by Green and Kubo: heat fluxes along a run at constant energy, in ten blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from scipy.integrate import cumulative_trapezoid

from mlip_deploy.report.content import Curve, Series
from mlip_deploy.result import Array
from mlip_deploy.validation.properties.dynamics import heat_fluxes
from mlip_deploy.validation.properties.recipe import Measurement, Metric, Recipe, Setting, UnfinishedError

WATT_PER_METRE = 1e22 * units._e
"""of one eV/(ps Å), which is 1.602e-19 J / (1e-12 s · 1e-10 m)"""


class State(NamedTuple):
    """A crystal, and a run that is long enough for an error of about a tenth."""

    crystal: Atoms
    temperature: float
    """K"""
    timestep: float
    """fs"""
    steps: int
    every: int
    """steps between two fluxes"""
    longest: float
    """ps, the end of the integral: a small part of a block, and long after the correlation is gone"""
    published: str


STATES = {
    "Ar": State(
        crystal=bulk("Ar", "fcc", a=5.376, cubic=True).repeat(4),
        temperature=70.0,
        timestep=4.0,
        steps=100000,
        every=10,
        longest=4.0,
        published="about 0.29 for Lennard-Jones argon (LAMMPS manual, Howto kappa, Green-Kubo)",
    ),
    "MgO": State(
        crystal=bulk("MgO", "rocksalt", a=4.27, cubic=True).repeat(2),
        temperature=1000.0,
        timestep=1.0,
        steps=40000,
        every=10,
        longest=1.0,
        published="none in so small a cell",
    ),
}


BLOCKS = 10


class Conductivity(NamedTuple):
    """In W/(m K)."""

    value: float
    error: float
    """standard deviation of the mean over blocks"""
    integral: Array
    """up to each lag of the correlation function"""


def conductivity(fluxes: Array, interval: float, longest: float, volume: float, temperature: float) -> Conductivity:
    """κ = ∫ <J(0)·J(t)> dt / (3 V k_B T²) of an isotropic crystal.

    Args:
        fluxes: [n, 3] in eV Å/ps, of the whole cell.
        interval: ps between two.
        longest: ps, the end of the integral.
        volume: Å³.
        temperature: K.
    """
    lags = 1 + round(longest / interval)
    blocks = np.split(fluxes[: len(fluxes) // BLOCKS * BLOCKS], BLOCKS)
    scale = WATT_PER_METRE / (3.0 * units.kB * temperature**2 * volume)
    integrals = np.array([scale * cumulative_trapezoid(_correlation(block, lags), dx=interval) for block in blocks])
    ends = integrals[:, -1]
    return Conductivity(float(ends.mean()), float(ends.std(ddof=1) / np.sqrt(BLOCKS)), integrals.mean(axis=0))


def _correlation(fluxes: Array, lags: int) -> Array:
    """<J(0)·J(t)> at the first lags, by Fourier transform of the series and as many zeros."""
    n = len(fluxes)
    power = (np.abs(np.fft.rfft(fluxes, 2 * n, axis=0)) ** 2).sum(axis=1)
    return np.fft.irfft(power)[:lags] / (n - np.arange(lags))


def measure(material: str, setting: Setting) -> Measurement:
    state = STATES[material]
    atoms = state.crystal
    temperatures, fluxes = heat_fluxes(setting, atoms, state.temperature, state.timestep, state.steps, state.every)
    if not np.isfinite(fluxes).all():
        raise UnfinishedError("the heat flux is not finite any more")
    temperature = float(temperatures.mean())
    interval = state.every * state.timestep / 1000.0
    found = conductivity(fluxes, interval, state.longest, atoms.get_volume(), temperature)
    times = interval * np.arange(1, len(found.integral) + 1)
    return Measurement(
        values={"conductivity": found.value, "error": 100.0 * found.error / found.value},
        curves=[
            Curve(
                title=f"{material}: Green and Kubo's integral",
                x_label="up to / ps",
                y_label="W/(m K)",
                series=[Series(label="model", x=times.tolist(), y=found.integral.tolist())],
            )
        ],
        notes=[
            f"{material}: {found.value:.3g} ± {found.error:.2g} W/(m K), {len(atoms)} atoms, "
            f"{state.steps * state.timestep / 1000:.0f} ps at {temperature:.0f} K; published: {state.published}"
        ],
    )


def materials(elements: Sequence[str]) -> list[str]:
    """Those whose elements the user named: the runs are too long for a suite that nobody asked for by name."""
    return [material for material in STATES if set(elements_of(material)) <= set(elements)]


def elements_of(material: str) -> set[str]:
    return set(STATES[material].crystal.get_chemical_symbols())


RECIPE = Recipe(
    name="thermal-conductivity",
    purpose="does heat travel through a crystal as it should?",
    inputs="a crystal at fixed volume, a fifth of the steps with a thermostat, then constant energy; "
    + "; ".join(f"{name}: {len(s.crystal)} atoms, {s.steps} steps of {s.timestep} fs" for name, s in STATES.items()),
    metrics={
        "conductivity": Metric("thermal conductivity", "W/(m K)", None, "reported, not judged: cells are small"),
        "error": Metric("statistical error", "%", 30.0, "ten blocks; threshold: beyond it a longer run is needed"),
    },
    materials=materials,
    elements_of=elements_of,
    measure=measure,
    needs_heat_flux=True,
)
