"""`mlip prepare`: from a CIF, a POSCAR and a PDB to runs of LAMMPS, OpenMM and ASE, and what is refused."""

import os
import re
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io.lammpsdata import read_lammps_data
from conftest import EXAMPLES, mlip
from tolerances import FORCE_SIGNAL

import mlip_deploy
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import lammps
from mlip_deploy.errors import MLIPError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A triclinic crystal as CIF and POSCAR, and a molecule without a cell as PDB."""
    folder = tmp_path_factory.mktemp("structures")
    crystal = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    crystal.set_cell(crystal.cell.array @ np.array([[1, 0.05, 0], [0, 1.02, 0.03], [0.02, 0, 0.99]]), scale_atoms=True)
    crystal.rattle(0.08, seed=3)
    ase.io.write(folder / "crystal.cif", crystal)
    ase.io.write(folder / "POSCAR", crystal)
    ase.io.write(folder / "molecule.pdb", molecule("CH3OH"))
    return folder


def run(prepared):
    """The first energy in eV that the engine prints, and the last structure, run as the command says."""
    folder = prepared.folder
    if prepared.command.startswith("lmp"):
        log = lammps.run((folder / "in.lammps").read_text(), folder)
        return float(re.search(r"^ +0 +\S+ +(\S+)", log, flags=re.MULTILINE).group(1))
    environment = {
        **os.environ,
        "OPENMM_DEFAULT_PLATFORM": "Reference",
    }  # not OpenCL on the processor, which tests have
    done = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return None


def start_energy(tiny, prepared, path):
    atoms = ase.io.read(path)
    atoms.calc = MLIPCalculator(tiny)
    return atoms.get_potential_energy() * prepared.n_atoms / len(atoms)


@pytest.mark.parametrize("name", ["crystal.cif", "POSCAR", "molecule.pdb"])
@pytest.mark.parametrize("engine", ["lammps", "openmm", "ase"])
def test_every_format_in_every_engine(name, engine, files, tiny, tmp_path):
    prepared = mlip_deploy.prepare(engine, tiny, files / name, tmp_path / "run", time="0.02ps", ensemble="nve")
    energy = run(prepared)
    expected = start_energy(tiny, prepared, files / name)
    if engine == "lammps":
        assert energy == pytest.approx(expected, abs=1e-5)  # as many digits as LAMMPS prints
    else:
        log = np.loadtxt(tmp_path / "run" / "run.log", delimiter="," if engine == "openmm" else None, skiprows=1)
        # step 0 in ASE; one step later, with what the kinetic energy took, in OpenMM
        total = log[0, 1] + log[0, 2] if engine == "openmm" else log[0, 2]
        assert len(log) > 5
        assert np.isfinite(total)
    if engine == "ase":
        assert log[0, 2] == pytest.approx(expected, abs=1e-3)  # as many digits as MDLogger prints


@pytest.mark.parametrize("ensemble", ["nvt", "npt", "anneal"])
@pytest.mark.parametrize("engine", ["lammps", "openmm", "ase"])
def test_ensembles(ensemble, engine, files, tiny, tmp_path):
    hot = {"temperature": 900} if ensemble == "anneal" else {}
    moves = {"pressure": "1bar"} if ensemble == "npt" else {}
    options = {"ensemble": ensemble, "time": "0.2ps", **hot, **moves}
    run(mlip_deploy.prepare(engine, tiny, files / "crystal.cif", tmp_path / "run", **options))


@pytest.fixture(scope="module")
def argon(tmp_path_factory):
    """A model with one minimum, and a sheared and rattled crystal."""
    folder = tmp_path_factory.mktemp("argon")
    subprocess.run([sys.executable, EXAMPLES / "lennard_jones.py"], cwd=folder, check=True)
    crystal = bulk("Ar", a=5.1, cubic=True)
    crystal.set_cell(crystal.cell.array @ np.array([[1, 0.05, 0], [0, 1.02, 0.03], [0.02, 0, 0.99]]), scale_atoms=True)
    crystal.rattle(0.1, seed=3)
    ase.io.write(folder / "POSCAR", crystal)
    return folder / "lj.mlip.pt", folder / "POSCAR"


@pytest.mark.parametrize("engine", ["lammps", "openmm", "ase"])
def test_minimum(engine, argon, tmp_path):
    """By ASE's calculator, whatever found it."""
    model, source = argon
    prepared = mlip_deploy.prepare(engine, model, source, tmp_path / "run", ensemble="min")
    run(prepared)
    before, after = ase.io.read(source), relaxed(prepared.folder)
    before.calc = after.calc = MLIPCalculator(model)
    assert np.abs(before.get_forces()).max() > FORCE_SIGNAL
    assert np.abs(after.get_forces()).max() < 0.011


