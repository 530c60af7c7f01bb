"""Where the commands print: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from mlip_deploy.progress import Progress

console = Console(highlight=False, soft_wrap=True)

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    """Rich reads square brackets as markup."""
    return text.replace("[", r"\[")


@contextmanager
def progress_line() -> Iterator[Progress]:
    """One line that shows what is going on: a spinner in a terminal, plain lines elsewhere."""
    if errors.is_terminal:
        with errors.status("") as status:
            yield lambda message: status.update(escape(message))
    else:
        yield lambda message: errors.print(escape(message))
