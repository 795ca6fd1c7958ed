"""The sandbox's pilot-agent: writes its Envoy's configuration, starts it, answers for its health.

Edge: runs in an istio-proxy container as process 1.  As Istio's does, it writes the bootstrap below
/etc/istio/proxy and starts Envoy with it, and serves 15020, where /healthz/ready says whether Envoy's admin
calls itself live.  What Istio's agent fetches from istiod over xDS, this one is handed as files.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence

STATUS_PORT = 15020
_ADMIN = ("127.0.0.1", 15000)


def run(files: Mapping[str, str], command: Sequence[str], env: Mapping[str, str], *, status: bool) -> None:
    """Write ``files`` (path → text), run Envoy until it ends, and end with its status."""
    for path, text in files.items():
        replace(path, text)
    listener = _listen() if status else None
    ended, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    envoy = subprocess.Popen(list(command), env=dict(env), stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: envoy.terminate())
    watched: list[int | socket.socket] = [ended] if listener is None else [ended, listener]
    while envoy.poll() is None:
        readable, _, _ = select.select(watched, [], [])
        if ended in readable:
            os.read(ended, 512)
        if listener is not None and listener in readable:
            _answer(listener)
    os._exit(envoy.returncode if envoy.returncode >= 0 else 128 - envoy.returncode)


def replace(path: str, text: str, owner: int | None = None) -> None:
    """Write a file beside its place and rename it: Envoy, which watches the folder, never reads half of it.

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


def _listen() -> socket.socket:
    listener = socket.create_server(("0.0.0.0", STATUS_PORT), backlog=16)
    listener.setblocking(False)
    return listener


def _answer(listener: socket.socket) -> None:
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
