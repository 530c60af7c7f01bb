"""`mlip conform` in ASE, in OpenMM, at the command line and in pytest."""

import json
import subprocess
import sys

import numpy as np
import openmm
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from conftest import mlip

import mlip_deploy
from mlip_deploy.errors import MLIPError


def copper():
    return bulk("Cu", cubic=True)


class StressSign(EMT):
    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["stress"] = -self.results["stress"]


class BlindToCells(EMT):
    """Takes a structure for the last one when the cell alone has changed."""

    def check_state(self, atoms, tol=1e-15):
        changes = super().check_state(atoms, tol)
        return [] if changes == ["cell"] else changes


class OneArray(EMT):
    """Hands out its own array of forces, and fills it again the next time."""

    shared = np.zeros((4, 3))

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.shared[:] = self.results["forces"]
        self.results["forces"] = self.shared

    def get_property(self, name, atoms=None, allow_calculation=True):
        value = super().get_property(name, atoms, allow_calculation)
        return self.shared if name == "forces" else value


class Drag(EMT):
    """Forces that no energy has."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        positions = self.atoms.positions
        self.results["forces"] = self.results["forces"] + 0.3 * np.cross(positions, [0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("factory", "probe"),
    [
        (StressSign, "stress"),
        (BlindToCells, "calculator-reuse"),
        (OneArray, "calculator-reuse"),
        (Drag, "nve"),
        (EMT, "not-a-number"),  # leaves the atom out of its list of neighbours, and goes on
    ],
)
def test_faults_of_calculators_are_found(factory, probe):
    assert mlip_deploy.conform("ase", factory, copper(), probes=[probe]).verdicts() == {probe: "fail"}


CRASHES = """
import os
import numpy as np
from ase.calculators.emt import EMT

class Crashing(EMT):
    def calculate(self, atoms=None, *arguments, **options):
        if np.isnan(atoms.positions).any():
            os._exit(11)
        super().calculate(atoms, *arguments, **options)
"""


def test_a_process_that_ends_is_found_when_the_same_command_runs_again(tmp_path, monkeypatch):
    (tmp_path / "crashing.py").write_text(CRASHES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    copper().write(tmp_path / "cu.cif")
    words = ["conform", "ase", "crashing:Crashing", "--structure", tmp_path / "cu.cif", "-o", tmp_path / "out"]
    words += ["--probes", "translation,not-a-number"]
    assert mlip(*words).returncode == 11
    assert mlip(*words).returncode == 1
    found = json.loads((tmp_path / "out" / "conformance.json").read_text())
    (check,) = found["outcomes"][1]["checks"]
    assert check["verdict"] == "fail"
    stored = tmp_path / "out" / "cases" / "conform" / "not-a-number.json"
    assert (
        check["reason"] == f"the process ended while this probe ran, without a message. To try again, delete {stored}"
    )
    assert [path.name for path in stored.parent.iterdir() if path.suffix != ".json"] == []


def test_a_sound_calculator_passes():
    probes = (
        "translation",
        "forces",
        "stress",
        "atomic-energies",
        "small-cell",
        "calculator-reuse",
        "nve",
        "reference",
    )
    found = mlip_deploy.conform("ase", EMT, copper(), probes=probes, reference="ase.calculators.emt:EMT")
    assert set(found.verdicts().values()) == {"pass"}, found.verdicts()


def water(topology, charge=0.0):
    """Pairs of all atoms feel each other; with a charge also a field, and no symmetry is left."""
    system = openmm.System()
    force = openmm.CustomNonbondedForce("20*(r-0.15)^2*(1-r/0.6)^3*step(0.6-r)")
    field = openmm.CustomExternalForce("k*(x^2+2*y^2)")
    field.addGlobalParameter("k", charge)
    for atom in topology.atoms():
        number = system.addParticle(atom.element.mass)
        force.addParticle([])
        field.addParticle(number, [])
    system.addForce(force)
    system.addForce(field)
    return system


class Rounded(EMT):
    """Energies in float32, of electrons too: 0.03 eV is the next one."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["energy"] = float(np.float32(self.results["energy"] - 3e5))


def test_energies_in_float32_have_the_noise_of_their_rounding():
    found = mlip_deploy.conform("ase", Rounded, copper(), probes=["extensivity"])
    assert found.noise["energy_per_atom"] == 0.5 * 2.0**-5 / 4


