"""Packets of the mesh's own traffic, by name: what a learner walks first, and what a recording holds proofs of.

A source is asked for its objects and a few addresses, packets come out; the same source gives the same ones each time.
Their source ports are below those that Linux gives to connections, so that no connection has them already.
"""

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.kube import places
from bookinfo_lab.kube.fields import Address
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.kube.places import CLIENT, Place
from bookinfo_lab.netfilter import facts, routing
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.sources.base import RESOURCES, Query, Source

APPLICATION, DEPENDENCY, PORT = "productpage", "reviews", 9080  # Bookinfo's: who is asked, whom it asks, and where
PROXY_UID = 1337  # Envoy's, in every Istio
APPLICATION_UID = 1000
FIRST_PORT = 20001


@dataclass(frozen=True, slots=True)
class Passing:
    """A packet and the place whose rules it meets; ``what`` says who sends it to whom."""

    name: str
    place: Place
    packet: Packet
    what: str


def packets(source: Source) -> Mapping[str, Passing]:
    """The packets by name; one that this cluster has no sender or receiver for is left out."""
    return {item.name: item for item in _packets(source)}


def _packets(source: Source) -> Iterator[Passing]:
    raw = [json.loads(source.fetch(Query("objects", None, (name,))).raw)["items"] for name in RESOURCES]
    objects = [item for items in raw for item in items]
    cluster = parse(objects)
    every = places.places(objects, has_client=source.has_client)
    door = source.front_door()
    entrance = ipaddress.ip_address(door.address)
    named = next(item.name for item in cluster.nodes if door.address in [text for _, text in item.addresses])
    node = Place("node", "", named, "")
    if source.has_client:
        client = _first_address(source, CLIENT)
        packet = Packet(client, FIRST_PORT, entrance, door.node_port, iif=_towards(source, node, client))
        yield Passing("client to front door", node, packet, "the client opens a connection to the NodePort")
    pods = {item.labels.get("app", ""): item for item in reversed(cluster.pods)}
    page, service = pods.get(APPLICATION), next((s for s in cluster.services if s.name == DEPENDENCY), None)
    other = pods.get(DEPENDENCY)
    if page is None or page.pod_ip is None or other is None or other.pod_ip is None:
        return
    if service is None or not service.cluster_ips:
        return
    pod = next(item for item in every if (item.namespace, item.name) == (page.namespace, page.name))
    here, there, entry = page.pod_ip, other.pod_ip, service.cluster_ips[0]
    on = next(Place("node", "", item.name, "") for item in cluster.nodes if item.name == page.node_name)
    packet = Packet(here, FIRST_PORT + 1, entry, PORT, iif=_towards(source, on, here))
    yield Passing("pod to Service", on, packet, f"{APPLICATION} opens a connection to the Service {DEPENDENCY}")
    packet = Packet(here, FIRST_PORT + 2, entrance, door.node_port, iif=_towards(source, on, here))
    yield Passing("pod to front door", on, packet, f"{APPLICATION} opens a connection to the NodePort")
    packet = Packet(there, FIRST_PORT + 3, here, PORT, iif="eth0")
    yield Passing("into the pod", pod, packet, f"another pod opens a connection to {APPLICATION}")
    sent: dict[str, Any] = {"local": True, "uid": APPLICATION_UID, "gid": APPLICATION_UID}
    proxied: dict[str, Any] = {"local": True, "uid": PROXY_UID, "gid": PROXY_UID, "mark": _proxy_mark(source, pod)}
    packet = Packet(here, FIRST_PORT + 4, entry, PORT, **sent)
    yield Passing("application out", pod, packet, f"{APPLICATION} opens a connection to the Service {DEPENDENCY}")
    packet = Packet(here, FIRST_PORT + 5, there, PORT, **proxied)
    yield Passing("proxy out", pod, packet, f"Envoy opens a connection to a pod of {DEPENDENCY}")
    packet = Packet(here, FIRST_PORT + 6, there, PORT, **sent)
    yield Passing("proxy with a wrong uid", pod, packet, "Envoy does the same, but not as the user of the rules")
    packet = Packet(here, FIRST_PORT + 7, entry, PORT, **proxied)
    yield Passing("application as the proxy's user", pod, packet, f"{APPLICATION} runs as Envoy's user")
    packet = Packet(ipaddress.ip_address("127.0.0.6"), FIRST_PORT + 8, here, PORT, **proxied)
    yield Passing("proxy to application", pod, packet, f"Envoy hands an inbound request to {APPLICATION}")


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
