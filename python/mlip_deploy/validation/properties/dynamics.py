"""Molecular dynamics at constant volume and temperature, by the engine that serves the artifact."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

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


def _ase(setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int) -> Array:
    atoms = atoms.copy()
    atoms.calc = setting.calculator()
    random = np.random.default_rng(SEED)
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(widths[:, None] * random.standard_normal((len(atoms), 3)))
    friction = 1.0 / (RELAXATION * 1000.0 * units.fs)
    dynamics = Langevin(
        atoms, timestep * units.fs, temperature_K=temperature, friction=friction, rng=random, fixcm=False
    )
    frames: list[Array] = []
    dynamics.attach(lambda: frames.append(atoms.get_positions()), interval=every)
    dynamics.run(steps)
    return np.array(frames)


LAMMPS_SCRIPT = """\
units           metal
atom_style      atomic
box             tilt large
read_data       data.lammps
pair_style      mlip device {device} threads {threads}
pair_coeff      * * "{path}" {elements}
velocity        all create {temperature} {seed}
timestep        {timestep}
fix             nvt all nvt temp {temperature} {temperature} {relaxation}
dump            positions all custom {every} positions.dump id xu yu zu
dump_modify     positions sort id format float %.10g
run             {steps}
"""


def _lammps(setting: Setting, atoms: Atoms, temperature: float, timestep: float, steps: int, every: int) -> Array:
    from mlip_deploy.engines.lammps import run
    from mlip_deploy.engines.lammps_files import link_model, write_data

    setting.directory.mkdir(parents=True, exist_ok=True)
    frame = write_data(atoms, setting.directory / "data.lammps")
    script = LAMMPS_SCRIPT.format(
        device=setting.hardware.device,
        threads=max(1, setting.hardware.threads),
        path=link_model(setting.artifact.path, setting.directory).name,
        elements=" ".join(frame.elements),
        temperature=temperature,
        seed=SEED,
        timestep=timestep / 1000.0,
        relaxation=RELAXATION,
        every=every,
        steps=steps,
    )
    run(script, setting.directory)
    lines = (setting.directory / "positions.dump").read_text().splitlines()
    n = len(atoms)
    tables = [np.loadtxt(lines[start + 9 : start + 9 + n]) for start in range(0, len(lines), n + 9)]
    return np.array([frame.prism.vector_to_ase(table[:, 1:4]) for table in tables])


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
