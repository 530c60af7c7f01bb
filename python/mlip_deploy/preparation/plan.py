"""What a run does, whatever the engine: the ensemble, its numbers, and the reason for each choice."""

from __future__ import annotations

from dataclasses import dataclass

from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.errors import MLIPError
from mlip_deploy.preparation import quantities

ENSEMBLES = {
    "nve": "constant energy",
    "nvt": "constant temperature",
    "npt": "constant temperature and pressure",
    "min": "positions relaxed in a fixed cell",
    "relax-cell": "positions and cell relaxed",
    "anneal": "hot at first, then cooled to 300 K",
}
RELAXATIONS = ("min", "relax-cell")
WITH_PRESSURE = ("npt", "relax-cell")

FRICTION = 1.0
"""1/ps, of the Langevin thermostats: an atom forgets its velocity within a picosecond."""
TEMPERATURE_DAMPING = 0.1
"""ps, of LAMMPS's Nose-Hoover thermostat in npt"""
PRESSURE_DAMPING = 1.0
"""ps, of barostats that move the cell"""
COOL = 300.0
"""K, where `anneal` ends"""
HOT_PART = 0.25
"""of the time of `anneal`, before it cools"""

FORCE_TOLERANCE = {"min": 0.01, "relax-cell": 0.001}
"""eV/Å: the largest force on an atom where a relaxation ends. A cell needs the lower one, as its stress is a small
difference of large terms."""
MOST_ITERATIONS = 2000
"""of a relaxation"""

GUARD_EVERY = 10
"""steps between two looks of the guard"""
GUARD_GRADE = 1.5
"""from which the guard stops a run: 1 is the farthest 1 % of the environments of the model's domain"""

TIME_STEPS = ((3.0, 0.5), (20.5, 1.0), (float("inf"), 2.0))
"""fs, for a lightest atom below so many u: hydrogen; up to neon; heavier.

At least ten steps for each period of the fastest vibration (A. R. Leach, Molecular Modelling, 2nd edition, chapter 7).
The stiffest bonds are those of H2 (4401 cm-1: 7.6 fs), N2 (2359 cm-1: 14.1 fs) and P2 (781 cm-1: 42.7 fs), from Huber
and Herzberg, Constants of Diatomic Molecules (1979): 15, 14 and 21 steps.
"""

D3_FUNCTIONALS = {"PBE": "pbe", "PBEsol": "pbesol", "RPBE": "rpbe", "revPBE": "revpbe"}
"""Functionals of energy frames that LAMMPS's dispersion/d3 has parameters for, by its name for them."""


