"""TorchForce files through PyPI's openmmtorch, in an environment of its own: it needs another torch (2.9.1).

make test-torchforce
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLES
from openmm_cases import context_for, energy_of, ethanol, forces_of, rocksalt

TESTS = Path(__file__).parent.parent
TOLERANCE = 1e-7  # kJ/mol and kJ/mol/nm: the two torch versions order their sums differently


@pytest.fixture(scope="module")
def python(request):
    path = request.config.getoption("--torchforce-python")
    if not path:
        pytest.skip("needs an environment with openmmtorch, of 7 GB. Type: make test-torchforce")
    return os.path.abspath(path)


@pytest.fixture(scope="module")
def write(artifacts, tmp_path_factory):
    from mlip_deploy.exporters.families.registry import ExportOptions
    from mlip_deploy.exporters.families.sevennet import adapter as sevennet
    from mlip_deploy.exporters.targets.torchforce import write_torchforce

    adapted = sevennet.adapt(str(artifacts.checkpoint()), ExportOptions(fuse=False))
    folder = tmp_path_factory.mktemp("openmmtorch")

    def write(name, symbols=None, forces=True):
        path = folder / f"{name}.torchforce.pt"
        write_torchforce(adapted, path, "float64", lambda _: None, symbols, forces=forces)
        return path

    return write


def test_numbers_of_mlip_force(python, write, tiny, tmp_path):
    cases, contexts = [], []
    for make in (rocksalt, ethanol):
        atoms = make()
        for forces in (True, False):
            path = write(f"{make.__name__}-{forces}", atoms.get_chemical_symbols(), forces)
            for platform in ("Reference", "CPU"):
                cases.append(
                    {
                        "file": str(path),
                        "outputs_forces": forces,
                        "platform": platform,
                        "positions": (0.1 * atoms.positions).tolist(),
                        "box": (0.1 * atoms.cell.array).tolist() if atoms.pbc.all() else None,
                    }
                )
                contexts.append(context_for(tiny, atoms))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    command = [python, str(TESTS / "torchforce_cases.py"), "cases.json", "results.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == 8
    for result, context in zip(results, contexts, strict=True):
        assert result["energy"] == pytest.approx(energy_of(context), abs=TOLERANCE)
        np.testing.assert_allclose(result["forces"], forces_of(context), atol=TOLERANCE)
        assert np.abs(result["forces"]).max() > 100.0


def test_piece_of_the_page(python, write, tmp_path):
    from test_openmm_page import pieces

    script = "\n".join(piece for piece in pieces() if "import openmmtorch" in piece)
    assert "TorchForce(" in script
    shutil.copy(write("piece", ["C", "H", "H", "H", "O", "H"]), tmp_path / "methanol.torchforce.pt")
    done = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_example(python, write, tmp_path):
    script = EXAMPLES / "openmm" / "methanol_torchforce.py"
    command = [python, str(script), "--model", str(write("bare")), "--steps", "20", "--platform", "CPU"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    record = np.loadtxt(tmp_path / "methanol_torchforce.csv", delimiter=",", skiprows=1)
    assert record.shape == (20, 3)
    assert np.isfinite(record).all()
