"""Compile what sees torch with the headers of the oldest torch that pyproject.toml allows. Nothing is linked or run.

The headers come from the wheel for Linux on ARM, which has 100 MB: that for x86-64 has 900 MB, and several GB of CUDA
behind it. They are kept in FOLDER: oldest_torch.py BUILD FOLDER, where BUILD has compile_commands.json.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from requirements import project

WHEEL = ["--only-binary=:all:", "--platform", "manylinux_2_28_aarch64", "--python-version", "3.11"]


def oldest_minor_release() -> str:
    """Such as 2.9, of torch>=2.9."""
    (torch,) = (r for r in map(Requirement, project["project"]["dependencies"]) if r.name == "torch")
    (bound,) = (s.version for s in torch.specifier if s.operator == ">=")
    return bound


def unpack_headers(release: str, folder: Path) -> None:
    """torch/include of the newest patch of a minor release."""
    with tempfile.TemporaryDirectory() as download:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            download,
            *WHEEL,
            f"torch=={release}.*",
        ]
        subprocess.run(pip, check=True)
        (wheel,) = Path(download).glob("torch-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith("torch/include/")])


def commands(build: Path, include: Path) -> dict[str, list[str]]:
    """By source file: the compiler's call of the build, with other headers of torch and without a result."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        if not any(word.endswith("torch/include") for word in words):
            continue
        at = words.index("-o")
        words[at : at + 2] = ["-fsyntax-only"]
        found[entry["file"]] = [
            str(include) + word.partition("torch/include")[2] if "/torch/include" in word else word for word in words
        ]
    return found


def main() -> None:
    build, folder = (Path(argument).absolute() for argument in sys.argv[1:])
    release = oldest_minor_release()
    headers = folder / release
    if not headers.exists():
        unpack_headers(release, headers)
    calls = commands(build, headers / "torch" / "include")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = dict(
            zip(calls, pool.map(lambda call: subprocess.run(call, cwd=build).returncode, calls.values()), strict=True)
        )
    refused = [Path(name).name for name, code in codes.items() if code != 0]
    if not calls or refused:
        sys.exit(f"torch {release} does not compile {len(refused)} of {len(calls)} sources: {', '.join(refused)}")
    print(f"torch {release} compiles all {len(calls)} sources")


if __name__ == "__main__":
    main()
