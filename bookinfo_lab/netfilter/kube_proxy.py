"""kube-proxy's iptables rules for a node: API objects in, iptables-save text out (IPv4).

Two layouts: what an upstream kube-proxy of Kubernetes 1.34 writes, and what one of 2017 (1.8) wrote.  The sandbox loads
this text, and a check of a cluster compares with it: there is one writer.  The kubelet's chains are `kubelet`'s.
"""

from collections.abc import Iterable

from bookinfo_lab.kube.parse import Given, parse

from . import chain_names, layout_2017, layout_today
from .portals import portals
from .settings import Settings as Settings
from .tables import Table, format_save, table


def rules(given: Given, node: str, settings: Settings) -> str:
    """The rules that kube-proxy on ``node`` writes for the objects ``given``, in the form of iptables-save.

    iptables-restore loads the text as it stands, once the objects of `accounting_objects` exist.  Services stand in the
    dispatch chains by namespace and name; kube-proxy's own order is that of a hash map.  Raises `Incomplete` where an
    object, or a field of one, is missing, `Unsupported` for what a layout had no rules for.
    """
    return format_save(tables(given, node, settings))


def tables(given: Given, node: str, settings: Settings) -> tuple[Table, ...]:
    """The same as tables, to be merged with what others write."""
    objects = parse(given)
    here = objects.node(node)
    if settings.layout == "2017":
        seen = portals(objects, node, chain_names.service_port_name_2017)
        return _collected(layout_2017.written(seen, settings, here.internal_ip))
    seen = portals(objects, node, chain_names.service_port_name)
    zone = here.labels.get("topology.kubernetes.io/zone", "")
    return _collected(layout_today.written(seen, settings, node, zone, here.internal_ip))


def accounting_objects(settings: Settings) -> tuple[str, ...]:
    """The nfacct objects that the rules refer to: `nfacct add NAME` makes one, without it the rules do not load."""
    if not settings.nfacct or settings.layout == "2017":
        return ()
    invalid = () if settings.conntrack_tcp_liberal else (layout_today.INVALID_DROPPED_COUNTER,)
    localhost = (layout_today.LOCALHOST_NODEPORTS_COUNTER,) if settings.localhost_nodeports else ()
    return (*invalid, *localhost)


def _collected(written: Iterable[tuple[str, str, str]]) -> tuple[Table, ...]:
    found: dict[str, dict[str, list[str]]] = {}
    for name, chain, rule in written:
        there = found.setdefault(name, {}).setdefault(chain, [])
        if rule:
            there.append(rule)
    return tuple(table(name, found[name]) for name in ("mangle", "filter", "nat") if name in found)
