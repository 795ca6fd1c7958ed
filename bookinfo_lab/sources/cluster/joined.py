"""`exec` and `shell` on a cluster: this process's stdin, stdout and stderr become those of a program in a container.

Edge: terminal, threads, streams.  One thread passes stdin on, and the terminal's size where there is one; the caller's
own passes on what comes.  Either ends with the program, and gives its exit status.
"""

import os
import select
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from bookinfo_lab import raw_terminal
from bookinfo_lab.sources.cluster import sockets, streams
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.guests import say
from bookinfo_lab.sources.cluster.streams import Stream

_PIECE_BYTES = 32768
_OUTPUTS = {streams.STDOUT: 1, streams.STDERR: 2}
_SHELL = "if command -v bash >/dev/null; then exec bash --norc; else exec sh; fi"


def attached(api: Api, where: tuple[str, str, str], argv: Sequence[str]) -> int:
    """Run a program in the container (namespace, pod, name) with this process's descriptors; its exit status."""
    with closing(streams.opened(api, *where, argv, stdin=True)) as stream:
        threading.Thread(target=_pass_stdin, args=(stream, []), name="stdin", daemon=True).start()
        try:
            return _pass_output(stream)
        except KeyboardInterrupt:
            say(
                f"{argv[0]} may still run in {where[0]}/{where[1]} (container {where[2]}): an exec cannot be taken back"
            )
            raise


def shell(api: Api, where: tuple[str, str, str], named: str) -> int:
    """Run a shell there with a terminal of its own, ``named`` in its prompt; its exit status."""
    if not raw_terminal.is_there():
        return attached(api, where, ["sh"])
    settings = {"TERM": os.environ.get("TERM", "dumb"), "PS1": f"{named} \\$ "}
    exports = "; ".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items())
    argv = ["sh", "-c", f"{exports}; {_SHELL}"]
    with (
        closing(streams.opened(api, *where, argv, stdin=True, tty=True)) as stream,
        raw_terminal.raw(),
        _resized() as resized,
    ):
        threading.Thread(target=_pass_stdin, args=(stream, [resized]), name="stdin", daemon=True).start()
        return _pass_output(stream)


def _pass_output(stream: Stream) -> int:
    for channel, data in stream.frames():
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(_OUTPUTS[channel], rest) :]
    return stream.status or 0


def _pass_stdin(stream: Stream, resized: Sequence[int]) -> None:
    """Everything on stdin, to its end; each byte on ``resized`` means another size of the terminal."""
    watched = [0, *resized]
    with suppress(*sockets.LOST):  # who reads the output is told
        if resized:
            stream.resize(*os.get_terminal_size(0))
        while watched:
            for number in select.select(watched, [], [])[0]:
                data = os.read(number, _PIECE_BYTES)
                if number in resized:
                    stream.resize(*os.get_terminal_size(0))
                elif data:
                    stream.write(data)
                else:
                    watched.remove(0)
                    if not stream.close_stdin():
                        say("this API server is older than 1.30 and cannot end a program's stdin; press Ctrl-C")


@contextmanager
def _resized() -> Iterator[int]:
    """A descriptor that is readable once the terminal has another size."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)

    def wake(*_: object) -> None:
        with suppress(BlockingIOError):
            os.write(writable, b"\n")

    before = signal.signal(signal.SIGWINCH, wake)
    try:
        yield readable
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(writable)
