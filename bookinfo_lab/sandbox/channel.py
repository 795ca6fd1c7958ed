"""Messages over a Unix socket: a length, JSON, and file descriptors beside it.

The sandbox's init listens on one such socket; whoever may enter the sandbox may connect to it.  A message is
one JSON object.  Descriptors travel with the length, as SCM_RIGHTS.
"""

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from bookinfo_lab.errors import SourceError

PATH = "/run/bookinfo-lab/control.sock"
_HEADER = struct.Struct("!I")
_LIMIT = 64 << 20


def send(connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message and copies of ``descriptors``."""
    body = json.dumps(message).encode()
    socket.send_fds(connection, [_HEADER.pack(len(body))], list(descriptors))
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors; EOFError where the other side has closed."""
    header, descriptors, _, _ = socket.recv_fds(connection, _HEADER.size, 8)
    try:
        if len(header) < _HEADER.size:
            header += _exactly(connection, _HEADER.size - len(header))
        (length,) = _HEADER.unpack(header)
        if length > _LIMIT:
            raise EOFError(f"a message of {length} bytes is none of ours")
        return json.loads(_exactly(connection, length)), descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        part = connection.recv(min(length, 1 << 20))
        if not part:
            raise EOFError("the connection ended inside a message")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def connect(init_pid: int, timeout: float | None) -> socket.socket:
    """A connection to the init of the sandbox whose process id out here is ``init_pid``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(f"/proc/{init_pid}/root{PATH}")
    except OSError as error:
        connection.close()
        why = f"{error.strerror or error}"
        raise SourceError("connect to the sandbox", None, why, "it has ended: run bookinfo-lab up") from None
    return connection
