"""What a recording of a cluster is about: the chosen namespaces, and the addresses, ports and names that are theirs.

Pure.  Objects of those namespaces and of the nodes come in.  Whatever else a node or an Envoy knows, other Services and
pods, the API server, is outside: `admits` tells it by addresses, `is_foreign` by the names that istiod gives things.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.kube.objects import SERVICE_NAME_LABEL, Objects
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.netfilter import chain_owners

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Socket = tuple[str, int]
API_PORTS = frozenset({443, 6443, 8443})  # where API servers listen, whatever their address
_API_SERVER = ("default", "kubernetes")  # its Service, in every cluster
_ISTIO_PORTS = frozenset({15001, 15006, 15008, 15021, 15090})  # of every sidecar
_NAMED = re.compile(
    r"(?<![\w-])(?P<host>[a-z0-9][\w-]*\.)??(?P<name>[a-z0-9][\w-]*)\.(?P<namespace>[a-z0-9][a-z0-9-]*)(?=\.svc\b)"
)
_POD = re.compile(r"(?<![\w.-])(?P<name>[0-9a-f]+(?:-[0-9a-f]*){3,7})\.(?P<namespace>[a-z0-9][a-z0-9-]*)(?=\.pod\.)")
_IDENTITY = re.compile(r"(?P<head>/ns/)(?P<namespace>[a-z0-9-]+)(?:(?P<middle>/sa/)(?P<name>[a-z0-9.-]+)|(?P<end>/))")
_CONFIG = re.compile(r"(?P<head>/namespaces/)(?P<namespace>[a-z0-9-]+)(?P<middle>/[a-z-]+/)(?P<name>[a-z0-9.-]+)")
_CLUSTER = re.compile(
    r"(?:outbound|inbound)(?:[\w.]*\|[^|\s]*\|[^|\s]*\||_\.\d+_\.[^.\s]*_\.)(?P<host>[\w.*-]+)"
)  # as clusters are called, and as a server name between meshes calls them
_LISTENER = re.compile(r"(?<!\d)(?<!\d\.)(\d{1,3}(?:\.\d{1,3}){3}|\[?[0-9a-f:]*::[0-9a-f:]*\]?)_(\d{1,5})(?!\d)")
_OF_METRIC = re.compile(r"\w_namespace(?:=\"(?P<quoted>[^\"]*)\"|\.=\.(?P<dotted>[^.;]*)\.)")
_NOBODY = ("unknown", "")  # what a metric says of a peer outside the mesh
_CONTROL_PLANE = "istiod"


@dataclass(frozen=True, slots=True)
class Scope:
    """``pods`` are the addresses of recorded pods, ``own`` those and the Services', ``nodes`` the nodes'.

    ``services`` are ``namespace/name``, ``chains`` what kube-proxy may call theirs, ``ports`` their ports,
    ``node_ports`` those of nodes, health checks' too, ``endpoints`` the sockets behind them, which may be no recorded
    pod's.  ``accounts`` are ``namespace/name`` of accounts that recorded pods run as, ``host_pods`` of pods in their
    node's network namespace, ``host_pids`` of those among its processes.  ``api`` are sockets of the API server.
    ``salt`` goes into names that stand for others', which could be guessed without it.
    """

    namespaces: frozenset[str]
    pods: frozenset[str]
    own: frozenset[str]
    nodes: frozenset[str]
    services: frozenset[str]
    chains: frozenset[str]
    ports: frozenset[int]
    node_ports: frozenset[int]
    endpoints: frozenset[Socket]
    accounts: frozenset[str]
    host_pods: frozenset[str]
    host_pids: frozenset[str]
    api: frozenset[Socket]
    salt: bytes = b""

    def knows(self, address: str) -> bool:
        """Whether an address is a recorded pod's, Service's, endpoint's or node's, or no machine's in particular."""
        if address in self.own or address in self.nodes or address in _addresses(self.endpoints):
            return True
        found = _address(address)
        return found is not None and (found.is_loopback or found.is_unspecified)

    def admits(self, *sockets: Socket, is_host: bool = False) -> bool:
        """Whether a connection between these sockets, before and after translation, is one of what is recorded.

        Each is a recorded one's or a node's, and one at least a recorded one's, or all are loopback's, unless
        ``is_host``: a node's.  A client from elsewhere counts where it asks a node port, and the API server never does.
        """
        if any(item in self.api or (item[0] in self.nodes and item[1] in API_PORTS) for item in sockets):
            return False
        if not all(self.knows(address) for address, _ in sockets):
            return any(address in self.nodes and port in self.node_ports for address, port in sockets)
        # A loopback is a pod's own, unless it is the node's.
        is_local = bool(sockets) and not is_host and all(address not in self.nodes for address, _ in sockets)
        asks_port = any(port in self.node_ports for _, port in sockets)
        return is_local or asks_port or any(address in self.own for address, _ in sockets)

    def is_foreign(self, text: str) -> bool:
        """Whether a name of Envoy's, or a line with one, is of a Service or an address that is not recorded."""
        names = (found for pattern in (_NAMED, _POD) for found in pattern.finditer(text))
        if any(not self._has(found["namespace"], found["name"]) for found in names):
            return True
        if any(".svc" not in found["host"] for found in _CLUSTER.finditer(text)):
            return True
        return any(not self._listens(found[1].strip("[]"), int(found[2])) for found in _LISTENER.finditer(text))

    def _has(self, namespace: str, name: str) -> bool:
        """Whether a Service is of a chosen namespace, or recorded on its own; the API server's never is."""
        is_chosen = namespace in self.namespaces or f"{namespace}/{name}" in self.services
        return is_chosen and (namespace, name) != _API_SERVER

    def counts_others(self, line: str) -> bool:
        """Whether a line of metrics counts for a workload or a Service of a namespace of which nothing is recorded."""
        own = self.namespaces | {name.partition("/")[0] for name in self.services}
        named = (found["quoted"] or found["dotted"] or "" for found in _OF_METRIC.finditer(line))
        return any(name not in own and name not in _NOBODY for name in named)

    def _listens(self, address: str, port: int) -> bool:
        found = _address(address)
        if found is None or not found.is_unspecified:
            return address in self.own
        return self.has_port(port)

    def has_port(self, port: int) -> bool:
        """Whether a listener on all addresses is a recorded Service's, or every sidecar's."""
        return port in self.ports or port in _ISTIO_PORTS

    def masked(self, text: str) -> tuple[str, int]:
        """The text with names of other namespaces' Services and accounts overwritten, and how many there were.

        The mesh's control plane keeps its name: every sidecar of every mesh has it.
        """
        count = 0

        def overwrite(found: re.Match[str]) -> str:
            nonlocal count
            if self._may_name(found):
                return found[0]
            count += 1
            return re.sub(r"[\w-]", "x", found[0]) if found.re in (_NAMED, _POD) else _inside(found)

        for pattern in (_NAMED, _POD, _IDENTITY, _CONFIG):
            text = pattern.sub(overwrite, text)
        return text, count

    def _may_name(self, found: re.Match[str]) -> bool:
        namespace, name = found["namespace"], found["name"] or ""
        if found.re is _NAMED:
            return name.startswith(_CONTROL_PLANE) or self._has(namespace, name)
        return namespace in self.namespaces or (found.re is _IDENTITY and f"{namespace}/{name}" in self.accounts)


