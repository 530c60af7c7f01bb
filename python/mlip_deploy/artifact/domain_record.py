"""The domain of an artifact: which environments of atoms its model has been shown to know.

The record `mlip/domain` is a line of JSON, then the arrays of `ElementArrays` of each element, float32, little-endian,
one after the other. csrc/core/domain_record.h reads the same, and says what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlip_deploy.artifact.sealed_archive import DOMAIN, SealedArchive, write
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import replacing
from mlip_deploy.result import Array

MOST_BYTES = 2_000_000
"""of a record"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Shown(_Strict):
    """How well grades told large errors of forces, of frames that the domain then did not have (cross-validation)."""

    frames: int
    """that have forces as labels"""
    threshold: float
    """eV/Å: what is called a large error of an atom's force"""
    large: float
    """share of the atoms that have one"""
    auroc: float | None
    """probability that an atom with a large error has a higher grade than one without; None where all or none have"""
    correlation: float | None
    """Spearman's, of grade and error; None where either is the same for all atoms"""

    def describe(self) -> str:
        """In words."""
        ranks = [
            f"{name} {value:.2f}"
            for name, value in (("AUROC", self.auroc), ("rank correlation", self.correlation))
            if value is not None
        ]
        return (
            f"force errors above {self.threshold:g} eV/Å ({100 * self.large:.3g} % of the atoms) in {self.frames} "
            f"held-out frames: {', '.join(ranks) or 'nothing to rank'}"
        )


class Uncertainty(_Strict):
    """Of energies, in eV: the last layer's variance (LLPR), scaled to the errors of frames that were left out.

    A structure's energy is compared after a fit of one shift per element, since labels may have another zero of energy.
    """

    frames: int
    """that have an energy as label"""
    scale: float = Field(gt=0)
    """eV"""
    correlation: float
    """Spearman's, of uncertainty and error of the left-out frames"""
    within_one: float
    """share of the left-out frames whose error is below their uncertainty; 0.68 for a normal distribution"""
    within_two: float
    """below twice the uncertainty; 0.95"""
    matrix: str
    """[n_features, n_features] float32, little-endian, in base64: an energy is uncertain by |scale · matrix · features|
    with the features of an atom, or summed over those of a structure"""

    def describe(self) -> str:
        """In words."""
        return (
            f"energy uncertainties of {self.frames} held-out frames: rank correlation {self.correlation:.2f} with the "
            f"error, {100 * self.within_one:.0f} % within one of them and {100 * self.within_two:.0f} % within two "
            "(68 and 95 if normal)"
        )


class OfElement(_Strict):
    """What the line of JSON says of an element."""

    element: str
    environments: int
    """of reference"""
    axes: int = Field(ge=0)
    points: int = Field(ge=1)
    distance: float = Field(gt=0)
    """of grade 1"""


class DomainHead(_Strict):
    """The line of JSON."""

    schema_version: Literal["1.0"] = Field(default="1.0", alias="schema")
    content_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """of the file that the domain belongs to"""
    features: int = Field(ge=1)
    frames: int
    """of reference"""
    sources: list[str]
    """where they come from, in words"""
    elements: list[OfElement]
    shown: Shown | None
    """None where no frame has forces as labels"""
    uncertainty: Uncertainty | None
    """None where few frames have an energy as label"""

    def describe(self) -> str:
        """In words."""
        atoms = ", ".join(f"{of.element} {of.environments}" for of in self.elements)
        shown = f"; {self.shown.describe()}" if self.shown else "; without labels"
        uncertain = f"; {self.uncertainty.describe()}" if self.uncertainty else ""
        return f"{self.frames} frames ({', '.join(self.sources)}), environments: {atoms}{shown}{uncertain}"


@dataclass(frozen=True)
class ElementArrays:
    """The space in which an element's environments are compared: see csrc/core/domain_record.h."""

    mean: Array
    """[n_features]"""
    axes: Array
    """[n_axes, n_features], orthonormal"""
    scales: Array
    """[n_axes + 1]"""
    points: Array
    """[n_points, n_axes + 1]"""

    def coordinates(self, features: Array) -> Array:
        """[n, n_axes + 1] of features [n, n_features]."""
        x = features - self.mean
        along = x @ self.axes.T
        outside = np.linalg.norm(x - along @ self.axes, axis=1)
        coordinates: Array = np.column_stack([along, outside]) * self.scales
        return coordinates

    def distances(self, features: Array) -> Array:
        """Of features [n, n_features] to the nearest point, [n]."""
        z = self.coordinates(features)
        squared = (z**2).sum(1)[:, None] + (self.points**2).sum(1) - 2.0 * z @ self.points.T
        distances: Array = np.sqrt(np.clip(squared.min(1), 0.0, None))
        return distances

    def pack(self) -> bytes:
        """As the record holds them."""
        return b"".join(map(float32_bytes, (self.mean, self.axes, self.scales, self.points)))


def float32_bytes(array: Array) -> bytes:
    """Row by row, little-endian."""
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def pack(head: DomainHead, arrays: Sequence[ElementArrays]) -> bytes:
    """The bytes of a record.

    Raises:
        MLIPError: for more than MOST_BYTES.
    """
    record = head.model_dump_json(by_alias=True).encode() + b"\n" + b"".join(one.pack() for one in arrays)
    if len(record) > MOST_BYTES:
        raise MLIPError(
            f"the domain of {len(arrays)} elements with {head.features} features takes {len(record)} bytes, at most "
            f"{MOST_BYTES} are allowed. Leave out frames of some elements"
        )
    return record


def parse_domain(record: bytes, path: Path, content_sha256: str) -> DomainHead:
    """Read the first line of a file's record; the library reads all of it.

    Raises:
        MLIPError: for a record that cannot be read, or that belongs to another model.
    """
    fit = f"mlip domain fit {path} --frames FRAMES.extxyz"
    try:
        head = DomainHead.model_validate_json(record.partition(b"\n")[0])
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise MLIPError(f"'{path}': the record of its domain cannot be read ({reason}). Fit it again: {fit}") from error
    if head.content_sha256 != content_sha256:
        raise MLIPError(
            f"'{path}' has the domain of another model: that of {head.content_sha256[:12]}, this is "
            f"{content_sha256[:12]}. Fit its own: {fit}"
        )
    return head


def parse_spaces(record: bytes, head: DomainHead) -> dict[str, ElementArrays]:
    """The space of each element, scaled so that grade 1 is a distance of 1.

    Args:
        record: of which `head` is the first line.
    """
    numbers = np.frombuffer(record.partition(b"\n")[2], dtype="<f4").astype(float)
    spaces = {}
    for of in head.elements:
        d, k, m = head.features, of.axes, of.points
        mean, axes, scales, points, numbers = np.split(numbers, np.cumsum([d, k * d, k + 1, m * (k + 1)]))
        spaces[of.element] = ElementArrays(
            mean, axes.reshape(k, d), scales / of.distance, points.reshape(m, k + 1) / of.distance
        )
    return spaces


def write_domain(path: Path, output: Path, record: bytes) -> None:
    """Write a file with the record, in place of an older one; it changes in one step.

    Raises:
        MLIPError: where the file cannot be written.
    """
    contents = SealedArchive(path).read_all() | {DOMAIN: record}
    with replacing(output) as file:
        write(file, contents)
