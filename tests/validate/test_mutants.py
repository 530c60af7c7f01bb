"""The suites themselves: every kind of broken deployment must turn the report red, and the sound one must not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_models
from ase.build import bulk
from tolerances import FLOAT64_ROTATED
from torch import Tensor, nn
from toy_models import LocalEnergy

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import evaluator
from mlip_deploy.exporters.interface import EdgeGradientModel
from mlip_deploy.exporters.parts import SEVERAL_HUNDRED
from mlip_deploy.validation import fidelity
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.physics import dimers, dynamics, extent, tools
from mlip_deploy.validation.run import validate

CUTOFF = 3.9


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory):
    return toy_models.fixtures_of(tmp_path_factory.mktemp("original"))


def run(path, directory, suites=("fidelity", "physics")):
    return validate(Context(artifact=Artifact(path), engine="ase", directory=directory), suites)


def red(validation):
    """The names of the cases with a failed check."""
    assert validation.verdict == "fail"
    return {outcome.case for outcome, _ in validation.failures()}


@pytest.fixture
def in_ase(monkeypatch):
    """Fidelity in ASE alone, where the evaluators below are broken, and no dynamics, which need other engines."""
    monkeypatch.setattr(fidelity, "ENGINES", ("ase",))
    monkeypatch.setattr(fidelity, "RANKS", ())
    monkeypatch.setattr(dynamics, "cases", lambda context: [])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_sound_file_is_green(dtype, fixtures, in_ase, tmp_path):
    energy = LocalEnergy(CUTOFF)
    path = toy_models.write(tmp_path / "sound.mlip.pt", energy, "local", dtype, CUTOFF, fixtures)
    found = run(path, tmp_path)
    assert found.verdict == "pass", found.failures()
    assert found.count("physics", "pass") > 50


def flipped_virial(result, atoms, fixtures, number):
    return result if result.stress is None else replace(result, stress=-result.stress)


def noisy(result, atoms, fixtures, number):
    """A hundred times the float32 noise, of the other sign in every other structure, so that no two ends cancel."""
    noise = fixtures.float32_noise
    random = np.random.default_rng(number)
    return replace(
        result,
        energy=result.energy + 100 * noise.energy_per_atom * len(atoms) * (-1) ** number,
        forces=result.forces + 100 * noise.forces * random.choice([-1, 1], size=result.forces.shape),
    )


def wrong_unit(result, atoms, fixtures, number):
    """Forces with another Bohr radius, 0.53 Å."""
    return replace(result, forces=result.forces * 0.529177 / 0.53)


def curl(result, atoms, fixtures, number):
    """Forces that no energy has, of a hundredth of an eV/Å."""
    return replace(result, forces=result.forces + 0.01 * np.cross(atoms.positions, [0.0, 0.0, 1.0]))


@pytest.mark.parametrize(
    ("mutant", "expected"),
    [
        (flipped_virial, {"ase", "derivatives: odd number of atoms"}),
        (noisy, {"ase", "derivatives: odd number of atoms", "symmetry: translation", "every element"}),
        (wrong_unit, {"ase", "derivatives: odd number of atoms", "derivatives: molecule without periodicity"}),
        (curl, {"ase", "derivatives: molecule without periodicity", "every element"}),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_broken_engine_is_red(mutant, expected, dtype, fixtures, in_ase, tmp_path, monkeypatch):
    energy = LocalEnergy(CUTOFF)
    path = toy_models.write(tmp_path / "sound.mlip.pt", energy, "local", dtype, CUTOFF, fixtures)
    sound = ase_engine.evaluate_many

    def broken(path, frames, **options):
        results = sound(path, frames, **options)
        pairs = zip(results, frames, strict=True)
        return [mutant(result, atoms, fixtures, number) for number, (result, atoms) in enumerate(pairs)]

    monkeypatch.setattr(ase_engine, "evaluate_many", broken)
    assert red(run(path, tmp_path)) >= expected


def swapped_types(cutoff):
    energy = LocalEnergy(cutoff)
    for name in ("strength", "scale"):
        setattr(energy, name, getattr(energy, name)[[1, 0, 2]])
    return energy


class NoGhosts(nn.Module):
    """Forgets neighbours that another rank owns."""

    def __init__(self, sound: nn.Module):
        super().__init__()
        self.sound = sound

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        owned = edge_index[1] < n_owned
        return self.sound(node_types, n_owned, edge_index[:, owned], edge_vectors[owned])


class LargeDiffers(nn.Module):
    """Right in systems as small as the fixtures."""

    def __init__(self, sound: nn.Module):
        super().__init__()
        self.sound = sound

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies = self.sound(node_types, n_owned, edge_index, edge_vectors)
        if n_owned > 50:
            energies = 1.1 * energies
        return energies


class ShiftedByMean(nn.Module):
    """Atomic energies that know the mean of the system, in a sum that does not."""

    def __init__(self, sound: nn.Module):
        super().__init__()
        self.sound = sound

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        energies = self.sound(node_types, n_owned, edge_index, edge_vectors)
        return energies + 0.1 * (energies - energies.mean())


class LongGradient(nn.Module):
    """The model interface with a gradient that is 1 % too long for its energy."""

    def __init__(self, energy: nn.Module):
        super().__init__()
        self.sound = EdgeGradientModel(energy)

    def forward(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        energies, gradients = self.sound(node_types, n_owned, edge_index, edge_vectors)
        return energies, 1.01 * gradients


def test_swapped_types_are_red(fixtures, in_ase, tmp_path):
    path = toy_models.write(tmp_path / "mutant.mlip.pt", swapped_types(CUTOFF), "local", "float64", CUTOFF, fixtures)
    assert red(run(path, tmp_path)) == {"ase"}, "they obey physics: only the original tells"


def test_a_truncated_cutoff_is_red(fixtures, in_ase, tmp_path):
    """The file declares less than the model's own cutoff, so that the engine leaves neighbours out."""
    energy = LocalEnergy(CUTOFF)
    path = toy_models.write(tmp_path / "mutant.mlip.pt", energy, "local", "float64", 0.8 * CUTOFF, fixtures)
    assert red(run(path, tmp_path)) >= {"ase", "smoothness across the cutoff"}


