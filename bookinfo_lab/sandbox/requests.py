"""Sends one request through a sandbox's front door and collects what the proxies logged of it.

Edge: a socket of the client's network namespace, and the proxies' log files.
"""

import http.client
import time
import uuid

from bookinfo_lab import journey
from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.sandbox import Sandbox, topology

_QUIET_S = 0.1  # a proxy writes its line within milliseconds; this long without a new one, all have written
_PATIENCE_S = 5.0


def get(mesh: Sandbox, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """GET ``path`` at the front door as the client; status, header fields, body.  Raises SourceError."""
    if not path.startswith("/") or any(not 32 < ord(char) < 127 for char in path):
        raise LabError(f"{path!r} is not a URL path: it starts with '/' and holds no blanks or control characters")
    address, port = topology.front_door(mesh.topology(), mesh.objects())
    connection = http.client.HTTPConnection(address, port, timeout=30)
    connection.sock = mesh.open_socket(mesh.target("client"))
    try:
        connection.sock.settimeout(30)
        connection.sock.connect((address, port))
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"curl http://{address}:{port}{path}", None, str(error) or type(error).__name__) from None
    finally:
        connection.close()


def proxy_logs(mesh: Sandbox) -> list[journey.ProxyLog]:
    """What every proxy of the sandbox has logged so far."""
    targets = {(item.namespace, item.name, item.container): item for item in mesh.targets()}
    found = []
    for pod in [item for item in mesh.objects() if item["kind"] == "Pod"]:
        meta, address = pod["metadata"], pod["status"]["podIP"]
        for item in filter(topology.is_proxy, topology.containers(pod)):
            text = mesh.logs(targets[meta["namespace"], meta["name"], item["name"]])
            found.append(journey.ProxyLog(meta["name"], address, not topology.is_intercepted(pod), text))
    return found


def send(mesh: Sandbox, path: str, user: str = "") -> journey.Journey:
    """One request and its journey.

    The request's User-Agent is unique: by it the gateway's own line is found, and by that line's request id all
    others.  Raises SourceError where the gateway never logged it.
    """
    agent = f"bookinfo-lab/{uuid.uuid4()}"
    get(mesh, path, {"User-Agent": agent} | ({"Cookie": f"user={user}"} if user else {}))
    deadline = time.monotonic() + _PATIENCE_S
    found, since = None, time.monotonic()
    while True:
        now = journey.join(proxy_logs(mesh), agent)
        if now != found:
            found, since = now, time.monotonic()
        if found and not found.unpaired and time.monotonic() - since > _QUIET_S:
            return found
        if time.monotonic() > deadline:
            if found is None:
                raise SourceError("read the gateway's access log", None, "it has no line of this request")
            return found
        time.sleep(0.02)
