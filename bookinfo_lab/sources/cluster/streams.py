"""Programs in a pod's containers over the API server's exec subresource, byte for byte, and their exit status.

Edge, over the WebSocket that the `kubernetes` package opens: its own client decodes and joins what it reads, this keeps
frames apart.  Channel 0 is the program's stdin, 1 its stdout, 2 its stderr, 3 how it ended (a Status object), 4 the
size of its terminal; 255 ends a channel (v5 of the protocol alone, Kubernetes 1.30 and later).
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from websocket import WebSocketException

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster.api import PATIENCE_S, Api, Refused, refused

STDIN, STDOUT, STDERR, ENDED, SIZE, CLOSE = 0, 1, 2, 3, 4, 255
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
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
                kind, frame = self._socket.recv_data_frame(True)  # a message of several frames is one here
            except LOST as error:
                raise self._lost(error) from None
            if kind == 8:
                raise self._lost("it was closed")
            data = bytes(frame.data)
            if kind not in (1, 2) or len(data) < 1:
                continue
            if data[0] == ENDED:
                self.status = self._ended(data[1:])
            elif data[0] in (STDOUT, STDERR) and len(data) > 1:
                yield data[0], data[1:]

    def write(self, data: bytes) -> None:
        """Bytes to the program's stdin."""
        self._socket.send_binary(bytes([STDIN]) + data)

    def close_stdin(self) -> bool:
        """End the program's stdin; False where the API server cannot, and it stays open."""
        if self._socket.getheaders().get("sec-websocket-protocol") != V5:
            return False
        self._socket.send_binary(bytes([CLOSE, STDIN]))
        return True

    def resize(self, columns: int, lines: int) -> None:
        """The size of the program's terminal."""
        self._socket.send_binary(bytes([SIZE]) + json.dumps({"Width": columns, "Height": lines}).encode())

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


def opened(
    api: Api,
    namespace: str,
    pod: str,
    container: str,
    argv: Sequence[str],
    *,
    stdin: bool = False,
    tty: bool = False,
) -> Stream:
    """A program in a container, with a terminal of its own or without; the caller closes it.

    With a terminal all that it prints is its stdout.  Raises `api.Refused` where it is not allowed.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
    given = {"stdin": stdin, "stdout": True, "stderr": not tty, "tty": tty}
    words = [("container", container), *((name, str(is_on).lower()) for name, is_on in given.items())]
    socket = websocket(api, path, [*words, *(("command", word) for word in argv)])
    return Stream(socket, f"{namespace}/{pod} (container {container}): {argv[0]}")


def websocket(api: Api, path: str, query: Sequence[tuple[str, str]], protocol: str = "") -> Any:
    """A WebSocket to a subresource of the API server; raises as `opened` does."""
    _check(api, path)
    from kubernetes.stream import ws_client  # a fifth of a second

    configuration = api.client.configuration
    url = f"ws{configuration.host.removeprefix('http')}{path}?{urlencode(query)}"
    headers = {**api.credentials(), **({"sec-websocket-protocol": protocol} if protocol else {})}
    deadline, wait, is_renewed = time.monotonic() + PATIENCE_S, 0.1, False
    while True:
        try:
            return ws_client.create_websocket(configuration, url, headers)  # type: ignore[no-untyped-call]
        except ConnectionRefusedError as error:  # nothing arrived
            if time.monotonic() + wait > deadline:
                raise _unanswered(api, error) from None
            time.sleep(wait)
            wait = min(2 * wait, 2.0)
        except LOST as error:
            status = getattr(error, "status_code", None)
            if status is None:
                raise _unanswered(api, error) from None
            if status == 401 and not is_renewed and api.renew():
                headers, is_renewed = {**headers, **api.credentials()}, True
                continue
            body = getattr(error, "resp_body", b"") or b""
            raise refused(int(status), body if isinstance(body, bytes) else str(body).encode(), "POST", path) from None


def _unanswered(api: Api, error: Exception) -> LabError:
    return LabError(f"the API server of {api.named} does not answer: {' '.join(str(error).split())[:200]}")


def _check(api: Api, path: str) -> None:
    """Either right will do: the server asks for get until 1.34, for create from 1.35 on."""
    try:
        api.check("POST", path)
    except Refused as refusal:
        try:
            api.check("GET", path)
        except Refused:
            raise refusal from None


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
