"""Molecular dynamics at constant volume by the engine that serves the artifact: positions, and heat fluxes."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.calculators.lammps import Prism
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from mlip_deploy.errors import MLIPError
from mlip_deploy.result import Array
from mlip_deploy.validation.properties.recipe import Setting

SEED = 4711
RELAXATION = 0.1  # ps, of the thermostat


def simulate(setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int) -> Array:
    """Unwrapped positions [frames, n, 3] in Å, one frame every so many steps.

    Args:
        atoms: periodic in all directions; velocities are drawn anew.
        temperature: K.
        timestep: fs.
    """
    run = {"ase": _ase, "lammps": _lammps, "openmm": _openmm}[setting.engine]
    return run(setting, atoms, temperature, timestep, steps, every)


def heat_fluxes(
    setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int
) -> tuple[Array, Array]:
    """Heat flux at constant energy, after a fifth of the steps with a thermostat.

    Args: as for `simulate`.

    Returns:
        Temperatures [frames] in K, and Σ_j W_j v_j + Σ_i v_i (E_i + K_i) [frames, 3] in eV Å/ps.
    """
    run = {"ase": _ase_fluxes, "lammps": _lammps_fluxes}[setting.engine]
    return run(setting, atoms, temperature, timestep, steps, every)


def _ase_fluxes(
    setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int
) -> tuple[Array, Array]:
    from mlip_deploy.engines.ase import calculator_of

    atoms = atoms.copy()
    calculator = calculator_of(setting.artifact.path, setting.hardware.threads, setting.hardware.device)
    atoms.calc = calculator
    thermostat(atoms, temperature, timestep).run(steps // 5)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep * units.fs)
    temperatures, fluxes = [], []

    def record() -> None:
        temperatures.append(atoms.get_temperature())
        fluxes.append(calculator.get_property("heat_flux", atoms) * 1000.0 * units.fs)

    dynamics.attach(record, interval=every)
    dynamics.run(steps)
    return np.array(temperatures), np.array(fluxes)


def thermostat(atoms: Atoms, temperature: float, timestep: float) -> Langevin:
    """At that temperature (K), with velocities drawn anew."""
    random = np.random.default_rng(SEED)
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(widths[:, None] * random.standard_normal((len(atoms), 3)))
    friction = 1.0 / (RELAXATION * 1000.0 * units.fs)
    return Langevin(atoms, timestep * units.fs, temperature_K=temperature, friction=friction, rng=random, fixcm=False)


def _ase(setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int) -> Array:
    atoms = atoms.copy()
    atoms.calc = setting.calculator()
    dynamics = thermostat(atoms, temperature, timestep)
    frames: list[Array] = []
    dynamics.attach(lambda: frames.append(atoms.get_positions()), interval=every)
    dynamics.run(steps)
    return np.array(frames)


LAMMPS_START = """\
units           metal
atom_style      atomic
box             tilt large
read_data       data.lammps
pair_style      mlip device {device} threads {threads}
pair_coeff      * * "{path}" {elements}
velocity        all create {temperature} {seed}
timestep        {timestep}
"""

LAMMPS_POSITIONS = """\
fix             nvt all nvt temp {temperature} {temperature} {relaxation}
dump            positions all custom {every} positions.dump id xu yu zu
dump_modify     positions sort id format float %.10g
run             {steps}
"""


# c_flux is in eV Å/ps; what drifts would carry energy for ever
LAMMPS_FLUXES = """\
fix             move all nve
fix             heat all langevin {temperature} {temperature} {relaxation} {seed}
run             {settling}
unfix           heat
velocity        all zero linear
reset_timestep  0
compute         ke all ke/atom
compute         pe all pe/atom
compute         virials all centroid/stress/atom NULL virial
compute         flux all heat/flux ke pe virials
fix             fluxes all ave/time {every} 1 {every} c_thermo_temp c_flux[1] c_flux[2] c_flux[3] &
                file fluxes.txt format " %.10g"
thermo          {every}
run             {steps}
"""


def _run_lammps(
    setting: Setting, atoms: Atoms, commands: str, temperature: float, timestep: float, steps: int, every: int
) -> Prism:
    """Run LAMMPS_START and these commands in the setting's folder; returns how the atoms were turned."""
    from mlip_deploy.engines import lammps, lammps_files

    setting.directory.mkdir(parents=True, exist_ok=True)
    frame = lammps_files.write_data(atoms, setting.directory / "data.lammps")
    script = (LAMMPS_START + commands).format(
        device=setting.hardware.device,
        threads=max(1, setting.hardware.threads),
        path=lammps_files.link_model(setting.artifact.path, setting.directory).name,
        elements=" ".join(frame.elements),
        temperature=temperature,
        seed=SEED,
        timestep=timestep / 1000.0,
        relaxation=RELAXATION,
        every=every,
        steps=steps,
        settling=steps // 5,
    )
    lammps.run(script, setting.directory)
    return frame.prism


def _lammps(setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int) -> Array:
    prism = _run_lammps(setting, atoms, LAMMPS_POSITIONS, temperature, timestep, steps, every)
    lines = (setting.directory / "positions.dump").read_text().splitlines()
    n = len(atoms)
    tables = [np.loadtxt(lines[start + 9 : start + 9 + n]) for start in range(0, len(lines), n + 9)]
    return np.array([prism.vector_to_ase(table[:, 1:4]) for table in tables])


def _lammps_fluxes(
    setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int
) -> tuple[Array, Array]:
    prism = _run_lammps(setting, atoms, LAMMPS_FLUXES, temperature, timestep, steps, every)
    table = np.loadtxt(setting.directory / "fluxes.txt")
    return table[:, 1], prism.vector_to_ase(table[:, 2:5])


def _openmm(setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int) -> Array:
    import openmm

    from mlip_deploy.engines.openmm import context_of
    from mlip_deploy.engines.openmm_box import in_reduced_box

    rotated, rotation = in_reduced_box(atoms)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 1.0 / RELAXATION, timestep / 1000.0)
    integrator.setRandomNumberSeed(SEED)
    try:
        context = context_of(rotated, setting.artifact.path, integrator, **setting.hardware._asdict())
        context.setVelocitiesToTemperature(temperature, SEED)
        frames = []
        for _ in range(steps // every + 1):
            positions = context.getState(positions=True).getPositions(asNumpy=True)
            frames.append(np.asarray(positions.value_in_unit(openmm.unit.angstrom)) @ rotation)
            integrator.step(every)
    except openmm.OpenMMException as error:
        raise MLIPError(str(error)) from error
    return np.array(frames)
