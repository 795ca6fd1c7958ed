"""What a network namespace is besides its rules: addresses, routes, routing rules, sysctls.

Pure.  The JSON that ``ip -j`` prints and the lines of ``grep -r . /proc/sys/…`` come in.  Whatever was not given stays
None: not known, which is not the same as none.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bookinfo_lab.errors import LabError, ParseError
from bookinfo_lab.kube.fields import Address, Network

from .values import Masked

_TABLES = {"255": "local", "254": "main", "253": "default"}


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface; ``is_global`` False where its scope is a link or this host."""

    interface: str
    address: Address
    network: Network
    is_global: bool


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a table: ``kind`` is unicast, local, broadcast, blackhole, unreachable, prohibit and so on."""

    table: str
    kind: str
    network: Network
    interface: str
    via: Address | None
    source: Address | None
    metric: int


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A routing rule (``ip rule``): which table is asked for packets like this; None asks nothing of a field."""

    priority: int
    table: str
    source: Network | None = None
    destination: Network | None = None
    mark: Masked | None = None
    interface: str | None = None
    is_negated: bool = False


DEFAULT_RULES = (RoutingRule(0, "local"), RoutingRule(32766, "main"), RoutingRule(32767, "default"))


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one network namespace; None is not known.

    ``sysctls`` maps names such as ``net.ipv4.ip_forward`` to values.  ``out`` is an interface by which packets leave,
    said outright where no routes are known.  ``bridges`` are the interfaces that others are ports of.  ``place`` names
    the namespace as a lab does, "" for none of a lab's.  ``other_tables`` are nftables tables that decide beside those
    that iptables-save shows (`nft_tables`), None where nobody looked; ``unread_tables`` are words for those that nobody
    could look at, "" for none.
    """

    addresses: tuple[InterfaceAddress, ...] | None = None
    routes: tuple[Route, ...] | None = None
    rules: tuple[RoutingRule, ...] = DEFAULT_RULES
    sysctls: Mapping[str, str] | None = None
    out: str | None = None
    owned: frozenset[Address] = field(default=frozenset())  # addresses of this host whose interface is not known
    bridges: frozenset[str] | None = None
    place: str = ""
    other_tables: tuple[str, ...] | None = None
    unread_tables: str = ""

    @property
    def knows_addresses(self) -> bool:
        """Whether it can be told which addresses are this host's."""
        return (
            self.addresses is not None or bool(self.owned) or any(item.table == "local" for item in self.routes or ())
        )


def facts(addresses: str = "", routes: str = "", rules: str = "", sysctls: str = "", **others: Any) -> Facts:
    """Facts from the text of ``ip -j addr``, ``ip -j route [show table all]``, ``ip -j rule`` and ``grep -r``.

    What is "" is not known.  Raises `ParseError` for text that is not of the form.
    """
    links = _json(addresses, "ip -j addr") if addresses else None
    if links is not None:
        others.setdefault("bridges", frozenset(str(item["master"]) for item in links if "master" in item))
    return Facts(
        tuple(_addresses(links)) if links is not None else None,
        tuple(_route(item) for item in _json(routes, "ip -j route") if item.get("dst")) if routes else None,
        tuple(_rule(item) for item in _json(rules, "ip -j rule")) if rules else DEFAULT_RULES,
        _sysctls(sysctls) if sysctls else None,
        **others,
    )


def _json(text: str, source: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ParseError(source, getattr(error, "lineno", 1), text[:80], "this is not JSON") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ParseError(source, 1, text[:80], "a list of objects was expected")
    return [item for item in found if item]


def _addresses(found: list[dict[str, Any]]) -> list[InterfaceAddress]:
    made = []
    for item in found:
        for entry in item.get("addr_info", ()):
            if not entry.get("local"):
                continue
            given = ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}")
            made.append(InterfaceAddress(item["ifname"], given.ip, given.network, entry.get("scope") == "global"))
    return made


def _route(item: Mapping[str, Any]) -> Route:
    try:
        destination = item["dst"]
        # Only IPv6 routes have a preference; a default route may name no address at all.
        texts = [str(item.get(name, "")) for name in ("dst", "gateway", "prefsrc")]
        version = 6 if "pref" in item or ":" in "".join(texts) else 4
        if destination == "default":
            destination = "::/0" if version == 6 else "0.0.0.0/0"
        table = str(item.get("table", "main"))
        return Route(
            _TABLES.get(table, table),
            item.get("type", "unicast"),
            ipaddress.ip_network(destination, strict=False),
            item.get("dev", ""),
            ipaddress.ip_address(item["gateway"]) if "gateway" in item else None,
            ipaddress.ip_address(item["prefsrc"]) if "prefsrc" in item else None,
            int(item.get("metric", 0)),
        )
    except (KeyError, ValueError) as error:
        raise LabError(f"ip -j route: {json.dumps(dict(item))[:80]} is no route: {error}") from None


def _rule(item: Mapping[str, Any]) -> RoutingRule:
    try:
        mark = None
        if "fwmark" in item:
            mark = Masked(int(str(item["fwmark"]), 0), int(str(item.get("fwmask", "0xffffffff")), 0))
        table = str(item.get("table", "main"))
        return RoutingRule(
            int(item.get("priority", 0)),
            _TABLES.get(table, table),
            _network(item, "src", "srclen"),
            _network(item, "dst", "dstlen"),
            mark,
            item.get("iif"),
            "not" in item,
        )
    except ValueError as error:
        raise LabError(f"ip -j rule: {json.dumps(dict(item))[:80]} is no rule: {error}") from None


def _network(item: Mapping[str, Any], name: str, length: str) -> Network | None:
    if item.get(name, "all") == "all":
        return None
    suffix = f"/{item[length]}" if length in item else ""
    return ipaddress.ip_network(f"{item[name]}{suffix}", strict=False)


def _sysctls(text: str) -> dict[str, str]:
    found = re.findall(r"^/proc/sys/([^:\n]+):(.*)$", text, re.MULTILINE)
    return {name.replace("/", "."): value.strip() for name, value in found}
