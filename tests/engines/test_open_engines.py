"""Engines that stay open: many structures of any kind through one process or Context, each as ASE computes it."""

import os
from contextlib import closing

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_deploy.artifact.tolerances import FLOAT64
from mlip_deploy.engines import ase as ase_engine
from mlip_deploy.engines import lammps as lammps_engine
from mlip_deploy.engines import openmm as openmm_engine
from mlip_deploy.errors import MLIPError
from mlip_deploy.validation.fidelity import gapped_ids


@pytest.fixture
def mixed():
    """Frames of other compositions, sizes, cells and periodicities, in no order."""
    random = np.random.default_rng(4)
    crystal = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    sheared = crystal.copy()
    sheared.set_cell(sheared.cell.array @ [[1, 0.1, -0.05], [0, 1, 0.08], [0, 0, 1]], scale_atoms=True)
    slab = crystal.copy()
    slab.pbc = (True, False, True)
    frames = [sheared, Atoms("Si"), slab, Atoms("HCl", [[0, 0, 0], [0, 0, 1.3]]), crystal[[4, 0, 2]]]
    for atoms in frames:
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
    return frames


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps_takes_frames_of_any_kind_in_one_process(ranks, mixed, tiny):
    ids = [gapped_ids(len(atoms)) for atoms in mixed]
    assert ids[0] != sorted(ids[0])
    found = lammps_engine.evaluate_many(tiny, mixed, ranks=ranks, ids=ids)
    compare(found, mixed, tiny)


def test_openmm_takes_frames_of_any_kind(mixed, tiny):
    mixed = [atoms for atoms in mixed if len(set(atoms.pbc)) == 1]
    compare(openmm_engine.evaluate_many(tiny, mixed), mixed, tiny)


@pytest.mark.parametrize("engine", [lammps_engine, openmm_engine])
def test_an_engine_stays_open_between_structures(engine, tiny, tmp_path, monkeypatch):
    """One start for structures of the same atoms and any cell, another one for a file that was rewritten."""
    starts = []
    start = {lammps_engine: "launcher", openmm_engine: "context_of"}[engine]
    original = getattr(engine, start)
    monkeypatch.setattr(engine, start, lambda *arguments: starts.append(arguments) or original(*arguments))
    path = tmp_path / "model.mlip.pt"
    path.write_bytes(tiny.read_bytes())
    crystal = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    frames = []
    for stretch in (0.97, 1.0, 1.04):
        frames.append(crystal.copy())
        frames[-1].set_cell(stretch * crystal.cell.array, scale_atoms=True)
        frames[-1].rattle(0.05, seed=3)
    compare([engine.evaluate(path, atoms) for atoms in frames], frames, tiny)
    assert len(starts) == 1
    os.utime(path, ns=(1, 1))
    engine.evaluate(path, crystal)
    assert len(starts) == 2


def test_lammps_that_stopped_is_started_again(tiny):
    """An error ends LAMMPS; the next structure gets another one. A process ends with its session."""
    crystal = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    session = lammps_engine.Session(lammps_engine.ServedArtifact(tiny))
    session.evaluate(crystal)
    process = session._process
    with pytest.raises(lammps_engine.LAMMPSError, match="Unknown command: no_such_command"):
        session._ask("no_such_command\n")
    assert process.wait() != 0
    compare([lammps_engine.evaluate(tiny, crystal)], [crystal], tiny)
    with closing(lammps_engine.Session(lammps_engine.ServedArtifact(tiny))) as other:
        other.evaluate(crystal)
    assert other._process.wait() == 0


def test_what_lammps_would_leave_out_is_named(tiny):
    broken = bulk("NaCl", "rocksalt", a=5.5)
    broken.positions[1, 2] = np.nan
    with pytest.raises(MLIPError, match="a position that is not finite; LAMMPS would leave the atom out"):
        lammps_engine.evaluate(tiny, broken)
    with pytest.raises(MLIPError, match=r"Fe is not an element of the model, see: mlip info .*\.mlip\.pt"):
        lammps_engine.evaluate(tiny, bulk("Fe"))


def compare(found, frames, path):
    for result, truth in zip(found, ase_engine.evaluate_many(path, frames), strict=True):
        assert abs(result.energy - truth.energy) / len(truth.forces) < FLOAT64.energy_per_atom
        np.testing.assert_allclose(result.forces, truth.forces, atol=FLOAT64.forces)
        if result.stress is not None:
            np.testing.assert_allclose(result.stress, truth.stress, atol=FLOAT64.stress)
        if result.atomic_energies is not None:
            np.testing.assert_allclose(result.atomic_energies, truth.atomic_energies, atol=FLOAT64.atomic_energies)
