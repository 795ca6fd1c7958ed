"""What was done to prove a walk, and everything that was read of it: one JSON document, which a recording keeps.

Pure.  The programs' output is in it byte for byte as text; nothing in it has been compared with any prediction yet.
`words` and `packet` are the same packet as the arguments of a query, so that a recording can look a proof up.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address
from typing import Any

from bookinfo_lab.errors import LabError, ParseError
from bookinfo_lab.netfilter.kernel_trace import Flow
from bookinfo_lab.netfilter.packet import Packet

FORMAT = 1
_NUMBERS = ("sport", "dport", "uid", "gid", "mark", "icmp_type", "icmp_code")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One packet, sent or not.

    ``not_run`` says why it was not sent, "" where it was.  ``notes`` say how it was sent, and what was done otherwise
    than the walk's packet says.  ``answer`` is what the socket came to know.  ``table`` is the name of the nftables
    table that asked for the trace, ``ordered`` the command that added it.  ``trace`` and ``trace_errors`` are what
    ``xtables-monitor --trace`` printed.  ``rules`` is what iptables-save printed before the packet was sent,
    ``handles`` what ``nft -a list ruleset`` did.  ``conntrack`` are the lines of the connection (None: this
    kernel shows none).
    """

    place: str
    not_run: str = ""
    notes: tuple[str, ...] = ()
    flow: Flow | None = None
    answer: str = ""
    table: str = ""
    ordered: str = ""
    trace: str = ""
    trace_errors: str = ""
    rules: str = ""
    handles: str = ""
    conntrack: tuple[str, ...] | None = None
    took_ms: float = 0.0


def write(attempt: Attempt) -> bytes:
    """The attempt as a JSON document."""
    document = {"format": FORMAT, **asdict(attempt)}
    return json.dumps(document, indent=1, ensure_ascii=False, default=str).encode() + b"\n"


def read(raw: bytes, source: str = "proof") -> Attempt:
    """The attempt in ``raw``; `ParseError` where it is none."""
    try:
        document = json.loads(raw)
        if document.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        flow = document.pop("flow")
        lines = document.pop("conntrack")
        notes = tuple(map(str, document.pop("notes")))
        return Attempt(
            **document,
            notes=notes,
            flow=None if flow is None else _flow(flow),
            conntrack=None if lines is None else tuple(map(str, lines)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        start = raw[:80].decode("utf-8", "replace")
        raise ParseError(source, 1, start, f"no record of a proof ({error})") from None


def _flow(document: dict[str, Any]) -> Flow:
    return Flow(**document | {name: ip_address(document[name]) for name in ("src", "dst")})


def words(given: Packet) -> tuple[str, ...]:
    """``name=value`` of all that the packet says, in one order; `packet` reads them."""
    pairs = [(item.name, getattr(given, item.name)) for item in fields(Packet)]
    defaults = {item.name: item.default for item in fields(Packet)}
    return tuple(f"{name}={value}" for name, value in pairs if value is not None and value != defaults[name])


def packet(given: Sequence[str]) -> Packet:
    """The packet of `words`; `LabError` where they are none."""
    known = {item.name for item in fields(Packet)}
    found: dict[str, Any] = {"sport": None, "dport": None}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise LabError(f"{word!r} says nothing of a packet; there are: {', '.join(sorted(known))}")
        found[name] = value
    try:
        found |= {name: int(found[name]) for name in _NUMBERS if found.get(name) is not None}
        found["local"] = found.get("local") == "True"
        return Packet(**found)
    except (TypeError, ValueError) as error:
        raise LabError(f"{' '.join(given)!r} is no packet: {error}") from None
