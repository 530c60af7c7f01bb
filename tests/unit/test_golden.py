"""The golden files of every release: this version computes what the original models did, in Python and in LAMMPS."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlip_deploy.artifact.reader import Artifact, file_sha256
from mlip_deploy.artifact.tolerances import tolerance
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines import lammps
from mlip_deploy.result import Result

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("*/*.mlip.pt*"))
LARGEST = 60_000  # bytes
SIGNAL = 0.1  # eV/Å: a comparison of smaller forces would show little


def names(path):
    return f"{path.parent.name}/{path.name}"


def expected(path):
    return json.loads((path.parent / "expected.json").read_text())[path.name]


def of_ase(path, atoms) -> Result:
    atoms.calc = MLIPCalculator(path)
    stress = atoms.get_stress() if atoms.pbc.all() else None
    return Result(atoms.get_potential_energy(), atoms.get_potential_energies(), atoms.get_forces(), stress)


ENGINES = {"ase": of_ase, "lammps": lammps.evaluate}


def test_there_are_two_of_each_release():
    releases = [folder for folder in GOLDEN.iterdir() if (folder / "expected.json").exists()]
    assert {folder.name for folder in releases} >= {"0.1.0"}
    for folder in releases:
        files = sorted(path.name for path in FILES if path.parent == folder)
        assert files == sorted(json.loads((folder / "expected.json").read_text()))
        assert len(files) == 2


@pytest.mark.parametrize("path", FILES, ids=names)
def test_it_is_the_file_that_was_written_then(path):
    assert file_sha256(path) == expected(path)["sha256"]
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", FILES, ids=names)
def test_numbers(path, engine):
    artifact = Artifact(path)
    bound = tolerance(artifact.contract.dtype, artifact.fixtures())
    strongest = 0.0
    for structure in expected(path)["structures"]:
        atoms = Atoms(
            structure["symbols"], positions=structure["positions"], cell=structure["cell"], pbc=structure["pbc"]
        )
        result = ENGINES[engine](path, atoms)
        assert result.energy == pytest.approx(structure["energy"], rel=0, abs=bound.energy_per_atom * len(atoms))
        np.testing.assert_allclose(
            result.atomic_energies, structure["atomic_energies"], rtol=0, atol=bound.atomic_energies
        )
        np.testing.assert_allclose(result.forces, structure["forces"], rtol=0, atol=bound.forces)
        if structure["stress"] is not None:
            np.testing.assert_allclose(result.stress, structure["stress"], rtol=0, atol=bound.stress)
        strongest = max(strongest, np.abs(structure["forces"]).max())
    assert strongest > SIGNAL
