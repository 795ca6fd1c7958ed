"""From a node's rules to Services: where each can be entered, and where each entry leads.

Pure.  A Ruleset comes in, kube-proxy's iptables layouts of today (EXT, SVL, FW) and of 2017 (XLB) are understood; a
ServicePath for each entry comes out.  What a path says is read from what rules do; a chain's name and a comment only
give it its names.  A rule of a path that is not understood is named in `ServicePath.unclear`, never passed over.
"""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.fields import Address

from .rule import Rule
from .ruleset import Ruleset
from .service_chains import ChainReader
from .service_comments import kind_in, name_in, without_name
from .service_ways import Entry, PathEndpoint, Reading, Refusal, Way

Kind = Literal["cluster-ip", "node-port", "external-ip", "load-balancer", "external", "health-check"]
_Key = tuple[Address | None, str, int]

_ENTRIES = (("nat", "KUBE-SERVICES"), ("nat", "KUBE-NODEPORTS"))
_GUARDS = (("filter", "KUBE-SERVICES"), ("filter", "KUBE-EXTERNAL-SERVICES"), ("filter", "KUBE-PROXY-FIREWALL"))
_HEALTH = ("filter", "KUBE-NODEPORTS")


@dataclass(frozen=True, slots=True)
class ServicePath:
    """One entry to a Service port, and all that this node's rules say of it.

    ``service`` is ``namespace/name``, "" where no comment names it; ``port_name`` is "" also for an unnamed port.
    ``kind`` is ``external`` where the rules do not tell an external IP from a load balancer's; ``address`` is "" for a
    node port and a health check: any address of the node.  ``policy`` is the traffic policy that counts for this entry,
    Cluster or Local, "" where the rules do not tell.  ``affinity_s`` is 0 for no session affinity.

    ``ways`` stand in order: a packet takes the first whose ``when`` holds.  ``endpoints`` and ``masquerade`` are those
    of a client that is not told from others: neither a pod nor this node, inside ``source_ranges`` where there are any
    (empty: everyone may come).  Probabilities hold for a client without affinity.  ``refusals`` is what becomes of
    packets that no way takes.  ``chains`` are those the path goes through and ``rules`` the rules that say all this, as
    ``TABLE CHAIN NUMBER``; ``unclear`` are those among them that are not understood.
    """

    service: str
    port_name: str
    protocol: str
    kind: Kind
    address: str
    port: int
    policy: str = ""
    affinity_s: int = 0
    masquerade: str = ""
    endpoints: tuple[PathEndpoint, ...] = ()
    ways: tuple[Way, ...] = ()
    source_ranges: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    chains: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def service_paths(ruleset: Ruleset) -> tuple[ServicePath, ...]:
    """Every entry that kube-proxy's rules make: addresses first, then node ports, each in the order of its rules.

    Then come entries that are only refused, then health checks.  Empty where there are no such rules.  Whether a packet
    gets to KUBE-SERVICES at all is a walk's question.  Raises `ParseError` for a rule that cannot be read.
    """
    return tuple(_paths(ruleset, lambda _: True))


def service_path_of(
    ruleset: Ruleset, address: Address | str | None, port: int, protocol: str = "tcp"
) -> ServicePath | None:
    """The entry at ``address`` and ``port``; None where there is none.

    None stands for an address of the node, as does one that is no cluster IP where no rule names it: the path is then
    that of a node port, or of a health check.  Only rules that may be of this path are parsed.  Raises `LabError` for
    what is no address, `ParseError` as `service_paths`.
    """
    try:
        at = ipaddress.ip_address(address) if address is not None else None
    except ValueError:
        raise LabError(f"{address!r} is not an IP address") from None
    if at is not None:
        for path in _paths(ruleset, lambda text: _goes_to(text, at) and _asks_for(text, protocol, port)):
            if (path.address, path.port, path.protocol) == (str(at), port, protocol):
                return path
        if _is_cluster_ip(ruleset, at):
            return None
    for path in _paths(ruleset, lambda text: _asks_for(text, protocol, port)):
        if (path.address, path.port, path.protocol) == ("", port, protocol):
            return path
    return None


def _goes_to(text: str, address: Address) -> bool:
    # iptables-save writes an address with its prefix length, other tools may leave that out.
    return f"-d {address}/" in text or f"-d {address} " in text


def _asks_for(text: str, protocol: str, port: int) -> bool:
    return f"-p {protocol} " in text and f"--dport {port} " in f"{text} "


def _is_cluster_ip(ruleset: Ruleset, address: Address) -> bool:
    rules, guards = (
        [*_selected(ruleset, table, "KUBE-SERVICES", lambda text: _goes_to(text, address))]
        for table in ("nat", "filter")
    )
    return bool(rules or guards) and _kind(address, rules, guards) == "cluster-ip"


