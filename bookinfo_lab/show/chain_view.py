"""One page of a chain: its rules from a number on, each with its sentence, what it leads to, and whether it was met.

Leaf.  Only the rules of the page are parsed: a node has chains of ten thousand.  A rule that cannot be read is a row
that says so.
"""

from dataclasses import dataclass

from bookinfo_lab import escape
from bookinfo_lab.errors import ParseError
from bookinfo_lab.netfilter import explain
from bookinfo_lab.netfilter.ruleset import Ruleset
from bookinfo_lab.show import style
from bookinfo_lab.show.met import Met

PAGE = 25
LONGEST_CELL = 600
_WRAPPED = f"{style.CELL}; white-space: pre-wrap; overflow-wrap: anywhere"
_PROSE = f"text-align: left; padding: 0.15em 0.8em 0.15em 0; border-bottom: 1px solid {style.LINE}; vertical-align: top"


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule of the page: ``target`` is the chain that it leads to, "" for none; ``met`` is "" without a walk."""

    number: int
    says: str
    text: str
    target: str
    met: str


@dataclass(frozen=True, slots=True)
class ChainView:
    """A page of a chain; ``count`` is how many rules the whole chain has."""

    table: str
    chain: str
    policy: str
    count: int
    matched: tuple[int, ...] | None
    entries: tuple[Entry, ...]

    @property
    def headline(self) -> str:
        """What is shown, in a sentence; not escaped."""
        if not self.count:
            shown = "no rules"
        else:
            first, last = self.entries[0].number, self.entries[-1].number
            shown = f"{self.count:,} {'rule' if self.count == 1 else 'rules'}"
            if (first, last) != (1, self.count):
                shown += f", {first:,} to {last:,} shown"
        policy = f"; policy {self.policy}" if self.policy != "-" else ""
        return f"{self.table} {self.chain}: {shown}{policy}{self._matched()}"

    def _matched(self) -> str:
        if self.matched is None:
            return ""
        if not self.matched:
            return "; the walk matched none of them"
        numbers = ", ".join(f"{number:,}" for number in self.matched[:12])
        more = f" and {len(self.matched) - 12:,} more" if len(self.matched) > 12 else ""
        return f"; the walk matched {numbers}{more}"

    def __repr__(self) -> str:
        lines = [escape.text(self.headline, LONGEST_CELL)]
        for entry in self.entries:
            met = f"[{entry.met}] " if entry.met else ""
            lines.append(f"  {entry.number}. {escape.text(met + entry.says, LONGEST_CELL)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        heads = ["rule", *(["in the walk"] if self.matched is not None else []), "what it does", "as it is written"]
        head = "".join(f'<th scope="col" style="{style.CELL}">{name}</th>' for name in heads)
        body = "".join(map(self._row, self.entries))
        table = (
            f'<div style="overflow-x: auto" tabindex="0" role="group" aria-label="rules of the chain">'
            f'<table style="border-collapse: collapse; table-layout: auto; width: 100%; {style.TEXT}">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
        title = (
            f'<p style="margin: 0.3em 0; {style.TEXT}"><strong>{escape.html(self.headline, LONGEST_CELL)}</strong></p>'
        )
        return f'<div style="line-height: 1.4; {style.TEXT}">{title}{table if self.entries else ""}</div>'

    def _row(self, entry: Entry) -> str:
        met = ""
        if self.matched is not None:
            is_match = entry.number in self.matched
            said = escape.html(entry.met, LONGEST_CELL)
            met = f'<td style="{_PROSE}; min-width: 7em">{f"<strong>{said}</strong>" if is_match else said}</td>'
        return (
            f'<tr><th scope="row" style="{style.CELL}">{entry.number}</th>{met}'
            f'<td style="{_PROSE}; min-width: 18em">{escape.html(entry.says, LONGEST_CELL)}</td>'
            f'<td style="{_WRAPPED}; min-width: 14em">{escape.html(entry.text, LONGEST_CELL)}</td></tr>'
        )


def view(ruleset: Ruleset, table: str, chain: str, first: int = 1, met: Met | None = None) -> ChainView:
    """The page of a chain that begins with rule ``first``.  Raises `LabError` where there is no such chain."""
    count = ruleset.count(table, chain)
    first = max(1, min(first, count))
    numbers = range(first, min(first + PAGE, count + 1))
    entries = tuple(_entry(ruleset, table, chain, number, met) for number in numbers)
    matched = None if met is None else met.matched(table, chain)
    return ChainView(table, chain, ruleset.policy(table, chain), count, matched, entries)


def _entry(ruleset: Ruleset, table: str, chain: str, number: int, met: Met | None) -> Entry:
    said = met.words(table, chain, number) if met else ""
    try:
        rule = ruleset.rule(f"{table} {chain} {number}")
        target = rule.target if rule.target in ruleset.chains(table) else ""
        return Entry(number, explain.rule(rule, ruleset), rule.text, target, said)
    except ParseError as error:
        return Entry(number, f"This rule cannot be read: {error}", error.text, "", said)