def test_lammps_and_ase_relax_a_cell_alike(argon, tmp_path):
    model, source = argon
    energies, volumes = [], []
    for engine in ("lammps", "ase"):
        options = {"ensemble": "relax-cell", "pressure": "1GPa"}
        prepared = mlip_deploy.prepare(engine, model, source, tmp_path / engine, **options)
        run(prepared)
        atoms = relaxed(prepared.folder)
        atoms.calc = MLIPCalculator(model)
        assert atoms.get_stress()[:3].mean() == pytest.approx(-1.0 / 160.21766, abs=1e-4)  # -1 GPa in eV/Å³
        energies.append(atoms.get_potential_energy())
        volumes.append(atoms.get_volume())
    assert energies[0] == pytest.approx(energies[1], abs=1e-3)
    assert volumes[0] == pytest.approx(volumes[1], rel=2e-3)


def relaxed(folder):
    if (folder / "relaxed.data").exists():
        return read_lammps_data(folder / "relaxed.data", atom_style="atomic", Z_of_type={1: 18})
    return ase.io.read(folder / "relaxed.extxyz")


def test_the_command_says_what_it_chose_and_how_to_go_on(files, tiny, tmp_path):
    done = mlip("prepare", "lammps", tiny, files / "POSCAR", "-o", tmp_path / "run", "--atoms", 60, "--time", "1ps")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "64 atoms: nvt (constant temperature), 300 K, 1 ps in 500 steps of 2 fs" in words
    assert f"run it: cd {tmp_path / 'run'} && lmp -in in.lammps" in words
    again = mlip("prepare", "lammps", tiny, files / "POSCAR", "-o", tmp_path / "run")
    assert again.returncode == 2
    assert "it exists and is not empty. Name another folder, or add --force" in " ".join(again.stderr.split())


def test_zbl_is_added_where_atoms_are_close(files, tiny, tmp_path):
    prepared = mlip_deploy.prepare("lammps", tiny, files / "crystal.cif", tmp_path / "run", time="0.004ps", zbl=True)
    assert "pair_coeff      1 2 zbl 11 17\n" in (tmp_path / "run" / "in.lammps").read_text()
    # gone at the distances of a crystal
    assert run(prepared) == pytest.approx(start_energy(tiny, prepared, files / "crystal.cif"), abs=1e-5)


def structure(tmp_path, atoms, name="x.extxyz"):
    ase.io.write(tmp_path / name, atoms)
    return tmp_path / name


def crystal():
    return bulk("NaCl", "rocksalt", a=5.2, cubic=True)


def close():
    atoms = crystal()
    atoms.positions[1] = atoms.positions[0] + 0.3
    return atoms


def thin():
    atoms = crystal()
    atoms.set_cell([5.2, 5.2, 0.1])
    return atoms[:1]


