"""Packets of the mesh's own traffic, by name: what a learner walks first, and what a recording holds proofs of.

A source is asked for its objects and a few addresses, packets come out; the same source gives the same ones each time.
Their source ports are below those that Linux gives to connections, so that no connection has them already.
"""

import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError, NotShown
from bookinfo_lab.kube import places
from bookinfo_lab.kube.fields import Address
from bookinfo_lab.kube.objects import Objects, Pod, Service
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.kube.places import CLIENT, Place
from bookinfo_lab.netfilter import facts, routing
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.sources.base import RESOURCES, FrontDoor, Query, Source, is_proxy

ASKING, ASKED = "productpage", "reviews"  # Bookinfo's: a service, and one that it asks
PROXY_UID = 1337  # Envoy's, where the installation gives it no other (OpenShift may)
APPLICATION_UID = 1000
FIRST_PORT = 20001
FROM_CLIENT, TO_SERVICE, TO_DOOR = "client to front door", "pod to Service", "pod to front door"
IN_POD = (
    "into the pod",
    "application out",
    "proxy out",
    "proxy with a wrong uid",
    "application as the proxy's user",
    "proxy to application",
)


@dataclass(frozen=True, slots=True)
class Passing:
    """A packet and the place whose rules it meets; ``what`` says who sends it to whom."""

    name: str
    place: Place
    packet: Packet
    what: str


@dataclass(frozen=True, slots=True)
class _Cast:
    """Who talks to whom: ``page`` asks ``service``, which ``other`` is behind, and listens on ``port`` itself."""

    page: Pod
    port: int
    service: Service
    other: Pod
    other_port: int


class Packets(dict[str, Passing]):
    """The packets by name; ``refused`` are those that cannot be told, with the reason, which asking for one raises.

    Asking for any other raises LabError, which names what there is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, LabError] = {}

    def __missing__(self, name: str) -> Passing:
        there = ", ".join(self) or "none"
        raise self.refused.get(name) or LabError(f"this lab has no packet {name!r}; it has: {there}")

    def add(self, make: Callable[[], Iterable[Passing]], *names: str) -> None:
        """Those that ``make`` gives; under ``names`` the reason where the source does not tell what they need."""
        try:
            self.update({item.name: item for item in make()})
        except LabError as refusal:
            self.refused |= dict.fromkeys(names, refusal)


def packets(source: Source) -> Packets:
    """The packets by name; one that this cluster has no sender or receiver for is left out."""
    found = Packets()
    read = {name: source.fetch(Query("objects", None, (name,))) for name in RESOURCES}
    given = [item for evidence in read.values() for item in json.loads(evidence.raw)["items"]]
    objects = parse(given)
    door = source.front_door()
    hosts = {item.name: Place("node", "", item.name, "") for item in objects.nodes}
    named = next((item.name for item in objects.nodes if door.address in dict(item.addresses).values()), "")
    if source.has_client and named:
        client = _first_address(source, CLIENT)
        entrance, way = ipaddress.ip_address(door.address), _towards(source, hosts[named], client)
        packet = Packet(client, FIRST_PORT, entrance, door.node_port, iif=way)
        what = "the client opens a connection to the NodePort"
        found[FROM_CLIENT] = Passing(FROM_CLIENT, hosts[named], packet, what)
    cast = _cast(objects, door)
    if cast is None or cast.page.pod_ip is None or cast.other.pod_ip is None:
        return found
    host = next((item for item in objects.nodes if item.name == cast.page.node_name), None)
    if host is not None:
        own = ipaddress.ip_address(host.internal_ip) if named and host.internal_ip else None
        place, address = hosts[host.name], cast.page.pod_ip
        names = [TO_SERVICE, *([TO_DOOR] if own is not None else [])]
        found.add(lambda: _past_the_node(cast, place, _towards(source, place, address), own, door.node_port), *names)
    else:
        why = "; ".join(read["nodes"].missing) or f"the node {cast.page.node_name} is not among the cluster's objects"
        found.refused |= dict.fromkeys((TO_SERVICE, TO_DOOR), NotShown(why))
    if door.no_node:
        found.refused.setdefault(TO_DOOR, NotShown(door.no_node))
    every = places.places(given, has_client=source.has_client)
    containers = [item for item in every if (item.namespace, item.name) == (cast.page.namespace, cast.page.name)]
    pod = min(containers, key=is_proxy)  # its application's, where it has one
    found.add(lambda: _past_the_pod(cast, pod, _proxy_mark(source, pod)), *IN_POD)
    return found


def _past_the_node(cast: _Cast, node: Place, iif: str | None, own: Address | None, node_port: int) -> Iterator[Passing]:
    here, who = cast.page.pod_ip, _name(cast.page)
    assert here is not None
    packet = Packet(here, FIRST_PORT + 1, cast.service.cluster_ips[0], cast.service.ports[0].port, iif=iif)
    yield Passing(TO_SERVICE, node, packet, f"{who} opens a connection to the Service {cast.service.name}")
    if own is not None:
        packet = Packet(here, FIRST_PORT + 2, own, node_port, iif=iif)
        yield Passing(TO_DOOR, node, packet, f"{who} opens a connection to the NodePort of its own node")


def _past_the_pod(cast: _Cast, pod: Place, mark: int) -> Iterator[Passing]:
    here, there, who, whom = cast.page.pod_ip, cast.other.pod_ip, _name(cast.page), _name(cast.other)
    assert here is not None
    assert there is not None
    entry, port = cast.service.cluster_ips[0], cast.service.ports[0].port
    sent: dict[str, Any] = {"local": True, "uid": APPLICATION_UID, "gid": APPLICATION_UID}
    proxied: dict[str, Any] = {"local": True, "uid": PROXY_UID, "gid": PROXY_UID, "mark": mark}
    packet = Packet(there, FIRST_PORT + 3, here, cast.port, iif="eth0")
    yield Passing("into the pod", pod, packet, f"another pod opens a connection to {who}")
    packet = Packet(here, FIRST_PORT + 4, entry, port, **sent)
    yield Passing("application out", pod, packet, f"{who} opens a connection to the Service {cast.service.name}")
    packet = Packet(here, FIRST_PORT + 5, there, cast.other_port, **proxied)
    yield Passing("proxy out", pod, packet, f"Envoy opens a connection to a pod of {whom}")
    packet = Packet(here, FIRST_PORT + 6, there, cast.other_port, **sent)
    yield Passing("proxy with a wrong uid", pod, packet, "Envoy does the same, but not as the user of the rules")
    packet = Packet(here, FIRST_PORT + 7, entry, port, **proxied)
    yield Passing("application as the proxy's user", pod, packet, f"{who} runs as Envoy's user")
    packet = Packet(ipaddress.ip_address("127.0.0.6"), FIRST_PORT + 8, here, cast.port, **proxied)
    yield Passing("proxy to application", pod, packet, f"Envoy hands an inbound request to {who}")


def _cast(objects: Objects, door: FrontDoor) -> _Cast | None:
    """Bookinfo's productpage and reviews where they are, else a Service with many endpoints and a pod beside them."""
    at_door = (door.namespace, door.service)
    behind = {(item.namespace, item.name): _behind(objects, item) for item in objects.services if item.cluster_ips}
    asked = [item for item in objects.services if behind.get((item.namespace, item.name))]
    asked = [item for item in asked if (item.namespace, item.name) != at_door and item.ports[0].protocol == "TCP"]
    service = max(asked, key=lambda item: (item.name == ASKED, len(behind[item.namespace, item.name])), default=None)
    if service is None:
        return None
    taken = {pod.name for key in ((service.namespace, service.name), at_door) for pod, _ in behind.get(key, ())}
    asking = [
        (pod, port)
        for key, found in behind.items()
        for pod, port in found
        if key[0] == service.namespace and (pod.labels.get("app") == ASKING or pod.name not in taken)
    ]
    if not asking:
        return None
    page, port = max(asking, key=lambda item: item[0].labels.get("app") == ASKING)
    other, other_port = behind[service.namespace, service.name][0]
    return _Cast(page, port, service, other, other_port)


