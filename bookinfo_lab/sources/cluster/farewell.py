"""What is called when this process ends: by itself, or by a signal that nobody else minds: SIGTERM, SIGHUP.

Edge: signals.  A process that is killed calls nothing; what then ends what it left is `guests`' affair.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

from bookinfo_lab.errors import LabError

_PATIENCE_S = 10.0
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has one
_calls: list[Callable[[], None]] = []
_process = os.getpid()


def call_at_end(call: Callable[[], None]) -> None:
    """Have ``call`` called once at the end, however often it is asked for; what was asked for last comes first."""
    if call in _calls:
        return
    _calls.append(call)
    atexit.unregister(_end)
    atexit.register(_end)
    is_main = threading.current_thread() is threading.main_thread()
    for number in _SIGNALS if is_main else ():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _on_signal)


def forget(call: Callable[[], None]) -> None:
    """Have it not called: it was already."""
    with contextlib.suppress(ValueError):
        _calls.remove(call)


def _end() -> None:
    if os.getpid() != _process:
        return  # a copy of the process that asked
    for call in reversed(_calls.copy()):
        try:
            call()
        except LabError as error:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # there may be no stderr any more
                sys.stderr.write(f"bookinfo-lab: {error}\n")


def _on_signal(number: int, _: object) -> None:
    # In a thread: what the signal interrupted may hold a lock that a request needs.
    thread = threading.Thread(target=_end, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
