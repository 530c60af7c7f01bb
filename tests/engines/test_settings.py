"""Settings and sums over all atoms: values at run time in every engine, a sum over ranks, and what is refused."""

import copy
import pickle
import re
import sys
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from conftest import EXAMPLES, mlip
from lammps_decks import Deck, run_decks
from tolerances import FINITE_DIFFERENCE, FLOAT64_SUM, FORCE_SIGNAL

from mlip_deploy import export_module
from mlip_deploy.artifact.contract import Output, Setting
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters import module
from mlip_deploy.exporters.fixed_settings import fix_settings
from mlip_deploy.exporters.write import write_artifact
from mlip_deploy.openmm import MLIPForce, system_of
from mlip_deploy.progress import silent
from mlip_deploy.validation.fidelity import check

sys.path.insert(0, str(EXAMPLES))
from charged_atoms import ChargedAtoms

CHARGE = Setting(name="charge", kind="integer", unit="e", range=(-3, 3))
TASK = Setting(name="task", kind="choice", choices=["plain", "scaled"], default="plain")


def export(path, dtype="float64", **changes):
    options = {
        "elements": ["Na", "Cl"],
        "cutoff": 4.0,
        "name": "charged",
        "message_passing_layers": 2,
        "parallel": "exchange",
        "settings": [CHARGE, TASK],
        "dtype": dtype,
    }
    export_module(ChargedAtoms([0.9, -0.7], cutoff=4.0), path, **{**options, **changes})
    return path


@pytest.fixture(scope="module")
def charged(tmp_path_factory):
    return export(tmp_path_factory.mktemp("settings") / "charged.mlip.pt")


def rocksalt():
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=2)
    return atoms


def energy(path, **settings):
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(path, **settings)
    return atoms.get_potential_energy()


def test_the_contract_says_what_a_reader_must_know(charged):
    contract = Artifact(charged).contract
    assert contract.requires == ["settings", "sum_over_atoms"]
    assert contract.collectives == ["sum_over_atoms"]
    assert contract.operators["mlip::sum_over_atoms"] == 1
    info = mlip("info", charged).stdout
    assert "charge: an integer from -3 to 3, e; to be given; task: one of plain, scaled; default plain" in " ".join(
        info.split()
    )


def test_a_sum_over_all_atoms_has_no_heat_flux(charged):
    with pytest.raises(PropertyNotImplementedError, match="depends on a sum over all atoms"):
        MLIPCalculator(charged, charge=0).get_property("heat_flux", rocksalt())
    assert "not exact: energies depend on sums over all atoms" in " ".join(mlip("info", charged).stdout.split())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_engine_and_several_ranks(dtype, tmp_path):
    """Structures of the fixtures have several values of each setting; more ranks than atoms leave some empty."""
    path = export(tmp_path / "charged.mlip.pt", dtype)
    fixtures = Artifact(path).fixtures()
    assert len({tuple(one.settings.items()) for one in fixtures.structures}) > 2
    report = check(path, ["ase", "lammps", "openmm"], [1, 2, 4])
    assert report.passed, [
        f"{c.engine} {c.ranks} {c.structure}: {c.reason}" for c in report.comparisons if c.verdict == "fail"
    ]
    supercells = [c.verdict for c in report.comparisons if c.structure.endswith(" cells")]
    assert supercells == 5 * ["not-applicable"], "a sum over all atoms need not be extensive"
    assert report.parts.verdict == "pass"


def test_forces_are_derivatives_through_the_sum(charged):
    """The shift of each charge depends on all positions."""
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(charged, charge=2)
    forces = atoms.get_forces()
    step = 1e-4
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[atom, axis] += sign * step
            energies.append(moved.get_potential_energy())
        assert (energies[1] - energies[0]) / (2 * step) == pytest.approx(forces[atom, axis], abs=FINITE_DIFFERENCE)
    assert np.abs(forces).max() > FORCE_SIGNAL
    # a model that left out the sum's backward pass would be right for no charge: here it is felt
    without = rocksalt()
    without.calc = MLIPCalculator(charged, charge=0)
    assert np.abs(without.get_forces() - forces).max() > FORCE_SIGNAL


# ---- ASE ----------------------------------------------------------------------------------------------------------


