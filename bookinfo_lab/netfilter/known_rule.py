"""What a program is known to write: a rule's place and content, and what such a rule is for.

Pure.  A table of `Known` is compared with a rule, the first that fits says what the rule is for.  A rule fits where its
table, chain and target, the options that it asks for, and, with `Known.check`, their values are what is written.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .rule import Rule
from .rule_shape import asks, value
from .ruleset import Ruleset

Check = Callable[[Rule, Ruleset | None], bool]


def _anything(_: Rule, __: Ruleset | None) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Known:
    """``place`` is a regular expression for ``TABLE CHAIN TARGET``; groups ``a`` and ``b`` must be the same text.

    ``asks`` are the sets of options that fit, each as words, as `rule_shape.asks` names them.  ``clause`` says what the
    rule is for, ``no_loop`` why it keeps packets from going in circles, "" where it does not.
    """

    place: str
    asks: tuple[str, ...]
    clause: str
    check: Check = _anything
    no_loop: str = ""


def first(table: tuple[Known, ...], rule: Rule, ruleset: Ruleset | None) -> Known | None:
    """The first of ``table`` that ``rule`` is; None where it is none of them."""
    place, asked = f"{rule.table} {rule.chain} {rule.target}", asks(rule)
    for known in table:
        found = re.fullmatch(known.place, place)
        if not found or not any(asked == frozenset(words.split()) for words in known.asks):
            continue
        groups = found.groupdict()
        if groups.get("a") == groups.get("b") and known.check(rule, ruleset):
            return known
    return None


def says(name: str, *wanted: str) -> Check:
    """A check that an option has all of these values."""
    return lambda rule, _: all(text in value(rule, name).split(",") for text in wanted)


def both(*checks: Check) -> Check:
    """A check that holds where all of these hold."""
    return lambda rule, ruleset: all(check(rule, ruleset) for check in checks)
