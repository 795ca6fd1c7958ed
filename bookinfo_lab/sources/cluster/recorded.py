"""A cluster as a recording may show it: each answer of `KubernetesSource`, cut down before anything else sees it.

Edge.  A source goes in, `Recorded` comes out, a source as well: of the chosen namespaces only, else of those of the
Bookinfo that is found and of its front door; without API server, context or user.  What it will not tell at all it
refuses with the reason, and what it left out of an answer it counts, in ``dropped``.  `hidden` are texts whose secrets
are to be looked for in all the others.
"""

import ipaddress
import json
import os
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.objects import SERVICE_NAME_LABEL
from bookinfo_lab.sources.base import RESOURCES, Capturing, Evidence, FrontDoor, Query
from bookinfo_lab.sources.cluster import (
    capture_points,
    chosen,
    envoy_slice,
    listing,
    nft_slice,
    object_slice,
    proof_slice,
    rules_slice,
    scope,
    text_slice,
    traffic_slice,
)
from bookinfo_lab.sources.cluster.api import Refused
from bookinfo_lab.sources.cluster.chosen import Chosen
from bookinfo_lab.sources.cluster.scope import Scope
from bookinfo_lab.sources.cluster.source import KubernetesSource

_LABEL = f"{SERVICE_NAME_LABEL}=kubernetes"
# Where the API server says where it listens: path, kind, selectors of fields and of labels.
_API_SERVER = (
    ("/api/v1/namespaces/default/services", "Service", "metadata.name=kubernetes", ""),
    ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", "EndpointSlice", "", _LABEL),
)
_LEFT_OUT = (
    "left out: environment values, header values of probes, managedFields, annotations that hold an object or an"
    " environment, rules, connections, frames and Envoy's configuration of other Services, certificates, the API server"
)
_STAYS = "not left out: addresses of others in a node's addresses and routes, without which packets would go elsewhere"
_NO_NODE = "those of a node are of all its pods and of the machine: a recording has only those of containers"
_SAVERS = {"ip": "iptables-nft-save", "ip6": "ip6tables-nft-save"}
_NO_HOST = "its pod is among its node's processes (hostPID), and those are of the whole machine"
_NOT_CHOSEN = "it is none of the pods that are recorded"
_STRUCTURES = ("rules", "addresses", "routes", "routing-rules", "prove")  # no address in these may be overwritten
_DUMMY = {"BROADCAST", "NOARP"}  # an interface that only holds addresses: of IPVS, of a cache for names


@dataclass(slots=True)
class _Captured:
    """A capture whose frames are cut down when they are asked for."""

    running: Capturing
    source: "Recorded"

    @property
    def evidence(self) -> Evidence:
        return self.source.narrowed(self.running.evidence)


