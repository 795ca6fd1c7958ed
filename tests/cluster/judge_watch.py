"""The kernel's trace of the tests' packets in a node's network namespace, as observations.

Edge; runs on the node.  It has one nftables table of its own, which traces what comes from the ports PORTS and the
answers to that; `close` removes the table and the connections.  What another node sends back here is another packet.
"""

import errno
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from judge_services import TARGETS
from kernel import frames, netlink, rules, send, watch
from kernel.flow import Connection, Flow, Observation
from kernel.frames import Headers
from kernel.observe import Heard, is_answer, observation, only
from kernel.watch import POLICY, Event

PORTS = range(20000, 30000)
ETH_P_ALL, PACKET_OUTGOING, CT_DELETE, NFT_GETCHAIN = 3, 4, 2, 4
UNROUTED_S, LATE_S = 0.4, 0.8
_OURS = f"""
    meta l4proto tcp th sport {PORTS[0]}-{PORTS[-1]} tcp flags & (fin|syn|rst|ack) == syn meta nftrace set 1
    meta l4proto tcp th sport {PORTS[0]}-{PORTS[-1]} tcp flags & psh == psh meta nftrace set 1
    meta l4proto {{ udp, sctp }} th sport {PORTS[0]}-{PORTS[-1]} meta nftrace set 1
    icmp type echo-request icmp id {PORTS[0]}-{PORTS[-1]} meta nftrace set 1
"""
_ERRORS = (
    "meta l4proto tcp tcp flags & rst == rst",
    "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
)
# The names are those by which `kernel.observe` knows the beginning and the end of a hook.
_TABLE = f"""
table inet {watch.TABLE} {{
  chain first_in {{ type filter hook prerouting priority -350; {_OURS} }}
  chain answers_in {{
    type filter hook prerouting priority -199;
    meta l4proto {{ tcp, udp }} ct direction reply ct original proto-src {PORTS[0]}-{PORTS[-1]} meta nftrace set 1
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
    {_OURS}
  }}
  chain late_pre {{ type filter hook prerouting priority 1000; }}
  chain late_fwd {{ type filter hook forward priority 1000; }}
  chain late_out {{ type filter hook output priority 1000; }}
  chain late_in {{ type filter hook input priority 1000; }}
  chain late_post {{ type filter hook postrouting priority 1000; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a packet, and of its answer where there was one."""

    first: Observation
    answer: Observation | None


@dataclass(slots=True)
class Kept:
    """What was heard since a packet was sent."""

    events: list[Event] = field(default_factory=list)
    frames: dict[str, list[Headers]] = field(default_factory=lambda: defaultdict(list))
    connections: list[Connection] = field(default_factory=list)
    trouble: str = ""


