"""What kube-proxy and the kubelet want with a rule, in a clause; nothing for a rule that is not as they write it.

Pure.  The tables are `kube_nat_rules` and `kube_filter_rules`: a rule that has a known
chain's name but other content gets no clause.
"""

from . import known_rule
from .kube_filter_rules import FILTER
from .kube_nat_rules import NAT
from .rule import Rule
from .rule_shape import value
from .ruleset import Ruleset
from .service_comments import kind_in, name_in

_ENTRY = {
    "": "an address",
    "cluster-ip": "the cluster IP",
    "external-ip": "an external IP",
    "load-balancer": "the load balancer's address",
}


def purpose(rule: Rule, ruleset: Ruleset | None = None) -> str:
    """What the rule is for; "" where it is none of kube-proxy's and the kubelet's, or differs from what they write.

    With the ``ruleset``, marks are followed to the rules that act on them, and the share of an endpoint is counted.
    """
    if "KUBE-" not in rule.chain and "KUBE-" not in rule.target:
        return ""
    known = known_rule.first(NAT if rule.table == "nat" else FILTER, rule, ruleset)
    if known is None:
        return ""
    return known.clause.format(
        service=_service(rule),
        share=_share(rule, ruleset) if "{share}" in known.clause else "",
        entry=_ENTRY[kind_in(rule)],
        seconds=value(rule, "--seconds"),
    )


def _service(rule: Rule) -> str:
    name, port = name_in([rule])
    return f"Service {name}{f', port {port}' if port else ''}" if name else "a Service"


def _share(rule: Rule, ruleset: Ruleset | None) -> str:
    """The share of all connections that an endpoint's rule gets, where the chain is at hand."""
    if ruleset is None:
        return "one endpoint, with its share of what earlier rules left"
    left, place, share = 1.0, 0, 0.0
    rules = [
        item
        for item in ruleset.rules(rule.table, rule.chain)
        if item.target.startswith("KUBE-SEP-") and not item.option("--rcheck")
    ]
    for number, item in enumerate(rules, 1):
        chance = item.option("--probability")
        taken = left * (float(chance.values[0]) if chance else 1.0)
        if item.number == rule.number:
            place, share = number, taken
        left -= taken
    bound = any(item.option("--rcheck") for item in ruleset.rules(rule.table, rule.chain))
    free = " and that no affinity binds" if bound else ""
    return f"endpoint {place} of {len(rules)}, with {100 * share:.4g} % of the connections that come here{free}"
