"""What one proxy can see of the API objects: Services with their ports and endpoints, its own pod, its policies.

Pure.  Protocols are Istio's: by the port's name, with 53 known as TCP; a name that says nothing leaves the protocol to
be found out from the bytes.  UDP ports are no business of a proxy's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_HTTP = ("http", "http2", "grpc", "grpc-web")
_TCP = ("tcp", "https", "tls", "mongo", "mysql", "redis")


@dataclass(frozen=True, slots=True)
class Port:
    """One TCP port of a Service; its protocol is ``http``, ``http2``, ``tcp`` or ``auto``.

    ``endpoints`` are (IP, port, the pod's labels).
    """

    host: str
    name: str
    namespace: str
    address: str
    number: int
    target: int
    protocol: str
    selector: Mapping[str, str]
    endpoints: tuple[tuple[str, int, Mapping[str, str]], ...]

    def cluster(self, subset: str = "") -> str:
        """Istio's name of the cluster for this port, or for a subset of its endpoints."""
        return f"outbound|{self.number}|{subset}|{self.host}"


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

    def find(self, host: str, number: int, namespace: str) -> Port | None:
        """The Service port that a destination host (short or full) of a policy in ``namespace`` means."""
        full = host if "." in host else f"{host}.{namespace}.svc.{self.domain}"
        return next((port for port in self.ports if port.host == full and number in (0, port.number)), None)

    def subsets(self, port: Port) -> dict[str, Mapping[str, str]]:
        """Name → labels of the subsets that DestinationRules give to a Service."""
        return {
            subset["name"]: subset.get("labels", {})
            for rule in self.destination_rules
            if (found := self.find(rule["spec"]["host"], 0, rule["metadata"]["namespace"])) and found.host == port.host
            for subset in rule["spec"].get("subsets", ())
        }


def view(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], domain: str) -> View:
    """The View of ``pod``; objects of kinds that proxies do not read are passed over."""
    items = list(objects)
    labels = {
        item["status"]["podIP"]: item["metadata"]["labels"]
        for item in items
        if item["kind"] == "Pod" and item.get("status", {}).get("podIP")
    }

    def of(kind: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(item for item in items if item["kind"] == kind)

    ports = [
        _port(service, port, of("EndpointSlice"), labels, domain)
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
    slices: Iterable[Mapping[str, Any]],
    labels: Mapping[str, Mapping[str, str]],
    domain: str,
) -> Port:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    endpoints: list[tuple[str, int, Mapping[str, str]]] = []
    target = port.get("targetPort", port["port"])
    for item in slices:
        meta = item["metadata"]
        if (meta["namespace"], meta["labels"]["kubernetes.io/service-name"]) != (namespace, name):
            continue
        for number in (own["port"] for own in item.get("ports") or () if (own.get("name") or "") == port.get("name", "")):
            target = number
            endpoints += [
                (address, number, labels.get(address, {}))
                for endpoint in item.get("endpoints") or ()
                if endpoint.get("conditions", {}).get("ready", True)
                for address in endpoint["addresses"]
            ]
    return Port(
        host=f"{name}.{namespace}.svc.{domain}",
        name=name,
        namespace=namespace,
        address=service["spec"]["clusterIP"],
        number=port["port"],
        target=target if isinstance(target, int) else port["port"],
        protocol=_protocol(port.get("name", ""), port["port"]),
        selector=service["spec"].get("selector") or {},
        endpoints=tuple(sorted(_distinct(endpoints), key=lambda endpoint: endpoint[:2])),
    )


def _distinct(endpoints: Iterable[tuple[str, int, Mapping[str, str]]]) -> list[tuple[str, int, Mapping[str, str]]]:
    """Endpoints without repetitions: slices may overlap while they are rewritten."""
    return list({endpoint[:2]: endpoint for endpoint in endpoints}.values())


def _protocol(name: str, number: int) -> str:
    if number == 53:
        return "tcp"
    first = name.partition("-")[0]
    if first in ("http2", "grpc"):
        return "http2"
    if first in _HTTP:
        return "http"
    return "tcp" if first in _TCP else "auto"
