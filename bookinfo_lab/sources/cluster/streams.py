"""Programs in a pod's containers over the API server's exec subresource, byte for byte, and their exit status.

Edge, over a WebSocket: the `kubernetes` package's own client decodes and joins what it reads, and waits for ever; this
keeps frames apart.  Channel 0 is the program's stdin, 1 its stdout, 2 its stderr, 3 how it ended (a Status object), 4
the size of its terminal; 255 ends a channel (v5 of the protocol alone, Kubernetes 1.30 and later).
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlencode

from websocket import WebSocketTimeoutException

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster import sockets
from bookinfo_lab.sources.cluster.api import PATIENCE_S, Api, refused

STDIN, STDOUT, STDERR, ENDED, SIZE, CLOSE = 0, 1, 2, 3, 4, 255
_BOTH_SINCE = (1, 35)
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
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

    def __init__(self, socket: sockets.Socket, named: str) -> None:
        self._socket, self._named = socket, named
        self.status: int | None = None

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(channel, bytes) as they come, until the program ends; `status` is known then.

        Raises LabError where the connection is lost before.
        """
        while self.status is None:
            try:
                kind, data = self._socket.receive()
            except sockets.LOST as error:
                raise self._lost(error) from None
            if kind == sockets.ENDS:
                raise self._lost("it was closed")
            if kind not in sockets.MESSAGES or not data:
                continue
            if data[0] == ENDED:
                self.status = self._ended(data[1:])
            elif data[0] in (STDOUT, STDERR) and len(data) > 1:
                yield data[0], data[1:]

    def write(self, data: bytes) -> None:
        """Bytes to the program's stdin."""
        self._socket.send(STDIN, data)

    def close_stdin(self) -> bool:
        """End the program's stdin; False where the API server cannot, and it stays open."""
        if self._socket.protocol != V5:
            return False
        self._socket.send(CLOSE, bytes([STDIN]))
        return True

    def resize(self, columns: int, lines: int) -> None:
        """The size of the program's terminal."""
        self._socket.send(SIZE, json.dumps({"Width": columns, "Height": lines}).encode())

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


def websocket(api: Api, path: str, query: Sequence[tuple[str, str]], protocol: str = f"{V5},{V4}") -> sockets.Socket:
    """A WebSocket to a subresource of the API server; raises as `opened` does."""
    needed = _needed(api)
    for method in needed:
        api.check(method, path)
    configuration = api.client.configuration
    url = f"ws{configuration.host.removeprefix('http')}{path}?{urlencode(query)}"
    deadline, wait, is_renewed = time.monotonic() + PATIENCE_S, 0.1, False
    while True:
        headers = {**api.credentials(), "sec-websocket-protocol": protocol}
        try:
            return sockets.connected(configuration, url, headers)
        except (ConnectionRefusedError, TimeoutError) as error:  # nothing arrived
            if time.monotonic() + wait > deadline:
                is_late = isinstance(error, TimeoutError)
                raise _unanswered(api, f"no connection within {sockets.CONNECT_S:g} s" if is_late else error) from None
            time.sleep(wait)
            wait = min(2 * wait, 2.0)
        except WebSocketTimeoutException:
            raise _unanswered(api, f"nothing came within {sockets.ANSWER_S:g} s of asking for a stream") from None
        except sockets.LOST as error:
            status = getattr(error, "status_code", None)
            if status is None:
                raise _unanswered(api, error) from None
            if status == 401 and not is_renewed and api.renew():
                is_renewed = True
                continue
            body = getattr(error, "resp_body", b"") or b""
            raise refused(
                int(status), body if isinstance(body, bytes) else str(body).encode(), needed[-1], path
            ) from None


def _unanswered(api: Api, why: object) -> LabError:
    return LabError(f"the API server of {api.named} does not answer: {' '.join(str(why).split())[:200]}")


def check(api: Api, namespace: str, pod: str) -> None:
    """Raise the refusal that a program in a pod's container would meet, without sending anything."""
    for method in _needed(api):
        api.check(method, f"/api/v1/namespaces/{namespace}/pods/{pod}/exec")


def _needed(api: Api) -> tuple[str, ...]:
    """The methods of RBAC's rights: a WebSocket is opened by GET; from 1.35 on the right to create is asked for too."""
    number = tuple(int(part) for part in re.findall(r"\d+", api.server)[:2])
    return ("GET", "POST") if number >= _BOTH_SINCE else ("GET",)


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
