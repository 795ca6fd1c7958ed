"""What stands in a chain in place of rules that a recording left out: rules whose target no kernel has.

Pure.  Whatever packet a rule that went would have met, a remark meets too, and a walk ends there as unknown.  Remarks
are wide, so they tell nothing of the others and stay the same when others come and go; left free of them is only what
recorded Services answer for further on (`Taken`), unless a rule that went meets just that.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bookinfo_lab.sources import base
from bookinfo_lab.sources.cluster.scope import Scope

TARGET = "NOT-RECORDED"
COMMENT = re.compile(r'(--comment )("(?:[^"\\]|\\.)*"|\S+)')
_LEFT_OUT = "left out of the recording: rules of other Services"
_NODE_PORTS = (base.NODE_PORTS.start, base.NODE_PORTS.stop - 1)
_ALL_PORTS = (1, 65535)
_PROTOCOLS = ("tcp", "udp", "sctp")  # a Service's
_DESTINATION = re.compile(r"( !)? -d (\S+)")
_PROTOCOL = re.compile(r"( !)? -p (\S+)")
_PORT = re.compile(r"( !)? --dport (\d+)(?::(\d+))?(?=\s|\Z)")

Network: TypeAlias = Any  # ipaddress has no type for either version that knows what both have
Port = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule asks of a packet's destination: None and "" where it asks nothing, or what is not read here.

    So a packet that the rule meets is met by this too, and maybe others are.
    """

    network: Network | None
    protocol: str
    ports: tuple[int, int] | None

    @property
    def is_host(self) -> bool:
        """Whether the destination is one address."""
        return self.network is not None and self.network.num_addresses == 1

    @property
    def is_exact(self) -> bool:
        """Whether it is one port of one address."""
        return self.is_host and self.has_port

    @property
    def has_port(self) -> bool:
        """Whether it is one port."""
        return self.protocol in _PROTOCOLS and self.ports is not None and self.ports[0] == self.ports[1]

    @property
    def is_node_port(self) -> bool:
        """Whether all its ports are from the range for node ports."""
        return self.ports is not None and all(port in base.NODE_PORTS for port in self.ports)

    def covers(self, address: str) -> bool:
        """Whether packets to the address may be met."""
        return self.network is None or _is_in(address, self.network)

    def takes(self, port: Port) -> bool:
        """Whether packets to the port may be met."""
        if self.protocol not in ("", port[0]):
            return False
        return self.ports is None or self.ports[0] <= port[1] <= self.ports[1]

    def overlaps(self, other: "Match") -> bool:
        """Whether a packet may be met by both."""
        if self.protocol and other.protocol and self.protocol != other.protocol:
            return False
        if self.ports and other.ports and max(self.ports[0], other.ports[0]) > min(self.ports[1], other.ports[1]):
            return False
        one, two = self.network, other.network
        return one is None or two is None or (one.version == two.version and one.overlaps(two))


def match(line: str) -> Match:
    """What the rule of a line of iptables-save asks."""
    bare = COMMENT.sub("", line)
    destination, protocol, port = (pattern.search(bare) for pattern in (_DESTINATION, _PROTOCOL, _PORT))
    return Match(
        _network(destination[2]) if destination and not destination[1] else None,
        protocol[2] if protocol and not protocol[1] and protocol[2] != "all" else "",
        (int(port[2]), int(port[3] or port[2])) if port and not port[1] else None,
    )


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Taken:
    """What recorded Services answer for although no rule of the same chain does: ports by address, and of any address.

    ``others`` are the addresses that no wide remark may hold.
    """

    addresses: Mapping[str, frozenset[Port]]
    ports: frozenset[Port]
    others: tuple[Any, ...]


def taken(refusals: Iterable[str], scope: Scope) -> Taken:
    """What ``refusals`` ask, rules for what is refused further on; the node ports; of nodes the endpoints there."""
    addresses: dict[str, set[Port]] = {
        node: {(name, port) for name in _PROTOCOLS for port in _ports_of(node, scope)} for node in scope.nodes
    }
    ports: set[Port] = {(name, port) for name in _PROTOCOLS for port in scope.node_ports}
    for found in map(match, refusals):
        there = {(found.protocol, found.ports[0])} if found.ports and found.has_port else set[Port]()
        if found.network is None:
            ports |= there
        elif found.is_host:
            addresses.setdefault(str(found.network.network_address), set()).update(there)
    others = {*scope.pods, *scope.nodes, *(address for address, _ in scope.endpoints)}
    return Taken(
        {address: frozenset(item) for address, item in addresses.items()},
        frozenset(ports),
        tuple(map(ipaddress.ip_address, sorted(others))),
    )


