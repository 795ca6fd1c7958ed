"""A rule as parsed values: conditions, target, where it stands.

Pure.  What iptables-save prints in one line becomes a Rule; `format_rule` builds the line from the values alone, never
from the text that is kept beside them.
"""

from dataclasses import dataclass, field
from typing import Any

Value = Any  # what the option's kind in `vocabulary` parses to; the words as text where the option is not modelled


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a match or target: ``--dport 80`` is ``Option("--dport", (PortRange(80, 80),))``.

    ``negated`` where ``!`` stands with it.  ``known`` is False where `vocabulary` does not model the option; ``values``
    are then its words.
    """

    name: str
    values: tuple[Value, ...] = ()
    negated: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """A match and its options; ``module`` is "" for those of the rule itself (-s, -d, -i, -o, -p, -f).

    The option after which a module is loaded twice starts a second Match of that module.
    """

    module: str
    options: tuple[Option, ...]

    def option(self, name: str) -> Option | None:
        """The first option of that name."""
        return next((item for item in self.options if item.name == name), None)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of (``table``, ``chain``); ``number`` counts from 1 in its chain, ``line`` from 1 in its text.

    ``target`` is "" where there is none (the rule only counts); ``is_goto`` where it stood after ``-g``.  ``counters``
    are (packets, bytes) where they were printed.  ``text`` is the rule as it was read, after ``-A CHAIN``.
    """

    table: str
    chain: str
    number: int
    matches: tuple[Match, ...]
    target: str = ""
    is_goto: bool = False
    target_options: tuple[Option, ...] = ()
    counters: tuple[int, int] | None = field(default=None, compare=False)
    line: int = field(default=0, compare=False)
    text: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """``TABLE CHAIN NUMBER``, as steps of a walk name it."""
        return f"{self.table} {self.chain} {self.number}"

    def option(self, name: str) -> Option | None:
        """The first option of that name among the matches."""
        return next((item for match in self.matches for item in match.options if item.name == name), None)

    def target_option(self, name: str) -> Option | None:
        """The target's first option of that name."""
        return next((item for item in self.target_options if item.name == name), None)

    @property
    def comment(self) -> str:
        """The text of ``-m comment``, "" where there is none."""
        found = self.option("--comment")
        return str(found.values[0]) if found else ""

    @property
    def unmodelled(self) -> tuple[str, ...]:
        """What of this rule is kept but not modelled: ``-m MODULE``, ``-m MODULE --option``, ``-j TARGET --option``."""
        found = [
            f"-m {match.module} {item.name}".strip()
            for match in self.matches
            for item in match.options
            if not item.known
        ]
        found += [f"-j {self.target} {item.name}" for item in self.target_options if not item.known]
        return tuple(found)