def in_a_field(topology):
    return water(topology, charge=1e4)


class Forgetful(openmm.System):
    """Its copies have no forces."""

    def __deepcopy__(self, memo):
        copied = openmm.System()
        for k in range(self.getNumParticles()):
            copied.addParticle(self.getParticleMass(k))
        return copied


def forgetful(topology):
    system = Forgetful()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    force = openmm.CustomBondForce("100*(r-0.1)^2")
    for k in range(system.getNumParticles() - 1):
        force.addBond(k, k + 1, [])
    system.addForce(force)
    return system


def test_systems_of_openmm():
    probes = ("translation", "rotation", "permutation", "forces", "nve", "context", "not-a-number")
    sound = mlip_deploy.conform("openmm", water, molecule("H2O"), probes=probes)
    assert set(sound.verdicts().values()) == {"pass"}, sound.verdicts()
    wrong = mlip_deploy.conform("openmm", in_a_field, molecule("H2O"), probes=["translation", "rotation", "forces"])
    assert wrong.verdicts() == {"translation": "fail", "rotation": "fail", "forces": "fail"}
    copies = mlip_deploy.conform("openmm", forgetful, molecule("H2O"), probes=["context"])
    assert copies.verdicts() == {"context": "fail"}


def test_the_command_writes_a_report_and_goes_on(tmp_path):
    structure = tmp_path / "cu.cif"
    copper().write(structure)
    words = ["conform", "ase", "ase.calculators.emt:EMT", "--structure", structure, "-o", tmp_path / "out"]
    done = mlip(*words, "--probes", "forces,stress")
    assert done.returncode == 0, done.stderr
    assert "pass: 2 pass, 0 refused, 0 fail" in done.stdout
    assert "[1/2] forces\n" in done.stderr
    badge = json.loads((tmp_path / "out" / "badge.json").read_text())
    assert badge["message"] == "2 pass, 0 refused, 0 fail"
    assert "six components" in (tmp_path / "out" / "report.html").read_text().lower()
    again = mlip(*words, "--probes", "forces,not-a-number", "--json")
    assert again.returncode == 1, again.stderr
    assert "[1/2] forces (stored)" in again.stderr
    assert [outcome["case"] for outcome in json.loads(again.stdout)["outcomes"]] == ["forces", "not-a-number"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "gromacs"}, "'gromacs' is not one of ase, lammps, openmm"),
        ({"probes": ["speed"]}, "'speed' is not one of the probes for ase: translation"),
        ({"potential": "ase.calculators.emt"}, "expected MODULE:FACTORY"),
        ({"potential": "ase.calculators.emt:NONE"}, "no attribute 'NONE'"),
        ({"structure": "none.cif"}, "no file none.cif"),
        ({"elements": ["Ni"]}, "Cu is in the structure, and not in --elements Ni"),
        ({"structure": bulk("Si")}, "No EMT-potential for Si"),
        ({"engine": "lammps", "potential": "pair_coeff * * 1 1"}, "expected one pair_style"),
        ({"engine": "lammps", "potential": "atom_style full; pair_style zero 5"}, "atom_style atomic alone"),
        ({"engine": "lammps", "potential": "units cgs; pair_style zero 5"}, "the probes know metal, real, lj"),
        ({"engine": "lammps", "potential": "pair_style zero 5; pair_coeff * *"}, "nothing could be shown"),
    ],
)
def test_wrong_input_is_refused(options, message):
    words = {"engine": "ase", "potential": "ase.calculators.emt:EMT", "structure": copper(), **options}
    with pytest.raises(MLIPError) as refused:
        mlip_deploy.conform(**words)
    assert message in str(refused.value)


def test_each_probe_is_a_test_of_pytest(tmp_path):
    copper().write(tmp_path / "cu.cif")
    words = ["--mlip-conform", "ase", "--mlip-potential", "ase.calculators.emt:EMT", "--mlip-structure", "cu.cif"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 14 passed, 1 skipped" in done.stdout, done.stdout
    assert "not-a-number" in done.stdout
    assert "add --mlip-structure" in subprocess.run(command[:-2], cwd=tmp_path, capture_output=True, text=True).stderr
