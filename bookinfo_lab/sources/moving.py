"""What moves between two readings of one question, named, and how to look past it.

Pure.  MOVES says for each kind of evidence what differs although nothing of the mesh has changed, and why; `steady`
puts one sign in its place, so that what is left must be equal, byte for byte.  Moves marked ``is_across`` are those
between two fresh sandboxes of one scenario, also on different machines; `steady` looks past them only where asked.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bookinfo_lab.errors import LabError
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.base import Query

SIGN = "*"
EPHEMERAL = 32768  # where Linux begins to take the ports of outgoing connections from
_STARTER = " bookinfo-lab: process 1 of the sandbox"  # forks, and waits for what it was asked to run
Rewrite = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that moves: its name, why it moves, and the rewriting that hides it."""

    name: str
    why: str
    rewrite: Rewrite
    is_across: bool = False


def steady(query: Query, raw: bytes, *, across_sandboxes: bool = False) -> bytes:
    """``raw`` with what moves replaced; equal bytes say that nothing else differs."""
    if query.kind == "capture":
        return _points_of(raw)
    text = raw.decode("utf-8", "surrogateescape")
    for move in (*MOVES.get(query.kind, ()), *_of_path(query)):
        if across_sandboxes or not move.is_across:
            text = move.rewrite(text)
    return text.encode("utf-8", "surrogateescape")


def _sub(pattern: str, by: str = SIGN) -> Rewrite:
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda text: compiled.sub(by, text)


def _lines(keep: Callable[[str], bool]) -> Rewrite:
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if keep(line))


def _sorted_once(text: str) -> str:
    return "".join(sorted(set(text.splitlines(keepends=True))))


def _ephemeral(text: str) -> str:
    def port(found: re.Match[str]) -> str:
        return f"{found[1]}{SIGN}" if int(found[2]) >= EPHEMERAL else found[0]

    return re.sub(r"(port=)(\d+)", port, text)


def _without_own(text: str) -> str:
    """Without the lines of ps and of who started it, and with the columns that are times, or measured in time."""
    kept = [line for line in text.splitlines() if not line.endswith((" ps -ef", _STARTER)) or " 1       0 " in line]
    told = [re.sub(r"^(\S+ +\d+ +\d+) +\d+ \S+ +(\S+) +\S+ ", rf"\1 {SIGN} {SIGN} \2 {SIGN} ", line) for line in kept]
    return "".join(f"{line}\n" for line in told)


def _commands(text: str) -> str:
    """The commands alone, in order of their text."""
    lines = [line.split(None, 7) for line in text.splitlines()[1:]]
    return "".join(sorted(f"{words[-1]}\n" for words in lines if words))


def _page(text: str) -> str:
    """A response whose page depends on which reviews version answered keeps its status and field names alone."""
    head, blank, body = text.partition("\r\n\r\n")
    if "text/html" not in head:
        return text
    return re.sub(r"(?mi)^(content-length): \d+", rf"\1: {SIGN}", head) + blank + (SIGN if "</html>" in body else body)


def _points_of(raw: bytes) -> bytes:
    return "".join(f"{interface.name}\n" for interface in pcapng.parse(raw)[0]).encode()


def _keys(text: str) -> str:
    return "".join(sorted({f"{key}\n" for key in re.findall(r'"([^"]+)":', text)}))


def _in_order(text: str) -> str:
    """JSON with its keys in order: Envoy prints the maps of a message in a new order each time."""
    return json.dumps(json.loads(text), indent=1, sort_keys=True)


def _scopes(text: str) -> str:
    """What the counters are of: the first words of their names."""
    return "".join(sorted({f"{found}\n" for found in re.findall(r"(?m)^(envoy_[a-z]+|[a-z_]+)", text)}))


def _items(text: str) -> str:
    """A JSON list's items in order of their text, a line each."""
    try:
        return "".join(sorted(json.dumps(item, sort_keys=True) + "\n" for item in json.loads(text or "[]")))
    except ValueError as error:
        raise LabError(f"this is not what `ip -j` prints: {error}") from None


def _names(text: str) -> str:
    return "".join(sorted({f"{name}\n" for name in re.findall(r'"name": "([^"]+)"', text)}))


def _configs(text: str) -> str:
    """A config dump without the build's extensions, its sections' items (listeners, clusters, …) in order of text."""
    dump = json.loads(text)
    for part in dump.get("configs", ()):
        part.get("bootstrap", {}).get("node", {}).pop("extensions", None)
        for name, items in part.items():
            if isinstance(items, list):
                part[name] = sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    return json.dumps(dump, indent=1, sort_keys=True)


def _sent(text: str) -> str:
    """What was sent in a proof, how, and past which rules; not what chance and the kernel's numbering made of it."""
    proof = json.loads(text)
    for name in ("trace", "trace_errors", "handles", "conntrack", "took_ms"):
        proof[name] = SIGN
    proof["ordered"] = re.sub(r"\bown-[0-9a-f]+", f"own-{SIGN}", proof["ordered"])
    for move in MOVES["rules"]:
        proof["rules"] = move.rewrite(proof["rules"])
    return json.dumps(proof, indent=1, sort_keys=True)


