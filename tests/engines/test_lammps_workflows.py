"""Whole workflows: hybrid styles, restarts, reruns, replicas, several instances in a process."""

import re
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from lammps_decks import Deck, read_dump, run_decks
from test_lammps_decks import HOT, rocksalt
from tolerances import FLOAT64_ROTATED, FORCE_SIGNAL

from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import LAMMPSError, launcher, run
from mlip_deploy.engines.lammps_files import write_data


def mixed():
    """Rocksalt with two silicon atoms in the vacuum above it, which the model is told to leave alone."""
    return rocksalt(vacuum=(0, 0, 9)) + Atoms("Si2", positions=[[1.0, 1.0, 7.0], [3.4, 2.0, 7.5]])


ZBL = "zbl 2.0 3.5"
D3 = "dispersion/d3 bj pbe 12.0 8.0"
LJ = "pair_coeff 1*2 3 lj/cut 0.05 3.0\npair_coeff 3 3 lj/cut 0.05 2.2\n"
BONDS = "bond_style zero\nbond_coeff *\nspecial_bonds lj/coul {weight} 0 0.5"
COULOMB = "lj/cut/coul/long 4.0"
HYBRID = {
    # with the model, without it
    "zbl": (
        Deck(rocksalt(amplitude=0.3), pair=f"pair_style hybrid/overlay mlip {ZBL}\n"
             "pair_coeff * * mlip {model} Na Cl\npair_coeff 1 1 zbl 11 11\n"
             "pair_coeff 1 2 zbl 11 17\npair_coeff 2 2 zbl 17 17"),
        Deck(rocksalt(amplitude=0.3), pair=f"pair_style {ZBL}\n"
             "pair_coeff 1 1 11 11\npair_coeff 1 2 11 17\npair_coeff 2 2 17 17"),
    ),
    "dispersion d3": (
        Deck(rocksalt(), pair=f"pair_style hybrid/overlay mlip {D3}\npair_coeff * * mlip {{model}} Na Cl\n"
             "pair_coeff * * dispersion/d3 Na Cl"),
        Deck(rocksalt(), pair=f"pair_style {D3}\npair_coeff * * Na Cl"),
    ),
    "NULL, other types by lj": (
        Deck(mixed(), pair="pair_style hybrid mlip lj/cut 5.0\npair_coeff * * mlip {model} Na Cl NULL\n" + LJ),
        Deck(mixed(), pair="pair_style hybrid lj/cut 5.0 zero 3.0\npair_coeff 1*2 1*2 zero\n" + LJ),
    ),
    "NULL, overlay": (
        Deck(mixed(), pair="pair_style hybrid/overlay mlip lj/cut 5.0\npair_coeff * * mlip {model} Na Cl NULL\n" + LJ),
        Deck(mixed(), pair="pair_style hybrid lj/cut 5.0 zero 3.0\npair_coeff 1*2 1*2 zero\n" + LJ),
    ),
    "exclusions among NULL types": (
        Deck(mixed(), settings="neigh_modify exclude type 3 3",
             pair="pair_style hybrid mlip lj/cut 5.0\npair_coeff * * mlip {model} Na Cl NULL\n" + LJ),
        Deck(mixed(), settings="neigh_modify exclude type 3 3",
             pair="pair_style hybrid lj/cut 5.0 zero 3.0\npair_coeff 1*2 1*2 zero\n" + LJ),
    ),
    # What the special_bonds that hide nothing do to a force field is what it asked for.
    "a force field with bonds": (
        Deck(rocksalt(), style="bonded", settings=BONDS.format(weight="1e-30"),
             pair=f"pair_style hybrid/overlay mlip {COULOMB}\npair_coeff * * mlip {{model}} Na Cl\n"
             "pair_coeff * * lj/cut/coul/long 0.01 2.3\nkspace_style pppm 1e-6"),
        Deck(rocksalt(), style="bonded", settings=BONDS.format(weight="0"),
             pair=f"pair_style {COULOMB}\npair_coeff * * 0.01 2.3\nkspace_style pppm 1e-6"),
    ),
    "a force field with bonds, hidden by nothing but kspace": (
        Deck(rocksalt(), style="bonded", settings=BONDS.format(weight="0"),
             pair=f"pair_style hybrid/overlay mlip {COULOMB}\npair_coeff * * mlip {{model}} Na Cl\n"
             "pair_coeff * * lj/cut/coul/long 0.01 2.3\nkspace_style pppm 1e-6"),
        Deck(rocksalt(), style="bonded", settings=BONDS.format(weight="0"),
             pair=f"pair_style {COULOMB}\npair_coeff * * 0.01 2.3\nkspace_style pppm 1e-6"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_hybrid(ranks, tiny, tmp_path):
    """With the model minus without it is the model alone."""
    decks = {}
    for name, pair in HYBRID.items():
        slug = re.sub(r"\W+", "_", name)
        decks |= {f"{slug}_with": pair[0], f"{slug}_without": pair[1]}
    found = iter(run_decks(decks, {"tiny": tiny}, tmp_path, ranks).values())
    for name in HYBRID:
        with_model, without = next(found), next(found)
        for outcome in (with_model, without):
            if isinstance(outcome, Exception):
                raise AssertionError(name) from outcome
        keep = with_model.last.types < 3
        atoms = with_model.last.atoms[keep]
        truth = ase_engine.evaluate(tiny, atoms)
        assert np.abs(truth.forces).max() > FORCE_SIGNAL, name
        assert np.abs(without.last.forces).max() > 1e-3, f"{name}: the other style does nothing"
        forces = with_model.last.forces - without.last.forces
        np.testing.assert_allclose(forces[keep], truth.forces, atol=FLOAT64_ROTATED, err_msg=name)
        np.testing.assert_allclose(forces[~keep], 0.0, atol=FLOAT64_ROTATED, err_msg=name)
        assert with_model.energy - without.energy == pytest.approx(truth.energy, abs=FLOAT64_ROTATED), name
        np.testing.assert_allclose(with_model.stress - without.stress, truth.stress, atol=FLOAT64_ROTATED, err_msg=name)


def test_sgcmc(toy_local, tmp_path):
    """At 1 K a flip is accepted only if the energy falls: by ASE it falls in each cycle, and what is left is right.

    In a step with a cycle, LAMMPS's energies and forces are those of its last trial, accepted or not.
    """
    body = "neigh_modify every 1 delay 0 check yes\nfix 2 all sgcmc 2 0.1 1.0 0.0 randseed 7\nrun 6\nunfix 2"
    deck = Deck(rocksalt((4, 4, 4)), body, settings="change_box all ortho", every=1, model="local")
    (outcome,) = run_decks({"sgcmc": deck}, {"local": toy_local}, tmp_path, ranks=1).values()
    energies = [ase_engine.evaluate(toy_local, frame.atoms).energy for frame in outcome.frames]
    flips = [np.sum(a.types != b.types) for a, b in pairwise(outcome.frames)]
    assert [step for step, count in enumerate(flips, start=1) if count] == [2, 4, 6]
    for change, count in zip(np.diff(energies), flips, strict=True):
        assert change < 0 if count else change == pytest.approx(0.0, abs=FLOAT64_ROTATED)
    truth = ase_engine.evaluate(toy_local, outcome.last.atoms)
    assert outcome.energy == pytest.approx(truth.energy, abs=FLOAT64_ROTATED)
    np.testing.assert_allclose(outcome.last.forces, truth.forces, atol=FLOAT64_ROTATED)


def test_two_models_at_once(tiny, toy_local, tmp_path):
    pair = "pair_style hybrid/overlay mlip mlip\n"
    pair += f"pair_coeff * * mlip 1 {tiny} Na Cl\npair_coeff * * mlip 2 {toy_local} Na Cl"
    for ranks in (1, 2):
        (outcome,) = run_decks({"both": Deck(rocksalt(), pair=pair)}, {"tiny": tiny}, tmp_path, ranks).values()
        truth = [ase_engine.evaluate(path, outcome.last.atoms) for path in (tiny, toy_local)]
        np.testing.assert_allclose(outcome.last.forces, truth[0].forces + truth[1].forces, atol=FLOAT64_ROTATED)


def test_restart_continues_bit_for_bit(tiny, tmp_path):
    """On one rank: 20 steps, and 10 steps, a restart file, 10 steps in another process."""
    style = f"pair_style mlip\npair_coeff * * {tiny} Na Cl\n"
    last = "write_dump all custom {} id x y z vx vy vz fx fy fz modify sort id format float %.17g\n"
    first = Deck(rocksalt((2, 1, 1))).script("first", tiny, tmp_path).split("compute energies")[0]
    first += HOT + "fix 1 all nve\nrun 10\nwrite_restart middle.restart\nrun 10\n" + last.format("whole.dump")
    run(first, tmp_path)
    second = "read_restart middle.restart\n" + style + HOT.split("\n", 1)[1] + "fix 1 all nve\nrun 10\n"
    output = run(second + last.format("continued.dump"), tmp_path)
    assert (tmp_path / "continued.dump").read_bytes() == (tmp_path / "whole.dump").read_bytes()
    steps = re.findall(r"^ +(\d+) ", output, flags=re.MULTILINE)
    assert {"10", "20"} <= set(steps)


def test_a_type_that_enters_the_model_between_runs(tiny, tmp_path):
    """LAMMPS's list lacks its pairs until it is built again."""
    deck = Deck(mixed(), "run 1\nset atom 9 type 1\nrun 1 pre no", pair=HYBRID["NULL, overlay"][0].pair)
    message = r"atom 9 has changed from type 3 \(NULL\) to type 1 \(Na\) since .*Type: run N pre yes"
    with pytest.raises(LAMMPSError, match=message):
        run(deck.script("run", tiny, tmp_path), tmp_path)


def test_other_ids_between_runs(tiny, tmp_path):
    deck = Deck(rocksalt(), "run 1\nreset_atoms id sort yes\nrun 1 pre no")
    with pytest.raises(LAMMPSError, match=r"atoms have other indices than .*Type: run N pre yes"):
        run(deck.script("run", tiny, tmp_path), tmp_path)


def test_the_model_is_looked_for_where_potentials_are(tiny, tmp_path, monkeypatch):
    potentials, home = tmp_path / "potentials", tmp_path / "home"
    for folder, name in ((potentials, "one.mlip.pt"), (home, "two.mlip.pt")):
        folder.mkdir()
        (folder / name).symlink_to(tiny)
    monkeypatch.setenv("LAMMPS_POTENTIALS", f"/nowhere:{potentials}")
    monkeypatch.setenv("HOME", str(home))
    energies = []
    for path in (tiny, "one.mlip.pt", "~/two.mlip.pt"):
        output = run(Deck(rocksalt()).script("run", path, tmp_path), tmp_path)
        energies += re.findall(r"DECK run PE (\S+)", output)
    assert len(energies) == 3
    assert len(set(energies)) == 1
    with pytest.raises(LAMMPSError, match=r"'three.mlip.pt': no such file"):
        run(Deck(rocksalt()).script("run", "three.mlip.pt", tmp_path), tmp_path)


def test_a_restart_file_asks_for_the_model_again(tiny, tmp_path):
    script = (
        Deck(rocksalt()).script("first", tiny, tmp_path) + "write_restart a.restart\nclear\nread_restart a.restart\n"
    )
    with pytest.raises(Exception, match=r"Must re-specify non-restarted pair style .mlip. after read_restart"):
        run(script + "run 0\n", tmp_path)


def test_rerun(tiny, tmp_path):
    """Energies of a trajectory's frames, computed again from the dump."""
    deck = Deck(rocksalt(), HOT + "fix 1 all nve\ndump t all custom 5 t.dump id type x y z\n"
                "dump_modify t format float %.17g\nrun 20\nundump t\nunfix 1\n", every=5)  # fmt: skip
    script = deck.script("run", tiny, tmp_path).replace("run 0", "", 1)
    script += "thermo_style custom step pe\nthermo_modify format float %.15g\nrerun t.dump dump x y z\n"
    output = run(script, tmp_path)
    again = re.findall(r"^ +(\d+) +(-?\d+\.\d+) *$", output[output.rindex("Step") :], flags=re.MULTILINE)
    frames = {frame.step: frame.energies.sum() for frame in read_dump(tmp_path / "run.dump", ["Na", "Cl"])}
    assert [int(step) for step, _ in again] == [0, 5, 10, 15, 20]
    for step, energy in again:
        assert float(energy) == pytest.approx(frames[int(step)], abs=1e-9)
    assert np.ptp([float(energy) for _, energy in again]) > 0.01


def test_neb_on_replicas(toy_local, tmp_path):
    """Three partitions of one process each; the end points' energies are ASE's."""
    start = bulk("Si", "diamond", a=5.43, cubic=True)
    frame = write_data(start, tmp_path / "start.data")
    end = start.positions.copy()
    end[1] += [0.4, 0.1, -0.2]
    (tmp_path / "end.neb").write_text(f"1\n2 {end[1][0]} {end[1][1]} {end[1][2]}\n")
    script = f"""
units metal
atom_modify map array
read_data start.data
pair_style mlip
pair_coeff * * {toy_local} {" ".join(frame.elements)}
fix 1 all neb 1.0
min_style quickmin
timestep 0.001
variable u uloop 3
neb 0.0 0.01 10 5 5 final end.neb
write_dump all custom image.$u.dump id type x y z fx fy fz id modify sort id format float %.17g
print "image $(pe:%.17g)" file image.$u.txt
"""
    run(script, tmp_path, ranks=3, arguments=("-partition", "3x1"))
    energies = []
    for image in (1, 2, 3):
        atoms = read_dump(tmp_path / f"image.{image}.dump", ["Si"])[0].atoms
        energies.append(float((tmp_path / f"image.{image}.txt").read_text().split()[1]))
        assert energies[-1] == pytest.approx(ase_engine.evaluate(toy_local, atoms).energy, abs=1e-9)
    assert len(set(energies)) == 3
    assert len((tmp_path / "log.lammps").read_text().splitlines()) > 5


TWO_INSTANCES = """
from mlip_deploy.engines.lammps import instance
first, second = instance(), instance()
setup = open("setup").read()
first.commands_string(setup.replace("MODEL", {tiny!r}))
second.commands_string(setup.replace("MODEL", {local!r}))
first.command("run 1"); second.command("run 1"); first.command("run 1"); second.command("run 1")
print("energies", repr(first.get_thermo("pe")), repr(second.get_thermo("pe")))
second.close()
first.command("displace_atoms all random 0.1 0.1 0.1 5"); first.command("run 0")
print("later", repr(first.get_thermo("pe")))
try:
    first.command("pair_coeff * * nothing.mlip.pt Na Cl")
except Exception as error:
    print("error", error)
"""


def test_several_instances_in_one_process(tiny, toy_local, tmp_path):
    deck = Deck(rocksalt())
    (tmp_path / "setup").write_text(deck.script("both", "MODEL", tmp_path).split("compute energies")[0])
    code = TWO_INSTANCES.format(tiny=str(tiny), local=str(toy_local))
    done = subprocess.run([launcher()[0], "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = map(float, re.search(r"energies (\S+) (\S+)", done.stdout).groups())
    assert first == pytest.approx(ase_engine.evaluate(tiny, rocksalt()).energy, abs=1e-8)
    assert second == pytest.approx(ase_engine.evaluate(toy_local, rocksalt()).energy, abs=1e-8)
    assert abs(float(re.search(r"later (\S+)", done.stdout).group(1)) - first) > 0.01
    assert "error ERROR: pair_coeff: 'nothing.mlip.pt': no such file" in done.stdout
