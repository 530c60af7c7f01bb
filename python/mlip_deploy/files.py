"""Writing files so that a reader never meets half of one, and a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlip_deploy.errors import MLIPError, UnwritableError

CURES = {
    errno.ENOSPC: "Free some space there, or name a file on another disk",
    errno.EDQUOT: "Free some space there, or name a file on another disk",
    errno.EFBIG: "The limit on the size of files is too low (ulimit -f)",
}
OTHER_CURE = "Name a file in a folder that you may write to"


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the place of `path` when the block ends without an exception.

    It stands hidden beside `path` until then, and is removed whatever stops the block. A symbolic link stays one: the
    file that it points to is replaced. An existing file keeps its permissions. What is not a regular file, such as
    /dev/stdout, is written to at the end.

    Raises
    ------
        UnwritableError: when the file cannot be written; `path` is as it was then.
    """
    target = Path(os.path.realpath(path))
    special = target.exists() and not target.is_file()
    temporary: Path | None = None
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not special:
            target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.gettempdir()) if special else target.parent
        # torch knows a package by its suffix
        temporary = folder / f".mlip-{secrets.token_hex(8)}{target.suffix}"
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some disks say only now that they are full
        if special:
            with open(temporary, "rb") as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
            temporary = None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnwritableError(
            f"'{path}' cannot be written: {reason}. {CURES.get(error.errno or 0, OTHER_CURE)}; nothing was changed"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_files() -> Iterator[None]:
    """For work in the folder of temporary files.

    Raises
    ------
        UnwritableError: when there is no such folder, or no space in it.
    """
    try:
        yield
    except OSError as error:
        nowhere = isinstance(error, FileNotFoundError) and error.filename is None  # tempfile's own
        if error.errno not in CURES and not nowhere:
            raise
        where = "in any of the usual folders" if nowhere else f"in '{tempfile.gettempdir()}'"
        raise UnwritableError(
            f"temporary files cannot be written {where}: {error.strerror}. Name a folder with space: "
            "export TMPDIR=FOLDER"
        ) from error


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for files in between, removed whatever stops the block. Raises as `temporary_files` does."""
    with temporary_files(), tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


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
    """Replace a file by a text (UTF-8). Raises MLIPError when it cannot be written."""
    with replacing(path) as file:
        file.write(text.encode())