def test_dropped_ghosts_are_red_on_two_ranks(fixtures, tmp_path, monkeypatch):
    monkeypatch.setattr(fidelity, "ENGINES", ("lammps",))
    monkeypatch.setattr(fidelity, "RANKS", (1, 2))
    path = toy_models.write(
        tmp_path / "mutant.mlip.pt", NoGhosts(LocalEnergy(CUTOFF)), "local", "float64", CUTOFF, fixtures
    )
    found = red(run(path, tmp_path, ["fidelity"]))
    assert found == {"lammps, 2 rank(s)", "lammps, 2 rank(s), shuffled and gapped ids"}, "one rank folds its ghosts"


def test_a_file_that_is_wrong_in_large_systems_is_red(fixtures, in_ase, tmp_path):
    energy = LargeDiffers(LocalEnergy(CUTOFF))
    path = toy_models.write(tmp_path / "mutant.mlip.pt", energy, "local", "float64", CUTOFF, fixtures)
    assert red(run(path, tmp_path)) == {"extensivity", "parts with ghosts"}, "the fixtures are too small to tell"


def test_means_over_the_system_are_red_without_ranks(in_ase, fixtures, tmp_path):
    """The energy of the system is that of the sound file, which adds up."""
    energy = ShiftedByMean(LocalEnergy(CUTOFF))
    path = toy_models.write(tmp_path / "mutant.mlip.pt", energy, "local", "float64", CUTOFF, fixtures)
    found = red(run(path, tmp_path, ["physics"]))
    assert "parts with ghosts" in found
    assert "extensivity" not in found


def test_two_ranks_are_compared_in_a_large_system(fixtures, tmp_path):
    path = toy_models.write(
        tmp_path / "mutant.mlip.pt", NoGhosts(LocalEnergy(CUTOFF)), "local", "float64", CUTOFF, fixtures
    )
    context = Context(artifact=Artifact(path), engine="lammps", directory=tmp_path)
    case = next(case for case in extent.cases(context) if case.name == "extensivity")
    bad = {check.quantity for check in case.run(context, lambda _: None).checks if check.verdict == "fail"}
    assert bad == {f"256 atoms on two ranks instead of one: {quantity}" for quantity in ("energy", "forces")}


@pytest.mark.parametrize("parallel", ["local", "halo"])
def test_parts_with_ghosts_are_those_of_the_whole(parallel, tmp_path):
    path = toy_models.export(tmp_path / "toy.mlip.pt", parallel)
    context = Context(artifact=Artifact(path), engine="ase", directory=tmp_path)
    case = next(case for case in extent.cases(context) if case.name == "parts with ghosts")
    (check,) = case.run(context, lambda _: None).checks
    assert (check.verdict, check.value < 1e-12) == ("pass", True)


