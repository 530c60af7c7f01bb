"""Grades: features against the original framework's, distances against a plain loop, and the same in every engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from archives import rewritten
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import mlip
from tolerances import FEATURES_FLOAT64, GRADES_FLOAT64, UNCERTAINTY

import mlip_deploy
from mlip_deploy import MLIPCalculator, MLIPError, _core
from mlip_deploy.artifact.domain_record import MOST_BYTES
from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.artifact.sealed_archive import DOMAIN, SealedArchive
from mlip_deploy.domain.fit import auroc
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.engines.lammps_files import write_data
from mlip_deploy.openmm import MLIPForce, system_of

NO_DOMAIN = r"has no grades, since its file has no domain\. Type: mlip domain fit .* --frames"


def crystal(amplitude: float, seed: int, repeat: int = 1) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True) * (repeat, repeat, repeat)
    atoms.positions += np.random.default_rng(seed).normal(scale=amplitude, size=atoms.positions.shape)
    return atoms


def frames(path=None, n: int = 20, noise: float = 0.2) -> list[Atoms]:
    """Rattled crystals, labelled with the model's own forces and an error that grows with the displacement."""
    found = []
    for k in range(n):
        amplitude = 0.02 + 0.01 * k
        atoms = crystal(amplitude, k)
        if path is not None:
            model = atoms.copy()
            model.calc = MLIPCalculator(path)
            random = np.random.default_rng(k)
            error = random.normal(scale=noise * k / n, size=(len(atoms), 3))
            energy = model.get_potential_energy() + len(atoms) * (7.0 + 0.1 * k / n * random.normal())
            atoms.calc = SinglePointCalculator(atoms, forces=model.get_forces() + error, energy=energy)
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def graded(tiny, tmp_path_factory):
    """The tiny SevenNet with a domain, and what was fitted."""
    path = tmp_path_factory.mktemp("grades") / "graded.mlip.pt"
    return path, mlip_deploy.fit_domain(tiny, [frames(tiny)], output=path)


def original_features(checkpoint, atoms: Atoms, elements: list[str]) -> np.ndarray:
    """What SevenNet's own model hands to its read-out, in float64."""
    from sevenn.util import load_checkpoint

    from mlip_deploy.exporters.families.sevennet.adapter import _original

    loaded = load_checkpoint(str(checkpoint))
    seen = []
    build = loaded.build_model

    def build_with_hook(**options):
        model = build(**options)
        model._modules["reduce_input_to_hidden"].register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0]["x"].detach().clone().numpy())
        )
        return model

    loaded.build_model = build_with_hook
    _original(loaded, torch.float64, None)(atoms)
    return seen[-1]


def features_of(path, atoms: Atoms) -> np.ndarray:
    calculator = MLIPCalculator(path)
    types = calculator.contract.types_of(atoms.get_chemical_symbols())
    return calculator.potential.compute(
        atoms.positions, types, atoms.cell.array, atoms.pbc.tolist(), forces=False, features=True
    )["features"]


def expected_grades(path, features: np.ndarray, symbols: list[str]) -> np.ndarray:
    """From the record's bytes, atom by atom and point by point."""
    head, _, data = SealedArchive(path).own[DOMAIN].partition(b"\n")
    numbers, spaces = np.frombuffer(data, dtype="<f4").astype(float), {}
    for of in json.loads(head)["elements"]:
        d, k, m = json.loads(head)["features"], of["axes"], of["points"]
        mean, axes, scales, points, numbers = np.split(numbers, np.cumsum([d, k * d, k + 1, m * (k + 1)]))
        spaces[of["element"]] = mean, axes.reshape(k, d), scales, points.reshape(m, k + 1), of["distance"]
    assert len(numbers) == 0
    grades = []
    for x, symbol in zip(features, symbols, strict=True):
        if symbol not in spaces:
            grades.append(np.inf)
            continue
        mean, axes, scales, points, distance = spaces[symbol]
        along = axes @ (x - mean)
        outside = np.linalg.norm(x - mean - axes.T @ along)
        z = np.append(along, outside) * scales
        grades.append(min(np.linalg.norm(z - point) for point in points) / distance)
    return np.array(grades)


