"""What every family says of a source that it does not know, and of a model that cannot be downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlip_deploy.errors import MLIPError


def unknown_source(source: str, a_model: str, known: Iterable[str], suffix: str | None = None) -> MLIPError:
    """The error for a source that is neither a file nor a known name.

    Args:
        a_model: of the family, with its article.
        known: names.
        suffix: of the family's files, where names have dots too; by default any suffix is that of a file.
    """
    found = Path(source).suffix
    is_path = "/" in source or (bool(found) if suffix is None else found == suffix)
    kind = "no such model file" if is_path else f"neither a file nor {a_model}"
    return MLIPError(f"'{source}': {kind}. Known models: {', '.join(known)}")


@contextmanager
def downloading(name: str, address: str) -> Iterator[None]:
    """Whatever ends a download ends it with the address, for a machine that has a connection.

    Raises:
        MLIPError: with the reason.
    """
    try:
        yield
    except Exception as error:
        raise MLIPError(
            f"'{name}' could not be downloaded ({type(error).__name__}: {error}). On a machine with a connection "
            f"download {address}, copy it here and give the file in place of the name"
        ) from error
