"""Datasheets: numbers that are known beforehand, evidence that is missing, runs that go on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from tolerances import FLOAT64_SUM
from toy_models import ELEMENTS

import mlip_deploy
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.cli.main import main
from mlip_deploy.datasheets import datasheet as sheets
from mlip_deploy.datasheets.evidence import Found, Sheet
from mlip_deploy.datasheets.pieces import PIECES, compositions, definition, scale
from mlip_deploy.datasheets.pieces.labels import Forces, relative_error, slope
from mlip_deploy.datasheets.pieces.piece import NotApplicableError, Piece, number
from mlip_deploy.datasheets.sheet_page import page
from mlip_deploy.errors import MLIPError
from mlip_deploy.reference_data.statistics import bootstrap, share_interval
from mlip_deploy.validation.physics.extent import COULOMB

MEASURED = ["elements", "reach", "carries", "drift"]
"""pieces that take no data and little time"""


@pytest.fixture(scope="module")
def out(toy_local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sheet by the command."""
    out = tmp_path_factory.mktemp("sheet")
    words = ["datasheet", toy_local, "--pieces", ",".join(MEASURED), "-o", out, "--json", out / "copy.json"]
    assert main([str(word) for word in words]) == 0
    return out


def read(out: Path) -> Sheet:
    return Sheet.model_validate_json((out / "datasheet.json").read_text())


def test_a_sheet_holds_what_was_measured_and_names_what_was_not(out: Path) -> None:
    sheet = read(out)
    assert (out / "copy.json").read_text() == (out / "datasheet.json").read_text()
    evidence = {one.piece: one for one in sheet.evidence}
    assert list(evidence) == list(PIECES)
    assert {name for name, one in evidence.items() if one.status == "measured"} == set(MEASURED)
    assert {one.question for one in sheet.evidence} == {1, 2, 3, 4, 5, 6}
    assert all(one.found is None and "--pieces" in one.reason for one in sheet.evidence if one.piece not in MEASURED)
    share = evidence["elements"].found.numbers[0]
    assert (share.value, share.n) == (1.0, len(ELEMENTS))
    reach = evidence["reach"].found.numbers[0]
    assert 3.9 < reach.value <= 2 * 3.9  # a local model of this cutoff: forces reach twice as far
    assert evidence["drift"].found.numbers[0].value < 1.0
    assert sheet.identity.elements == ELEMENTS
    assert sheet.machine["processor"]


def test_the_page_is_written_from_the_json_alone(out: Path) -> None:
    html = (out / "datasheet.html").read_text()
    assert page(read(out)) == html
    assert "3 of its 3 elements pass" in html
    assert "not measured yet" in html
    assert len(html) < 3e6


