"""The kernel's own trace of one packet: how to ask for it, and what `xtables-monitor --trace` printed, as values.

Pure.  Text comes in, events in the kernel's order go out.  A trace names rules by handle; `rule_numbers` finds their
numbers in what ``nft -a list ruleset`` printed.  xtables-monitor is read rather than ``nft monitor trace`` because it
alone gives the handle (two rules may have one text) and repeats the rule as iptables-save prints it.  Whatever of the
text cannot be read, ends early or tells of an overrun is a loss: it is named, never left out in silence.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # linux/netfilter.h, NFPROTO_*
LISTENING, FINISHED = "listening", "finished"  # chains of the table below; each drops one datagram of our own
_RETURN = "0xfffffffb"  # NFT_RETURN, which xtables-monitor 1.8 has no word for
_PACKET = re.compile(r"PACKET: (\d+) ([0-9a-f]{8}) (.*)")
_TRACE = re.compile(r" ?TRACE: (\d+) ([0-9a-f]{8}) ([^\s:]+):(\S+?):(rule|policy|return):(\S*)\s*(.*)")
_RULE = re.compile(r"-[460] -t (\S+) -A (\S+) ?(.*)")


@dataclass(frozen=True, slots=True)
class Flow:
    """The packet that is traced, as it is sent: ``sport`` and ``dport`` are ICMP's identifier and None there."""

    proto: str
    src: IPv4Address | IPv6Address
    sport: int | None
    dst: IPv4Address | IPv6Address
    dport: int | None
    icmp_type: int | None = None
    icmp_code: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """The packet as the kernel had it when a hook's first rule or policy had been evaluated: its mark is from then.

    ``iif`` and ``oif`` are "" where the packet has none, addresses and ports "" and None where they were not printed.
    """

    iif: str
    oif: str
    src: str
    dst: str
    sport: int | None
    dport: int | None
    mark: int


@dataclass(frozen=True, slots=True)
class Event:
    """A rule that matched, or a base chain's policy (``kind`` is rule, policy or return).

    ``verdict`` is in the words of a walk: continue, jump CHAIN, goto CHAIN, return, accept, drop.  ``handle`` is 0 and
    ``text`` "" for a policy; ``text`` is what iptables-save prints after ``-A CHAIN``.  ``line`` counts from 1.
    """

    trace_id: str
    family: str
    table: str
    chain: str
    kind: Literal["rule", "policy", "return"]
    verdict: str
    handle: int
    text: str
    header: Header | None
    line: int


@dataclass(frozen=True, slots=True)
class KernelTrace:
    """What was printed: events in the kernel's order, and why some may be missing (empty: nothing was lost)."""

    events: tuple[Event, ...]
    losses: tuple[str, ...]


def parse(text: str, stderr: str = "") -> KernelTrace:
    """The events of what ``xtables-monitor --trace`` printed; ``stderr`` beside it tells of overruns."""
    events: list[Event] = []
    losses = [f"xtables-monitor said: {line.strip()}" for line in stderr.splitlines() if line.strip()]
    headers: dict[tuple[int, str], Header] = {}
    lines = text.split("\n")
    if lines.pop():
        losses.append(f"the trace ends in the middle of line {len(lines) + 1}")
    for number, line in enumerate(lines, 1):
        if packet := _PACKET.fullmatch(line):
            headers[int(packet[1]), packet[2]] = _header(packet[3])
        elif found := _TRACE.fullmatch(line):
            events.append(_event(found, headers.get((int(found[1]), found[2])), number))
        elif line.strip() and not line.startswith(("NEWGEN:", " EVENT:")):
            losses.append(f"line {number} cannot be read: {line.strip()[:80]}")
    bare = [item.line for item in events if item.kind == "rule" and not item.handle]
    losses += [f"line {number}: a rule without its handle" for number in bare]
    return KernelTrace(tuple(events), tuple(losses))


