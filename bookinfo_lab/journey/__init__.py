"""One request's way through the proxies, from their access logs joined by request id.

Pure, standard library only.  In: what each proxy's container wrote (`ProxyLog`).  Out: a `Journey`, whose hops
stand in the order in which they were sent.  A hop is one HTTP exchange between two workloads; the proxy that
sends it and the proxy that receives it each log it, and the two lines belong together because the sender's
upstream connection is the receiver's downstream connection.  What has no proxy leaves no line: it is not
guessed.  Lines that are not JSON (Envoy's own messages) are passed over.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ProxyLog:
    """What one proxy logged: its pod's name and address, whether it is a gateway, its lines."""

    pod: str
    address: str
    gateway: bool
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One access-log line: the proxy it is of, ``inbound`` or ``outbound``, and Istio's fields by name."""

    pod: str
    address: str
    direction: str
    fields: Mapping[str, Any]

    @property
    def start(self) -> datetime:
        """When the proxy had the first byte of the request (Envoy's START_TIME, milliseconds)."""
        return datetime.fromisoformat(self.fields["start_time"])

    @property
    def connection(self) -> tuple[str, str]:
        """The connection it was sent or received on, as (sender's address, receiver's), each with its port."""
        if self.direction == "outbound":
            return _text(self.fields.get("upstream_local_address")), _text(self.fields.get("upstream_host"))
        return _text(self.fields.get("downstream_remote_address")), _text(self.fields.get("downstream_local_address"))


@dataclass(frozen=True, slots=True)
class Hop:
    """One exchange: who asked whom, by which cluster, and what both proxies measured.

    ``sent_ms`` and ``received_ms`` are whole milliseconds as Envoy rounds them down, None where that side has
    no proxy; ``depth`` is 0 for the gateway's hop.
    """

    source: str
    destination: str
    method: str
    path: str
    status: int
    flags: str
    cluster: str
    upstream: str
    sent_ms: int | None
    received_ms: int | None
    depth: int


@dataclass(frozen=True, slots=True)
class Journey:
    """The hops of one request, in the order they were sent; ``unpaired`` counts lines whose other half is missing."""

    request_id: str
    trace_id: str
    authority: str
    client: str
    hops: tuple[Hop, ...]
    unpaired: int


def lines(log: ProxyLog) -> tuple[Line, ...]:
    """The access-log lines of one proxy, in its order."""
    found = []
    for text in log.text.split("\n"):  # not splitlines: JSON strings may hold U+2028
        if text.startswith("{"):
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError):
                continue  # cut in the middle of a write; the next reading has it whole
            if _is_access_log(fields):
                found.append(Line(log.pod, log.address, _direction(log, fields), fields))
    return tuple(found)


def _is_access_log(fields: Any) -> bool:
    """Whether a JSON value has what is needed of Istio's fields, each of its kind."""
    if not isinstance(fields, dict) or not isinstance(fields.get("request_id"), str):
        return False
    try:
        if datetime.fromisoformat(fields["start_time"]).tzinfo is None:
            return False  # times of unknown zones have no order
    except (KeyError, TypeError, ValueError):
        return False
    return all(isinstance(fields.get(name), int | None) for name in ("duration", "response_code"))


def join(logs: Iterable[ProxyLog], user_agent: str) -> Journey | None:
    """The journey of the request that a gateway received with this User-Agent; None where no line shows it yet."""
    every = [line for log in logs for line in lines(log)]
    entry = next((line for line in every if line.fields.get("user_agent") == user_agent and _is_gateway(line)), None)
    if entry is None:
        return None
    request_id = _text(entry.fields["request_id"])
    ours = [line for line in every if line.fields["request_id"] == request_id]
    sent = sorted((line for line in ours if line.direction == "outbound"), key=lambda line: line.start)
    pairs = _paired(sent, sorted((line for line in ours if line.direction == "inbound"), key=lambda line: line.start))
    deep = {id(line): _depth(line, ours) for line in sent}
    sent.sort(key=lambda line: (line.start, deep[id(line)], line.connection))  # times are whole milliseconds and tie
    hops = tuple(_hop(line, pairs.get(id(line)), deep[id(line)]) for line in sent)
    pods = {line.address for line in every}
    lone = sum(1 for hop in hops if hop.received_ms is None and hop.upstream.partition(":")[0] in pods)
    return Journey(
        request_id=request_id,
        trace_id=_text(entry.fields.get("traceparent") or entry.fields.get("x_b3_traceid")),
        authority=_text(entry.fields.get("authority")),
        client=_text(entry.fields.get("downstream_remote_address")),
        hops=hops,
        unpaired=sum(1 for line in ours if line.direction == "inbound") - len(pairs) + lone,
    )