def test_features_are_the_original_frameworks(artifacts, tiny):
    atoms = crystal(0.15, 7)
    found = features_of(tiny, atoms)
    assert found.shape == (len(atoms), Artifact(tiny).contract.features)
    expected = original_features(artifacts.checkpoint(), atoms, Artifact(tiny).contract.elements)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=FEATURES_FLOAT64)


def test_ase(graded):
    path, _ = graded
    atoms = crystal(0.3, 9, repeat=2)
    atoms.symbols[3] = "Si"  # of which there are no environments
    atoms.calc = MLIPCalculator(path, grade=True)
    plain = MLIPCalculator(path)
    forces = atoms.get_forces()
    found = atoms.calc.results["grade"]
    expected = expected_grades(path, features_of(path, atoms), atoms.get_chemical_symbols())
    assert np.isinf(found[3])
    assert np.isfinite(np.delete(found, 3)).all()
    np.testing.assert_allclose(found, expected, rtol=GRADES_FLOAT64)
    np.testing.assert_array_equal(plain.get_forces(atoms), forces)
    assert "grade" not in plain.results
    np.testing.assert_array_equal(plain.get_property("grade", atoms), found)


@pytest.mark.parametrize(
    ("edges", "beside"), [("device", {}), ("device", {"centroid_virials": True}), ("host", {"centroid_virials": True})]
)
def test_every_kind_of_step(edges, beside, graded):
    """Steps of a device, and steps whose gradients are taken one by one."""
    path, _ = graded
    atoms = crystal(0.15, 33)
    types = Artifact(path).contract.types_of(atoms.get_chemical_symbols())
    given = (atoms.positions, types, atoms.cell.array, [True] * 3)
    wanted = {"features": True, "grades": True, "uncertainties": True}
    found = _core.Potential(str(path), edges=edges).compute(*given, **wanted, **beside)
    expected = expected_grades(path, found["features"], atoms.get_chemical_symbols())
    np.testing.assert_allclose(found["features"], features_of(path, atoms), atol=FEATURES_FLOAT64)
    np.testing.assert_allclose(found["grades"], expected, rtol=GRADES_FLOAT64)
    of_structure, of_atoms = uncertainties(path, atoms)
    assert found["energy_uncertainty"] == pytest.approx(of_structure, rel=GRADES_FLOAT64)
    np.testing.assert_allclose(found["energies_uncertainty"], of_atoms, rtol=GRADES_FLOAT64)


def uncertainties(path, atoms: Atoms) -> tuple[float, np.ndarray]:
    """ASE's, which `test_uncertainties_of_energies` holds against the formula."""
    calculator = MLIPCalculator(path)
    return calculator.get_property("energy_uncertainty", atoms), calculator.get_property("energies_uncertainty", atoms)


def test_openmm(graded):
    path, _ = graded
    atoms = crystal(0.1, 11)
    system = system_of(atoms, path)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(atoms.positions * 0.1)
    force = MLIPForce.cast(system.getForce(0))
    expected = MLIPCalculator(path).get_property("grade", atoms)
    np.testing.assert_allclose(force.grades(context), expected, rtol=GRADES_FLOAT64)
    atoms.positions += np.random.default_rng(1).normal(scale=0.2, size=atoms.positions.shape)
    context.setPositions(atoms.positions * 0.1)
    moved = MLIPCalculator(path).get_property("grade", atoms)
    assert np.abs(moved - expected).max() > 0.1
    np.testing.assert_allclose(force.grades(context), moved, rtol=GRADES_FLOAT64)
    found, (of_structure, of_atoms) = force.uncertainty(context), uncertainties(path, atoms)
    assert found.of_energy == pytest.approx(of_structure, rel=GRADES_FLOAT64)
    np.testing.assert_allclose(found.of_atoms, of_atoms, rtol=GRADES_FLOAT64)
    with pytest.raises(MLIPError, match="This Force is not present in the Context"):
        MLIPForce(path, atoms.get_chemical_symbols(), periodic=True).grades(context)


