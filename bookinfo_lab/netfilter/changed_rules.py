"""Which chains of a walk are no longer what was walked.

Pure.  Two readings of the rules are compared as text, chain by chain, for the chains that a walk entered and those
that the kernel showed; a chain that neither saw may have changed and matters to neither.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from bookinfo_lab.errors import ParseError
from bookinfo_lab.trace import Trace

from .attempt import Attempt
from .kernel_trace import Event, rule_numbers
from .tables import Chain, parse_save

_STEP = re.compile(r"(?:(?:policy|return) )?(raw|mangle|nat|filter|security) (\S+)(?: (\d+)(?:–\d+)?)?")


class Rules(Protocol):
    """What a comparison needs of a `netfilter.ruleset.Ruleset`."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables, in the text's order."""
        ...

    def chains(self, table: str) -> Collection[str]:
        """The chains of a table."""
        ...

    def policy(self, table: str, chain: str) -> str:
        """ACCEPT, DROP or ``-``."""
        ...

    def lines(self, table: str, chain: str) -> tuple[tuple[int, str], ...]:
        """(line number, rule as text) of each rule of a chain."""
        ...


def changed(trace: Trace, events: Iterable[Event], attempt: Attempt, ruleset: Rules) -> tuple[str, ...]:
    """``TABLE CHAIN`` of each chain that differs, in the walk's order; a rule that went while it was traced as a rule.

    What cannot be compared has changed: rules that no longer parse are named as ``the rules``.
    """
    try:
        now = {(table.name, chain.name): chain for table in parse_save(attempt.rules) for chain in table.chains}
    except ParseError:
        return ("the rules, which can no longer be read",)
    seen = list(events)
    entered = dict.fromkeys([*_walked(trace), *((item.table, item.chain) for item in seen)])
    known = {(table, chain) for table in ruleset.tables for chain in ruleset.chains(table)}
    both = [place for place in entered if place in known or place in now]
    found = [" ".join(place) for place in both if _differs(place, now.get(place), ruleset, place in known)]
    return tuple(dict.fromkeys([*found, *_gone(seen, attempt, now)]))


def _walked(trace: Trace) -> Iterable[tuple[str, str]]:
    for step in trace.steps:
        if found := _STEP.fullmatch(step.where):
            yield found[1], found[2]


def _differs(place: tuple[str, str], now: Chain | None, ruleset: Rules, is_known: bool) -> bool:
    if now is None or not is_known:
        # iptables-save leaves out a table that nobody has touched; its chains are empty and accept.
        missing = now if now is not None else Chain("", ruleset.policy(*place), _texts(ruleset, place))
        return bool(missing.rules) or missing.policy == "DROP"
    return now.policy != ruleset.policy(*place) or tuple(map(_plain, now.rules)) != _texts(ruleset, place)


def _texts(ruleset: Rules, place: tuple[str, str]) -> tuple[str, ...]:
    return tuple(_plain(text) for _, text in ruleset.lines(*place))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _gone(events: Iterable[Event], attempt: Attempt, now: Mapping[tuple[str, str], Chain]) -> Iterable[str]:
    """Rules in the trace that are not those that were listed before the packet was sent."""
    numbers = rule_numbers(attempt.handles)
    for item in events:
        if item.kind != "rule" or (item.table, item.chain) not in now:
            continue
        chain, number = numbers.get((item.family, item.table, item.handle), ("", 0))
        rules = now[item.table, item.chain].rules
        if chain != item.chain or number > len(rules) or _plain(rules[number - 1]) != _plain(item.text):
            yield f"{item.table} {item.chain} (handle {item.handle})"