def _paired(sent: Sequence[Line], received: Sequence[Line]) -> dict[int, Line]:
    """The receiving line of each sending one, by the latter's identity.

    First by connection.  Where x-forwarded-for names a client, the receiver logs that client in place of the
    sender's address: what is left is paired by the receiver's address, in the order in which it began.
    """
    found: dict[int, Line] = {}
    left = list(received)
    for same in (_same_connection, _same_receiver):
        for line in sent:
            other = next((item for item in left if id(line) not in found and same(line, item)), None)
            if other is not None:
                found[id(line)] = other
                left.remove(other)
    return found


def _same_connection(line: Line, other: Line) -> bool:
    return line.connection == other.connection


def _same_receiver(line: Line, other: Line) -> bool:
    return line.connection[1] == other.connection[1] and bool(line.connection[1])


def _direction(log: ProxyLog, fields: Mapping[str, Any]) -> str:
    cluster = _text(fields.get("upstream_cluster"))
    return "inbound" if cluster.startswith(("inbound|", "InboundPassthrough")) and not log.gateway else "outbound"


def _is_gateway(line: Line) -> bool:
    local = _text(line.fields.get("downstream_local_address")).partition(":")[0]
    return line.direction == "outbound" and local == line.address


def _hop(line: Line, other: Line | None, depth: int) -> Hop:
    fields = line.fields
    upstream = _text(fields.get("upstream_host"))
    return Hop(
        source=line.pod,
        destination=other.pod if other else upstream,
        method=_text(fields.get("method")),
        path=_text(fields.get("path")),
        status=fields.get("response_code") or 0,
        flags=_text(fields.get("response_flags")),
        cluster=_text(fields.get("upstream_cluster")),
        upstream=upstream,
        sent_ms=_milliseconds(fields),
        received_ms=_milliseconds(other.fields) if other else None,
        depth=depth,
    )


def _depth(line: Line, ours: Sequence[Line]) -> int:
    """How many exchanges stand around this one: whoever sends it was itself asked, until the gateway."""
    depth, address, seen = 0, line.address, {line.address}
    while any(item.direction == "inbound" and item.address == address for item in ours):
        depth += 1
        senders = [item.address for item in ours if item.connection[1].partition(":")[0] == address]
        address = next((sender for sender in senders if sender not in seen), "")
        seen.add(address)
    return depth


def _milliseconds(fields: Mapping[str, Any]) -> int | None:
    value = fields.get("duration")
    return value if isinstance(value, int) else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def as_document(journey: Journey) -> dict[str, Any]:
    """The journey as JSON-ready values."""
    return asdict(journey)


def as_text(journey: Journey) -> str:
    """The journey as a table for a terminal; control characters of the wire are shown as escapes."""
    rows = [("#", "from", "to", "request", "status", "ms sent", "ms received", "cluster")]
    for number, hop in enumerate(journey.hops, 1):
        rows.append(
            (
                str(number),
                "  " * hop.depth + hop.source,
                hop.destination or "nobody",
                f"{hop.method} {hop.path}",
                f"{hop.status}{' ' + hop.flags if hop.flags not in ('', '-') else ''}",
                "-" if hop.sent_ms is None else str(hop.sent_ms),
                str(hop.received_ms) if hop.received_ms is not None else "no proxy" if hop.upstream else "-",
                hop.cluster,
            )
        )
    safe = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in safe) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in safe]
    host, client = _printable(journey.authority), _printable(journey.client)
    head = f"Request {_printable(journey.request_id)} for http://{host}, which the gateway saw come from {client}"
    notes = [
        "ms: from the request's first byte to the response's last, as the sending and the receiving proxy logged it."
    ]
    if any(hop.received_ms is None and hop.upstream for hop in journey.hops):
        notes.append("A destination without a proxy is an address, and what it asks of others leaves no line here.")
    if journey.unpaired:
        notes.append(f"{journey.unpaired} lines lack their other half: some proxy had not written its log yet.")
    return "\n".join([head, "", *table, "", *notes])


def _printable(text: str) -> str:
    shown = text if len(text) <= 120 else text[:117] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
