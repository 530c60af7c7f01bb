"""The example of a user's own model: exported by the script itself, checked everywhere, against LAMMPS's lj/cut."""

import re
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from conftest import EXAMPLES
from tolerances import FORCE_SIGNAL, HEAT_FLUX_FLOAT64

from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import lammps, lammps_files
from mlip_deploy.validation.fidelity import check

# The example keeps ε and σ in float32, as torch does by default; LAMMPS is given the same numbers.
EPSILON, SIGMA = np.float32([0.0031, 0.0104]).astype(float), np.float32([2.74, 3.40]).astype(float)
# Sums of two hundred terms of 1 meV in another order
ENERGY, FORCE = 1e-10, 1e-11

DECK = """\
units metal
read_data data.lammps
{pair}
velocity all create 3000 5
compute virial all pressure NULL virial
compute ke all ke/atom
compute energies all pe/atom
compute centroid all centroid/stress/atom NULL virial
compute flux all heat/flux ke energies centroid
thermo_style custom step pe c_virial[*] c_flux[1] c_flux[2] c_flux[3]
thermo_modify format float %.17g
dump atoms all custom 1 {name}.dump id fx fy fz
dump_modify atoms sort id format float %.17g
run 0
"""
LJ_CUT = f"""\
pair_style lj/cut 8.5
pair_modify shift yes mix arithmetic
pair_coeff 1 1 {EPSILON[1]:.17g} {SIGMA[1]:.17g}
pair_coeff 2 2 {EPSILON[0]:.17g} {SIGMA[0]:.17g}"""


@pytest.fixture(scope="module")
def lj(tmp_path_factory):
    directory = tmp_path_factory.mktemp("lj")
    subprocess.run([sys.executable, EXAMPLES / "lennard_jones.py"], cwd=directory, check=True)
    return directory / "lj.mlip.pt"


def liquid() -> Atoms:
    atoms = bulk("Ar", "fcc", a=4.6, cubic=True).repeat(3)
    atoms.symbols[::3] = "Ne"
    atoms.symbols[0] = "Ar"
    atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [1.3, 0, 0], [0.7, -0.9, 0]]), scale_atoms=True)
    atoms.rattle(0.25, seed=3)
    return atoms


def test_every_engine(lj):
    report = check(lj, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]
    assert {(c.engine, c.ranks) for c in report.comparisons} == {
        ("ase", 1),
        ("lammps", 1),
        ("lammps", 2),
        ("openmm", 1),
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_against_lammps_own_pair_style(lj, tmp_path, ranks):
    frame = lammps_files.write_data(liquid(), tmp_path / "data.lammps")
    assert frame.elements == ["Ar", "Ne"]
    results = {}
    for name, pair in {"ours": f"pair_style mlip\npair_coeff * * {lj} Ar Ne", "lj_cut": LJ_CUT}.items():
        log = lammps.run(DECK.format(pair=pair, name=name), tmp_path, ranks=ranks)
        thermo = re.search(r"^\s+0 +(-?\d.*)$", log, flags=re.MULTILINE)
        results[name] = (
            np.array(thermo.group(1).split(), dtype=float),
            np.loadtxt(tmp_path / f"{name}.dump", skiprows=9)[:, 1:],
        )
    (thermo, forces), (expected_thermo, expected_forces) = results["ours"], results["lj_cut"]
    assert np.abs(expected_forces).max() > FORCE_SIGNAL
    assert np.abs(forces - expected_forces).max() < FORCE
    assert abs(thermo[0] - expected_thermo[0]) < ENERGY
    virial, flux = thermo[1:7], thermo[7:]
    np.testing.assert_allclose(virial, expected_thermo[1:7], rtol=1e-10)
    assert np.abs(flux).min() > 1.0
    np.testing.assert_allclose(flux, expected_thermo[7:], rtol=HEAT_FLUX_FLOAT64)


@pytest.mark.parametrize("pbc", [True, (True, True, False)])
def test_per_atom_stresses_are_those_of_ase(lj, pbc):
    atoms = liquid()
    atoms.symbols = "Ar"
    atoms.pbc = pbc
    expected = atoms.copy()
    atoms.calc, expected.calc = MLIPCalculator(lj), LennardJones(epsilon=EPSILON[1], sigma=SIGMA[1], rc=8.5)
    assert np.abs(expected.get_stresses()).max() > 1e-5
    np.testing.assert_allclose(atoms.get_stresses(), expected.get_stresses(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), atol=1e-12)
