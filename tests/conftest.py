"""Artifacts that many tests share, exported once per session with the command that users type."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))
# One thread: the sums of a float32 model, and so its noise, then do not depend on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Four ranks on two cores: MPICH's ranks that wait sleep, in place of keeping a core from those that compute.
os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")

from command_server import CommandServer

EXAMPLES = Path(__file__).parent.parent / "examples"


# Reasons to skip a test in CI, as patterns; any other skip fails the run, since it hides what CI should have installed.
ALLOWED_SKIPS = [
    "no GPU",
    "this machine has a CUDA device",
    "needs an environment with openmmtorch",
    "needs an environment with the wheel",
    "needs Debian 13's packages",
    "MLIP_(DATA|MODELS)_DIR names no folder",
]
# The packages of SevenNet and MACE exclude each other: each has an environment of its own.
if find_spec("sevenn"):
    ALLOWED_SKIPS += ["mace-torch is not installed"]
if find_spec("mace"):
    ALLOWED_SKIPS += ["'(sevenn|nequip|nequip-allegro)' is not installed", "could not import 'sevenn'"]

REFUSED_SKIPS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REFUSED_SKIPS] = []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run in CI if a test or a whole file was skipped for a reason that ALLOWED_SKIPS lacks."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") not in {"1", "true"} or terminal is None:  # a process of pytest-xdist has no terminal
        return
    skipped = [report.longrepr for report in terminal.stats.get("skipped", [])]
    refused = session.config.stash[REFUSED_SKIPS]
    for path, _, message in skipped:
        reason = message.removeprefix("Skipped: ")
        if not any(re.search(pattern, reason) for pattern in ALLOWED_SKIPS):
            refused.append(f"{path}: {reason}")
    if refused and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    refused = config.stash[REFUSED_SKIPS]
    if refused:
        terminalreporter.section("skips that fail the run in CI", red=True, bold=True)
        for line in sorted(set(refused)):
            terminalreporter.line(f"FAILED {line}", red=True)
        terminalreporter.line(
            "Install what is missing; a reason that CI may have belongs to ALLOWED_SKIPS (tests/conftest.py)"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torchforce-python", help="Python with openmmtorch, for tests/engines/test_openmmtorch.py")
    parser.addoption("--wheel-python", help="Python with the wheel of `make wheel`, for tests/engines/test_wheel.py")
    parser.addoption("--debian-root", help="folder with Debian 13's packages, for tests/engines/test_debian_lammps.py")


def mlip(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the installed command `mlip` and return its exit status and output."""
    return _server().run([str(word) for word in arguments])


_server = cache(CommandServer)


@pytest.fixture
def fastest_instruction_set() -> Iterator[None]:
    """The one that operators choose runs again when the test has ended, whichever it has picked."""
    import torch

    yield
    torch.ops.mlip.use_instruction_set(torch.ops.mlip.instruction_sets()[0])


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> "Artifacts":
    """One folder for all processes of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    directory = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "artifacts"
    directory.mkdir(exist_ok=True)
    return Artifacts(directory)


class Artifacts:
    """Exports on demand."""

    def __init__(self, directory: Path):
        self.directory = directory

    def once(self, name: str, make: "Callable[[Path], object]") -> Path:
        """The file `name`, made by the first who asks, while others wait."""
        path = self.directory / name
        with FileLock(f"{path}.lock"):
            if not path.exists():
                make(path)
        return path

    def export(self, source: str, dtype: str, *options: str, name: str | None = None, suffix: str = ".mlip.pt") -> Path:
        def make(path: Path) -> None:
            done = mlip("export", "sevennet", source, "-o", path, "--dtype", dtype, *options)
            assert done.returncode == 0, done.stdout + done.stderr

        return self.once(f"{name or Path(source).stem}-{dtype}{suffix}", make)

    def sevennet_0(self, dtype: str) -> Path:
        """The published model, with its real weights."""
        return self.export("7net-0", dtype)

    def checkpoint(self) -> Path:
        from models import tiny_sevennet_checkpoint

        return self.once("tiny.pth", tiny_sevennet_checkpoint)

    def tiny(self, dtype: str = "float64") -> Path:
        """A three-layer SevenNet with random weights, quick enough for every deck."""
        return self.export(str(self.checkpoint()), dtype)

    def short(self) -> Path:
        """Another one, of fewer layers and with a shorter cutoff."""
        from models import tiny_sevennet_checkpoint

        make = partial(tiny_sevennet_checkpoint, layers=2, seed=1, cutoff=3.5)
        return self.export(str(self.once("short.pth", make)), "float64")

    def compiled(self, dtype: str = "float64") -> Path:
        """The same for the back end aotinductor."""
        return self.export(str(self.checkpoint()), dtype, "--backend", "aotinductor", suffix=".mlip.pt2")


@pytest.fixture(scope="session")
def tiny(artifacts: Artifacts) -> Path:
    return artifacts.tiny("float64")


@pytest.fixture(scope="session")
def toy_local(artifacts: Artifacts) -> Path:
    """A local model of few operations."""
    import toy_models

    return artifacts.once("toy-local.mlip.pt", lambda path: toy_models.export(path, "local"))


@pytest.fixture(scope="session")
def toy_halo(artifacts: Artifacts) -> Path:
    """Three message-passing layers without exchange points."""
    import toy_models

    return artifacts.once("toy-halo.mlip.pt", lambda path: toy_models.export(path, "halo"))


@pytest.fixture(scope="session")
def pair_potential(artifacts: Artifacts) -> Path:
    """A copper crystal's potential for long runs: under a millisecond a step."""
    from pair_potential import write_pair_potential

    return artifacts.once("copper.mlip.pt", write_pair_potential)
