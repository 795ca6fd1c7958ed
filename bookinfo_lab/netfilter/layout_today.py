"""kube-proxy's rules today (Kubernetes 1.34), as (table, chain, rule).

Portals and settings come in; rules come out in an order in which those of one chain stand as kube-proxy writes them.
Follows kubernetes pkg/proxy/iptables/proxier.go, syncProxyRules.  Left out: IPv6, and KUBE-FIREWALL, of which
kube-proxy makes a copy equal to the kubelet's (`kubelet` writes it).
"""

import ipaddress
from collections.abc import Iterator

from .chain_names import endpoint_chain, service_chain
from .portals import Backend, Portal
from .reachable import Reachable, reachable
from .rule_text import mark_bit, one_of, rule
from .settings import Settings

Written = tuple[str, str, str]

LARGE_CLUSTER_ENDPOINTS = 1000
LOCALHOST_NODEPORTS_COUNTER = "localhost_nps_accepted_pkts"
INVALID_DROPPED_COUNTER = "ct_state_invalid_dropped_pkts"
_NEW = "-m conntrack --ctstate NEW "  # stands before the comment, unlike every other match
_FROM_NODE = ("addrtype --src-type LOCAL",)
_TO_NODE = "addrtype --dst-type LOCAL"
_REJECT = "REJECT --reject-with icmp-port-unreachable"


def written(portals: tuple[Portal, ...], settings: Settings, node: str, zone: str, node_ip: str) -> Iterator[Written]:
    """All rules of kube-proxy on ``node``; an empty rule declares its chain.

    ``zone`` is the node's topology.kubernetes.io/zone, ``node_ip`` its address, each empty where unknown.
    """
    for table in ("mangle", "filter", "nat"):
        yield table, "KUBE-PROXY-CANARY", ""
    yield from _jumps()
    yield from _marks(settings)
    # Comments take 40 % of a large ruleset, so kube-proxy drops those of the SVC, SVL and SEP chains there.
    commented = sum(len(portal.backends) for portal in portals) <= LARGE_CLUSTER_ENDPOINTS
    for portal in portals:
        usable = reachable(portal, node, zone)
        yield from _internal(portal, usable, settings)
        yield from _external(portal, usable, settings)
        yield from _firewall(portal, usable, node_ip)
        yield from _endpoints(portal, usable, commented)
    yield (
        "nat",
        "KUBE-SERVICES",
        rule(
            "KUBE-NODEPORTS",
            not_destination="" if settings.localhost_nodeports else "127.0.0.0/8",
            comment="kubernetes service nodeports; NOTE: this must be the last rule in this chain",
            matches=(_TO_NODE,),
        ),
    )


def _jumps() -> Iterator[Written]:
    for chain in ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"):
        yield "filter", chain, ""
    yield "nat", "KUBE-NODEPORTS", ""
    firewall = rule("KUBE-PROXY-FIREWALL", comment="kubernetes load balancer firewall")
    portals = rule("KUBE-SERVICES", comment="kubernetes service portals")
    external = rule("KUBE-EXTERNAL-SERVICES", comment="kubernetes externally-visible service portals")
    yield "filter", "INPUT", _NEW + firewall
    yield "filter", "INPUT", rule("KUBE-NODEPORTS", comment="kubernetes health check service ports")
    yield "filter", "INPUT", _NEW + external
    yield "filter", "FORWARD", _NEW + firewall
    yield "filter", "FORWARD", rule("KUBE-FORWARD", comment="kubernetes forwarding rules")
    yield "filter", "FORWARD", _NEW + portals
    yield "filter", "FORWARD", _NEW + external
    yield "filter", "OUTPUT", _NEW + firewall
    yield "filter", "OUTPUT", _NEW + portals
    yield "nat", "PREROUTING", portals
    yield "nat", "OUTPUT", portals
    yield "nat", "POSTROUTING", rule("KUBE-POSTROUTING", comment="kubernetes postrouting rules")


