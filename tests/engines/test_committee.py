"""Several files drive one simulation: energies, forces and deviations as NumPy has them from each file alone."""

import re

import numpy as np
import openmm
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from lammps_decks import Deck, run_decks
from openmm_cases import context_of, energy_of, forces_of
from openmm_cases import rocksalt as openmm_rocksalt
from test_lammps_decks import HOT, rocksalt, triclinic
from tolerances import FLOAT64_ROTATED, FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy import _core
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import MLIPForce

# Six significant digits of model_devi.out
PRINTED = 1e-6


@pytest.fixture(scope="module")
def toy_exchange(artifacts):
    """The toys with messages have other elements in another order than the tiny SevenNet, and another cutoff."""
    import toy_models

    return artifacts.once("toy-exchange.mlip.pt", lambda path: toy_models.export(path, "exchange", cutoff=3.5))


@pytest.fixture(scope="module")
def members(tiny, toy_halo, toy_local, toy_exchange):
    """Messages by exchange and in a halo, and none; three cutoffs; two orders of elements."""
    return [tiny, toy_halo, toy_local, toy_exchange]


def deviations(paths, atoms):
    """-> ([n_atoms] eV/Å, a line of model_devi.out without its step), by NumPy from each file alone."""
    results = [ase_engine.evaluate(path, atoms) for path in paths]
    of_atoms = np.linalg.norm(np.std([result.forces for result in results], axis=0), axis=1)
    line = [of_atoms.max(), of_atoms.min(), of_atoms.mean()]
    if atoms.pbc.all():
        voigt = np.std([result.stress for result in results], axis=0) * atoms.get_volume() / len(atoms)
        virial = voigt[[0, 1, 2, 3, 4, 5, 3, 4, 5]]
        line = [virial.max(), virial.min(), np.sqrt(np.mean(virial**2)), *line]
    return of_atoms, np.array(line)


def read_deviations(path):
    """As dpgen reads it."""
    head = path.read_text().splitlines()[0].split()
    assert head == ["#", "step", "max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"]
    return np.loadtxt(path, ndmin=2)


def committee_deck(atoms, body="", words="", **options):
    pair = f"pair_style mlip {words}\npair_coeff * * {{model}} {{elements}}"
    ask = "fix deviation all pair 2 mlip deviation 1\ndump deviations all custom 2 deviation.dump id f_deviation\n"
    ask += "dump_modify deviations sort id format float %.17g\n"
    return Deck(atoms, ask + body + "\nundump deviations\nunfix deviation", pair=pair, every=2, **options)


def run_committee(deck, paths, directory, ranks):
    (found,) = run_decks({"d": deck}, {deck.model: " ".join(map(str, paths))}, directory, ranks).values()
    if isinstance(found, LAMMPSError):
        raise found
    return found


CASES = {
    "nve": committee_deck(rocksalt((2, 1, 1)), HOT + "fix 1 all nve\nrun 8", "out_freq 4"),
    "triclinic": committee_deck(triclinic(), "run 0", "out_freq 1"),
    "ranks without atoms": committee_deck(
        rocksalt(vacuum=(40, 0, 0)), "run 0", "out_freq 1", before="processors * 1 1"
    ),
}


@pytest.mark.parametrize(
    ("case", "ranks"),
    [("nve", 1), ("nve", 2), ("nve", 4), ("triclinic", 2), ("ranks without atoms", 4)],
)
def test_lammps(case, ranks, members, tmp_path):
    """The first drives; per-atom deviations and model_devi.out are NumPy's."""
    found = run_committee(CASES[case], members, tmp_path, ranks)
    truth = ase_engine.evaluate(members[0], found.last.atoms)
    assert found.energy == pytest.approx(truth.energy, abs=FLOAT64_SUM * len(truth.forces))
    np.testing.assert_allclose(found.last.forces, truth.forces, rtol=0, atol=FLOAT64_ROTATED)
    np.testing.assert_allclose(found.stress, truth.stress, rtol=0, atol=FLOAT64_ROTATED)

    table = read_deviations(tmp_path / "model_devi.out")
    dumped = per_atom(tmp_path / "deviation.dump")
    assert dumped.keys() == {frame.step for frame in found.frames}
    lines = []
    for frame in found.frames:
        of_atoms, line = deviations(members, frame.atoms)
        np.testing.assert_allclose(dumped[frame.step], of_atoms, rtol=0, atol=FLOAT64_ROTATED)
        assert of_atoms.max() > FORCE_SIGNAL
        if frame.step in table[:, 0]:
            lines.append([frame.step, *line])
    assert [int(step) for step, *_ in lines] == table[:, 0].tolist()
    np.testing.assert_allclose(table, lines, rtol=PRINTED, atol=FLOAT64_ROTATED)


