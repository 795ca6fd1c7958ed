"""The oracle's own nf_tables table, and the kernel's trace messages as events.

Edge.  The table ``kernel_oracle`` (family inet) turns tracing on before every rule under test (priority -350) and ends
each hook after the last of them (1000), so that a trace that broke off is told from one that ended.  What the device
answers (RST, ICMP errors) is traced for one event and no further: its own way through the rules stays out of the trace.
A rule that can never match has connection tracking on: the kernel tracks only where some rule asks for it, and without
does not ask the nat table either.
Sources: nf_tables_trace.c, nf_tables.h of the kernel.
"""

import errno
import socket
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass

from kernel import netlink
from kernel.flow import Connection, RoomError, Tuple
from kernel.frames import Headers, parse_headers

TABLE = "kernel_oracle"
NFTRACE_GROUP, CONNTRACK_NEW_GROUP, NFT_TRACE, NFT_GETSETELEM, CT_GET = 9, 1, 17, 13, 1
POLICY, RULE = 1, 3
_WATCHED_OUT = """
    meta l4proto tcp tcp flags & (fin|syn|rst|ack) == syn meta nftrace set 1
    meta l4proto tcp tcp flags & psh == psh meta nftrace set 1
    meta l4proto { udp, sctp } meta nftrace set 1
    icmp type echo-request meta nftrace set 1
    icmpv6 type echo-request meta nftrace set 1
    meta protocol @answers meta nftrace set 1
"""
_ERRORS = (
    "meta l4proto tcp tcp flags & rst == rst",
    "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }",
)
_COUNTED = """
    meta l4proto tcp tcp flags & (fin|syn|rst|ack) != syn return
    meta nfproto ipv4 meta l4proto { tcp, udp, sctp } update @final4 { ip daddr . th dport counter }
    meta nfproto ipv6 meta l4proto { tcp, udp, sctp } update @final6 { ip6 daddr . th dport counter }
"""
RULES = f"""
table inet {TABLE} {{
  set answers {{ type ether_type; }}
  set final4 {{ type ipv4_addr . inet_service; flags dynamic; size 65535; }}
  set final6 {{ type ipv6_addr . inet_service; flags dynamic; size 65535; }}
  chain first_in {{
    type filter hook prerouting priority -350;
    iifname {{ "in0", "out0", "out1" }} meta nftrace set 1
  }}
  chain first_out {{
    type filter hook output priority -350;
    {
    "".join(
        f'''
    {error} meta nftrace set 1
    {error} meta nftrace set 0
    {error} accept'''
        for error in _ERRORS
    )
}
    {_WATCHED_OUT}
  }}
  chain late_pre {{ type filter hook prerouting priority 1000; }}
  chain late_fwd {{
    type filter hook forward priority 1000;
    ct mark 1 ct mark 2
  }}
  chain late_out {{ type filter hook output priority 1000; }}
  chain late_in {{
    type filter hook input priority 1000;
    {_COUNTED}
  }}
  chain late_post {{
    type filter hook postrouting priority 1000;
    oifname "lo" return
    {_COUNTED}
  }}
}}
"""
VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -3: "jump", -4: "goto", -5: "return"}


@dataclass(frozen=True, slots=True)
class Event:
    """One trace message; ``headers`` are there on the first of each base chain a packet enters, else None."""

    id: int
    table: str
    chain: str
    kind: int
    handle: int
    verdict: str
    mark: int
    iif: int
    oif: int
    headers: Headers | None


