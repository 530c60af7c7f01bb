"""Guards: a run says where its models disagree, keeps the frames and stops. The truth is NumPy's, model by model."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from lammps_decks import Deck, Outcome, run_decks
from openmm import LangevinMiddleIntegrator, Platform
from openmm.app import Simulation
from openmm_cases import rocksalt as openmm_rocksalt
from test_committee import deviations, openmm_system
from test_lammps_decks import HOT, rocksalt, triclinic
from tolerances import FLOAT64_ROTATED, FORCE_SIGNAL, GRADES_FLOAT64

import mlip_deploy
from mlip_deploy.ase import MLIPCalculator, MLIPGuard
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.errors import MLIPError
from mlip_deploy.guard import GuardError, GuardWarning
from mlip_deploy.openmm import MLIPGuard as OpenMMGuard
from mlip_deploy.openmm import topology_of

# Frames have ten digits of a position and eight of a force
WRITTEN = 1e-8


@pytest.fixture(scope="module")
def members(tiny, toy_halo):
    """Messages by exchange and in a halo, elements in two orders."""
    return [tiny, toy_halo]


@pytest.fixture(scope="module")
def known(tiny, tmp_path_factory):
    """The tiny SevenNet with a domain of crystals, whose energies have errors."""
    path = tmp_path_factory.mktemp("guard") / "known.mlip.pt"
    frames = [rocksalt((2, 1, 1), amplitude=0.04, seed=seed) for seed in range(20)]
    for atoms, error in zip(frames, np.random.default_rng(0).normal(size=len(frames)), strict=True):
        energy = ase_engine.evaluate(tiny, atoms).energy + error
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    mlip_deploy.fit_domain(tiny, [frames], output=path)
    return path


def threshold_between(paths, atoms):
    """Above it is the worst atom of this structure alone."""
    of_atoms, _ = deviations(paths, atoms)
    second, worst = np.sort(of_atoms)[-2:]
    assert worst > FORCE_SIGNAL
    return (second + worst) / 2


def guarded(atoms, threshold, words="", body="run 0", **options):
    pair = "pair_style mlip out_freq 0\npair_coeff * * {model} {elements}"
    fix = f"fix guard all mlip/guard 2 deviation {threshold:.17g} {words}\n"
    return Deck(atoms, fix + body, pair=pair, every=2, **options)


def run_guarded(deck, paths, directory, ranks=1):
    (found,) = run_decks({"d": deck}, {deck.model: " ".join(map(str, paths))}, directory, ranks).values()
    return found


@pytest.mark.parametrize(("structure", "ranks"), [("triclinic", 1), ("triclinic", 2), ("ranks without atoms", 4)])
def test_lammps_warns_and_keeps_the_frame(structure, ranks, members, tmp_path):
    """The message names the atom with the largest deviation and its nearest neighbours; the frame is this step's."""
    atoms = triclinic() if structure == "triclinic" else rocksalt(vacuum=(40, 0, 0))
    threshold = threshold_between(members, atoms)
    values = "variable worst equal f_guard\nrun 0\ndump values all custom 2 values.dump id f_guard[2]\n"
    values += "dump_modify values sort id format float %.17g\nthermo_style custom step pe f_guard f_guard[2]\nrun 0\n"
    values += 'print "guard $(v_worst:%.17g) $(f_guard[2]:%.17g) $(f_guard[3]) $(f_guard[4]) $(f_guard[5])"\n'
    values += "undump values\nthermo_style custom step pe\nunfix guard"
    deck = guarded(atoms, threshold, "dump frames.extxyz", values, before="processors * 1 1")
    found = run_guarded(deck, members, tmp_path, ranks)
    assert isinstance(found, Outcome), found
    seen = found.last.atoms
    of_atoms, _ = deviations(members, seen)
    worst = int(of_atoms.argmax())
    distances = np.sort(all_distances(seen, worst))[:4]

    warnings = re.findall(r"WARNING: (fix mlip/guard, step 0: .*?) \(src", found.log)
    assert len(warnings) == 2, "one in each run"
    (warning,) = set(warnings)
    head = f"atom {worst + 1} ({seen.symbols[worst]}) has a force deviation of {of_atoms[worst]:.3g}, "
    head += f"above {threshold:.6g}. Near it: "
    assert head in warning
    near = [float(value) for value in re.findall(r"at (\S+) Å", warning)]
    np.testing.assert_allclose(near, distances, atol=0.0051)
    assert "label the frames in frames.extxyz" in warning

    ratio, largest, above, atom_id, frames = map(
        float, re.search(r"^guard (.*)$", found.log, re.MULTILINE).group(1).split()
    )
    assert ratio == pytest.approx(of_atoms[worst] / threshold, abs=FLOAT64_ROTATED)
    assert largest == pytest.approx(of_atoms[worst], abs=FLOAT64_ROTATED)
    assert (above, atom_id, frames) == (1, worst + 1, 1), "the second run's frame would be a copy"
    rows = (tmp_path / "values.dump").read_text().splitlines()[-len(seen) :]
    np.testing.assert_allclose([float(row.split()[1]) for row in rows], of_atoms, rtol=0, atol=FLOAT64_ROTATED)

    (frame,) = read(tmp_path / "frames.extxyz", ":")
    assert frame.get_chemical_formula() == seen.get_chemical_formula()
    np.testing.assert_allclose(frame.cell.array, seen.cell.array, atol=WRITTEN)
    np.testing.assert_array_equal(frame.pbc, seen.pbc)
    np.testing.assert_allclose(frame.arrays["deviation"], of_atoms, atol=WRITTEN)
    np.testing.assert_array_equal(frame.arrays["id"], np.arange(len(seen)) + 1)
    truth = ase_engine.evaluate(members[0], seen)
    np.testing.assert_allclose(frame.arrays["model_forces"], truth.forces, atol=WRITTEN)
    assert ase_engine.evaluate(members[0], frame).energy == pytest.approx(truth.energy, abs=1e-6)
    assert frame.calc is None, "a model's own forces are no labels"
    assert frame.info["step"] == 0


