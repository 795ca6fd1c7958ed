"""A chain made ready for walks: rules and their conditions when one is reached, and which of many can match at all.

Pure.  A node of 10,000 Services has a chain of 10,000 rules that differ in ``-d`` or ``--dport``.  Such a chain is
sorted by them once, from its text, so that a packet meets the few that name its own.
"""

import re
from collections.abc import Sequence

from .matching import Condition, conditions, recent_lists
from .rule import Rule
from .ruleset import Ruleset
from .state import State

LONG = 64  # rules from which on a chain is sorted
# The first group is the one address that a rule asks for, the second the one port, looked for after the last quote.
_KEYS = re.compile(
    r"(?:\[\d+:\d+\] )?-A \S+(?:"
    r" (?:-s \S+ )?-d ([0-9a-f.:]+)/(?:32|128) .*|"
    r'(?: .*"| )(?=[^"\n]*\n)[^"\n]*?(?<= )(?<!! )--dport (\d+)(?![:\d]).*|'
    r".*)\n"
)


class Program:
    """A chain of a ruleset; rules are numbered from 0."""

    __slots__ = ("_by_address", "_by_port", "_more", "_others", "_ready", "_rules", "chain", "count", "table")

    def __init__(self, ruleset: Ruleset, table: str, chain: str) -> None:
        self.table, self.chain, self.count = table, chain, ruleset.count(table, chain)
        self._rules = ruleset
        self._ready: dict[int, tuple[Rule, tuple[Condition, ...], tuple[str, ...]]] = {}
        self._by_address: dict[str, int] = {}
        self._by_port: dict[str, int] = {}
        self._more: dict[str, list[int]] = {}  # the rules before the last that name an address or a port
        self._others: list[int] = []
        if self.count > LONG:
            self._sort()

    def rule(self, index: int) -> tuple[Rule, tuple[Condition, ...], tuple[str, ...]]:
        """A rule, its conditions, and the recent lists it writes to.  Raises `ParseError` where it cannot be read."""
        found = self._ready.get(index)
        if found is None:
            rule = self._rules.rule_at(self.table, self.chain, index)
            found = self._ready[index] = rule, conditions(rule), recent_lists(rule)
        return found

    def candidates(self, state: State) -> Sequence[int]:
        """The rules that can match: all of a short chain, of a long one those that name no other address or port."""
        if self.count <= LONG or state.dst is None:
            return range(self.count)
        found = [*self._named(self._by_address, str(state.dst)), *self._others]
        if state.dport is None:
            found += (index for port in self._by_port for index in self._named(self._by_port, port))
        else:
            found += self._named(self._by_port, str(state.dport))
        return tuple(sorted(found))

    def _named(self, last: dict[str, int], key: str) -> list[int]:
        return [*self._more.get(key, ()), last[key]] if key in last else []

    def _sort(self) -> None:
        keys: list[tuple[str, str]] = _KEYS.findall(self._rules.raw(self.table, self.chain))
        # Python writes an IPv6 address that ends as an IPv4 one otherwise: such a rule is always a candidate.
        self._by_address = {
            key: index for index, (key, _) in enumerate(keys) if key and not ("." in key and ":" in key)
        }
        ported = [(key, index) for index, (address, key) in enumerate(keys) if key]
        self._by_port = dict(ported)
        self._others = [
            index for index, (address, port) in enumerate(keys) if not port and address not in self._by_address
        ]
        if len(self._by_address) + len(ported) + len(self._others) < len(keys):
            self._keep_more([(address, index) for index, (address, _) in enumerate(keys)], self._by_address)
        if len(self._by_port) < len(ported):
            self._keep_more(ported, self._by_port)

    def _keep_more(self, named: list[tuple[str, int]], last: dict[str, int]) -> None:
        """The rules before the last one that name the same."""
        for key, index in named:
            if last.get(key, index) != index:
                self._more.setdefault(key, []).append(index)