DECK = """\
units metal
read_data data
mass * 20
pair_style mlip
pair_coeff * * {path} {elements}
fix grades all pair 1 mlip grade 1
{more}
compute extra all pair mlip
compute largest all reduce max f_grades
thermo_style custom step c_extra[3] c_largest
dump grades all custom 1 grades.dump id {columns}
dump_modify grades sort id format float %.17g
run 0
print "found $(c_extra[3]:%.17g) $(c_largest:%.17g) $(c_extra[10]:%.17g)"
"""


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_lammps(graded, ranks, tmp_path):
    path, _ = graded
    atoms = crystal(0.15, 12, repeat=2)
    frame = write_data(atoms, tmp_path / "data")
    more = {"more": "fix uncertain all pair 1 mlip uncertainty 1", "columns": "f_grades f_uncertain"}
    output = run(DECK.format(path=path, elements=" ".join(frame.elements), **more), tmp_path, ranks=ranks)
    grades = MLIPCalculator(path).get_property("grade", atoms)
    of_structure, of_atoms = uncertainties(path, atoms)
    rows = (tmp_path / "grades.dump").read_text().split("f_uncertain")[1].split("\n", 1)[1]
    found = np.array([row.split() for row in rows.splitlines()], dtype=float)[:, 1:]
    np.testing.assert_allclose(found, np.stack([grades, of_atoms], axis=1), rtol=GRADES_FLOAT64)
    printed = re.search(r"^found (.*)$", output, flags=re.MULTILINE).group(1).split()
    np.testing.assert_allclose(
        np.array(printed, dtype=float), [grades.max(), grades.max(), of_structure], rtol=GRADES_FLOAT64
    )


