"""Rules as their words, read without the package under test: which options they hold, which of them stand open.

Pure.  For counting and for shrinking only; nothing here says what a rule means.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel.flow import Visit

# Matches whose answer is chance's, or hangs on what went before.
OPEN_MODULES = frozenset({"statistic", "recent", "limit", "connlimit", "length", "pkttype", "dscp", "tos", "physdev"})
# Targets after which a packet goes on as if the rule had not matched.
_IDLE = {"", "LOG", "NFLOG", "TCPMSS", "CHECKSUM", "CLASSIFY", "TTL", "HL", "DSCP", "TOS", "TRACE"}
CHOICE = re.compile(
    r"--to-(?:destination|source|ports) (?:\S*-\S*:|\[?[^/\s]*-[^/\s]*(?: |$))|--random"
)  # the kernel picks one of several
_SHORT = {"-s", "-d", "-i", "-o", "-p", "-f"}


@dataclass(frozen=True, slots=True)
class Line:
    """A rule: its conditions as (module, option, is negated), its target with the options given to it."""

    text: str
    conditions: tuple[tuple[str, str, bool], ...]
    proto: str
    target: str
    is_goto: bool
    target_options: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether more than the packet decides if it matches or what it writes."""
        return bool(CHOICE.search(self.text)) or self.is_undecided(OPEN_MODULES) or self.is_undecided(("ASSURED",))

    def is_undecided(self, words: Iterable[str]) -> bool:
        """Whether one of ``words`` is a module or value of its conditions, and matters: not where it only counts."""
        if self.target in _IDLE:
            return False
        there = {module for module, _, _ in self.conditions} | set(re.split(r"[ ,]", self.text))
        return not there.isdisjoint(words)


def line(text: str) -> Line:
    """The text after ``-A CHAIN``."""
    words = shlex.split(text)
    conditions: list[tuple[str, str, bool]] = []
    options: list[str] = []
    module = target = proto = ""
    negated = is_goto = False
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "!":
            negated = True
            continue
        if word == "-m":
            module, at = words[at], at + 1
        elif word in ("-j", "-g"):
            target, is_goto, at = words[at], word == "-g", at + 1
        elif word in _SHORT:
            conditions.append(("", word, negated))
            if word == "-p" and not negated:
                proto = words[at]
        elif word.startswith("--") and target:
            options.append(word)
        elif word.startswith("--"):
            conditions.append((module, word, negated))
        negated = False
    return Line(text, tuple(conditions), proto, target, is_goto, tuple(options))


Chains = dict[tuple[str, str], list[Line]]


def chains(text: str) -> Chains:
    """The rules of each (table, chain)."""
    found: Chains = {}
    table = ""
    for item in text.splitlines():
        if item.startswith("*"):
            table = item[1:]
        elif item.startswith(":"):
            found[table, item[1:].split()[0]] = []
        elif item.startswith("-A "):
            _, chain, *rest = item.split(" ", 2)
            found[table, chain].append(line(rest[0] if rest else ""))
    return found


def examined(visits: Sequence[Visit], rules: Chains) -> list[tuple[str, str, int, bool]]:
    """Every rule that the packet met, as (table, chain, number, whether it matched), in order.

    The kernel's trace has the rules that matched; those between them were met and did not.
    """
    found: list[tuple[str, str, int, bool]] = []
    stack: list[tuple[str, int]] = []
    for visit in visits:
        table = visit.table
        if not stack:
            stack = [(visit.chain, 0)]
        chain, last = stack[-1]
        count = len(rules[table, chain])
        upto = visit.number - 1 if visit.kind == "rule" else count
        found += [(table, chain, number, False) for number in range(last + 1, upto + 1)]
        if visit.kind == "policy":
            stack = []
            continue
        if visit.kind == "end":
            stack.pop()
            continue
        found.append((table, chain, visit.number, True))
        word, _, target = visit.verdict.partition(" ")
        stack[-1] = (chain, visit.number)
        if word == "jump":
            stack.append((target, 0))
        elif word == "goto":
            # The policy of a base chain still follows, its other rules do not.
            stack[-1:] = [(chain, count), (target, 0)] if len(stack) == 1 else [(target, 0)]
        elif word == "return":
            stack = [(chain, count)] if len(stack) == 1 else stack[:-1]
        elif word != "continue":
            stack = []
    return found
