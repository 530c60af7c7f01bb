"""Artifacts with other records, and with the bytes of a zip file changed by hand."""

from collections.abc import Callable
from pathlib import Path

from mlip_deploy.artifact.sealed_archive import SealedArchive, write


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The same archive with what `change` does to the contents of its records, sealed anew."""
    contents = SealedArchive(source).read_all()
    change(contents)
    with target.open("wb") as file:
        write(file, contents)
    return target
