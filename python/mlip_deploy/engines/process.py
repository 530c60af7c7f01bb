"""Programs that engines run in: read line by line, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TEXT: dict[str, Any] = {"text": True, "encoding": "utf-8", "errors": "replace"}
"""of an engine's output, which may hold parts of letters"""
PATIENCE = 5.0
"""s that mpiexec has to end its ranks"""


def follow(command: Sequence[str], directory: Path, heard: Callable[[str], None]) -> int:
    """Run a program, and hand over each line of its output as it comes.

    The program leads a session of its own: Ctrl-C reaches this Python alone, which then ends it.

    Returns
    -------
        its exit status; minus the signal that killed it.
    """
    process = subprocess.Popen(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, **TEXT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            heard(line)
        return process.wait()
    except BaseException:
        stop(process)
        raise


def stop(process: subprocess.Popen[str]) -> None:
    """End a process that leads a session, and all that it started: the wheel's `lmp` starts another program."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
