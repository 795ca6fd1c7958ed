"""What a condition or target at random is drawn for, and the values that come up: mostly the packets' own.

Pure.  A condition that never holds tests little, so addresses, ports and marks come from the pool that packets are
drawn from.
"""

from dataclasses import dataclass
from random import Random

from differential.packets import DPORTS, MARKS, POOLS, SPORTS

IN_HOOKS = frozenset({"PREROUTING", "INPUT", "FORWARD"})
OUT_HOOKS = frozenset({"FORWARD", "OUTPUT", "POSTROUTING"})
SOCKET_HOOKS = frozenset({"OUTPUT", "POSTROUTING"})
ALL_HOOKS = IN_HOOKS | OUT_HOOKS
PORT_PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class Draw:
    """What a condition or target is drawn for."""

    random: Random
    family: int
    proto: str
    maps_owners: bool = True
    doubt: float = 0.3  # how many conditions are negated
    flags: float = 0.12  # how many targets have an option such as --random

    def one(self, *choices: str) -> str:
        return self.random.choice(choices)

    def negation(self) -> str:
        return "! " if self.random.random() < self.doubt else ""

    def address(self) -> str:
        return self.random.choice(POOLS[self.family].addresses)

    def network(self) -> str:
        width = 32 if self.family == 4 else 128
        lengths = (32, 32, 24, 16, 9, 8, 1) if self.family == 4 else (128, 128, 64, 48, 33, 16, 3)
        length = self.random.choice(lengths)
        if self.family == 4 and self.random.random() < 0.06:
            return f"{self.address()}/{self.one('255.0.255.0', '255.255.0.255', '0.0.0.1')}"
        return self.address() if length == width else f"{self.address()}/{length}"

    def port(self) -> int:
        return self.random.choice(DPORTS if self.random.random() < 0.85 else SPORTS)

    def ports(self, between: str = ":") -> str:
        first = self.port()
        kind = self.random.random()
        if kind < 0.6:
            return str(first)
        other = self.random.choice((first, first + self.random.randint(0, 400), self.port()))
        low, high = sorted((first, min(other, 65535)))
        if between == ":" and kind > 0.92 and high < 65535:  # iptables-nft 1.8.9 loses the ! of a range that is all
            return f"{low}:" if self.random.random() < 0.5 else f":{high}"
        return f"{low}{between}{high}"

    def source_port(self) -> str:
        if self.random.random() < 0.5:
            return self.one("1024:", ":32767", "20000:59999", "30000:40000", "33000", "50000")
        return self.ports()

    def mark(self) -> str:
        value = self.random.choice(MARKS)
        kind = self.random.random()
        if kind < 0.35:
            return f"{value:#x}"
        mask = self.random.choice((value, 0xFFF, 0x4000, 0x1, 0xFF, 0xFFFF0000, 0xFFFFFFFF, 0x0))
        return f"{value & mask if kind < 0.9 else value:#x}/{mask:#x}"
