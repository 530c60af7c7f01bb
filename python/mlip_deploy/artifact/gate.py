"""The gate: what `mlip validate --sign` writes into an artifact, and whether it still holds.

The record `mlip/validation.json` says which suites passed, in which engines and with which versions, and the SHA-256
of everything else in the file. A file that was edited since, or that runs under another version, is stale: engines
say so, and `pair_style mlip strict yes` refuses it. csrc/core/validation_record.h reads the same record.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from mlip_deploy.artifact.reader import SIGNATURE_RECORD, Artifact
from mlip_deploy.artifact.validation_record import ENGINE_PACKAGES, Signature, release
from mlip_deploy.errors import MLIPError


class UnvalidatedWarning(UserWarning):
    """A file without a signature that holds here."""


def problem(artifact: Artifact, engine: str) -> str:
    """Why a file has not been shown to work in an engine as it is installed here; "" if it has."""
    signature = artifact.signature()
    if signature is None:
        return "nobody has validated it"
    if signature.content_sha256 != artifact.content_sha256():
        return "it was changed after it was validated"
    if engine not in signature.engines:
        return f"it was validated in {', '.join(signature.engines)}, not in {engine}"
    for package in ("torch", ENGINE_PACKAGES[engine]):
        expected = signature.versions.get(package)
        if expected is not None and expected != release(package):
            return f"it was validated with {package} {expected}, this is {release(package)}"
    return ""


def line_to_type(artifact: Artifact) -> str:
    return f"mlip validate {artifact.path} --sign -o validation"


def warn_if_unvalidated(artifact: Artifact, engine: str) -> None:
    """A warning (once for each text, as Python does) for a file that is not signed, or whose signature is stale."""
    found = problem(artifact, engine)
    if found:
        warnings.warn(f"'{artifact.path}': {found}. Type: {line_to_type(artifact)}", UnvalidatedWarning, stacklevel=3)


@contextmanager
def unvalidated_ignored() -> Iterator[None]:
    """For checks and validation, which run files that nobody has signed yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnvalidatedWarning)
        yield


def sign(artifact: Artifact, signature: Signature) -> None:
    """Write the record into the file, in place of an older one; the file changes in one step.

    Raises:
        MLIPError: if the file is not the one that was validated, or its folder cannot be written to.
    """
    if signature.content_sha256 != artifact.content_sha256():
        raise MLIPError(f"'{artifact.path}' changed while it was validated. Type: {line_to_type(artifact)}")
    try:
        handle, temporary = tempfile.mkstemp(dir=artifact.path.parent, prefix=f".{artifact.path.name}.")
    except OSError as error:
        raise MLIPError(
            f"--sign: no file can be made beside '{artifact.path}' ({error.strerror}). Sign a copy"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(artifact.path) as old, zipfile.ZipFile(file, "w") as new:
            for entry in old.infolist():
                if entry.filename.partition("/")[2] != f"extra/{SIGNATURE_RECORD}":
                    _write_aligned(new, file.tell(), entry, old.read(entry))
            folder = old.namelist()[0].partition("/")[0]
            record = zipfile.ZipInfo(f"{folder}/extra/{SIGNATURE_RECORD}")  # dated 1980, so that bytes repeat
            _write_aligned(new, file.tell(), record, signature.model_dump_json(by_alias=True, indent=1).encode())
        shutil.copymode(artifact.path, temporary)
        os.replace(temporary, artifact.path)
    except BaseException:
        os.unlink(temporary)
        raise


ALIGNMENT = 64
"""bytes; torch maps tensors from records that begin at a multiple of it"""


def _write_aligned(archive: zipfile.ZipFile, offset: int, entry: zipfile.ZipInfo, content: bytes) -> None:
    """Write a record whose header begins at `offset`, padded as torch does it (an extra field "FB")."""
    entry = copy.copy(entry)
    header = 30 + len(entry.filename.encode()) + 4
    padding = -(offset + header) % ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(entry, content)
