"""kube-proxy's rules in 2017 (Kubernetes 1.8), as (table, chain, rule): the layout of the article.

Portals and settings come in; rules come out in an order in which those of one chain stand as kube-proxy wrote them.
Follows kubernetes pkg/proxy/iptables/proxier.go of release 1.8, syncProxyRules.  There were no EXT and SVL chains: a
node port marks and jumps in two rules, policy Local is KUBE-XLB-.  There was no internal traffic policy either: it is
not looked at.  Refused: SCTP, which came with 1.12.
"""

import ipaddress
from collections.abc import Iterator

from bookinfo_lab.errors import Unsupported

from .chain_names import endpoint_chain, service_chain
from .portals import Backend, Portal
from .rule_text import mark_bit, one_of, rule
from .settings import Settings

Written = tuple[str, str, str]

_TO_NODE = "addrtype --dst-type LOCAL"
_REJECT = "REJECT --reject-with icmp-port-unreachable"


def written(portals: tuple[Portal, ...], settings: Settings, node_ip: str) -> Iterator[Written]:
    """All rules of kube-proxy on the node that has the address ``node_ip``; an empty rule declares its chain.

    KUBE-MARK-DROP is the kubelet's; it is declared, empty, so that the text loads alone.
    """
    mark = mark_bit(settings.masquerade_bit)
    jump = rule("KUBE-SERVICES", comment="kubernetes service portals")
    for table, chain in (("filter", "INPUT"), ("filter", "OUTPUT"), ("nat", "PREROUTING"), ("nat", "OUTPUT")):
        yield table, chain, jump
    yield "filter", "KUBE-SERVICES", ""
    for chain in ("KUBE-NODEPORTS", "KUBE-MARK-DROP"):
        yield "nat", chain, ""
    yield "nat", "POSTROUTING", rule("KUBE-POSTROUTING", comment="kubernetes postrouting rules")
    yield "nat", "KUBE-POSTROUTING", masquerade(mark)
    yield "nat", "KUBE-MARK-MASQ", rule(f"MARK --set-xmark {mark}/{mark}")
    for portal in portals:
        if portal.protocol == "sctp":
            raise Unsupported(
                f"Service port {portal.name} is SCTP, which kube-proxy of 2017 did not know; leave it out"
            )
        yield from _internal(portal, settings)
        yield from _external(portal)
        yield from _load_balancer(portal, node_ip)
        yield from _node_port(portal)
        yield from _endpoints(portal, settings)
    last = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    yield "nat", "KUBE-SERVICES", rule("KUBE-NODEPORTS", comment=last, matches=(_TO_NODE,))


def masquerade(mark: str) -> str:
    """The one rule of KUBE-POSTROUTING then, which kube-proxy and the kubelet both wrote."""
    snat = "kubernetes service traffic requiring SNAT"
    return rule("MASQUERADE", comment=snat, matches=(f"mark --mark {mark}/{mark}",))


def _internal(portal: Portal, settings: Settings) -> Iterator[Written]:
    chain = service_chain("SVC", portal.name, portal.protocol)
    yield "nat", chain, ""
    if settings.masquerade_all:
        yield "nat", "KUBE-SERVICES", _to(portal, portal.cluster_ip, "cluster IP", "KUBE-MARK-MASQ")
    elif settings.cluster_cidr:
        marked = _to(portal, portal.cluster_ip, "cluster IP", "KUBE-MARK-MASQ", not_source=settings.cluster_cidr)
        yield "nat", "KUBE-SERVICES", marked
    yield "nat", "KUBE-SERVICES", _to(portal, portal.cluster_ip, "cluster IP", chain)


def _external(portal: Portal) -> Iterator[Written]:
    chain = service_chain("SVC", portal.name, portal.protocol)
    # What comes neither from a bridge nor from this node comes from off the machine.
    from_outside = ("physdev ! --physdev-is-in", "addrtype ! --src-type LOCAL")
    for address in portal.external_ips:
        yield "nat", "KUBE-SERVICES", _to(portal, address, "external IP", "KUBE-MARK-MASQ")
        yield "nat", "KUBE-SERVICES", _to(portal, address, "external IP", chain, matches=from_outside)
        yield "nat", "KUBE-SERVICES", _to(portal, address, "external IP", chain, matches=(_TO_NODE,))
        if not _ready(portal):
            yield "filter", "KUBE-SERVICES", _to(portal, address, "has no endpoints", _REJECT)