def test_page(graded, tmp_path):
    """The input of docs/trust.md, as it is there; the test of the command runs what its commands do."""
    page = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
    (deck,) = re.findall(r"^```lammps\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    frame = write_data(crystal(0.1, 5), tmp_path / "data")
    deck = deck.replace("model.mlip.pt", str(graded[0])).replace("Si O", " ".join(frame.elements))
    run(f"units metal\nread_data data\nmass * 20\n{deck}run 10\n", tmp_path)
    assert (tmp_path / "grades.dump").read_text().count("f_grades") == 2


def test_bench_puts_a_step_with_each_beside_one_without(graded, tiny):
    of_domain = ("--against", "grades", "--against", "uncertainties")
    measured = ("--systems", "nacl64", "--engines", "ase,lammps", "--pairs", "1", "--steps", "1", "--no-memory")
    done = mlip("bench", graded[0], *of_domain, *measured, "--json", "-")
    assert done.returncode == 0, done.stderr
    for record in json.loads(done.stdout)["records"]:
        _, grades, uncertainties = record["results"]
        assert grades["name"] == "graded.mlip.pt with grades"
        assert uncertainties["name"] == "graded.mlip.pt with uncertainties"
        assert min(grades["ratio"], uncertainties["ratio"]) > 0
    assert "has no domain. Type: mlip domain fit" in " ".join(mlip("bench", tiny, *of_domain).stderr.split())


def test_what_a_grade_says(graded):
    """One in a hundred of the reference environments exceeds 1 when it is left out; what is far is far above."""
    path, head = graded
    assert {of.element: of.environments for of in head.elements} == {"Na": 80, "Cl": 80}
    inside = np.concatenate([MLIPCalculator(path).get_property("grade", atoms) for atoms in frames()])
    assert inside.mean() < 1.0
    assert (inside > 1.0).mean() <= 0.03
    pressed = crystal(0.02, 3)
    pressed.set_cell(0.7 * pressed.cell.array, scale_atoms=True)
    assert MLIPCalculator(path).get_property("grade", pressed).min() > 2.0


def test_errors_that_grow_with_the_distance_are_told(graded):
    _, head = graded
    assert head.shown.frames == 20
    assert head.shown.auroc > 0.7
    assert head.shown.correlation > 0.3


def test_auroc_by_counting_pairs():
    random = np.random.default_rng(0)
    scores = random.integers(0, 5, 40).astype(float)
    positive = random.random(40) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    assert auroc(scores, np.ones(40, dtype=bool)) is None


def test_uncertainties_of_energies(graded, tiny):
    """As the formula has it, with the frames' features summed up here; wide where frames were wide of the mark."""
    path, head = graded
    sums = np.array([features_of(path, atoms).sum(axis=0) for atoms in frames()])
    covariance = sums.T @ sums / len(crystal(0, 0))
    inverse = np.linalg.inv(covariance + 1e-6 * np.linalg.eigvalsh(covariance)[-1] * np.eye(len(covariance)))
    atoms = crystal(0.2, 21)
    features = features_of(path, atoms)
    calculator = MLIPCalculator(path)
    scale = head.uncertainty.scale
    total = scale * np.sqrt(features.sum(axis=0) @ inverse @ features.sum(axis=0))
    of_atoms = scale * np.sqrt(np.einsum("ni,ij,nj->n", features, inverse, features))
    assert calculator.get_property("energy_uncertainty", atoms) == pytest.approx(total, rel=UNCERTAINTY)
    np.testing.assert_allclose(calculator.get_property("energies_uncertainty", atoms), of_atoms, rtol=UNCERTAINTY)
    assert calculator.get_property("energy_uncertainty", crystal(0.01, 1)) < total
    assert head.uncertainty.frames == 20
    assert 0.4 < head.uncertainty.within_one < 0.95
    assert "energy uncertainties of 20 held-out frames" in " ".join(mlip("info", path).stdout.split())
    with pytest.raises(PropertyNotImplementedError):
        MLIPCalculator(tiny).get_property("energy_uncertainty", atoms)


# ---- the file -------------------------------------------------------------------------------------------------------


def test_a_domain_leaves_the_rest_of_the_file_as_it_is(graded, tiny):
    path, head = graded
    assert Artifact(path).content_sha256() == Artifact(tiny).content_sha256()
    assert SealedArchive(path).names - SealedArchive(tiny).names == {DOMAIN}
    assert len(SealedArchive(path).own[DOMAIN]) < MOST_BYTES
    assert Artifact(path).domain() == head
    assert Artifact(tiny).domain() is None


def test_info_shows_it(graded, tiny):
    path, head = graded
    shown = " ".join(mlip("info", path).stdout.split())
    assert "20 frames (given), environments: Cl 80, Na 80; force errors above 0.3 eV/Å" in shown
    assert f"AUROC {head.shown.auroc:.2f}" in shown
    assert "none. Type: mlip domain fit" in " ".join(mlip("info", tiny).stdout.split())


def refused(path, words: str, directory) -> None:
    """By every engine that is asked for grades, before step 0."""
    atoms = crystal(0.1, 3)
    MLIPCalculator(path).get_potential_energy(atoms)
    with pytest.raises(MLIPError, match=words):
        MLIPCalculator(path, grade=True)
    system = system_of(atoms, path)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(atoms.positions * 0.1)
    with pytest.raises(MLIPError, match=words):
        MLIPForce.cast(system.getForce(0)).grades(context)
    frame = write_data(atoms, directory / "data")
    with pytest.raises(LAMMPSError, match=words) as failure:
        run(DECK.format(path=path, elements=" ".join(frame.elements), more="", columns="f_grades"), directory)
    assert "Step" not in str(failure.value)


def test_a_file_without_a_domain(tiny, tmp_path):
    refused(tiny, NO_DOMAIN, tmp_path)


def test_the_domain_of_another_model(graded, artifacts, tmp_path):
    record = SealedArchive(graded[0]).own[DOMAIN]
    other = rewritten(
        artifacts.tiny("float32"), tmp_path / "other.mlip.pt", lambda contents: contents.update({DOMAIN: record})
    )
    refused(other, r"has the domain of another model: that of \w{12}, this is \w{12}\. Fit its own", tmp_path)
    with pytest.raises(MLIPError, match="has the domain of another model"):
        Artifact(other).domain()
    assert "none: " in mlip("info", other).stdout


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda record: record[:-4], "it ends before its arrays do"),
        (lambda record: record + b"\0\0\0\0", "it goes on after its arrays"),
        (lambda record: record[:-4] + np.float32(np.nan).tobytes(), "a number in it is not finite"),
        (lambda record: record.replace(b'"schema":"1.0"', b'"schema":"2.0"'), "it is of another schema"),
        (lambda record: record.replace(b'"distance":', b'"distance":-'), "its numbers for Cl make no sense"),
        (lambda record: b"no domain at all", "parse error"),
        (lambda record: record.replace(b'"scale":', b'"scale":-'), "its numbers for uncertainties make no sense"),
        (
            lambda record: record.replace(b'"matrix":"', b'"matrix":"AAAA'),
            "its numbers for uncertainties make no sense",
        ),
        (lambda record: record.replace(b'"matrix":"', b'"matrix":"****'), "character 0 is not base64"),
    ],
)
def test_a_record_that_cannot_be_read(damage, words, graded, tmp_path):
    def change(contents):
        contents[DOMAIN] = damage(contents[DOMAIN])

    path = rewritten(graded[0], tmp_path / "damaged.mlip.pt", change)
    with pytest.raises(MLIPError, match=rf"the record of its domain cannot be read \(.*{words}.*\)\. Fit the domain"):
        MLIPCalculator(path, grade=True)


