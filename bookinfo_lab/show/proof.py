"""A proof, shown: the walk's steps and the kernel's events side by side, with the verdict above them in words.

Leaf.  The verdict, its reason and the rows are `netfilter.proof`'s; this only escapes and lays them out.
"""

from typing import Any

from bookinfo_lab import escape
from bookinfo_lab.netfilter import proof
from bookinfo_lab.netfilter.side_by_side import Row
from bookinfo_lab.show import style
from bookinfo_lab.sources.base import Evidence

LONGEST_CELL = 300
MOST_ROWS = 200
_HEADS = ("where", "the walk says", "the kernel did", "compared", "rule")


class Proof:
    """Whether kernel and walk agree about one packet; ``found`` is the comparison, ``evidence`` what it rests on.

    It is true where they agree.
    """

    def __init__(self, found: proof.Proof, evidence: Evidence) -> None:
        self.found, self.evidence, self.command = found, evidence, evidence.command

    @property
    def verdict(self) -> str:
        """``agree``, ``differ``, ``not seen`` or ``not run``."""
        return self.found.verdict

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        return self.found.reason

    @property
    def branch(self) -> tuple[int, int] | None:
        """(n, of how many): the walk's outcome that the kernel took."""
        return self.found.branch

    @property
    def rows(self) -> tuple[Row, ...]:
        """The steps in the packet's order."""
        return self.found.rows

    def as_document(self) -> dict[str, Any]:
        """The comparison as one JSON document."""
        return self.found.as_document()

    def __bool__(self) -> bool:
        return bool(self.found)

    def __repr__(self) -> str:
        lines = self.found.as_text().split("\n")
        return "\n".join([f"$ {escape.text(self.command)}", *(escape.text(line) for line in lines)])

    def _repr_html_(self) -> str:
        found = self.found
        notes = [found.question, *found.notes, *([f"{found.took_ms:.0f} ms"] if found.took_ms else [])]
        left = len(found.rows) - MOST_ROWS
        notes += [f"… {left:,} more rows; .rows has them all"] if left > 0 else []
        said = "".join(f'<p style="margin: 0; {style.QUIET}">{escape.html(note)}</p>' for note in notes)
        verdict = f"<strong>{escape.html(found.headline)}</strong>: {escape.html(found.reason)}"
        return (
            f'<figure style="{style.FIGURE}">{style.command(escape.html(self.command))}'
            f'<p style="margin: 0.3em 0; {style.TEXT}">{verdict}</p>{said}{self._table()}</figure>'
        )

    def _table(self) -> str:
        if not self.found.rows:
            return ""
        heads = "".join(f'<th scope="col" style="{style.CELL}">{head}</th>' for head in _HEADS)
        rows = "".join(_row(row) for row in self.found.rows[:MOST_ROWS])
        return (
            f'<div tabindex="0" style="overflow-x: auto"><table style="border-collapse: collapse; {style.TEXT}">'
            f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        )


def _row(row: Row) -> str:
    cells = (row.predicted, row.kernel, _word(row), row.text)
    shown = "".join(f'<td style="{style.CELL}">{escape.html(cell, LONGEST_CELL)}</td>' for cell in cells)
    return f'<tr><th scope="row" style="{style.CELL}">{escape.html(row.where, LONGEST_CELL)}</th>{shown}</tr>'


def _word(row: Row) -> str:
    """What the comparison of one row says, in a word: a colour would not be read by everybody."""
    if row.same is None:
        return ""
    if row.same:
        return "= same"
    if not row.predicted:
        return "≠ not predicted"
    return "≠ differs" if row.kernel else "≠ not seen"
