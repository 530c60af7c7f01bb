"""Whatever ends a command, it first removes its files and stops its processes: SIGTERM and SIGHUP act as Ctrl-C."""

from __future__ import annotations

import signal
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