class Recorded:
    """See the module's docstring."""

    kind = KubernetesSource.kind
    has_client = KubernetesSource.has_client
    published = ""

    def __init__(self, source: KubernetesSource) -> None:
        self._chosen = Chosen(source.namespaces) if source.namespaces else chosen.bookinfo(_objects(source))
        # Its lines name no context.
        self._inner = KubernetesSource(replace(source.api, words=()), source.guests, self._chosen.read)
        self._scope = self._find_scope()
        self.dropped: list[tuple[Evidence, str, int]] = []  # of each answer that was given, what went and how much
        self.hidden: dict[Query, bytes] = {}
        self.missing: list[tuple[Query, str]] = []  # what a list may not have, and why
        found = "" if source.namespaces else " (of the Bookinfo found)"
        self.notes = (f"namespaces: {self._chosen}{found}", _LEFT_OUT, _STAYS)

    @property
    def description(self) -> str:
        """The server's version and the namespaces."""
        return f"cluster, kubernetes {self._inner.api.server}, {self._chosen}"

    def now(self) -> float:
        """This machine's time."""
        return self._inner.now()

    def close(self) -> None:
        """Nothing is held here."""

    def front_door(self) -> FrontDoor:
        """The door of these namespaces; LabError where none is seen, with what may not be listed."""
        try:
            return self._inner.front_door()
        except LabError as error:
            missing = listing.objects(self._inner.api, "services", self._inner.namespaces).missing
            raise LabError("; ".join([str(error), *missing])) from None

    def refusal(self, query: Query) -> str:
        """Why a recording has no such evidence, as far as that is told with nothing made for it; "" where it may."""
        place = query.place
        if query.kind == "capture":
            reasons = (capture_points.refusal(self._inner.ways, name) for name in query.arguments)
            return self._said(next(filter(None, reasons), ""))
        if place is not None and place.kind == "pod":
            if not self._chosen.has_pod(place.namespace, place.name):
                return _NOT_CHOSEN
            if query.kind == "processes" and f"{place.namespace}/{place.name}" in self._scope.host_pids:
                return _NO_HOST
        return _NO_NODE if query.kind == "processes" and self._is_host(query) else ""

    def _is_host(self, query: Query) -> bool:
        """Whether the place is a node's network namespace: a node, or a pod that is in it."""
        place = query.place
        return place is not None and (
            place.kind == "node" or f"{place.namespace}/{place.name}" in self._scope.host_pods
        )

    def fetch(self, query: Query) -> Evidence:
        """The answer, cut down."""
        reason = self.refusal(query)
        if reason:
            raise LabError(reason)
        try:
            found = self._inner.fetch(query)
        except LabError as error:
            raise LabError(self._said(error)) from None
        if query.kind == "objects":
            self.missing += [(query, said) for said in found.missing]
        if query.kind == "addresses" and query.place is not None and query.place.kind == "node":
            self._learn(found)
        return self.narrowed(found)

    @contextmanager
    def capture(self, points: Sequence[str]) -> Iterator[Capturing]:
        """The frames between what is recorded."""
        try:
            with self._inner.capture(points) as running:
                yield _Captured(running, self)
        except LabError as error:
            raise LabError(self._said(error)) from None

    def narrowed(self, found: Evidence) -> Evidence:
        """The evidence, cut down and without the API server's names; what went is in ``dropped``."""
        query = found.query
        raw, gone = self._sliced(query, found.raw)
        if query.kind != "capture":
            raw = self._bytes(raw, gone, keeps_addresses=query.kind in _STRUCTURES)
        line, of_line = text_slice.masked(found.on_a_cluster, self._scope)
        stderr = self._bytes(found.stderr, gone)
        note = found.origin.removeprefix(self._inner.description)
        made = replace(found, raw=raw, origin=f"{self.description}{note}", on_a_cluster=line, stderr=stderr)
        self.dropped += [(made, what, count) for what, count in (gone + of_line).items()]
        return made

    def _sliced(self, query: Query, raw: bytes) -> tuple[bytes, Counter[str]]:
        text = raw.decode("utf-8", "surrogateescape")
        if query.kind == "objects":
            self.hidden[query] = raw  # a secret that goes here is looked for everywhere
            return object_slice.sliced(raw, self._chosen.has)
        if query.kind == "envoy":
            made, count, hidden = envoy_slice.sliced(raw, self._scope)
            return made, Counter({"secrets, certificates and settings": hidden, "names of other Services": count})
        if query.kind == "capture":
            made, count = traffic_slice.frames(raw, self._scope)
            return made, Counter({"frames of others": count})
        if query.kind == "prove":
            made, count = proof_slice.sliced(raw, self._scope)
            return made, Counter({"rules of other Services": count})
        what, count = "", 0
        if query.arguments == ("nft",):
            what, (text, count) = "lines about other Services", self._listing(query, text)
        elif query.kind == "rules":
            what, (text, count) = "rules of other Services", rules_slice.sliced(text, self._scope)
        elif query.kind in ("conntrack", "sockets"):
            cut = traffic_slice.connections if query.kind == "conntrack" else traffic_slice.sockets
            what, (text, count) = "connections of others", cut(text, self._scope, is_host=self._is_host(query))
        return text.encode("utf-8", "surrogateescape"), Counter({what: count})

    def _listing(self, query: Query, text: str) -> tuple[str, int]:
        """What nft printed, by what iptables-save prints of the same tables just now."""
        if not self._is_host(query):
            return text, 0
        plans: dict[str, rules_slice.Plan] = {}
        for family, program in _SAVERS.items():
            saved = self._inner.fetch(Query("rules", query.place, (program,))).text
            plans[family] = rules_slice.planned(saved, self._scope)[1]
        made = nft_slice.sliced(text, plans, self._scope)
        return made, text.count("\n") - made.count("\n")

    def _bytes(self, raw: bytes, gone: Counter[str], *, keeps_addresses: bool = False) -> bytes:
        """A text without names, which are added to ``gone``."""
        text = raw.decode("utf-8", "surrogateescape")
        text, count = text_slice.masked(text, self._scope, keeps_addresses=keeps_addresses)
        gone.update(count)
        return text.encode("utf-8", "surrogateescape")

    def _said(self, error: LabError | str) -> str:
        """An error's line, which may name the context."""
        return text_slice.masked(str(error).replace(self._inner.api.named, "this cluster"), self._scope)[0]

    def _learn(self, found: Evidence) -> None:
        """A node's addresses beyond those that its object names: what masquerades takes one of them.

        Not those that an interface only holds, which are others' Services'.
        """
        links = [link for link in json.loads(found.raw) if not set(link.get("flags") or ()) >= _DUMMY]
        own = {item["local"] for link in links for item in link.get("addr_info", ()) if "local" in item}
        named = {address for address in own if not ipaddress.ip_address(address).is_loopback}
        self._scope = replace(self._scope, nodes=self._scope.nodes | named)

    def _find_scope(self) -> Scope:
        given = [item for item in _objects(self._inner) if self._chosen.has(item) and not scope.is_api_server(item)]
        host = urllib.parse.urlsplit(str(self._inner.api.client.configuration.host))
        address = (host.hostname or "", host.port or (80 if host.scheme == "http" else 443))
        return scope.scope(self._chosen.namespaces, [*given, *self._of_api()], [address], os.urandom(16))

    def _of_api(self) -> Iterator[dict[str, Any]]:
        """The API server's Service and its endpoints, as far as they may be read: else usual ports are taken for it."""
        for path, kind, fields, labels in _API_SERVER:
            try:
                self._inner.api.check("GET", path)
                found = self._inner.api.read(path, fieldSelector=fields, labelSelector=labels)
            except Refused:
                continue  # a Role in one namespace
            yield from ({**item, "kind": kind} for item in found.get("items") or ())


def _objects(source: KubernetesSource) -> list[dict[str, Any]]:
    raw = [listing.objects(source.api, name, source.namespaces).raw for name in RESOURCES]
    return [item for one in raw for item in json.loads(one)["items"]]
