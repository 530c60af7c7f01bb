"""docs/families.md: its Python and LAMMPS input run as they stand there; docs/extending.md has the examples whole."""

import os
import re
import subprocess
import sys

import numpy as np
import openmm
import pytest
from ase import Atoms
from ase.build import bulk
from conftest import EXAMPLES, mlip
from openmm import app, unit

from mlip_deploy.engines import lammps, lammps_files

pytest.importorskip("chgnet", reason="the package 'chgnet' is not installed. Type: pip install chgnet")

DOCS = EXAMPLES.parent / "docs"
PAGE = (DOCS / "families.md").read_text()


def pieces(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A folder with chgnet.mlip.pt, a small one, and crystal.pdb."""
    from models import tiny_chgnet_checkpoint

    directory = tmp_path_factory.mktemp("page")
    checkpoint = tiny_chgnet_checkpoint(directory / "tiny.pth.tar")
    done = mlip("export", "chgnet", checkpoint, "-o", directory / "chgnet.mlip.pt")
    assert done.returncode == 0, done.stderr
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    topology = app.Topology()
    chain = topology.addChain()
    for k, symbol in enumerate(crystal.get_chemical_symbols()):
        residue = topology.addResidue(symbol.upper(), chain)
        topology.addAtom(f"{symbol}{k}", app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(np.eye(3) * 0.564 * unit.nanometer)
    with (directory / "crystal.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, crystal.positions * unit.angstrom, file)
    return directory


def test_python(directory):
    moments, repulsion = pieces("python")
    check = "\ncontext = openmm.Context(system, openmm.VerletIntegrator(0.001)); context.setPositions(pdb.positions)\n"
    check += "print('energy', context.getState(energy=True).getPotentialEnergy()._value)"
    done = subprocess.run(
        [sys.executable, "-c", moments + repulsion + check],
        cwd=directory,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENMM_DEFAULT_PLATFORM": "Reference"},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\[[\d. e+-]+\]\nenergy -?\d", done.stdout), done.stdout


def test_openmm_zbl_is_lammps_zbl(tmp_path):
    """The page's expression: below the switching distance the forces are those of LAMMPS's zbl."""
    expression = "".join(re.findall(r'^    "(.*)"$', pieces("python")[1], flags=re.MULTILINE))
    assert "exp(-3.19980*x)" in expression
    force = openmm.CustomNonbondedForce(expression)
    force.addPerParticleParameter("z")
    system = openmm.System()
    for number in (11, 17):
        system.addParticle(1.0)
        force.addParticle([number])
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    for distance in (0.4, 0.9, 1.5):  # Å
        context.setPositions([[0, 0, 0], [0.1 * distance, 0, 0]])
        found = context.getState(forces=True).getForces(asNumpy=True)._value[0, 0] / 964.8533212  # eV/Å
        lammps_files.write_data(Atoms("NaCl", positions=[[0, 0, 0], [distance, 0, 0]]), tmp_path / "data.lammps")
        log = lammps.run(
            "units metal\nboundary f f f\natom_modify map yes\nread_data data.lammps\npair_style zbl 3.0 3.5\n"
            "pair_coeff 1 1 11 11\n"
            "pair_coeff 1 2 11 17\npair_coeff 2 2 17 17\nrun 0\nprint 'force $(fx[1]:%.17g)'\n",
            tmp_path,
        )
        expected = float(re.search(r"^force (\S+)$", log, flags=re.MULTILINE).group(1))
        assert abs(expected) > 1.0
        # Two spellings of e²/4πε₀ and of the screening length, each rounded to six digits
        assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps(directory, ranks, tmp_path):
    (fragment,) = pieces("lammps")
    atoms = bulk("MnO", "rocksalt", a=4.45, cubic=True)
    atoms.rattle(0.05, seed=1)
    assert lammps_files.write_data(atoms, tmp_path / "data.lammps").elements == ["Mn", "O"]
    (tmp_path / "chgnet.mlip.pt").symlink_to(directory / "chgnet.mlip.pt")
    log = lammps.run(f"units metal\nread_data data.lammps\n{fragment}fix nve all nve\nrun 10\n", tmp_path, ranks=ranks)
    totals = [float(value) for value in re.findall(r"^ +(?:0|10) +\S+ +(\S+) *$", log, flags=re.MULTILINE)]
    assert len(totals) == 2
    assert min(totals) > 0


@pytest.mark.parametrize("example", ["lennard_jones.py", "message_passing.py", "charged_atoms.py"])
def test_the_examples_are_on_the_page_whole(example):
    code = (EXAMPLES / example).read_text().partition("import torch")[2]
    assert f"```python\nimport torch{code}```" in (DOCS / "extending.md").read_text()
