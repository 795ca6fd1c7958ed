"""What every source of evidence is: a Query goes in, a piece of Evidence comes out.

Edge's vocabulary, itself without I/O.  A Query is a kind, a place and arguments; `argv` gives the program that answers
it inside that place, so a live source runs it, a recording looks it up, and a reader can type it: `here` is the line
for a sandbox, `on_a_cluster` the line for a cluster.  What a source cannot give is an error that names it.
"""

import re
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from bookinfo_lab.errors import LabError, NotShown
from bookinfo_lab.kube.places import PROXY_CONTAINERS, Place

RESOURCES = ("pods", "services", "endpointslices", "nodes")
RULE_SAVERS = ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "nft")
ADMIN_PATHS = (
    "config_dump",
    "config_dump?include_eds",
    "clusters",
    "clusters?format=json",
    "listeners",
    "listeners?format=json",
    "stats",
    "stats/prometheus",
    "certs",
    "server_info",
    "ready",
    "help",
)
INTERFACES = ("eth0", "lo", "veth")
NODE_PORTS = range(30000, 32768)  # the API server's default --service-node-port-range
DEBUG_IMAGE = "nicolaka/netshoot"  # has all programs below; a reader may name another image
_FILTERED_STATS = re.compile(r"stats\?filter=[^&#\s]+")
_SYSCTLS = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf", "/proc/sys/net/netfilter")
_NETNS_PROGRAMS: dict[str, tuple[str, ...]] = {
    "addresses": ("ip", "-j", "addr"),
    "routes": ("ip", "-j", "route", "show", "table", "all"),
    "routing-rules": ("ip", "-j", "rule"),
    "sysctls": ("grep", "-rs", ".", *_SYSCTLS),
    "conntrack": ("cat", "/proc/net/nf_conntrack"),
}
_CONTAINER_PROGRAMS: dict[str, tuple[str, ...]] = {"processes": ("ps", "-ef"), "sockets": ("ss", "-tuanp")}
KINDS = ("objects", "exec", "rules", *_NETNS_PROGRAMS, *_CONTAINER_PROGRAMS, "envoy", "logs", "get", "capture", "prove")


@dataclass(frozen=True, slots=True)
class Query:
    """A question to a source.

    ``kind`` is one of KINDS.  ``place`` is None where the question is about the whole cluster (objects, capture).
    ``arguments``: objects: the resource; exec: the program and its words; rules: one of RULE_SAVERS; envoy: one of
    ADMIN_PATHS; get: the URL path, then header fields as ``name: value``; capture: points ``TARGET:INTERFACE``; prove:
    the packet, as `netfilter.attempt.words` writes it.
    """

    kind: str
    place: Place | None = None
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        at = [] if self.place is None else [str(self.place), *([self.place.container] if self.place.container else [])]
        return " ".join([self.kind, *at, *self.arguments])


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one reading gave, byte for byte, and how to read it by hand.

    ``time`` is in Unix seconds, when the reading ended.  ``origin`` says in words where it was read.  ``here`` works
    as typed beside the sandbox, ``on_a_cluster`` beside a kubeconfig.  ``status`` and ``stderr`` are the program's;
    only `exec` evidence may have a status other than 0.  ``missing`` says what this user may not list, and so is not in
    ``raw``, and which right gives it.
    """

    query: Query
    raw: bytes
    time: float
    origin: str
    here: str
    on_a_cluster: str
    status: int = 0
    stderr: bytes = b""
    missing: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The line that gets it by hand where it was read."""
        return self.on_a_cluster if self.origin.startswith("cluster") else self.here

    @property
    def text(self) -> str:
        """The bytes as UTF-8; what is none becomes U+FFFD."""
        return self.raw.decode("utf-8", "replace")


