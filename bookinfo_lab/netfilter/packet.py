"""The packet that a walk is about: what a learner can say of one packet before it meets any rule.

Pure.  Addresses come as text or as `ipaddress` objects and are kept as the latter.
"""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.fields import Address

ConnectionState = Literal["new", "established", "related", "invalid", "untracked"]
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "udplite": 136, "dccp": 33}
_WITH_PORTS = ("tcp", "udp", "sctp", "udplite", "dccp")
_STATES = ("new", "established", "related", "invalid", "untracked")


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of one connection's original direction.

    ``sport`` None means any; ``dport`` is needed where the protocol has ports.  It comes in by the interface ``iif``
    (None: one that is not known) or, with ``local``, from a process here with ``uid`` and ``gid`` (None: not known).
    ``mark`` is what it carries when it comes.  ``ct_state`` is what connection tracking says of it: ``new`` for a
    connection's first packet, ``established`` for one after the answer.  ``icmp_type`` and ``icmp_code`` are 8 and 0
    (an echo request) unless given; ICMPv6's is 128.  Raises `LabError` for what cannot be.
    """

    src: Address
    sport: int | None
    dst: Address
    dport: int | None
    proto: str = "tcp"
    iif: str | None = None
    local: bool = False
    uid: int | None = None
    gid: int | None = None
    mark: int = 0
    ct_state: ConnectionState = "new"
    icmp_type: int | None = None
    icmp_code: int = 0

    def __post_init__(self) -> None:
        for name in ("src", "dst"):
            object.__setattr__(self, name, _address(getattr(self, name)))
        if self.src.version != self.dst.version:
            raise LabError(f"{self.src} and {self.dst} are of different IP versions: give two of one")
        if self.proto not in PROTOCOLS:
            raise LabError(f"{self.proto!r} is no protocol that is walked; there are: {', '.join(PROTOCOLS)}")
        if (self.proto == "icmp" and self.src.version == 6) or (self.proto == "icmpv6" and self.src.version == 4):
            raise LabError(f"{self.proto} does not go from {self.src} to {self.dst}: it is of the other IP version")
        if self.has_ports and self.dport is None:
            raise LabError(f"a {self.proto} packet goes to a port: give one, such as {self.dst}:80")
        for port in (self.sport, self.dport):
            if port is not None and not 0 <= port <= 65535:
                raise LabError(f"{port} is not a port; give a number from 0 to 65535")
        if not self.has_ports and (self.sport is not None or self.dport is not None):
            raise LabError(f"{self.proto} has no ports: give the addresses alone")
        for name in ("mark", "uid", "gid"):
            number = getattr(self, name)
            if number is not None and not 0 <= number < 2**32:
                raise LabError(f"{name} {number} is not a number of 32 bits")
        if self.local and self.iif is not None:
            raise LabError("a packet comes in by an interface or from a process here, not both")
        if not self.local and (self.uid is not None or self.gid is not None):
            raise LabError("only a packet from a process here has a uid or gid: say that it is local")
        if self.ct_state not in _STATES:
            raise LabError(f"{self.ct_state!r} is no connection state; there are: {', '.join(_STATES)}")
        if self.icmp_type is None and not self.has_ports:
            object.__setattr__(self, "icmp_type", 8 if self.proto == "icmp" else 128)

    @property
    def has_ports(self) -> bool:
        """Whether its protocol has ports."""
        return self.proto in _WITH_PORTS

    def __str__(self) -> str:
        source, destination = socket_address(self.src, self.sport), socket_address(self.dst, self.dport)
        if self.local:
            who = [f"uid {self.uid}"] * (self.uid is not None) + [f"gid {self.gid}"] * (self.gid is not None)
            origin = "from a process here" + (f" ({', '.join(who)})" if who else "")
        else:
            origin = f"in by {self.iif}" if self.iif else "from outside"
        marked = f", mark {self.mark:#x}" if self.mark else ""
        return f"{self.ct_state} {self.proto} {source} → {destination}, {origin}{marked}"


def socket_address(address: Address, port: int | None) -> str:
    """``IP:PORT``, ``[IP]:PORT`` in IPv6, the IP alone where the port is None."""
    if port is None:
        return str(address)
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _address(given: object) -> Address:
    try:
        return ipaddress.ip_address(given)  # type: ignore[arg-type]
    except ValueError:
        raise LabError(f"{given!r} is not an IP address") from None
