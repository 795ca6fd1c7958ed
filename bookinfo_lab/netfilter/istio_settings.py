"""What istio-iptables is told: whose packets are intercepted, and where they are sent.

Pure.  Ports, CIDRs and defaults are those that the sidecar injector passes (istio tools/common/config).  A value that
istio-iptables or the kernel would refuse is refused here, by itself, before a rule is written.
"""

import ipaddress
from dataclasses import dataclass
from typing import Literal, TypeVar

from bookinfo_lab.errors import LabError

Ports = tuple[int, ...] | Literal["*"]
Cidrs = tuple[str, ...] | Literal["*"]
Groups = tuple[int, ...] | Literal["*"]
_Item = TypeVar("_Item", int, str)


@dataclass(frozen=True, slots=True)
class Settings:
    """istio-iptables' settings for IPv4.

    ``owner`` says how the proxy's own packets are told from the application's.  ``uid`` is Istio's way: ``-m owner``
    with ``proxy_uid``, then the same again with ``proxy_gid``.  ``mark`` is for a machine that can map one user id
    only, where the owner match is refused: the proxy sets ``proxy_mark`` on its sockets (SO_MARK), and each uid match
    becomes ``-m mark --mark``.  The gid rules then fall away: with a mark they would repeat the very same tests.

    ``mode`` TPROXY intercepts what comes in with TPROXY and ``tproxy_mark``, and keeps its source address.
    ``dns_servers`` are the resolvers to which lookups are captured, ``*`` whoever is asked, empty where DNS is not
    captured.  What comes in by a virtual interface (a virtual machine's) counts as sent by the pod; what comes or goes
    by an excluded one is left alone.  ``outbound_groups_exclude`` counts only where all groups are included.

    Raises `LabError` for a number that is not a port, a CIDR that is not IPv4, and ``mark`` with what cannot do
    without the owner match: TPROXY, DNS capture, groups.
    """

    proxy_uid: int = 1337
    proxy_gid: int = 1337
    owner: Literal["uid", "mark"] = "uid"
    proxy_mark: int = 0x539
    mode: Literal["REDIRECT", "TPROXY"] = "REDIRECT"
    tproxy_mark: int = 0x539
    outbound_port: int = 15001
    inbound_port: int = 15006
    tunnel_port: int = 15008
    inbound_include: Ports = "*"
    inbound_exclude: tuple[int, ...] = (15090, 15021, 15020)
    outbound_ports_include: tuple[int, ...] = ()
    outbound_ports_exclude: tuple[int, ...] = ()
    outbound_cidrs_include: Cidrs = "*"
    outbound_cidrs_exclude: tuple[str, ...] = ()
    outbound_groups_include: Groups = "*"
    outbound_groups_exclude: tuple[int, ...] = ()
    dns_servers: tuple[str, ...] | Literal["*"] = ()
    virtual_interfaces: tuple[str, ...] = ()
    excluded_interfaces: tuple[str, ...] = ()
    drop_invalid: bool = False
    loopback: str = "127.0.0.1/32"

    def __post_init__(self) -> None:
        if self.owner not in ("uid", "mark"):
            raise LabError(f"{self.owner!r} is not a way to know the proxy's packets; use 'uid' or 'mark'")
        if self.mode not in ("REDIRECT", "TPROXY"):
            raise LabError(f"{self.mode!r} is not a mode of interception; use 'REDIRECT' or 'TPROXY'")
        by_owner = self.mode == "TPROXY" or self.dns_servers or self.outbound_groups_include != "*"
        if self.owner == "mark" and (by_owner or self.outbound_groups_exclude):
            raise LabError("TPROXY, DNS capture and groups need the owner match: know the proxy by its 'uid'")
        for name, mark in (("the proxy's mark", self.proxy_mark), ("TPROXY's mark", self.tproxy_mark)):
            if not 0 < mark < 2**32:
                raise LabError(f"{name} {mark} is not a 32-bit mark other than 0")
        for number in (
            self.outbound_port,
            self.inbound_port,
            self.tunnel_port,
            *_listed(self.inbound_include),
            *self.inbound_exclude,
            *self.outbound_ports_include,
            *self.outbound_ports_exclude,
        ):
            if not 0 < number <= 65535:
                raise LabError(f"{number!r} is not a port; give numbers from 1 to 65535")
        for cidr in (
            *_listed(self.outbound_cidrs_include),
            *self.outbound_cidrs_exclude,
            *_listed(self.dns_servers),
            self.loopback,
        ):
            network(cidr)

    @property
    def includes_loopback(self) -> bool:
        """Whether a range of loopback is among those whose packets are intercepted."""
        return any(network(cidr).network_address.is_loopback for cidr in _listed(self.outbound_cidrs_include))


def _listed(given: tuple[_Item, ...] | Literal["*"]) -> tuple[_Item, ...]:
    return () if given == "*" else given


def network(cidr: str) -> ipaddress.IPv4Network:
    """The IPv4 range that ``cidr`` is in; a lone address is a range of one.  LabError for what is none."""
    try:
        return ipaddress.IPv4Network(cidr, strict=False)
    except ValueError as reason:
        raise LabError(f"{reason}; give an IPv4 range such as 10.96.0.0/16") from None