def authority(host: str, port: int) -> str:
    """Host and port as a URL and the header field Host have them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """The Service that requests from outside come in by: its name, the name of its port, and the URL in front of it.

    ``no_node`` says why ``address`` and ``node_port`` are the Service's own and no node's; "" where they are a node's.
    """

    namespace: str
    service: str
    port_name: str
    address: str
    node_port: int
    no_node: str = ""

    @property
    def url(self) -> str:
        """Where a client of the cluster finds it."""
        return f"http://{self.authority}"

    @property
    def authority(self) -> str:
        """Its address and port as a URL and the header field Host have them."""
        return authority(self.address, self.node_port)

    @property
    def node_address(self) -> str:
        """The address of a node that answers at the node port; raises `NotShown` where there is none to be named."""
        if self.no_node:
            raise NotShown(self.no_node)
        return self.address

    @property
    def is_in_default_range(self) -> bool:
        """Whether the node port lies where an API server puts node ports unless it is told otherwise.

        Raises `NotShown` where there is none.
        """
        return bool(self.node_address) and self.node_port in NODE_PORTS


class Capturing(Protocol):
    """A capture that runs, or ran: what its `with` block gives."""

    @property
    def evidence(self) -> Evidence:
        """The frames as pcapng, an interface for each point; LabError while the block has not ended."""
        ...


class Source(Protocol):
    """Where evidence comes from."""

    @property
    def kind(self) -> str:
        """The word by which `connect` knows it."""
        ...

    @property
    def description(self) -> str:
        """One line: which one this is."""
        ...

    @property
    def has_client(self) -> bool:
        """Whether `client` is a place of it."""
        ...

    @property
    def published(self) -> str:
        """A URL by which this machine's browser reaches the front door, or ""."""
        ...

    def fetch(self, query: Query) -> Evidence:
        """The answer to ``query``; LabError with one line where there is none."""
        ...

    def capture(self, points: Sequence[str]) -> AbstractContextManager[Capturing]:
        """Capture at resolved points (``node/NAME:eth0``, ``NAMESPACE/POD:lo``) as long as the block lasts."""
        ...

    def front_door(self) -> FrontDoor:
        """The entry that `get` uses."""
        ...

    def now(self) -> float:
        """The Unix time that ages count from: a recording's is when it was made."""
        ...

    def close(self) -> None:
        """Let go of what the source holds; a sandbox that it started itself ends."""
        ...


def check(query: Query) -> None:
    """Refuse what no source answers: an unknown kind, resource or program, an admin path outside the allow-list."""
    if query.kind not in KINDS:
        raise LabError(f"no evidence of kind {query.kind!r}; there are: {', '.join(KINDS)}")
    first = query.arguments[0] if query.arguments else ""
    allowed = {"objects": RESOURCES, "rules": RULE_SAVERS, "envoy": ADMIN_PATHS}.get(query.kind)
    is_filtered = query.kind == "envoy" and _FILTERED_STATS.fullmatch(first) is not None
    if allowed and first not in allowed and not is_filtered:
        raise LabError(f"{query.kind} {first!r} is not on the list of what is read: {', '.join(allowed)}")
    if query.kind == "get" and (not first.startswith("/") or any(not 32 < ord(char) < 127 for char in first)):
        raise LabError(f"{first!r} is not a URL path: it starts with '/' and holds no blanks or control characters")
    if query.kind == "get" and any(not field.isprintable() or ":" not in field for field in query.arguments[1:]):
        raise LabError("a header field is printable text of the form 'name: value'")


def argv(query: Query) -> tuple[str, ...]:
    """The program that answers ``query`` inside its place; empty for kinds that no program there answers."""
    if query.kind == "exec":
        return query.arguments
    if query.kind == "rules":
        return ("nft", "list", "ruleset") if query.arguments == ("nft",) else query.arguments
    if query.kind == "prove":
        return ("xtables-monitor", "--trace")
    if query.kind == "envoy":
        return ("pilot-agent", "request", "GET", *query.arguments)
    return (_NETNS_PROGRAMS | _CONTAINER_PROGRAMS).get(query.kind, ())


def is_of_netns(query: Query) -> bool:
    """Whether the answer is the network namespace's, the same in each container of a pod, and needs root to be read."""
    return query.kind in ("rules", "prove") or query.kind in _NETNS_PROGRAMS