def _paths(ruleset: Ruleset, wanted: Callable[[str], bool]) -> Iterator[ServicePath]:
    reader = ChainReader(ruleset)
    to_node_ports = tuple(_selected(ruleset, "nat", "KUBE-SERVICES", lambda text: "KUBE-NODEPORTS" in text))
    entries: dict[_Key, list[Rule]] = {}
    for table, chain in _ENTRIES:
        for rule in _selected(ruleset, table, chain, wanted):
            if key := _key(rule, chain):
                entries.setdefault(key, []).append(rule)
    guards: dict[_Key, list[Rule]] = {}
    for table, chain in _GUARDS:
        for rule in _selected(ruleset, table, chain, wanted):
            if rule.target in ("DROP", "REJECT") and (key := _key(rule, chain)):
                guards.setdefault(key, []).append(rule)
    for key, rules in entries.items():
        jumps = to_node_ports if key[0] is None else ()
        yield _path(reader, key, rules, guards.pop(key, []), jumps)
    for key, refusing in guards.items():
        yield _path(reader, key, [], refusing, ())
    for rule in _selected(ruleset, *_HEALTH, wanted):
        if rule.target == "ACCEPT" and (key := _key(rule, "KUBE-NODEPORTS")):
            service, port_name = name_in([rule])
            yield ServicePath(service, port_name, key[1], "health-check", "", key[2], rules=(rule.where,))


def _selected(ruleset: Ruleset, table: str, chain: str, wanted: Callable[[str], bool]) -> Iterator[Rule]:
    if table not in ruleset.tables or chain not in ruleset.chains(table):
        return
    for number, (_, text) in enumerate(ruleset.lines(table, chain), 1):
        if wanted(text):
            yield ruleset.rule(f"{table} {chain} {number}")


def _key(rule: Rule, chain: str) -> _Key | None:
    """What an entry's rule asks of a packet: one address (None: the node's own), protocol, port."""
    destination, protocol, port = rule.option("-d"), rule.option("-p"), rule.option("--dport")
    if protocol is None or port is None or protocol.negated or port.negated:
        return None
    if port.values[0].first != port.values[0].last:
        return None
    number, name = int(port.values[0].first), str(protocol.values[0])
    if chain == "KUBE-NODEPORTS" or destination is None:
        return None, name, number
    network = destination.values[0]
    if destination.negated or network.prefixlen != network.max_prefixlen:
        return None
    return network.network_address, name, number


def _path(
    reader: ChainReader, key: _Key, rules: list[Rule], guards: list[Rule], jumps: tuple[Rule, ...]
) -> ServicePath:
    address, protocol, port = key
    reading = reader.read(Entry(address, protocol, port), rules)
    refusals = [*reading.refusals]
    is_for_all = any(not way.when for way in reading.ways)  # no packet is left that a guard could refuse
    for rule in () if is_for_all else guards:
        answer = rule.target_option("--reject-with")
        refusals.append(Refusal(rule.target, str(answer.values[0]) if answer else "", _why(rule), rule.where))
    kind = _kind(address, rules, guards)
    general = _general(reading)
    service, port_name = name_in([*rules, *guards, *reading.rules])
    return ServicePath(
        service,
        port_name,
        protocol,
        kind,
        "" if address is None else str(address),
        port,
        _policy(kind, reading, general, guards),
        max((way.affinity_s for way in reading.ways), default=0),
        general.masquerade if general else "",
        general.endpoints if general else (),
        reading.ways,
        reading.source_ranges,
        tuple(refusals),
        reading.chains,
        tuple(dict.fromkeys(rule.where for rule in (*jumps, *rules, *reading.rules, *guards))),
        reading.unclear,
    )


def _why(rule: Rule) -> str:
    return without_name(rule.comment) or "the rule gives no reason"


def _general(reading: Reading) -> Way | None:
    """The way of a client that is neither pod nor node: it meets the ranges, and every condition not to be another."""
    # A source range may be the pods' own: who meets the condition that tells pods from others is a pod.
    of_pods = (rule.option("-s") for rule in reading.rules if rule.chain.startswith(("KUBE-EXT-", "KUBE-XLB-")))
    allowed = set(reading.source_ranges) - {str(option.values[0]) for option in of_pods if option}
    return next((way for way in reading.ways if {item for item in way.when if item[:4] != "not "} <= allowed), None)


def _kind(address: Address | None, rules: list[Rule], guards: list[Rule]) -> Kind:
    if address is None:
        return "node-port"
    # An external IP may be a load balancer's too: the first rule takes the packet.
    outside = next((rule.target for rule in rules if rule.target.startswith(("KUBE-EXT-", "KUBE-FW-"))), "")
    if outside.startswith("KUBE-FW-"):
        return "load-balancer"
    said = next((kind for rule in rules if (kind := kind_in(rule))), "")
    if said == "external-ip":
        return "external-ip"
    if outside:
        return "load-balancer" if said == "load-balancer" else "external"
    if rules:
        # Nothing but an external IP of 2017 asks whether a packet came over a bridge.
        from_outside = any(rule.option("--physdev-is-in") for rule in rules)
        return "external-ip" if from_outside else "cluster-ip"
    return "cluster-ip" if any(rule.chain == "KUBE-SERVICES" for rule in guards) else "external"


def _policy(kind: Kind, reading: Reading, general: Way | None, guards: list[Rule]) -> str:
    kinds = {chain.split("-")[1] for chain in reading.chains if chain.count("-") >= 2}
    if kind == "cluster-ip":
        if general is None:
            return "Local" if any(rule.target == "DROP" for rule in guards) else ""
        return "Local" if general.chain.startswith("KUBE-SVL-") else "Cluster"
    if "XLB" in kinds or "SVL" in kinds:
        return "Local"
    if "EXT" in kinds and general is None:
        return "Local"  # the last jump of EXT leads to this node's endpoints, and it has none
    return "Cluster" if reading.ways else "Local" if any(rule.target == "DROP" for rule in guards) else ""
