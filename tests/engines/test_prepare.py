"""`mlip prepare`: decks of the three engines run, start with the calculator's energy, and sample what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene
from ase.io import read, write
from conftest import EXAMPLES, mlip
from pair_potential import Morse, crystal

from mlip_deploy import EnergyFrame, MLIPCalculator, MLIPError, export_module, prepare
from mlip_deploy.engines import lammps
from mlip_deploy.engines.lammps_files import write_data
from mlip_deploy.preparation.plan import TIME_STEPS, automatic_timestep
from mlip_deploy.preparation.structure import read_structure

ENGINES = ["ase", "lammps", "openmm"]
PRINTED = 1e-7  # relative: LAMMPS's table has eight digits
KBAR = 50


def run(preparation):
    """Run the one line that is printed; returns the folder."""
    scripts = Path(sys.executable).parent
    program, *words = preparation.command.split()
    command = [scripts / program, *words]
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=preparation.folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return preparation.folder


def table(preparation):
    """Columns of temperature (K), potential energy (eV) and volume (Å³), from whatever the engine wrote."""
    if preparation.engine == "lammps":
        log = (preparation.folder / "log.lammps").read_text()
        rows = np.array([[float(x) for x in line.split()] for block in re.findall(
            r"^ +Step.*\n((?: +[-\d].*\n)+)", log, flags=re.MULTILINE) for line in block.splitlines()])  # fmt: skip
        return rows[:, 2], rows[:, 3], rows[:, 5]
    rows = np.genfromtxt(preparation.folder / "thermo.csv", delimiter=",", skip_header=1)
    if preparation.engine == "openmm":
        return rows[:, 4], rows[:, 2] / 96.4853321, rows[:, 5] * 1e3 if rows.shape[1] > 5 else None
    return rows[:, 2], rows[:, 3], rows[:, 5]


def final(preparation):
    """The last structure."""
    if preparation.engine == "lammps":
        return read(preparation.folder / "final.data", format="lammps-data")
    return read(preparation.folder / "final.extxyz")


def rocksalt():
    """Triclinic, with a cell vector that LAMMPS and OpenMM turn and reduce."""
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.set_cell(
        atoms.cell.array @ np.array([[1.0, 0.05, 0.1], [0.0, 1.1, -0.07], [0.03, 0.0, 0.95]]), scale_atoms=True
    )
    atoms.rattle(0.1, seed=2)
    return atoms


def salt_molecule():
    return Atoms("Na2Cl2", positions=[[0, 0, 0], [2.6, 0, 0.2], [0, 2.5, 0.1], [2.7, 2.6, 0]])[[0, 2, 3, 1]]


STRUCTURES = {
    "crystal.cif": rocksalt,
    "POSCAR": lambda: bulk("NaCl", "rocksalt", a=5.64, cubic=True)[[1, 0, 2, 5, 3, 4, 7, 6]],
    "molecule.pdb": salt_molecule,
    "molecule.xyz": salt_molecule,
    "crystal.extxyz": lambda: rocksalt().repeat((3, 1, 2)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_first_energy_is_the_calculators(name, engine, toy_local, tmp_path):
    file = tmp_path / name
    atoms = STRUCTURES[name]()
    if name != "POSCAR":
        atoms.rattle(0.05, seed=1)
        write(file, atoms)
    else:
        atoms.rattle(0.05, seed=1)
        write(file, atoms, format="vasp")
    # a short step: the toy is stiff
    preparation = prepare(engine, toy_local, file, tmp_path / "run", time="4fs", timestep="0.5fs")
    run(preparation)
    truth, _ = read_structure(file)
    truth.calc = MLIPCalculator(toy_local)
    _, energy, _ = table(preparation)
    assert len(energy) == 9
    assert abs(energy[0] - energy[-1]) > 1e-4, "it moves"
    assert energy[0] == pytest.approx(truth.get_potential_energy(), rel=PRINTED)


@pytest.mark.parametrize(("engine", "ensemble"), [("ase", "nve"), ("lammps", "nve"), ("openmm", "nve"), ("ase", "min"),
    ("lammps", "min"), ("openmm", "min"), ("ase", "anneal"), ("lammps", "anneal"), ("openmm", "anneal")])  # fmt: skip
def test_other_ensembles(engine, ensemble, pair_potential, tmp_path):
    atoms = crystal(2)
    atoms.rattle(0.1, seed=3)
    write(tmp_path / "cu.extxyz", atoms)
    options = {} if ensemble == "min" else {"time": "5ps", "temperature": 900}
    preparation = prepare(
        engine, pair_potential, tmp_path / "cu.extxyz", tmp_path / "run", ensemble=ensemble, **options
    )
    run(preparation)
    temperature, energy, _ = table(preparation)
    if ensemble == "min":
        truth = crystal(2)
        truth.calc = MLIPCalculator(pair_potential)
        assert energy[-1] == pytest.approx(truth.get_potential_energy(), abs=1e-3)
        end = final(preparation)
        end.calc = truth.calc
        assert np.linalg.norm(end.get_forces(), axis=1).max() < 0.0101  # positions are written with eight digits
    elif ensemble == "anneal":
        assert np.mean(temperature[20:50]) > 600
        assert np.mean(temperature[-20:]) < 500
    elif engine == "lammps":
        total = np.loadtxt([line for line in (tmp_path / "run/log.lammps").read_text().splitlines()
                            if re.fullmatch(r"(\s+[-\d.e]+){7}\s*", line)])[:, 4]  # fmt: skip
        assert np.ptp(total) < 0.02 * np.ptp(energy)


def late(values):
    """Mean and its standard error, from block averages, without the first fifth."""
    values = np.asarray(values)[len(values) // 5 :]
    means = [block.mean() for block in np.array_split(values, 8)]
    return np.mean(means), np.std(means, ddof=1) / np.sqrt(8)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_nvt_has_its_temperature(engine, pair_potential, tmp_path):
    write(tmp_path / "cu.cif", crystal(1))
    preparation = prepare(
        engine,
        pair_potential,
        tmp_path / "cu.cif",
        tmp_path / "run",
        time="30ps",
        temperature="400K",
        supercell="2x2x2",
    )
    run(preparation)
    mean, error = late(table(preparation)[0])
    assert error < 20
    assert mean == pytest.approx(400, abs=4 * error)


@pytest.mark.slow
def test_npt_has_one_volume_in_all_engines(pair_potential, tmp_path):
    write(tmp_path / "cu.cif", crystal(1))
    volumes = []
    for engine in ENGINES:
        preparation = prepare(
            engine,
            pair_potential,
            tmp_path / "cu.cif",
            tmp_path / engine,
            ensemble="npt",
            time="30ps",
            atoms=30,
            pressure=f"{KBAR}kbar",
        )
        run(preparation)
        temperature, _, volume = table(preparation)
        mean, error = late(temperature)
        assert mean == pytest.approx(300, abs=4 * error), engine
        volumes.append(late(volume))
    assert all(mean < 0.99 * crystal(2).get_volume() for mean, _ in volumes)
    for mean, error in volumes[1:]:
        assert mean == pytest.approx(volumes[0][0], abs=4 * np.hypot(error, volumes[0][1]))


def test_relaxed_cells_agree(pair_potential, tmp_path):
    atoms = bulk("Cu", "fcc", a=3.8).repeat((1, 2, 1))
    atoms.set_cell(
        atoms.cell.array @ np.array([[1.02, 0.01, 0.0], [0.0, 0.99, 0.02], [0.01, 0.0, 1.0]]), scale_atoms=True
    )
    atoms.rattle(0.03, seed=1)
    write(tmp_path / "cu.extxyz", atoms)
    found = []
    for engine in ("ase", "lammps"):
        preparation = prepare(
            engine, pair_potential, tmp_path / "cu.extxyz", tmp_path / engine, ensemble="relax-cell", pressure="2GPa"
        )
        run(preparation)
        relaxed = final(preparation)
        found.append(relaxed)
        relaxed.calc = MLIPCalculator(pair_potential)
        # 0.001 eV/Å on the cell of ASE is 0.004 eV of four atoms over 47 Å³
        np.testing.assert_allclose(relaxed.get_stress()[:3] * 160.2177, -2.0, atol=0.02)
        np.testing.assert_allclose(relaxed.get_stress()[3:] * 160.2177, 0.0, atol=0.02)
    assert found[0].get_volume() == pytest.approx(found[1].get_volume(), rel=2e-4)
    assert found[0].get_volume() < 0.97 * atoms.get_volume()


def test_added_terms_are_added(tmp_path):
    frame = EnergyFrame(functional="PBE", hubbard_u="none", corrections="none", dispersion="none")
    model = tmp_path / "cu.mlip.pt"
    export_module(Morse(), model, elements=["Cu"], cutoff=1.75 * 2.866, name="cu", dtype="float64", license="MIT",
                  citation="none", energy_frame=frame)  # fmt: skip
    atoms = crystal(2)
    atoms.rattle(0.1, seed=1)
    write(tmp_path / "cu.extxyz", atoms)
    both = prepare("lammps", model, tmp_path / "cu.extxyz", tmp_path / "both", time="2fs", dispersion=True, zbl=True)
    plain = prepare("lammps", model, tmp_path / "cu.extxyz", tmp_path / "plain", time="2fs")
    energies = [table(preparation)[1][0] for preparation in (both, plain) if run(preparation)]
    write_data(atoms, tmp_path / "structure.data")
    alone = (
        "units metal\nread_data structure.data\npair_style hybrid/overlay dispersion/d3 bj pbe 20.0 12.0 zbl 0.7 1.2\n"
    )
    alone += "pair_coeff * * dispersion/d3 Cu\npair_coeff * * zbl 29 29\nrun 0\nprint 'added $(pe:%.12g)'\n"
    added = float(re.search(r"^added (\S+)$", lammps.run(alone, tmp_path), flags=re.MULTILINE).group(1))
    assert added < -1
    assert energies[0] - energies[1] == pytest.approx(added, abs=2 * PRINTED * abs(energies[0]))
    with pytest.raises(MLIPError, match="D3 dispersion is added by LAMMPS alone"):
        prepare("ase", model, tmp_path / "cu.extxyz", tmp_path / "x", dispersion=True)


def test_the_time_step_follows_the_fastest_vibration():
    """Ten steps or more in a period of H2, N2 and P2 (cm-1, Huber and Herzberg)."""
    for mass, wave_number in ((1.008, 4401.2), (14.007, 2358.6), (30.974, 780.8)):
        period = 1e15 / (2.99792458e10 * wave_number)  # fs
        assert period / automatic_timestep(mass) >= 10
    assert [automatic_timestep(mass) for mass in (2.014, 4.003, 20.18, 22.99)] == [0.5, 1.0, 1.0, 2.0]
    assert TIME_STEPS[-1][0] == float("inf")


# ---- what is refused ------------------------------------------------------------------------------------------

OCCUPANCY = """\
data_x
_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4
_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 0.5\nSi1 Si 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Structures that are wrong, each in its way, and a right one."""
    folder = tmp_path_factory.mktemp("structures")
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    write(folder / "salt.cif", salt)
    write(folder / "quartz.extxyz", bulk("SiC", "zincblende", a=4.36))
    (folder / "mixed.cif").write_text(OCCUPANCY)
    doubled = salt + Atoms("Na", positions=[[0.1, 0.2, 0.1]])
    write(folder / "doubled.extxyz", doubled)
    sheet = graphene("C2", vacuum=None)
    sheet.symbols[:] = "Si"
    sheet.set_cell([4.0, 4.0, 1.0, 90, 90, 120], scale_atoms=True)
    sheet.pbc = True
    write(folder / "flat.extxyz", sheet)
    write(folder / "no_vector.extxyz", Atoms("NaCl", positions=[[0, 0, 0], [2.5, 0, 0]], cell=[5, 5, 0], pbc=True))
    surface = salt.copy()
    surface.center(vacuum=8, axis=2)
    write(folder / "surface.extxyz", surface)
    write(folder / "molecule.xyz", salt_molecule())
    slab = salt.copy()
    slab.pbc = (True, True, False)
    write(folder / "slab.extxyz", slab)
    write(folder / "nanometres.extxyz", Atoms("NaCl", positions=[[0, 0, 0], [0.28, 0, 0]], cell=[0.56] * 3, pbc=False))
    write(folder / "pair.extxyz", Atoms("Na2", positions=[[0, 0, 0], [1.2, 0, 0]]))  # beyond 0.5 Å
    write(folder / "far.extxyz", Atoms("NaCl", positions=[[0, 0, 0], [28, 0, 0]]))
    write(folder / "half.pdb", salt_molecule())
    half = (folder / "half.pdb").read_text().replace("  1.00  0.00", "  0.50  0.00", 1)
    (folder / "half.pdb").write_text(half)
    (folder / "notes.txt").write_text("not a structure\n")
    (folder / "broken.cif").write_text("data_x\nnothing\n")
    (folder / "full").mkdir()
    (folder / "full" / "results.txt").write_text("precious")
    return folder


REFUSALS = [
    ("lamps", "salt.cif", {}, r"engine 'lamps' is not one of ase, lammps, openmm. Did you mean lammps\?"),
    ("lammps", "slat.cif", {}, "no such file"),
    ("lammps", "notes.txt", {}, "ASE"),
    ("lammps", "broken.cif", {}, "cannot be read as a structure|has no atoms"),
    ("lammps", "quartz.extxyz", {}, r"does not know C, which CSi contains. The file knows 3 elements: Na Cl Si"),
    ("lammps", "mixed.cif", {}, "partial occupancies: site 0 is Na 0.5, Si 0.5"),
    ("lammps", "half.pdb", {}, "partial occupancies: atom 1 is Na 0.5"),
    ("ase", "doubled.extxyz", {}, r"atoms overlap: 1 \(Na\) and 9 \(Na\) are 0.245 Å apart"),
    ("ase", "nanometres.extxyz", {}, "atoms overlap"),
    ("ase", "pair.extxyz", {}, r"atoms overlap: 1 \(Na\) and 2 \(Na\) are 1.200 Å apart"),
    ("ase", "far.extxyz", {}, "no two atoms are closer than the model's cutoff of 3.9 Å"),
    ("openmm", "flat.extxyz", {}, "the cell is 1.00 Å high along c"),
    ("openmm", "no_vector.extxyz", {}, "periodic along c, but has no cell vector c"),
    ("openmm", "slab.extxyz", {}, "periodic in all directions or in none"),
    ("openmm", "salt.cif", {"ensemble": "relax-cell"}, "OpenMM does not relax cells"),
    ("lammps", "surface.extxyz", {"ensemble": "npt"}, "Å without an atom along c, and a pressure would close the gap"),
    ("lammps", "molecule.xyz", {"ensemble": "npt"}, "the structure is not periodic, so it has no pressure"),
    ("ase", "slab.extxyz", {"ensemble": "relax-cell"}, "not periodic along c, so it has no pressure"),
    ("lammps", "salt.cif", {"ensemble": "nptt"}, r"'nptt' is not one of .*Did you mean npt\?"),
    ("lammps", "salt.cif", {"pressure": "1bar"}, "the volume is fixed in --ensemble nvt"),
    ("lammps", "salt.cif", {"ensemble": "npt", "pressure": "1"}, "in which unit"),
    ("lammps", "salt.cif", {"ensemble": "npt", "pressure": "1gpa"}, r"'gpa' is not one of .*Did you mean GPa\?"),
    ("lammps", "salt.cif", {"time": "10"}, "--time 10: in which unit"),
    ("lammps", "salt.cif", {"time": "10pss"}, r"'pss' is not one of fs, ps, ns. Did you mean ps\?"),
    ("lammps", "salt.cif", {"time": "long"}, "expected a number with a unit, such as 10ps"),
    ("lammps", "salt.cif", {"time": "0.1fs"}, "shorter than one time step"),
    ("lammps", "salt.cif", {"timestep": "1ps"}, "more than ten times too long"),
    ("lammps", "salt.cif", {"temperature": "20C"}, "the unit 'C' is not one of K"),
    ("lammps", "salt.cif", {"temperature": "-5"}, "expected a positive temperature"),
    ("lammps", "salt.cif", {"ensemble": "anneal"}, "needs a higher --temperature to begin with; none was given"),
    ("lammps", "salt.cif", {"ensemble": "min", "temperature": 300}, "nothing moves in time in --ensemble min"),
    ("lammps", "salt.cif", {"supercell": "2x2"}, "expected three positive numbers, such as 2x2x2"),
    ("lammps", "slab.extxyz", {"supercell": "1x1x2"}, "not periodic along c, so nothing repeats there"),
    ("lammps", "molecule.xyz", {"atoms": 500}, "not periodic, so nothing repeats"),
    ("lammps", "salt.cif", {"atoms": 500, "supercell": "2x2x2"}, "two ways to say the same"),
    ("lammps", "salt.cif", {"device": "gpu"}, "device: 'gpu' is not one of"),
    ("lammps", "salt.cif", {"dispersion": True}, "no D3 parameters are known here for the model's functional 'none'"),
    ("openmm", "salt.cif", {"zbl": True}, "ZBL repulsion is added by LAMMPS alone"),
    ("lammps", "salt.cif", {"output": "full"}, "is not empty. Name another one, or type --force"),
    ("lammps", "salt.cif", {"output": "salt.cif"}, "is a file. Name a folder"),
    ("lammps", "salt.cif", {"output": "/proc/run"}, "no file can be written in '/proc'"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "name", "options", "message"), REFUSALS, ids=[str(k) for k in range(len(REFUSALS))])
def test_nonsense_is_refused_before_anything_is_written(engine, name, options, message, folder, toy_local, tmp_path):
    out = options.get("output", "run")
    options = {key: value for key, value in options.items() if key != "output"}
    out = folder / out if (folder / out).exists() else Path(out) if out.startswith("/") else tmp_path / out
    with pytest.raises(MLIPError, match=message):
        prepare(engine, toy_local, folder / name, out, **options)
    assert not (tmp_path / "run").exists()


def test_dispersion_is_not_counted_twice(folder, tmp_path):
    for found, message in (("D3; damping BJ", "contain dispersion already"), ("unknown", "does not say whether")):
        frame = EnergyFrame(functional="PBE", hubbard_u="none", corrections="none", dispersion=found)
        model = tmp_path / f"{len(found)}.mlip.pt"
        export_module(Morse(), model, elements=["Na", "Cl"], cutoff=5.0, name="cu", dtype="float64", license="MIT",
                      citation="none", energy_frame=frame)  # fmt: skip
        with pytest.raises(MLIPError, match=message):
            prepare("lammps", model, folder / "salt.cif", tmp_path / "run", dispersion=True)


def test_notes(folder, toy_local, tmp_path):
    surface = prepare("lammps", toy_local, folder / "surface.extxyz", tmp_path / "surface")
    assert any("Å along c hold no atom" in note for note in surface.notes)
    assert any("less than twice the cutoff of 3.9 Å" in note for note in surface.notes)
    frames = [bulk("NaCl", "rocksalt", a=a) for a in (5.5, 5.6)]
    frames[1].cell[2] *= -1
    write(tmp_path / "several.extxyz", frames)
    several = prepare("ase", toy_local, tmp_path / "several.extxyz", tmp_path / "several", atoms=60)
    assert "the last of the 2 structures in the file is taken" in several.notes
    assert any("left-handed" in note for note in several.notes)
    assert several.n_atoms >= 60
    assert not (tmp_path / "several" / "in.lammps").exists()


def test_a_guard_needs_a_domain_and_something_to_look_at(folder, toy_local, tmp_path):
    with pytest.raises(MLIPError, match=r"--guard: '.*' has no domain, .* Type: mlip domain fit .* --frames"):
        prepare("lammps", toy_local, folder / "salt.cif", tmp_path / "run", guard=True)
    with pytest.raises(MLIPError, match="--guard: OpenMM's minimiser cannot be watched"):
        prepare("openmm", toy_local, folder / "salt.cif", tmp_path / "run", guard=True, ensemble="min")
    assert not (tmp_path / "run").exists()


def test_the_command(folder, toy_local, tmp_path):
    done = mlip("prepare", "lammps", toy_local, folder / "salt.cif", "-o", tmp_path / "run", "--time", "1ps")
    assert done.returncode == 0, done.stderr
    assert f"cd {tmp_path / 'run'} && lmp -in in.lammps" in done.stdout
    assert "mpiexec -n 4 lmp -in in.lammps" in done.stdout
    assert "mlip deploy lammps builds the plugin" in done.stdout
    again = mlip("prepare", "lammps", toy_local, folder / "salt.cif", "-o", tmp_path / "run")
    assert (again.returncode, "type --force" in again.stderr) == (2, True)
    forced = mlip("prepare", "lammps", toy_local, folder / "salt.cif", "-o", tmp_path / "run", "--force")
    assert forced.returncode == 0, forced.stderr
    swapped = mlip("prepare", toy_local, "lammps", folder / "salt.cif", "-o", tmp_path / "x")
    assert swapped.returncode == 2
    assert f"then the structure: lammps {toy_local}" in swapped.stderr
    other = mlip("prepare", "ase", folder / "salt.cif", toy_local, "-o", tmp_path / "x")
    assert "the engine comes first, then the model, then the structure" in other.stderr
    assert not (tmp_path / "x").exists()


def test_page(toy_local, tmp_path):
    """The commands and the Python of docs/prepare.md, as they stand there."""
    text = (EXAMPLES.parent / "docs" / "prepare.md").read_text()
    (tmp_path / "7net-0.mlip.pt").symlink_to(toy_local)
    write(tmp_path / "salt.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    write(tmp_path / "molecule.xyz", salt_molecule())
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    python = "".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    assert (shell.count("mlip prepare"), shell.count("mlip run")) == (4, 2)
    for command in (["bash", "-ec", shell], [sys.executable, "-c", python]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "final.data").exists()
    assert all((tmp_path / name / "report.html").exists() for name in ("melt", "minimum", "prepared"))