@pytest.fixture
def two_pieces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One piece that is good, and one that breaks the first time; which were measured, in their order."""
    measured: list[str] = []

    def good(subject, progress):
        measured.append("good")
        return Found(said="all is good", numbers=[number("goodness", 1.0)])

    def bad(subject, progress):
        measured.append("bad")
        if measured.count("bad") == 1:
            raise ZeroDivisionError("by nothing")
        return Found(said="mended", numbers=[])

    pieces = [Piece(name, 1, "", "", run, seconds=1) for name, run in (("good", good), ("bad", bad))]
    monkeypatch.setattr(sheets, "PIECES", {piece.name: piece for piece in pieces})
    return measured


def test_a_failure_is_missing_evidence_and_is_tried_again(
    two_pieces: list[str], toy_local: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    sheet = mlip_deploy.datasheet(toy_local, out=tmp_path, progress=lines.append)
    assert lines == ["[1/2] good", "[2/2] bad (about 0 s left)"]
    good, bad = sheet.evidence
    assert good.status == "measured"
    assert (bad.status, bad.reason, bad.found) == ("missing", "ZeroDivisionError: by nothing", None)
    again = mlip_deploy.datasheet(toy_local, out=tmp_path)
    assert again.evidence[0] == good
    assert again.evidence[1].status == "measured"
    assert two_pieces == ["good", "bad", "bad"]


def test_evidence_of_another_file_is_not_taken(
    two_pieces: list[str], toy_local: Path, toy_halo: Path, tmp_path: Path
) -> None:
    mlip_deploy.datasheet(toy_local, out=tmp_path, pieces=["good"])
    mlip_deploy.datasheet(toy_halo, out=tmp_path, pieces=["good"])
    assert two_pieces == ["good", "good"]


def test_what_a_model_cannot_do_is_not_applicable(toy_local: Path, tmp_path: Path) -> None:
    sheet = mlip_deploy.datasheet(toy_local, out=tmp_path, pieces=["ions", "charge", "grades"])
    reasons = {one.piece: one.reason for one in sheet.evidence if one.status == "not-applicable"}
    assert reasons == {
        "ions": "elements: the model does not know H, N",
        "charge": "elements: the model does not know H, N, O",
        "grades": "the file has no features, on which grades live",
    }


def test_missing_data_are_missing_evidence(toy_local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    monkeypatch.setenv("MLIP_DATA_DIR", str(tmp_path))

    def no_network(**_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", no_network)
    sheet = mlip_deploy.datasheet(toy_local, out=tmp_path / "sheet", pieces=["crystals"])
    (evidence,) = [one for one in sheet.evidence if one.piece == "crystals"]
    assert evidence.status == "missing"
    assert f"the set 'wbm' is neither in MLIP_DATA_DIR={tmp_path}" in evidence.reason


def test_wrong_input_is_named(toy_local: Path, tmp_path: Path) -> None:
    with pytest.raises(MLIPError, match="--pieces elments: 'elments' is not one of elements, pairs, "):
        mlip_deploy.datasheet(toy_local, out=tmp_path, pieces=["elments"])
    with pytest.raises(MLIPError, match="--quick leaves nothing of --pieces compositions"):
        mlip_deploy.datasheet(toy_local, out=tmp_path, pieces=["compositions"], quick=True)
    assert not list(tmp_path.iterdir())


# ---- numbers that are known -----------------------------------------------------------------------------------------


def test_softening_and_errors_of_forces() -> None:
    random = np.random.default_rng(1)
    structures = [Forces("Si", "all", label, 0.8 * label) for label in (random.normal(size=(4, 3)) for _ in range(10))]
    found, off = slope("slope", structures), relative_error("error", structures)
    assert found.value == pytest.approx(0.8, abs=FLOAT64_SUM)
    assert found.interval == pytest.approx((0.8, 0.8), abs=FLOAT64_SUM)
    assert off.value == pytest.approx(0.2, abs=FLOAT64_SUM)
    still = [Forces("Si", "all", np.zeros((4, 3)), np.ones((4, 3)))] * 9
    assert slope("slope", still) is None
    assert relative_error("error", still) is None


def test_intervals() -> None:
    values = np.random.default_rng(3).normal(size=400)
    low, high = bootstrap(400, lambda k: float(values[k].mean()))
    expected = 1.96 * values.std() / 20
    assert (values.mean() - low, high - values.mean()) == pytest.approx((expected, expected), rel=0.1)
    assert bootstrap(2, lambda k: 0.0) is None
    assert share_interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)  # Wilson's, by hand
    assert share_interval(5, 5)[1] == 1.0


class Charges(Calculator):
    """The Coulomb law between unit charges at nitrogen (+) and chlorine (-)."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        charges = np.select([atoms.numbers == 7, atoms.numbers == 17], [1.0, -1.0], 0.0)
        apart = atoms.positions[None, :] - atoms.positions[:, None]  # [i, j] from i to j
        distances = np.linalg.norm(apart, axis=2) + np.diag(np.full(len(atoms), np.inf))
        products = COULOMB * charges[:, None] * charges / distances
        forces = -np.einsum("ij,ijk->ik", products / distances**2, apart)
        self.results = {"energy": products.sum() / 2, "forces": forces}


