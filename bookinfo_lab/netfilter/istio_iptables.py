"""Istio's interception rules in a pod: settings in, iptables-save text out (IPv4).

This is what istio-init or istio-cni writes into the *pod's* network namespace; a node's rules never show it.
Follows istio tools/istio-iptables/pkg/capture/run.go; `istio_init` reads the settings from what istio-init is told.
"""

from .istio_dns_capture import is_captured, lookups, zones
from .istio_settings import Cidrs, Ports, Settings, network
from .istio_tproxy import mangle
from .rule_text import rule
from .tables import Table, format_save, table

__all__ = ["Cidrs", "Ports", "Settings", "rules", "tables"]


def rules(settings: Settings) -> str:
    """The pod's rules in the form of iptables-save: its tables, which iptables-restore loads as they stand."""
    return format_save(tables(settings))


def tables(settings: Settings) -> tuple[Table, ...]:
    """The same as tables: nat, before it mangle and raw where the settings need them."""
    found = {"mangle": mangle(settings), "raw": zones(settings), "nat": _nat(settings)}
    return tuple(table(name, chains) for name, chains in found.items() if chains)


def _nat(settings: Settings) -> dict[str, list[str]]:
    redirects = settings.mode == "REDIRECT" and settings.inbound_include != ()
    found = {
        "PREROUTING": [
            *_from_virtual_interfaces(settings),
            *(rule("RETURN", in_=name) for name in settings.excluded_interfaces),
            *([rule("ISTIO_INBOUND", protocol="tcp")] if redirects else ()),
        ],
        "OUTPUT": [*(rule("RETURN", out=name) for name in settings.excluded_interfaces), rule("ISTIO_OUTPUT")],
        "ISTIO_INBOUND": [_port(settings.tunnel_port, "RETURN"), *(_inbound(settings) if redirects else ())],
        "ISTIO_IN_REDIRECT": [rule(f"REDIRECT --to-ports {settings.inbound_port}", protocol="tcp")],
        "ISTIO_OUTPUT": _outbound(settings),
        "ISTIO_REDIRECT": [rule(f"REDIRECT --to-ports {settings.outbound_port}", protocol="tcp")],
    }
    return found | ({"ISTIO_OUTPUT_DNS": lookups(settings)} if is_captured(settings) else {})


def _from_virtual_interfaces(settings: Settings) -> list[str]:
    """The rules for what a virtual machine sends, each put before those that were there: the last one stands first.

    That goes for a RETURN too, which stands behind all the others and so meets only what no range includes.
    """
    included, names = settings.outbound_cidrs_include, settings.virtual_interfaces
    ranges = [{}] if included == "*" else [_to(cidr) for cidr in included]
    inserted = [rule("RETURN", in_=name) for name in names]
    inserted += [rule("ISTIO_REDIRECT", in_=name, **where) for where in ranges for name in names]
    return inserted[::-1]


def _inbound(settings: Settings) -> list[str]:
    if settings.inbound_include == "*":
        excluded = [_port(number, "RETURN") for number in settings.inbound_exclude]
        return [*excluded, rule("ISTIO_IN_REDIRECT", protocol="tcp")]
    return [_port(number, "ISTIO_IN_REDIRECT") for number in settings.inbound_include]


def _outbound(settings: Settings) -> list[str]:
    included = settings.outbound_cidrs_include
    written = []
    for number in settings.outbound_ports_exclude:
        written += [_port(number, "RETURN"), _port(number, "RETURN", "udp")]
    # The source of what the proxy passes on to the application when it has no cluster for it.
    written.append(rule("RETURN", source="127.0.0.6/32", out="lo"))
    for kind, positive, negative in _owners(settings):
        written += _own(settings, kind, positive, negative)
    written += _groups(settings)
    written += [rule("ISTIO_OUTPUT_DNS")] if is_captured(settings) else []
    written.append(rule("RETURN", destination=settings.loopback))
    written += [rule("RETURN", **_to(cidr)) for cidr in settings.outbound_cidrs_exclude]
    written += [_port(number, "ISTIO_REDIRECT") for number in settings.outbound_ports_include]
    if included == "*":
        written.append(rule("ISTIO_REDIRECT"))
    else:
        written += [rule("ISTIO_REDIRECT", **_to(cidr)) for cidr in included]
    return written


def _own(settings: Settings, kind: str, positive: str, negative: str) -> list[str]:
    """What becomes of the proxy's own packets and of what others send over loopback, the proxy known by ``kind``."""
    captured = is_captured(settings)
    # Istio spares lookups by the proxy's uid from going round to the inbound side, and forgets those by its gid.
    spared = f"multiport ! --dports 53,{settings.tunnel_port}" if captured and kind != "gid" else ""
    tunnel = spared or f"tcp ! --dport {settings.tunnel_port}"
    back = {"not_destination": settings.loopback, "out": "lo", "protocol": "tcp"}
    written = [rule("ISTIO_IN_REDIRECT", **back, matches=(tunnel, positive))]
    if not settings.includes_loopback and captured:
        written.append(rule("RETURN", out="lo", protocol="tcp", matches=("tcp ! --dport 53", negative)))
    elif not settings.includes_loopback:
        written.append(rule("RETURN", out="lo", matches=(negative,)))
    return [*written, rule("RETURN", matches=(positive,))]


def _owners(settings: Settings) -> tuple[tuple[str, str, str], ...]:
    if settings.owner == "mark":
        mark = f"{settings.proxy_mark:#x}"
        return (("mark", f"mark --mark {mark}", f"mark ! --mark {mark}"),)
    return tuple(
        (kind, f"owner --{kind}-owner {number}", f"owner ! --{kind}-owner {number}")
        for kind, number in (("uid", settings.proxy_uid), ("gid", settings.proxy_gid))
    )


def _groups(settings: Settings) -> list[str]:
    """Whose packets are left alone: some groups', or those of all but some."""
    included = settings.outbound_groups_include
    if included == "*":
        return [rule("RETURN", matches=(f"owner --gid-owner {group}",)) for group in settings.outbound_groups_exclude]
    return [rule("RETURN", matches=[f"owner ! --gid-owner {group}" for group in included])]


def _port(number: int, target: str, protocol: str = "tcp") -> str:
    return rule(target, protocol=protocol, matches=(f"{protocol} --dport {number}",))


def _to(cidr: str) -> dict[str, str]:
    # iptables-save does not print a destination that is everywhere.
    found = network(cidr)
    return {"destination": str(found)} if found.prefixlen else {}
