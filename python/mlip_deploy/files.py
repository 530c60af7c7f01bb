"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlip_deploy.errors import MLIPError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[str]:
    """A name beside the final one to write to, then renamed. A failure leaves an existing file as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def require_file(path: str | Path) -> None:
    """Find out before the work that a file cannot be written.

    Raises
    ------
    MLIPError
        For a folder, a device, and a file whose folder takes no files.
    """
    path = Path(path)
    if path.is_dir():
        raise MLIPError(f"'{path}' is a folder. Name a file in it")
    if path.exists() and not path.is_file():
        raise MLIPError(f"'{path}' is not a regular file, and would be replaced by one. Name another file")
    _try_to_write(path.parent)


def require_folder(path: str | Path) -> None:
    """Find out before the work that no files can be written to a folder, which need not be there yet.

    Raises
    ------
    MLIPError
        For a file, and a folder that takes no files or cannot be made.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise MLIPError(f"'{path}' is a file. Name a folder")
    _try_to_write(path)


def _try_to_write(folder: Path) -> None:
    """In the folder, or in the nearest one above it that is there; leaves nothing behind."""
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MLIPError(f"no file can be written in '{folder}' ({error.strerror}). Name another folder") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file in one step, and its folder where that is missing."""
    with replacing(path) as temporary:
        Path(temporary).write_text(text)
