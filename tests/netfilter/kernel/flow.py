"""What the kernel is asked and what it did: one packet to send, and the observation of it.

Values only, pickled between the test and the process that holds the room.  Addresses and words are text, as the
kernel's own tools print them; nothing here is shared with the package under test.
"""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["delivered", "left", "dropped", "rejected", "unrouted", "unknown"]
Direction = Literal["first", "established", "reply"]


class RoomError(Exception):
    """The room could not be made, or a tool in it failed: nothing was observed."""


class Refused(RoomError):
    """What was asked for cannot be sent here: the message says why."""


class LoadError(RoomError):
    """iptables-nft-restore or the kernel refused the rules; the message is theirs."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One packet: the first of a new connection unless the room is asked for another.

    It arrives by ``iif`` (``in0``, ``out0`` or ``out1``) as a frame, ``src`` being any address at all, or with
    ``local`` comes from a process of the device under test with ``uid`` and ``gid`` (0 unless given), through a socket
    bound to ``src`` and ``sport``; ``src`` None leaves the address to the kernel.  ``sport`` None takes a port that no
    flow before had; for icmp and icmpv6 it is the echo's identifier, and ``dport`` is not used.  ``mark`` is SO_MARK:
    only a local flow has one.  ``tcp_flags`` are those of a frame (``SYN``, ``ACK``, ``RST``, joined by a comma).
    """

    src: str | None
    dst: str
    dport: int = 0
    proto: str = "tcp"
    sport: int | None = None
    iif: str = "in0"
    local: bool = False
    uid: int | None = None
    gid: int | None = None
    mark: int = 0
    icmp_type: int | None = None
    icmp_code: int = 0
    tcp_flags: str = "SYN"


@dataclass(frozen=True, slots=True)
class Tuple:
    """Addresses and ports of a packet; of an ICMP echo ``sport`` is the identifier and ``dport`` 0."""

    src: str
    sport: int
    dst: str
    dport: int


@dataclass(frozen=True, slots=True)
class Connection:
    """A conntrack entry as it was confirmed: both directions' addresses, and its mark."""

    original: Tuple
    reply: Tuple
    mark: int


@dataclass(frozen=True, slots=True)
class Visit:
    """One trace event in the tables under test.

    ``kind`` is ``rule`` (that rule matched; ``number`` counts from 1), ``end`` (the end of a user chain was reached) or
    ``policy`` (of a base chain).  ``verdict`` is ``continue``, ``accept``, ``drop``, ``return``, ``stolen``, ``queue``,
    ``jump CHAIN`` or ``goto CHAIN``; ``mark`` is the packet's after it.
    """

    kind: Literal["rule", "end", "policy"]
    table: str
    chain: str
    number: int
    verdict: str
    mark: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What became of one packet.

    ``verdict``: ``delivered`` (to a local process's stack), ``left`` (by the interface ``out``), ``dropped``,
    ``rejected`` (dropped by a rule, and an answer was made), ``unrouted`` (no rule ended it: routing did).  ``sent``
    and ``final`` are its addresses at the first hook and at the last one it reached, after NAT; ``mark`` is its mark
    there.  ``connection`` is the conntrack entry that it made, None where it made none.  ``answer`` is the error that
    the device under test made (``tcp-reset``, ``icmp-port-unreachable``, …; "" for none), also that of a closed port,
    and ``answer_out`` where it came out: an interface, ``socket``, or "" where it was itself dropped.  ``errno`` is
    what the local socket was told.  ``complete`` False means that something was lost or contradictory, as ``why``
    says: not an answer.
    """

    flow: Flow
    visits: tuple[Visit, ...]
    verdict: Verdict
    out: str
    sent: Tuple | None
    final: Tuple | None
    mark: int
    connection: Connection | None
    answer: str
    answer_out: str
    errno: str
    complete: bool
    why: str

    @property
    def matched(self) -> tuple[tuple[str, str, int], ...]:
        """The rules that matched, in order, as (table, chain, number from 1)."""
        return tuple((visit.table, visit.chain, visit.number) for visit in self.visits if visit.kind == "rule")