def here(query: Query, name: str, front: FrontDoor | None = None) -> str:
    """The line to type beside the sandbox ``name``; ``front`` is needed for `get` alone."""
    named = [] if name == "default" else ["--name", name]
    if query.kind == "objects":
        return shlex.join(["bookinfo-lab", "objects", *named, *query.arguments])
    if query.kind == "capture":
        return shlex.join(["bookinfo-lab", "capture", *named, *query.arguments])
    target = _target(query)
    if query.kind == "logs":
        return shlex.join(["bookinfo-lab", "logs", *named, *target])
    if is_of_netns(query) and query.place is not None and query.place.kind == "pod":
        target = ["--uid", "0", *target]
    words = curl(query, front) if query.kind == "get" else argv(query)
    return shlex.join(["bookinfo-lab", "exec", *named, *target, "--", *words])


def on_a_cluster(query: Query, front: FrontDoor | None = None) -> str:
    """The line to type beside a kubeconfig; a `capture` has a line or two per point."""
    place = query.place
    if query.kind == "objects":
        return shlex.join(["kubectl", "get", *query.arguments, "--all-namespaces", "-o", "json"])
    if query.kind == "capture":
        return "\n".join(_tcpdump(point) for point in query.arguments)
    if query.kind == "get":
        return shlex.join(curl(query, front))
    assert place is not None, query.kind
    if place.kind == "client":
        return shlex.join(argv(query))
    if query.kind == "logs":
        return shlex.join(["kubectl", "logs", "-n", place.namespace, place.name, "-c", place.container])
    if place.kind == "node" or is_of_netns(query):
        return shlex.join([*_debug(place), "--", *argv(query)])
    return shlex.join(["kubectl", "exec", "-n", place.namespace, place.name, "-c", place.container, "--", *argv(query)])


def _target(query: Query) -> list[str]:
    if query.place is None:
        return ["client"]
    container = [] if query.place.kind != "pod" or is_of_netns(query) else ["-c", query.place.container]
    return [*container, str(query.place)]


def curl(query: Query, front: FrontDoor | None) -> list[str]:
    """The words of the curl that asks what a `get` query asks."""
    path, *fields = query.arguments
    url = (front.url if front else "http://FRONT-DOOR") + path
    return ["curl", "-si", "--raw", *(word for field in fields for word in ("-H", field)), url]


def _debug(place: Place) -> list[str]:
    shared = ["-i", f"--image={DEBUG_IMAGE}"]
    if place.kind == "node":
        return ["kubectl", "debug", f"node/{place.name}", *shared, "--profile=sysadmin"]
    return ["kubectl", "debug", "-n", place.namespace, place.name, *shared, "--profile=netadmin"]


def _tcpdump(point: str) -> str:
    target, _, interface = point.rpartition(":")
    namespace, _, name = target.rpartition("/")
    if target == "client":
        return shlex.join(["tcpdump", "-i", interface, "-w", "client.pcap"])
    if namespace == "node":
        # As text: in a node's network namespace frames that are sent away as they come would be captured themselves.
        words = [*_debug(Place("node", "", name, "")), "--", "tcpdump", "-n", "-i", interface, "not", "port", "10250"]
        return shlex.join(words)
    if interface == "veth":
        shown = shlex.join(["kubectl", "get", "pod", "-n", namespace, name, "-o", "wide"])
        return f"{shown}  # capture on that node, at the interface that: ip route get ADDRESS"
    # A container that waits first: debug -i loses what is printed before its stream is there.
    made = [*_debug(Place("pod", namespace, name, "")), "-c", "capture", "--", "sleep", "600"]
    made.remove("-i")
    run = ["kubectl", "exec", "-n", namespace, name, "-c", "capture", "--"]
    return "\n".join([shlex.join(made), *(shlex.join([*run, *program]) for program in tcpdump(interface))])


def tcpdump(interface: str, *, is_host: bool = False) -> tuple[tuple[str, ...], ...]:
    """The programs that capture there, one after the other; ``is_host``: in a node's network namespace.

    There a stream of frames would be captured itself, so they are kept in a file first.
    """
    if is_host:
        file = "/tmp/capture.pcap"
        return ("timeout", "10", "tcpdump", "-i", interface, "-w", file), ("cat", file)
    return (("tcpdump", "-i", interface, "-U", "-w", "-"),)


def is_proxy(place: Place) -> bool:
    """Whether the place is a container that runs Envoy."""
    return place.container in PROXY_CONTAINERS