def _ports_of(node: str, scope: Scope) -> set[int]:
    return {*scope.node_ports, *(port for address, port in scope.endpoints if address == node)}


def remarks(chain: str, gone: Sequence[Match], here: Taken) -> list[str]:
    """Rules that meet whatever the rules that went do: a network for addresses, a range for ports."""
    return [_remark(chain, span) for span in dict.fromkeys(_spans(gone, here))]


def in_place(chain: str, gone: Match, behind: Collection[Match], here: Taken) -> list[str]:
    """The same where one rule stood; none where no rule ``behind`` it, which stays, meets what it met.

    Where that is one at the very same socket it is said exactly: the socket is a recorded Service's.
    """
    met = [item for item in behind if item.overlaps(gone)]
    if met and gone.is_exact and all(item == gone for item in met):
        port = next(_matches((gone.protocol,), (), gone.ports or _ALL_PORTS))
        return [_remark(chain, f"-d {gone.network} {port}")]
    return remarks(chain, [gone], here) if met else []


def _remark(chain: str, span: str) -> str:
    return f'-A {chain} {span}-m comment --comment "{_LEFT_OUT}" -j {TARGET}\n'


def _spans(gone: Sequence[Match], here: Taken) -> Iterator[str]:
    done: list[Network] = []
    different = dict.fromkeys(gone)
    of_any = [item for item in different if not item.is_host]
    free = [port for port in here.ports if not any(item.takes(port) for item in of_any)]
    hosts = dict.fromkeys(item.network for item in different if item.network is not None and item.is_host)
    for network in hosts:
        if not any(_is_in(str(network.network_address), other) for other in done):
            done.append(_around(network.network_address, here.others))
            yield from _at(done[-1], list(different), here)
    known = [item for item in of_any if item.protocol in _PROTOCOLS and item.ports is not None]
    for protocol, is_node_port in dict.fromkeys((item.protocol, item.is_node_port) for item in known):
        yield from _matches((protocol,), free, _NODE_PORTS if is_node_port else _ALL_PORTS)
    if len(known) < len(of_any):
        yield ""


def _at(network: Network, gone: Sequence[Match], here: Taken) -> Iterator[str]:
    """Matches for a network but for what is taken at the addresses in it."""
    inside = [address for address in here.addresses if _is_in(address, network)]
    yield from (f"-d {part} " for part in _without(network, inside))
    for address in inside:
        there = [item for item in gone if item.covers(address)]
        known = [item for item in there if item.protocol in _PROTOCOLS and item.ports is not None]
        free = [port for port in here.addresses[address] if not any(item.takes(port) for item in there)]
        spans = _matches(_PROTOCOLS, free, _ALL_PORTS) if len(known) == len(there) else [""]
        yield from (f"-d {ipaddress.ip_network(address)} {span}" for span in spans)


def _without(network: Network, addresses: Iterable[str]) -> Iterator[Network]:
    """The networks that make up this one but for these addresses."""
    parts = [network]
    for address in map(ipaddress.ip_network, addresses):
        hit = next((part for part in parts if _is_in(str(address), part)), None)
        if hit is not None:
            parts.remove(hit)
            parts += hit.address_exclude(address)
    yield from sorted(parts)


def _is_in(address: str, network: Network) -> bool:
    found = ipaddress.ip_network(address)
    return bool(found.version == network.version and found.subnet_of(network))


def _matches(protocols: Iterable[str], free: Collection[Port], ports: tuple[int, int]) -> Iterator[str]:
    """Matches for every port in the range of the protocols but those that are to be free."""
    for protocol in protocols:
        for item in _ranges(*ports, {number for name, number in free if name == protocol}):
            yield f"-p {protocol} -m {protocol} --dport {item} "


def _ranges(first: int, last: int, free: Iterable[int]) -> Iterator[str]:
    for number in sorted(item for item in free if first <= item <= last):
        if first < number:
            yield f"{first}:{number - 1}"
        first = number + 1
    if first <= last:
        yield f"{first}:{last}" if first < last else str(first)


def _around(address: Any, others: Iterable[Any]) -> Network:
    """A network of many addresses around one, in which no other is: their packets go by."""
    others = [item for item in others if item.version == address.version]
    networks = (
        ipaddress.ip_network(f"{address}/{length}", strict=False)
        for length in (range(16, 32) if address.version == 4 else range(64, 128))
    )
    return next(
        (item for item in networks if not any(other in item for other in others)), ipaddress.ip_network(address)
    )
