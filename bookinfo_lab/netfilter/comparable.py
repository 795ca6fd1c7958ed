"""Two rulesets of one node, made comparable: three named differences taken out, nothing else.

iptables-save text comes in and goes out.  Counters and remark lines are no rules; kube-proxy writes the Service ports
of its dispatch chains in the order of a hash map.  Whatever still differs is a difference.
"""

import re

from .tables import Chain, Table, format_save, parse_save

DISPATCH_CHAINS = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")
_CHAIN_COUNTERS = re.compile(r"(?<= )\[\d+:\d+\]$", re.MULTILINE)
_RULE_COUNTERS = re.compile(r"^\[\d+:\d+\] ", re.MULTILINE)
_SERVICE_PORT = re.compile(r'--comment "([^/ "]+/[^ "]+)')


def comparable(text: str, source: str = "iptables-save") -> str:
    """``text`` without what two equal nodes may differ in.  Raises `ParseError` as `parse_save` does."""
    tables = parse_save(without_counters(without_remarks(text)), source)
    return format_save(tuple(in_service_order(table) for table in tables))


def without_remarks(text: str) -> str:
    """``text`` without the lines that start with ``#``: dates, and warnings about the legacy tables."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def without_counters(text: str) -> str:
    """``text`` with the counters of chains at zero and without those of rules."""
    return _RULE_COUNTERS.sub("", _CHAIN_COUNTERS.sub("[0:0]", text))


def in_service_order(table: Table) -> Table:
    """``table`` with the dispatch chains' rules by Service port; those of one Service port keep their order.

    A rule of no Service port keeps its place: the last rule of KUBE-SERVICES in nat stays last, and where it stands
    elsewhere, it stays there.
    """
    return Table(
        table.name, tuple(_sorted(chain) if chain.name in DISPATCH_CHAINS else chain for chain in table.chains)
    )


def _sorted(chain: Chain) -> Chain:
    owners = [match[1] if (match := _SERVICE_PORT.search(rule)) else "" for rule in chain.rules]
    places = [place for place, owner in enumerate(owners) if owner]
    rules = list(chain.rules)
    for place, moved in zip(places, sorted(places, key=lambda item: owners[item]), strict=True):
        rules[place] = chain.rules[moved]
    return Chain(chain.name, chain.policy, tuple(rules))
