"""The sandbox's pilot-agent: writes its Envoy's configuration, starts it, answers its questions and for its health.

Edge: runs in an istio-proxy container as process 1.  As Istio's does, it writes the bootstrap below
/etc/istio/proxy, starts Envoy with it, hands it its resources over a Unix socket there, and serves 15020, where
/healthz/ready says whether Envoy's admin calls itself live.  What Istio's agent fetches from istiod, this one is
handed as files; SIGHUP tells it that they were replaced.
"""

import contextlib
import encodings.idna  # noqa: F401 - looked up when a socket is given a host; by then as a user who may not read it
import json
import os
import selectors
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from bookinfo_lab.sandbox.xds import Settings, resource_path

STATUS_PORT = 15020
_ADMIN = ("127.0.0.1", 15000)
_LONGEST = 1 << 20


def run(
    files: Mapping[str, str], settings: Settings, command: Sequence[str], env: Mapping[str, str], *, status: bool
) -> None:
    """Write ``files`` (path → text), run Envoy until it ends, and end with its status."""
    for path, text in files.items():
        replace(path, text)
    selector = selectors.DefaultSelector()
    server = _Server(selector, settings)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    selector.register(woken, selectors.EVENT_READ, lambda: os.read(woken, 512))
    if status:
        listener = socket.create_server(("0.0.0.0", STATUS_PORT), backlog=16)
        selector.register(listener, selectors.EVENT_READ, lambda: _answer_health(listener))
    envoy = subprocess.Popen(list(command), env=dict(env), stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: envoy.terminate())
    while envoy.poll() is None:
        for key, _ in selector.select():
            if key.data() is not None and key.fileobj == woken:
                server.answer_waiting()
    os._exit(envoy.returncode if envoy.returncode >= 0 else 128 - envoy.returncode)


def replace(path: str, text: str, owner: int | None = None) -> None:
    """Write a file beside its place and rename it, so that nobody reads half of it.

    A file that holds ``text`` already is left alone.
    """
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        if file.read() == text:
            return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    if owner is not None:
        os.chown(path + ".new", owner, owner)
    os.rename(path + ".new", path)


class _Server:
    """Answers Envoy's discovery requests (REST-JSON, one kind of resource each) from the files.

    A request names the version that Envoy has.  It is answered once the file has another, which may be at once or
    never: until then it waits, and nothing is polled.  As with istiod, routes follow the clusters that they name: they
    wait until Envoy comes back from new clusters, having taken or rejected them.  What it rejected is not sent again.
    """

    def __init__(self, selector: selectors.BaseSelector, settings: Settings) -> None:
        self._selector, self._settings = selector, settings
        self._waiting: dict[socket.socket, tuple[str, str, str]] = {}
        self._clusters_sent, self._clusters_on_the_way = "", False
        self._sent: dict[str, str] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(settings.socket)
        self._listener.listen(256)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(connection))

    def _hear(self, connection: socket.socket) -> None:
        try:
            path, request = _read_request(connection)
        except (OSError, EOFError, ValueError):
            self._waiting.pop(connection, None)
            self._selector.unregister(connection)
            connection.close()
            return
        names = request.get("resource_names") or [""]
        kind = path.rpartition(":")[2]
        place = resource_path(self._settings, kind, names[0])
        self._waiting[connection] = (kind, place, request.get("version_info", ""))
        if kind == "clusters":
            self._clusters_on_the_way = False
            self.answer_waiting()
        else:
            self._answer(connection)

    def answer_waiting(self) -> None:
        """Answer every request whose file has been replaced since, the one for clusters first."""
        for connection in sorted(self._waiting, key=lambda one: self._waiting[one][0] != "clusters"):
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        kind, place, version = self._waiting[connection]
        try:
            with open(place, encoding="utf-8") as file:
                body = file.read()
        except FileNotFoundError:
            return  # asked for before it is known: it waits for the file
        current = json.loads(body)["version_info"]
        is_rejected = bool(version) and self._sent.get(place) == current  # sent, and Envoy came back with an older one
        if current == version or is_rejected or (kind == "routes" and version and self._are_clusters_behind()):
            return
        if kind == "clusters":  # at its start Envoy asks for clusters first and waits for them by itself
            self._clusters_sent, self._clusters_on_the_way = current, bool(version)
        del self._waiting[connection]
        self._sent[place] = current
        data = body.encode()
        with contextlib.suppress(OSError):
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data)

    def _are_clusters_behind(self) -> bool:
        with open(resource_path(self._settings, "clusters", ""), encoding="utf-8") as file:
            return self._clusters_on_the_way or json.load(file)["version_info"] != self._clusters_sent


def _read_request(connection: socket.socket) -> tuple[str, dict[str, Any]]:
    """The path and JSON body of the next request; EOFError where Envoy has closed the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part or len(data) > _LONGEST:
            raise EOFError
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    lengths = [int(field.partition(":")[2]) for field in fields if field.lower().startswith("content-length:")]
    wanted = lengths[0] if lengths else 0
    if wanted > _LONGEST:
        raise ValueError("a discovery request of more than a megabyte is none of Envoy's")
    parts, size = [body], len(body)
    while size < wanted:
        part = connection.recv(65536)
        if not part:
            raise EOFError
        parts.append(part)
        size += len(part)
    return first.split(" ")[1], json.loads(b"".join(parts))


def _answer_health(listener: socket.socket) -> None:
    """Answer one health request; whoever connects and says nothing waits half a second at most."""
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(0.5)
            path = [*connection.recv(4096).split(b" "), b"", b""][1]
            status = b"404 Not Found" if path != b"/healthz/ready" else _health()
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)


def _health() -> bytes:
    try:
        with socket.create_connection(_ADMIN, timeout=0.5) as admin:
            admin.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            live = admin.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        live = False
    return b"200 OK" if live else b"503 Service Unavailable"
