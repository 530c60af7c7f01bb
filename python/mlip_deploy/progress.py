"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one line of text: "lammps: phonons of Si". The command line shows it, a script may log it or drop it."""


def silent(message: str) -> None:
    """Say nothing."""


def after(label: str, progress: Progress) -> Progress:
    """The same with a label before each line, such as "[2/5] phonons"."""
    return lambda message: progress(f"{label}: {message}")