MOVES: Mapping[str, tuple[Move, ...]] = {
    "objects": (
        Move(
            "times of creation and start",
            "each sandbox is made at its own time",
            _sub(r'("(?:creationTimestamp|startTime|startedAt)": )"[^"]*"', r'\1"*"'),
            is_across=True,
        ),
    ),
    "rules": (
        Move("the time in the remark lines", "iptables-save writes when it ran", _sub(r"^(# .* on ).*$", r"\1*")),
        Move("chains' counters", "every packet counts", _sub(r"\[\d+:\d+\]")),
        Move("nft's counters", "every packet counts", _sub(r"counter packets \d+ bytes \d+")),
    ),
    "addresses": (
        Move(
            "interface numbers and MAC addresses",
            "the kernel gives them as interfaces are made",
            _sub(r'"(ifindex|link_index|address|link_netnsid)":(?:\d+|"[^"]*")', r'"\1":"*"'),
            is_across=True,
        ),
        Move("the order of interfaces", "it is the order of their numbers", _items, is_across=True),
    ),
    "routes": (Move("the order of routes", "tables are hashed", _items, is_across=True),),
    "sysctls": (
        Move("the count of connections", "connections come and go", _sub(r"(nf_conntrack_count:)\d+", r"\1*")),
        Move(
            "what the machine's kernel chose",
            "other kernels and memory sizes have other defaults; these are the ones that the sandbox sets",
            _lines(lambda line: re.search(r"/(ip_forward|proxy_arp|all/route_localnet):", line) is not None),
            is_across=True,
        ),
        Move("the order of files", "a folder has none", _sorted_once, is_across=True),
    ),
    "conntrack": (
        Move("seconds left and use counts", "both run", _sub(r"^(\S+ +\d+ \S+ +\d+) \d+|use=\d+", rf"\1 {SIGN}")),
        Move("states and flags", "a connection goes through them", _sub(r" [A-Z][A-Z_0-9]+(?= )| \[[A-Z]+\]", "")),
        Move("ephemeral ports", "each connection has its own", _ephemeral),
        Move("how often and in which order", "connections of one kind come and go", _sorted_once),
        Move("all entries", "which connections are young differs", lambda _: "", is_across=True),
    ),
    "processes": (
        Move(
            "the lines of ps, times and C",
            "ps sees itself and who started it; processes get older and work",
            _without_own,
        ),
        Move("process ids, users and order", "they follow start-up and the way users are mapped", _commands, True),
    ),
    "sockets": (
        Move(
            "connections", "they come and go: only sockets that wait are left", _lines(lambda line: "ESTAB" not in line)
        ),
        Move(
            "closing connections",
            "they last for a minute",
            _lines(lambda line: re.search(r"(WAIT|CLOS|SYN|LAST)", line) is None),
        ),
        Move("queues", "they fill and drain", _sub(r"^(\S+ +\S+) +\d+ +\d+ +", r"\1 * ")),
        Move("widths of columns", "they fit the longest line", _sub(r" +|(?<=Port)(?=Process)", " ")),
        Move("the order", "the kernel's tables are hashed", _sorted_once),
        Move("process and file numbers", "they follow start-up", _sub(r"(pid|fd)=\d+", r"\1=*"), is_across=True),
        Move("who may be seen", "it follows the way users are mapped", _sub(r" users:\(.*$", ""), is_across=True),
        Move("repeated lines", "a file number told them apart", _sorted_once, is_across=True),
    ),
    "prove": (
        Move(
            "the kernel's trace", "ids, handles and times are new each time, and chance may choose another way", _sent
        ),
    ),
    "logs": (
        Move(
            "what was logged", "each run logs its own times, ids and ports: the names of the fields stay", _keys, True
        ),
    ),
    "get": (
        Move("the date", "time", _sub(r"(?i)^(date): .*\r$", r"\1: *\r")),
        Move(
            "how long the upstream took",
            "it is measured",
            _sub(r"(?i)^(x-envoy-upstream-service-time): .*\r$", r"\1: *\r"),
        ),
        Move("the page", "another version of reviews answers each time, and the page says which", _page),
    ),
}

_COUNTERS = Move("counters", "each is there from its first count on: what they are of stays", _scopes)
_ORDER = Move("the order of a map's entries", "Envoy's JSON has none", _in_order)
_ADMIN: Mapping[str, tuple[Move, ...]] = {
    "stats": (_COUNTERS,),
    "stats/prometheus": (_COUNTERS,),
    "clusters": (
        Move("counters", "every request counts", _sub(r"::((?:cx|rq)_\w+|success_rate\w*|local_\w+)::\S+", r"::\1::*")),
        Move("the order", "Envoy keeps clusters and hosts in hash tables", _sorted_once),
    ),
    "clusters?format=json": (
        Move("all but the names", "clusters and hosts are in hash tables, and counters count", _names),
    ),
    "server_info": (
        _ORDER,
        Move("uptime", "it grows", _sub(r'("uptime[a-z_]*": )"\w+"', r'\1"*"')),
        Move("version and node", "this Envoy's", _keys, is_across=True),
    ),
    "config_dump": (
        _ORDER,
        Move(
            "times",
            "each sandbox is configured at its own",
            _sub(r'("last_updated": )"[^"]*"', r'\1"*"'),
            is_across=True,
        ),
        Move("extensions and order of items", "they are the build's, and hash tables'", _configs, is_across=True),
    ),
    "certs": (),
    "ready": (),
    "listeners": (),
    "help": (),
}


def _of_path(query: Query) -> tuple[Move, ...]:
    """The moves of an admin path."""
    if query.kind != "envoy":
        return ()
    path = query.arguments[0]
    return _ADMIN.get(path) or _ADMIN.get(path.partition("?")[0], ())
