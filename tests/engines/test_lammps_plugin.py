"""mlipplugin.so loads the style, and torch with it, only when an input asks for it, and with its own symbols first."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from lammps_decks import Deck, run_decks
from test_lammps_decks import check_against_ase, rocksalt

from mlip_deploy.engines import lammps_plugin
from mlip_deploy.engines.lammps import LAMMPSError, run
from mlip_deploy.libraries import LIBRARY_DIRECTORY

FOLDER = LIBRARY_DIRECTORY / "lammps"
CLASSICAL = (
    "units metal\nlattice fcc 5.26\nregion box block 0 2 0 2 0 2\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 39.9\n"
    "pair_style lj/cut 6.0\npair_coeff 1 1 0.0104 3.4\nrun 0\n"
)
# An allocator that stands in front of libc's, as jemalloc does with LD_PRELOAD.
ALLOCATOR = """
#include <stddef.h>
void* __libc_malloc(size_t);
void* malloc(size_t size) { return __libc_malloc(size); }
"""


@pytest.fixture
def linker(tmp_path, monkeypatch):
    """What the dynamic linker of `lmp` says about `what`, for a run under it."""

    def linker(what, script, ranks=1):
        monkeypatch.setenv("LD_DEBUG", what)
        monkeypatch.setenv("LD_DEBUG_OUTPUT", str(tmp_path / "linker"))
        try:
            run(script, tmp_path, ranks=ranks)
        finally:
            monkeypatch.delenv("LD_DEBUG")
        texts = [path.read_text(errors="replace") for path in tmp_path.glob("linker.*")]
        return [line for text in texts if "liblammps" in text for line in text.splitlines()]

    return linker


def serving(lines, symbol):
    """Names of the libraries that serve a symbol to libtorch."""
    pattern = re.compile(rf"binding file \S*/libtorch_cpu\.so \[0\] to (\S+) \[0\]: normal symbol `{symbol}'")
    return {Path(found.group(1)).name for line in lines if (found := pattern.search(line))}


@pytest.mark.parametrize("ranks", [1, 2])
def test_torch_multiplies_matrices_with_its_own_library(ranks, linker, tiny, tmp_path):
    """liblammps has a dgemm_ without blocks or vectors: 4 times slower for a model in float64."""
    lines = linker("bindings", Deck(rocksalt()).script("d", tiny, tmp_path), ranks)
    assert serving(lines, "dgemm_") == {"libtorch_cpu.so"}


def test_another_allocator_keeps_its_place(linker, tiny, tmp_path, monkeypatch):
    """Deep binding would give libtorch libc's functions, and the rest of the process the allocator's."""
    (tmp_path / "allocator.c").write_text(ALLOCATOR)
    command = ["cc", "-shared", "-fPIC", "-o", tmp_path / "allocator.so", tmp_path / "allocator.c"]
    subprocess.run(command, check=True)
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "allocator.so"))
    lines = linker("bindings", Deck(rocksalt()).script("d", tiny, tmp_path))
    assert serving(lines, "malloc") == {"allocator.so"}


def test_a_run_without_the_style_does_not_load_torch(linker, tmp_path):
    lines = linker("files", CLASSICAL)
    assert any("mlipplugin.so" in line for line in lines)
    assert not [line for line in lines if "libtorch" in line or "libmlip" in line]


def test_unloading_and_loading_again(tiny, tmp_path):
    again = f"plugin unload pair mlip\nplugin load {FOLDER / 'mlipplugin.so'}\n"
    deck = Deck(rocksalt(), before=f"{again}clear\nunits metal\n{again}")
    (outcome,) = run_decks({"again": deck}, {"tiny": tiny}, tmp_path, 2).values()
    check_against_ase(outcome, deck, tiny)


def test_a_link_to_the_plugin_finds_its_other_file(tiny, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "plugin.so").symlink_to(FOLDER / "mlipplugin.so")
    load = "plugin unload pair mlip\nshell cd elsewhere\nplugin load ./plugin.so\nshell cd .."
    deck = Deck(rocksalt(), before=load)
    (outcome,) = run_decks({"link": deck}, {"tiny": tiny}, tmp_path, 1).values()
    check_against_ase(outcome, deck, tiny)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A site folder with nothing in it but this package's libraries, for a torch of another number that is this one."""

    def install(release, served):
        site = tmp_path / "site"
        libraries = site / "mlip_deploy" / "lib"
        shutil.copytree(FOLDER, libraries / "lammps")
        (real,) = LIBRARY_DIRECTORY.glob("torch-*")
        for name in served:
            shutil.copytree(real, libraries / f"torch-{name}")
        torch = Path(find_spec("torch").origin).parent
        (site / "torch").mkdir()
        (site / "torch" / "lib").symlink_to(torch / "lib")
        if release:
            (site / "torch" / "version.py").write_text(f"debug = False\n__version__ = '{release}'\n")
        return libraries

    return install


