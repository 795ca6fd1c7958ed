"""By which Service, and by which way, requests come into a Bookinfo that is there already.

Pure but for `reachable`.  A gateway's Service is taken first, then productpage's own; of the ways to it the first that
answers: its load balancer, a node's port, else a port-forward to one of its pods.  Which it was is said, because the
source address that the pod sees depends on it.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.objects import Objects, Pod, Service, ServicePort
from bookinfo_lab.sources.base import FrontDoor

_GATEWAYS = (("istio", "ingressgateway"), ("app", "istio-ingressgateway"))
_GATEWAY_API = "gateway.networking.k8s.io/gateway-name"
_PORT_NAMES = ("http2", "http", "http-80", "default")
_PATIENCE_S = 1.0
_NOBODYS_PORT = 1


@dataclass(frozen=True, slots=True)
class Door:
    """A Service and the port of it that speaks HTTP."""

    service: Service
    port: ServicePort

    def pod(self, objects: Objects) -> tuple[Pod, int]:
        """A running pod behind it, and the number of its port there.  LabError where none runs."""
        for slice_ in objects.endpoint_slices:
            if (slice_.namespace, slice_.service) != (self.service.namespace, self.service.name):
                continue
            number = slice_.port(self.port.name, self.port.protocol)
            for pod in objects.pods:
                if any(item.ready and str(pod.pod_ip) in item.addresses for item in slice_.endpoints) and number:
                    return pod, number
        raise LabError(f"no pod of the Service {self.service.namespace}/{self.service.name} is ready")


@dataclass(frozen=True, slots=True)
class Way:
    """An address to connect to, and what that way is called; ``host`` is "" for a port-forward."""

    host: str
    port: int
    name: str


def find(objects: Objects) -> Door:
    """The door of the Bookinfo that these objects hold.  LabError where there is none."""
    for service in sorted(objects.services, key=_rank):
        if _rank(service) < len(_GATEWAYS) + 2:
            ports = [item for item in service.ports if item.name in _PORT_NAMES or item.port in (80, 8080, 9080)]
            if ports:
                return Door(service, ports[0])
    raise LabError("no Bookinfo is seen here: there is no Service productpage and no gateway; name its namespace")


def _rank(service: Service) -> int:
    for number, (label, value) in enumerate(_GATEWAYS):
        if service.labels.get(label) == value:
            return number
    if _GATEWAY_API in service.labels:
        return len(_GATEWAYS)
    return len(_GATEWAYS) + (1 if service.name == "productpage" else 2)


def ways(door: Door, objects: Objects) -> Iterator[Way]:
    """The ways in, best first."""
    for item in door.service.load_balancer:
        yield Way(str(item.address), door.port.port, f"its load balancer {item.address}")
    if door.port.node_port:
        for node in objects.nodes:
            if node.internal_ip:
                yield Way(node.internal_ip, door.port.node_port, f"the NodePort on {node.name}")
    yield Way("", door.port.port, "a port-forward: the pod sees it come from its own loopback")


def reachable(way: Way) -> bool:
    """Whether somebody takes a connection there within a second, and it is not a proxy that takes every connection."""
    return _is_taken(way.host, way.port) and not _is_taken(way.host, _NOBODYS_PORT)


def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE_S):
            return True
    except OSError:
        return False


def front_door(door: Door, objects: Objects) -> FrontDoor:
    """The door as notebooks see it: a node's address and the node port, else the Service's own address and port."""
    service = door.service
    address = next((node.internal_ip for node in objects.nodes if node.internal_ip), "")
    if door.port.node_port and address:
        return FrontDoor(service.namespace, service.name, door.port.name, address, door.port.node_port)
    own = str(service.cluster_ips[0]) if service.cluster_ips else ""
    return FrontDoor(service.namespace, service.name, door.port.name, own, door.port.port)
