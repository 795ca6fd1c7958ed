"""Routing as the kernel decides it: whose an address is, by which interface a packet leaves, with which address.

Pure.  `Facts` come in.  None means that the facts do not say.  Follows ip-rule(8), ip-route(8) and, for the address
that MASQUERADE takes, inet_select_addr in the kernel's net/ipv4/devinet.c.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from bookinfo_lab.kube.fields import Address

from .facts import Facts, InterfaceAddress, Route, RoutingRule

_LIMITED_BROADCAST = ipaddress.ip_address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Way:
    """Where routing sends a packet: ``kind`` as of a `Route`, or ``none`` where no route fits."""

    kind: str
    interface: str
    via: Address | None = None


def address_kind(facts: Facts | None, address: Address) -> str | None:
    """LOCAL, BROADCAST, MULTICAST or UNICAST, as ``-m addrtype`` calls them."""
    if address.is_multicast:
        return "MULTICAST"
    if address.is_loopback:
        return "LOCAL"
    if address.version == 4 and (address == _LIMITED_BROADCAST or int(address) >> 24 == 0):
        return "BROADCAST"
    if facts is None or not facts.knows_addresses:
        return None
    if address in facts.owned:
        return "LOCAL"
    for item in facts.addresses or ():
        if item.address == address:
            return "LOCAL"
    for item in facts.addresses or ():
        network = item.network
        ends = (network.broadcast_address, network.network_address)
        if network.version == 4 and network.prefixlen < 31 and address in ends:
            return "BROADCAST"
    for route in facts.routes or ():
        if route.table == "local" and route.network.version == address.version and address in route.network:
            return route.kind.upper() if route.kind in ("local", "broadcast") else "UNICAST"
    return "UNICAST"


def way(facts: Facts | None, source: Address, destination: Address, mark: int, iif: str) -> Way | None:
    """Where a packet with these addresses and mark goes; ``iif`` is "lo" for one that a process here sends."""
    if facts is None or facts.routes is None:
        return None
    for rule in facts.rules:
        if _applies(rule, source, destination, mark, iif):
            found = _lookup(facts, rule.table, destination)
            if found is not None:
                return Way(found.kind, found.interface, found.via)
    return Way("none", "")


def _applies(rule: RoutingRule, source: Address, destination: Address, mark: int, iif: str) -> bool:
    fits = (
        (rule.source is None or (rule.source.version == source.version and source in rule.source))
        and (
            rule.destination is None or (rule.destination.version == source.version and destination in rule.destination)
        )
        and (rule.mark is None or mark & rule.mark.mask == rule.mark.value)
        and (rule.interface is None or rule.interface == iif)
    )
    return fits != rule.is_negated


def _lookup(facts: Facts, table: str, destination: Address) -> Route | None:
    routes = [
        route
        for route in facts.routes or ()
        if route.table == table and route.network.version == destination.version and destination in route.network
    ]
    if table == "local" and not routes and address_kind(facts, destination) in ("LOCAL", "BROADCAST"):
        kind = "local" if address_kind(facts, destination) == "LOCAL" else "broadcast"
        return Route("local", kind, ipaddress.ip_network(destination), "lo", None, None, 0)
    return min(routes, key=lambda route: (-route.network.prefixlen, route.metric), default=None)


def masquerade_address(
    facts: Facts | None, interface: str, destination: Address, via: Address | None
) -> Address | None:
    """The address that MASQUERADE gives a packet that leaves by ``interface``."""
    if facts is None or facts.addresses is None or not interface:
        return None
    if destination.version == 6:
        return _source6(facts.addresses, interface, destination)
    towards = via or destination
    all_global = [item for item in facts.addresses if item.is_global and item.address.version == destination.version]
    own = [item for item in all_global if item.interface == interface]
    fitting = [item for item in own if towards in item.network]
    found = fitting or own or all_global
    return found[0].address if found else None


def _source6(addresses: Sequence[InterfaceAddress], interface: str, destination: Address) -> Address | None:
    """The source that RFC 6724 chooses, by those of its rules on which two addresses of one host can differ."""

    def rank(item: InterfaceAddress) -> tuple[bool, bool, bool, int]:
        differing = (int(item.address) ^ int(destination)).bit_length()
        common = min(128 - differing, item.network.prefixlen)
        same_label = _label(item.address) == _label(destination)
        return item.address == destination, item.interface == interface, same_label, common

    own = [item for item in addresses if item.address.version == 6]
    found = [item for item in own if item.is_global or item.address == destination]
    return max(found, key=rank).address if found else None


_LABELS = [  # net/ipv6/addrlabel.c, the longest prefix first
    (ipaddress.ip_network(text), number)
    for text, number in (("2001:10::/28", 7), ("2001::/32", 6), ("2002::/16", 2), ("fc00::/7", 5), ("::/0", 1))
]


def _label(address: Address) -> int:
    return next(number for network, number in _LABELS if address in network)


def redirect_address(facts: Facts | None, interface: str, version: int) -> Address | None:
    """The address that REDIRECT gives a packet that came in by ``interface``: its first."""
    for item in (facts.addresses if facts else None) or ():
        if item.interface == interface and item.address.version == version:
            return item.address
    return None


def sysctl(facts: Facts | None, name: str) -> int | None:
    """A sysctl's number."""
    if facts is None or facts.sysctls is None or name not in facts.sysctls:
        return None
    value = facts.sysctls[name].split()
    return int(value[0]) if value and value[0].lstrip("-").isdigit() else None
