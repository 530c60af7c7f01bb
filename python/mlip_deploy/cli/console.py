"""Where the commands print: results to standard output, progress and errors to standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

from rich.console import Console
from rich.table import Table

from mlip_deploy.files import require_file, write_text
from mlip_deploy.progress import Progress

console = Console(highlight=False, soft_wrap=True)

errors = Console(stderr=True, highlight=False, soft_wrap=True)

UNBOUNDED = 100_000
"""columns: wider than any table"""


def escape(text: str) -> str:
    """Rich reads square brackets as markup."""
    return text.replace("[", r"\[")


def show(table: Table) -> None:
    """In a terminal as wide as that is; in a file or a pipe as wide as the table, so that nothing is cut."""
    if console.is_terminal:
        console.print(table, soft_wrap=False)
        return
    whole = Console(file=StringIO(), width=UNBOUNDED, highlight=False)
    with whole.capture() as text:
        whole.print(table)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))


STANDARD_OUTPUT = "-"
"""The file of `--json` that is none."""


def require_json(target: str | None) -> None:
    """Find out before the work that the file of `--json` cannot be written.

    Raises:
        MLIPError: says why.
    """
    if target not in (None, STANDARD_OUTPUT):
        require_file(str(target))


def write_json(target: str, text: str) -> None:
    """What `--json` asked for: to a file, or to standard output."""
    if target == STANDARD_OUTPUT:
        print(text)
    else:
        write_text(target, text + "\n")


@contextmanager
def progress_line() -> Iterator[Progress]:
    """One line that shows what is going on: a spinner in a terminal, plain lines elsewhere."""
    if errors.is_terminal:
        with errors.status("") as status:
            yield lambda message: status.update(escape(message))
    else:
        yield lambda message: errors.print(escape(message))