def per_atom(path):
    blocks = path.read_text().split("ITEM: TIMESTEP\n")[1:]
    values = {}
    for block in blocks:
        rows = re.split(r"ITEM: ATOMS .*\n", block)[1].splitlines()
        values[int(block.split()[0])] = np.array([float(row.split()[1]) for row in rows])
    return values


@pytest.mark.parametrize("ranks", [2])
def test_lammps_follows_the_mean(ranks, toy_halo, toy_local, toy_exchange, tmp_path):
    paths = [toy_halo, toy_local, toy_exchange]
    found = run_committee(committee_deck(triclinic(), "run 0", "drive mean out_freq 0"), paths, tmp_path, ranks)
    results = [ase_engine.evaluate(path, found.last.atoms) for path in paths]
    mean = np.mean([result.energy for result in results])
    assert found.energy == pytest.approx(mean, abs=FLOAT64_SUM * len(found.last.atoms))
    forces = np.mean([result.forces for result in results], axis=0)
    np.testing.assert_allclose(found.last.forces, forces, rtol=0, atol=FLOAT64_ROTATED)
    stress = np.mean([result.stress for result in results], axis=0)
    np.testing.assert_allclose(found.stress, stress, rtol=0, atol=FLOAT64_ROTATED)
    energies = np.mean([result.atomic_energies for result in results], axis=0)
    np.testing.assert_allclose(found.last.energies, energies, rtol=0, atol=FLOAT64_ROTATED)
    assert np.abs(results[0].forces - forces).max() > FORCE_SIGNAL
    assert not (tmp_path / "model_devi.out").exists()


def test_members_are_evaluated_on_the_steps_that_ask(members, tmp_path):
    """Four members cost four steps every tenth step, and one on the others."""
    deck = Deck(
        rocksalt(), HOT + "fix 1 all nve\nrun 20", pair="pair_style mlip out_freq 10\npair_coeff * * {model} {elements}"
    )
    found = run_committee(deck, members, tmp_path, 1)
    assert read_deviations(tmp_path / "model_devi.out")[:, 0].tolist() == [0, 10, 20]
    assert "committee the first model drives, deviations every 10 steps into model_devi.out" in found.log
    assert found.log.count("  member    ") == 3


def test_a_minimiser_writes_one_line_a_step(members, tmp_path):
    """Its last evaluation of a step is the one that counts."""
    pair = "pair_style mlip out_freq 1\npair_coeff * * {model} {elements}"
    deck = Deck(rocksalt(), "minimize 0 1e-3 5 100", pair=pair, every=1)
    found = run_committee(deck, members, tmp_path, 1)
    table = read_deviations(tmp_path / "model_devi.out")
    frames = {frame.step: frame.atoms for frame in found.frames}
    assert table[:, 0].tolist() == sorted(frames)
    assert len(frames) > 3
    for step, *line in table:
        np.testing.assert_allclose(line, deviations(members, frames[int(step)])[1], rtol=PRINTED, atol=FLOAT64_ROTATED)


def test_scalars_for_thermo(members, tmp_path):
    atoms = rocksalt()
    body = "compute pair all pair mlip\nthermo_style custom step pe c_pair[4] c_pair[7]\nrun 0\n"
    body += 'print "scalars $(c_pair[4]:%.17g) $(c_pair[5]:%.17g) $(c_pair[6]:%.17g) '
    body += '$(c_pair[7]:%.17g) $(c_pair[8]:%.17g) $(c_pair[9]:%.17g)"'
    _, line = deviations(members, atoms)
    found = run_committee(committee_deck(atoms, body), members, tmp_path, 2)
    (printed,) = re.findall(r"^scalars (.*)$", found.log, flags=re.MULTILINE)
    np.testing.assert_allclose([float(value) for value in printed.split()], line, rtol=0, atol=FLOAT64_ROTATED)


