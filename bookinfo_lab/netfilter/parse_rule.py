"""One rule's text, as iptables-save prints it after ``-A CHAIN``, to a `Rule`.

Pure.  Any syntax that iptables' tools have printed: ``! -s`` and the old ``-s !``, quotes with escapes, options in any
order.  Raises ValueError with a clause that says what is wrong; `ruleset` adds where.
"""

import re

from . import vocabulary
from .kinds import Kind, plain
from .rule import Match, Option, Rule

MOST_WORDS = 1000
_WORD = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^\s"])+')
_PART = re.compile(r'"((?:\\.|[^"\\])*)"|([^"]+)')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def words(text: str) -> list[str]:
    """The words of a rule; what stands in quotes is one word, in which a backslash makes the next character plain."""
    if '"' not in text:
        return text.split()
    if text.count('"') % 2 and "\\" not in text:
        raise ValueError("a quote is not closed")
    found = []
    end = 0
    for match in _WORD.finditer(text):
        if text[end : match.start()].strip():
            raise ValueError("a quote is not closed")
        end = match.end()
        word = match[0]
        found.append("".join(_unquoted(part) for part in _PART.finditer(word)) if '"' in word else word)
    if text[end:].strip():
        raise ValueError("a quote is not closed")
    return found


def _unquoted(part: "re.Match[str]") -> str:
    return part[2] if part[1] is None else _ESCAPE.sub(r"\1", part[1])


def parse_rule(
    text: str,
    table: str,
    chain: str,
    number: int,
    line: int = 0,
    counters: tuple[int, int] | None = None,
) -> Rule:
    """The rule in ``text``, which stands after ``-A CHAIN``; see the module for what is raised."""
    given = words(text)
    if len(given) > MOST_WORDS:
        raise ValueError(f"a rule of {len(given):,} words: iptables takes none of more than 255")
    return _Reader(given).rule(text, table, chain, number, line, counters)


class _Reader:
    """The words of one rule, taken from the left."""

    def __init__(self, given: list[str]) -> None:
        self._words, self._next = given, 0
        self._own: list[Option] = []
        self._matches: list[tuple[str, list[Option]]] = []
        self._target, self._is_goto, self._target_options = "", False, list[Option]()

    def rule(self, text: str, table: str, chain: str, number: int, line: int, counters: tuple[int, int] | None) -> Rule:
        while self._next < len(self._words):
            self._take()
        matches = [Match(module, tuple(options)) for module, options in self._matches]
        own = [Match("", tuple(self._own))] if self._own else []
        targets = tuple(self._target_options)
        return Rule(table, chain, number, (*own, *matches), self._target, self._is_goto, targets, counters, line, text)

    def _word(self, after: str) -> str:
        if self._next >= len(self._words):
            raise ValueError(f"nothing stands after {after}")
        self._next += 1
        return self._words[self._next - 1]

    def _take(self) -> None:
        negated = self._words[self._next] == "!"
        name = self._word("!") if not negated else (self._word("!"), self._word("!"))[1]
        if not self._matches or name not in vocabulary.MATCHES.get(self._matches[-1][0], {}):
            name = vocabulary.LONG_FORMS.get(name, name)  # a match's own option of that name comes first
        if name in ("-m", "-j", "-g") and negated:
            raise ValueError(f"! cannot stand before {name}")
        if name == "-m":
            self._matches.append((plain(self._word("-m")), []))
        elif name in ("-j", "-g"):
            if self._target:
                raise ValueError("a rule has one target")
            self._target, self._is_goto = plain(self._word(name)), name == "-g"
        elif not name.startswith("-") or len(name) < 2:
            raise ValueError(f"{name!r} stands where an option was expected")
        else:
            self._option(plain(name), negated)

    def _option(self, name: str, negated: bool) -> None:
        kind, into = self._kind(name)
        if self._is_negated_value() and (kind is None or kind.words):
            self._next += 1
            negated = True
        if kind is None:
            into.append(Option(name, self._unknown(), negated, known=False))
            return
        given = [self._word(name) for _ in range(kind.words)]
        try:
            values = kind.parse(*given)
        except ValueError as reason:
            raise ValueError(f"{name} {' '.join(given)}: {reason}") from None
        into.append(Option(vocabulary.ALIASES.get(name, name), values, negated))

    def _is_negated_value(self) -> bool:
        """As iptables before 1.4.3 printed it: -s ! 10.0.0.0/8; before another option a ! is a text, or that one's."""
        mark, value = [*self._words[self._next : self._next + 2], "", ""][:2]
        return mark == "!" and value not in ("", "!") and not value.startswith("-")

    def _kind(self, name: str) -> tuple[Kind | None, list[Option]]:
        """How the option is written, and where it belongs: the target, a match from the last back, the rule itself."""
        if self._target:
            known = vocabulary.TARGETS.get(self._target, {})
            if name in known:
                return known[name], self._target_options
        if name in vocabulary.RULE:
            return vocabulary.RULE[name], self._own
        alias = vocabulary.ALIASES.get(name, name)
        for module, options in reversed(self._matches):
            known = vocabulary.MATCHES.get(module, {})
            if name in known or alias in known:
                return known.get(name) or known[alias], options
        if self._target:
            known = vocabulary.TARGETS.get(self._target, {})
            return known.get(alias), self._target_options
        protocol = next((str(item.values[0]) for item in self._own if item.name == "-p"), "")
        module = vocabulary.MATCH_ALIASES.get(protocol, protocol)
        if alias in vocabulary.MATCHES.get(module, {}):
            self._matches.append((module, []))
            return vocabulary.MATCHES[module][alias], self._matches[-1][1]
        if self._matches:
            return None, self._matches[-1][1]
        raise ValueError(f"{name} belongs to no match of this rule")

    def _unknown(self) -> tuple[str, ...]:
        start = self._next
        while self._next < len(self._words) and not re.match(r"--?[A-Za-z]|!$", self._words[self._next]):
            self._next += 1
        return tuple(self._words[start : self._next])
