"""`mlip validate --record` with reference frames: what was validated becomes the domain of the file."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from conftest import mlip
from torch import Tensor, nn

from mlip_deploy import EnergyFrame, MLIPCalculator, export_module
from mlip_deploy.artifact.reader import Artifact


class Pairs(nn.Module):
    """A repulsion of all pairs; the features are an atom's moments of 1 - r²/R²."""

    def energies_and_features(
        self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        u = (1.0 - (edge_vectors * edge_vectors).sum(dim=1) / 3.9**2).clamp(min=0.0)
        moments = torch.stack([u**3, u**4, u**5], dim=1)
        features = torch.zeros(n_owned, 3, dtype=u.dtype, device=u.device).index_add(0, edge_index[0], moments)
        return features.sum(dim=1), features

    def forward(self, node_types: Tensor, n_owned: int, edge_index: Tensor, edge_vectors: Tensor) -> Tensor:
        return self.energies_and_features(node_types, n_owned, edge_index, edge_vectors)[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An artifact, and frames labelled by itself."""
    directory = tmp_path_factory.mktemp("validated")
    path = directory / "pairs.mlip.pt"
    frame = EnergyFrame(functional="PBE", hubbard_u="none", corrections="none", dispersion="none")
    export_module(Pairs(), path, elements=["Na", "Cl"], cutoff=3.9, dtype="float64", energy_frame=frame, name="pairs")
    calculator = MLIPCalculator(path)
    frames = []
    for k in range(10):
        atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
        atoms.positions += np.random.default_rng(k).normal(scale=0.02 + 0.02 * k, size=atoms.positions.shape)
        atoms.calc = calculator
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(atoms)
    write(directory / "frames.extxyz", frames)
    return path, directory / "frames.extxyz"


def validated(path, frames, out, *options):
    suites = "fidelity,physics,reference"
    given = ["--reference", frames, "--frame", "functional=PBE,hubbard_u=none,corrections=none,dispersion=none"]
    done = mlip("validate", path, "--suites", suites, "--engine", "ase", *given, *options, "-o", out)
    return " ".join(done.stdout.split()), done.stderr


def test_the_reference_frames_become_the_domain(files, tmp_path):
    path, frames = files
    printed, error = validated(path, frames, tmp_path / "out")
    assert Artifact(path).domain() is None, "nothing is written without --record"
    assert "domain" not in printed, error

    printed, error = validated(path, frames, tmp_path / "out", "--record")
    domain = Artifact(path).domain()
    assert domain is not None, error
    assert (domain.frames, domain.sources) == (10, ["frames.extxyz"])
    assert {of.element: of.environments for of in domain.elements} == {"Na": 40, "Cl": 40}
    assert Artifact(path).validation_record() is not None
    assert f"domain of {path}: 10 frames (frames.extxyz)" in printed
    assert "domain of the file" in (tmp_path / "out" / "report.html").read_text()

    seen = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    squeezed = bulk("NaCl", "rocksalt", a=4.0, cubic=True)
    calculator = MLIPCalculator(path, grade=True)
    inside, outside = (calculator.get_property("grade", atoms).max() for atoms in (seen, squeezed))
    assert inside < 1.0 < outside

    # Whoever fitted a domain keeps it.
    printed, _ = validated(path, frames, tmp_path / "out", "--record")
    assert "kept: 10 frames (frames.extxyz)" in printed
    assert f"mlip domain fit {path} --frames {frames}" in printed
    assert Artifact(path).domain() == domain