@dataclass(frozen=True)
class Plan:
    """One run. Units are those of LAMMPS's `metal`: Å, eV, ps, K, bar."""

    ensemble: str
    temperature: float
    """K, at the start; 0 for a relaxation"""
    pressure: float
    """bar; 0 where the volume is fixed"""
    timestep: float
    """fs"""
    timestep_reason: str
    steps: int
    """of the dynamics, or the most iterations of a relaxation"""
    d3: str
    """the functional that the dispersion belongs to, as LAMMPS names it; "" without one"""
    zbl: bool
    guard: bool
    """stop where an atom is too far outside of the model's domain"""
    threads: int
    """0: the engine's own choice"""
    device: str

    @property
    def relaxes(self) -> bool:
        """Whether it searches for a minimum instead of moving in time."""
        return self.ensemble in RELAXATIONS

    @property
    def ps(self) -> float:
        """Of the dynamics."""
        return self.steps * self.timestep * 1e-3

    @property
    def hot_steps(self) -> int:
        """Of `anneal`, before it cools."""
        return int(HOT_PART * self.steps)

    @property
    def record_every(self) -> int:
        """Steps between two lines of temperature, energy and volume: about 200 of them."""
        return 1 if self.relaxes else max(1, self.steps // 200)

    @property
    def frame_every(self) -> int:
        """Steps between two frames of the trajectory: about 100 of them."""
        return 1 if self.relaxes else max(1, self.steps // 100)

    @property
    def restart_every(self) -> int:
        """Steps between two restart files: about ten of them."""
        return max(1, self.steps // 10)

    @property
    def force_tolerance(self) -> float:
        """eV/Å, of a relaxation."""
        return FORCE_TOLERANCE.get(self.ensemble, 0.0)

    def describe(self) -> str:
        """In words, for tables and the first line of an input."""
        words = [f"{self.ensemble} ({ENSEMBLES[self.ensemble]})"]
        if not self.relaxes:
            words.append(f"{self.temperature:g} K")
        if self.ensemble in WITH_PRESSURE:
            words.append(f"{self.pressure:g} bar")
        if not self.relaxes:
            words.append(f"{self.ps:g} ps in {self.steps} steps of {self.timestep:g} fs")
        return ", ".join(words)


def make_plan(
    engine: str,
    ensemble: str,
    temperature: float | str | None,
    pressure: float | str | None,
    time: str | None,
    timestep: str,
    lightest: tuple[str, float],
    frame: EnergyFrame,
    dispersion: bool,
    zbl: bool,
    guard: bool,
    threads: int,
    device: str,
) -> Plan:
    """The plan that some options ask for.

    Args:
        lightest: symbol and mass (u) of the lightest element of the structure.
        frame: of the model, which says whether dispersion is in its energies.

    Raises
    ------
        MLIPError: for options that contradict each other, or that the engine does not have.
    """
    if engine == "openmm" and ensemble == "relax-cell":
        raise MLIPError(
            "--ensemble relax-cell: OpenMM does not relax cells. Prepare it for lammps or ase, or take --ensemble npt"
        )
    relaxes = ensemble in RELAXATIONS
    if guard and relaxes and engine == "openmm":
        raise MLIPError(
            "--guard: OpenMM's minimiser cannot be watched. Prepare it for lammps or ase, or leave --guard out"
        )
    for option, value in (("--temperature", temperature), ("--time", time)):
        if relaxes and value is not None:
            raise MLIPError(f"{option} {value}: nothing moves in time in --ensemble {ensemble}. Leave {option} out")
    if relaxes and timestep != "auto":
        raise MLIPError(f"--timestep {timestep}: --ensemble {ensemble} has no time steps. Leave --timestep out")
    if pressure is not None and ensemble not in WITH_PRESSURE:
        raise MLIPError(
            f"--pressure {pressure}: the volume is fixed in --ensemble {ensemble}. Leave --pressure out, or take "
            f"{'--ensemble relax-cell' if relaxes else '--ensemble npt'}"
        )
    kelvin = 0.0 if relaxes else quantities.temperature("--temperature", 300 if temperature is None else temperature)
    if ensemble == "anneal" and (temperature is None or kelvin <= COOL):
        found = "none was given" if temperature is None else f"found {kelvin:g} K"
        raise MLIPError(
            f"--ensemble anneal cools to {COOL:g} K, so it needs a higher --temperature to begin with; {found}. Type "
            "for example: --temperature 1500"
        )
    fs, reason = _timestep(timestep, *lightest)
    ps = quantities.time("--time", "10ps" if time is None else time)
    steps = MOST_ITERATIONS if relaxes else round(1e3 * ps / fs)
    if steps < 1:
        raise MLIPError(f"--time {time}: shorter than one time step of {fs:g} fs. Type for example: --time 10ps")
    return Plan(
        ensemble=ensemble,
        temperature=kelvin,
        pressure=quantities.pressure("--pressure", 0 if pressure is None else pressure),
        timestep=fs,
        timestep_reason=reason,
        steps=steps,
        d3=_d3(engine, frame) if dispersion else "",
        zbl=_require_lammps(engine, "--zbl", "ZBL repulsion") if zbl else False,
        guard=guard,
        threads=threads,
        device=device,
    )


def automatic_timestep(mass: float) -> float:
    """Femtoseconds, for a lightest atom of this mass (u); the rule is that of TIME_STEPS."""
    return next(fs for limit, fs in TIME_STEPS if mass < limit)


def _timestep(text: str, symbol: str, mass: float) -> tuple[float, str]:
    """Femtoseconds, and why."""
    fs = automatic_timestep(mass)
    rule = f"lightest element {symbol} ({mass:.3f} u): {fs:g} fs gives ten steps or more to its fastest vibration"
    if text == "auto":
        return fs, rule
    asked = 1e3 * quantities.time("--timestep", text)
    if asked > 10 * fs:
        raise MLIPError(
            f"--timestep {text}: more than ten times too long for the {rule}. Type for example: --timestep {fs:g}fs"
        )
    return asked, f"as asked for; the {rule}" if asked != fs else rule


def _d3(engine: str, frame: EnergyFrame) -> str:
    """The functional whose D3 parameters fit the model, which has no dispersion of its own."""
    if frame.dispersion == "unknown":
        raise MLIPError(
            "--dispersion: the model's file does not say whether dispersion is in its energies already, and it would "
            "be counted twice. Say it when you export the model: mlip export ... --energy-frame "
            '"functional=PBE,hubbard_u=none,corrections=none,dispersion=none"'
        )
    if frame.dispersion != "none":
        raise MLIPError(
            f"--dispersion: the model's energies contain dispersion already ({frame.dispersion}); it would be counted "
            "twice. Leave --dispersion out"
        )
    functional = D3_FUNCTIONALS.get(frame.functional.partition(" (")[0])
    if functional is None:
        raise MLIPError(
            f"--dispersion: no D3 parameters are known here for the model's functional '{frame.functional}', only for "
            f"{', '.join(D3_FUNCTIONALS)}. Leave --dispersion out"
        )
    _require_lammps(engine, "--dispersion", "D3 dispersion")
    return functional


def _require_lammps(engine: str, option: str, what: str) -> bool:
    if engine != "lammps":
        raise MLIPError(
            f"{option}: {what} is added by LAMMPS alone. Type: mlip prepare lammps ... {option}, or add a term to the "
            "script by hand (docs/families.md, Adding terms)"
        )
    return True
