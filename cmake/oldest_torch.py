"""Build the library and the C++ unit tests against the oldest torch that pyproject.toml allows, and run them.

PyPI's wheel of it has 900 MB and asks for several GB of CUDA, of which the tests need two small libraries: on the CPU
libtorch_cpu.so and libc10.so are all of torch. They are kept in FOLDER: oldest_torch.py FOLDER.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from requirements import project

ROOT = Path(__file__).parent.parent
NEEDED_OF_CUDA = ("nvidia-cuda-runtime", "nvidia-cuda-cupti")
PARTS = ("torch/include/", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp", "torch/version.py")


def oldest_minor_release() -> str:
    """Such as 2.9, of torch>=2.9."""
    (torch,) = (r for r in map(Requirement, project["project"]["dependencies"]) if r.name == "torch")
    (bound,) = (s.version for s in torch.specifier if s.operator == ">=")
    return bound


def download(requirements: list[str], folder: Path) -> list[Path]:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*pip, *requirements], check=True)
    return list(folder.glob("*.whl"))


def unpack(release: str, folder: Path) -> None:
    """torch, as far as the CPU needs it, of the newest patch of a minor release, in folder/torch."""
    with tempfile.TemporaryDirectory() as temporary:
        (wheel,) = download([f"torch=={release}.*"], Path(temporary))
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


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    release = oldest_minor_release()
    if not (folder / release).exists():
        unpack(release, folder / release)
    build = folder / f"build-{release}"
    tools = Path(sys.executable).parent
    options = [f"-DMLIP_TORCH={folder / release / 'torch'}", f"-DPython_EXECUTABLE={sys.executable}"]
    options += ["-DMLIP_BUILD_TESTS=ON", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"]
    subprocess.run([tools / "cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *options], check=True)
    subprocess.run([tools / "cmake", "--build", build, "--target", "unit_tests"], check=True)
    subprocess.run([tools / "ctest", "--test-dir", build, "--output-on-failure"], check=True)
    print(f"torch {release} builds the library, and the C++ tests pass with it")


if __name__ == "__main__":
    main()
