"""Commands that are ended half way leave no file and no process behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ase.io import read, write
from pair_potential import crystal

pytestmark = pytest.mark.slow

MLIP = Path(sys.executable).parent / "mlip"
"""The command itself. Under `python -m`, CPython ends by the signal and not with the status that it was asked for, if
Ctrl-C came while code was run that a library compiles from text, as dataclasses do when they are imported."""

PATIENCE = 120.0
"""s until a test gives up waiting for what must come"""

HIDDEN_FILE = """
import time
from mlip_deploy.files import replacing
with replacing("out/file.txt") as file:
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    time.sleep(1000)
"""

LAMMPS = """
import tempfile
from mlip_deploy.engines.lammps import run
with tempfile.TemporaryDirectory() as directory:
    run("print ready\\nshell sleep 1000\\n", directory, ranks={ranks}, echo=True)
"""

SESSION = """
import time
from ase import Atoms
from mlip_deploy.engines.lammps import evaluate
evaluate("{path}", Atoms("Si2", [[0, 0, 0], [2, 0, 0]]))
print("ready", flush=True)
time.sleep(1000)
"""

START = "from mlip_deploy.signals import unwind_on_signals\nunwind_on_signals()\n"


def processes_in(directory: Path) -> dict[int, str]:
    """Those that run in a folder or below it, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where, command = os.readlink(entry / "cwd"), (entry / "cmdline").read_bytes()
            except OSError:  # ended meanwhile, or a stranger's
                continue
            if where.startswith(str(directory)) and command:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode()
    return found


def files_in(directory: Path) -> list[Path]:
    """But for the caches of libraries."""
    return [path for path in directory.rglob("*") if "matplotlib" not in str(path) and "torchinductor" not in str(path)]


def wait_until(condition, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended early with status {process.returncode}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    """Starts a program with folders of its own for temporary files and for working."""
    for name in ("tmp", "work", "work/out"):
        (tmp_path / name).mkdir()
    started = []

    def start(*arguments: object, **streams: int) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], cwd=tmp_path / "work", text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, **{"stdout": subprocess.PIPE, **streams},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for number in processes_in(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    for process in started:
        process.communicate()


def ends_clean(process, how, tmp_path, status) -> None:
    if how == "Ctrl-C":  # a terminal sends it to the whole group
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(how)
    process.wait(PATIENCE)
    end = time.monotonic() + PATIENCE  # multiprocessing's tracker ends by itself, a little later
    while processes_in(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    assert processes_in(tmp_path) == {}
    assert files_in(tmp_path / "tmp") == []
    # but for the results of what was complete, with which the same command goes on
    assert [path for path in files_in(tmp_path / "work" / "out") if path.is_file() and "cases" not in path.parts] == []
    assert not list((tmp_path / "work").rglob(".*"))
    assert process.returncode == status


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), ("Ctrl-C", -signal.SIGINT)])
def test_a_file_half_written(how, status, start, tmp_path):
    process = start("-c", START + HIDDEN_FILE)
    assert process.stdout.readline() == "ready\n"
    assert len(files_in(tmp_path / "work" / "out")) == 1
    ends_clean(process, how, tmp_path, status)


@pytest.mark.parametrize("ranks", [1, 2])
def test_lammps_that_runs(ranks, start, tmp_path):
    process = start("-c", START + LAMMPS.format(ranks=ranks))
    wait_until(lambda: any("sleep 1000" in command for command in processes_in(tmp_path / "tmp").values()), process)
    ends_clean(process, signal.SIGTERM, tmp_path, 143)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), ("Ctrl-C", -signal.SIGINT)])
def test_lammps_that_waits_for_a_structure(how, status, toy_local, start, tmp_path):
    process = start("-c", START + SESSION.format(path=toy_local))
    assert process.stdout.readline() == "ready\n"
    assert any("lmp" in command for command in processes_in(tmp_path / "tmp").values())
    ends_clean(process, how, tmp_path, status)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), ("Ctrl-C", 130)])