@pytest.mark.parametrize("engine", ["lammps", "openmm"])
@pytest.mark.parametrize(("wrap", "verdict"), [(EdgeGradientModel, "pass"), (LongGradient, "fail")])
def test_forces_that_lose_energy_are_red_in_dynamics(wrap, verdict, engine, fixtures, tmp_path):
    energy = LocalEnergy(CUTOFF)
    path = toy_models.write(tmp_path / "toy.mlip.pt", energy, "local", "float64", CUTOFF, fixtures, wrap)
    context = Context(artifact=Artifact(path), engine=engine, directory=tmp_path)
    case = next(case for case in dynamics.cases(context) if engine in case.name)
    assert case.run(context, lambda _: None).checks[0].verdict == verdict


class Chiral(nn.Module):
    """The local model with a triple product of the neighbours' moments, which mirror images have of the other sign."""

    def __init__(self, sound: nn.Module, cutoff: float, strength: float = 0.02):
        super().__init__()
        self.sound = sound
        self.cutoff = cutoff
        self.strength = strength

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        smooth = (1.0 - (edge_vectors * edge_vectors).sum(1) / self.cutoff**2) ** 3
        moments = []
        for power in range(1, 4):
            weighted = (smooth**power)[:, None] * edge_vectors
            moments.append(torch.zeros([n_owned, 3], dtype=edge_vectors.dtype).index_add(0, edge_index[0], weighted))
        product = (moments[0] * torch.linalg.cross(moments[1], moments[2])).sum(1)
        energies = self.sound(node_types, n_owned, edge_index, edge_vectors)
        return energies + self.strength * product


@pytest.mark.parametrize(
    ("promised", "verdict", "reason"),
    [
        (True, "fail", "though the model is symmetric by construction"),
        (False, "expected-fail", "the model's features do not know parity"),
        (None, "expected-fail", "the contract does not say whether they may"),
    ],
)
def test_mirror_images_that_differ_are_red_where_the_family_rules_it_out(
    promised, verdict, reason, fixtures, in_ase, tmp_path
):
    path = toy_models.write(
        tmp_path / "mutant.mlip.pt",
        Chiral(LocalEnergy(CUTOFF), CUTOFF),
        "local",
        "float64",
        CUTOFF,
        fixtures,
        inversion_symmetric=promised,
    )
    found = run(path, tmp_path, ["physics"])
    (outcome,) = [outcome for outcome in found.outcomes if outcome.case == "symmetry: inversion"]
    differing = [check for check in outcome.checks if check.verdict != "pass"]
    assert {check.verdict for check in differing} == {verdict}
    assert all(reason in check.reason for check in differing)
    if promised:
        assert red(found) == {"symmetry: inversion"}
    else:
        assert found.verdict == "pass", found.failures()


@pytest.mark.parametrize(
    ("engine", "pbc"),
    [
        ("lammps", [True, True, True]),
        ("lammps", [True, False, True]),
        ("lammps", [False, True, False]),
        ("openmm", [True, True, True]),
    ],
)
def test_no_engine_makes_a_mirror_image_of_a_left_handed_cell(engine, pbc, fixtures, tmp_path):
    energy = Chiral(LocalEnergy(CUTOFF), CUTOFF, strength=2.0)
    path = toy_models.write(tmp_path / "chiral.mlip.pt", energy, "local", "float64", CUTOFF, fixtures)
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.1, 0], [0, 1, 0.05], [0, 0, 0.95]]), scale_atoms=True)
    atoms.rattle(0.2, seed=4)
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    atoms.pbc = pbc
    expected = evaluator("ase")(path, atoms)
    found = evaluator(engine)(path, atoms)
    assert found.energy == pytest.approx(expected.energy, abs=FLOAT64_ROTATED)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=FLOAT64_ROTATED)
    image = atoms.copy()
    image.set_cell(-atoms.cell.array)
    image.positions *= -1.0
    assert abs(evaluator("ase")(path, image).energy - expected.energy) > 100 * FLOAT64_ROTATED


class BetweenTwo(nn.Module):
    """The local model with a further energy of each pair, a function of the distance."""

    def __init__(self, sound: nn.Module, kind: str):
        super().__init__()
        self.sound = sound
        self.kind = kind

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        r = torch.sqrt((edge_vectors * edge_vectors).sum(1))
        if self.kind == "hole":
            pair = 4.0 * torch.exp(-(((r - 3.1) / 0.2) ** 2)) - 6.0 * torch.exp(-(((r - 2.7) / 0.2) ** 2))
        elif self.kind == "shallow hole":
            pair = -0.05 * torch.exp(-(((r - 2.7) / 0.2) ** 2))
        elif self.kind == "deep well":
            pair = -30.0 * torch.exp(-(((r - 2.7) / 0.6) ** 2))
        elif self.kind == "jump":
            pair = -4.0 * (r < 3.2).to(r.dtype)
        else:
            pair = torch.zeros_like(r)
        energies = self.sound(node_types, n_owned, edge_index, edge_vectors)
        return energies + 0.5 * torch.zeros_like(energies).index_add(0, edge_index[0], pair)


