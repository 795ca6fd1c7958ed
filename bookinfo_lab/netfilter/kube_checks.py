"""What a rule of kube-proxy's must hold beside its options' names, so that it is for what its place says.

Pure.  Each check takes a rule and, where there is one, its ruleset: marks are then followed to the rules that act on
them.  Without a ruleset what cannot be looked at is taken as it should be.
"""

from collections.abc import Callable

from .chain_names import endpoint_chain, service_chain, service_port_name, service_port_name_2017
from .mark_actions import dropped_bits, masqueraded_bits
from .rule import Rule
from .rule_shape import is_host, mark, sets_bits, value
from .ruleset import Ruleset
from .service_comments import name_in


def names_its_chain(rule: Rule, _: Ruleset | None) -> bool:
    """The chain that is jumped to has the hash of the Service port that the comment names, if it names one."""
    service, port = name_in([rule])
    kind = rule.target.split("-")[1]
    return not service or rule.target in (
        service_chain(kind, name, value(rule, "-p")) for name in _names(service, port)
    )


def names_its_endpoint(rule: Rule, _: Ruleset | None) -> bool:
    """Its own chain has the hash of the Service port that the comment names, if any, and of the endpoint."""
    service, port = name_in([rule])
    to = rule.target_option("--to-destination")
    if to is None or to.values[0].first is None or to.values[0].ports is None:
        return False
    address, number = to.values[0].first, to.values[0].ports.first
    endpoint = f"{address}:{number}" if address.version == 4 else f"[{address}]:{number}"
    names = _names(service, port)
    return not service or rule.chain in (endpoint_chain(name, value(rule, "-p"), endpoint) for name in names)


def _names(service: str, port: str) -> tuple[str, str]:
    namespace, _, name = service.partition("/")
    return service_port_name(namespace, name, port), service_port_name_2017(namespace, name, port)


def masquerade_mark(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Sets only bits, for which POSTROUTING masquerades."""
    bits = sets_bits(rule)
    return bits != 0 and (ruleset is None or bits & masqueraded_bits(ruleset) == bits)


def drop_mark(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Sets only bits, for which KUBE-FIREWALL drops."""
    bits = sets_bits(rule)
    return bits != 0 and (ruleset is None or bits & dropped_bits(ruleset) == bits)


def marks_for_masquerade(_: Rule, ruleset: Ruleset | None) -> bool:
    """KUBE-MARK-MASQ sets bits for which POSTROUTING masquerades."""
    return _chain_sets(ruleset, "KUBE-MARK-MASQ", masqueraded_bits)


def marks_for_drop(_: Rule, ruleset: Ruleset | None) -> bool:
    """KUBE-MARK-DROP sets bits for which KUBE-FIREWALL drops."""
    return _chain_sets(ruleset, "KUBE-MARK-DROP", dropped_bits)


def _chain_sets(ruleset: Ruleset | None, chain: str, acting: Callable[[Ruleset], int]) -> bool:
    if ruleset is None:
        return True
    rules = ruleset.rules("nat", chain) if chain in ruleset.chains("nat") else ()
    return any(sets_bits(item) & acting(ruleset) for item in rules)


def compares_bits(rule: Rule, _: Ruleset | None) -> bool:
    """Asks whether bits of the mark are set."""
    found = mark(rule)
    return found is not None and found[0] == found[1] != 0


def is_masquerade_bit(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Asks for bits for which POSTROUTING masquerades."""
    found = mark(rule)
    return compares_bits(rule, None) and (
        ruleset is None or (found is not None and found[0] & masqueraded_bits(ruleset) == found[0])
    )


def toggles_bits(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Toggles bits for which POSTROUTING masquerades, and touches no other."""
    found = mark(rule, "--set-xmark")
    return bool(found and found[0] and found[1] == 0 and (not ruleset or found[0] & masqueraded_bits(ruleset)))


def to_host(rule: Rule, _: Ruleset | None) -> bool:
    """Goes to one address."""
    return is_host(rule, "-d")


def from_host(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Comes from one address, and KUBE-MARK-MASQ asks for SNAT."""
    return is_host(rule, "-s") and marks_for_masquerade(rule, ruleset)


def to_host_for_masquerade(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Goes to one address, and KUBE-MARK-MASQ asks for SNAT."""
    return is_host(rule, "-d") and marks_for_masquerade(rule, ruleset)


def from_node_for_masquerade(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Comes from this node, and KUBE-MARK-MASQ asks for SNAT."""
    return value(rule, "--src-type") == "LOCAL" and marks_for_masquerade(rule, ruleset)


def remembers_its_endpoint(rule: Rule, _: Ruleset | None) -> bool:
    """Looks in the list that its target's chain keeps."""
    return value(rule, "--name") == rule.target


def remembers_its_chain(rule: Rule, _: Ruleset | None) -> bool:
    """Keeps the list that has its own name."""
    return value(rule, "--name") == rule.chain


def guards_loopback(rule: Rule, _: Ruleset | None) -> bool:
    """Is about 127.0.0.0/8 on one side only."""
    return value(rule, "-s") == value(rule, "-d") == "127.0.0.0/8"


def firewall_follows(_: Rule, ruleset: Ruleset | None) -> bool:
    """KUBE-PROXY-FIREWALL drops something."""
    if ruleset is None:
        return True
    chain = "KUBE-PROXY-FIREWALL"
    there = "filter" in ruleset.tables and chain in ruleset.chains("filter")
    return there and any(item.target == "DROP" for item in ruleset.rules("filter", chain))
