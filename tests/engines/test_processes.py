"""A calculator and other processes: copies, pickles, and forks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from ase.build import bulk
from tolerances import FLOAT64_SUM

from mlip_deploy.ase import MLIPCalculator


def crystal():
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def energy(atoms):
    return atoms.get_potential_energy()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda atoms: pickle.loads(pickle.dumps(atoms))])
def test_atoms_with_a_calculator_are_copied(toy_local, again) -> None:
    atoms = crystal()
    atoms.calc = MLIPCalculator(toy_local, threads=1)
    expected = energy(atoms)
    other = again(atoms)
    assert other.calc is not atoms.calc
    assert energy(other) == pytest.approx(expected, abs=FLOAT64_SUM)
    other.positions[0] += 0.1
    assert abs(energy(other) - expected) > 1e-3
    assert energy(atoms) == expected


def test_another_process_computes_the_same(toy_local) -> None:
    atoms = crystal()
    atoms.calc = MLIPCalculator(toy_local, threads=1)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(energy, atoms).result(timeout=120) == pytest.approx(energy(atoms), abs=FLOAT64_SUM)


FORK = """
import os, sys
from ase.build import bulk
from mlip_deploy.ase import MLIPCalculator
energy = lambda atoms: atoms.get_potential_energy()
crystal = lambda: bulk("NaCl", "rocksalt", a=5.2, cubic=True)
atoms = crystal()
atoms.calc = MLIPCalculator(sys.argv[1], threads=2)
print("parent", energy(atoms), flush=True)
if os.fork() == 0:
    atoms.rattle(0.01)
    try:
        print("child", energy(atoms), flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    other = crystal()
    other.calc = MLIPCalculator(sys.argv[1], threads=1)
    print("alone", energy(other), flush=True)
    os._exit(0)
os.wait()
"""


def test_a_fork_after_threads_is_refused_and_does_not_hang(toy_local) -> None:
    """A fork loses OpenMP's threads; a loop that waits for them would wait for ever."""
    done = subprocess.run([sys.executable, "-c", FORK, toy_local], capture_output=True, text=True, timeout=120)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert "threads do not survive a fork. Load the model here with threads=1" in lines["MLIPError"], done
    assert "child" not in lines
    assert float(lines["alone"]) == pytest.approx(float(lines["parent"]), abs=FLOAT64_SUM)