def slab():
    return fcc111("Na", (2, 2, 3), a=5.3, vacuum=10, periodic=True)


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (bulk("Fe", cubic=True), {}, "the structure has Fe, which tiny does not know. Its 6 elements: H C O Na Si Cl"),
        (close(), {}, "are on top of each other"),
        (thin(), {}, "the structure is periodic along cell vector c, but 0.1 Å high there"),
        (slab(), {"ensemble": "npt"}, "the structure has a gap of 20 Å along cell vector c: its cell would collapse"),
        (molecule("H2O"), {"ensemble": "npt"}, "the structure is not periodic in three directions"),
        (molecule("H2O"), {"atoms": 50}, "--atoms 50: the structure is not periodic, so that it cannot be repeated"),
        (molecule("H2O"), {"supercell": "2x1x1"}, "--supercell: the structure is not periodic along cell vector a"),
        (crystal(), {"supercell": "2x2"}, "--supercell '2x2': expected three positive numbers, such as 2x2x2"),
        (crystal(), {"supercell": "2x2x2", "atoms": 9}, "--supercell and --atoms both say how large the system is"),
        (
            crystal(),
            {"ensemble": "nvtt"},
            "--ensemble 'nvtt' is not one of nve, nvt, npt, min, relax-cell, anneal. Did",
        ),
        (crystal(), {"time": "10"}, "--time 10: in which unit? One of fs, ps, ns, such as --time 10ps"),
        (crystal(), {"time": "10hours"}, "--time '10hours': the unit 'hours' is not one of fs, ps, ns"),
        (crystal(), {"temperature": -3}, "--temperature -3: expected a positive temperature in K, such as 300"),
        (crystal(), {"pressure": "1bar"}, "--pressure 1bar: the volume is fixed in --ensemble nvt"),
        (crystal(), {"ensemble": "min", "time": "1ps"}, "--time 1ps: nothing moves in time in --ensemble min"),
        (crystal(), {"ensemble": "anneal"}, "--ensemble anneal cools to 300 K, so it needs a higher --temperature"),
        (crystal(), {"timestep": "1ps"}, "--timestep 1ps: more than ten times too long"),
        (crystal(), {"dispersion": True}, "--dispersion: the model's file does not say whether dispersion is in its"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(atoms, options, message, tiny, tmp_path):
    path = structure(tmp_path, atoms)
    with pytest.raises(MLIPError, match=re.escape(message)):
        mlip_deploy.prepare("lammps", tiny, path, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_structures(tiny, tmp_path):
    (tmp_path / "bad.cif").write_text("hello")
    for name, message in (("bad.cif", "could not be read as a structure"), ("none.cif", "no such structure file")):
        with pytest.raises(MLIPError, match=message):
            mlip_deploy.prepare("ase", tiny, tmp_path / name, tmp_path / "run")
    with pytest.raises(MLIPError, match=r"engine 'lamps' is not one of lammps, openmm, ase\. Did you mean lammps\?"):
        mlip_deploy.prepare("lamps", tiny, tmp_path / "none.cif", tmp_path / "run")


def test_partial_occupancies_are_refused(tiny, tmp_path):
    text = (
        "data_x\n_cell_length_a 5\n_cell_length_b 5\n_cell_length_c 5\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        "Na1 Na 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1.0\n"
    )
    (tmp_path / "half.cif").write_text(text)
    with pytest.raises(MLIPError, match=r"is occupied in part .*Na 0\.5"):
        mlip_deploy.prepare("ase", tiny, tmp_path / "half.cif", tmp_path / "run")


def test_openmm_has_no_slabs_and_relaxes_no_cells(tiny, tmp_path):
    atoms = crystal()
    atoms.pbc = (True, True, False)
    with pytest.raises(MLIPError, match="OpenMM is periodic in all directions or in none"):
        mlip_deploy.prepare("openmm", tiny, structure(tmp_path, atoms), tmp_path / "run")
    with pytest.raises(MLIPError, match="OpenMM does not relax cells"):
        mlip_deploy.prepare(
            "openmm", tiny, structure(tmp_path, Atoms(crystal())), tmp_path / "run", ensemble="relax-cell"
        )
