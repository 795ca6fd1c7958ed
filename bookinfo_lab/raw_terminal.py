"""This process's own terminal, for a program elsewhere: every key is passed on as it is, and it is put right again.

Edge: terminal and signals.  It is put right however the block ends, also where a signal ends this process.
"""

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def is_there() -> bool:
    """Whether both stdin and stdout are a terminal."""
    return os.isatty(0) and os.isatty(1)


@contextmanager
def raw() -> Iterator[None]:
    """A raw terminal as long as the block lasts."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    saved = termios.tcgetattr(0)
    before = {number: signal.signal(number, end) for number in _ENDING}
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, saved)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stdout.flush()
