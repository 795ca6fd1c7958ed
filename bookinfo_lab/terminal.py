"""`exec` and `shell`: joins this terminal to a program inside the sandbox.

Edge: terminal and sockets.  `attached` gives the program this process's own stdin, stdout and stderr and passes
signals on; `shell` gives it a terminal of its own and copies keys and output.  Either ends with the program.
"""

import fcntl
import os
import select
import signal
import socket
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bookinfo_lab import raw_terminal
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import Sandbox, channel, wait_for_status
from bookinfo_lab.sandbox.targets import Target

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def attached(mesh: Sandbox, target: Target, argv: Sequence[str], uid: int | None) -> int:
    """Run a program there with this process's descriptors; its exit status."""
    with mesh.start(target, argv, (0, 1, 2), uid=uid) as connection, _passing_signals(connection):
        return wait_for_status(connection, argv, None)


def shell(mesh: Sandbox, target: Target, uid: int | None) -> int:
    """Run a shell there with a terminal of its own; its exit status."""
    if not raw_terminal.is_there():
        return attached(mesh, target, ["sh"], uid)
    argv = ["bash", "--norc"] if os.path.exists("/bin/bash") else ["sh"]
    env = {"TERM": os.environ.get("TERM", "dumb"), "PS1": f"{target} \\$ "}
    with mesh.start(target, argv, (), uid=uid, env=env, size=_window()) as connection:
        reply, descriptors = channel.receive(connection)
        if "error" in reply:
            raise LabError(reply["error"])
        with raw_terminal.raw(), _following_size(descriptors[0]):
            _copy(descriptors[0])
        os.close(descriptors[0])
        return wait_for_status(connection, argv, None)


def _window() -> list[int]:
    size = os.get_terminal_size()
    return [size.lines, size.columns]


def _copy(terminal: int) -> None:
    """Copy keys to the terminal and its output to stdout until the other end is closed."""
    watched = [0, terminal]
    while True:
        readable, _, _ = select.select(watched, [], [])
        if terminal in readable:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Linux says EIO where the last process on a terminal has ended
                return
            if not data:
                return
            os.write(1, data)
        elif 0 in readable:
            keys = os.read(0, 65536)
            if keys:
                os.write(terminal, keys)
            else:
                watched.remove(0)


@contextmanager
def _passing_signals(connection: socket.socket) -> Iterator[None]:
    def pass_on(number: int, _: object) -> None:
        channel.send(connection, {"signal": number})

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _following_size(terminal: int) -> Iterator[None]:
    def resize(*_: object) -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *_window(), 0, 0))

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
