"""The parts that the physics suite is made of, on functions and curves whose answers are known."""

import numpy as np
import pytest
import toy_models
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines import lammps as lammps_engine
from mlip_deploy.validation.case import Context
from mlip_deploy.validation.physics import cases, dimers, dynamics, symmetries
from mlip_deploy.validation.physics.stencil import POINTS, derivative, integral, step_for

IN_REACH = 4
"""checks on all dimers together"""
STEP = 0.01
NODES = STEP * np.array([*POINTS[:4], 0, *POINTS[4:]])


def test_derivative_of_a_smooth_function():
    slope, error = derivative(np.sin(2.0 + NODES), STEP)
    assert slope == pytest.approx(np.cos(2.0), abs=1e-12)
    assert 0 < error < 1e-6


@pytest.mark.parametrize("kink", [-0.031, -0.011, -0.0001, 0.0001, 0.005, 0.02])
def test_a_derivative_beside_a_kink_stays_inside_the_error(kink):
    slope, error = derivative(np.maximum(NODES - kink, 0.0), STEP)
    assert abs(slope - (kink < 0)) <= error * (1 + 1e-9) <= 1.0


def test_integral_of_a_smooth_function():
    found = integral(np.cos(2.0 + NODES), STEP)
    exact = np.sin(2.0 + 4 * STEP) - np.sin(2.0 - 4 * STEP)
    assert abs(found.value - exact) < found.error < 1e-8


@pytest.mark.parametrize("kink", np.linspace(-0.0399, 0.0399, 20))
def test_a_kink_in_the_force_stays_inside_the_error(kink):
    """A force whose slope jumps by 1 eV/Å² at `kink`, as where a cutoff function of SevenNet begins."""
    found = integral(np.maximum(NODES - kink, 0.0), STEP)
    end = 4 * STEP
    exact = 0.5 * max(end - kink, 0.0) ** 2 - 0.5 * max(-end - kink, 0.0) ** 2
    assert abs(found.value - exact) <= found.error * (1 + 1e-9)
    assert found.error <= 2 * STEP**2


@pytest.mark.parametrize("seed", range(20))
def test_several_kinks_stay_inside_the_error(seed):
    """As where shells of neighbours cross the cutoff together."""
    random = np.random.default_rng(seed)
    end = 4 * STEP
    values, exact = np.zeros(len(NODES)), 0.0
    for kink, jump in zip(random.uniform(-end, end, 3), random.normal(size=3), strict=True):
        values += jump * np.maximum(NODES - kink, 0.0)
        exact += 0.5 * jump * (end - kink) ** 2
    found = integral(values, STEP)
    assert abs(found.value - exact) <= found.error


def test_the_step_falls_with_the_noise():
    assert step_for(1e-5) == pytest.approx(0.02)
    assert step_for(1e-10) == pytest.approx(0.002)


def curve(energy):
    """A silicon dimer: distances in the suite's own range, energy and repulsion by differences."""
    radii = 2 * covalent_radii[atomic_numbers["Si"]]
    distances = np.geomspace(dimers.SHORTEST * radii, dimers.LONGEST * radii, dimers.POINTS)
    slope = (energy(distances + 1e-5) - energy(distances - 1e-5)) / 2e-5
    return ("Si", "Si"), distances, energy(distances) - energy(distances[-1]), -slope


def morse(r):
    decay = np.exp(-1.8 * (r - 2.3))
    return 3.0 * (decay**2 - 2.0 * decay)


def test_a_dimer_with_a_wall():
    found = dimers.judge(*curve(morse))
    assert found.verdict == "pass"
    assert found.value == 0.0
    assert "1 minimum/minima, 1 change(s) of sign" in found.reason


def test_a_dimer_with_a_hole():
    found = dimers.judge(*curve(lambda r: morse(r) - 200.0 * np.exp(-(((r - 1.1) / 0.15) ** 2))))
    assert found.verdict == "expected-fail"
    assert found.value > 0.0
    assert "keep atoms apart with ZBL" in found.reason