def _header(text: str) -> Header:
    pairs = dict(word.split("=", 1) for word in text.split() if "=" in word)

    def port(name: str) -> int | None:
        return int(pairs[name]) if pairs.get(name, "").isdecimal() else None

    mark = pairs.get("MARK", "0")
    return Header(
        pairs.get("IN", ""),
        pairs.get("OUT", ""),
        pairs.get("SRC", ""),
        pairs.get("DST", ""),
        port("SPORT"),
        port("DPORT"),
        int(mark, 16) if re.fullmatch(r"0(x[0-9a-f]+)?", mark) else 0,
    )


def _event(found: re.Match[str], header: Header | None, line: int) -> Event:
    family, trace_id, table, chain, kind, rest, text = found.groups()
    handle, said = 0, rest
    if kind == "rule":
        printed, _, said = rest.partition(":")
        handle = int(printed, 16) if re.fullmatch(r"0x[0-9a-f]+", printed) else 0
    rule = _RULE.fullmatch(text)
    is_own = rule is not None and (rule[1], rule[2]) == (table, chain)
    body = rule[3] if rule is not None and is_own else text
    named = FAMILIES.get(int(family), family)
    assert kind in ("rule", "policy", "return")
    return Event(trace_id, named, table, chain, kind, _verdict(said), handle, body.strip(), header, line)  # type: ignore[arg-type]


def _verdict(said: str) -> str:
    word, _, chain = said.partition(":")
    if word == _RETURN or not word:
        return "return"
    return f"{word.lower()} {chain}".strip()


def passages(trace: KernelTrace, table: str) -> tuple[tuple[Event, ...], ...]:
    """The events of the packet that a rule of ``table`` (`tracing_table`) chose, that table's own left out.

    One tuple for its passage from where it enters to where it leaves; a second one where it left by lo and came in
    again.  What TCP sends a second time is another packet.  Empty where the packet was never seen.
    """
    events = list(trace.events)
    start = next((place for place, item in enumerate(events) if _is_choice(item, table)), None)
    if start is None:
        return ()
    rest = events[start + 1 :]
    first = _passage(rest, events[start].trace_id, table)
    oif = first[-1].header.oif if first and first[-1].header else ""
    if oif != "lo":
        return (first,)
    last = first[-1]
    for place, item in enumerate(rest):
        if item.line > last.line and item.table != table and _is_again(item.header, last.header):
            return (first, _passage(rest[place:], item.trace_id, table))
    return (first,)


def _is_choice(event: Event, table: str) -> bool:
    return event.table == table and event.kind == "rule" and event.verdict == "continue"


def _is_again(header: Header | None, left: Header | None) -> bool:
    """Whether the packet that left by lo is the one that comes in there: same source, and no way out chosen yet."""
    if header is None or left is None or header.iif != "lo" or header.oif:
        return False
    return (header.src, header.sport) == (left.src, left.sport)


def _passage(events: Sequence[Event], trace_id: str, table: str) -> tuple[Event, ...]:
    found: list[Event] = []
    went_out = False
    for item in events:
        if item.trace_id != trace_id:
            continue
        oif = item.header.oif if item.header else ""
        if _is_choice(item, table) or (went_out and not oif):
            break
        went_out = went_out or bool(oif)
        if item.table != table:
            found.append(item)
    return tuple(found)


def is_watched(trace: KernelTrace, table: str) -> bool:
    """Whether the monitor read from before the packet until after it: it printed our datagrams on both sides."""
    known = [item.line for passage in passages(trace, table) for item in passage]
    known += [item.line for item in trace.events if _is_choice(item, table)]
    before = [item.line for item in trace.events if (item.table, item.chain) == (table, LISTENING)]
    after = [item.line for item in trace.events if (item.table, item.chain) == (table, FINISHED)]
    if not before or not after:
        return False
    return before[0] < min(known, default=after[0]) and max(known, default=before[0]) < after[-1]


_HANDLE = re.compile(r"# handle (\d+)$")