def _marks(settings: Settings) -> Iterator[Written]:
    mark = mark_bit(settings.masquerade_bit)
    yield "nat", "KUBE-MARK-MASQ", rule(f"MARK --set-xmark {mark}/{mark}")
    yield "nat", "KUBE-POSTROUTING", rule("RETURN", matches=(f"mark ! --mark {mark}/{mark}",))
    yield "nat", "KUBE-POSTROUTING", rule(f"MARK --set-xmark {mark}/0x0")
    snat = "kubernetes service traffic requiring SNAT"
    yield "nat", "KUBE-POSTROUTING", rule("MASQUERADE --random-fully", comment=snat)
    if not settings.conntrack_tcp_liberal:
        # iptables-save prints two blanks before the name of an accounting object.
        counted = (f"nfacct --nfacct-name  {INVALID_DROPPED_COUNTER}",) if settings.nfacct else ()
        yield "filter", "KUBE-FORWARD", rule("DROP", matches=("conntrack --ctstate INVALID", *counted))
    forwarding = rule("ACCEPT", comment="kubernetes forwarding rules", matches=(f"mark --mark {mark}/{mark}",))
    yield "filter", "KUBE-FORWARD", forwarding
    known = ("conntrack --ctstate RELATED,ESTABLISHED",)
    yield "filter", "KUBE-FORWARD", rule("ACCEPT", comment="kubernetes forwarding conntrack rule", matches=known)


def _internal(portal: Portal, usable: Reachable, settings: Settings) -> Iterator[Written]:
    chain = service_chain("SVL" if portal.internal_policy_local else "SVC", portal.name, portal.protocol)
    if not usable.any:
        yield "filter", "KUBE-SERVICES", _to(portal, portal.cluster_ip, "has no endpoints", _REJECT)
    elif portal.internal_policy_local and not usable.local:
        yield "filter", "KUBE-SERVICES", _to(portal, portal.cluster_ip, "has no local endpoints", "DROP")
    else:
        yield "nat", "KUBE-SERVICES", _to(portal, portal.cluster_ip, "cluster IP", chain)
        if settings.masquerade_all:
            yield "nat", chain, _to(portal, portal.cluster_ip, "cluster IP", "KUBE-MARK-MASQ")
        elif settings.cluster_cidr:
            outside = settings.cluster_cidr
            yield "nat", chain, _to(portal, portal.cluster_ip, "cluster IP", "KUBE-MARK-MASQ", not_source=outside)


def _external(portal: Portal, usable: Reachable, settings: Settings) -> Iterator[Written]:
    chain = service_chain("EXT", portal.name, portal.protocol)
    if usable.any:
        firewall = service_chain("FW", portal.name, portal.protocol) if portal.source_ranges else chain
        for address in portal.external_ips:
            yield "nat", "KUBE-SERVICES", _to(portal, address, "external IP", chain)
        for address in portal.load_balancer_ips:
            yield "nat", "KUBE-SERVICES", _to(portal, address, "loadbalancer IP", firewall)
        if portal.node_port:
            yield from _node_port(portal, chain, settings)
        if portal.is_external:
            yield from _external_chain(portal, usable, settings, chain)
    if not usable.any or (portal.external_policy_local and not usable.local):
        why, target = ("has no local endpoints", "DROP") if usable.any else ("has no endpoints", _REJECT)
        for address in (*portal.external_ips, *portal.load_balancer_ips):
            yield "filter", "KUBE-EXTERNAL-SERVICES", _to(portal, address, why, target)
        if portal.node_port:
            matches = (_TO_NODE, f"{portal.protocol} --dport {portal.node_port}")
            refused = rule(target, protocol=portal.protocol, comment=f"{portal.name} {why}", matches=matches)
            yield "filter", "KUBE-EXTERNAL-SERVICES", refused
    if portal.health_check_node_port:
        # Open on every node, with local endpoints or without: the answer tells the load balancer which it is.
        comment, dport = f"{portal.name} health check node port", f"tcp --dport {portal.health_check_node_port}"
        yield "filter", "KUBE-NODEPORTS", rule("ACCEPT", protocol="tcp", comment=comment, matches=(dport,))


def _node_port(portal: Portal, chain: str, settings: Settings) -> Iterator[Written]:
    dport = f"{portal.protocol} --dport {portal.node_port}"
    if settings.localhost_nodeports and settings.nfacct:
        matches = (dport, f"nfacct --nfacct-name  {LOCALHOST_NODEPORTS_COUNTER}")
        loopback = "127.0.0.0/8"
        counted = rule(chain, destination=loopback, protocol=portal.protocol, comment=portal.name, matches=matches)
        yield "nat", "KUBE-NODEPORTS", counted
    yield "nat", "KUBE-NODEPORTS", rule(chain, protocol=portal.protocol, comment=portal.name, matches=(dport,))


