"""Programs that run in a sandbox beside the caller, talked to while they run.

Edge: pipes, and the sandbox's control socket.  A program ends with the block it was started for, and the sandbox ends
it where this process goes away without leaving the block.
"""

import os
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from bookinfo_lab.errors import SourceError
from bookinfo_lab.proving.program import Ended, Program
from bookinfo_lab.sandbox import Sandbox, wait_for_status
from bookinfo_lab.sandbox.targets import Target

_END_S = 2.0


class Piped(Program):
    """A program behind pipes; its standard error is a file."""

    def __init__(self, name: str, stdin: int, stdout: int, stderr: int) -> None:
        super().__init__(name)
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr

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

    def receive(self, seconds: float) -> bytes | None:
        """What it printed next, None where that is nothing within the time; `Ended` where it has ended."""
        if not select.select([self._stdout], [], [], seconds)[0]:
            return None
        part = os.read(self._stdout, 65536)
        if not part:
            raise Ended(f"{self._name} ended: {self.errors.strip()}")
        return part


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
                yield Piped(argv[0], own_stdin, own_stdout, stderr)
            finally:
                close(own_stdin)
                if ends_alone:
                    connection.settimeout(_END_S)
                    with suppress(SourceError):  # it is killed when the connection closes
                        wait_for_status(connection, argv, _END_S)
    finally:
        close(*list(opened))
