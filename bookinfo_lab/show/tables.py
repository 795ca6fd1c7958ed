"""Tables that know their evidence and show nothing unescaped.

Leaf.  A Table is shown without pandas, whose import alone takes longer than everything else; asked for anything else,
it is the pandas DataFrame that ``frame`` makes of it.  Cells keep their values; only what is shown is escaped.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bookinfo_lab import escape
from bookinfo_lab.kube import columns
from bookinfo_lab.show import style
from bookinfo_lab.sources.base import Evidence

if TYPE_CHECKING:
    from bookinfo_lab.show.frames import Frame

LONGEST_CELL = 160
MOST_ROWS = 60


class Table:
    """Rows under the names of columns; ``command`` is the line that gets the evidence by hand.

    Whatever a DataFrame can do (``table["READY"]``, ``table.loc[…]``, ``table.groupby(…)``) this can; pandas' own
    functions take ``table.frame``.
    """

    def __init__(
        self, heads: Sequence[str], rows: Iterable[Sequence[Any]], evidence: Evidence | None, command: str
    ) -> None:
        self.heads, self.rows = tuple(heads), tuple(map(tuple, rows))
        self.evidence, self.command = evidence, command

    @cached_property
    def frame(self) -> "Frame":
        """The same as a pandas DataFrame, which escapes what it shows too."""
        from bookinfo_lab.show.frames import Frame

        made = Frame(list(self.rows), columns=list(self.heads))
        made.attrs["command"] = self.command
        return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what Python and IPython look for to show or copy a thing is not pandas' to answer
            raise AttributeError(name)
        return getattr(self.frame, name)

    def __getitem__(self, key: Any) -> Any:
        return self.frame[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.heads)

    def __repr__(self) -> str:
        return as_text(self.heads, self.rows[:MOST_ROWS], len(self.rows), self.command, self._missing)

    def _repr_html_(self) -> str:
        return as_html(self.heads, self.rows[:MOST_ROWS], len(self.rows), self.command, self._missing)

    @property
    def _missing(self) -> tuple[str, ...]:
        return self.evidence.missing if self.evidence is not None else ()


def of_objects(resource: str, evidence: Evidence, now: float) -> Table:
    """The API objects of ``evidence`` in kubectl's columns; ages count to ``now``, in Unix seconds."""
    sheet = columns.of(resource, columns.read(resource, evidence.raw), now)
    return Table(sheet.columns, sheet.rows, evidence, evidence.command)


def of_addresses(evidence: Evidence) -> Table:
    """What ``ip -j addr`` printed: a row for each interface, with its state, MAC address and IP addresses."""
    links = json.loads(evidence.raw or b"[]")
    rows = [
        (
            link.get("ifname", ""),
            link.get("operstate", ""),
            link.get("address", ""),
            ", ".join(f"{item.get('local', '')}/{item.get('prefixlen', '')}" for item in link.get("addr_info", ())),
        )
        for link in links
    ]
    return Table(("interface", "state", "MAC", "addresses"), rows, evidence, evidence.command)


def as_text(
    heads: Sequence[Any], rows: Sequence[Sequence[Any]], count: int, command: str, missing: Sequence[str] = ()
) -> str:
    """``rows``, the first of ``count``, in aligned columns below the command; ``missing``: why some are not there."""
    cells = [[escape.text(cell, LONGEST_CELL) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    lines = ["   ".join(row).rstrip() for row in padded]
    return "\n".join([*([f"$ {escape.text(command)}"] if command else []), *lines, *_notes(len(rows), count, missing)])


def as_html(
    heads: Sequence[Any], rows: Sequence[Sequence[Any]], count: int, command: str, missing: Sequence[str] = ()
) -> str:
    """The same as an HTML table."""
    caption = style.command(escape.html(command)) if command else ""
    head = "".join(f'<th scope="col" style="{style.CELL}">{escape.html(cell, LONGEST_CELL)}</th>' for cell in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{style.CELL}">{escape.html(cell, LONGEST_CELL)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    every = map(escape.html, _notes(len(rows), count, missing))
    notes = "".join(f'<p style="margin: 0; {style.QUIET}">{note}</p>' for note in every)
    return (
        f'<figure style="{style.FIGURE}">{caption}<div style="overflow-x: auto" tabindex="0" role="group" '
        f'aria-label="table"><table style="border-collapse: collapse; {style.TEXT}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{notes}</figure>"
    )


def _notes(shown: int, count: int, missing: Sequence[str]) -> list[str]:
    rows = [f"… {count - shown:,} more rows"] if count > shown else ([] if count else ["(no rows)"])
    return [*rows, *(f"not all: {escape.text(why)}" for why in missing)]
