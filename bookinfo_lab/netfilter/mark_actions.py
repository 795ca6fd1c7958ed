"""Which marks have an effect: the bits for which a packet is masqueraded, and those for which it is dropped.

Pure.  A Ruleset comes in, bits come out.  A chain that only marks is worth the name it has only where some rule acts on
its bits.
"""

from .rule import Option, Rule
from .ruleset import Ruleset


def masqueraded_bits(ruleset: Ruleset) -> int:
    """The mark's bits for which POSTROUTING of table nat, or a chain that it jumps to, masquerades a packet."""
    bits = 0
    first = _rules(ruleset, "nat", "POSTROUTING")
    for rules in (first, *(_rules(ruleset, "nat", chain) for chain in dict.fromkeys(rule.target for rule in first))):
        asked = 0
        for rule in rules:
            mark = rule.option("--mark")
            wanted = _set_bits(mark)
            if rule.target == "RETURN" and mark and mark.negated:
                asked |= wanted
            elif rule.target in ("MASQUERADE", "SNAT"):
                bits |= wanted if mark and not mark.negated else asked
    return bits


def dropped_bits(ruleset: Ruleset) -> int:
    """The mark's bits for which KUBE-FIREWALL of table filter drops a packet."""
    bits = 0
    for rule in _rules(ruleset, "filter", "KUBE-FIREWALL"):
        mark = rule.option("--mark")
        if rule.target == "DROP" and mark and not mark.negated:
            bits |= _set_bits(mark)
    return bits


def _set_bits(mark: Option | None) -> int:
    return int(mark.values[0].value & mark.values[0].mask) if mark else 0


def _rules(ruleset: Ruleset, table: str, chain: str) -> tuple[Rule, ...]:
    there = table in ruleset.tables and chain in ruleset.chains(table)
    return ruleset.rules(table, chain) if there else ()
