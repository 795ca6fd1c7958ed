"""Programs that run in a sandbox beside the caller, talked to while they run.

Edge: pipes, and the sandbox's control socket.  A program ends with the block it was started for, and the sandbox ends
it where this process goes away without leaving the block.
"""

import json
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from bookinfo_lab.errors import SourceError
from bookinfo_lab.sandbox import Sandbox, wait_for_status
from bookinfo_lab.sandbox.targets import Target

_NUDGE_S = 0.005
_END_S = 2.0


class Ended(Exception):
    """The program ended, or said nothing in time."""


class Program:
    """A running program: ``text`` is what it has printed so far."""

    def __init__(self, name: str, stdin: int, stdout: int, stderr: int) -> None:
        self._name, self._stdin, self._stdout, self._stderr = name, stdin, stdout, stderr
        self._printed = b""
        self._lines = 0

    @property
    def text(self) -> str:
        """Everything it has printed so far, as far as it was heard."""
        return self._printed.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """Everything on its standard error so far."""
        return os.pread(self._stderr, os.fstat(self._stderr).st_size, 0).decode("utf-8", "replace")

    def write(self, text: str) -> None:
        """Give it input; `Ended` where it reads no more."""
        try:
            os.write(self._stdin, text.encode())
        except BrokenPipeError:
            raise Ended(f"{self._name} ended: {self.errors.strip()}") from None

    def hear(self, is_enough: Callable[[str], bool], seconds: float, nudge: Callable[[], None] | None = None) -> None:
        """Read until ``text`` is enough; ``nudge`` is called again and again meanwhile.

        Raises `Ended` where the program ends before, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not is_enough(self.text):
            if nudge is not None:
                nudge()
            left = deadline - time.monotonic()
            if left < 0:
                raise Ended(f"{self._name} did not say in {seconds:g} s what was waited for")
            if not select.select([self._stdout], [], [], min(left, _NUDGE_S) if nudge else left)[0]:
                continue
            part = os.read(self._stdout, 65536)
            if not part:
                raise Ended(f"{self._name} ended: {self.errors.strip()}")
            self._printed += part

    def line(self, seconds: float) -> dict[str, Any]:
        """The next line, a JSON object; an empty one where the program ended or the time is over."""
        wanted = self._lines + 1
        try:
            self.hear(lambda text: text.count("\n") >= wanted, seconds)
        except Ended:
            return {}
        self._lines = wanted
        found: dict[str, Any] = json.loads(self.text.split("\n")[wanted - 1])
        return found


@contextmanager
def running(mesh: Sandbox, target: Target, argv: Sequence[str], *, ends_alone: bool = False) -> Iterator[Program]:
    """Run a program of the target as root as long as the block lasts.

    It is killed at the block's end; with ``ends_alone`` it ends because its input does, and is waited for.
    """
    stdin, own_stdin = os.pipe2(os.O_CLOEXEC)
    own_stdout, stdout = os.pipe2(os.O_CLOEXEC)
    stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
    opened = {stdin, own_stdin, own_stdout, stdout, stderr}

    def close(*descriptors: int) -> None:
        for descriptor in descriptors:
            opened.discard(descriptor)
            os.close(descriptor)

    try:
        with mesh.start(target, argv, (stdin, stdout, stderr), uid=0) as connection:
            close(stdin, stdout)
            try:
                yield Program(argv[0], own_stdin, own_stdout, stderr)
            finally:
                close(own_stdin)
                if ends_alone:
                    connection.settimeout(_END_S)
                    with suppress(SourceError):  # it is killed when the connection closes
                        wait_for_status(connection, argv, _END_S)
    finally:
        close(*list(opened))