@pytest.mark.parametrize(
    ("kind", "failing"),
    [
        ("none", []),
        ("shallow hole", []),
        ("hole", ["highest hump"]),
        ("deep well", ["deepest well"]),
        ("jump", ["largest change of a dimer's energy that its forces do not explain"]),
    ],
)
def test_a_wrong_dimer_in_reach_is_red_and_named(kind, failing, fixtures, tmp_path):
    energy = BetweenTwo(LocalEnergy(CUTOFF), kind)
    path = toy_models.write(tmp_path / "toy.mlip.pt", energy, "local", "float64", CUTOFF, fixtures)
    (case,) = dimers.cases(Context(artifact=Artifact(path), engine="ase", directory=tmp_path))
    checks = case.run(Context(artifact=Artifact(path), engine="ase", directory=tmp_path), lambda _: None).checks
    red_ones = [check for check in checks if check.verdict == "fail"]
    assert [check.quantity[: len(name)] for check, name in zip(red_ones, failing, strict=True)] == failing
    assert all("Na-Na " in check.reason for check in red_ones)


def test_limits_grow_up_to_ten_times(fixtures, in_ase, tmp_path, monkeypatch):
    """An engine whose numbers are ten thousand times too large, with errors of half their size's share of a limit."""
    path = toy_models.write(tmp_path / "sound.mlip.pt", LocalEnergy(CUTOFF), "local", "float64", CUTOFF, fixtures)
    sound = ase_engine.evaluate_many
    factor = 1e4

    def exploded(path, frames, **options):
        results = sound(path, frames, **options)
        return [
            replace(
                result,
                energy=factor * (result.energy + 0.5 * FLOAT64.energy_per_atom * len(atoms) * (-1) ** number),
                forces=factor * result.forces,
            )
            for number, (result, atoms) in enumerate(zip(results, frames, strict=True))
        ]

    monkeypatch.setattr(ase_engine, "evaluate_many", exploded)

    def translation(directory):
        found = run(path, directory, ["physics"])
        (outcome,) = [outcome for outcome in found.outcomes if outcome.case == "symmetry: translation"]
        return [check for check in outcome.checks if check.quantity.endswith(": energy")]

    checks = translation(tmp_path / "capped")
    assert "fail" in {check.verdict for check in checks}
    assert all("capped at 10 times the limit for the fixtures, though the results are" in c.source for c in checks)
    assert all(check.threshold == pytest.approx(20 * FLOAT64.energy_per_atom) for check in checks)
    monkeypatch.setattr(tools, "MOST_GROWTH", float("inf"))
    checks = translation(tmp_path / "unbounded")
    assert {check.verdict for check in checks} == {"pass"}
    assert not any("capped" in check.source for check in checks)


def test_check_is_red_where_a_file_is_wrong_in_large_systems(fixtures, tmp_path):
    energy = LargeDiffers(LocalEnergy(CUTOFF))
    path = toy_models.write(tmp_path / "mutant.mlip.pt", energy, "local", "float64", CUTOFF, fixtures)
    report = fidelity.check(path, ["ase"])
    assert not report.passed
    failed = [c for c in report.comparisons if c.verdict == "fail"]
    assert [c.n_atoms >= SEVERAL_HUNDRED for c in failed] == [True], "the fixtures are too small to tell"
    assert "energy differ by" in failed[0].reason


def test_check_is_red_in_ase_alone_for_a_mean_over_the_system(fixtures, tmp_path):
    energy = ShiftedByMean(LocalEnergy(CUTOFF))
    path = toy_models.write(tmp_path / "mutant.mlip.pt", energy, "local", "float64", CUTOFF, fixtures)
    report = fidelity.check(path, ["ase"])
    assert not report.passed
    assert report.parts.verdict == "fail"
    assert report.parts.value > 1e-3


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_check_is_green_for_the_sound_file(dtype, fixtures, tmp_path):
    path = toy_models.write(tmp_path / "sound.mlip.pt", LocalEnergy(CUTOFF), "local", dtype, CUTOFF, fixtures)
    report = fidelity.check(path, ["ase"])
    assert report.passed, report
    assert report.parts.verdict == "pass"
    assert max(c.n_atoms for c in report.comparisons) >= SEVERAL_HUNDRED
