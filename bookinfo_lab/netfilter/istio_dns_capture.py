"""Istio's DNS capture: lookups are led to the pod's agent, and its own lookups are kept apart from them.

Pure.  `lookups` is the nat chain ISTIO_OUTPUT_DNS, `zones` the table raw, both for the resolvers that are captured.
Follows SetupDNSRedir of istio tools/istio-iptables/pkg/capture/run.go; empty where nothing is captured.
"""

from .istio_settings import Settings
from .rule_text import rule

_AGENT_PORT = 15053


def is_captured(settings: Settings) -> bool:
    """Whether lookups are captured at all."""
    return bool(settings.dns_servers)


def lookups(settings: Settings) -> list[str]:
    """The rules that lead lookups over TCP, then those over UDP, to the agent."""
    return [
        rule(f"REDIRECT --to-ports {_AGENT_PORT}", **where, protocol=protocol, matches=(f"{protocol} --dport 53",))
        for protocol in ("tcp", "udp")
        for where in _resolvers(settings, "destination")
    ]


def zones(settings: Settings) -> dict[str, list[str]]:
    """The chains of raw: the agent and the resolvers have conntrack zone 1, the application and the agent zone 2."""
    if not is_captured(settings):
        return {}
    own = [
        rule(f"CT --zone {zone}", protocol="udp", matches=(f"udp {port}", f"owner --{kind}-owner {number}"))
        for kind, number in (("uid", settings.proxy_uid), ("gid", settings.proxy_gid))
        for zone, port in ((1, "--dport 53"), (2, f"--sport {_AGENT_PORT}"))
    ]
    asked = [
        rule("CT --zone 2", **where, protocol="udp", matches=("udp --dport 53",))
        for where in _resolvers(settings, "destination")
    ]
    answered = [
        rule("CT --zone 1", **where, protocol="udp", matches=("udp --sport 53",))
        for where in _resolvers(settings, "source")
    ]
    return {
        "PREROUTING": [rule("ISTIO_INBOUND")],
        "OUTPUT": [rule("ISTIO_OUTPUT_DNS")],
        "ISTIO_INBOUND": answered,
        "ISTIO_OUTPUT_DNS": [*own, *asked],
    }


def _resolvers(settings: Settings, end: str) -> list[dict[str, str]]:
    """The resolvers as one ``end`` of a packet; all of them are one that is not named."""
    return [{}] if settings.dns_servers == "*" else [{end: f"{address}/32"} for address in settings.dns_servers]
