"""One HTTP/1.1 request over a connection that is open already, and every byte of its answer as it came.

Edge: it writes to and reads from the socket that it is given.
"""

import http.client
import io
from typing import Any, Protocol


class Connection(Protocol):
    """What is needed of a socket."""

    def sendall(self, data: bytes, /) -> object:
        """Write all of it."""
        ...

    def recv_into(self, buffer: Any, /) -> int:
        """Read what is there; 0 at the end."""
        ...


def ask(connection: Connection, host: str, path: str, *fields: str) -> bytes:
    """The answer to a GET of ``path``; ``fields`` are header fields as ``name: value``.

    Raises OSError and HTTPException as the standard library does.
    """
    return _asked(connection, host, path, *fields)[0]


def body(connection: Connection, host: str, path: str) -> tuple[int, bytes]:
    """The status and the body of the answer, as `ask` gets it."""
    _, status, found = _asked(connection, host, path)
    return status, found


def _asked(connection: Connection, host: str, path: str, *fields: str) -> tuple[bytes, int, bytes]:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: bookinfo-lab"]
    connection.sendall("\r\n".join([*lines, "Accept: */*", *fields, "", ""]).encode())
    heard = _Heard(connection)
    response = http.client.HTTPResponse(heard, method="GET")  # type: ignore[arg-type]
    response.begin()
    found = response.read()
    return bytes(heard.taken), response.status, found


class _Heard:
    """The part of a socket that HTTPResponse reads, keeping what it read."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.taken = connection, bytearray()

    def makefile(self, _: str) -> io.BufferedReader:
        """A reader whose every byte is kept."""
        return io.BufferedReader(_Kept(self._connection, self.taken))


class _Kept(io.RawIOBase):
    def __init__(self, connection: Connection, taken: bytearray) -> None:
        super().__init__()
        self._connection, self._taken = connection, taken

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._connection.recv_into(buffer)
        self._taken += memoryview(buffer)[:size]
        return size
