"""A file proves itself where it is loaded: wrong weights, references and kernels end the run before step 0."""

from __future__ import annotations

import json
import subprocess
import sys

import openmm
import pytest
from archives import rewritten
from ase.build import bulk
from conftest import mlip

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.errors import MLIPError
from mlip_deploy.openmm import system_of

FIXTURES = "extra/mlip/fixtures.json"
REFUSED = (
    r"self-test failed: .* of '.*' \(\d+ atoms\) is off by .* from the reference in the file, .* is accepted. It ran "
    r"on device cpu \(.*, instruction set \w+\), \d+ thread\(s\), back end torchscript, torch .* Type: mlip check .*"
)
DECK = """
units metal
lattice fcc 4.2
region box block 0 2 0 2 0 2
create_box 2 box
create_atoms 1 box
mass * 20.0
pair_style mlip{options}
pair_coeff * * {path} Na Cl
run 0
"""


def other_reference(contents: dict[str, bytes]) -> None:
    """One force of the marked structure, by a hundred times what is accepted."""
    fixtures = json.loads(contents[FIXTURES])
    marked = fixtures["self_test"]
    structure = next(one for one in fixtures["structures"] if one["name"] == marked["structure"])
    structure["forces"][0][1] += 100 * marked["bounds"]["forces"]
    contents[FIXTURES] = json.dumps(fixtures).encode()


def other_weights(contents: dict[str, bytes]) -> None:
    """A flip of the same bit in every tensor, sealed anew, as if that had been exported."""
    for name in contents:
        if name.startswith("constants/") and len(contents[name]) > 64:
            data = bytearray(contents[name])
            data[7] ^= 0x10  # in the exponent of the first float64
            contents[name] = bytes(data)


@pytest.fixture(params=[other_reference, other_weights], ids=lambda change: change.__name__)
def wrong(tiny, tmp_path, request):
    return rewritten(tiny, tmp_path / "wrong.mlip.pt", request.param)


def atoms():
    return bulk("NaCl", "rocksalt", a=5.2, cubic=True)


def context_of(path, **options) -> openmm.Context:
    system = system_of(atoms(), path, **options)
    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))


def test_passes_where_all_is_well(tiny, tmp_path) -> None:
    assert MLIPCalculator(tiny).self_test.startswith("passed (")
    context_of(tiny)
    output = run(DECK.format(path=tiny, options=""), tmp_path)
    assert "self-test" in output
    assert "passed (" in output.split("self-test", 1)[1].splitlines()[0]


def test_ase_refuses(wrong) -> None:
    with pytest.raises(MLIPError, match=REFUSED):
        MLIPCalculator(wrong)
    assert MLIPCalculator(wrong, self_test=False).self_test == "left out"


def test_openmm_refuses(wrong) -> None:
    with pytest.raises(openmm.OpenMMException, match=REFUSED):
        context_of(wrong)
    context_of(wrong, self_test=False)


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps_refuses(wrong, ranks, tmp_path) -> None:
    with pytest.raises(LAMMPSError, match=REFUSED):
        run(DECK.format(path=wrong, options=""), tmp_path, ranks=ranks)


def test_lammps_says_that_it_was_left_out(wrong, tmp_path) -> None:
    output = run(DECK.format(path=wrong, options=" self_test no"), tmp_path)
    assert "left out (self_test no)" in output


def test_the_marked_structure_is_small_and_periodic(tiny) -> None:
    fixtures = Artifact(tiny).fixtures()
    assert fixtures.self_test is not None
    structure = next(one for one in fixtures.structures if one.name == fixtures.self_test.structure)
    assert 8 <= len(structure.symbols) <= 32
    assert len(set(structure.symbols)) > 1
    assert structure.stress is not None


@pytest.mark.parametrize("model", ["exchange", "halo", "compiled"])
def test_right_files_pass(model: str, artifacts, toy_halo, tmp_path) -> None:
    path = {"exchange": artifacts.tiny, "halo": lambda: toy_halo, "compiled": artifacts.compiled}[model]()
    output = run(DECK.format(path=path, options=""), tmp_path, ranks=2)
    assert "passed (" in output.split("self-test", 1)[1].splitlines()[0]
    assert MLIPCalculator(path).self_test.startswith("passed (")


def test_a_file_without_a_mark_says_so(tiny, tmp_path) -> None:
    def without_mark(contents: dict[str, bytes]) -> None:
        fixtures = json.loads(contents[FIXTURES])
        del fixtures["self_test"]
        contents[FIXTURES] = json.dumps(fixtures).encode()

    assert MLIPCalculator(rewritten(tiny, tmp_path / "x.mlip.pt", without_mark)).self_test.startswith("none in this")


def test_check_says_how_far_a_file_is_off(wrong) -> None:
    """The line that the refusal names reports numbers, and does not refuse too."""
    done = mlip("check", wrong, "--engines", "ase")
    assert done.returncode == 1
    assert "self-test" not in done.stdout + done.stderr


# A kernel of torch replaced by a wrong one, and one engine in the same process.
WRONG_KERNEL = """
import sys
import torch
from mlip_deploy.operators import load_operators
load_operators()
engine, path = sys.argv[1:]
library = torch.library.Library("aten", "IMPL")

def wrong(x, dim, index):
    found = x.movedim(dim, 0)[index].movedim(0, dim)
    return 1.001 * found if x.is_floating_point() else found

library.impl("index_select", wrong, "CPU", allow_override=True)
if engine == "ase":
    from mlip_deploy.ase import MLIPCalculator
    MLIPCalculator(path)
elif engine == "openmm":
    import openmm
    from ase.build import bulk
    from mlip_deploy.openmm import system_of
    openmm.Context(system_of(bulk("Si", cubic=True), path), openmm.VerletIntegrator(0.001))
else:
    from mlip_deploy.engines.lammps import instance
    instance().commands_string(open("in.lammps").read())
"""


@pytest.mark.parametrize("engine", ["ase", "openmm", "lammps"])
def test_a_wrong_kernel(engine: str, tiny, tmp_path) -> None:
    (tmp_path / "in.lammps").write_text(DECK.format(path=tiny, options=""))
    done = subprocess.run(
        [sys.executable, "-c", WRONG_KERNEL, engine, str(tiny)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "self-test failed: " in done.stderr, done.stderr
    assert "mlip check" in done.stderr
