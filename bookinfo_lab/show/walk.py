"""A walk, shown: how it ends in words first, then the rules that the packet met, drawn and as a table.

Leaf.  The slice is `netfilter.slice`'s; this lays it out.  Whatever comes from rules or a packet is escaped.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from bookinfo_lab import escape
from bookinfo_lab.netfilter.outcome_words import outcome_line, summary
from bookinfo_lab.netfilter.ruleset import Ruleset
from bookinfo_lab.netfilter.slice import Slice, slice_of
from bookinfo_lab.show import slice_dot, slice_svg, slice_text, style
from bookinfo_lab.trace import Outcome, Step, Trace, as_document

if TYPE_CHECKING:
    from bookinfo_lab.show.explorer import Explorer
    from bookinfo_lab.show.tables import Table

MOST_OUTCOMES = 40
MOST_LINES = 100
LONGEST_LINE = 500


class Walk:
    """What `Ruleset.walk` answered about one packet: ``trace`` is the answer, ``ruleset`` the rules that were walked.

    ``command`` is the line that gives the same in a shell, "" where there is none.
    """

    def __init__(self, trace: Trace, ruleset: Ruleset, command: str = "") -> None:
        self.trace, self.ruleset, self.command = trace, ruleset, command

    @property
    def question(self) -> str:
        """What was asked."""
        return self.trace.question

    @property
    def steps(self) -> tuple[Step, ...]:
        """All that was looked at, rules that did not match too, in order."""
        return self.trace.steps

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """How each branch ends."""
        return self.trace.outcomes

    @property
    def assumes(self) -> tuple[str, ...]:
        """What was taken for granted because nothing was said about it."""
        return self.trace.assumes

    @property
    def summary(self) -> str:
        """How it ends, in words, a line for each outcome; not escaped."""
        lines = [outcome_line(outcome) for outcome in self.outcomes]
        if len(lines) == 1:
            return lines[0]
        return "\n".join([summary(self.outcomes), *(f"{number}. {line}" for number, line in enumerate(lines, 1))])

    @cached_property
    def slice(self) -> Slice:
        """Only the rules that the packet met."""
        return slice_of(self.trace, self.ruleset)

    def branch(self, number: int) -> tuple[Step, ...]:
        """The steps that lead to outcome ``number``, counted from 1."""
        return self.trace.branch(self.outcomes[number - 1])

    def table(self) -> "Table":
        """One row a rule that was met, with the numbers of the outcomes that it leads to."""
        from bookinfo_lab.show.tables import Table

        return Table(slice_text.HEADS, slice_text.rows(self.slice), None, self.command)

    def tree(self) -> str:
        """The same as text, a chain below the rule that jumps to it."""
        return slice_text.tree(self.slice)

    def dot(self) -> str:
        """The same for graphviz."""
        return slice_dot.dot(self.slice, self.question)

    def svg(self) -> str:
        """The same as a drawing, to keep in a file or to show."""
        return slice_svg.svg(self.slice, self.question)

    def explore(self) -> "Explorer":
        """The chains to walk through by hand, beginning where this walk began."""
        from bookinfo_lab.show.explorer import Explorer

        return Explorer(self.ruleset, self)

    def as_document(self) -> dict[str, Any]:
        """The trace as one JSON document."""
        return as_document(self.trace)

    def as_text(self, most: int | None = None) -> str:
        """Endings, assumptions and the tree, its first ``most`` lines; escaped, for a terminal."""
        tree = slice_text.tree(self.slice, most)
        return "\n".join([*self._head(), *self._assumed(), *([tree] if tree else [])])

    def __repr__(self) -> str:
        return self.as_text(MOST_LINES)

    def _repr_html_(self) -> str:
        caption = style.command(escape.html(self.command)) if self.command else ""
        return f'<figure style="{style.FIGURE}">{caption}{self._said()}{self._drawn()}</figure>'

    def _head(self) -> list[str]:
        """The command, the question and the endings, escaped for a terminal."""
        lines = [*([f"$ {self.command}"] if self.command else []), self.question, *self._endings()]
        return [escape.text(line, LONGEST_LINE) for line in lines]

    def _endings(self) -> list[str]:
        lines = self.summary.split("\n")
        most = MOST_OUTCOMES + 1
        left = len(lines) - most
        return lines if left <= 0 else [*lines[:most], f"… {left:,} more outcomes; .outcomes has them all"]

    def _assumed(self) -> list[str]:
        return [f"Taken for granted: {escape.text(item, LONGEST_LINE)}" for item in self.assumes]

    def _said(self) -> str:
        first, *others = (escape.html(line, LONGEST_LINE) for line in self._endings())
        items = "".join(f'<li style="list-style: none">{line}</li>' for line in others)
        listed = f'<ul style="margin: 0; padding-left: 1.2em">{items}</ul>' if items else ""
        assumed = "".join(f'<p style="margin: 0; {style.QUIET}">{escape.html(line)}</p>' for line in self._assumed())
        return (
            f'<p style="margin: 0; {style.QUIET}">{escape.html(self.question, LONGEST_LINE)}</p>'
            f'<p style="margin: 0.3em 0; {style.TEXT}"><strong>{first}</strong></p>{listed}{assumed}'
        )

    def _drawn(self) -> str:
        if not self.slice.lines:
            return ""
        drawing = slice_svg.svg(self.slice, f"{self.question} {self.summary}", MOST_LINES)
        return (
            '<div style="overflow-x: auto" tabindex="0" role="group" aria-label="the rules that the packet met">'
            f'{drawing}</div><details style="{style.TEXT}"><summary>The same as a table</summary>'
            f"{self.table()._repr_html_()}</details>"
        )
