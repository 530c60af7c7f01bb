"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one line of text: "lammps: phonons of Si". The command line shows it, a script may log it or drop it."""


def silent(message: str) -> None:
    """Say nothing."""


def duration(seconds: float) -> str:
    """In words: "40 s", "12 min", "3 h"."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def after(label: str, progress: Progress) -> Progress:
    """The same with a label before each line, such as "[2/5] phonons"."""
    return lambda message: progress(f"{label}: {message}")
