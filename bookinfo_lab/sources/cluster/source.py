"""The source `kubernetes`: each question is answered from the cluster itself, by what its user may do there.

Edge.  Objects come as the API server sends them; programs run in the container that is asked about where its image has
them, else, with leave, in a container of the lab's beside it (`guests`).  Nothing is kept: every `fetch` reads again.
"""

import http.client
import json
import re
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.kube.objects import Objects
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources import base, one_request
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query
from bookinfo_lab.sources.cluster import api, capture_points, doors, forward, listing, sniff
from bookinfo_lab.sources.cluster.api import Api, Refused
from bookinfo_lab.sources.cluster.doors import Door, Way
from bookinfo_lab.sources.cluster.guests import Guests, leaves
from bookinfo_lab.sources.cluster.ways import Ways, Where

_REQUEST_TIMEOUT_S = 30.0


def connect(context: str = "", namespace: str = "", allow: Collection[str] = ()) -> "KubernetesSource":
    """The cluster of a kubeconfig's context, or the one this pod is in; ``allow`` as `guests.leaves` has it."""
    found = api.connect(context, namespace)
    return KubernetesSource(found, Guests(found, leaves(allow)), [namespace] if namespace else [])


class KubernetesSource:
    """A cluster as one user sees it; ``namespaces`` are those that are read, all that may be read where it is empty."""

    kind: ClassVar[str] = "kubernetes"
    has_client: ClassVar[bool] = False
    published: ClassVar[str] = ""

    def __init__(self, server: Api, guests: Guests, namespaces: Sequence[str] = ()) -> None:
        self.api, self.guests, self.namespaces = server, guests, tuple(namespaces)
        self.ways = Ways(server, guests)

    @property
    def description(self) -> str:
        """The context, the server's version and the namespaces."""
        read = ", ".join(self.namespaces) or "all namespaces that may be read"
        return f"cluster {self.api.context or 'of this pod'} (kubernetes {self.api.server}), {read}"

    def now(self) -> float:
        """This machine's time."""
        return time.time()

    def close(self) -> None:
        """Delete the lab's pods; its ephemeral containers stay, idle."""
        self.guests.close()

    def fetch(self, query: Query) -> Evidence:
        """Read the answer now."""
        base.check(query)
        if query.kind == "objects":
            found = listing.objects(self.api, query.arguments[0], self.namespaces)
            line = self._listed(query.arguments[0], found.read)
            return replace(self._evidence(query, found.raw, line), missing=found.missing)
        if query.kind == "get":
            return self._get(query)
        place = query.place
        if place is None or place.kind == "client":
            raise LabError(f"a cluster of your own has no client of the lab's: {query}")
        if query.kind == "prove":
            return self._prove(query, place)
        if query.kind == "logs":
            path = f"/api/v1/namespaces/{place.namespace}/pods/{place.name}/log"
            line = self.api.kubectl("logs", "-n", place.namespace, place.name, "-c", place.container)
            return self._evidence(query, self.api.get(path, accept="*/*", container=place.container), line)
        return self._run(query, place)

    def _listed(self, resource: str, namespaces: Sequence[str]) -> str:
        """The lines that list a resource where it was read."""
        everywhere = [] if resource == "nodes" else ["-A"]
        scopes = [["-n", name] if name else everywhere for name in namespaces]
        return "\n".join(self.api.kubectl("get", resource, *scope, "-o", "json") for scope in scopes)

    def _run(self, query: Query, place: Place) -> Evidence:
        try:
            answer = self.ways.ask(query, place)
        except KeyboardInterrupt:
            if query.kind == "exec":
                self.guests.say(f"{query.arguments[0]} may still run in {place}: an exec cannot be taken back")
            raise
        done = answer.done
        if done.status and query.kind != "exec" and not (query.kind == "sysctls" and done.stdout):
            raise SourceError(answer.line, done.status, done.stderr.decode("utf-8", "replace"))
        status = done.status if query.kind == "exec" else 0
        return self._evidence(query, done.stdout, answer.line, answer.note, status, done.stderr)

    def _prove(self, query: Query, place: Place) -> Evidence:
        from bookinfo_lab.netfilter import attempt
        from bookinfo_lab.sources.cluster import proof

        packet = attempt.packet(query.arguments)
        pods, nodes = (json.loads(listing.objects(self.api, name, ()).raw)["items"] for name in ("pods", "nodes"))
        ground = proof.Ground(self.api, place, self._guest, pods, nodes)
        made = proof.prove(ground, packet)
        where = self.ways.guest(place, "a proof") if made.flow is not None else None
        return self._evidence(query, attempt.write(made), self.ways.line(where, base.argv(query)) if where else "")

    def _guest(self, place: Place) -> Where:
        """A container of ours for a proof there."""
        why = f"a proof in {place} needs a table of its own among the rules there"
        self.guests.need("trace", why, "one, while it lasts", "node-pod" if place.kind == "node" else "ephemeral")
        return self.ways.guest(place, "a proof")

    def capture(self, points: Sequence[str]) -> AbstractContextManager[Capturing]:
        """Capture at ``points`` as long as the block lasts (`sniff`)."""
        query = Query("capture", None, tuple(points))
        found = [capture_points.point(self.ways, name) for name in points]
        typed = [(item.where, words) for item in found for words in base.tcpdump(item.interface, is_host=item.is_host)]
        line = "\n".join(self.ways.line(where, words) for where, words in typed)
        return sniff.capturing(self.api, found, lambda raw: self._evidence(query, raw, line))

    def front_door(self) -> FrontDoor:
        """The Service that requests come in by (`doors`)."""
        objects, missing = self._objects()
        return doors.front_door(doors.find(objects), objects, missing["nodes"])

    def _objects(self) -> tuple[Objects, dict[str, tuple[str, ...]]]:
        """All that may be listed, and for each resource what may not."""
        found = {name: listing.objects(self.api, name, self.namespaces) for name in base.RESOURCES}
        items = [item for one in found.values() for item in json.loads(one.raw)["items"]]
        return parse(items), {name: one.missing for name, one in found.items()}

    def _get(self, query: Query) -> Evidence:
        objects, _ = self._objects()
        door = doors.find(objects)
        way = next(item for item in doors.ways(door, objects) if not item.host or doors.reachable(item))
        try:
            raw = self._ask(door, way, objects, query.arguments)
        except Refused as refusal:
            if refusal.status != 403 or "node-pod" not in self.guests.allowed:
                raise
            try:
                return self._get_from_node(query, door, objects)
            except Refused as other:
                raise (refusal if other.status == 403 else other) from None  # the first takes the lesser right
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(
                f"GET {query.arguments[0]} by {way.name}", 1, str(error) or type(error).__name__
            ) from None
        front = FrontDoor(door.service.namespace, door.service.name, door.port.name, way.host or "127.0.0.1", way.port)
        line = base.on_a_cluster(query, front)
        if not way.host:
            pod, number = door.pod(objects)
            line = self.ways.forwarding(pod.namespace, f"pod/{pod.name}", way.port, number, line)
        return self._evidence(query, raw, line, f"by {way.name}")

    def _get_from_node(self, query: Query, door: Door, objects: Objects) -> Evidence:
        """By a pod of ours on the node of a pod behind the door, where no port may be forwarded."""
        node, front = doors.from_inside(door, objects)
        answer = self.ways.run(self.guests.on_node(node, "a request"), base.curl(query, front))
        if answer.done.status:
            raise SourceError(answer.line, answer.done.status, answer.done.stderr.decode("utf-8", "replace"))
        note = f"by a pod of the lab's on {node}: its address is what the pod behind it sees"
        return self._evidence(query, answer.done.stdout, answer.line, note)

    def _ask(self, door: Door, way: Way, objects: Objects, arguments: Sequence[str]) -> bytes:
        if way.host:
            with socket.create_connection((way.host, way.port), timeout=_REQUEST_TIMEOUT_S) as connection:
                return one_request.ask(connection, way.authority, *arguments)
        pod, number = door.pod(objects)
        with forward.opened(self.api, pod.namespace, pod.name, number) as forwarded:
            return one_request.ask(forwarded, f"127.0.0.1:{way.port}", *arguments)

    def _evidence(
        self, query: Query, raw: bytes, line: str = "", note: str = "", status: int = 0, stderr: bytes = b""
    ) -> Evidence:
        origin = f"{self.description}, {note}" if note else self.description
        here = base.here(query, "default")
        kubectl = self.api.kubectl()
        by_hand = line or re.sub(r"^kubectl\b", lambda _: kubectl, base.on_a_cluster(query), flags=re.MULTILINE)
        return Evidence(query, raw, time.time(), origin, here, by_hand, status, stderr)