def _external_chain(portal: Portal, usable: Reachable, settings: Settings, chain: str) -> Iterator[Written]:
    cluster = service_chain("SVC", portal.name, portal.protocol)
    traffic = f"traffic for {portal.name} external destinations"
    if not portal.external_policy_local:
        yield "nat", chain, rule("KUBE-MARK-MASQ", comment=f"masquerade {traffic}")
        yield "nat", chain, rule(cluster)
        return
    if settings.cluster_cidr:
        yield "nat", chain, rule(cluster, source=settings.cluster_cidr, comment=f"pod {traffic}")
    yield "nat", chain, rule("KUBE-MARK-MASQ", comment=f"masquerade LOCAL {traffic}", matches=_FROM_NODE)
    yield "nat", chain, rule(cluster, comment=f"route LOCAL {traffic}", matches=_FROM_NODE)
    if usable.local:
        yield "nat", chain, rule(service_chain("SVL", portal.name, portal.protocol))


def _firewall(portal: Portal, usable: Reachable, node_ip: str) -> Iterator[Written]:
    if not (usable.any and portal.load_balancer_ips and portal.source_ranges):
        return
    chain = service_chain("FW", portal.name, portal.protocol)
    external = service_chain("EXT", portal.name, portal.protocol)
    sources = [str(network) for network in portal.source_ranges]
    # A node's own request to the address of a load balancer comes back with that address as its source.
    if node_ip and any(ipaddress.IPv4Address(node_ip) in network for network in portal.source_ranges):
        sources += [f"{address}/32" for address in portal.load_balancer_ips]
    for source in sources:
        yield "nat", chain, rule(external, source=source, comment=f"{portal.name} loadbalancer IP")
    rest = f"other traffic to {portal.name} will be dropped by KUBE-PROXY-FIREWALL"
    yield "nat", chain, rule("", comment=rest)
    for address in portal.load_balancer_ips:
        yield "filter", "KUBE-PROXY-FIREWALL", _to(portal, address, f"traffic not accepted by {chain}", "DROP")


def _endpoints(portal: Portal, usable: Reachable, commented: bool) -> Iterator[Written]:
    for kind, backends in (("SVC", usable.cluster), ("SVL", usable.local)):
        yield from _balanced(portal, service_chain(kind, portal.name, portal.protocol), backends, commented)
    comment = portal.name if commented else ""
    for backend in usable.all:
        chain = endpoint_chain(portal.name, portal.protocol, backend.text)
        # A pod that reaches itself through its Service must see the answer come from the Service.
        yield "nat", chain, rule("KUBE-MARK-MASQ", source=f"{backend.ip}/32", comment=comment)
        seen = (f"recent --set --name {chain} --mask 255.255.255.255 --rsource",) if portal.affinity_s else ()
        dnat = f"DNAT --to-destination {backend.text}"
        matches = (*seen, portal.protocol)
        yield "nat", chain, rule(dnat, protocol=portal.protocol, comment=comment, matches=matches)


def _balanced(portal: Portal, chain: str, backends: tuple[Backend, ...], commented: bool) -> Iterator[Written]:
    chains = [endpoint_chain(portal.name, portal.protocol, backend.text) for backend in backends]
    comments = [f"{portal.name} -> {backend.text}" if commented else "" for backend in backends]
    if portal.affinity_s:
        for target, comment in zip(chains, comments, strict=True):
            recent = (
                f"recent --rcheck --seconds {portal.affinity_s} --reap --name {target} --mask 255.255.255.255 --rsource"
            )
            yield "nat", chain, rule(target, comment=comment, matches=(recent,))
    for index, (target, comment) in enumerate(zip(chains, comments, strict=True)):
        remaining = len(chains) - index
        yield "nat", chain, rule(target, comment=comment, matches=(one_of(remaining, 10),) if remaining > 1 else ())


def _to(portal: Portal, address: str, what: str, target: str, not_source: str = "") -> str:
    return rule(
        target,
        not_source=not_source,
        destination=f"{address}/32",
        protocol=portal.protocol,
        comment=f"{portal.name} {what}",
        matches=(f"{portal.protocol} --dport {portal.port}",),
    )
