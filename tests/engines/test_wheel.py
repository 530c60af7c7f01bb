"""The wheel of `make wheel`, in an environment with nothing but what pip takes for it, and without a compiler."""

import json
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from lammps_decks import Deck
from packaging.requirements import Requirement
from test_lammps_decks import rocksalt
from tolerances import FLOAT64_SUM

from mlip_deploy.ase import MLIPCalculator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(request):
    """With the environment's programs, and no others on the PATH."""
    given = request.config.getoption("--wheel-python")
    if given is None:
        pytest.skip("needs an environment with the wheel: make test-wheel")
    return Path(given).parent.absolute()


@pytest.fixture
def start(folder, tmp_path):
    def start(*command):
        program, *arguments = map(str, command)
        environment = {"PATH": str(folder), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [folder / program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return start


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps_runs_an_input_that_names_the_pair_style(ranks, start, tiny, tmp_path):
    (tmp_path / "run.in").write_text(Deck(rocksalt()).script("d", tiny, tmp_path))
    launch = ["lmp"] if ranks == 1 else ["mpiexec", "-n", ranks, "lmp"]
    printed = start(*launch, "-in", "run.in", "-log", "none")
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(tiny)
    energy = float(re.search(r"^DECK d PE (\S+)$", printed, flags=re.MULTILINE)[1])
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=FLOAT64_SUM * len(atoms))


def test_every_engine_computes_what_the_original_does(start, tiny, tmp_path):
    start("mlip", "check", tiny, "--engines", "ase,lammps,openmm", "--ranks", "1,2", "--json", "check.json")
    seen = [
        (c["engine"], c["ranks"], c["verdict"])
        for c in json.loads((tmp_path / "check.json").read_text())["comparisons"]
    ]
    assert {(engine, ranks) for engine, ranks, verdict in seen if verdict == "pass"} == {
        ("ase", 1), ("lammps", 1), ("lammps", 2), ("openmm", 1),
    }  # fmt: skip


def test_the_environment_is_whole(start, folder):
    start("python", "-m", "pip", "check")
    assert not list(folder.parent.glob("lib/python*/site-packages/vesin"))  # the library has its own
    start("mlip", "doctor")


def test_the_wheel_says_where_it_works(folder):
    (wheel,) = (ROOT / "dist").glob("*.whl")
    assert re.search(r"-manylinux_2_\d+_x86_64\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        info = json.loads(archive.read("mlip_deploy/lib/build_info.json"))
    requirements = map(Requirement, re.findall(r"^Requires-Dist: (.+)$", metadata, flags=re.MULTILINE))
    needed = {required.name: str(required.specifier) for required in requirements if required.marker is None}
    releases = [version.split("+")[0].split(".") for version in info["torch"]]
    served = {f">={'.'.join(releases[0][:2])}", f"<{releases[-1][0]}.{int(releases[-1][1]) + 1}"}
    assert served <= set(needed["torch"].split(","))
    assert needed["openmm"] == f"=={'.'.join(info['openmm'].split('.')[:2])}.*"
    assert re.match(r"==20\d\d\.\d+\.\d+\.\d+\.\*$", needed["lammps"])
    assert {f"mlip_deploy/lib/torch-{'.'.join(release[:2])}/libmlip.so" for release in releases} <= set(names)
    assert not any("emulator" in name for name in names)


def test_the_wheel_installs_where_openmms_does(folder):
    """In RHEL 9, whose libstdc++ is that of GCC 11 (csrc/core/condition_variable.h)."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        libraries = {name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}
    assert len(libraries) >= 5
    assert all(b"GLIBCXX_3.4" in content for content in libraries.values())
    assert not [name for name, content in libraries.items() if b"GLIBCXX_3.4.30\0" in content]


def test_the_source_distribution_is_complete(folder, tmp_path):
    """CMake finds every file that it is told to compile."""
    (sources,) = (ROOT / "dist").glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    venv = ROOT / ".venv" / "bin"
    tools = [f"-DPython_EXECUTABLE={venv / 'python'}", f"-DCMAKE_MAKE_PROGRAM={venv / 'ninja'}"]
    done = subprocess.run(
        [venv / "cmake", "-G", "Ninja", "-S", tree, "-B", tmp_path / "build", *tools], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tree / "Makefile").exists()
    assert (tree / "third_party" / "vesin" / "LICENSE").exists()
