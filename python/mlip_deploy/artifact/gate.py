"""The gate: the validation record that `mlip validate --record` writes into an artifact, and whether it still holds.

The record `mlip/validation.json` says what the verdict was, in which engines and with which versions, and the SHA-256
of everything else in the file. It is stale when the file was edited since, or runs under another version. Engines warn
of a record that is stale or says "fail", and say nothing of a file without one; `pair_style mlip strict yes` refuses
all three. csrc/core/validation_record.h reads the same record.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mlip_deploy.artifact.reader import VALIDATION_RECORD, Artifact
from mlip_deploy.artifact.sealed_archive import SealedArchive, write
from mlip_deploy.artifact.validation_record import ENGINE_PACKAGES, ValidationRecord, release
from mlip_deploy.errors import MLIPError
from mlip_deploy.files import replacing


class ValidationRecordWarning(UserWarning):
    """A file whose validation record says that it failed, or does not hold here."""


NO_RECORD = "it has not been validated"


def problem(artifact: Artifact, engine: str) -> str:
    """Why a file has not been shown to work in an engine as it is installed here; "" if it has."""
    try:
        record = artifact.validation_record()
    except MLIPError:
        return "its validation record cannot be read, and may come from another version of mlip-deploy"
    if record is None:
        return NO_RECORD
    if record.content_sha256 != artifact.content_sha256():
        return "it was changed after it was validated"
    if record.verdict == "fail":
        first = f", the first: {record.failures[0]}" if record.failures else ""
        return f"it failed its validation ({len(record.failures)} check(s){first})"
    if engine not in record.engines:
        return f"it was validated in {', '.join(record.engines)}, not in {engine}"
    for package in ("torch", ENGINE_PACKAGES[engine]):
        expected = record.versions.get(package)
        if expected is not None and expected != release(package):
            return f"it was validated with {package} {expected}, this is {release(package)}"
    return ""


def line_to_type(artifact: Artifact) -> str:
    return f"mlip validate {artifact.path} --record -o validation"


def warn_if_in_doubt(artifact: Artifact, engine: str) -> None:
    """A warning (once for each text, as Python does) for a record that is stale or says "fail".

    A file without a record, as `mlip export` writes it, is no reason to warn.
    """
    found = problem(artifact, engine)
    if found not in ("", NO_RECORD):
        text = f"'{artifact.path}': {found}. Type: {line_to_type(artifact)}"
        warnings.warn(text, ValidationRecordWarning, stacklevel=3)


@contextmanager
def doubts_ignored() -> Iterator[None]:
    """For checks and validation, which find out themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidationRecordWarning)
        yield


def write_validation_record(artifact: Artifact, validation: ValidationRecord) -> None:
    """Write the record into the file, in place of an older one; the file changes in one step.

    Raises:
        MLIPError: if the file is not the one that was validated, or cannot be written.
    """
    archive = SealedArchive(artifact.path)
    if validation.content_sha256 != archive.content_sha256():
        raise MLIPError(f"'{artifact.path}' changed while it was validated. Type: {line_to_type(artifact)}")
    record = validation.model_dump_json(by_alias=True, indent=1).encode()
    with replacing(artifact.path) as file:
        write(file, archive.read_all() | {f"extra/{VALIDATION_RECORD}": record})
