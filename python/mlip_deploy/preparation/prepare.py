"""`prepare`: a structure becomes a folder with the input of an engine, which one line then runs."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers
from ase.io import write as write_atoms
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mlip_deploy.artifact.reader import SUFFIXES, Artifact
from mlip_deploy.engines import ENGINES, require_engine, require_hardware
from mlip_deploy.engines.lammps_files import atomic_mass, write_data
from mlip_deploy.engines.openmm_box import in_reduced_box
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import require_folder
from mlip_deploy.preparation import plan as plans
from mlip_deploy.preparation.plan import Plan, make_plan
from mlip_deploy.preparation.quantities import one_of
from mlip_deploy.preparation.structure import check_structure, describe, enlarge, read_structure, require_pressure

SCRIPTS = {"ase": "run.py", "lammps": "in.lammps", "openmm": "run.py"}
"""The file that an engine runs."""


@dataclass(frozen=True)
class Prepared:
    """A folder that is ready to run.

    Attributes
    ----------
    engine
        "lammps", "openmm" or "ase".
    folder
        Where everything was written.
    plan
        What the run does, in numbers.
    model
        Its name, number type and energies, in words.
    formula, n_atoms
        Of the structure, repeated as asked for.
    notes
        Sentences on what is worth knowing before the run.
    """

    engine: str
    folder: Path
    plan: Plan
    model: str
    formula: str
    n_atoms: int
    notes: tuple[str, ...]

    @property
    def script(self) -> Path:
        """The input that the engine reads."""
        return self.folder / SCRIPTS[self.engine]

    @property
    def command(self) -> str:
        """What to type in the folder, in a shell."""
        return f"lmp -in {self.script.name}" if self.engine == "lammps" else f"python {self.script.name}"


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
    guard: bool = False,
    threads: int = 0,
    device: str = "cpu",
    force: bool = False,
) -> Prepared:
    """Write the files of a run. The same options mean the same in the three engines.

    Everything is checked before anything is written.

    Parameters
    ----------
    engine
        "lammps", "openmm" or "ase".
    file
        Artifact written by `mlip export`.
    structure
        File of any kind that ASE reads; its last structure is taken.
    output
        Folder for the files. It must be empty, or not be there yet.
    ensemble
        "nve", "nvt", "npt", "min", "relax-cell" or "anneal".
    temperature
        K, a number or "300K"; 300 K when left out. `anneal` starts there and cools to 300 K.
    pressure
        "1bar", "1GPa", or 0, which it is when left out; for "npt" and "relax-cell".
    time
        Of the dynamics, "10ps" when left out.
    timestep
        "1fs", or "auto" for that of the lightest element.
    supercell
        How often each cell vector is repeated, "2x2x2".
    atoms
        Repeat the cell until it holds so many atoms, in place of `supercell`.
    dispersion
        Add D3 (LAMMPS only, for a model that has no dispersion).
    zbl
        Add ZBL repulsion at short distances (LAMMPS only).
    guard
        Stop the run where an atom is too far outside of the file's domain (`mlip domain fit`), and keep the frame.
    threads
        CPU threads in the model; 0 for the engine's own choice.
    device
        Of the model: "cpu", "cuda", "cuda:N" or "auto".
    force
        Write into a folder that has files in it.

    Raises
    ------
    MLIPError
        For options that contradict each other or the structure, a structure that makes no sense for the model, a file
        that cannot be read, and a folder that cannot be written to.
    """
    _require_order(engine, file, structure)
    require_engine(one_of("engine", engine, ENGINES))
    one_of("--ensemble", ensemble, plans.ENSEMBLES)
    require_hardware(threads, device)
    _require_room(Path(output), force)
    artifact = Artifact(file)
    found, notes = read_structure(structure)
    check_structure(found, artifact)
    lightest = min(found.get_chemical_symbols(), key=atomic_mass)
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
        guard,
        threads,
        device,
    )
    if guard and artifact.domain() is None:
        raise MLIPError(
            f"--guard: '{file}' has no domain, which says what the model knows. Type: mlip domain fit {file} --frames "
            "FRAMES.extxyz"
        )
    if ensemble in plans.WITH_PRESSURE:
        require_pressure(found, ensemble)
    whole, times = enlarge(found, supercell, atoms)
    _require_engine_fits(engine, plan, whole)
    notes += describe(whole, artifact.contract.cutoff)
    for setting in artifact.contract.settings:
        notes.append(f"the model takes the setting '{setting.name}': give it in the input, see mlip info {file}")
    repeated = f", repeated {'x'.join(map(str, times))}" if times != (1, 1, 1) else ""
    title = f"{Path(structure).name}{repeated}: {len(whole)} atoms, {whole.get_chemical_formula()}"
    model = f"model{''.join(artifact.path.suffixes[-2:])}"
    with tempfile.TemporaryDirectory(prefix="mlip-prepare-") as temporary:
        files = Path(temporary)
        text = _render(engine, plan, whole, artifact, model, title, files)
        (files / SCRIPTS[engine]).write_text(text, encoding="utf-8")
        shutil.copyfile(file, files / model)
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        for written in files.iterdir():
            shutil.copyfile(written, folder / written.name)
    return Prepared(engine, folder, plan, _in_words(artifact), whole.get_chemical_formula(), len(whole), tuple(notes))


def _in_words(artifact: Artifact) -> str:
    """The model, its number type, and what its energies are."""
    contract = artifact.contract
    return f"{contract.model.name} in {contract.dtype}; energies: {contract.energy_frame.describe()}"


def _require_order(engine: str, path: str | Path, structure: str | Path) -> None:
    """Refuse arguments in another order by naming the right one."""
    words = [engine, str(path), str(structure)]
    model = [word for word in words if word.endswith(tuple(SUFFIXES.values()))]
    engines = [word for word in words if word in ENGINES]
    if len(model) == len(engines) == 1:
        (other,) = (word for word in words if word not in (*model, *engines))
        right = [*engines, *model, other]
        if words != right:
            raise MLIPError(f"the engine comes first, then the model, then the structure: {' '.join(right)}")


def _require_room(output: Path, force: bool) -> None:
    require_folder(output)
    if not force and output.is_dir() and any(output.iterdir()):
        raise MLIPError(f"the folder '{output}' is not empty. Name another one, or type --force to replace files in it")


def _require_engine_fits(engine: str, plan: Plan, atoms: Atoms) -> None:
    if not plan.relaxes and len(atoms) < 2:
        raise MLIPError("one atom alone does not move. Take a larger cell, for example: --atoms 100")
    if engine == "openmm" and atoms.pbc.any() and not atoms.pbc.all():
        raise MLIPError(
            "OpenMM is periodic in all directions or in none; this structure is periodic in some. Prepare it for "
            "lammps or ase, or give the other directions a cell vector with vacuum"
        )
    if engine == "ase" and plan.ensemble == "npt" and find_spec("ase.md.langevinbaoab") is None:
        raise MLIPError("--ensemble npt needs a newer ASE. Type: pip install --upgrade ase")


def _render(engine: str, plan: Plan, atoms: Atoms, artifact: Artifact, model: str, title: str, folder: Path) -> str:
    """Write the structure, and return the text of the input."""
    contract = artifact.contract
    values: dict[str, Any] = {
        "plan": plan,
        "title": title,
        "version": importlib.metadata.version("mlip-deploy"),
        "model": model,
        "model_in_words": _in_words(artifact),
        "periodic": bool(atoms.pbc.all()),
        "friction": plans.FRICTION,
        "damping": 1.0 / plans.FRICTION,
        "temperature_damping": plans.TEMPERATURE_DAMPING,
        "pressure_damping": plans.PRESSURE_DAMPING,
        "cool": plans.COOL,
        "hot_part": plans.HOT_PART,
        "guard_every": plans.GUARD_EVERY,
        "guard_grade": plans.GUARD_GRADE,
    }
    if engine == "lammps":
        values |= _lammps(plan, atoms, contract.energy_frame.functional, folder)
    else:
        if engine == "openmm":
            atoms = in_reduced_box(atoms)[0]
            values |= {"platform": "CPU" if plan.device == "cpu" else "CUDA", "volume": bool(atoms.pbc.all())}
        write_atoms(folder / "structure.extxyz", atoms)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    suffix = "in" if engine == "lammps" else "py"
    return templates.get_template(f"{engine}.{suffix}.jinja").render(values)


def _lammps(plan: Plan, atoms: Atoms, functional: str, folder: Path) -> dict[str, Any]:
    elements = write_data(atoms, folder / "structure.data").elements
    open_directions = not atoms.pbc.all()
    return {
        "elements": elements,
        "functional": functional,
        "boundary": " ".join("p" if periodic else "s" for periodic in atoms.pbc),
        "boundary_reason": "as in the structure; s: the box follows the atoms, so that none is lost"
        if open_directions
        else "periodic in all directions",
        "options": f"device {plan.device}" + (f" threads {plan.threads}" if plan.threads else ""),
        "zbl_pairs": [
            (i + 1, j + 1, atomic_numbers[elements[i]], atomic_numbers[elements[j]])
            for i, j in combinations_with_replacement(range(len(elements)), 2)
        ],
    }
