"""Asks a sandbox's kernel: opens a socket in one network namespace, listens in another, says what arrived.

Nothing of the package reasons here.  The listener accepts in the pod, so the peer it sees is the source address
that the kernel's NAT left.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from bookinfo_lab.sandbox import Sandbox
from bookinfo_lab.sandbox.targets import Target


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection that a pod accepted: which pod, from whom, and the sender's own idea of its address."""

    pod: str
    seen_source: str
    own_source: str


class Listeners:
    """Listening sockets on one port in several targets' network namespaces."""

    def __init__(self, mesh: Sandbox, targets: Sequence[Target], port: int) -> None:
        self.mesh = mesh
        self.sockets = {}
        for target in targets:
            listener = mesh.open_socket(target)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            listener.listen(64)
            listener.settimeout(2)
            self.sockets[target.name] = listener

    def __enter__(self) -> "Listeners":
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self.sockets.values():
            listener.close()

    def connect(self, source: Target, address: str, port: int, timeout_s: float = 2.0) -> Arrival:
        """Connect from ``source``'s network namespace and find the pod where it arrived.

        Raises what connect(2) gives: ConnectionRefusedError, TimeoutError, OSError.
        """
        with self.mesh.open_socket(source) as sender:
            sender.settimeout(timeout_s)
            sender.connect((address, port))
            for pod, listener in self.sockets.items():
                listener.setblocking(False)
                try:
                    accepted, peer = listener.accept()
                except BlockingIOError:
                    continue
                with accepted:
                    return Arrival(pod, peer[0], sender.getsockname()[0])
        raise AssertionError(f"{address}:{port} answered, but none of {sorted(self.sockets)} accepted")
