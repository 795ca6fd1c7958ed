"""By which Service, and by which way, requests come into a Bookinfo that is there already.

Pure but for `reachable`.  A gateway's Service is taken first, then productpage's own; of the ways to it the first that
answers: its load balancer, a node's port, else a port-forward to one of its pods.  Which it was is said, because the
source address that the pod sees depends on it.
"""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.objects import Endpoint, Objects, Pod, Service, ServicePort
from bookinfo_lab.sources.base import FrontDoor, authority

_GATEWAYS = (("istio", "ingressgateway"), ("istio", "ingress"), ("app", "istio-ingressgateway"))
_GATEWAY_API = "gateway.networking.k8s.io/gateway-name"
_PORT_NAMES = ("http2", "http", "http-80", "default")
_MEND = 'name its namespace: connect("kubernetes", namespace=…) or BOOKINFO_LAB_NAMESPACE'
_PATIENCE_S = 1.0
_NOBODYS_PORT = 1
_BEFORE_SMALL = 8000  # 80 is 8080 here
_NODES_TRIED = 3  # where none of them can be reached from here, no other can


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
            ready = [item for item in slice_.endpoints if item.ready]
            for pod in objects.pods if number else ():
                is_there = pod.namespace == slice_.namespace and pod.phase == "Running"
                if is_there and any(item.target == pod.name or _has(pod, item) for item in ready):
                    return pod, number
        raise LabError(f"no pod of the Service {self.service.namespace}/{self.service.name} is ready")


def _has(pod: Pod, endpoint: Endpoint) -> bool:
    """Whether an endpoint that names no pod has the pod's own address."""
    return not endpoint.target and not pod.host_network and str(pod.pod_ip) in endpoint.addresses


@dataclass(frozen=True, slots=True)
class Way:
    """An address to connect to, and what that way is called; ``host`` is "" for a port-forward, to a port of ours."""

    host: str
    port: int
    name: str

    @property
    def authority(self) -> str:
        """Address and port as the header field Host has them."""
        return authority(self.host, self.port)


def find(objects: Objects) -> Door:
    """The door of the Bookinfo that these objects hold.  LabError where there is none, or there are several."""
    found: dict[int, list[Door]] = {}
    for service in objects.services:
        ports = [item for item in service.ports if item.name in _PORT_NAMES or item.port in (80, 8080, 9080)]
        if ports and _rank(service) < len(_GATEWAYS) + 2:
            found.setdefault(_rank(service), []).append(Door(service, ports[0]))
    if not found:
        raise LabError(f"no Bookinfo is seen here: there is no Service productpage and no gateway; {_MEND}")
    best = found[min(found)]
    if len(best) > 1:
        named = ", ".join(f"{item.service.namespace}/{item.service.name}" for item in best)
        raise LabError(f"several Services may be the way in: {named}; {_MEND}")
    return best[0]


def _rank(service: Service) -> int:
    for number, (label, value) in enumerate(_GATEWAYS):
        if service.labels.get(label) == value:
            return number
    if _GATEWAY_API in service.labels:
        return len(_GATEWAYS)
    return len(_GATEWAYS) + (1 if service.name == "productpage" else 2)


def ways(door: Door, objects: Objects) -> Iterator[Way]:
    """The ways in, best first."""
    for host in (*(str(item.address) for item in door.service.load_balancer), *door.service.load_balancer_names):
        yield Way(host, door.port.port, f"its load balancer {host}")
    if door.port.node_port:
        addressed = [node for node in objects.nodes if node.internal_ip]
        for node in addressed[:_NODES_TRIED]:
            yield Way(node.internal_ip, door.port.node_port, f"the NodePort on {node.name}")
    number = door.port.port if door.port.port >= 1024 else _BEFORE_SMALL + door.port.port  # which root alone may take
    yield Way("", number, "a port-forward: the pod sees it come from its own loopback")


def reachable(way: Way) -> bool:
    """Whether somebody takes a connection there within a second, and it is not a proxy that takes every connection."""
    return _is_taken(way.host, way.port) and not _is_taken(way.host, _NOBODYS_PORT)


def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE_S):
            return True
    except OSError:
        return False


def from_inside(door: Door, objects: Objects) -> tuple[str, FrontDoor]:
    """The node of a pod behind the door, and the door as it is there: a headless Service has no address of its own."""
    service, (pod, number) = door.service, door.pod(objects)
    host, port = (service.cluster_ips[0], door.port.port) if service.cluster_ips else (pod.pod_ip, number)
    return pod.node_name, FrontDoor(service.namespace, service.name, door.port.name, str(host), port)


def front_door(door: Door, objects: Objects, missing: Sequence[str] = ()) -> FrontDoor:
    """The door as notebooks see it: a node's address and the node port, else the Service's own address and port.

    ``missing`` says why the nodes are not among the objects.
    """
    service = door.service
    address = next((node.internal_ip for node in objects.nodes if node.internal_ip), "")
    if door.port.node_port and address:
        return FrontDoor(service.namespace, service.name, door.port.name, address, door.port.node_port)
    own = str(service.cluster_ips[0]) if service.cluster_ips else ""
    named = f"the front door here, the Service {service.namespace}/{service.name},"
    why = (
        f"{named} has no NodePort, which this takes; where a gateway of another namespace leads to it, connect without "
        "a namespace (that takes the role reader-cluster), or look at a recorded one: "
        'connect("recording", scenario="cluster")'
    )
    if door.port.node_port:
        why = f"{named} has a NodePort, but no node's address is seen{': ' if missing else ''}{'; '.join(missing)}"
    return FrontDoor(service.namespace, service.name, door.port.name, own, door.port.port, why)
