"""The Services of a cluster as proxies know them: each port with its protocol, endpoints and other names.

Pure.  Protocols are Istio's (pkg/config/kube): by the port's appProtocol, else its name; where that says nothing, the
protocol is found out from the bytes.  A UDP port is no business of a proxy's, but that istiod writes an inbound side
for it too.  A Service of type ExternalName is nothing by itself: it gives its names to the Service that it leads to.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Objects = Iterable[Mapping[str, Any]]
_PROTOCOLS = {name: name for name in ("http", "http2", "grpc", "mongo", "udp")}
_PROTOCOLS |= dict.fromkeys(("tcp", "https", "tls", "mysql", "redis"), "tcp")
_APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
_SERVER_SPEAKS_FIRST = (25, 53, 3306, 27017)  # SMTP, DNS, MySQL, MongoDB: waiting to find out would break them
_CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A cluster's member; ``workload`` is what istiod tells of it, ``labels`` are its pod's, if a pod has the IP."""

    address: str
    port: int
    node: str
    is_ready: bool
    labels: Mapping[str, str]
    workload: str


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a Service; its protocol is ``http``, ``http2``, ``grpc``, ``tcp``, ``mongo``, ``auto`` or ``udp``.

    ``name`` and ``namespace`` are the Service's, ``aliases`` those of the ExternalName Services that lead to it, each a
    name and a namespace; ``address`` is its cluster IP (empty: it is headless).  ``target`` is the
    port on the pod whose view it is, 0 where it is none of that pod's; ``beside`` are other Services' ports with it.
    ``is_local``: only endpoints on the caller's own node are to be used.
    """

    host: str
    name: str
    namespace: str
    address: str
    number: int
    port_name: str
    target: int
    protocol: str
    selector: Mapping[str, str]
    is_local: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    beside: tuple["Port", ...] = ()

    @property
    def is_http(self) -> bool:
        """Whether the port's name says that it speaks HTTP of some kind."""
        return self.protocol in ("http", "http2", "grpc")

    def cluster(self, subset: str = "") -> str:
        """Istio's name of the cluster for this port, or for a subset of its endpoints."""
        return outbound_cluster(self.number, subset, self.host)


def outbound_cluster(number: int, subset: str, host: str) -> str:
    """Istio's name of the cluster for a port of a host, whether there is one or not."""
    return f"outbound|{number}|{subset}|{host}"


def outbound_ports(services: Objects, slices: Objects, pods: Objects, domain: str) -> tuple[Port, ...]:
    """The ports of all Services but those of UDP, by host and number, with their endpoints."""
    by_name = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in pods}
    sliced: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in slices:
        meta = item["metadata"]
        sliced.setdefault((meta["namespace"], meta["labels"]["kubernetes.io/service-name"]), []).append(item)
    items = list(services)
    aliases = _aliases(items)
    ports = [
        replace(
            _port(service, port, domain),
            endpoints=_endpoints(service, port, sliced, by_name),
            aliases=aliases.get(_host(service, domain), ()),
        )
        for service in items
        if service["spec"].get("clusterIP")
        for port in _told_of(service["spec"]["ports"])
    ]
    return tuple(sorted(ports, key=lambda port: (port.host, port.number)))


def workload(pod: Mapping[str, Any]) -> str:
    """The Deployment (or other controller) that a pod is of, as istiod finds it from the owner; else the pod's name."""
    meta = pod["metadata"]
    for owner in meta.get("ownerReferences", ()):
        if owner.get("controller"):
            return str(owner["name"]).removesuffix(f"-{meta['labels'].get('pod-template-hash', '')}")
    return str(meta["name"])


