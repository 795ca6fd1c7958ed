"""A rule's content in a form that can be compared with what a program is known to write.

Pure.  What a rule asks comes out as the set of its options' names, ``!`` before a negated one; comments, and matches
without options (``-m tcp``), ask nothing.
"""

from .mark_words import ALL
from .match_options import flat
from .rule import Rule


def asks(rule: Rule) -> frozenset[str]:
    """``{"-p", "!-d", "--dport"}`` for ``-p tcp ! -d 10.0.0.1/32 -m tcp --dport 80``."""
    return frozenset(
        f"{'!' * option.negated}{option.name}"
        for match in rule.matches
        for option in match.options
        if option.name != "--comment"
    )


def value(rule: Rule, name: str) -> str:
    """An option's values as text, joined by commas; "" where the rule has no such option."""
    option = rule.option(name) or rule.target_option(name)
    return ",".join(flat(option)) if option else ""


def ports(rule: Rule, name: str) -> tuple[int, ...]:
    """The single ports of an option; empty where there is none, or a range."""
    option = rule.option(name) or rule.target_option(name)
    if option is None or any(item.first != item.last for item in option.values):
        return ()
    return tuple(int(item.first) for item in option.values)


def mark(rule: Rule, name: str = "--mark") -> tuple[int, int] | None:
    """(value, mask) of an option that has them."""
    option = rule.option(name) or rule.target_option(name)
    return (int(option.values[0].value), int(option.values[0].mask)) if option else None


def is_host(rule: Rule, name: str) -> bool:
    """Whether an address option names one address."""
    option = rule.option(name)
    return option is not None and option.values[0].prefixlen == option.values[0].max_prefixlen


def sets_bits(rule: Rule) -> int:
    """The bits that a MARK target sets while it leaves all others alone; 0 where it does something else."""
    found = mark(rule, "--set-xmark") if rule.target == "MARK" else None
    return found[0] if found and found[0] == found[1] != ALL else 0