def _behind(objects: Objects, service: Service) -> list[tuple[Pod, int]]:
    """The ready pods behind a Service's first port, each with that port's number there."""
    slices = [
        item for item in objects.endpoint_slices if (item.namespace, item.service) == (service.namespace, service.name)
    ]
    first = service.ports[0] if service.ports else None
    ready = {
        text: item.port(first.name, first.protocol)
        for item in slices
        for endpoint in item.endpoints
        if endpoint.ready and first is not None
        for text in endpoint.addresses
    }
    pods = [pod for pod in objects.pods if pod.namespace == service.namespace and not pod.host_network]
    return [(pod, ready[str(pod.pod_ip)]) for pod in pods if ready.get(str(pod.pod_ip))]


def _name(pod: Pod) -> str:
    return pod.labels.get("app") or pod.name


def _proxy_mark(source: Source, pod: Place) -> int:
    """The mark by which a pod's rules know Envoy's packets where a sandbox has no such uid; 0 where it has."""
    rules = source.fetch(Query("rules", pod, ("iptables-nft-save",))).text
    return PROXY_UID if f"--mark {PROXY_UID:#x}" in rules and "--uid-owner" not in rules else 0


def _first_address(source: Source, place: Place) -> Address:
    found = facts.facts(addresses=source.fetch(Query("addresses", place)).text).addresses or ()
    return next(item.address for item in found if item.is_global and item.address.version == 4)


def _towards(source: Source, node: Place, address: Address) -> str | None:
    """The interface by which a node reaches an address, and so gets what comes from it."""
    known = facts.facts(*(source.fetch(Query(kind, node)).text for kind in ("addresses", "routes")))
    found = routing.way(known, address, address, 0, "lo")
    return found.interface if found is not None and found.kind == "unicast" else None