def _load_balancer(portal: Portal, node_ip: str) -> Iterator[Written]:
    chain = service_chain("FW", portal.name, portal.protocol)
    comment = f"{portal.name} loadbalancer IP"
    chosen = service_chain("XLB" if portal.external_policy_local else "SVC", portal.name, portal.protocol)
    for address in portal.load_balancer_ips:
        yield "nat", "KUBE-SERVICES", _to(portal, address, "loadbalancer IP", chain)
        if not portal.external_policy_local:
            yield "nat", chain, rule("KUBE-MARK-MASQ", comment=comment)
        if not portal.source_ranges:
            yield "nat", chain, rule(chosen, comment=comment)
        for network in portal.source_ranges:
            yield "nat", chain, rule(chosen, source=str(network), comment=comment)
        if node_ip and any(ipaddress.IPv4Address(node_ip) in network for network in portal.source_ranges):
            yield "nat", chain, rule(chosen, source=f"{address}/32", comment=comment)
        yield "nat", chain, rule("KUBE-MARK-DROP", comment=comment)


def _node_port(portal: Portal) -> Iterator[Written]:
    if not portal.node_port:
        return
    dport = f"{portal.protocol} --dport {portal.node_port}"
    targets = ["KUBE-MARK-MASQ", service_chain("SVC", portal.name, portal.protocol)]
    if portal.external_policy_local:
        targets = [service_chain("XLB", portal.name, portal.protocol)]
    for target in targets:
        yield "nat", "KUBE-NODEPORTS", rule(target, protocol=portal.protocol, comment=portal.name, matches=(dport,))
    if not _ready(portal):
        comment = f"{portal.name} has no endpoints"
        refused = rule(_REJECT, protocol=portal.protocol, comment=comment, matches=(_TO_NODE, dport))
        yield "filter", "KUBE-SERVICES", refused


def _endpoints(portal: Portal, settings: Settings) -> Iterator[Written]:
    chain = service_chain("SVC", portal.name, portal.protocol)
    local_chain = service_chain("XLB", portal.name, portal.protocol)
    backends = _ready(portal)
    if portal.external_policy_local:
        yield "nat", local_chain, ""
    if not backends:
        yield "filter", "KUBE-SERVICES", _to(portal, portal.cluster_ip, "has no endpoints", _REJECT)
        return
    targets = [endpoint_chain(portal.name, portal.protocol, backend.text) for backend in backends]
    if portal.affinity_s:
        for target in targets:
            recent = (
                f"recent --rcheck --seconds {portal.affinity_s} --reap --name {target} --mask 255.255.255.255 --rsource"
            )
            yield "nat", chain, rule(target, comment=portal.name, matches=(recent,))
    for index, (target, backend) in enumerate(zip(targets, backends, strict=True)):
        yield "nat", chain, rule(target, comment=portal.name, matches=_share(len(targets) - index))
        yield "nat", target, rule("KUBE-MARK-MASQ", source=f"{backend.ip}/32", comment=portal.name)
        seen = (f"recent --set --name {target} --mask 255.255.255.255 --rsource",) if portal.affinity_s else ()
        dnat, matches = f"DNAT --to-destination {backend.text}", (*seen, portal.protocol)
        yield "nat", target, rule(dnat, protocol=portal.protocol, comment=portal.name, matches=matches)
    if portal.external_policy_local:
        here = [target for target, backend in zip(targets, backends, strict=True) if backend.is_local]
        yield from _local(portal, local_chain, here, settings)


def _local(portal: Portal, chain: str, targets: list[str], settings: Settings) -> Iterator[Written]:
    if settings.cluster_cidr:
        comment = "Redirect pods trying to reach external loadbalancer VIP to clusterIP"
        cluster = service_chain("SVC", portal.name, portal.protocol)
        yield "nat", chain, rule(cluster, source=settings.cluster_cidr, comment=comment)
    if not targets:
        yield "nat", chain, rule("KUBE-MARK-DROP", comment=f"{portal.name} has no local endpoints")
    for index, target in enumerate(targets):
        comment = f"Balancing rule {index} for {portal.name}"
        yield "nat", chain, rule(target, comment=comment, matches=_share(len(targets) - index))


def _ready(portal: Portal) -> tuple[Backend, ...]:
    # The Endpoints objects of that time hold ready addresses only, sorted as text.
    return tuple(sorted((item for item in portal.backends if item.is_ready), key=lambda item: (item.ip, item.port)))


def _share(remaining: int) -> tuple[str, ...]:
    return (one_of(remaining, 5),) if remaining > 1 else ()


def _to(
    portal: Portal, address: str, what: str, target: str, *, not_source: str = "", matches: tuple[str, ...] = ()
) -> str:
    return rule(
        target,
        not_source=not_source,
        destination=f"{address}/32",
        protocol=portal.protocol,
        comment=f"{portal.name} {what}",
        matches=(f"{portal.protocol} --dport {portal.port}", *matches),
    )
