"""What a datasheet and an atlas are made of, as they are stored: numbers, pieces of evidence, sheets.

Every page is written from these records alone. What was not measured is missing evidence with its reason, and has no
numbers.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mlip_deploy.comparison.audit import Flag
from mlip_deploy.report.content import Curve

Status = Literal["measured", "missing", "not-applicable"]
Better = Literal["low", "high", "one"]
"""which end of a number is better; "one": the nearer to 1, of ratios to what should be"""


def name_of(file: str) -> str:
    """The name of a sheet: that of the artifact without its suffix."""
    return re.sub(r"\.mlip\.pt2?$", "", file)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Number(_Strict):
    """One measured number."""

    quantity: str
    value: float
    unit: str = ""
    interval: tuple[float, float] | None = None
    """which holds the value with 95 % by what was sampled; None where everything was measured, or once"""
    n: int | None = None
    """of how many structures, elements, materials"""
    better: Better | None = None
    """None where no end is"""


class Found(_Strict):
    """What a piece measured."""

    said: str
    """in plain words, part of a sentence"""
    numbers: list[Number]
    """three or so, which a reader compares"""
    details: list[Number] = []
    """of single materials and the like"""
    curves: list[Curve] = []
    errors: dict[str, float] = {}
    """eV/atom, signed, of each labelled structure: what an audit of the labels needs"""
    notes: list[str] = []


class Evidence(_Strict):
    """What one piece says about one model."""

    piece: str
    question: int
    measures: str
    not_tested: str
    """what the piece leaves open"""
    status: Status
    reason: str = ""
    """why there is nothing"""
    found: Found | None = None
    seconds: float = 0.0
    """by the clock on the wall, which other programs on the machine slow down"""
    cpu_seconds: float = 0.0
    """of the process and those that it started, without engines that are still open"""


class Stored(_Strict):
    """Evidence on disk."""

    key: str
    """digest of all that it depends on"""
    evidence: Evidence


class Identity(_Strict):
    """Which file and model it is."""

    file: str
    content_sha256: str
    """of the file without its validation and domain"""
    megabytes: float
    name: str
    family: str
    source_sha256: str
    licence: str
    citation: str
    dtype: str
    parallel: str
    elements: list[str]
    cutoff: float
    """Å"""
    interaction_range: float
    """Å"""
    energy_frame: str
    fixed: dict[str, str]
    """inputs of the original that the file has fixed, such as a modality"""
    settings: list[str]
    outputs: list[str]
    domain: str
    """fitted to what, in words"""
    validation: str


class Sheet(_Strict):
    """The datasheet of one model."""

    identity: Identity
    machine: dict[str, Any]
    versions: dict[str, str]
    threads: int
    evidence: list[Evidence]

    def of(self, question: int) -> list[Evidence]:
        """The evidence to one question, in the order of the pieces."""
        return [evidence for evidence in self.evidence if evidence.question == question]

    @property
    def name(self) -> str:
        """Of the file, without its suffix: two files may hold one model with other settings."""
        return name_of(self.identity.file)

    @property
    def minutes(self) -> tuple[float, float]:
        """That all pieces took: on the wall, and of CPU time."""
        return (
            sum(evidence.seconds for evidence in self.evidence) / 60.0,
            sum(evidence.cpu_seconds for evidence in self.evidence) / 60.0,
        )


class Relatives(_Strict):
    """Models of one family, each on what the others sampled."""

    family: str
    models: list[str]
    reason: str = ""
    """why there are no numbers"""
    forces: list[list[float]] = []
    """[i][j] eV/Å: mean absolute difference of force components of model i and model j on what j sampled"""
    structures: int = 0
    seconds: float = 0.0


class Atlas(_Strict):
    """Several models."""

    sheets: list[Sheet]
    failures: dict[str, str]
    """file: why its sheet is not whole"""
    relatives: list[Relatives]
    flags: list[Flag]
    """labels from which models of different families are far while they agree with each other"""
