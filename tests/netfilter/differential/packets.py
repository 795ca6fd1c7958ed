"""Packets at random, drawn from few addresses and ports so that rules drawn from the same ones meet them often.

Pure.  `Pool` holds what may come up; rules take their values from it too.
"""

from dataclasses import dataclass, replace
from random import Random

from differential.case import Probe
from kernel.flow import Flow

DPORTS = (22, 53, 80, 81, 443, 8080, 15001, 15006, 15008, 30080, 65535)
SPORTS = (1024, 33000, 50000)
UIDS = (0, 0, 1000, 1337)
GIDS = (0, 0, 1000, 1337)
MARKS = (0, 0, 0, 0x1, 0x20, 0x111, 0x539, 0x4000, 0x8001, 0xFFFFFFFF)
TCP_FLAGS = ("SYN", "SYN", "SYN", "SYN", "SYN,ACK", "RST", "RST,ACK", "FIN,PSH,URG", "SYN,FIN")


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses: ``near`` come in by which interface, ``far`` lie beyond, ``here`` are the device's own.

    ``odd`` are refused by routes, groups, broadcasts.
    """

    near: tuple[tuple[str, str], ...]
    far: tuple[str, ...]
    here: tuple[str, ...]
    odd: tuple[str, ...]
    loopback: str

    @property
    def addresses(self) -> tuple[str, ...]:
        return (*(address for address, _ in self.near), *self.far, *self.here, *self.odd, self.loopback)


POOLS = {
    4: Pool(
        near=(
            ("10.1.0.2", "in0"),
            ("10.1.0.3", "in0"),
            ("192.0.2.9", "in0"),
            ("10.2.0.2", "out0"),
            ("198.51.100.7", "out0"),
            ("10.3.0.5", "out1"),
        ),
        far=("10.2.0.2", "10.2.0.3", "10.3.0.5", "10.1.0.2", "203.0.113.9", "172.20.0.9"),
        here=("10.1.0.1", "10.2.0.1", "10.3.0.1", "10.2.0.9", "172.20.0.1"),
        odd=("203.0.113.130", "198.18.0.1", "198.18.1.1", "10.1.0.255", "224.0.0.1", "127.0.0.6"),
        loopback="127.0.0.1",
    ),
    6: Pool(
        near=(
            ("fd00:1::2", "in0"),
            ("fd00:1::3", "in0"),
            ("2001:db8::9", "in0"),
            ("fd00:2::2", "out0"),
            ("2001:db8:7::7", "out0"),
            ("fd00:3::5", "out1"),
        ),
        far=("fd00:2::2", "fd00:2::3", "fd00:3::5", "fd00:1::2", "2001:db8:1::9", "fd00:172::9"),
        here=("fd00:1::1", "fd00:2::1", "fd00:3::1", "fd00:2::9"),
        odd=("2001:db8:dead::1",),
        loopback="::1",
    ),
}


def is_for_many(address: str) -> bool:
    """Whether it is a group's or a broadcast address."""
    return address.startswith(("224.", "ff")) or address.endswith(".255")


def probe(random: Random, family: int, *, maps_owners: bool = True) -> Probe:
    """A packet, seldom an answer or one after it."""
    flow = _flow(random, family, maps_owners)
    plain = flow.tcp_flags == "SYN" and flow.icmp_type is None and flow.sport is None
    plain = plain and not is_for_many(flow.dst)  # nobody answers such a one, or somebody else
    chosen = random.random()
    if plain and chosen < 0.12:
        return Probe(flow, "established")
    if not plain or chosen >= 0.2:
        return Probe(flow)
    if flow.local:  # what the connection's source was cannot be read off its answer
        pool = POOLS[family]
        flow = replace(
            flow, src=pool.loopback if flow.dst.startswith(("127.", "::1")) else random.choice(pool.here[:3])
        )
    return Probe(flow, "reply")


def _flow(random: Random, family: int, maps_owners: bool) -> Flow:
    pool = POOLS[family]
    proto = random.choices(("tcp", "udp", "sctp", "icmp" if family == 4 else "icmpv6"), (48, 26, 11, 15))[0]
    dport = 0 if proto.startswith("icmp") else random.choice(DPORTS)
    kinds = (pool.far, pool.here, (*pool.odd, pool.loopback))
    if random.random() < 0.4:
        dst = random.choice(random.choices(kinds, (60, 25, 15))[0])
        if is_for_many(dst):
            dst = random.choice(pool.far)  # a socket may not send there unasked
        owner = (random.choice(UIDS), random.choice(GIDS)) if maps_owners else (None, None)
        flow = Flow(None, dst, dport, proto, local=True, uid=owner[0], gid=owner[1], mark=random.choice(MARKS))
        if random.random() < 0.25:
            flow = replace(flow, src=random.choice(pool.here[:3]))
        return flow
    src, iif = random.choice(pool.near)
    dst = random.choice(random.choices(kinds, (60, 32, 8))[0])
    if dst == "::1":  # gone before any hook where it comes by a cable
        dst = pool.here[0]
    flow = Flow(src, dst, dport, proto, iif=iif)
    if proto == "tcp":
        flow = replace(flow, tcp_flags=random.choice(TCP_FLAGS))
    elif proto.startswith("icmp") and random.random() < 0.3:
        flow = replace(flow, icmp_type=random.choice((13, 17, 8) if family == 4 else (128, 128, 144)))
    if proto != "tcp" and random.random() < 0.1 and not proto.startswith("icmp"):
        flow = replace(flow, sport=random.choice(SPORTS))
    return flow