def test_bench(how, status, toy_local, start, tmp_path):
    process = start(
        MLIP, "bench", str(toy_local), "--systems", "nacl64", "--engines", "lammps",
        "--steps", "100000000",
    )  # fmt: skip
    wait_until(lambda: any("/lammps/lmp" in c for c in processes_in(tmp_path / "tmp").values()), process)
    ends_clean(process, how, tmp_path, status)


def holds_a_frame(trajectory: Path) -> bool:
    """Whether its last frame, of 32 atoms, can be read. A file that an engine has opened holds none at first."""
    if trajectory.suffix == ".dcd":  # ASE does not read it: its header, and the frame
        return trajectory.exists() and trajectory.stat().st_size > 276 + 32 * 12
    try:
        return len(read(trajectory)) == 32
    except Exception:  # whatever a reader says of no file, of an empty one and of half a frame
        return False


@pytest.mark.parametrize(
    ("engine", "how", "status"), [("lammps", "Ctrl-C", 130), ("ase", signal.SIGTERM, 143), ("openmm", "Ctrl-C", 130)]
)
def test_a_run_keeps_what_was_done(engine, how, status, pair_potential, start, tmp_path):
    """The engine ends with the command; the trajectory is whole, and the report says how to go on."""
    write(tmp_path / "cu.extxyz", crystal(2))
    words = ["--ensemble", "nve", "--time", "400ps", "--timestep", "2fs", "-o", "run"]  # a frame each second or two
    process = start(MLIP, "run", engine, str(pair_potential), str(tmp_path / "cu.extxyz"), *words)
    run = tmp_path / "work" / "run"
    written = run / {"ase": "trajectory.traj", "lammps": "trajectory.lammpstrj", "openmm": "trajectory.dcd"}[engine]
    wait_until(lambda: holds_a_frame(written), process)
    ends_clean(process, how, tmp_path, status)
    page = (run / "report.html").read_text()
    assert "it was interrupted at step" in page
    assert holds_a_frame(written)


COMMANDS = {
    # what is typed after `mlip`, and the line of its progress at which it is ended
    "export, at work": ("export sevennet {checkpoint} -o out/a.mlip.pt", "fixture sheared crystal"),
    "export, writing": ("export sevennet {checkpoint} -o out/a.mlip.pt", "writing out/a.mlip.pt"),
    "check, ase": ("check {toy} --engines ase --json out/a.json", "ase, 1 rank"),
    "check, lammps": ("check {toy} --engines lammps --ranks 1", "lammps, 1 rank"),
    "check, two ranks": ("check {toy} --engines lammps --ranks 2", "lammps, 2 rank"),
    "validate": ("validate {toy} --suites fidelity -o out/validation", "lammps, 2 rank"),
    "validate, dynamics": ("validate {toy} --suites physics -o out/validation", "dynamics in lammps"),
    "compare": ("compare {toy} {halo} --elements Na,Cl --engine lammps -o out/comparison", ""),
    "bench, ase": ("bench {toy} --systems nacl64 --engines ase --steps 100000000", "nacl64"),
}


@pytest.mark.parametrize(
    ("command", "how", "status"),
    # Each in one of the two ways, in turn.
    [(command, *((signal.SIGTERM, 143), ("Ctrl-C", 130))[k % 2]) for k, command in enumerate(COMMANDS)],
)
def test_commands(command, how, status, artifacts, toy_local, toy_halo, start, tmp_path):
    words, moment = COMMANDS[command]
    words = words.format(checkpoint=artifacts.checkpoint(), toy=toy_local, halo=toy_halo)
    process = start(MLIP, *words.split(), stderr=subprocess.PIPE)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if moment in line:
            break
    assert process.poll() is None, "".join(lines)
    ends_clean(process, how, tmp_path, status)
