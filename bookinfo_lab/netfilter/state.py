"""A packet on its way through a walk: what the kernel knows of it at one moment, in one branch.

Pure, and the one mutable value of a walk: `copy` at a branch.  Addresses are `ipaddress` objects beside the integers
that conditions compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.kube.fields import Address
from bookinfo_lab.trace import Seen

from .facts import Facts
from .packet import Packet, socket_address

Frame = tuple[str, str, int, Sequence[int]]  # table, chain, position among the candidates, candidates


@dataclass(frozen=True, slots=True)
class Open:
    """What cannot be told: ``question`` names the missing fact, or ``probability`` the chance, of a yes.

    ``is_unmodelled`` where it is not a fact that is missing but a match that is not modelled.  ``is_lasting`` where the
    answer holds for the rest of the walk; ``settles`` is the (attribute, value) of the state that a yes makes known.
    """

    question: str
    probability: float | None = None
    negated: bool = False
    is_unmodelled: bool = False
    is_lasting: bool = False
    settles: tuple[str, Any] | None = None


class State:
    """See the module.  ``dst`` is None where a REDIRECT gave an address that is not known."""

    __slots__ = (
        *("src", "src_number", "src_text", "sport", "dst", "dst_number", "dst_text", "dport"),
        *("proto", "version", "icmp_type", "icmp_code"),
        *("iif", "out", "next_out", "via", "mark", "routed_mark", "ctmark", "ct", "tracked", "uid", "gid"),
        *("has_socket", "has_template", "entry_mark", "masqueraded_by", "origin", "dnat", "snat"),
        *("source", "tproxy", "is_remade", "is_second_pass", "stack", "stages", "jumps"),
        *("known", "asked", "is_resumed", "depends", "probability", "parent", "view", "facts"),
    )

    def __init__(self, packet: Packet, facts: Facts | None) -> None:
        self.set_source(packet.src, packet.sport)
        self.set_destination(packet.dst, packet.dport)
        self.proto, self.version = packet.proto, packet.src.version
        self.icmp_type, self.icmp_code = packet.icmp_type, packet.icmp_code
        self.iif: str | None = "" if packet.local else packet.iif
        self.out: str | None = ""
        self.next_out: str | None = ""
        self.via: Address | None = None
        self.mark = self.routed_mark = packet.mark
        self.ctmark = 0
        self.tracked: str = packet.ct_state
        self.ct: str = "untracked" if packet.ct_state == "untracked" else "invalid"  # in raw, before tracking
        self.uid, self.gid, self.has_socket = packet.uid, packet.gid, packet.local
        self.origin = (packet.src, packet.sport, packet.dst, packet.dport)
        self.dnat: tuple[Address | None, int | None] | None = None
        self.snat: tuple[Address | None, int | None] | None = None
        self.source = "kept"
        self.tproxy: int | None = None
        self.is_remade = False  # a rule of mangle OUTPUT wrote a field that routing asks for
        self.is_second_pass = False
        self.has_template = False  # a CT target has told conntrack how to treat it
        self.entry_mark = 0  # the mark of the entry that conntrack finds
        self.masqueraded_by: str | None = None  # the interface whose address MASQUERADE took
        self.stack: tuple[Frame, ...] = ()
        self.stages: tuple[str, ...] = ()
        self.jumps = 0
        self.known: dict[str, bool] = {}
        self.asked: dict[str, bool] = {}
        self.is_resumed = False
        self.depends: tuple[str, ...] = ()
        self.probability = 1.0
        self.parent = -1
        self.facts = facts
        self.view = self.seen()

    def set_source(self, address: Address | None, port: int | None) -> None:
        """Write a source; None for what is not known."""
        self.src, self.sport = address, port
        self.src_number = None if address is None else int(address)
        self.src_text = text(address, port)

    def set_destination(self, address: Address | None, port: int | None) -> None:
        """Write a destination; None for what is not known."""
        self.dst, self.dport = address, port
        self.dst_number = None if address is None else int(address)
        self.dst_text = text(address, port)

    def copy(self) -> "State":
        """The same moment in a branch of its own."""
        made = object.__new__(State)
        for name in State.__slots__:
            setattr(made, name, getattr(self, name))
        made.known, made.asked = dict(self.known), dict(self.asked)
        return made

    @property
    def has_entry(self) -> bool:
        """Whether a conntrack entry goes with the packet here: not in raw, nor where it is invalid or untracked."""
        return self.ct not in ("invalid", "untracked")

    def forget(self, *words: str) -> None:
        """Drop answers to questions that hold one of ``words``: what they were about has changed."""
        for question in [item for item in self.known if any(word in item for word in words)]:
            del self.known[question]

    def settle(self, name: str, value: Any) -> None:
        """Take one thing as known from here on."""
        setattr(self, name, value)
        self.set_source(self.src, self.sport)
        self.set_destination(self.dst, self.dport)
        self.changed()

    def seen(self) -> Seen:
        """The pairs that a Step shows."""
        pairs = [("src", self.src_text), ("dst", self.dst_text), ("mark", f"{self.mark:#x}")]
        if self.iif:
            pairs.append(("in", self.iif))
        if self.out:
            pairs.append(("out", self.out))
        if self.ctmark:
            pairs.append(("ctmark", f"{self.ctmark:#x}"))
        return tuple(pairs)

    def changed(self) -> Seen:
        """Take a new view after a change; what it is now."""
        self.view = self.seen()
        return self.view


def text(address: Address | None, port: int | None) -> str:
    """``IP:PORT``; an address that is not known is said to be one of this host."""
    if address is not None:
        return socket_address(address, port)
    return "an address of this host" + ("" if port is None else f":{port}")