@functools.lru_cache(maxsize=8)
def _addresses(sockets: frozenset[Socket]) -> frozenset[str]:
    return frozenset(address for address, _ in sockets)


def _inside(found: re.Match[str]) -> str:
    parts = found.groupdict()
    named = ("namespace", "name")
    return "".join("x" * len(text) if part in named else text for part, text in parts.items() if text)


def is_api_server(item: Mapping[str, Any]) -> bool:
    """Whether an API object is the Service `kubernetes` in `default`, or lists its endpoints: the API server."""
    meta = item["metadata"]
    labels = meta.get("labels") or {}
    owner = labels.get(SERVICE_NAME_LABEL) if item.get("kind") == "EndpointSlice" else meta.get("name")
    return item.get("kind") in ("Service", "EndpointSlice") and (meta.get("namespace"), owner) == _API_SERVER


def scope(
    namespaces: Iterable[str], given: Sequence[dict[str, Any]], api: Iterable[Socket] = (), salt: bytes = b""
) -> Scope:
    """The scope of these namespaces: ``given`` are their objects, and the nodes.

    What of ``given`` is the API server's is none of theirs, and only tells more sockets of it.
    """
    objects, of_api = (parse([item for item in given if is_api_server(item) == wanted]) for wanted in (False, True))
    pods = [item for item in given if item.get("kind") == "Pod"]
    return Scope(
        frozenset(namespaces),
        frozenset(_pods(objects)),
        frozenset([*_pods(objects), *_services(objects)]),
        frozenset([*_nodes(objects), *(address for pod in pods for address in _hosts(pod))]),
        frozenset(f"{item.namespace}/{item.name}" for item in objects.services),
        frozenset(name for name, owner in chain_owners.chain_owners(objects).items() if owner.kind != "SEP"),
        frozenset(port.port for item in objects.services for port in item.ports),
        frozenset(_node_ports(objects)),
        frozenset(_endpoints(objects)),
        frozenset(_named(item, _spec(item).get("serviceAccountName", "")) for item in pods),
        frozenset(f"{pod.namespace}/{pod.name}" for pod in objects.pods if pod.host_network),
        frozenset(_named(item, item["metadata"]["name"]) for item in pods if _spec(item).get("hostPID")),
        frozenset([*api, *_endpoints(of_api), *_sockets(of_api)]),
        salt,
    )


def _nodes(objects: Objects) -> Iterable[str]:
    for node in objects.nodes:
        yield from (address for _, address in node.addresses if is_address(address))


def _hosts(pod: Mapping[str, Any]) -> Iterable[str]:
    """The addresses of a pod's node, which may be seen where no Node is."""
    status = pod.get("status") or {}
    found = [status.get("hostIP", ""), *(item.get("ip", "") for item in status.get("hostIPs") or ())]
    return filter(is_address, found)


def _spec(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return item.get("spec") or {}


def _named(item: Mapping[str, Any], name: str) -> str:
    return f"{item['metadata'].get('namespace', 'default')}/{name}"


def _pods(objects: Objects) -> Iterable[str]:
    for pod in objects.pods:
        if not pod.host_network:
            yield from map(str, pod.pod_ips)


def _services(objects: Objects) -> Iterable[str]:
    for service in objects.services:
        yield from map(str, service.cluster_ips)
        yield from map(str, service.external_ips)
        yield from (str(item.address) for item in service.load_balancer)


def _node_ports(objects: Objects) -> Iterable[int]:
    for service in objects.services:
        ports = (*(port.node_port for port in service.ports), service.health_check_node_port)
        yield from filter(None, ports)


def _sockets(objects: Objects) -> Iterable[Socket]:
    for service in objects.services:
        yield from ((str(address), port.port) for address in service.cluster_ips for port in service.ports)


def _endpoints(objects: Objects) -> Iterable[Socket]:
    for item in objects.endpoint_slices:
        addresses = [address for endpoint in item.endpoints for address in endpoint.addresses if is_address(address)]
        yield from ((address, port.port) for address in addresses for port in item.ports)


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    return _address(text) is not None


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