def all_distances(atoms, centre):
    """Of all periodic images within reach."""
    from ase.neighborlist import neighbor_list

    i, d = neighbor_list("id", atoms, 6.0)
    return d[i == centre]


@pytest.mark.parametrize("ranks", [2])
def test_lammps_stops_with_a_restart(ranks, members, tmp_path):
    """Before LAMMPS ends with the message, the frame and a restart of this very step are written."""
    atoms = rocksalt((2, 1, 1))
    threshold = 1.05 * deviations(members, atoms)[0].max()
    body = HOT + "fix 1 all nve\nrun 400"
    stopped = run_guarded(guarded(atoms, threshold, "action stop dump frames.extxyz", body), members, tmp_path, ranks)
    assert isinstance(stopped, LAMMPSError)
    message = re.search(r"fix mlip/guard, step (\d+): atom (\d+) \((Na|Cl)\) has a force deviation of", str(stopped))
    assert message, stopped
    assert "The run was stopped; mlip_guard.restart holds its state" in str(stopped)
    assert "write_restart" not in (tmp_path / "log.lammps").read_text().partition("ERROR")[2]
    step = int(message.group(1))
    assert 0 < step < 400
    (frame,) = read(tmp_path / "frames.extxyz", ":")
    assert frame.info["step"] == step
    of_atoms, _ = deviations(members, frame)
    assert of_atoms.max() > threshold
    assert frame.arrays["id"][of_atoms.argmax()] == int(message.group(2))

    resume = "units metal\nread_restart mlip_guard.restart\npair_style mlip out_freq 0\n"
    resume += f"pair_coeff * * {' '.join(map(str, members))} Na Cl\nrun 0\n"
    resume += 'print "resumed $(step) $(pe:%.17g)"'
    output = run(resume, tmp_path)
    found_step, energy = re.search(r"^resumed (\S+) (\S+)$", output, re.MULTILINE).groups()
    assert int(found_step) == step
    assert float(energy) == pytest.approx(ase_engine.evaluate(members[0], frame).energy, abs=1e-6)


