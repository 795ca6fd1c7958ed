"""What Bookinfo's four services share: a table of routes served over HTTP/1.1, and calls to other services.

`run` listens on every IPv4 address at the port given as the program's argument and serves each connection in
a thread of its own until SIGTERM.  Each request is one line of JSON on stdout; cookies, other header fields
and bodies are not logged.  Only the standard library is imported: a pod has any CPython from 3.11 on.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import wire

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` would cost 3 ms
if TYPE_CHECKING:
    from io import BufferedReader
    from typing import NoReturn

# Envoy ends an idle connection after an hour; the side that closes first races with the other's next request.
IDLE_S = 3900.0
REQUEST_S = 30.0
_LINGER_S = 0.5
_LINGER_BYTES = 16 * 1024 * 1024
_THREAD_STACK_BYTES = 512 * 1024

# What Istio's Bookinfo copies from a request to the requests it causes, so that their spans make one trace.
TRACE_HEADERS = (
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
)


class Response:
    """What a handler returns; Content-Type and Content-Length are added from it."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(self, status: int, body: bytes, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = tuple(headers)


# Method, path and handler; a path segment `{}` stands for any one segment, which the handler gets as text.
Route = tuple[str, str, Callable[..., Response]]


def as_json(value: object, status: int = 200) -> Response:
    """``value`` as a JSON document."""
    return Response(status, json.dumps(value).encode(), "application/json")


def from_json(text: bytes) -> object:
    """The value of a JSON document; ValueError where it is none, or too deep, or has NaN."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def number(segment: str) -> int | None:
    """The product id in a path segment; None where it is no decimal number of at most nine digits."""
    return int(segment) if segment.isascii() and segment.isdigit() and len(segment) <= 9 else None


def forwarded(request: wire.Request, *more: str) -> dict[str, str]:
    """The header fields of ``request`` that go along with the calls it causes: TRACE_HEADERS and ``more``."""
    return {name: request.headers[name] for name in (*TRACE_HEADERS, *more) if name in request.headers}


def upstream(role: str) -> tuple[str, int]:
    """Host name and port of another service, from the environment variables of Istio's sample."""
    domain = os.environ.get("SERVICES_DOMAIN")
    host = os.environ.get(f"{role.upper()}_HOSTNAME", role) + (f".{domain}" if domain else "")
    return host, int(os.environ.get(f"{role.upper()}_SERVICE_PORT", "9080"))


def get(address: tuple[str, int], target: str, headers: Mapping[str, str], timeout_s: float) -> wire.Reply:
    """The answer to one GET on a connection of its own, as Istio's sample sends it.

    ``timeout_s`` bounds the connecting and the wait for each piece of the answer, not the name's resolution.
    Raises OSError where no answer came (TimeoutError among them) and wire.MalformedError where it is not HTTP.
    """
    host, port = address
    fields = {"Host": f"{host}:{port}", "Accept": "*/*", "Connection": "keep-alive", **headers}
    with socket.create_connection(address, timeout_s) as connection, connection.makefile("rb") as stream:
        connection.sendall(wire.format_request("GET", target, fields))
        return wire.read_reply(stream)


def run(routes: tuple[Route, ...], arguments: list[str]) -> None:
    """Serve ``routes`` at the port in ``arguments`` until SIGTERM; ends the program with 2 on bad use."""
    if len(arguments) != 2 or not arguments[1].isdecimal() or not 0 < int(arguments[1]) < 65536:
        _refuse(f"usage: {arguments[0]} PORT")
    for number_ in (signal.SIGTERM, signal.SIGINT):
        # Also where this is process 1 of its namespace, for which the kernel has no default action.
        signal.signal(number_, lambda caught, _frame: os._exit(128 + caught))
    threading.stack_size(_THREAD_STACK_BYTES)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", int(arguments[1])))
    except OSError as error:
        _refuse(f"{arguments[0]}: port {arguments[1]}: {error.strerror}")
    listener.listen(128)
    while True:
        _accept(listener, routes)


