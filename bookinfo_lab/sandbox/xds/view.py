"""What one proxy can see of the API objects: Services with their ports and endpoints, its own pod, its policies.

Pure.  Protocols are Istio's (pkg/config/kube): by the port's appProtocol, else its name; where that says nothing, the
protocol is found out from the bytes.  UDP ports are no business of a proxy's; headless Services are passed over.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bookinfo_lab.errors import Unsupported

_PROTOCOLS = {"http": "http", "http2": "http2", "grpc": "http2", "mongo": "mongo"}
_PROTOCOLS |= dict.fromkeys(("tcp", "https", "tls", "mysql", "redis"), "tcp")
_APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
_SERVER_SPEAKS_FIRST = (25, 53, 3306, 27017)  # SMTP, DNS, MySQL, MongoDB: waiting to find out would break them
_CANONICAL_NAME = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_ROLES = ("sidecar", "router", "ingress")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A cluster's member; ``workload`` is what istiod tells of it, ``labels`` are its pod's, if a pod has the IP."""

    address: str
    port: int
    labels: Mapping[str, str]
    workload: str


@dataclass(frozen=True, slots=True)
class Port:
    """One TCP port of a Service; its protocol is ``http``, ``http2``, ``tcp``, ``mongo`` or ``auto``.

    ``name`` and ``namespace`` are the Service's, ``address`` its cluster IP, ``target`` the port on its pods.
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
    endpoints: tuple[Endpoint, ...]

    def cluster(self, subset: str = "") -> str:
        """Istio's name of the cluster for this port, or for a subset of its endpoints."""
        return outbound_cluster(self.number, subset, self.host)


def outbound_cluster(number: int, subset: str, host: str) -> str:
    """Istio's name of the cluster for a port of a host, whether there is one or not."""
    return f"outbound|{number}|{subset}|{host}"


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one proxy's configuration is made of; ``ports`` are sorted by host and number."""

    pod: Mapping[str, Any]
    domain: str
    ports: tuple[Port, ...]
    gateways: tuple[Mapping[str, Any], ...]
    virtual_services: tuple[Mapping[str, Any], ...]
    destination_rules: tuple[Mapping[str, Any], ...]
    ingresses: tuple[Mapping[str, Any], ...]

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    def own_ports(self) -> tuple[Port, ...]:
        """The Service ports that select this pod, one a target port, in the order of those."""
        labels = self.pod["metadata"]["labels"]
        own = [
            port
            for port in self.ports
            if port.namespace == self.namespace and port.selector and port.selector.items() <= labels.items()
        ]
        first = {port.target: port for port in reversed(own)}
        return tuple(first[target] for target in sorted(first))

    def full_host(self, host: str, namespace: str) -> str:
        """The host that a policy in ``namespace`` means: a name without dots is a Service beside it."""
        return host if "." in host else f"{host}.{namespace}.svc.{self.domain}"

    def ports_of(self, host: str) -> tuple[Port, ...]:
        """The ports of the Service whose full name is ``host``, none where there is no such Service."""
        return tuple(port for port in self.ports if port.host == host)

    def rules_for(self, port: Port) -> tuple[Mapping[str, Any], ...]:
        """The DestinationRules about a port's Service, in the order in which they were given."""
        return tuple(
            rule
            for rule in self.destination_rules
            if self.full_host(rule["spec"]["host"], rule["metadata"]["namespace"]) == port.host
        )


def role(pod: Mapping[str, Any]) -> str:
    """What the pod's proxy is: ``sidecar``, ``router`` (a gateway) or ``ingress`` (2017); Unsupported without one.

    It is the word after ``proxy`` on the command line of pilot-agent, wherever the pod names that program.
    """
    spec = pod["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        for word, following in pairwise(words):
            if word == "proxy" and following in _ROLES:
                return str(following)
    raise Unsupported(f"the pod {pod['metadata']['name']} runs no proxy")


def workload(pod: Mapping[str, Any]) -> str:
    """The Deployment (or other controller) that a pod is of, as istiod finds it from the owner; else the pod's name."""
    meta = pod["metadata"]
    for owner in meta.get("ownerReferences", ()):
        if owner.get("controller"):
            return str(owner["name"]).removesuffix(f"-{meta['labels'].get('pod-template-hash', '')}")
    return str(meta["name"])


def view(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], domain: str) -> View:
    """The View of ``pod``; objects of kinds that proxies do not read are passed over."""
    items = list(objects)
    pods = {
        item["status"]["podIP"]: item for item in items if item["kind"] == "Pod" and item.get("status", {}).get("podIP")
    }

    def of(kind: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(item for item in items if item["kind"] == kind)

    slices: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in of("EndpointSlice"):
        meta = item["metadata"]
        slices.setdefault((meta["namespace"], meta["labels"]["kubernetes.io/service-name"]), []).append(item)
    ports = [
        _port(service, port, slices, pods, domain)
        for service in of("Service")
        if service["spec"].get("clusterIP", "None") not in ("None", "")
        for port in service["spec"]["ports"]
        if port.get("protocol", "TCP") == "TCP"
    ]
    return View(
        pod=pod,
        domain=domain,
        ports=tuple(sorted(ports, key=lambda port: (port.host, port.number))),
        gateways=of("Gateway"),
        virtual_services=of("VirtualService"),
        destination_rules=of("DestinationRule"),
        ingresses=of("Ingress"),
    )


def _port(
    service: Mapping[str, Any],
    port: Mapping[str, Any],
    slices: Mapping[tuple[str, str], list[Mapping[str, Any]]],
    pods: Mapping[str, Mapping[str, Any]],
    domain: str,
) -> Port:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    endpoints: dict[tuple[str, int], Endpoint] = {}  # by address: slices may overlap while they are rewritten
    target = port.get("targetPort", port["port"])
    for item in slices.get((namespace, name), ()):
        # A slice without endpoints has no ports either; its fields are then null.
        for number in (own["port"] for own in item["ports"] or () if (own.get("name") or "") == port.get("name", "")):
            target = number
            for endpoint in item.get("endpoints") or ():
                if endpoint.get("conditions", {}).get("ready", True):
                    for address in endpoint["addresses"]:
                        endpoints.setdefault((address, number), _endpoint(address, number, pods.get(address)))
    return Port(
        host=f"{name}.{namespace}.svc.{domain}",
        name=name,
        namespace=namespace,
        address=service["spec"]["clusterIP"],
        number=port["port"],
        port_name=port.get("name", ""),
        target=target if isinstance(target, int) else port["port"],
        protocol=_protocol(port.get("appProtocol", ""), port.get("name", ""), port["port"]),
        selector=service["spec"].get("selector") or {},
        endpoints=tuple(endpoints.values()),
    )


def _endpoint(address: str, number: int, pod: Mapping[str, Any] | None) -> Endpoint:
    if pod is None:
        return Endpoint(address, number, {}, ";;;;Kubernetes")
    labels, name = pod["metadata"]["labels"], workload(pod)
    canonical = next((labels[key] for key in _CANONICAL_NAME if key in labels), name)
    revision = next((labels[key] for key in _CANONICAL_REVISION if key in labels), "")
    words = (name, pod["metadata"]["namespace"], canonical, "" if revision == "latest" else revision, "Kubernetes")
    return Endpoint(address, number, labels, ";".join(words))


def _protocol(stated: str, name: str, number: int) -> str:
    word = _APP_PROTOCOLS.get(stated, stated or name).partition("-")[0].lower()
    return _PROTOCOLS.get(word, "tcp" if number in _SERVER_SPEAKS_FIRST else "auto")
