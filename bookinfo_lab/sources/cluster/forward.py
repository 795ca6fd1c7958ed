"""A connection to a pod's port through the API server, as a socket that `one_request` can use.

Edge, over the portforward subresource: channel 0 carries the bytes, channel 1 an error; each begins with the port's
number.  The pod sees the connection come from its own loopback.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster import sockets, streams
from bookinfo_lab.sources.cluster.api import Api

_DATA, _ERROR, _PORT_BYTES = 0, 1, 2
_PATIENCE_S = 30.0  # for the port's next byte


class Forwarded:
    """One connection; `recv_into` and `sendall` are a socket's."""

    def __init__(self, socket: sockets.Socket, named: str) -> None:
        self._socket, self._named = socket, named
        self._skip = {_DATA: _PORT_BYTES, _ERROR: _PORT_BYTES}
        self._waiting = b""

    def sendall(self, data: bytes) -> None:
        """All of ``data``."""
        self._socket.send(_DATA, data)

    def recv_into(self, buffer: Any) -> int:
        """What has come, at most as much as the buffer holds; 0 at the end."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self._waiting:
            kind, data = self._socket.receive()
            if kind == sockets.ENDS:
                return 0
            if kind not in sockets.MESSAGES or not data:
                if time.monotonic() > deadline:  # a heartbeat is no answer
                    raise TimeoutError(f"nothing came for {_PATIENCE_S:g} s")
                continue
            channel, rest = data[0], data[1:]
            skipped = min(self._skip.get(channel, 0), len(rest))
            self._skip[channel] = self._skip.get(channel, 0) - skipped
            rest = rest[skipped:]
            if channel == _ERROR and rest:
                raise LabError(f"{self._named}: {' '.join(rest.decode('utf-8', 'replace').split())[:200]}")
            self._waiting = rest
        size = min(len(buffer), len(self._waiting))
        buffer[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        return size


@contextlib.contextmanager
def opened(api: Api, namespace: str, pod: str, port: int) -> Iterator[Forwarded]:
    """A connection to a pod's port as long as the block lasts.  Raises `api.Refused` where that is not allowed."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    socket = streams.websocket(api, path, [("ports", str(port))], streams.V4)
    socket.limit(_PATIENCE_S)
    try:
        yield Forwarded(socket, f"port {port} of {namespace}/{pod}")
    except sockets.LOST as error:
        raise LabError(f"port {port} of {namespace}/{pod}: {' '.join(str(error).split())[:200]}") from None
    finally:
        socket.close()