def rule_numbers(listing: str) -> Mapping[tuple[str, str, int], tuple[str, int]]:
    """(family, table, handle) → (chain, number from 1) of every rule that ``nft -a list ruleset`` printed."""
    numbers: dict[tuple[str, str, int], tuple[str, int]] = {}
    family = table = chain = ""
    count = 0
    for line in listing.split("\n"):
        words = line.split()
        if not line.startswith(("\t", " ")) and words[:1] == ["table"] and len(words) > 2:
            family, table, chain = words[1], words[2], ""
        elif words[:1] == ["chain"] and len(words) > 2 and words[2] == "{" and line[:1] == "\t" and line[1:2] != "\t":
            chain, count = words[1], 0
        elif words == ["}"]:
            chain = "" if line == "\t}" else chain
        elif chain and (found := _HANDLE.search(line)):
            count += 1
            numbers[family, table, int(found[1])] = (chain, count)
    return numbers


def base_chains(listing: str) -> frozenset[tuple[str, str]]:
    """(table, chain) of the IP chains that hang on a hook, by what ``nft list ruleset`` printed.

    iptables-save names a table's built-in chains also where the kernel has none of them: they are made when a rule is.
    """
    found = set()
    table = chain = ""
    for line in listing.split("\n"):
        words = line.split()
        if not line.startswith(("\t", " ")) and words[:1] == ["table"] and len(words) > 2:
            table = words[2] if words[1] in ("ip", "ip6", "inet") else ""
        elif words[:1] == ["chain"] and len(words) > 2 and line[:1] == "\t" and line[1:2] != "\t":
            chain = words[1]
        elif words[:1] == ["type"] and "hook" in words and table:
            found.add((table, chain))
    return frozenset(found)


def tracing_table(name: str, own: str, flow: Flow, *, is_local: bool, is_established: bool) -> str:
    """The nft command that adds the table ``name``: it traces the packets of ``flow`` and decides nothing about them.

    The table belongs to the nft process that adds it: the kernel removes it when that process ends, however it ends,
    and refuses another process's table of that name until then.  ``own`` is a chain's name that tells whose it is.
    Its rules see the packet before any other's do, on output where it is local and on arrival where it is not.  Of
    TCP it takes the first packet, or where ``is_established`` those that are not.  Datagrams to ports 1 and 2 of the
    namespace's own loopback are traced and dropped: they show that the monitor listens.
    """
    hook = "output" if is_local else "prerouting"
    knocks = "; ".join(
        f"udp dport {port} ip daddr 127.0.0.1 meta nftrace set 1 jump {chain}"
        for port, chain in ((1, LISTENING), (2, FINISHED))
    )
    return (
        f"add table inet {name} {{ flags owner; "
        f"chain {LISTENING} {{ drop; }}; chain {FINISHED} {{ drop; }}; "
        f"chain {own} {{ type filter hook output priority -400; {knocks}; }}; "
        f"chain traced {{ type filter hook {hook} priority -350; "
        f"{_match(flow, is_established)} meta nftrace set 1; }}; }}"
    )


def _match(flow: Flow, is_established: bool) -> str:
    version = "ip" if flow.src.version == 4 else "ip6"
    addresses = f"{version} saddr {flow.src} {version} daddr {flow.dst}"
    if flow.proto in ("icmp", "icmpv6"):
        echo = f" {flow.proto} id {flow.sport}" if flow.sport is not None else ""
        return f"{addresses} {flow.proto} type {flow.icmp_type} {flow.proto} code {flow.icmp_code}{echo}"
    ports = f"meta l4proto {flow.proto} th sport {flow.sport} th dport {flow.dport}"
    if flow.proto != "tcp":
        return f"{addresses} {ports}"
    flags = "tcp flags & (syn | rst) == 0" if is_established else "tcp flags & (syn | ack | rst) == syn"
    return f"{addresses} {ports} {flags}"
