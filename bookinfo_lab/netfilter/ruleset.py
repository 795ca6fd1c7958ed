"""The rules of one network namespace, read from what iptables-save or ip6tables-save prints.

Pure.  Text comes in, a `Ruleset` goes out: an index of lines per chain at once, rules when somebody enters their
chain, because a node of 10,000 Services has 181,000 of them and one packet meets forty.  A line that is not of the
form is refused at once with its number; a rule that cannot be read when it is entered, or by `errors`.
"""

import gc
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bookinfo_lab.errors import LabError, ParseError

from .format_rule import format_rule
from .parse_rule import parse_rule
from .rule import Rule
from .saved import Backend, Saved

if TYPE_CHECKING:
    from bookinfo_lab.trace import Trace

    from .facts import Facts
    from .packet import Packet
    from .sieve import Program

_RULE = re.compile(r"(?:\[(\d+:\d+)\] )?-A \S+\s?(.*)")


class _Chain:
    """A chain that somebody entered: its lines, and the rules of those that were read."""

    __slots__ = ("cache", "lines", "name", "numbers")

    def __init__(self, name: str, lines: list[str], numbers: Sequence[int]) -> None:
        self.name, self.lines, self.numbers = name, lines, numbers
        self.cache: dict[int, Rule] = {}

    def numbered(self) -> Iterable[tuple[int, str]]:
        """The lines with their numbers, from 1, in the text."""
        return zip(self.numbers, self.lines, strict=True)


