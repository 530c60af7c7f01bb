"""Build the library and the C++ unit tests against the oldest torch that pyproject.toml allows, and run them.

The torch is kept in FOLDER: oldest_torch.py FOLDER.
"""

import subprocess
import sys
from pathlib import Path

from other_torches import unpack
from packaging.requirements import Requirement
from requirements import project

ROOT = Path(__file__).parent.parent


def oldest_minor_release() -> str:
    """Such as 2.9, of torch>=2.9."""
    (torch,) = (r for r in map(Requirement, project["project"]["dependencies"]) if r.name == "torch")
    (bound,) = (s.version for s in torch.specifier if s.operator == ">=")
    return bound


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    release = oldest_minor_release()
    torch = unpack(f"{release}.*", folder / release)
    build = folder / f"build-{release}"
    tools = Path(sys.executable).parent
    options = [f"-DMLIP_TORCHES={torch}", f"-DPython_EXECUTABLE={sys.executable}"]
    options += ["-DMLIP_BUILD_TESTS=ON", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"]
    subprocess.run([tools / "cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *options], check=True)
    subprocess.run([tools / "cmake", "--build", build, "--target", "unit_tests"], check=True)
    subprocess.run([tools / "ctest", "--test-dir", build, "--output-on-failure"], check=True)
    print(f"torch {release} builds the library, and the C++ tests pass with it")


if __name__ == "__main__":
    main()
