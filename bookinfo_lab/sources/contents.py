"""What a recording holds: from a cluster's objects to the queries, requests and captures that are read for it.

Pure.  `planned` lists them, in the order in which they are read: what a request does not change comes first, then the
requests, each alone or inside its capture, then what shows their traces.  A new kind of evidence is added to the tables
below and nowhere else.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bookinfo_lab.kube.parse import Given, parse
from bookinfo_lab.kube.places import CLIENT, Place, places
from bookinfo_lab.sources.base import ADMIN_PATHS, INTERFACES, RESOURCES, RULE_SAVERS, Query, is_of_netns, is_proxy

NETNS_BEFORE = ("addresses", "routes", "routing-rules", "sysctls")
NETNS_AFTER = ("conntrack",)
PLACE_AFTER = ("processes", "sockets")  # of each container, each node and the client
CONTAINER_AFTER = ("logs",)
EXEC: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (kind of place, program and words): lines that notebooks run
JASON = "Cookie: user=jason"
_LONGEST = 100  # characters of a query in a list
CAPTURED = (("/productpage",), ("/productpage", JASON))
REQUESTED = (("/api/v1/products",), ("/no-such-page",))


@dataclass(frozen=True, slots=True)
class Capture:
    """Frames at ``points`` around ``requests``, one after the other."""

    points: tuple[str, ...]
    requests: tuple[Query, ...]

    @property
    def query(self) -> Query:
        """The question that the capture's evidence answers."""
        return Query("capture", None, self.points)


@dataclass(frozen=True, slots=True)
class NotHeld:
    """Something that a recording lacks, and why."""

    query: Query
    reason: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What a recording is to hold, or holds: ``path`` is empty until it is written.

    ``queries`` are those before and after the requests, ``captures`` hold the requests that are made inside one,
    ``requests`` the others.  ``not_held`` is what is refused beforehand, and all of it once the source was asked.
    ``notes`` say what is left out of everything, ``dropped`` counts it.
    """

    queries: tuple[Query, ...]
    requests: tuple[Query, ...]
    captures: tuple[Capture, ...]
    not_held: tuple[NotHeld, ...] = ()
    path: str = ""
    length_bytes: int = 0
    redacted: int = 0
    source: str = field(default="")
    notes: tuple[str, ...] = ()
    dropped: int = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """What is left out, the places, a line for each kind of evidence, then what is not held."""
        where = dict.fromkeys(str(query.place) for query in self.queries if query.place is not None)
        places = [f"places: {', '.join(where)}"] if where else []
        return (*self.notes, *places, *_by_kind(self.queries), *_of_requests(self), *_of_missing(self.not_held))

    def __str__(self) -> str:
        head = f"{self.path}: a recording of {self.source}" if self.path else f"to be recorded of {self.source}"
        size = f", {self.length_bytes:,} bytes, {self.redacted} places redacted" if self.path else ""
        size += f", {self.dropped:,} left out" if self.dropped else ""
        return "\n".join([head + size, *(f"  {line}" for line in self.lines)])

    __repr__ = __str__


def planned(objects: Given, *, has_client: bool, source: str = "", proofs: Sequence[Query] = ()) -> Contents:
    """Everything that a recording of a cluster with these objects holds; ``proofs`` are read last."""
    every = places(objects, has_client=has_client)
    netns = _one_of_each_netns(every)
    before = [Query("objects", None, (name,)) for name in RESOURCES]
    before += [Query(kind, place) for kind in NETNS_BEFORE for place in netns]
    before += [Query("rules", place, (program,)) for program in RULE_SAVERS for place in netns]
    after = [Query(kind, place) for kind in NETNS_AFTER for place in netns]
    after += [Query(kind, place) for kind in PLACE_AFTER for place in every]
    after += [Query("exec", place, argv) for kind, argv in EXEC for place in every if place.kind == kind]
    after += [Query(kind, place) for kind in CONTAINER_AFTER for place in every if place.kind == "pod"]
    after += [Query("envoy", place, (path,)) for path in ADMIN_PATHS for place in every if is_proxy(place)]
    after += proofs
    in_nodes = {(pod.namespace, pod.name) for pod in parse(objects).pods if pod.host_network}
    points = tuple(_points(netns, in_nodes))
    captures = tuple(Capture(points, (Query("get", CLIENT, request),)) for request in CAPTURED)
    return Contents((*before, *after), tuple(Query("get", CLIENT, item) for item in REQUESTED), captures, source=source)


def at(point: str) -> Query:
    """The question that a capture at one point answers."""
    return Query("capture", None, (point,))


def without(wanted: Contents, refused: Collection[Query]) -> Contents:
    """The same but for these queries, and for capture points as `at` has them.

    The requests of a capture that has no point left are made alone.
    """
    captures = [without_points(item, refused) for item in wanted.captures]
    alone = [query for item in captures if not item.points for query in item.requests]
    return replace(
        wanted,
        queries=tuple(query for query in wanted.queries if query not in refused),
        requests=(*alone, *wanted.requests),
        captures=tuple(item for item in captures if item.points),
    )


def without_points(capture: Capture, refused: Collection[Query]) -> Capture:
    """The capture at those of its points that are not ``refused``, which may be none."""
    return replace(capture, points=tuple(name for name in capture.points if at(name) not in refused))


def is_before_requests(query: Query) -> bool:
    """Whether a request leaves the answer as it is, so that it is read first."""
    return query.kind in ("objects", "rules", *NETNS_BEFORE)


def key(query: Query) -> Query:
    """The query under which a recording holds the answer: a network namespace's is the same for each container."""
    if query.kind == "get":
        return Query("get", CLIENT, query.arguments)
    if is_of_netns(query) and query.place is not None:
        place = query.place
        return Query(query.kind, Place(place.kind, place.namespace, place.name, ""), query.arguments)
    return query


