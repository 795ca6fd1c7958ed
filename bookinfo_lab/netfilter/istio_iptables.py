"""Istio's interception rules in a pod: settings in, iptables-save text out (IPv4, REDIRECT mode).

This is what istio-init or istio-cni writes into the *pod's* network namespace; a node's rules never show it.
Follows istio tools/istio-iptables/pkg/capture/run.go.  Not written: TPROXY, DNS capture, owner groups, virtual and
excluded interfaces.
"""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from bookinfo_lab.errors import LabError

from .rule_text import rule
from .tables import Table, format_save, table

Ports = tuple[int, ...] | Literal["*"]
Cidrs = tuple[str, ...] | Literal["*"]

_LOOPBACK = "127.0.0.1/32"


@dataclass(frozen=True, slots=True)
class Settings:
    """istio-iptables' settings; ports, CIDRs and defaults are those that the sidecar injector passes.

    ``owner`` says how the proxy's own packets are told from the application's.  ``uid`` is Istio's way: ``-m owner``
    with ``proxy_uid``, then the same again with ``proxy_gid``.  ``mark`` is for a machine that can map one user id
    only, where the owner match is refused: the proxy sets ``proxy_mark`` on its sockets (SO_MARK), and each uid match
    becomes ``-m mark --mark``.  The gid rules then fall away: with a mark they would repeat the very same tests.
    Raises `LabError` for a number that is not a port, or a CIDR that is not IPv4.
    """

    proxy_uid: int = 1337
    proxy_gid: int = 1337
    owner: Literal["uid", "mark"] = "uid"
    proxy_mark: int = 0x539
    outbound_port: int = 15001
    inbound_port: int = 15006
    tunnel_port: int = 15008
    inbound_include: Ports = "*"
    inbound_exclude: tuple[int, ...] = (15090, 15021, 15020)
    outbound_ports_include: tuple[int, ...] = ()
    outbound_ports_exclude: tuple[int, ...] = ()
    outbound_cidrs_include: Cidrs = "*"
    outbound_cidrs_exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.owner not in ("uid", "mark"):
            raise LabError(f"{self.owner!r} is not a way to know the proxy's packets; use 'uid' or 'mark'")
        if not 0 < self.proxy_mark < 2**32:
            raise LabError(f"the proxy's mark {self.proxy_mark} is not a 32-bit mark other than 0")
        for number in (
            self.outbound_port,
            self.inbound_port,
            self.tunnel_port,
            *(self.inbound_include if self.inbound_include != "*" else ()),
            *self.inbound_exclude,
            *self.outbound_ports_include,
            *self.outbound_ports_exclude,
        ):
            if not 0 < number <= 65535:
                raise LabError(f"{number!r} is not a port; give numbers from 1 to 65535")
        included = self.outbound_cidrs_include if self.outbound_cidrs_include != "*" else ()
        for cidr in (*included, *self.outbound_cidrs_exclude):
            _network(cidr)


def rules(settings: Settings) -> str:
    """The pod's rules in the form of iptables-save: table nat, which iptables-restore loads as it stands."""
    return format_save(tables(settings))


def tables(settings: Settings) -> tuple[Table, ...]:
    """The same as tables."""
    intercepts = settings.inbound_include == "*" or bool(settings.inbound_include)
    return (
        table(
            "nat",
            {
                "PREROUTING": [rule("ISTIO_INBOUND", protocol="tcp")] if intercepts else [],
                "OUTPUT": [rule("ISTIO_OUTPUT")],
                "ISTIO_INBOUND": _inbound(settings),
                "ISTIO_IN_REDIRECT": [rule(f"REDIRECT --to-ports {settings.inbound_port}", protocol="tcp")],
                "ISTIO_OUTPUT": _outbound(settings),
                "ISTIO_REDIRECT": [rule(f"REDIRECT --to-ports {settings.outbound_port}", protocol="tcp")],
            },
        ),
    )


def _inbound(settings: Settings) -> list[str]:
    written = [_port(settings.tunnel_port, "RETURN")]
    if settings.inbound_include == "*":
        written += [_port(number, "RETURN") for number in settings.inbound_exclude]
        written.append(rule("ISTIO_IN_REDIRECT", protocol="tcp"))
    else:
        written += [_port(number, "ISTIO_IN_REDIRECT") for number in settings.inbound_include]
    return written


def _outbound(settings: Settings) -> list[str]:
    included = settings.outbound_cidrs_include
    written = []
    for number in settings.outbound_ports_exclude:
        written += [_port(number, "RETURN"), _port(number, "RETURN", "udp")]
    # The source of what the proxy passes on to the application when it has no cluster for it.
    written.append(rule("RETURN", source="127.0.0.6/32", out="lo"))
    to_loopback = included != "*" and any(_network(cidr).network_address.is_loopback for cidr in included)
    for positive, negative in _owners(settings):
        tunnel = f"tcp ! --dport {settings.tunnel_port}"
        written.append(
            rule("ISTIO_IN_REDIRECT", not_destination=_LOOPBACK, out="lo", protocol="tcp", matches=(tunnel, positive))
        )
        if not to_loopback:
            written.append(rule("RETURN", out="lo", matches=(negative,)))
        written.append(rule("RETURN", matches=(positive,)))
    written.append(rule("RETURN", destination=_LOOPBACK))
    written += [rule("RETURN", **_to(cidr)) for cidr in settings.outbound_cidrs_exclude]
    written += [_port(number, "ISTIO_REDIRECT") for number in settings.outbound_ports_include]
    if included == "*":
        written.append(rule("ISTIO_REDIRECT"))
    else:
        written += [rule("ISTIO_REDIRECT", **_to(cidr)) for cidr in included]
    return written


def _owners(settings: Settings) -> tuple[tuple[str, str], ...]:
    if settings.owner == "mark":
        return ((f"mark --mark {settings.proxy_mark:#x}", f"mark ! --mark {settings.proxy_mark:#x}"),)
    return tuple(
        (f"owner --{kind}-owner {number}", f"owner ! --{kind}-owner {number}")
        for kind, number in (("uid", settings.proxy_uid), ("gid", settings.proxy_gid))
    )


def _port(number: int, target: str, protocol: str = "tcp") -> str:
    return rule(target, protocol=protocol, matches=(f"{protocol} --dport {number}",))


def _to(cidr: str) -> dict[str, str]:
    # iptables-save does not print a destination that is everywhere.
    network = _network(cidr)
    return {"destination": str(network)} if network.prefixlen else {}


def _network(cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr, strict=False)
    except ValueError as reason:
        raise LabError(f"{reason}; give an IPv4 range such as 10.96.0.0/16") from None