def test_frames_are_no_copies(members, tmp_path):
    """Every check alarms; a frame is written when an atom has moved by the spacing, and no more than max."""
    body = HOT + "fix 1 all nve\nrun 120"
    found = run_guarded(guarded(rocksalt(), 1e-6, "dump frames.extxyz max 3 spacing 0.4", body), members, tmp_path)
    assert isinstance(found, Outcome), found
    frames = read(tmp_path / "frames.extxyz", ":")
    assert len(frames) == 3
    for before, after in pairwise(frames):
        moved = after.get_positions() - before.get_positions()
        moved -= np.round(moved @ np.linalg.inv(after.cell.array)) @ after.cell.array
        assert np.linalg.norm(moved, axis=1).max() >= 0.4
    assert "61 of 61 checks found atoms above the threshold" in found.log
    assert "3 frame(s) written" in found.log


def test_minimisation_and_fix_halt(members, tmp_path):
    """The guard looks at a minimiser's steps too, and its scalar serves fix halt."""
    atoms = rocksalt()
    found = run_guarded(guarded(atoms, 1e-6, "dump frames.extxyz", "minimize 0 1e-3 6 100"), members, tmp_path)
    assert isinstance(found, Outcome), found
    assert re.search(r"fix mlip/guard: (\d+) of \1 checks found", found.log)
    first = read(tmp_path / "frames.extxyz", "0")
    np.testing.assert_allclose(first.arrays["deviation"], deviations(members, first)[0], atol=1e-6)

    threshold = 1.05 * deviations(members, rocksalt((2, 1, 1)))[0].max()
    halt = "variable worst equal f_guard\nfix halt all halt 2 v_worst > 1 error continue\n"
    body = HOT + halt + "fix 1 all nve\nrun 400\nunfix halt\nunfix guard"
    halted = run_guarded(guarded(rocksalt((2, 1, 1)), threshold, "", body), members, tmp_path, 2)
    assert isinstance(halted, Outcome), halted
    assert 0 < halted.last.step < 400
    assert deviations(members, halted.last.atoms)[0].max() > threshold


def test_a_melt_stops_where_the_domain_of_its_crystal_ends(known, tmp_path):
    """On two ranks, with one model: the grades are those of the frame in ASE."""
    body = HOT + "fix 1 all nve\nrun 400"
    deck = guarded(rocksalt((2, 1, 1), amplitude=0.03), 1, "action stop dump frames.extxyz", body)
    deck = replace(deck, body=deck.body.replace("deviation 1 ", "grade 1.5 "))
    stopped = run_guarded(deck, [known], tmp_path, 2)
    head = r"fix mlip/guard, step (\d+): atom (\d+) \((Na|Cl)\) has a grade of (\S+), above 1.5"
    tail = r": label the frames in frames.extxyz. The run was stopped; mlip_guard.restart holds its state"
    message = re.search(rf"{head}.*\. Near it: \d+ \((Na|Cl)\) at .*{tail}", str(stopped))
    assert message, stopped
    (frame,) = read(tmp_path / "frames.extxyz", ":")
    grades = MLIPCalculator(known).get_property("grade", frame)
    np.testing.assert_allclose(frame.arrays["grade"], grades, rtol=GRADES_FLOAT64, atol=WRITTEN)
    assert int(message.group(1)) == frame.info["step"] > 0
    assert int(message.group(2)) == frame.arrays["id"][grades.argmax()]
    assert float(message.group(4)) == pytest.approx(grades.max(), rel=1e-2)