def test_ase_takes_settings_from_the_calculator_and_from_the_atoms(charged):
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(charged, charge=1)
    first = atoms.get_potential_energy()
    atoms.info["charge"] = -2  # of these atoms: before the calculator's
    second = atoms.get_potential_energy()
    assert second == pytest.approx(energy(charged, charge=-2), abs=FLOAT64_SUM)
    assert abs(second - first) > 0.1
    atoms.info["task"] = "scaled"
    assert atoms.get_potential_energy() == pytest.approx(1.25 * second, abs=FLOAT64_SUM)
    del atoms.info["charge"], atoms.info["task"]
    assert atoms.get_potential_energy() == first
    atoms.calc.set(charge=-2)
    assert atoms.get_potential_energy() == pytest.approx(second, abs=FLOAT64_SUM)


def test_copies_and_pickles_keep_settings(charged):
    calculator = MLIPCalculator(charged, charge=1, task="scaled")
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        atoms = rocksalt()
        atoms.calc = other
        assert atoms.get_potential_energy() == energy(charged, charge=1, task="scaled")


def test_ase_refuses_what_does_not_fit(charged):
    with pytest.raises(
        MLIPError, match=r"MLIPCalculator has no option 'chrage', and charged no such setting\. It has: "
    ):
        MLIPCalculator(charged, chrage=1)
    with pytest.raises(MLIPError, match=r"setting 'charge' is 4, expected an integer from -3 to 3, e; to be given"):
        MLIPCalculator(charged, charge=4)
    with pytest.raises(MLIPError, match=r"setting 'charge' is 0\.5, expected an integer"):
        energy(charged, charge=0.5)
    with pytest.raises(MLIPError, match="setting 'task' is 'spice', expected one of plain, scaled"):
        MLIPCalculator(charged, charge=0, task="spice")
    with pytest.raises(MLIPError, match="needs a value of its setting 'charge' "):
        energy(charged)
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(charged, charge=0)
    atoms.info["charge"] = 9
    with pytest.raises(MLIPError, match="setting 'charge' is 9"):
        atoms.get_potential_energy()


# ---- LAMMPS -------------------------------------------------------------------------------------------------------


def deck(words, **options):
    return Deck(rocksalt(), pair=f"pair_style mlip {words}\npair_coeff * * {{model}} {{elements}}", **options)


def lammps(path, directory, words, ranks=1, **options):
    (found,) = run_decks({"d": deck(words, model="charged", **options)}, {"charged": path}, directory, ranks).values()
    return found


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_lammps(ranks, charged, tmp_path):
    found = lammps(charged, tmp_path, "setting charge -2 setting task scaled", ranks)
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(charged, charge=-2, task="scaled")
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=FLOAT64_SUM * len(atoms))
    np.testing.assert_allclose(found.last.forces, atoms.get_forces(), rtol=0, atol=1e-8)
    assert "  settings  charge -2 e, task scaled\n" in found.log


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_variable_is_evaluated_at_every_step(ranks, charged, tmp_path):
    """A ramp of the charge, with the atoms at rest."""
    ramp = "variable charge equal step-1\nvariable charge_now equal v_charge"
    body = "fix keep all setforce 0 0 0\nthermo 1\nthermo_style custom step pe v_charge_now\nrun 3 post no\nthermo 1"
    script = deck("setting charge v_charge", settings=ramp, body=body).script("d", charged, tmp_path)
    printed = run(script, tmp_path, ranks=ranks)
    rows = re.findall(r"^ +([0-3]) +(\S+) +(-?\d)\s*$", printed, flags=re.MULTILINE)[:4]
    assert [(step, charge) for step, _, charge in rows] == [("0", "-1"), ("1", "0"), ("2", "1"), ("3", "2")]
    for _, found, charge in rows:
        assert float(found) == pytest.approx(energy(charged, charge=int(charge)), abs=1e-3)
    assert len({found for _, found, _ in rows}) == 4


def test_the_table_of_a_model_without_settings_shows_none(charged, tiny, tmp_path):
    """LAMMPS keeps the style when it is named again, and with it what the former model was given."""
    first = deck("setting charge -2", body="run 0").script("d", charged, tmp_path)
    again = f"pair_style mlip\npair_coeff * * {tiny} Na Cl\nrun 0\n"
    tables = run(first + again, tmp_path).split("pair_style mlip\n  model")[1:]
    assert ["settings" in table for table in tables] == [True, False]