def note(text: str) -> None:
    """One line for the operator, on stderr: stdout holds nothing but the access log."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _refuse(text: str) -> "NoReturn":
    note(text)
    sys.exit(2)


def _accept(listener: socket.socket, routes: tuple[Route, ...]) -> None:
    try:
        connection, peer = listener.accept()
    except OSError as error:
        note(f"accept: {error.strerror}")
        time.sleep(0.1)  # out of file descriptors: the next accept would fail at once, and again
        return
    try:
        threading.Thread(target=_converse, args=(connection, f"{peer[0]}:{peer[1]}", routes), daemon=True).start()
    except RuntimeError:  # no more threads
        connection.close()


def _converse(connection: socket.socket, peer: str, routes: tuple[Route, ...]) -> None:
    """Answer the requests of one connection in turn."""
    with connection, connection.makefile("rb") as stream:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while _exchange(connection, stream, peer, routes):
                pass
        except OSError:
            pass  # the peer hung up or stayed silent too long: nobody is left to tell


def _exchange(connection: socket.socket, stream: "BufferedReader", peer: str, routes: tuple[Route, ...]) -> bool:
    """One request and its response; whether the connection is good for another."""
    connection.settimeout(IDLE_S)
    if not stream.peek(1):
        return False
    connection.settimeout(REQUEST_S)
    began = time.time_ns()
    request = None
    try:
        request = wire.read_request(stream)
        if request is None:
            return False
        _expect(connection, request)
        request.body = wire.read_request_body(stream, request)
        response, keep_alive = _answer(request, routes), request.keep_alive
    except wire.MalformedError as error:
        response, keep_alive = as_json({"error": str(error)}, error.status), False
    is_head = request is not None and request.method == "HEAD"
    try:
        connection.sendall(_format(response, keep_alive, is_head))
    finally:
        _log(began, request, response.status, peer)
    if not keep_alive:
        _linger(connection)
    return keep_alive


def _expect(connection: socket.socket, request: wire.Request) -> None:
    wish = request.headers.get("expect")
    if wish is None:
        return
    if wish.lower() != "100-continue":
        raise wire.MalformedError(417, "an expectation other than 100-continue")
    connection.sendall(wire.format_response(100, ()))


def _answer(request: wire.Request, routes: tuple[Route, ...]) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    segments = request.path.split("/")
    allowed = []
    for known, path, handler in routes:
        pattern = path.split("/")
        if len(pattern) == len(segments) and all(
            want in ("{}", have) for want, have in zip(pattern, segments, strict=True)
        ):
            if known == method:
                values = [have for want, have in zip(pattern, segments, strict=True) if want == "{}"]
                response: Response = handler(request, *values)
                return response
            allowed += [known, "HEAD"] if known == "GET" else [known]
    if allowed:
        refused = as_json({"error": f"{request.method} is not allowed here"}, 405)
        refused.headers = (("Allow", ", ".join(allowed)),)
        return refused
    return as_json({"error": "no such path"}, 404)


def _format(response: Response, keep_alive: bool, is_head: bool) -> bytes:
    fields = [
        ("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())),
        ("Server", "bookinfo"),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Connection", "keep-alive" if keep_alive else "close"),
        *response.headers,
    ]
    return wire.format_response(response.status, fields, b"" if is_head else response.body)


def _linger(connection: socket.socket) -> None:
    """Read on a little before closing: unread bytes would turn the close into a reset that eats the answer."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(_LINGER_S)
    left = _LINGER_BYTES
    while left > 0 and (block := connection.recv(65536)):
        left -= len(block)


def _log(began_ns: int, request: wire.Request | None, status: int, peer: str) -> None:
    now_ns = time.time_ns()
    seconds, nanoseconds = divmod(began_ns, 1_000_000_000)
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06d}Z",
        "method": request.method if request else None,
        "path": request.target if request else None,
        "status": status,
        "request_id": request.headers.get("x-request-id") if request else None,
        "peer": peer,
        "duration_us": max(0, (now_ns - began_ns) // 1000),
    }
    try:
        os.write(1, (json.dumps(line) + "\n").encode())  # one write: lines of two threads never mix
    except OSError:
        return  # a log that cannot be written must not cost the answer
