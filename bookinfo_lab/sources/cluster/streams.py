"""Programs in a pod's containers over the API server's exec subresource, byte for byte, and their exit status.

Edge, over the WebSocket that the `kubernetes` package opens: its own client decodes and joins what it reads, this keeps
frames apart.  Channel 0 is the program's stdin, 1 its stdout, 2 its stderr, 3 how it ended (a Status object).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from websocket import WebSocketException

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster.api import Api, refused

STDIN, STDOUT, STDERR, ENDED, CLOSE = 0, 1, 2, 3, 255
V4 = "v4.channel.k8s.io"
LOST = (OSError, WebSocketException)  # what a connection that ends early raises
_NOT_FOUND = ("executable file not found", "no such file or directory", "not found in $PATH")


class NoSuchProgram(LabError):
    """The container's image has no such program."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a program printed and how it ended."""

    stdout: bytes
    stderr: bytes
    status: int


class Stream:
    """A program that runs; closing it ends the connection, and the program where it writes or reads then."""

    def __init__(self, socket: Any, named: str) -> None:
        self._socket, self._named = socket, named
        self.status: int | None = None

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(channel, bytes) as they come, until the program ends; `status` is known then.

        Raises LabError where the connection is lost before.
        """
        while self.status is None:
            try:
                frame = self._socket.recv_data_frame(True)[1]
            except LOST as error:
                raise self._lost(error) from None
            if frame.opcode == 8:
                raise self._lost("it was closed")
            data = bytes(frame.data)
            if frame.opcode not in (1, 2) or len(data) < 1:
                continue
            if data[0] == ENDED:
                self.status = self._ended(data[1:])
            elif data[0] in (STDOUT, STDERR) and len(data) > 1:
                yield data[0], data[1:]

    def write(self, data: bytes) -> None:
        """Bytes to the program's stdin."""
        self._socket.send_binary(bytes([STDIN]) + data)

    def close_stdin(self) -> None:
        """End the program's stdin, where the API server knows how to (1.30 and later)."""
        self._socket.send_binary(bytes([CLOSE, STDIN]))

    def close(self) -> None:
        """Let go of the connection."""
        self._socket.close()

    def _ended(self, raw: bytes) -> int:
        said = json.loads(raw)
        if said.get("status") == "Success":
            return 0
        causes = (said.get("details") or {}).get("causes") or ()
        for cause in causes:
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        message = " ".join(str(said.get("message", "")).split())
        if any(words in message for words in _NOT_FOUND):
            raise NoSuchProgram(f"{self._named}: its image has no such program ({message[-160:]})")
        raise LabError(f"{self._named}: {message[:300]}")

    def _lost(self, why: object) -> LabError:
        return LabError(f"{self._named}: the connection was lost: {' '.join(str(why).split())[:160]}")


def opened(api: Api, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool = False) -> Stream:
    """A program in a container; the caller closes it.  Raises `api.Refused` where that is not allowed."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
    words = [("container", container), ("stdout", "true"), ("stderr", "true"), ("stdin", str(stdin).lower())]
    socket = websocket(api, path, [*words, *(("command", word) for word in argv)])
    return Stream(socket, f"{namespace}/{pod} (container {container}): {argv[0]}")


def websocket(api: Api, path: str, query: Sequence[tuple[str, str]], protocol: str = "") -> Any:
    """A WebSocket to a subresource of the API server; raises as `opened` does."""
    from kubernetes.stream import ws_client  # a fifth of a second

    configuration = api.client.configuration
    url = f"ws{configuration.host.removeprefix('http')}{path}?{urlencode(query)}"
    headers = {**api.credentials(), **({"sec-websocket-protocol": protocol} if protocol else {})}
    try:
        return ws_client.create_websocket(configuration, url, headers)  # type: ignore[no-untyped-call]
    except LOST as error:
        status = getattr(error, "status_code", None)
        if status is None:
            said = " ".join(str(error).split())[:200]
            raise LabError(f"the API server of {api.named} does not answer: {said}") from None
        body = getattr(error, "resp_body", b"") or b""
        raise refused(int(status), body if isinstance(body, bytes) else str(body).encode(), "POST", path) from None


def run(
    api: Api,
    namespace: str,
    pod: str,
    container: str,
    argv: Sequence[str],
    on_output: Callable[[int, bytes], object] | None = None,
) -> Done:
    """Run a program to its end; ``on_output`` is given each piece as it comes."""
    out: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
    with closing(opened(api, namespace, pod, container, argv)) as stream:
        for channel, data in stream.frames():
            out[channel] += data
            if on_output is not None:
                on_output(channel, data)
    return Done(bytes(out[STDOUT]), bytes(out[STDERR]), stream.status or 0)
