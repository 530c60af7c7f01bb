"""`mlip run`: it ends with a verdict that its own files bear out, and says what to do where it died or was stopped."""

import json
import re

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from conftest import mlip
from pair_potential import crystal
from test_prepare import table

from mlip_deploy import MLIPCalculator, MLIPError, fit_domain, prepare, run
from mlip_deploy.engines.lammps_files import keep_whole_frames
from mlip_deploy.preparation.plan import FORCE_TOLERANCE
from mlip_deploy.simulation.judge import with_error
from mlip_deploy.simulation.remedies import REMEDIES, remedy
from mlip_deploy.simulation.statistics import drift, mean_and_error
from mlip_deploy.simulation.table import Table

ENGINES = ["ase", "lammps", "openmm"]


@pytest.fixture(scope="module")
def copper(tmp_path_factory):
    """A file with 32 atoms, shaken."""
    path = tmp_path_factory.mktemp("copper") / "cu.extxyz"
    atoms = crystal(2)
    atoms.rattle(0.05, seed=3)
    write(path, atoms)
    return path


# ---- what a run comes to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_averages_are_those_of_the_engines_own_file(engine, pair_potential, copper, tmp_path):
    said = []
    made = prepare(engine, pair_potential, copper, tmp_path / "run", time="2ps", temperature=400)
    done = run(made, progress=said.append)
    assert (done.ending, done.passed, done.steps_done) == ("finished", True, 1000)
    temperature, energy, _ = table(made)
    averages = {average.quantity: average for average in done.averages}
    late = slice(len(temperature) // 5, None)
    assert averages["temperature"].mean == pytest.approx(np.mean(temperature[late]), rel=1e-6)
    assert averages["potential energy"].mean == pytest.approx(np.mean(energy[late]) / 32, rel=1e-6)
    blocks = [np.mean(block) for block in np.array_split(temperature[late], 8)]
    plain = np.std(blocks, ddof=1) / np.sqrt(8)
    assert 0.5 * plain < averages["temperature"].error < 3.0 * plain
    (curve,) = (curve for curve in done.curves if curve.title == "Temperature")
    np.testing.assert_allclose(curve.series[0].y, temperature, rtol=1e-6)
    assert [series.label for series in curve.series] == ["", "asked for"]
    assert any("step 500 of 1000 (50 %)" in line for line in said)
    page = (made.folder / "report.html").read_text()
    assert page.index("Finished") < page.index("<img") < page.index("Averages") < page.index("Settings")
    assert made.command in page
    assert str(made.plan.timestep_reason) in page
    assert (made.folder / "output.txt").stat().st_size > 1000
    assert len(read(made.folder / "final.extxyz")) == 32


@pytest.mark.parametrize("engine", ENGINES)
def test_a_relaxation_says_its_largest_force(engine, pair_potential, copper, tmp_path):
    done = run(prepare(engine, pair_potential, copper, tmp_path / "run", ensemble="min"))
    assert done.verdict == "pass"
    end = read(tmp_path / "run" / "final.extxyz")
    end.calc = MLIPCalculator(pair_potential)
    force = np.linalg.norm(end.get_forces(), axis=1).max()
    assert force < 1.01 * FORCE_TOLERANCE["min"]
    said = float(re.search(r"the largest force on an atom is ([\d.]+) eV/Å", done.findings[0].text)[1])
    assert said == pytest.approx(force, abs=2e-4)
    assert done.curves[-1].title == "Largest force"
    assert f"{tmp_path / 'run' / 'final.extxyz'} -o dynamics" in done.following[1][1]


def test_a_relaxation_that_does_not_converge_is_no_success(pair_potential, copper, tmp_path):
    made = prepare("lammps", pair_potential, copper, tmp_path / "run", ensemble="min")
    made.script.write_text(made.script.read_text().replace("iterations index 2000", "iterations index 1"))
    done = run(made)
    assert (done.ending, done.verdict) == ("finished", "fail")
    assert "after 1 iterations: not converged to 0.01 eV/Å" in done.findings[0].text
    assert done.following == ()


@pytest.mark.parametrize("engine", ["lammps", "openmm"])
def test_the_energy_of_nve_is_kept(engine, pair_potential, copper, tmp_path):
    done = run(prepare(engine, pair_potential, copper, tmp_path / "run", ensemble="nve", time="1ps"))
    assert done.verdict == "pass", done.findings
    slope = float(re.search(r"drifts by (-?[\d.]+)", done.findings[0].text)[1])
    (curve,) = (curve for curve in done.curves if curve.title == "Change of total energy")
    x, y = curve.series[0].x, curve.series[0].y
    assert slope == pytest.approx(np.polyfit(x, y, 1)[0], abs=0.05)


def test_a_drift_is_measured_and_refused(pair_potential, copper, tmp_path):
    """LAMMPS adds 0.8 eV/ps to 32 atoms: 25 meV/atom/ps."""
    made = prepare("lammps", pair_potential, copper, tmp_path / "run", ensemble="nve", time="2ps")
    made.script.write_text(made.script.read_text().replace("run      ", "fix hot all heat 1 0.8\nrun      "))
    done = run(made)
    assert (done.ending, done.verdict) == ("finished", "fail")
    found = re.search(r"drifts by ([\d.]+) ± ([\d.]+) meV/atom/ps", done.findings[0].text)
    assert float(found[1]) == pytest.approx(25.0, abs=max(0.5, 3 * float(found[2])))
    assert "Halve the time step: --timestep 1fs" in done.findings[0].remedy


def test_a_short_run_is_an_open_question(pair_potential, copper, tmp_path):
    nve = run(prepare("lammps", pair_potential, copper, tmp_path / "nve", ensemble="nve", time="20fs"))
    assert nve.verdict == "open"
    assert "too short to tell" in nve.findings[0].text
    nvt = run(prepare("lammps", pair_potential, copper, tmp_path / "nvt", temperature=900, time="200fs"))
    assert nvt.verdict == "open"
    assert "not in equilibrium yet" in nvt.findings[0].text


def test_relaxed_cells(pair_potential, tmp_path):
    atoms = bulk("Cu", "fcc", a=3.75, cubic=True)
    atoms.rattle(0.02, seed=1)
    write(tmp_path / "cu.extxyz", atoms)
    made = prepare("ase", pair_potential, tmp_path / "cu.extxyz", tmp_path / "run", ensemble="relax-cell")
    done = run(made)
    assert done.verdict == "pass"
    end = read(tmp_path / "run" / "final.extxyz")
    end.calc = MLIPCalculator(pair_potential)
    bar = -end.get_stress()[:3].mean() * 1.602176634e6
    (text,) = (finding.text for finding in done.findings if "pressure" in finding.text)
    assert float(re.search(r"is (-?[\d.]+) bar", text)[1]) == pytest.approx(bar, abs=1.0)
    assert {"Volume", "Pressure", "Largest force"} <= {curve.title for curve in done.curves}


# ---- what dies ----------------------------------------------------------------------------------------------------


def test_lammps_that_loses_atoms(pair_potential, copper, tmp_path):
    """Through the command: the message of LAMMPS, the remedy, status 1; the page says the same."""
    done = mlip("run", "lammps", pair_potential, copper, "-o", tmp_path / "run", "--ensemble", "nve", "--timestep",
                "20fs", "--temperature", 20000, "--json", tmp_path / "run.json")  # fmt: skip
    assert done.returncode == 1
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (done.stderr, page):
        assert re.search(r"lammps stopped at step \d+ of 500: Lost atoms: original 32 current \d+", text)
        assert "Relax the structure first" in text
    assert "Stopped by an error" in page
    assert json.loads((tmp_path / "run.json").read_text())["ending"] == "failed"


def test_a_script_that_raises(pair_potential, copper, tmp_path):
    made = prepare("ase", pair_potential, copper, tmp_path / "run")
    (made.folder / "model.mlip.pt").write_bytes(b"damaged")
    done = run(made)
    assert (done.ending, done.verdict) == ("failed", "fail")
    assert "ase stopped at step 0 of 5000: mlip_deploy.errors.MLIPError: " in done.findings[0].text
    assert "model.mlip.pt" in done.findings[0].text
    assert "output.txt" in done.findings[0].remedy


def test_an_engine_that_is_killed(pair_potential, copper, tmp_path):
    made = prepare("openmm", pair_potential, copper, tmp_path / "run")
    made.script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = run(made)
    assert "signal 9 (Killed)" in done.findings[0].text
    assert "Take fewer atoms" in done.findings[0].remedy


def test_atoms_that_fly_apart_are_no_success(pair_potential, copper, tmp_path):
    done = run(
        prepare("ase", pair_potential, copper, tmp_path / "run", ensemble="nve", timestep="20fs", time="2ps",
                temperature=9000)
    )  # fmt: skip
    assert (done.ending, done.verdict) == ("finished", "fail")
    assert "more than 10 times the 9000 K" in done.findings[0].text


@pytest.mark.parametrize(("engine", "ensemble"), [("ase", "nvt"), ("lammps", "nvt"), ("openmm", "nvt"), ("ase", "min"),
                                                  ("lammps", "min")])  # fmt: skip
def test_a_guarded_run_stops_outside_of_the_domain(engine, ensemble, tiny, tmp_path):
    """The domain is the crystal at rest, nearly: heat, and a stretched start, are outside of it."""
    crystal = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    frames = []
    for seed in range(12):
        frames.append(crystal.copy())
        frames[-1].rattle(0.01, seed=seed)
    known = tmp_path / "known.mlip.pt"
    fit_domain(tiny, [frames], output=known)
    stretched = bulk("NaCl", "rocksalt", a=6.0, cubic=True)
    stretched.rattle(0.3, seed=1)
    write(tmp_path / "stretched.cif", stretched)
    options = {"time": "0.1ps", "temperature": 900} if ensemble == "nvt" else {}
    made = prepare(
        engine, known, tmp_path / "stretched.cif", tmp_path / "run", ensemble=ensemble, guard=True, **options
    )
    done = run(made)
    assert not done.passed
    (finding,) = done.findings
    assert "has a grade of" in finding.text
    assert "guard.extxyz" in finding.remedy
    assert len(read(made.folder / "guard.extxyz")) == 8


MESSAGES = {
    "fix mlip/guard, step 10: atom 24 (Si) has a grade of 19.6, above 1.5": "action warn",
    "Lost atoms: original 500 current 498": "Relax the structure first",
    "Non-numeric pressure - simulation unstable": "Relax the structure first",
    "openmm.OpenMMException: Particle coordinate is NaN.": "Relax the structure first",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory": "Take fewer atoms",
    "std::bad_alloc": "Take fewer atoms",
    "Neighbor list overflow, boost neigh_modify one": "neigh_modify one 20000",
    "Unrecognized pair style 'mlip'": "mlip doctor",
    "OSError: [Errno 28] No space left on device": "The disk is full",
    "Fatal error in internal_Init: MPI_Init failed": "Try one rank",
    "something new": "output.txt",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_remedies(message):
    assert MESSAGES[message] in remedy(message)


def test_every_remedy_has_a_message():
    assert all(any(re.search(pattern, message) for message in MESSAGES) for pattern, _ in REMEDIES)


# ---- ranks, and what is refused -----------------------------------------------------------------------------------


def test_ranks(toy_local, tmp_path):
    write(tmp_path / "salt.cif", bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    energies = []
    for ranks in (1, 2):
        made = prepare("lammps", toy_local, tmp_path / "salt.cif", tmp_path / str(ranks), time="4fs", timestep="1fs")
        done = run(made, ranks=ranks)
        assert done.ending == "finished"
        energies.append(table(made)[1][0])
    assert energies[0] == pytest.approx(energies[1], rel=1e-7)
    assert "&amp;&amp; mpiexec -n 2 lmp -in in.lammps" in (tmp_path / "2" / "report.html").read_text()
    assert re.search(r"on 2 procs", (tmp_path / "2" / "output.txt").read_text())
    for engine, number, message in (("ase", 2, "ase has threads, but no ranks"), ("lammps", 0, "a positive number")):
        made = prepare(engine, toy_local, tmp_path / "salt.cif", tmp_path / f"{engine}{number}")
        with pytest.raises(MLIPError, match=message):
            run(made, ranks=number)
        assert not (made.folder / "output.txt").exists()


# ---- numbers ------------------------------------------------------------------------------------------------------


def test_errors_of_values_that_are_alike():
    """An autoregressive series, whose mean has the error σ √((1 + φ) / (1 - φ) / n)."""
    rng, phi, n = np.random.default_rng(5), 0.9, 20000
    values = np.zeros(n)
    for k in range(1, n):
        values[k] = phi * values[k - 1] + rng.normal()
    truth = np.sqrt(1 / (1 - phi**2) * (1 + phi) / (1 - phi) / n)
    mean, error = mean_and_error(values)
    assert mean == np.mean(values)
    assert error == pytest.approx(truth, rel=0.5)
    assert error > 3 * values.std() / np.sqrt(n), "neighbours are alike"
    assert mean_and_error(np.array([1.0, 2.0, 3.0]))[1] == np.inf


def test_an_oscillation_is_no_drift():
    times = np.linspace(0.0, 10.0, 201)
    slope, error = drift(times, 5.0 * np.cos(7.3 * times))
    assert abs(slope) < 3 * error
    slope, error = drift(times, 0.25 * times + 0.1 * np.cos(7.3 * times))
    assert slope == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [(301.2345, 2.4, "301.2 ± 2.4"), (-5.43219, 0.00123, "-5.4322 ± 0.0012"), (16660.0, 325.0, "16660 ± 325"),
     (2.5, float("inf"), "2.5")],
)  # fmt: skip
def test_digits_follow_the_error(mean, error, text):
    assert with_error(mean, error) == text


def test_a_table_of_two_runs_has_each_step_once():
    read_table = Table()
    text = """\
   Step          Time           Temp          PotEng         TotEng         Volume         Press
         0   0              300           -10            -9             100            5
WARNING: Fix langevin is not numeric (src/fix.cpp:1)
        10   0.01           200           -11            -9.5           100            6
Loop time of 0.1 on 1 procs for 10 steps with 8 atoms
   Step          Time           Temp          PotEng         TotEng         Volume         Press
        10   0.01           201           -11            -9.5           100            6
        20   0.02           202           -12            -9.25          100            7
"""
    rows = [read_table.take(line) for line in text.splitlines()]
    assert sum(row is not None for row in rows) == 4
    assert read_table["step"].tolist() == [0, 10, 20]
    assert read_table["temperature"].tolist() == [300, 201, 202]
    assert "largest_force" not in read_table


@pytest.mark.parametrize("cut", [0, 1, 30, 200])
def test_half_a_frame_is_cut_off(cut, tmp_path):
    frame = "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 1\n0 1\n0 1\n"
    frame += "ITEM: ATOMS id type element xu yu zu\n1 1 Cu 0.5 0.5 0.5\n2 1 Cu 0.25 0.25 0.25\n"
    whole = frame.format(0) + frame.format(10)
    (tmp_path / "dump").write_text(whole[: len(whole) - cut])
    keep_whole_frames(tmp_path / "dump")
    assert (tmp_path / "dump").read_text() == {0: whole, 200: ""}.get(cut, frame.format(0))
