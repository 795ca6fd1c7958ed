"""Whose chain is this: from a name such as KUBE-SVC-JSIH6CCNAROIS6ON back to the Service port it was made of.

Pure.  The names hold a hash, so they are computed for the Services that are given, in today's way and in that of 2017,
and compared.  A name that none of them has is said to be one, with what that can mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bookinfo_lab.kube.objects import EndpointSlice, Service, ServicePort
from bookinfo_lab.kube.parse import Given, parse

from .chain_names import endpoint_chain, service_chain, service_port_name, service_port_name_2017
from .service_paths import ServicePath

KINDS = {
    "SVC": "chooses among all endpoints that this node may use",
    "EXT": "takes what comes to the port from outside the cluster",
    "SVL": "chooses among endpoints on this node",
    "FW": "lets in what comes to the load balancer's address from its source ranges",
    "XLB": "takes what comes from outside under policy Local, in older versions",
    "SEP": "translates to one endpoint",
}
_SHARED = {
    "KUBE-SERVICES": "kube-proxy's first chain: it tells Services apart by address and port",
    "KUBE-NODEPORTS": "kube-proxy's chain for ports of the node itself",
    "KUBE-MARK-MASQ": "kube-proxy's mark for packets whose source address is to be changed (SNAT)",
    "KUBE-MARK-DROP": "the kubelet's mark for packets to drop, in older versions",
    "KUBE-POSTROUTING": "kube-proxy's chain that masquerades what carries its mark",
    "KUBE-EXTERNAL-SERVICES": "kube-proxy's chain that refuses what comes from outside to Services without endpoints",
    "KUBE-PROXY-FIREWALL": "kube-proxy's chain that drops what no load balancer's source range let in",
    "KUBE-FORWARD": "kube-proxy's chain for forwarded packets",
    "KUBE-FIREWALL": "the kubelet's chain that guards the loopback range, or drops what carries its mark",
    "KUBE-PROXY-CANARY": "kube-proxy's canary: an empty chain whose disappearance tells it that rules were flushed",
    "KUBE-KUBELET-CANARY": "the kubelet's canary: an empty chain whose disappearance tells it that rules were flushed",
    "KUBE-IPTABLES-HINT": "the kubelet's hint to others which iptables backend this node uses",
}


@dataclass(frozen=True, slots=True)
class ChainOwner:
    """The Service port that ``chain`` was made of; ``kind`` is SVC, EXT, SVL, FW, XLB or SEP.

    ``service`` is ``namespace/name``; ``endpoint`` is ``IP:PORT`` for SEP, else "".  ``kind`` and ``service`` are ""
    where the chain is of no Service that was given; ``why`` says then what it is, or what may be.
    """

    chain: str
    kind: str = ""
    service: str = ""
    port_name: str = ""
    protocol: str = ""
    endpoint: str = ""
    why: str = ""

    def __str__(self) -> str:
        if not self.kind:
            return f"{self.chain} is of none of these Services: {self.why}"
        port = f", port {self.port_name}" if self.port_name else ""
        to = f" {self.endpoint}" if self.endpoint else ""
        return f"{self.chain}: Service {self.service}{port} ({self.protocol}), {KINDS[self.kind]}{to}"


def chain_owner(name: str, given: Given) -> ChainOwner:
    """The owner of the chain ``name`` among the Services, and for SEP the EndpointSlices, of ``given``.

    Errors are those of `kube.parse`.
    """
    objects = parse(given)
    if name in _SHARED:
        return ChainOwner(name, why=f"{_SHARED[name]}; it is of no one Service")
    kind = _kind(name)
    if not kind:
        return ChainOwner(name, why="kube-proxy makes no chain of such a name for a Service")
    slices = _slices(objects.endpoint_slices)
    for service in objects.services:
        for port in service.ports:
            for owner in _owners(service, port, slices if kind == "SEP" else {}, (kind,)):
                if owner.chain == name:
                    return owner
    ports = sum(len(service.ports) for service in objects.services)
    endpoints = " and their endpoints" if kind == "SEP" else ""
    gone = "an endpoint, or a Service port," if kind == "SEP" else "a Service port"
    return ChainOwner(
        name,
        why=f"none of the {ports} Service ports given{endpoints} makes that name; it may be of {gone} that is gone,"
        " or of another cluster",
    )


def chain_owners(given: Given) -> dict[str, ChainOwner]:
    """Every chain name that the Services and EndpointSlices of ``given`` can make, with its owner.

    Some of these chains exist on no node: the names are computed, whatever policies and readiness say.
    """
    objects = parse(given)
    slices = _slices(objects.endpoint_slices)
    found: dict[str, ChainOwner] = {}
    for service in objects.services:
        for port in service.ports:
            for owner in _owners(service, port, slices, tuple(KINDS)):
                found.setdefault(owner.chain, owner)
    return found


def named(path: ServicePath, owners: dict[str, ChainOwner]) -> ServicePath:
    """``path`` with the Service that its chains belong to, where no comment names it; else ``path`` itself."""
    if path.service:
        return path
    found = next((owners[chain] for chain in path.chains if chain in owners), None)
    return replace(path, service=found.service, port_name=found.port_name) if found else path


def _kind(name: str) -> str:
    words = name.split("-")
    return words[1] if len(words) == 3 and words[0] == "KUBE" and words[1] in KINDS else ""


def _slices(given: tuple[EndpointSlice, ...]) -> dict[tuple[str, str], list[EndpointSlice]]:
    found: dict[tuple[str, str], list[EndpointSlice]] = {}
    for item in given:
        found.setdefault((item.namespace, item.service), []).append(item)
    return found


def _owners(
    service: Service,
    port: ServicePort,
    slices: dict[tuple[str, str], list[EndpointSlice]],
    kinds: tuple[str, ...],
) -> Iterator[ChainOwner]:
    protocol, ours = port.protocol.lower(), f"{service.namespace}/{service.name}"
    names = [name(service.namespace, service.name, port.name) for name in (service_port_name, service_port_name_2017)]
    for name in dict.fromkeys(names):
        for kind in kinds:
            if kind != "SEP":
                yield ChainOwner(service_chain(kind, name, protocol), kind, ours, port.name, protocol)
        for endpoint in _endpoints(slices.get((service.namespace, service.name), ()), port):
            chain = endpoint_chain(name, protocol, endpoint)
            yield ChainOwner(chain, "SEP", ours, port.name, protocol, endpoint)


def _endpoints(slices: list[EndpointSlice] | tuple[()], port: ServicePort) -> Iterator[str]:
    for item in slices:
        number = item.port(port.name, port.protocol)
        for endpoint in item.endpoints if number and item.address_type in ("IPv4", "IPv6") else ():
            for address in endpoint.addresses:
                yield f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
