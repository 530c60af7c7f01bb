"""Selection of frames: what a plain loop over distances chooses, beside a domain and without one."""

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from conftest import mlip

import mlip_deploy
from mlip_deploy import MLIPCalculator, MLIPError
from mlip_deploy.artifact.reader import Artifact


def crystal(seed, amplitude=0.03):
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.positions += np.random.default_rng(seed).normal(scale=amplitude, size=atoms.positions.shape)
    return atoms


def compressed():
    atoms = crystal(1)
    atoms.set_cell(0.85 * atoms.cell, scale_atoms=True)
    return atoms


def with_a_vacancy():
    return crystal(2)[1:]


@pytest.fixture(scope="module")
def known(tiny, tmp_path_factory):
    """The tiny SevenNet, with a domain of crystals."""
    path = tmp_path_factory.mktemp("select") / "known.mlip.pt"
    mlip_deploy.fit_domain(tiny, [[crystal(seed) for seed in range(20)]], output=path)
    return path


def grades(path, atoms):
    return MLIPCalculator(path).get_property("grade", atoms)


def test_beside_a_domain(known):
    """What the domain does not know comes first, the farther the earlier; copies and crystals come last."""
    strange = [compressed(), with_a_vacancy()]
    farthest = [grades(known, atoms).max() for atoms in strange]
    assert min(farthest) > 2
    frames = [crystal(30), *strange, crystal(31), compressed(), with_a_vacancy()]
    chosen = mlip_deploy.select_frames(known, frames, 2)
    expected = [1, 2] if farthest[0] > farthest[1] else [2, 1]
    assert chosen == expected
    everything = mlip_deploy.select_frames(known, frames, 10)
    assert everything[:2] == expected
    assert sorted(everything) == [0, 1, 2, 3], "frames 4 and 5 are copies"


def test_farthest_points(known, tiny):
    """Every choice is the frame whose farthest atom is farthest from the domain and from earlier choices."""
    frames = [crystal(seed, amplitude=0.05 + 0.05 * (seed % 4)) for seed in range(40, 50)]
    calculator = MLIPCalculator(known)
    spaces = Artifact(known).spaces()
    points = []
    for atoms in frames:
        symbols = atoms.get_chemical_symbols()
        types = calculator.contract.types_of(symbols)
        features = calculator.potential.compute(
            atoms.positions, types, atoms.cell.array, atoms.pbc.tolist(), forces=False, features=True
        )["features"]
        points.append([(s, spaces[s].coordinates(x[None])[0]) for s, x in zip(symbols, features, strict=True)])
    known_points = [(s, z) for s, space in spaces.items() for z in space.points]
    chosen = []
    for _ in range(4):
        scores = [
            -1.0
            if k in chosen
            else max(min(np.linalg.norm(z - y) for t, y in known_points if t == s) for s, z in frame)
            for k, frame in enumerate(points)
        ]
        chosen.append(int(np.argmax(scores)))
        known_points += points[chosen[-1]]
    assert mlip_deploy.select_frames(known, frames, 4) == chosen
    assert len(mlip_deploy.select_frames(tiny, [*frames, *frames], 20)) == 10, "without a domain too, copies are none"


def test_the_command(known, tmp_path):
    write(tmp_path / "frames.extxyz", [crystal(30), compressed(), crystal(31)])
    done = mlip("select", known, tmp_path / "frames.extxyz", "--n", 1, "-o", tmp_path / "selected.extxyz")
    assert done.returncode == 0, done.stderr
    assert "1 of 3 frames, the most informative one first" in " ".join(done.stdout.split())
    (frame,) = read(tmp_path / "selected.extxyz", ":")
    np.testing.assert_allclose(frame.positions, compressed().positions, atol=1e-7)


def test_refusals(tiny, tmp_path):
    with pytest.raises(MLIPError, match="n is 0, expected 1 or more frames"):
        mlip_deploy.select_frames(tiny, [crystal(1)], 0)
    with pytest.raises(MLIPError, match="there are no frames to choose from"):
        mlip_deploy.select_frames(tiny, [], 3)
    gold = bulk("Au", cubic=True)
    with pytest.raises(MLIPError, match="Au is not an element of tiny"):
        mlip_deploy.select_frames(tiny, [gold], 3)
    missing = mlip("select", tiny, "nothing.extxyz", "-o", tmp_path / "out.extxyz")
    assert missing.returncode == 2
    assert "is neither a file nor a reference set" in " ".join(missing.stderr.split())