class Ruleset:
    """Tables, chains and rules.

    ``warnings`` are what the text warns of; ``facts`` the netns's own, if known; ``version`` the IP version whose tool
    the text says it is from, ``backend`` that tool's kind.  ``programs`` are the chains that walks have made ready.
    """

    def __init__(self, saved: Saved, facts: "Facts | None" = None) -> None:
        self._saved, self._entered = saved, dict[tuple[str, str], _Chain]()
        self.warnings, self.facts, self.version = tuple(saved.warnings), facts, saved.version
        self.backend: Backend = saved.backend
        self.programs: dict[tuple[str, str], Program] = {}

    @property
    def source(self) -> str:
        """What the text came from, for messages."""
        return self._saved.source

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables in the text's order."""
        return tuple(self._saved.tables)

    def chains(self, table: str) -> Collection[str]:
        """The names of a table's chains in the text's order; empty where there is no such table."""
        found = self._saved.tables.get(table)
        return found.policies.keys() if found is not None else ()

    def policy(self, table: str, chain: str) -> str:
        """ACCEPT or DROP for a base chain, ``-`` for one that is jumped to."""
        self._check(table, chain)
        return self._saved.tables[table].policies[chain]

    def count(self, table: str, chain: str) -> int:
        """How many rules a chain has; none of them is parsed for it."""
        self._check(table, chain)
        return self._saved.count(table, chain)

    def lines(self, table: str, chain: str) -> tuple[tuple[int, str], ...]:
        """(line number from 1, text after ``-A CHAIN``) of each rule, unparsed."""
        return tuple((number, _parted(line)[1]) for number, line in self._chain(table, chain).numbered())

    def raw(self, table: str, chain: str) -> str:
        """The lines of a chain's rules, whole, as they were given."""
        self._check(table, chain)
        return self._saved.raw(table, chain)

    def rules(self, table: str, chain: str) -> tuple[Rule, ...]:
        """The rules of a chain in order.  Raises `ParseError` for the first that cannot be read."""
        found = self._chain(table, chain)
        return tuple(self._rule(table, found, index) for index in range(len(found.lines)))

    def rule(self, where: str) -> Rule:
        """The rule at ``TABLE CHAIN NUMBER``, as steps of a walk name it."""
        try:
            table, chain, number = where.split()
            index = int(number) - 1
        except ValueError:
            raise LabError(f"{where!r} names no rule: give TABLE CHAIN NUMBER") from None
        count = len(self._chain(table, chain).lines)
        if not 0 <= index < count:
            raise LabError(f"{table} {chain} has {count} rules: there is no number {number}")
        return self.rule_at(table, chain, index)

    def rule_at(self, table: str, chain: str, index: int) -> Rule:
        """The rule of a chain that stands ``index`` rules after its first.  Raises `ParseError` as `rules` does."""
        return self._rule(table, self._chain(table, chain), index)

    def every_rule(self) -> Iterator[Rule]:
        """All rules in the text's order.  Raises `ParseError` for the first that cannot be read."""
        for table in self.tables:
            for chain in self.chains(table):
                yield from self.rules(table, chain)

    def errors(self) -> tuple[ParseError, ...]:
        """What cannot be read, in all chains, entered or not: reads every rule."""
        found = []
        with _no_collection():
            for table in self.tables:
                for name in self.chains(table):
                    chain = self._chain(table, name)
                    for index in range(len(chain.lines)):
                        try:
                            self._rule(table, chain, index)
                        except ParseError as error:
                            found.append(error)
        return tuple(sorted(found, key=lambda error: error.position))

    def unmodelled(self) -> tuple[tuple[Rule, str], ...]:
        """Each rule with something that is kept but not modelled, and what that is.  Raises as `rules` does."""
        return tuple((rule, what) for rule in self.every_rule() for what in rule.unmodelled)

    def format(self) -> str:
        """The whole ruleset as iptables-restore takes it, built from parsed values; counters at zero."""
        found: list[str] = []
        for table in self.tables:
            chains = self.chains(table)
            found.append(f"*{table}")
            found += [f":{chain} {self.policy(table, chain)} [0:0]" for chain in chains]
            for chain in chains:
                found += [f"-A {chain} {format_rule(rule)}".rstrip() for rule in self.rules(table, chain)]
            found.append("COMMIT")
        return "".join(f"{line}\n" for line in found)

    def walk(self, packet: "Packet") -> "Trace":
        """Where ``packet`` goes, and why: every branch with its probability (`walk.walk`)."""
        from .walk import walk

        return walk(self, packet)

    def _check(self, table: str, chain: str) -> None:
        names = self.chains(table)
        if chain not in names:
            have = ", ".join(list(names or self.tables)[:8])
            raise LabError(f"{self.source} has no chain {chain!r} in table {table!r}; it has: {have}")

    def _chain(self, table: str, chain: str) -> _Chain:
        found = self._entered.get((table, chain))
        if found is None:
            self._check(table, chain)
            found = self._entered[table, chain] = _Chain(chain, *self._saved.lines(table, chain))
        return found

    def _rule(self, table: str, chain: _Chain, index: int) -> Rule:
        if index in chain.cache:
            return chain.cache[index]
        number, line = chain.numbers[index], chain.lines[index]
        try:
            counted, text = _parted(line)
            rule = parse_rule(text, table, chain.name, index + 1, number, _counters(counted))
        except ValueError as reason:
            raise ParseError(self.source, number, line, str(reason)) from None
        chain.cache[index] = rule
        return rule


def parse(text: str, source: str = "iptables-save", facts: "Facts | None" = None) -> Ruleset:
    """The ruleset in ``text``, with counters or without, of the legacy or the nft tools.

    Raises `ParseError` with ``source`` and the line: one that is none of ``*table``, ``:chain``, ``-A``, ``COMMIT`` and
    ``#``, a rule of a chain that was not declared, a table that does not end.  A table that comes twice is kept as one
    only where one of the two is empty: a text that holds the legacy tools' rules and the nft tools' is refused, since
    the kernel asks both.
    """
    return Ruleset(Saved(text, source), facts)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, whose passes over what is kept double the time of reading every rule."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parted(line: str) -> tuple[str, str]:
    """A rule's counters as ``PACKETS:BYTES``, "" where there are none, and its text after ``-A CHAIN``."""
    match = _RULE.fullmatch(line.rstrip("\r"))
    assert match is not None  # the index found it by its beginning
    return match[1] or "", match[2]


def _counters(text: str) -> tuple[int, int] | None:
    packets, _, count = text.partition(":")
    if max(len(packets), len(count)) > 20:
        raise ValueError("a counter has more than 64 bits")
    return (int(packets), int(count)) if text else None