def test_each_partition_has_its_file(members, tmp_path):
    deck = committee_deck(rocksalt(), "run 0", "out_freq 1")
    script = deck.script("d", " ".join(map(str, members)), tmp_path)
    run(script, tmp_path, ranks=2, arguments=["-partition", "2x1"])
    tables = [read_deviations(tmp_path / f"model_devi.{k}.out") for k in range(2)]
    np.testing.assert_allclose(tables[0], tables[1], rtol=PRINTED)
    assert tables[0].shape == (1, 7)


REFUSED = {
    "a mean of energies in different frames": (
        "drive mean", "{tiny} {local}", "Na Cl",
        "energies in different frames have no mean: those of tiny are .*, those of toy-local are none. Let the first",
    ),
    "an element that a member lacks": (
        "", "{tiny} {local}", "Na C", r"type 2 is 'C', not an element of toy-local \(3 elements: Na Cl Si\)",
    ),
    "a missing member": ("", "{tiny} nothing.mlip.pt", "Na Cl", "nothing.mlip.pt.*no such file"),
    "an unknown driver": ("drive last", "{tiny} {local}", "Na Cl", "drive: 'last' is neither first nor mean"),
    "a negative frequency": ("out_freq -1", "{tiny} {local}", "Na Cl", "out_freq is -1, expected a number of steps"),
    "a file that cannot be written": (
        "out_file no/such/folder", "{tiny} {local}", "Na Cl", "'no/such/folder' cannot be written. Name another file",
    ),
    "too few elements": ("", "{tiny} {local}", "Na", r"found 1 element\(s\): Na for 2 atom type\(s\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_lammps_refuses(case, tiny, toy_local, tmp_path):
    words, files, elements, message = REFUSED[case]
    pair = f"pair_style mlip {words}\npair_coeff * * {files.format(tiny=tiny, local=toy_local)} {elements}"
    script = Deck(rocksalt(), pair=pair.replace("{", "{{").replace("}", "}}")).script("d", tiny, tmp_path)
    with pytest.raises(LAMMPSError, match=message):
        run(script, tmp_path, ranks=2)
    assert "Step" not in (tmp_path / "log.lammps").read_text()


# ---- ASE ----------------------------------------------------------------------------------------------------------


def test_ase(members):
    atoms = triclinic()
    atoms.calc = MLIPCalculator(members)
    truth = ase_engine.evaluate(members[0], atoms)
    assert atoms.get_potential_energy() == truth.energy
    np.testing.assert_array_equal(atoms.get_forces(), truth.forces)
    of_atoms, line = deviations(members, atoms)
    np.testing.assert_allclose(atoms.calc.get_property("deviation", atoms), of_atoms, rtol=0, atol=FLOAT64_SUM)
    np.testing.assert_allclose(atoms.calc.get_property("model_deviation", atoms), line, rtol=0, atol=FLOAT64_SUM)
    assert of_atoms.max() > FORCE_SIGNAL


def test_ase_follows_the_mean(toy_halo, toy_local, toy_exchange):
    paths = [toy_halo, toy_local, toy_exchange]
    atoms = triclinic()
    results = [ase_engine.evaluate(path, atoms) for path in paths]
    atoms.calc = MLIPCalculator(paths, drive="mean")
    assert atoms.get_potential_energy() == pytest.approx(np.mean([result.energy for result in results]))
    for found, name in ((atoms.get_forces(), "forces"), (atoms.get_stress(), "stress")):
        mean = np.mean([getattr(result, name) for result in results], axis=0)
        np.testing.assert_allclose(found, mean, rtol=0, atol=FLOAT64_SUM)
    energies = np.mean([result.atomic_energies for result in results], axis=0)
    np.testing.assert_allclose(atoms.get_potential_energies(), energies, rtol=0, atol=FLOAT64_SUM)


def test_ase_refuses(tiny, toy_local):
    with pytest.raises(MLIPError, match="energies in different frames have no mean"):
        MLIPCalculator([tiny, toy_local], drive="mean")
    with pytest.raises(MLIPError, match="drive: 'last' is neither first nor mean"):
        MLIPCalculator([tiny, toy_local], drive="last")
    with pytest.raises(PropertyNotImplementedError):
        MLIPCalculator(tiny).get_property("deviation", rocksalt())
    atoms = rocksalt()
    atoms.symbols[0] = "C"
    atoms.calc = MLIPCalculator([tiny, toy_local])
    with pytest.raises(MLIPError, match="one of the atoms is 'C', not an element of toy-local"):
        atoms.get_potential_energy()


# ---- OpenMM -------------------------------------------------------------------------------------------------------


def openmm_system(paths, atoms, **options):
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) * 0.1 for row in atoms.cell.array))
    system.addForce(MLIPForce(paths, atoms.get_chemical_symbols(), periodic=True, **options))
    return system


