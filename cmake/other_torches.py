"""Fetch other releases of torch than the installed one, as far as the CPU library is built and tested against them.

PyPI's wheel of a release has 900 MB and asks for several GB of CUDA, of which two small libraries are needed: on the
CPU libtorch_cpu.so and libc10.so are all of torch.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

NEEDED_OF_CUDA = ("nvidia-cuda-runtime", "nvidia-cuda-cupti")
PARTS = ("torch/include/", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp", "torch/version.py")


def download(requirements: list[str], folder: Path) -> list[Path]:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*pip, *requirements], check=True)
    return list(folder.glob("*.whl"))


def unpack(release: str, folder: Path) -> Path:
    """folder/torch, as far as the CPU needs it, of a release such as 2.9.1 or 2.9.*. It is kept from call to call."""
    if (folder / "torch" / "lib" / "libtorch.so").exists():
        return folder / "torch"
    with tempfile.TemporaryDirectory() as temporary:
        (wheel,) = download([f"torch=={release}"], Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            archive.extractall(folder, [name for name in names if name.startswith(PARTS)])
            metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    required = map(Requirement, re.findall(r"^Requires-Dist: ([^;\n]+)", metadata, flags=re.MULTILINE))
    of_cuda = [str(requirement) for requirement in required if requirement.name.startswith(NEEDED_OF_CUDA)]
    library = folder / "torch" / "lib"
    with tempfile.TemporaryDirectory() as temporary:
        for wheel in download(of_cuda, Path(temporary)):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if re.search(r"/lib(cudart|cupti)\.so[.\d]*$", name):
                        with archive.open(name) as source, (library / Path(name).name).open("wb") as sink:
                            shutil.copyfileobj(source, sink)
    # libtorch.so only asks for the others, and for CUDA's.
    empty = ["c++", "-shared", "-x", "c++", "/dev/null", "-Wl,-soname,libtorch.so", "-o", str(library / "libtorch.so")]
    subprocess.run(empty, check=True)
    return folder / "torch"