def deck_of(libraries, tiny, tmp_path):
    load = f"plugin unload pair mlip\nplugin load {libraries / 'lammps' / 'mlipplugin.so'}"
    return Deck(rocksalt(), before=load).script("d", tiny, tmp_path)


def test_the_library_for_the_installed_torch_is_loaded(installed, linker, tiny, tmp_path):
    libraries = installed("2.99.1+cpu", ["2.9", "2.99", "2.100"])
    lines = linker("files", deck_of(libraries, tiny, tmp_path))
    loaded = {word.removeprefix("file=") for line in lines for word in line.split() if word.endswith("/libmlip.so")}
    assert loaded == {str(libraries / "torch-2.99" / "libmlip.so")}


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ("2.12.0", "but torch 2.12.0 is in {site}/torch. Type: pip install 'torch==2.100.*'   or build mlip-deploy"),
        (None, "but there is no torch in {site}/torch. Type: pip install 'torch==2.100.*'   or set the environment"),
    ],
)
def test_another_torch_is_refused(release, message, installed, tiny, tmp_path):
    libraries = installed(release, ["2.100", "2.13", "2.9"])
    with pytest.raises(LAMMPSError) as error:
        run(deck_of(libraries, tiny, tmp_path), tmp_path)
    assert "pair_style mlip was built for torch 2.9 and 2.13 and 2.100, " in str(error.value)
    assert message.format(site=tmp_path / "site") in str(error.value)


def test_torch_may_be_elsewhere(installed, linker, tiny, tmp_path, monkeypatch):
    """As in an environment that sees another's packages: the entry point says where (MLIP_TORCH)."""
    libraries = installed("2.99.0", ["2.99"])
    shutil.move(tmp_path / "site" / "torch", tmp_path / "torch")
    monkeypatch.setenv("MLIP_TORCH", str(tmp_path / "torch"))
    lines = linker("files", deck_of(libraries, tiny, tmp_path))
    assert any(str(tmp_path / "torch" / "lib" / "libtorch.so") in line for line in lines)


def test_the_entry_point_says_where_torch_is(tmp_path, monkeypatch):
    monkeypatch.setattr(lammps_plugin, "LIBRARY_DIRECTORY", tmp_path / "mlip_deploy" / "lib")
    monkeypatch.delenv("MLIP_TORCH", raising=False)
    lammps_plugin.plugin_directory()
    assert os.environ.pop("MLIP_TORCH") == str(Path(find_spec("torch").origin).parent)


def test_a_copy_of_the_plugin_alone_is_refused(tiny, tmp_path):
    copy = shutil.copy(FOLDER / "mlipplugin.so", tmp_path)
    script = Deck(rocksalt(), before=f"plugin unload pair mlip\nplugin load {copy}").script("d", tiny, tmp_path)
    message = (
        f"pair_style mlip is in two files: found {copy}, but no libmlip_lammps.so beside it. For the lammps package"
    )
    with pytest.raises(LAMMPSError, match=re.escape(message)):
        run(script, tmp_path)


def test_a_library_that_cannot_load_is_named_with_the_reason(installed, tiny, tmp_path):
    """As for a LAMMPS whose classes have other functions, where LAMMPS itself says "Unrecognized pair style"."""
    folder = installed("2.99.0", ["2.99"]) / "lammps"
    (tmp_path / "missing.c").write_text(
        "void of_another_lammps(void); void mlip_create_pair(void) { of_another_lammps(); }"
    )
    library = folder / "libmlip_lammps.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "missing.c"], check=True)
    script = deck_of(folder.parent, tiny, tmp_path)
    message = (
        r"pair_style mlip could not be loaded \(.*undefined symbol: of_another_lammps\). It was built for LAMMPS ver"
    )
    with pytest.raises(LAMMPSError, match=message):
        run(script, tmp_path)
