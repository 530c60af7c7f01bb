"""Whatever ends a command, it first removes its files and stops its processes: SIGTERM and SIGHUP act as Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_on_signals() -> None:
    """From now on, the first signal is an exception: KeyboardInterrupt, or SystemExit with status 128 + signal.

    Further ones are not heard, so that the clean-up that the first one started comes to its end. A signal that is
    ignored, as nohup does it, stays ignored. For a process of our own, from its main thread.
    """
    heard = False

    def unwind(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            return
        heard = True
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, unwind)


@contextmanager
def signals_afterwards() -> Iterator[None]:
    """Signals to this thread arrive at the end of the block, which they would leave half done."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