def reach(energy):
    pair, distances, energies, repulsion = curve(energy)
    return dimers.reach(distances, energies, repulsion, 0.8 * dimers._radii(*pair))


def verdicts(found):
    return [check.verdict for check in dimers.judge_reach({"Si-Si": found, "H-H": reach(morse)}, noise=1e-6)]


def test_a_dimer_in_reach():
    found = reach(morse)
    assert found.finite
    assert found.hump == found.jump == 0.0
    assert found.depth == pytest.approx(3.0, abs=0.06)  # the nearest point of the curve
    assert found.depth_at == pytest.approx(2.3, rel=0.05)
    assert verdicts(found) == ["pass"] * 4


def test_a_hole_behind_a_wall_is_out_of_reach():
    """As SevenNet-0's of helium: below 0.5 Å, behind 45 eV."""
    found = reach(
        lambda r: morse(r) + 30.0 * np.exp(-(((r - 2.0) / 0.1) ** 2)) - 20.0 * np.exp(-(((r - 1.8) / 0.1) ** 2))
    )
    assert verdicts(found) == ["pass"] * 4
    low = reach(lambda r: morse(r) + 8.0 * np.exp(-(((r - 2.0) / 0.1) ** 2)) - 20.0 * np.exp(-(((r - 1.8) / 0.1) ** 2)))
    assert verdicts(low)[1] == "fail"


def test_numbers_that_are_none_fail_by_name():
    _, distances, energies, repulsion = curve(morse)
    repulsion[np.argmax(distances > 2.5)] = np.nan
    found = dimers.reach(distances, energies, repulsion, 1.8)
    checks = dimers.judge_reach({"Si-Si": found, "H-H": reach(morse)}, noise=1e-6)
    assert [check.verdict for check in checks] == ["fail", "pass", "pass", "pass"]
    assert checks[0].reason == "Si-Si"


def test_an_energy_that_jumps_is_not_the_forces_work():
    _, distances, energies, repulsion = curve(morse)
    found = dimers.reach(distances, np.where(distances < 4.0, energies + 0.5, energies), repulsion, 1.8)
    assert found.jump == pytest.approx(0.5, abs=0.2)
    assert found.jump_at == pytest.approx(4.0, rel=0.06)
    assert verdicts(found)[3] == "fail"


def test_the_rotation_is_seen_by_lammps():
    """LAMMPS turns the first cell vector to x: a rotation alone would be undone before the model sees it."""
    atoms = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, -0.05], [0, 0.9, 0.08], [0, 0, 1.1]], scale_atoms=True)
    turned = symmetries._rotated(atoms)
    assert turned.get_volume() == pytest.approx(atoms.get_volume())
    first, second = (lammps_engine.Prism(a.cell.array, pbc=a.pbc).get_lammps_prism() for a in (atoms, turned))
    assert np.abs(np.array(first) - second).max() > 0.1


