"""A relay between a client and an API server, as bytes: its line can be cut, and stays cut until it is mended."""

import contextlib
import json
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit


class Relay:
    """A listener on loopback whose connections go to ``address``."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._is_ended = False
        self.port = 0
        self.refused = 0
        self.mend()

    def cut(self) -> None:
        """Refuse every connection from now on and end those that are there."""
        with self._lock:
            listener, self._listener = self._listener, None
            ended, self._open = self._open, set()
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def mend(self) -> None:
        """Take connections again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        with self._lock:
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.create_connection(self._address) as far:
            with self._lock:
                self._open |= {near, far}
            other = {near: far, far: near}
            with selectors.DefaultSelector() as selector:
                for one in other:
                    selector.register(one, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select():
                        one = next(item for item in other if item is key.fileobj)
                        data = one.recv(65536)
                        if not data:
                            return
                        other[one].sendall(data)


@contextlib.contextmanager
def relayed(kubeconfig: Path) -> Iterator[tuple[Relay, Path]]:
    """A relay to the server of a kubeconfig, and a kubeconfig of the relay."""
    config = json.loads(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    parts = urlsplit(cluster["server"])
    relay = Relay((str(parts.hostname), int(parts.port or 443)))
    cluster["server"] = f"https://127.0.0.1:{relay.port}"
    cluster.setdefault("tls-server-name", str(parts.hostname))
    path = kubeconfig.with_name(f"relay-{relay.port}.kubeconfig")
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    try:
        yield relay, path
    finally:
        relay.cut()
        path.unlink()