def test_all_quantities_together(known, toy_halo, tmp_path):
    """Each against its own threshold: the largest ratio makes the message. The style may stand under hybrid."""
    atoms = rocksalt(amplitude=0.2)
    calculator = MLIPCalculator(known)
    grade = calculator.get_property("grade", atoms).max()
    of_atoms = calculator.get_property("energies_uncertainty", atoms)
    of_structure = calculator.get_property("energy_uncertainty", atoms)
    deviation = deviations([known, toy_halo], atoms)[0].max()
    values = 'run 0\nprint "guard $(f_guard:%.17g) $(f_guard[1]:%.17g) $(f_guard[2]:%.17g) $(f_guard[6]:%.17g) '
    values += '$(f_guard[7]:%.17g)"\n'
    values += "thermo_style custom step pe\nunfix guard"
    body = f"thermo_style custom step pe f_guard\n{values}"
    words = f"grade {grade / 3:.17g} uncertainty {of_atoms.max() / 4:.17g} dump frames.extxyz"
    deck = guarded(atoms, 0.5 * deviation, words, body)
    hybrid = "pair_style hybrid/overlay mlip out_freq 0 zero 3\n"
    hybrid += "pair_coeff * * mlip {model} {elements}\npair_coeff * * zero"
    found = run_guarded(replace(deck, pair=hybrid), [known, toy_halo], tmp_path, 2)
    assert isinstance(found, Outcome), found
    printed = [float(value) for value in re.search(r"^guard (.*)$", found.log, re.MULTILINE).group(1).split()]
    np.testing.assert_allclose(printed, [4.0, grade, deviation, of_atoms.max(), of_structure], rtol=1e-6)
    assert f"has an energy uncertainty of {of_atoms.max():.3g}, above" in found.log
    (frame,) = read(tmp_path / "frames.extxyz", ":")
    np.testing.assert_allclose(frame.arrays["uncertainty"], of_atoms, rtol=1e-6, atol=WRITTEN)


def test_partitions_have_their_own_frames(members, tmp_path):
    script = guarded(rocksalt(), 1e-6, "dump frames.extxyz").script("d", " ".join(map(str, members)), tmp_path)
    run(script, tmp_path, ranks=2, arguments=["-partition", "2x1"])
    assert [len(read(tmp_path / f"frames.{k}.extxyz", ":")) for k in range(2)] == [1, 1]