class Nothing(Calculator):
    """No energy."""

    implemented_properties = ["energy"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.results = {"energy": 0.0}


class Spins(Calculator):
    """The triplet is lower by 0.5 eV than the singlet."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        assert atoms.info["charge"] == 0
        self.results = {"energy": {1: 0.0, 3: -0.5}[atoms.info["spin"]], "forces": np.zeros((len(atoms), 3))}


def measured(piece: str, calculator: Calculator, *settings: str) -> dict[str, float]:
    subject = SimpleNamespace(
        setting=lambda progress: SimpleNamespace(calculator=lambda: calculator),
        artifact=SimpleNamespace(
            contract=SimpleNamespace(settings=[SimpleNamespace(name=setting) for setting in settings])
        ),
    )
    found = PIECES[piece].measure(subject, lambda message: None)
    return {one.quantity: one.value for one in found.numbers}


def test_ions_that_obey_the_coulomb_law() -> None:
    found = measured("ions", Charges())
    assert list(found.values()) == pytest.approx([1.0, 1.0, 1.0], abs=FLOAT64_SUM)


def test_layers_that_obey_the_coulomb_law() -> None:
    assert list(measured("layers", Charges()).values()) == pytest.approx([1.0, 1.0, 1.0], abs=FLOAT64_SUM)


def test_singlet_above_triplet() -> None:
    assert list(measured("spin", Spins(), "charge", "spin").values()) == pytest.approx([0.5, 0.11], abs=FLOAT64_SUM)
    with pytest.raises(NotApplicableError, match="the file takes no spin at run time"):
        measured("spin", Spins(), "charge")


class HydrogenInIron(Calculator):
    """A crystal of 11.5 Å³ per atom, a molecule of -6 eV, and a landscape of known energies for a lone hydrogen atom.

    With c = cos(2π r/a): A (x²y² + y²z² + z²x²) + B (xy + yz + zx), whose minima are the tetrahedral sites, of A - B;
    the octahedral sites have 2 A more.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    A, B, ZERO = 0.05, 0.3, -2.5

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        hydrogen = np.flatnonzero(atoms.numbers == 1)
        n_iron = len(atoms) - len(hydrogen)
        if n_iron:
            energy += n_iron * (0.02 * (atoms.get_volume() / n_iron - 11.5) ** 2 - 8.0)
        if len(hydrogen) == 2:
            bond = atoms.positions[hydrogen[1]] - atoms.positions[hydrogen[0]]
            stretch = np.linalg.norm(bond) - 0.75
            energy += 10.0 * stretch**2 - 6.0
            forces[hydrogen] += np.outer([1.0, -1.0], 20.0 * stretch * bond / np.linalg.norm(bond))
        elif len(hydrogen) == 1:
            phase = 2 * np.pi * atoms.positions[hydrogen[0]] / (atoms.cell.lengths()[0] / 3)
            c, others = np.cos(phase), np.roll(np.eye(3), 1, axis=1) + np.roll(np.eye(3), 2, axis=1)
            energy += self.A * c**2 @ others @ c**2 / 2 + self.B * c @ others @ c / 2 + self.ZERO
            slope = 2 * self.A * c * (others @ c**2) + self.B * (others @ c)
            forces[hydrogen[0]] += slope * np.sin(phase) * 2 * np.pi / (atoms.cell.lengths()[0] / 3)
        self.results = {"energy": energy, "forces": forces}


def test_hydrogen_in_iron() -> None:
    """The saddle is where x = y and z = 1, by one equation of x."""
    a, b = HydrogenInIron.A, HydrogenInIron.B
    (x,) = [root.real for root in np.roots([4 * a, 0.0, 4 * a + 2 * b, 2 * b]) if abs(root.imag) < 1e-9]
    saddle = a * (x**4 + 2 * x**2) + b * (x**2 + 2 * x)
    solution = a - b + HydrogenInIron.ZERO + 3.0
    found = measured("hydrogen-in-iron", HydrogenInIron())
    expected = [abs(solution - 0.19), abs(2 * a - 0.13), abs(saddle - (a - b) - 0.088)]
    assert list(found.values()) == pytest.approx(expected, abs=1e-3)  # relaxed to 0.02 eV/Å


def test_molecules_that_feel_nothing() -> None:
    """7.3 kcal/mol is the mean interaction of S22 (Jurecka et al., Phys. Chem. Chem. Phys. 8, 1985, 2006)."""
    found = measured("interactions", Nothing())
    assert found["interaction of molecules at their equilibrium, mean absolute error"] == pytest.approx(7.3, abs=0.1)
    assert found["interaction that is left 1.5 and 2 times as far apart, of what should be"] == 0.0


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ([0.0, 2.5, 0.0], ""),
        ([0.0, np.nan, 0.0], "positions that are not numbers"),
        ([0.0, 9.0, 0.0], "an atom at more than 10 times its thermal velocity"),
        ([0.0, 0.3, 0.0], "atoms 0 (Cu) and 1 (Cu), counted from 0, are 0.300 Å apart"),
    ],
)
def test_a_crystal_is_lost_by_what_its_atoms_do(last: list[float], reason: str) -> None:
    """Thermal copper at 1000 K makes 6.3 Å in a picosecond: 3.1 Å in a frame are ten times too many."""
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [0, 2.4, 0]], cell=[9, 9, 9], pbc=True)
    found = compositions._went_wrong(dimer, np.array([dimer.positions] * 10 + [[[0, 0, 0], last]]))
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_crystals_that_move_together_feel_what_they_feel_alone(toy_local: Path) -> None:
    """And one that the model cannot evaluate is left alone, with its reason."""
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    crystals = [salt[:2], salt, salt * (2, 1, 1)]
    random = np.random.default_rng(3)
    for crystal in crystals:
        crystal.rattle(0.2, rng=random)
    calculator = MLIPCalculator(toy_local)
    alone = []
    for crystal in crystals:
        crystal.calc = calculator
        alone.append(crystal.get_forces())
    assert min(np.abs(forces).max() for forces in alone) > 1e-2
    together = compositions._Together(calculator, crystals)
    everything = Atoms(
        np.concatenate([crystal.numbers for crystal in crystals]),
        np.concatenate([crystal.positions for crystal in crystals]),
        calculator=together,
    )
    assert everything.get_forces() == pytest.approx(np.concatenate(alone), abs=FLOAT64_SUM)
    everything.positions[3] = np.nan  # the second
    assert everything.get_forces() == pytest.approx(
        np.concatenate([alone[0], np.zeros_like(alone[1]), alone[2]]), abs=FLOAT64_SUM
    )
    assert [bool(reason) for reason in together.stopped] == [False, True, False]