class Watch:
    """What the kernel of this network namespace does with packets from PORTS."""

    def __init__(self) -> None:
        watch.nft(f"add table inet {watch.TABLE}\ndelete table inet {watch.TABLE}\n{_TABLE}")
        self._control = netlink.Netlink(4 << 20)
        self._monitor = watch.Monitor()
        self._tracked = watch.Connections()
        self._numbers = self.rule_numbers()
        self._names = dict(socket.if_nameindex())
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._out.setsockopt(socket.SOL_SOCKET, netlink.SO_RCVBUFFORCE, 16 << 20)
        self._out.setblocking(False)
        self._kept = Kept()

    def close(self) -> None:
        """Remove the table and forget the connections."""
        watch.nft(f"delete table inet {watch.TABLE}")
        for entry in self._control.dump(netlink.CTNETLINK, watch.CT_GET, socket.AF_INET):
            if 1 in entry and watch.tuple_of(entry[1]).sport in PORTS:
                body = netlink.attribute(1, entry[1], nested=True)
                try:
                    self._control.request(netlink.CTNETLINK, CT_DELETE, socket.AF_INET, body)
                except OSError as error:  # gone by itself in the meantime
                    if error.errno != errno.ENOENT:
                        raise

    def rule_numbers(self) -> rules.Numbers:
        """The rules as the kernel lists them now; a run in which they change cannot be judged."""
        return rules.numbers(self._control, 4)

    def base_chains(self) -> set[tuple[str, str]]:
        """The base chains that there are: iptables-save also prints those that no rule has brought into being."""
        found = self._control.dump(netlink.NFTABLES, NFT_GETCHAIN, socket.AF_INET)
        return {(netlink.text(item[1]), netlink.text(item[3])) for item in found if 4 in item}

    def clear(self) -> None:
        """Forget what was heard."""
        self._hear()
        self._kept = Kept()

    def seen(self, flow: Flow, is_next: bool, call_error: str, answering: Collection[tuple[str, int, str]]) -> Seen:
        """What became of the packet sent since `clear`: the first of ``flow``'s connection, or the next.

        ``answering`` are the (address, port, protocol) from which an answer is to be waited for.
        """
        start = time.monotonic()
        wanted = _goes_on(flow) if is_next else _begins(flow)
        while True:
            self._hear()
            first = self._observed(flow, wanted, call_error)
            waited = time.monotonic() - start
            is_done = first.complete and (first.verdict != "unrouted" or waited > UNROUTED_S)
            answer = None
            if is_done and not is_next and _goes_to(first, answering):
                answer = self._observed(flow, _answers(first), "")
                is_done = answer.complete
            if is_done or waited > LATE_S:
                return Seen(first, answer)
            time.sleep(0.001)

    def _observed(self, flow: Flow, wanted: Callable[[Headers], bool], call_error: str) -> Observation:
        """The packet's first way through this node: another node may send it back here."""
        errors = [event for event in self._kept.events if is_answer(event)]
        events = only((event for event in self._kept.events if not is_answer(event)), wanted)
        end = next((at for at, event in enumerate(events) if self._leaves(events, at, event)), len(events))
        kept = self._kept
        heard = Heard(
            (*errors, *events[: end + 1]), kept.frames, tuple(kept.connections), call_error, trouble=kept.trouble
        )
        return observation(flow, heard, self._numbers, self._names)

    def _leaves(self, events: Sequence[Event], at: int, event: Event) -> bool:
        if event.kind != POLICY or event.chain != "late_post":
            return False
        base = next(item for item in reversed(events[: at + 1]) if item.headers)
        return self._names.get(base.oif) != "lo"

    def _hear(self) -> None:
        self._kept.events += self._monitor.read()
        if self._monitor.lost:
            self._kept.trouble = "the trace overran its buffer"
        self._kept.connections += self._tracked.read()
        while True:
            try:
                data, (name, _, kind, *_) = self._out.recvfrom(65536)
            except BlockingIOError:
                return
            if kind == PACKET_OUTGOING and name != "lo" and data[12:14] == send.ETHER_TYPES[4]:
                headers = frames.parse_packet(data[14:])
                if headers is not None:
                    self._kept.frames[name].append(headers)


def _begins(flow: Flow) -> Callable[[Headers], bool]:
    """Whether headers are of the first packet; a UDP or SCTP answer is told by the port that it comes from."""
    shown = send.shows(flow)
    servers = {flow.dport, *TARGETS, 53, 443, 6443}

    def is_first(packet: Headers) -> bool:
        return shown(packet) and (flow.proto not in ("udp", "sctp") or packet.tuple.sport not in servers)

    return is_first


def _goes_on(flow: Flow) -> Callable[[Headers], bool]:
    if flow.proto == "tcp":
        return lambda packet: packet.proto == frames.NUMBERS["tcp"] and bool(packet.flags & frames.PSH)
    return _begins(flow)


def _goes_to(seen: Observation, answering: Collection[tuple[str, int, str]]) -> bool:
    final = seen.final
    return final is not None and seen.verdict == "left" and (final.dst, final.dport, seen.flow.proto) in answering


def _answers(first: Observation) -> Callable[[Headers], bool]:
    """Whether headers are of the answer to that packet, before NAT or after it, and not one that is sent again."""
    sent, final = first.sent, first.final
    assert sent is not None
    assert final is not None
    froms = {(final.dst, final.dport), (sent.dst, sent.dport)}
    tos = {(final.src, final.sport), (sent.src, sent.sport)}

    def is_its(packet: Headers) -> bool:
        found = packet.tuple
        if (found.src, found.sport) not in froms or (found.dst, found.dport) not in tos:
            return False
        both = frames.SYN | frames.ACK
        return packet.proto != frames.NUMBERS["tcp"] or packet.flags & both == both

    return is_its