def nft(text: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RoomError(f"nft: {done.stderr.strip()}")


class Monitor:
    """Hears the kernel's trace; ``lost`` says that the kernel had to drop messages since it was last read."""

    def __init__(self) -> None:
        self.wire = netlink.Netlink(8 << 20)
        self.wire.join(NFTRACE_GROUP)
        self.wire.socket.setblocking(False)
        self.lost = False

    def read(self) -> list[Event]:
        """All events that are there now; the kernel queues an event before the packet goes on."""
        self.lost = False
        events: list[Event] = []
        receive = self.wire.socket.recv
        while True:
            try:
                data = receive(65536)
            except BlockingIOError:
                return events
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost = True
                continue
            at = 0
            while at + 20 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == netlink.NFTABLES << 8 | NFT_TRACE:
                    events.append(parse_event(data[at + 20 : at + length]))
                at += (length + 3) & ~3


def parse_event(data: bytes) -> Event:
    """A trace message's attributes as an `Event`; an absent number is 0."""
    found = netlink.attributes(data)

    def number(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""))

    verdict = ""
    if 5 in found:
        inner = netlink.attributes(found[5])
        code = int.from_bytes(inner[1], signed=True)
        verdict = VERDICTS.get(code if code < 0 else code & 0xFF, str(code))
        if 2 in inner:
            verdict += " " + netlink.text(inner[2])
    kind = number(4)
    if kind == POLICY:
        verdict = VERDICTS[number(16)]
    headers = parse_headers(found[8], found.get(9, b"")) if 8 in found else None
    return Event(
        number(6),
        netlink.text(found[1]),
        netlink.text(found[2]),
        kind,
        number(3),
        verdict,
        number(14),
        number(10),
        number(12),
        headers,
    )


def counted(wire: netlink.Netlink, version: int) -> Counter[tuple[str, int]]:
    """Packets by final destination (address, port) since the sets were last emptied."""
    family, size = (socket.AF_INET, 4) if version == 4 else (socket.AF_INET6, 16)
    name = f"final{version}".encode()
    body = netlink.attribute(1, TABLE.encode() + b"\0") + netlink.attribute(2, name + b"\0")
    found: Counter[tuple[str, int]] = Counter()
    for part in wire.dump(netlink.NFTABLES, NFT_GETSETELEM, netlink.NFPROTO_INET, body):
        for element in elements(part.get(3, b"")):
            key = netlink.attributes(element[1])[1]
            counter = netlink.attributes(netlink.attributes(element[7])[2])
            address = socket.inet_ntop(family, key[:size])
            found[address, int.from_bytes(key[size : size + 2])] += int.from_bytes(counter[2])
    return found


class Connections:
    """Hears of conntrack entries when they are confirmed, which is when their first packet has passed its last hook."""

    def __init__(self) -> None:
        self._wire = netlink.Netlink(1 << 20)
        self._wire.join(CONNTRACK_NEW_GROUP)
        self._wire.socket.setblocking(False)

    def read(self) -> list[Connection]:
        """Those of which there is word now."""
        found: list[Connection] = []
        while True:
            try:
                data = self._wire.socket.recv(65536)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            entry = netlink.attributes(data, 20)
            if 1 in entry and 2 in entry:
                found.append(Connection(tuple_of(entry[1]), tuple_of(entry[2]), int.from_bytes(entry.get(8, b""))))


def is_answered(wire: netlink.Netlink, version: int, original: Tuple) -> bool:
    """Whether conntrack has an entry for ``original`` and has seen an answer to it (IPS_SEEN_REPLY)."""
    entries = wire.dump(netlink.CTNETLINK, CT_GET, netlink.FAMILIES[version])
    found = (entry for entry in entries if 1 in entry and tuple_of(entry[1]) == original)
    return any(int.from_bytes(entry.get(3, b"")) & 2 for entry in found)


def tuple_of(data: bytes) -> Tuple:
    """One direction of an entry: CTA_TUPLE_IP and CTA_TUPLE_PROTO."""
    outer = netlink.attributes(data)
    addresses, proto = netlink.attributes(outer[1]), netlink.attributes(outer[2])
    family, first = (socket.AF_INET, 1) if 1 in addresses else (socket.AF_INET6, 3)
    src, dst = (socket.inet_ntop(family, addresses[number]) for number in (first, first + 1))
    identifier = proto.get(4) or proto.get(7)  # of an ICMP or ICMPv6 echo
    sport = int.from_bytes(proto.get(2, identifier or b""))
    return Tuple(src, sport, dst, int.from_bytes(proto.get(3, b"")))


def elements(data: bytes) -> list[netlink.Attributes]:
    """The members of a list attribute, each as its attributes."""
    found = []
    at = 0
    while at + 4 <= len(data):
        length = struct.unpack_from("=H", data, at)[0]
        found.append(netlink.attributes(data[at + 4 : at + length]))
        at += (length + 3) & ~3
    return found