def _one_of_each_netns(every: Sequence[Place]) -> tuple[Place, ...]:
    """One place of each network namespace: a pod's application where it has one."""
    ordered = sorted(every, key=is_proxy)
    first = {(item.kind, item.namespace, item.name): item for item in reversed(ordered)}
    return tuple(item for item in every if item in first.values())


def _points(netns: Sequence[Place], in_nodes: Collection[tuple[str, str]]) -> Iterator[str]:
    """Each interface of each; no veth of pods ``in_nodes``' network namespaces, which have none of their own."""
    for place in netns:
        is_in_node = (place.namespace, place.name) in in_nodes
        for interface in INTERFACES if place.kind == "pod" else INTERFACES[:1]:
            if not (is_in_node and interface == "veth"):
                yield f"{place}:{interface}"


def _by_kind(queries: Sequence[Query]) -> Iterator[str]:
    for kind in dict.fromkeys(query.kind for query in queries):
        chosen = [query for query in queries if query.kind == kind]
        words = list(dict.fromkeys(" ".join(query.arguments) for query in chosen if query.arguments))
        if kind == "prove":
            words = [f"{len(chosen)} packets"]
        count = len({query.place for query in chosen} - {None})
        yield f"{kind}: " + ", ".join([*words, *([f"{count} places"] if count else [])])


def _of_requests(contents: Contents) -> Iterator[str]:
    if contents.requests:
        yield f"get: {', '.join(shown(query) for query in contents.requests)}"
    for capture in contents.captures:
        yield f"capture: {len(capture.points)} points around get {', '.join(shown(item) for item in capture.requests)}"


def shown(request: Query) -> str:
    """A request in words."""
    path, *fields = request.arguments
    return f"{path} with {', '.join(fields)}" if fields else path


def _of_missing(not_held: Sequence[NotHeld]) -> Iterator[str]:
    by_reason: dict[str, list[Query]] = {}
    for item in not_held:
        by_reason.setdefault(item.reason, []).append(item.query)
    for reason, queries in by_reason.items():
        more = f" and {len(queries) - 1} more" if len(queries) > 1 else ""
        name = str(queries[0])
        yield f"not held: {name if len(name) <= _LONGEST else name[:_LONGEST] + '…'}{more}: {reason}"
