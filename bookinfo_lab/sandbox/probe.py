"""Asks the sandbox's own pods whether they answer, as a kubelet would, and its front door as the client would.

Edge: sockets.  A socket belongs to the network namespace it was made in, whoever uses it later: the init makes
one in the node's or the client's namespace and needs no process there.
"""

import socket
import time
from collections.abc import Sequence

from bookinfo_lab.errors import SourceError
from bookinfo_lab.sandbox import netns, topology, wiring
from bookinfo_lab.sandbox.serve import Target
from bookinfo_lab.sandbox.topology import Object, Topology

_PAUSE_S = 0.01
_FAILED_PARTS = (b"Error fetching product details", b"Error fetching product reviews", b"Ratings service is currently")


def wait_until_ready(plan: Topology, targets: Sequence[Target], seconds: float) -> None:
    """Wait until every readiness probe succeeds and the front door serves the whole page.

    Raises SourceError naming the first container that ended or did not answer in time.
    """
    deadline = time.monotonic() + seconds
    waiting = [(pod, item) for pod in plan.pods() for item in topology.containers(pod) if "readinessProbe" in item]
    while waiting:
        waiting = [(pod, item) for pod, item in waiting if not _answers(plan, pod, item["readinessProbe"])]
        if waiting:
            _pause(deadline, targets, f"{waiting[0][0]['metadata']['name']} container {waiting[0][1]['name']}")
    address, port = topology.front_door(plan, plan.objects)
    while not _whole_page(address, port):
        _pause(deadline, targets, f"http://{address}:{port}/productpage")


def _pause(deadline: float, targets: Sequence[Target], what: str) -> None:
    for target in targets:
        code = target.exit_code()
        if code is not None:
            raise SourceError(f"{target.container or target.name} in {target.name}", code, _tail(target.log))
    if time.monotonic() > deadline:
        raise SourceError(f"wait for {what}", None, "it did not answer in time", "see bookinfo-lab doctor")
    time.sleep(_PAUSE_S)


def _tail(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        return file.read()[-300:]


def _answers(plan: Topology, pod: Object, probe: Object) -> bool:
    space = wiring.node_netns(topology.host_of(pod, plan).name)
    how = probe.get("httpGet") or probe["tcpSocket"]
    address = (pod["status"]["podIP"], int(how["port"]))
    if "path" not in how:
        return _get(space, address, "") is not None
    reply = _get(space, address, how["path"])
    return reply is not None and reply.startswith(b"HTTP/1.1 200")


def _whole_page(address: str, port: int) -> bool:
    reply = _get(wiring.CLIENT, (address, port), "/productpage")
    return reply is not None and reply.startswith(b"HTTP/1.1 200") and not any(part in reply for part in _FAILED_PARTS)


def _get(space: str, address: tuple[str, int], path: str) -> bytes | None:
    """The bytes that answer one GET, b"" where only a connection was asked for, None where nobody answers."""
    with netns.entered(space):
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        with connection:
            connection.settimeout(2)
            connection.connect(address)
            if not path:
                return b""
            host = f"{address[0]}:{address[1]}"
            request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts)
    except OSError:
        return None
