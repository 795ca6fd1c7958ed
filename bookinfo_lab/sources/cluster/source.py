"""The source `kubernetes`: each question is answered from the cluster itself, by what its user may do there.

Edge.  Objects come as the API server sends them; programs run in the container that is asked about where its image has
them, else, with leave, in a container of the lab's beside it (`guests`).  Nothing is kept: every `fetch` reads again.
"""

import http.client
import json
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar

from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.kube.objects import Objects
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources import base, one_request
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query
from bookinfo_lab.sources.cluster import api, doors, forward, listing, sniff, streams
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.doors import Door, Way
from bookinfo_lab.sources.cluster.guests import Guests, NotAllowed, leaves
from bookinfo_lab.sources.cluster.streams import Done, NoSuchProgram

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
        self.missing: list[str] = []

    @property
    def description(self) -> str:
        """The context, the server's version and the namespaces."""
        read = ", ".join(self.namespaces) or "all namespaces"
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
            self.missing = [*dict.fromkeys([*self.missing, *found.missing])]
            return self._evidence(query, found.raw)
        if query.kind == "get":
            return self._get(query)
        place = query.place
        if place is None or place.kind == "client":
            raise LabError(f"a cluster of your own has no client of the lab's: {query}")
        if query.kind == "logs":
            path = f"/api/v1/namespaces/{place.namespace}/pods/{place.name}/log"
            return self._evidence(query, self.api.get(path, accept="*/*", container=place.container))
        return self._run(query, place)

    def _run(self, query: Query, place: Place) -> Evidence:
        argv = base.argv(query)
        if place.kind == "node":
            done = self._on_node(place, argv, query.kind)
        elif base.is_of_netns(query):
            done = self._in_guest(place, argv, query.kind)
        else:
            done = self._in_container(place, argv, query.kind)
        if done.status and query.kind != "exec" and not (query.kind == "sysctls" and done.stdout):
            raise SourceError(base.on_a_cluster(query), done.status, done.stderr.decode("utf-8", "replace"))
        return self._evidence(query, done.stdout, done.status if query.kind == "exec" else 0, done.stderr)

    def _on_node(self, place: Place, argv: Sequence[str], purpose: str) -> Done:
        return self._first(
            [
                lambda: self._in_kube_proxy(place, argv),
                lambda: self._exec(self.guests.on_node(place.name, purpose), argv),
            ]
        )

    def _in_kube_proxy(self, place: Place, argv: Sequence[str]) -> Done:
        """In the node's kube-proxy pod, which is in its network namespace and has iptables."""
        path = "/api/v1/namespaces/kube-system/pods"
        query = {"labelSelector": "k8s-app=kube-proxy", "fieldSelector": f"spec.nodeName={place.name}"}
        pods = json.loads(self.api.get(path, **query)).get("items") or ()
        if not pods:
            raise NoSuchProgram(f"node/{place.name} has no kube-proxy pod")
        meta = pods[0]["metadata"]
        return self._exec((meta["namespace"], meta["name"], "kube-proxy"), argv)

    def _in_guest(self, place: Place, argv: Sequence[str], purpose: str) -> Done:
        path = f"/api/v1/namespaces/{place.namespace}/pods/{place.name}"
        pod: dict[str, Any] = json.loads(self.api.get(path))
        target = place.container or pod["spec"]["containers"][0]["name"]
        return self._exec((place.namespace, place.name, self.guests.in_pod(pod, target, purpose)), argv)

    def _in_container(self, place: Place, argv: Sequence[str], purpose: str) -> Done:
        return self._first(
            [
                lambda: self._exec((place.namespace, place.name, place.container), argv),
                lambda: self._in_guest(place, argv, purpose),
            ][: 1 if purpose in ("exec", "envoy") else 2]
        )

    def _first(self, ways: Sequence[Callable[[], Done]]) -> Done:
        """The first way whose container has the program; the last one's refusal otherwise."""
        for number, way in enumerate(ways):
            try:
                return way()
            except NoSuchProgram:
                if number == len(ways) - 1:
                    raise
        raise NotAllowed("nothing here can run it")

    def _exec(self, where: tuple[str, str, str], argv: Sequence[str]) -> Done:
        return streams.run(self.api, *where, argv)

    def capture(self, points: Sequence[str]) -> AbstractContextManager[Capturing]:
        """Capture at ``points`` as long as the block lasts (`sniff`)."""
        query = Query("capture", None, tuple(points))
        return sniff.capturing(self.api, [self._point(name) for name in points], lambda raw: self._evidence(query, raw))

    def _point(self, name: str) -> sniff.Point:
        target, _, interface = name.rpartition(":")
        namespace, _, word = target.rpartition("/")
        if namespace == "node":
            return sniff.Point(name, self.guests.on_node(word, "a capture"), interface)
        path = f"/api/v1/namespaces/{namespace}/pods/{word}"
        pod: dict[str, Any] = json.loads(self.api.get(path))
        if interface == "veth":
            return self._veth(name, pod)
        target = pod["spec"]["containers"][0]["name"]
        return sniff.Point(name, (namespace, word, self.guests.in_pod(pod, target, "a capture")), interface)

    def _veth(self, name: str, pod: dict[str, Any]) -> sniff.Point:
        """The node's end of a pod's veth pair: where the node's routes send the pod's address."""
        where = self.guests.on_node(pod["spec"]["nodeName"], "a capture")
        address = pod["status"]["podIP"]
        done = self._exec(where, ["ip", "-j", "route", "get", address])
        found = json.loads(done.stdout or b"[]")
        if not found or not found[0].get("dev"):
            raise LabError(f"no capture at {name}: the node has no route to {address}")
        return sniff.Point(name, where, found[0]["dev"])

    def front_door(self) -> FrontDoor:
        """The Service that requests come in by (`doors`)."""
        objects = self._objects()
        return doors.front_door(doors.find(objects), objects)

    def _objects(self) -> Objects:
        raw = [listing.objects(self.api, name, self.namespaces).raw for name in base.RESOURCES]
        return parse([item for text in raw for item in json.loads(text)["items"]])

    def _get(self, query: Query) -> Evidence:
        objects = self._objects()
        door = doors.find(objects)
        way = next(item for item in doors.ways(door, objects) if not item.host or doors.reachable(item))
        try:
            raw = self._ask(door, way, objects, query.arguments)
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(
                f"GET {query.arguments[0]} by {way.name}", 1, str(error) or type(error).__name__
            ) from None
        front = FrontDoor(door.service.namespace, door.service.name, door.port.name, way.host or "127.0.0.1", way.port)
        forward = f"kubectl port-forward -n {front.namespace} service/{front.service} {way.port}"
        line = base.on_a_cluster(query, front)
        found = self._evidence(query, raw)
        return replace(
            found,
            origin=f"{self.description}, by {way.name}",
            on_a_cluster=line if way.host else f"{forward} &\n{line}",
        )

    def _ask(self, door: Door, way: Way, objects: Objects, arguments: Sequence[str]) -> bytes:
        if way.host:
            with socket.create_connection((way.host, way.port), timeout=_REQUEST_TIMEOUT_S) as connection:
                return one_request.ask(connection, f"{way.host}:{way.port}", *arguments)
        pod, number = door.pod(objects)
        with forward.opened(self.api, pod.namespace, pod.name, number) as forwarded:
            return one_request.ask(forwarded, f"127.0.0.1:{way.port}", *arguments)

    def _evidence(self, query: Query, raw: bytes, status: int = 0, stderr: bytes = b"") -> Evidence:
        return Evidence(
            query,
            raw,
            time.time(),
            self.description,
            base.here(query, "default"),
            base.on_a_cluster(query),
            status,
            stderr,
        )