@pytest.mark.parametrize(
    ("words", "before", "message"),
    [
        ("", "", "the model needs a value of its setting 'charge' (an integer from -3 to 3, e), which has no"),
        (
            "setting chrage 1",
            "",
            "the model has no setting 'chrage'. It has: charge (an integer from -3 to 3, e); ",
        ),
        ("setting charge 9", "", "setting 'charge' is 9, expected an integer from -3 to 3, e"),
        ("setting charge 0.5", "", "setting 'charge' is 0.5, expected an integer from -3 to 3, e"),
        ("setting charge one", "", "setting 'charge' is 'one', expected an integer from -3 to 3, e"),
        ("setting charge nan", "", "setting 'charge' is nan, expected an integer from -3 to 3, e"),
        ("setting charge 0 setting task spice", "", "setting 'task' is 'spice', expected one of plain, scaled"),
        ("setting charge v_none", "", "setting 'charge': there is no variable 'none'"),
        ("setting charge v_q", "variable q string 1", "setting 'charge': the variable 'q' is not of style equal"),
        ("setting charge", "", "'setting' needs a name and a value: setting charge -1"),
    ],
)
def test_lammps_refuses_what_does_not_fit(words, before, message, charged, tmp_path):
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(deck(words, settings=before).script("d", charged, tmp_path), tmp_path, ranks=2)


def test_ranks_with_different_settings_are_refused(charged, tmp_path):
    words = "setting charge v_q"
    # a variable of the environment that is another one on each rank, as an input may read it
    before = "variable rank getenv PMI_RANK\nvariable q equal v_rank"
    message = "settings have other values on 1 of 2 MPI ranks than on rank 0"
    with pytest.raises(LAMMPSError, match=message):
        run(deck(words, settings=before).script("d", charged, tmp_path), tmp_path, ranks=2)


def test_atomic_energies_that_mean_nothing_are_not_given(tmp_path):
    path = export(tmp_path / "sum.mlip.pt", atomic_energies_meaningful=False)
    report = check(path, ["ase", "lammps", "openmm"], [1, 2])
    assert report.passed
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(path, charge=0)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(NotImplementedError):
        atoms.get_potential_energies()
    message = "one atom's energy of charged is an arbitrary share of the sum, so that it has no meaning. Remove compute"
    with pytest.raises(LAMMPSError, match=message):
        run(deck("setting charge 0").script("d", path, tmp_path), tmp_path)


# ---- OpenMM -------------------------------------------------------------------------------------------------------


def context_of(system):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * rocksalt().positions)
    return context


def openmm_energy(context):
    from mlip_deploy import _core

    return context.getState(energy=True).getPotentialEnergy()._value / _core.EV_IN_KJ_PER_MOL


def test_openmm_has_settings_as_parameters_of_the_context(charged):
    atoms = rocksalt()
    atoms.info["charge"] = -1
    system = system_of(atoms, charged)
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for one in (system, again):
        context = context_of(one)
        assert dict(context.getParameters()) == {"charge": -1.0, "task": 0.0}
        first = openmm_energy(context)
        assert first == pytest.approx(energy(charged, charge=-1), abs=FLOAT64_SUM * 16)
        context.setParameter("charge", 2)
        assert openmm_energy(context) == pytest.approx(energy(charged, charge=2), abs=FLOAT64_SUM * 16)
        context.setParameter("task", 1)
        second = openmm_energy(context)
        assert second == pytest.approx(energy(charged, charge=2, task="scaled"), abs=FLOAT64_SUM * 16)
        assert abs(first - second) > 0.1
        context.setParameter("charge", 7)
        with pytest.raises(openmm.OpenMMException, match="setting 'charge' is 7, expected an integer from -3 to 3"):
            openmm_energy(context)


def test_openmm_refuses_what_does_not_fit(charged):
    symbols = rocksalt().get_chemical_symbols()
    with pytest.raises(MLIPError, match=r"charged needs its setting 'charge' \(.*\)\. Type: MLIPForce\(path, topol"):
        MLIPForce(charged, symbols)
    with pytest.raises(MLIPError, match="MLIPForce has no option 'spin', and charged no such setting"):
        MLIPForce(charged, symbols, charge=0, spin=1)
    assert MLIPForce(charged, symbols, charge=2, task="scaled").settings == {"charge": 2.0, "task": 1.0}


# ---- export -------------------------------------------------------------------------------------------------------


def test_names_that_an_engine_has_for_itself_are_refused(tmp_path):
    device = Setting(name="device", kind="integer", default=0)
    with pytest.raises(MLIPError, match="setting 'device': a name is a word of letters, digits and underscores"):
        export(tmp_path / "x.mlip.pt", settings=[device, TASK])


def test_a_sum_that_is_not_declared_is_still_refused(tmp_path, monkeypatch):
    """Beside one that is: over the atoms of one rank instead of all."""
    monkeypatch.setattr(ChargedAtoms, "forward", of_one_rank)
    with pytest.raises(MLIPError, match="atomic energies depend on how atoms are divided among ranks"):
        export(tmp_path / "x.mlip.pt")


