"""pair_style mlip: decks as a table, each against ASE; wrong inputs as a table of messages."""

import re
import subprocess

import numpy as np
import pytest
from ase.build import bulk
from conftest import EXAMPLES
from lammps_decks import restyle
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy import _core
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import lammps as lammps_engine
from mlip_deploy.engines.lammps import launcher, run
from mlip_deploy.engines.lammps_files import write_data

PRINT = """\
run 0
print "pe $(pe:%.17g)"
print "vol $(vol:%.17g)"
"""

LOAD_LAMMPS = """
from mlip_deploy.engines.lammps import instance
l = instance()
l.file("in.lammps")
"""


def rocksalt(repeat=(1, 1, 1), amplitude=0.12, seed=1):
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat(repeat)
    atoms.positions += np.random.default_rng(seed).normal(scale=amplitude, size=atoms.positions.shape)
    return atoms


def deck(path, atoms, directory, *, units="metal", before="", after="", settings="", coeff=None, style="atomic"):
    """An input script for `atoms` with pair_style mlip, ending in `run 0`."""
    data = directory / f"data.{style}"
    frame = write_data(atoms, data)
    restyle(data, style)
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    coeff = coeff or f'pair_coeff * * "{path}" {" ".join(frame.elements)}'
    atom_style = style.replace("bonded", "full")
    head = f"units {units}\nboundary {boundary}\natom_style {atom_style}\n{before}\nread_data {data.name}\n"
    return head + f"pair_style mlip {settings}\n{coeff}\n{after}\n{PRINT}"


def number(output, name):
    return float(re.search(rf"^{name} (\S+)$", output, flags=re.MULTILINE).group(1))


@pytest.mark.parametrize("asked_for", [0.0, 20.0])
def test_ghost_cutoff_of_a_halo(toy_halo, asked_for, tmp_path):
    """Interaction range and skin while the style is there, and what the user asked for when it has gone."""
    after = (
        f"neighbor 1.5 bin\ncomm_modify cutoff {asked_for}\nrun 0\ninfo comm\n"
        "pair_style zero 3.0\npair_coeff * *\nrun 0\ninfo comm"
    )
    output = run(deck(toy_halo, rocksalt((3, 3, 3)), tmp_path, after=after), tmp_path, ranks=2)
    found = [float(value) for value in re.findall(r"Communication cutoff = (\S+)", output)]
    assert found == pytest.approx([max(asked_for, 3 * 3.9 + 1.5), max(asked_for, 3.0 + 1.5)])


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("repeat", [(1, 1, 1), (3, 1, 1)])
def test_agrees_with_ase(tiny, ranks, repeat):
    atoms = rocksalt(repeat)
    truth, found = ase_engine.evaluate(tiny, atoms), lammps_engine.evaluate(tiny, atoms, ranks=ranks)
    assert np.abs(truth.forces).max() > FORCE_SIGNAL
    assert found.energy == pytest.approx(truth.energy, abs=FLOAT64_SUM * len(atoms))
    np.testing.assert_allclose(found.atomic_energies, truth.atomic_energies, atol=FLOAT64_ROTATED)
    np.testing.assert_allclose(found.forces, truth.forces, atol=FLOAT64_ROTATED)
    np.testing.assert_allclose(found.stress, truth.stress, atol=FLOAT64_ROTATED)


def test_a_rank_without_atoms(tiny):
    """Two ranks, all atoms in one half: the empty rank takes part in every exchange."""
    atoms = rocksalt()
    atoms.set_cell(np.diag([40.0, 5.2, 5.2]))
    truth, found = ase_engine.evaluate(tiny, atoms), lammps_engine.evaluate(tiny, atoms, ranks=2)
    np.testing.assert_allclose(found.forces, truth.forces, atol=FLOAT64_ROTATED)


def test_units_real(tiny, tmp_path):
    atoms = rocksalt()
    energy = number(run(deck(tiny, atoms, tmp_path, units="real"), tmp_path), "pe")
    truth = ase_engine.evaluate(tiny, atoms)
    assert energy == pytest.approx(truth.energy * _core.EV_IN_KCAL_PER_MOL, rel=1e-13)


def test_units_real_forces(tiny, tmp_path):
    atoms = rocksalt()
    dump = "dump f all custom 1 f.dump id fx fy fz\ndump_modify f format float %.17g sort id"
    run(deck(tiny, atoms, tmp_path, units="real", after=dump), tmp_path)
    forces = np.loadtxt(tmp_path / "f.dump", skiprows=9)[:, 1:]
    truth = ase_engine.evaluate(tiny, atoms)
    np.testing.assert_allclose(forces / _core.EV_IN_KCAL_PER_MOL, truth.forces, atol=FLOAT64_ROTATED)


