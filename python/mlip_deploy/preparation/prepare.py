"""`mlip_deploy.prepare`: from a structure file to a folder with a run for LAMMPS, OpenMM or ASE."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

import ase.io
import numpy as np
from ase import Atoms

from mlip_deploy.artifact.contract import Contract
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines.lammps_files import atomic_mass, write_data
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_file, write_text
from mlip_deploy.preparation import plan as plans
from mlip_deploy.preparation import quantities
from mlip_deploy.preparation.plan import ENSEMBLES, Plan, make_plan
from mlip_deploy.preparation.structure import check_structure, enlarge, read_structure

ENGINES = ("lammps", "openmm", "ase")
SEED = 20240711
"""of velocities and thermostats: a run can be repeated"""
TEMPLATES = Path(__file__).parent / "templates"


class _Text(Template):
    """A template with @name, since LAMMPS and Python use the other signs."""

    delimiter = "@"


@dataclass(frozen=True)
class Prepared:
    """A folder with everything that a run needs."""

    folder: Path
    plan: Plan
    n_atoms: int
    command: str
    """the line to type in the folder"""


def prepare(
    engine: str,
    file: str | Path,
    structure: str | Path,
    output: str | Path,
    *,
    ensemble: str = "nvt",
    temperature: float | str | None = None,
    pressure: float | str | None = None,
    time: str | None = None,
    timestep: str = "auto",
    supercell: str | None = None,
    atoms: int | None = None,
    dispersion: bool = False,
    zbl: bool = False,
    device: str = "cpu",
    threads: int = 0,
    force: bool = False,
) -> Prepared:
    """Write a folder with a run: the structure, the model, and an input whose choices are explained in it.

    Parameters
    ----------
    engine
        "lammps", "openmm" or "ase".
    file
        Artifact written by `mlip export`.
    structure
        File of any kind that ASE reads (CIF, POSCAR, extended XYZ, PDB, ...); the last structure in it.
    output
        Folder to write; it may exist if it is empty.
    ensemble
        "nve", "nvt", "npt", "min", "relax-cell" or "anneal".
    temperature
        K, at the start; 300 if it is left out.
    pressure
        With a unit, such as "1bar" or "2GPa", for npt and relax-cell; 0 if it is left out.
    time
        Of the dynamics, such as "10ps", which it is if it is left out.
    timestep
        Such as "1fs"; "auto" for one that fits the lightest element.
    supercell
        How often each cell vector is repeated, such as "2x2x2".
    atoms
        Repeat the structure until it has at least so many.
    dispersion
        Add D3 to a model without dispersion (LAMMPS).
    zbl
        Add ZBL repulsion at short distances (LAMMPS).
    device
        Of the model: "cpu", "cuda", "cuda:N" or "auto".
    threads
        CPU threads in the model; 0 for the engine's own choice.
    force
        Write into a folder that is not empty.

    Returns
    -------
    Prepared
        The folder, and the line that runs it.

    Raises
    ------
    MLIPError
        For options that contradict each other, a structure that the model does not know or that means nothing, a folder
        that is not empty or cannot be written.
    """
    quantities.one_of("engine", engine, ENGINES)
    quantities.one_of("--ensemble", ensemble, ENSEMBLES)
    if supercell is not None and atoms is not None:
        raise MLIPError("--supercell and --atoms both say how large the system is. Leave one of them out")
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise MLIPError(f"-o {folder}: it exists and is not empty. Name another folder, or add --force")
    require_file(folder / "structure.extxyz")
    artifact = Artifact(file)
    start = read_structure(Path(structure))
    start = enlarge(start, None if supercell is None else quantities.repeats("--supercell", supercell), atoms)
    check_structure(start, artifact.contract, ensemble in plans.WITH_PRESSURE)
    if engine == "openmm" and start.pbc.any() and not start.pbc.all():
        raise MLIPError("OpenMM is periodic in all directions or in none; this structure is periodic in some")
    lightest = min(set(start.get_chemical_symbols()), key=atomic_mass)
    plan = make_plan(
        engine,
        ensemble,
        temperature,
        pressure,
        time,
        timestep,
        (lightest, atomic_mass(lightest)),
        artifact.contract.energy_frame,
        dispersion,
        zbl,
        threads,
        device,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"model{''.join(artifact.path.suffixes[-2:])}"
    shutil.copyfile(artifact.path, model)
    writer = {"lammps": _write_lammps, "openmm": _write_openmm, "ase": _write_ase}[engine]
    command = writer(folder, model.name, start, Path(structure).name, plan, artifact.contract)
    return Prepared(folder, plan, len(start), command)


def _fill(name: str, **values: object) -> str:
    return _Text((TEMPLATES / name).read_text()).substitute({key: str(value) for key, value in values.items()})


def _title(atoms: Atoms, plan: Plan, contract: Contract) -> str:
    return f"{atoms.get_chemical_formula()}, {len(atoms)} atoms, {contract.model.name}: {plan.describe()}"


# ---- LAMMPS -------------------------------------------------------------------------------------------------------


def _write_lammps(folder: Path, model: str, atoms: Atoms, source: str, plan: Plan, contract: Contract) -> str:
    elements = write_data(atoms, folder / "structure.data").elements
    command = "lmp -in in.lammps        # or: mpirun -n 4 lmp -in in.lammps"
    text = _fill(
        "lammps.in",
        title=_title(atoms, plan, contract),
        source=source,
        command=command,
        boundary=" ".join("p" if periodic else "m" for periodic in atoms.pbc),
        types=", ".join(f"{k} {symbol}" for k, symbol in enumerate(elements, 1)),
        box="change_box      all triclinic\n" if plan.ensemble == "relax-cell" else "",
        pair=_pair_styles(model, elements, plan),
        elements=" ".join(elements),
        record_every=plan.record_every,
        frame_every=plan.frame_every,
    )
    values = {
        "temperature": f"{plan.temperature:g}",
        "pressure": f"{plan.pressure:g}",
        "damping": plans.TEMPERATURE_DAMPING if plan.ensemble == "npt" else 1.0 / plans.FRICTION,
        "pressure_damping": plans.PRESSURE_DAMPING,
        "seed": SEED,
        "steps": plan.steps,
        "hot_steps": plan.hot_steps,
        "cooling_steps": plan.steps - plan.hot_steps,
        "cool": f"{plans.COOL:g}",
        "force_tolerance": f"{plan.force_tolerance:g}",
        "evaluations": 10 * plan.steps,
        "restart_every": plan.restart_every,
        "timestep_ps": f"{1e-3 * plan.timestep:g}",
        "timestep_reason": plan.timestep_reason,
        "rot": "no" if atoms.pbc.any() else "yes",
    }
    if not plan.relaxes:
        text += _fill("lammps-dynamics.in", **values)
    text += _fill(f"lammps-{plan.ensemble}.in", **values)
    write_text(folder / "in.lammps", text)
    return command


def _pair_styles(model: str, elements: list[str], plan: Plan) -> str:
    options = "" if plan.device == "cpu" else f" device {plan.device}"
    options += f" threads {plan.threads}" if plan.threads else ""
    symbols = " ".join(elements)
    if not plan.d3 and not plan.zbl:
        return f"pair_style      mlip{options}\npair_coeff      * * {model} {symbols}"
    styles, lines = f"mlip{options}", [f"pair_coeff      * * mlip {model} {symbols}"]
    if plan.zbl:
        styles += " zbl 0.7 1.2"  # Å: gone where bonds begin
        numbers = ase.Atoms(elements).numbers
        lines += [
            f"pair_coeff      {i + 1} {j + 1} zbl {numbers[i]} {numbers[j]}"
            for i in range(len(elements))
            for j in range(i, len(elements))
        ]
    if plan.d3:
        styles += f" dispersion/d3 bj {plan.d3} 30.0 20.0"
        lines.append(f"pair_coeff      * * dispersion/d3 {symbols}")
    return "\n".join([f"pair_style      hybrid/overlay {styles}", *lines])


# ---- ASE ----------------------------------------------------------------------------------------------------------

ASE_DYNAMICS = {
    "nve": ("ase.md.verlet", "VelocityVerlet", "atoms, {dt}"),
    "nvt": (
        "ase.md.langevin",
        "Langevin",
        "atoms, {dt}, temperature_K={t}, friction={friction} / units.fs, rng=random",
    ),
    "anneal": (
        "ase.md.langevin",
        "Langevin",
        "atoms, {dt}, temperature_K={t}, friction={friction} / units.fs, rng=random",
    ),
    "npt": (
        "ase.md.nose_hoover_chain",
        "IsotropicMTKNPT",
        "atoms, {dt}, temperature_K={t}, pressure_au={p} * 1e-4 * units.GPa, tdamp={tdamp} * units.fs, pdamp={pdamp} * "
        "units.fs",
    ),
}
"""module, class and arguments"""


def _write_ase(folder: Path, model: str, atoms: Atoms, source: str, plan: Plan, contract: Contract) -> str:
    ase.io.write(folder / "structure.extxyz", _bare(atoms))
    command = "python run.py"
    if plan.relaxes:
        filtered = f"FrechetCellFilter(atoms, scalar_pressure={plan.pressure:g} * 1e-4 * units.GPa)"
        target = filtered if plan.ensemble == "relax-cell" else "atoms"
        imports = "from ase.filters import FrechetCellFilter\n" if plan.ensemble == "relax-cell" else ""
        imports += "from ase.optimize import LBFGS"
        body = (
            f'LBFGS({target}, trajectory="frames.traj").run(fmax={plan.force_tolerance:g}, steps={plan.steps})\n'
            'ase.io.write("relaxed.extxyz", atoms)\n'
        )
    else:
        module, name, arguments = ASE_DYNAMICS[plan.ensemble]
        arguments = arguments.format(
            dt=f"{plan.timestep:g} * units.fs",
            t=f"{plan.temperature:g}",
            p=f"{plan.pressure:g}",
            friction=f"{1e-3 * plans.FRICTION:g}",
            tdamp=f"{1e3 * plans.TEMPERATURE_DAMPING:g}",
            pdamp=f"{1e3 * plans.PRESSURE_DAMPING:g}",
        )
        imports = (
            f"from ase.io.trajectory import Trajectory\nfrom ase.md import MDLogger\nfrom {module} import {name}\n"
            "from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary\n\nimport numpy as np"
        )
        random = f"random = np.random.default_rng({SEED + 1})\n" if "rng=random" in arguments else ""
        run = f"dynamics.run({plan.steps})"
        if plan.ensemble == "anneal":
            run = (
                f"dynamics.run({plan.hot_steps})\n"
                f"for temperature in np.linspace({plan.temperature:g}, {plans.COOL:g}, 100):  # cool in small steps\n"
                "    dynamics.set_temperature(temperature_K=temperature)\n"
                f"    dynamics.run({max(1, (plan.steps - plan.hot_steps) // 100)})"
            )
        body = _fill(
            "ase-dynamics.py.txt",
            temperature=f"{plan.temperature:g}",
            seed=SEED,
            timestep_reason=plan.timestep_reason,
            dynamics=f"{random}dynamics = {name}({arguments})",
            record_every=plan.record_every,
            frame_every=plan.frame_every,
            run=run,
        )
    text = _fill(
        "ase.py.txt",
        title=_title(atoms, plan, contract),
        source=source,
        command=command,
        imports=imports,
        device=plan.device,
        threads=plan.threads,
        body=body,
    )
    write_text(folder / "run.py", text.replace("model.mlip.pt", model))
    return command


# ---- OpenMM -------------------------------------------------------------------------------------------------------


def _write_openmm(folder: Path, model: str, atoms: Atoms, source: str, plan: Plan, contract: Contract) -> str:
    ase.io.write(folder / "structure.extxyz", _bare(atoms))
    command = "python run.py"
    if plan.relaxes:
        # eV/Å in kJ/mol/nm. OpenMM's is of the root mean square over atoms, which the largest force is a few times.
        tolerance = 0.2 * plan.force_tolerance * 964.853
        body = (
            "simulation = app.Simulation(topology, system, openmm.VerletIntegrator(0.001))\n"
            "simulation.context.setPositions(0.1 * atoms.positions)\n"
            f"simulation.minimizeEnergy(tolerance={tolerance:g}, maxIterations={plan.steps})  # kJ/mol/nm\n"
            "state = simulation.context.getState(positions=True, energy=True)\n"
            "atoms.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)\n"
            'ase.io.write("relaxed.extxyz", atoms)\n'
            'print("energy", state.getPotentialEnergy())\n'
        )
    else:
        dt = f"{plan.timestep:g} * unit.femtoseconds"
        kelvin = f"{plan.temperature:g} * unit.kelvin"
        integrator = f"openmm.LangevinMiddleIntegrator({kelvin}, {plans.FRICTION:g} / unit.picosecond, {dt})"
        if plan.ensemble == "nve":
            integrator = f"openmm.VerletIntegrator({dt})"
        barostat = ""
        if plan.ensemble == "npt":
            barostat = (
                f"barostat = openmm.MonteCarloBarostat({plan.pressure:g} * unit.bar, {kelvin})\n"
                f"barostat.setRandomNumberSeed({SEED + 1})\nsystem.addForce(barostat)"
            )
        run = f"simulation.step({plan.steps})"
        if plan.ensemble == "anneal":
            run = (
                f"simulation.step({plan.hot_steps})\n"
                "for part in range(1, 101):  # cool in small steps\n"
                f"    kelvin = {plan.temperature:g} + ({plans.COOL:g} - {plan.temperature:g}) * part / 100\n"
                "    integrator.setTemperature(kelvin * unit.kelvin)\n"
                f"    simulation.step({max(1, (plan.steps - plan.hot_steps) // 100)})"
            )
        body = _fill(
            "openmm-dynamics.py.txt",
            timestep_reason=plan.timestep_reason,
            integrator=f"integrator = {integrator}",
            seed=SEED,
            barostat=barostat,
            temperature=f"{plan.temperature:g}",
            record_every=plan.record_every,
            restart_every=plan.restart_every,
            frame_every=plan.frame_every,
            run=run,
        )
        if plan.ensemble == "nve":
            body = body.replace(f"integrator.setRandomNumberSeed({SEED})\n", "")
    text = _fill(
        "openmm.py.txt",
        title=_title(atoms, plan, contract),
        source=source,
        command=command,
        device=plan.device,
        threads=plan.threads,
        body=body,
    )
    write_text(folder / "run.py", text.replace("model.mlip.pt", model))
    return command


def _bare(atoms: Atoms) -> Atoms:
    """Symbols, positions and cell alone: other columns of the file would say what is no longer so."""
    return Atoms(atoms.symbols, positions=np.asarray(atoms.positions), cell=atoms.cell, pbc=atoms.pbc)