def test_elements_without_a_wall_name_their_partners():
    pairs = [("H", "C"), ("H", "O"), ("C", "O")]
    repulsion = np.array([[5.0, 4.0, 3.0, 2.0], [-1.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
    found = {symbol: dimers.judge_walls(symbol, pairs, repulsion) for symbol in "HCO"}
    assert {symbol: check.verdict for symbol, check in found.items()} == {
        "H": "expected-fail",
        "C": "pass",
        "O": "expected-fail",
    }
    assert found["H"].value == 1 / 8
    assert found["O"].reason.startswith("attraction to H: keep atoms apart with ZBL")
    assert found["C"].reason == ""


def test_many_elements_meet_each_other_close_up(toy, tmp_path, monkeypatch):
    """More elements than have curves of their own with each other."""
    monkeypatch.setattr(dimers, "MOST_MIXED", 2)
    context = Context(artifact=Artifact(toy), engine="ase", directory=tmp_path)
    (case,) = dimers.cases(context)
    quantities = [check.quantity for check in case.run(context, lambda _: None).checks]
    assert [name.split(":")[0] for name in quantities[IN_REACH:]] == [
        *("Na-Na", "Cl-Cl", "Si-Si"),
        *(f"{symbol} with each other element" for symbol in ("Na", "Cl", "Si")),
    ]


def test_the_long_range_that_is_left_out_is_that_of_unit_charges(toy, tmp_path):
    context = Context(artifact=Artifact(toy), engine="ase", directory=tmp_path)
    case = next(case for case in cases(context) if case.name == "locality")
    values = {check.quantity: check.value for check in case.run(context, lambda _: None).checks}
    felt = values["farthest atom whose force changes by more than the noise"]
    left_out = next(value for quantity, value in values.items() if quantity.startswith("long range"))
    assert 2.0 < felt < 2 * 3.9  # Å: local energies, and forces from neighbours' energies
    assert left_out == pytest.approx(14.399645 / felt**2, rel=1e-6)  # e² / 4πε₀ in eV Å


@pytest.mark.parametrize("engine", ["ase", "openmm"])
def test_a_model_that_stops_is_a_failed_check(engine, tiny, tmp_path, monkeypatch):
    from mlip_deploy.errors import MLIPError
    from mlip_deploy.validation.physics import tools

    def stop(*_, **__):
        raise MLIPError("the energy is not finite")

    monkeypatch.setattr(tools, "many_evaluator", lambda engine: stop)
    context = Context(artifact=Artifact(tiny), engine=engine, directory=tmp_path)
    found = cases(context)[0].run(context, lambda _: None)
    assert [(check.verdict, check.reason) for check in found.checks] == [("fail", "the energy is not finite")]


@pytest.mark.parametrize("elements", [["Si"], ["Cl", "Na"]])
def test_few_elements(elements, toy, tmp_path):
    """`--elements`: structures, pairs and dynamics of these alone."""
    context = Context(artifact=Artifact(toy), engine="ase", directory=tmp_path, elements=elements)
    outcomes = [case.run(context, lambda _: None) for case in cases(context)]
    failed = [(o.case, check) for o in outcomes for check in o.checks if check.verdict == "fail"]
    assert not failed
    found = next(o for o in outcomes if o.case == "dimers")
    assert len(found.checks) == IN_REACH + len(elements) * (len(elements) + 1) // 2


@pytest.fixture
def toy(tmp_path):
    fixtures = toy_models.fixtures_of(tmp_path)
    energy = toy_models.LocalEnergy(3.9)
    return toy_models.write(tmp_path / "toy.mlip.pt", energy, "local", "float64", 3.9, fixtures)


@pytest.mark.parametrize(("error_of_forces", "verdict"), [(0.0, "pass"), (1.0, "fail")])
def test_atoms_that_collide_get_shorter_time_steps(error_of_forces, verdict):
    """Verlet's error of the second and of the sixth order, as in a collision, is none of the forces."""
    atoms, taken = bulk("Ar"), []

    def energies(step, n_steps):
        share = step / dynamics.time_step(atoms)
        taken.append(share)
        wave = np.sin(np.pi * np.linspace(0.0, 1.0, n_steps + 1))
        return 0.001 * (20 * share**2 + 200 * share**6 + error_of_forces) * wave

    runs = dynamics.two_time_steps(atoms, energies)
    assert (taken, runs.step) == ([1.0, 0.5, 0.25, 0.125, 0.0625], dynamics.time_step(atoms) / 8)
    (judged, *_), curve = dynamics.energy_kept(0.0, len(atoms), runs)
    assert judged.verdict == verdict
    assert judged.value == pytest.approx(error_of_forces, abs=0.1)
    assert curve.series[0].x == curve.series[1].x