def test_atom_virials_sum_to_the_global_one(tiny, tmp_path):
    sums = "\n".join(
        [
            "compute s all stress/atom NULL virial",
            *(f"compute s{k} all reduce sum c_s[{k}]" for k in range(1, 7)),
            "compute p all pressure NULL virial",
            "thermo_style custom step pe c_p[1] " + " ".join(f"c_s{k}" for k in range(1, 7)),
        ]
    )
    script = deck(tiny, rocksalt(), tmp_path, after=sums)
    script += "\n".join(f'print "p{k} $(-c_p[{k}]*vol:%.17g)"\nprint "s{k} $(c_s{k}:%.17g)"' for k in range(1, 7))
    output = run(script, tmp_path)
    for k in range(1, 7):
        assert number(output, f"s{k}") == pytest.approx(number(output, f"p{k}"), rel=1e-9)
        assert abs(number(output, f"p{k}")) > 1.0


def test_setup_is_printed_once_by_one_rank(tiny, tmp_path):
    output = run(deck(tiny, rocksalt(), tmp_path) + "run 0\n", tmp_path, ranks=2)
    assert output.count("types     1=Na 2=Cl") == 1
    assert "tiny (sevennet), float64" in output
    assert "on each of 2 MPI rank(s)" in output


def test_threads_are_printed(tiny, tmp_path):
    assert "2 thread(s)" in run(deck(tiny, rocksalt(), tmp_path, settings="threads 2"), tmp_path)


def test_nve_on_two_ranks_conserves_energy_and_follows_one_rank(tiny, tmp_path):
    """Neighbour lists are rebuilt and atoms change ranks on the way."""
    energies = []
    for ranks in (1, 2):
        directory = tmp_path / str(ranks)
        directory.mkdir()
        md = (
            "velocity all create 1500 1\nfix nve all nve\ntimestep 0.001\nneigh_modify every 1 delay 0 check yes\n"
            "neighbor 0.3 bin\nthermo 1\nthermo_style custom step etotal pe\nthermo_modify format float %.15g\nrun 60"
        )
        output = run(deck(tiny, rocksalt((3, 1, 1)), directory, after=md), directory, ranks=ranks)
        rows = re.findall(r"^\s+(\d+)\s+(-?\d\S*)\s+(-?\d\S*)$", output, flags=re.MULTILINE)[:61]
        energies.append(np.array(rows, dtype=float))
        builds = [int(n) for n in re.findall(r"Neighbor list builds = (\d+)", output)]
        assert builds[0] > 3
    one, two = energies
    assert np.abs(one[:, 2] - one[0, 2]).max() > 0.5
    assert np.abs(one[:, 1] - one[0, 1]).max() < 0.02
    np.testing.assert_allclose(two[:, 1:], one[:, 1:], atol=1e-6)


def test_python_library_needs_no_plugin_line(tiny, tmp_path):
    (tmp_path / "in.lammps").write_text(deck(tiny, rocksalt(), tmp_path))
    code = LOAD_LAMMPS + "print('pe', l.get_thermo('pe'))"
    done = subprocess.run([launcher()[0], "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert number(done.stdout, "pe") == pytest.approx(ase_engine.evaluate(tiny, rocksalt()).energy, abs=1e-7)


def test_example(artifacts, tmp_path):
    script = (EXAMPLES / "lammps" / "silicon_nve.in").read_text()
    variables = {"model": artifacts.sevennet_0("float32"), "steps": 3}
    run(script, tmp_path, variables=variables)
    record = np.loadtxt(tmp_path / "silicon_nve_lammps.dat")
    assert record.shape == (4, 3)
    assert np.ptp(record[:, 1]) / 64 < 1e-4


def test_nan_positions(tiny, tmp_path):
    """LAMMPS itself notices NaN when it rebuilds its lists; between rebuilds the pair style does."""
    (tmp_path / "in.lammps").write_text(deck(tiny, rocksalt(), tmp_path))
    code = LOAD_LAMMPS + "l.numpy.extract_atom('x')[0, 0] = float('nan'); l.command('run 1 pre no')"
    done = subprocess.run([launcher()[0], "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "pair_style mlip, step 1: atom positions are not finite" in done.stderr


def test_memory_does_not_grow_with_steps(tiny, tmp_path):
    """Peak memory of a long run equals that of a short one within 2 %."""

    def peak(steps):
        directory = tmp_path / str(steps)
        directory.mkdir()
        md = "velocity all create 900 1\nfix nve all nve\nneigh_modify every 1 delay 0 check yes\nneighbor 0.3 bin\n"
        md += f"run {steps}"
        (directory / "in.lammps").write_text(deck(tiny, rocksalt((2, 2, 2)), directory, after=md))
        command = [*launcher(), "-in", "in.lammps", "-log", "none"]
        code = (
            "import resource, subprocess, sys\n"
            f"subprocess.run({command!r}, check=True, stdout=subprocess.DEVNULL)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        done = subprocess.run([launcher()[0], "-c", code], cwd=directory, capture_output=True, text=True, check=True)
        return int(done.stdout)

    short, long = peak(20), peak(200)
    assert long < 1.02 * short
