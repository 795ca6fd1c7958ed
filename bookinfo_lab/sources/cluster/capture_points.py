"""Where a capture point of a cluster is: in which container tcpdump runs for it, and on which interface there.

Edge.  A pod's eth0 and lo are in its own network namespace; its veth, the node's end of the pair, is in the node's, and
is told by the node's route to the pod or by the pod's own interface, never guessed.  A node's `eth0` is the interface
that its default route leaves by where none has that name.  `refusal` tells beforehand, with nothing made, what it can.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources.cluster import streams
from bookinfo_lab.sources.cluster.guests import NotAllowed
from bookinfo_lab.sources.cluster.sniff import Point
from bookinfo_lab.sources.cluster.ways import Ways, Where

_PURPOSE = "a capture"


@dataclass(frozen=True, slots=True)
class _Site:
    """``place`` is where a container runs tcpdump; ``pod``, with its ``address``, is the one whose veth is meant."""

    place: Place
    is_host: bool
    pod: Place | None = None
    address: str = ""


def point(ways: Ways, name: str) -> Point:
    """The point ``node/NAME:INTERFACE`` or ``NAMESPACE/POD:INTERFACE``; LabError where it cannot be."""
    site, interface = _site(ways, name), name.rpartition(":")[2]
    where = ways.guest(site.place, _PURPOSE)
    if site.pod is not None:
        interface = _veth(ways, where, name, site.pod, site.address)
    elif site.place.kind == "node" and interface == "eth0":
        interface = _outwards(ways, where)
    return Point(name, where, interface, is_host=site.is_host)


def refusal(ways: Ways, name: str) -> str:
    """Why a point cannot be, as far as that is told before anything is made for it; "" where it may be.

    Told are a missing leave, a pod that no container can be put into, a right that is missing to run a program there,
    and what is not there.
    """
    own = ways.guests
    try:
        place = _site(ways, name).place
        streams.check(ways.api, place.namespace or ways.api.namespace, place.name)
        leave = "node-pod" if place.kind == "node" else "ephemeral"
        bare = replace(ways, guests=replace(own, allowed=own.allowed - {leave}))
        try:
            bare.guest(place, _PURPOSE)
        except NotAllowed:
            if leave not in own.allowed:
                raise
    except LabError as error:
        return str(error)
    return ""


def _site(ways: Ways, name: str) -> _Site:
    target, _, interface = name.rpartition(":")
    namespace, _, word = target.rpartition("/")
    if namespace == "node":
        return _Site(Place("node", "", word, ""), is_host=True)
    place = Place("pod", namespace, word, "")
    pod = ways.api.read(f"/api/v1/namespaces/{namespace}/pods/{word}")
    is_host = bool(pod["spec"].get("hostNetwork"))
    if interface != "veth":
        return _Site(place, is_host=is_host)
    if is_host:
        raise LabError(f"no capture at {name}: the pod is in its node's network namespace and has no veth of its own")
    node, address = pod["spec"].get("nodeName", ""), (pod.get("status") or {}).get("podIP", "")
    if not node or not address:
        raise LabError(f"no capture at {name}: the pod has no node or no address yet")
    return _Site(Place("node", "", node, ""), is_host=False, pod=place, address=address)


def _outwards(ways: Ways, where: Where) -> str:
    """eth0 where a node has one, else the interface of its default route."""
    if any(link.get("ifname") == "eth0" for link in _links(ways, where)):
        return "eth0"
    routes = _json(ways, where, "ip", "-j", "route", "show", "default")
    return next((str(route["dev"]) for route in routes if route.get("dev")), "eth0")


def _veth(ways: Ways, where: Where, name: str, pod: Place, address: str) -> str:
    """The node's end of the pod's veth pair.

    Many CNIs have a route for each pod, which leads to it; others a bridge or a device for all pods, whose frames
    are not this pod's alone: there the pod's interface says which is at its other end.
    """
    links = _links(ways, where)
    # The other end of a pod's is in another network namespace; a CNI may have a pair of its own on the node.
    veths = {link["ifname"]: link for link in links if _is_veth(link) and "link_netnsid" in link}
    routes = _json(ways, where, "ip", "-j", "route", "get", address)
    led = next((str(route["dev"]) for route in routes if route.get("dev")), "")
    if led in veths:
        return led
    guest = ways.guest(pod, _PURPOSE)
    told = ways.run(guest, ["cat", "/sys/class/net/eth0/iflink"]).done.stdout.strip()
    found = next((own for own, link in veths.items() if str(link.get("ifindex")).encode() == told), "")
    if not found:
        way = f"leads to {led}" if led else "is not there"
        raise LabError(
            f"no capture at {name}: the node's route to {address} {way}, which is no veth of the pod's own; "
            f"capture at {pod}:eth0"
        )
    return found


def _is_veth(link: dict[str, Any]) -> bool:
    return bool((link.get("linkinfo") or {}).get("info_kind") == "veth")


def _links(ways: Ways, where: Where) -> list[dict[str, Any]]:
    return _json(ways, where, "ip", "-d", "-j", "link")


def _json(ways: Ways, where: Where, *argv: str) -> list[dict[str, Any]]:
    """What ip printed; nothing where it failed: its fault is another's to tell."""
    done = ways.run(where, argv).done
    try:
        found = json.loads(done.stdout or b"[]")
    except ValueError:
        return []
    return [item for item in found if isinstance(item, dict)]