@pytest.mark.parametrize("form", ["made", "read from XML", "embedded"])
def test_openmm(form, members):
    """The first drives; deviations are for the positions that the Context has now."""
    atoms = openmm_rocksalt()
    system = openmm_system(members, atoms, embed=form == "embedded")
    if form != "made":
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    force = MLIPForce.cast(system.getForce(0))
    assert force.paths == [str(path) for path in members]
    context = context_of(system, atoms)
    truth = ase_engine.evaluate(members[0], atoms)
    assert energy_of(context) / _core.EV_IN_KJ_PER_MOL == pytest.approx(truth.energy, abs=FLOAT64_ROTATED)
    np.testing.assert_allclose(
        forces_of(context) / _core.EV_IN_KJ_PER_MOL / 10, truth.forces, rtol=0, atol=FLOAT64_ROTATED
    )
    for shift in (0.0, 0.03):
        atoms.positions[0] += shift
        context.setPositions(atoms.positions * 0.1)
        found = force.deviation(context)
        of_atoms, line = deviations(members, atoms)
        np.testing.assert_allclose(found.of_atoms, of_atoms, rtol=0, atol=FLOAT64_ROTATED)
        np.testing.assert_allclose(found.summary, line, rtol=0, atol=FLOAT64_ROTATED)
        assert of_atoms.max() > FORCE_SIGNAL


def test_openmm_follows_the_mean(toy_halo, toy_local, toy_exchange):
    paths = [toy_halo, toy_local, toy_exchange]
    atoms = openmm_rocksalt()
    results = [ase_engine.evaluate(path, atoms) for path in paths]
    context = context_of(openmm_system(paths, atoms, drive="mean"), atoms)
    mean = np.mean([result.energy for result in results])
    assert energy_of(context) / _core.EV_IN_KJ_PER_MOL == pytest.approx(mean, abs=FLOAT64_ROTATED)
    forces = np.mean([result.forces for result in results], axis=0)
    np.testing.assert_allclose(forces_of(context) / _core.EV_IN_KJ_PER_MOL / 10, forces, rtol=0, atol=FLOAT64_ROTATED)


def test_openmm_refuses(tiny, toy_local):
    atoms = openmm_rocksalt()
    with pytest.raises(openmm.OpenMMException, match="energies in different frames have no mean"):
        context_of(openmm_system([tiny, toy_local], atoms, drive="mean"), atoms)
    with pytest.raises(openmm.OpenMMException, match="drive: 'last' is neither first nor mean"):
        openmm_system([tiny, toy_local], atoms, drive="last")
    with pytest.raises(MLIPError, match=r"atom 0 .* is 'C', not an element of toy-local"):
        MLIPForce([tiny, toy_local], ["C"])
    alone = openmm_system([tiny], atoms)
    with pytest.raises(MLIPError, match=r"one model does not deviate\. Make a committee"):
        MLIPForce.cast(alone.getForce(0)).deviation(context_of(alone, atoms))
    with pytest.raises(MLIPError, match=r"not in|does not|Context"):
        MLIPForce([tiny, toy_local], ["Na"]).deviation(context_of(alone, atoms))