REFUSED = {
    "one model": ("2 deviation 0.3", 1, "deviation is guarded, but one model does not deviate. Name several files"),
    "no threshold": ("2", 2, "nothing is guarded. Give a threshold: fix guard all mlip/guard 2 grade 1.5"),
    "no domain": ("2 grade 1.5", 1, "grade is guarded, but tiny has no grades, since its file has no domain. Type: "),
    "no calibration": ("2 uncertainty 0.1", 1, "uncertainty is guarded, but tiny has no grades, since its file has no"),
    "a threshold of zero": ("2 deviation 0", 2, "deviation is 0, expected a number above 0"),
    "an unknown keyword": ("2 depth 0.3", 2, "unknown keyword 'depth'. Expected: fix ID group mlip/guard N"),
    "an unknown action": ("2 deviation 0.3 action halt", 2, "action 'halt' is neither warn nor stop"),
    "no steps": ("0 deviation 0.3", 2, "N is 0, expected 1 or more steps"),
    "a dump that cannot be written": (
        "2 deviation 0.3 dump no/such/folder", 2, "'no/such/folder' cannot be written. Name another file: dump FILE",
    ),
    "a restart that cannot be written": (
        "2 deviation 0.3 action stop restart no/such/file", 2,
        "'no/such/file' cannot be written. Name another file: restart FILE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_lammps_refuses_before_the_first_step(case, members, tmp_path):
    words, n_members, message = REFUSED[case]
    pair = "pair_style mlip\npair_coeff * * {model} {elements}"
    deck = Deck(rocksalt(), f"fix guard all mlip/guard {words}\nrun 0", pair=pair)
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(deck.script("d", " ".join(map(str, members[:n_members])), tmp_path), tmp_path)
    assert "Step" not in (tmp_path / "log.lammps").read_text()


def test_lammps_refuses_another_pair_style(tmp_path):
    script = "units metal\nregion b block 0 5 0 5 0 5\ncreate_box 1 b\ncreate_atoms 1 single 1 1 1\nmass 1 1\n"
    script += "pair_style zero 3\npair_coeff * *\nfix guard all mlip/guard 2 deviation 0.3\nrun 0"
    with pytest.raises(LAMMPSError, match="there is no pair_style mlip to guard"):
        run(script, tmp_path)


def test_the_lammps_fragments_of_the_pages(tiny, known, toy_halo, toy_local, tmp_path):
    for name, path in (("a", tiny), ("b", toy_halo), ("c", toy_local), ("model", known)):
        (tmp_path / f"{name}.mlip.pt").symlink_to(path)
    box = "clear\nunits metal\nlattice sc 2.6\nregion box block 0 3 0 2 0 2\ncreate_box 2 box\ncreate_atoms 1 box\n"
    box += "set type 1 type/fraction 2 0.5 11\nmass 1 22.99\nmass 2 35.45\ndisplace_atoms all random 0.1 0.1 0.1 3\n"
    script = ""
    for page in ("committee", "guard"):
        text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text()
        (fragment,) = re.findall(r"^```lammps\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        script += box + fragment.replace("Si O", "Na Cl").replace("action stop", "action warn") + "run 10\n"
    output = run(script, tmp_path)
    assert np.loadtxt(tmp_path / "model_devi.out").shape == (2, 7)
    assert "WARNING: fix mlip/guard, step 0: atom " in output
    assert len(read(tmp_path / "frames.extxyz", ":")) >= 1


# ---- ASE ----------------------------------------------------------------------------------------------------------


def test_ase_dynamics(members, tmp_path):
    atoms = triclinic()
    threshold = threshold_between(members, atoms)
    of_atoms, _ = deviations(members, atoms)
    worst = int(of_atoms.argmax())
    atoms.calc = MLIPCalculator(members)
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    guard = MLIPGuard(dynamics, 2, deviation=threshold, dump=tmp_path / "frames.extxyz")
    message = rf"MLIPGuard, step 0: atom {worst} \({atoms.symbols[worst]}\) has a force deviation of "
    message += rf"{of_atoms[worst]:.3g} eV/Å, above {threshold:g}\. Near it: .*label the frames in"
    with pytest.warns(GuardWarning, match=message):
        dynamics.run(4)
    assert [check.step for check in guard.checks] == [0, 2, 4]
    assert guard.checks[0].n_above == 1
    assert guard.checks[0].worst["deviation"] == pytest.approx(of_atoms.max())
    frame = read(tmp_path / "frames.extxyz", "0")
    np.testing.assert_allclose(frame.arrays["deviation"], of_atoms, atol=WRITTEN)
    np.testing.assert_allclose(
        frame.arrays["model_forces"], ase_engine.evaluate(members[0], triclinic()).forces, atol=WRITTEN
    )


def test_ase_grades(known, tiny):
    atoms = rocksalt(amplitude=0.2)
    expected = MLIPCalculator(known).get_property("grade", atoms)
    atoms.calc = MLIPCalculator(known)
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    guard = MLIPGuard(dynamics, 1, grade=1.5)
    uncertain = MLIPGuard(dynamics, 1, uncertainty=1e-6)
    with (
        pytest.warns(
            GuardWarning, match=rf"atom {expected.argmax()} \(\w+\) has a grade of {expected.max():.3g}, above 1.5"
        ),
        pytest.warns(GuardWarning, match=r"has an energy uncertainty of \S+ eV, above 1e-06"),
    ):
        dynamics.run(1)
    assert guard.checks[0].worst["grade"] == expected.max()
    of_atoms = MLIPCalculator(known).get_property("energies_uncertainty", rocksalt(amplitude=0.2))
    assert uncertain.checks[0].worst["uncertainty"] == of_atoms.max()
    assert guard.checks[0].n_above == np.sum(expected > 1.5)
    atoms.calc = MLIPCalculator(tiny)
    with pytest.raises(MLIPError, match="grade is guarded, but tiny has no grades, since its file has no domain"):
        MLIPGuard(dynamics, 1, grade=1.5)
    with pytest.raises(MLIPError, match="uncertainty is guarded, but tiny has no grades, since its file has no domain"):
        MLIPGuard(dynamics, 1, uncertainty=0.1)


def test_ase_optimiser_stops(members, tmp_path):
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(members)
    optimiser = BFGS(atoms, logfile=None)
    MLIPGuard(optimiser, 1, deviation=1e-6, action="stop", dump=tmp_path / "frames.extxyz")
    with pytest.raises(GuardError, match=r"step 0: atom \d \((Na|Cl)\) has a force deviation of .*; 7 more atom"):
        optimiser.run(fmax=0.01, steps=5)
    assert len(read(tmp_path / "frames.extxyz", ":")) == 1


def test_ase_refuses(tiny, members, tmp_path):
    atoms = rocksalt()
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    with pytest.raises(MLIPError, match="the atoms have no MLIPCalculator"):
        MLIPGuard(dynamics, 2, deviation=0.3)
    atoms.calc = MLIPCalculator(tiny)
    with pytest.raises(MLIPError, match="one model does not deviate"):
        MLIPGuard(dynamics, 2, deviation=0.3)
    atoms.calc = MLIPCalculator(members)
    for options, message in (
        ({}, "guards nothing. Give a threshold"),
        ({"deviation": -1}, "deviation=-1, expected a number above 0"),
        ({"deviation": 0.3, "action": "halt"}, "action='halt' is neither 'warn' nor 'stop'"),
        ({"deviation": 0.3, "dump": tmp_path / "no" / "file"}, "cannot be written .No such file or directory.. Name"),
    ):
        with pytest.raises(MLIPError, match=message):
            MLIPGuard(dynamics, 2, **options)


# ---- OpenMM -------------------------------------------------------------------------------------------------------


def simulation_of(paths, atoms):
    integrator = LangevinMiddleIntegrator(300, 1, 0.001)
    simulation = Simulation(
        topology_of(atoms), openmm_system(paths, atoms), integrator, Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(atoms.positions * 0.1)
    return simulation


def test_openmm(members, tmp_path):
    atoms = openmm_rocksalt()
    simulation = simulation_of(members, atoms)
    guard = OpenMMGuard(simulation, 2, deviation=1e-6, dump=tmp_path / "frames.extxyz")
    with pytest.warns(GuardWarning, match=r"MLIPGuard, step 2: atom \d \((Na|Cl)\) has a force deviation of"):
        simulation.step(4)
    assert [check.step for check in guard.checks] == [2, 4]
    (frame,) = read(tmp_path / "frames.extxyz", ":")
    of_atoms, _ = deviations(members, frame)
    np.testing.assert_allclose(frame.arrays["deviation"], of_atoms, atol=1e-6)
    assert guard.checks[0].worst["deviation"] == pytest.approx(of_atoms.max(), abs=1e-6)


def test_openmm_stops(members, tmp_path):
    simulation = simulation_of(members, openmm_rocksalt())
    OpenMMGuard(simulation, 2, deviation=1e-6, action="stop", restart=tmp_path / "state.xml")
    with pytest.raises(GuardError, match="step 2: atom"):
        simulation.step(10)
    again = simulation_of(members, openmm_rocksalt())
    again.loadState(str(tmp_path / "state.xml"))
    assert again.currentStep == 2


def test_openmm_grades(known):
    simulation = simulation_of([known], openmm_rocksalt())
    guard = OpenMMGuard(simulation, 1, grade=1.5, uncertainty=1e9)
    with pytest.warns(GuardWarning, match=r"MLIPGuard, step 1: atom \d \((Na|Cl)\) has a grade of"):
        simulation.step(1)
    atoms = openmm_rocksalt()
    state = simulation.context.getState(positions=True)
    atoms.positions = 10 * state.getPositions(asNumpy=True)._value
    grades = MLIPCalculator(known).get_property("grade", atoms)
    assert guard.checks[0].worst["grade"] == pytest.approx(grades.max(), rel=GRADES_FLOAT64)
    of_atoms = MLIPCalculator(known).get_property("energies_uncertainty", atoms)
    assert guard.checks[0].worst["uncertainty"] == pytest.approx(of_atoms.max(), rel=GRADES_FLOAT64)


def test_openmm_refuses(tiny, tmp_path):
    simulation = simulation_of([tiny], openmm_rocksalt())
    with pytest.raises(MLIPError, match="grade is guarded, but tiny has no grades, since its file has no domain"):
        OpenMMGuard(simulation, 2, grade=1.5)
    with pytest.raises(MLIPError, match="uncertainty is guarded, but tiny has no grades, since its file has no domain"):
        OpenMMGuard(simulation, 2, uncertainty=0.1)
    with pytest.raises(MLIPError, match="one model does not deviate"):
        OpenMMGuard(simulation, 2, deviation=0.3)
    assert not simulation.reporters