def test_a_run_of_all_crystals_tells_which_are_lost(toy_local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compositions, "PICOSECONDS", 0.1)
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    broken = salt.copy()
    broken.positions[1] = broken.positions[0] + [0.0, 0.0, 0.2]
    reasons = compositions._lost(MLIPCalculator(toy_local), [salt, broken, salt], 2.0, lambda message: None)
    assert reasons[::2] == ["", ""]
    assert reasons[1]


def test_the_bond_is_the_lowest_point() -> None:
    r = np.linspace(1.0, 2.0, 11)
    assert definition._bond(r, 3.0 * (r - 1.43) ** 2) == pytest.approx(1.43, abs=FLOAT64_SUM)
    assert definition._bond(r, -r) is None
    assert definition._bond(r[:0], r[:0]) is None


def test_cost_of_four_sizes(toy_local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, to save time; test_atlas.py has processes of their own."""

    def here(function, *arguments, progress=None):
        return function(*arguments, **({"progress": progress} if progress else {}))

    monkeypatch.setattr(scale, "in_process", here)
    monkeypatch.setattr(scale, "SYSTEMS", {"silicon": ("si", (8, 16, 32, 64)), "water": ("water", (3, 6, 12, 24))})
    sheet = mlip_deploy.datasheet(toy_local, out=tmp_path, pieces=["cost"])
    (evidence,) = [one for one in sheet.evidence if one.piece == "cost"]
    numbers = {one.quantity: one.value for one in evidence.found.numbers}
    (series,) = evidence.found.curves[0].series
    assert series.x == [8.0, 16.0, 32.0, 64.0]
    assert [numbers[f"time per atom and step, silicon, {n} atoms"] for n in (8, 16, 64)] == [
        series.y[k] for k in (0, 1, 3)
    ]
    # a step of 1000 atoms takes as many ms as one of an atom takes µs, a day has 86.4e6 ms, a ns 1e6 steps
    assert numbers["1000 atoms of silicon in steps of 1 fs"] == pytest.approx(86.4 / series.y[2])
    assert not any("water" in quantity for quantity in numbers), "the model knows no hydrogen"