def test_a_file_without_features(toy_local, tmp_path):
    refused(toy_local, r"grades need the features that enter the read-out, and its file has none", tmp_path)
    with pytest.raises(MLIPError, match=r"has no features, which a domain lives on\. Write it anew"):
        mlip_deploy.fit_domain(toy_local, [frames()], output=tmp_path / "out.mlip.pt")
    mean = tmp_path / "mean.mlip.pt"
    mlip_deploy.compose("mean", [toy_local, toy_local], mean)
    refused(mean, "a file that is composed of several has none. Use that of a member", tmp_path)
    with pytest.raises(MLIPError, match=r"composed of several\. Take the file of a member"):
        mlip_deploy.fit_domain(mean, [frames()], output=tmp_path / "out.mlip.pt")


# ---- what cannot be fitted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([crystal(0.1, k) for k in range(4)], "a domain takes 5 frames at least, found 4"),
        ([], "a domain takes 5 frames at least, found 0"),
        ([crystal(0.0, 0)] * 9, "the environments of Cl are all the same"),
        (
            [Atoms("NaCl", [[0, 0, 0], [2.4 + 0.01 * k, 0, 0]]) for k in range(9)],
            "Cl has 9 environments .* at least 20",
        ),
        ([*frames(), bulk("Cu", cubic=True)], r"frame 21: Cu is not an element of .*\. Leave such frames out"),
    ],
)
def test_frames_that_make_no_domain(given, words, tiny, tmp_path):
    output = tmp_path / "out.mlip.pt"
    with pytest.raises(MLIPError, match=words):
        mlip_deploy.fit_domain(tiny, [given], output=output)
    assert not output.exists()


def test_the_command(tiny, tmp_path):
    from ase.io import write

    write(tmp_path / "train.extxyz", frames(tiny))
    write(tmp_path / "start.extxyz", crystal(0.02, 1, repeat=1))
    out = tmp_path / "out.mlip.pt"
    done = mlip(
        "domain", "fit", tiny, "--frames", tmp_path / "train.extxyz", "-o", out, "--json", tmp_path / "fit.json"
    )
    assert done.returncode == 0, done.stderr
    fitted = json.loads((tmp_path / "fit.json").read_text())
    assert fitted["sources"] == ["train.extxyz"]
    assert fitted["shown"]["frames"] == 20
    done = mlip("domain", "fit", out, "--sample", tmp_path / "start.extxyz", "--temperature", "200")
    assert done.returncode == 0, done.stderr
    head = Artifact(out).domain()
    assert head.sources == ["sampled Cl4Na4 at 200 K"]
    assert (head.frames, head.shown, head.uncertainty) == (12, None, None)
    reason = MLIPCalculator(out).potential.no_uncertainties
    assert "has no uncertainties of energies, which its domain needs labels for: 20 frames or more" in reason
    done = mlip("domain", "fit", out, "--frames", tmp_path / "absent.extxyz")
    assert done.returncode == 2
    assert "is neither a file nor a reference set" in done.stderr