declared = ChargedAtoms.forward


def of_one_rank(self, node_types, n_owned, edge_index, edge_vectors, settings):
    energies = declared(self, node_types, n_owned, edge_index, edge_vectors, settings)
    return energies + energies.mean()


def test_compiled_files_have_settings(tmp_path):
    """The structures of the fixtures have several values of each."""
    path = export(tmp_path / "charged.mlip.pt2", backend="aotinductor")
    report = check(path, ["ase", "lammps"], [1, 2])
    assert report.passed, [c.reason for c in report.comparisons if c.verdict == "fail"]
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(path, charge=-2, task="scaled")
    assert atoms.get_potential_energy() == pytest.approx(
        energy(export(tmp_path / "charged.mlip.pt"), charge=-2, task="scaled"), abs=FLOAT64_SUM * 16
    )


# ---- adapters -----------------------------------------------------------------------------------------------------


class ChargesToo(ChargedAtoms):
    """With an output of each atom, of the same arguments."""

    def extras(self, node_types, n_owned: int, edge_index, edge_vectors, settings):
        charge = self.electronegativity[node_types[:n_owned]] + settings[0]
        return torch.stack([charge, 2.0 * charge], dim=1)

    def energies_and_features(self, node_types, n_owned: int, edge_index, edge_vectors, settings):
        energies = self.forward(node_types, n_owned, edge_index, edge_vectors, settings)
        return energies, self.extras(node_types, n_owned, edge_index, edge_vectors, settings)


@pytest.fixture
def adapted(monkeypatch, tmp_path):
    """What export_module makes of the example, as a family's adapter would."""
    found = []
    monkeypatch.setattr(module, "write_artifact", lambda adapted, *_: found.append(adapted))
    export(tmp_path / "x.mlip.pt")
    monkeypatch.undo()
    return found[0]


def features_of(path, **settings):
    atoms = rocksalt()
    calculator = MLIPCalculator(path)
    types = calculator.contract.types_of(atoms.get_chemical_symbols())
    place = atoms.positions, types, atoms.cell.array, [True] * 3
    return calculator.potential.compute(*place, settings=list(settings.items()), features=True)["features"]


def test_settings_beside_outputs_and_features_of_atoms(adapted, tmp_path):
    path = tmp_path / "extras.mlip.pt"
    outputs = tuple(Output(name=name, unit="e", scope="atom") for name in ("charges", "doubled"))
    model = ChargesToo([0.9, -0.7], 4.0)
    of_both = replace(adapted, energy_model=lambda kind: copy.deepcopy(model).to(kind), extras=outputs)
    write_artifact(of_both, path, "float64", silent)
    calculator, atoms = MLIPCalculator(path, charge=2), rocksalt()
    found = calculator.get_property("doubled", atoms)
    np.testing.assert_allclose(found, np.where(atoms.symbols == "Na", 5.8, 2.6), rtol=1e-6)
    assert calculator.get_property("energy", atoms) == pytest.approx(energy(export(tmp_path / "x.mlip.pt"), charge=2))
    assert calculator.contract.features == 2
    np.testing.assert_allclose(features_of(path, charge=2)[:, 1], found, rtol=1e-6)
    fixed = tmp_path / "fixed.mlip.pt"
    of_energies = replace(of_both, extras=())
    write_artifact(fix_settings(of_energies, {"charge": 2, "task": "plain"}), fixed, "float64", silent)
    np.testing.assert_allclose(features_of(fixed), features_of(path, charge=2), rtol=1e-6)


def test_settings_are_baked_in(adapted, charged, tmp_path):
    """One of two, in a model that sums over the atoms of all ranks."""
    path = tmp_path / "fixed.mlip.pt"
    write_artifact(fix_settings(adapted, {"charge": -1}), path, "float64", silent)
    contract = Artifact(path).contract
    assert [setting.name for setting in contract.settings] == ["task"]
    assert [(fixed.name, fixed.value) for fixed in contract.inputs] == [("charge", "-1")]
    assert energy(path, task="scaled") == pytest.approx(energy(charged, charge=-1, task="scaled"), abs=FLOAT64_SUM * 16)
    assert check(path, ["lammps"], [2]).passed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "any"}, "--fix: charged takes positions, and such models take their settings at run time alone"),
        ({"extras": (Output(name="a", unit="e", scope="atom"),)}, "--fix: charged has outputs of single atoms, and "),
    ],
)
def test_settings_that_cannot_be_baked_in(changes, message, adapted):
    with pytest.raises(MLIPError, match=message):
        fix_settings(replace(adapted, **changes), {"charge": 0})