def _told_of(ports: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The ports that outbound configuration knows: istiod writes SCTP's as if they were TCP's.

    Not one that has the number of a TCP port: Envoy refuses the two clusters of one name that istiod makes of them.
    """
    taken = {port["port"] for port in ports if port.get("protocol", "TCP") == "TCP"}
    for port in ports:
        if _protocol(port) != "udp" and (port.get("protocol", "TCP") == "TCP" or port["port"] not in taken):
            yield port


def own_ports(services: Objects, pod: Mapping[str, Any], domain: str) -> tuple[Port, ...]:
    """The ports of the Services that select a pod; of two with one target port, that of the older Service."""
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"]["labels"]
    found: dict[int, list[Port]] = {}
    for service in sorted((item for item in services if item["spec"].get("clusterIP")), key=age):
        selector = service["spec"].get("selector") or {}
        if service["metadata"]["namespace"] == namespace and selector and selector.items() <= labels.items():
            for port in service["spec"]["ports"]:
                number = _target(port, pod)
                if number:
                    found.setdefault(number, []).append(_port(service, port, domain, number))
    return tuple(replace(first, beside=tuple(others)) for _, (first, *others) in sorted(found.items()))


def age(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """The older object goes first, as with istiod; of two that are as old, the one whose name does."""
    meta = item["metadata"]
    return meta.get("creationTimestamp") or "", meta["name"], meta["namespace"]


def _target(port: Mapping[str, Any], pod: Mapping[str, Any]) -> int:
    """The number on a pod that a Service port leads to; 0 where no container of it has the name."""
    wanted, transport = port.get("targetPort", port["port"]), port.get("protocol", "TCP")
    if isinstance(wanted, int):
        return wanted
    helpers = (item for item in pod["spec"].get("initContainers", ()) if item.get("restartPolicy") == "Always")
    for container in (*pod["spec"]["containers"], *helpers):
        for offered in container.get("ports", ()):
            if offered.get("name") == wanted and offered.get("protocol", "TCP") == transport:
                return int(offered["containerPort"])
    return 0


def _endpoints(
    service: Mapping[str, Any],
    port: Mapping[str, Any],
    slices: Mapping[tuple[str, str], list[Mapping[str, Any]]],
    pods: Mapping[tuple[str, str], Mapping[str, Any]],
) -> tuple[Endpoint, ...]:
    """The members of a Service port in the order of its slices, which istiod keeps; one that ends is none any more."""
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    found: dict[tuple[str, int], Endpoint] = {}  # by address: slices may overlap while they are rewritten
    for item in slices.get((namespace, name), ()):
        # A slice without endpoints has no ports either; its fields are then null.
        for number in (own["port"] for own in item["ports"] or () if (own.get("name") or "") == port.get("name", "")):
            for endpoint in item.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                is_ready = conditions.get("ready") is not False
                if is_ready or conditions.get("terminating") is False:
                    labels, told = _workload(_member(endpoint, namespace, pods))
                    for address in endpoint["addresses"]:
                        member = Endpoint(address, number, endpoint.get("nodeName") or "", is_ready, labels, told)
                        found.setdefault((address, number), member)
    return tuple(found.values())


def _member(
    endpoint: Mapping[str, Any], namespace: str, pods: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The pod of an endpoint: the one that it names; where it names none, one of the namespace that has its IP."""
    named = endpoint.get("targetRef") or {}
    if named.get("kind") == "Pod":
        return pods.get((named.get("namespace", namespace), named["name"]))
    beside = (item for (place, _), item in pods.items() if place == namespace)
    return next((item for item in beside if (item.get("status") or {}).get("podIP") in endpoint["addresses"]), None)


def _port(service: Mapping[str, Any], port: Mapping[str, Any], domain: str, target: int = 0) -> Port:
    address = service["spec"]["clusterIP"]
    return Port(
        host=_host(service, domain),
        name=service["metadata"]["name"],
        namespace=service["metadata"]["namespace"],
        address="" if address == "None" else address,
        number=port["port"],
        port_name=port.get("name", ""),
        target=target,
        protocol=_protocol(port),
        selector=service["spec"].get("selector") or {},
        is_local=service["spec"].get("internalTrafficPolicy") == "Local",
    )


def _host(service: Mapping[str, Any], domain: str) -> str:
    return f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{domain}"


def _aliases(services: Iterable[Mapping[str, Any]]) -> dict[str, tuple[tuple[str, str], ...]]:
    """The name and namespace of each ExternalName Service by the host that it leads to, in the order of their hosts."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for service in services:
        if service["spec"].get("type") == "ExternalName":
            own = (service["metadata"]["name"], service["metadata"]["namespace"])
            host = service["spec"].get("externalName", "")
            found[host] = tuple(sorted({*found.get(host, ()), own}, key=".".join))
    return found


def _workload(pod: Mapping[str, Any] | None) -> tuple[Mapping[str, str], str]:
    """The labels of an endpoint's pod, and what istiod tells of it; of one that is no pod, nothing."""
    if pod is None:
        return {}, ";;;;Kubernetes"
    labels, name = pod["metadata"]["labels"], workload(pod)
    canonical = next((labels[key] for key in _CANONICAL_NAME if key in labels), name)
    revision = next((labels[key] for key in _CANONICAL_REVISION if key in labels), "")
    words = (name, pod["metadata"]["namespace"], canonical, "" if revision == "latest" else revision, "Kubernetes")
    return labels, ";".join(words)


def _protocol(port: Mapping[str, Any]) -> str:
    if port.get("protocol") == "UDP":
        return "udp"
    stated = port.get("appProtocol", "")
    word = _APP_PROTOCOLS.get(stated, stated or port.get("name", "")).partition("-")[0].lower()
    return _PROTOCOLS.get(word, "tcp" if port["port"] in _SERVER_SPEAKS_FIRST else "auto")
