"""Tables: a pandas DataFrame that knows its evidence and shows nothing unescaped.

Leaf; importing it imports pandas.  Cells keep their values; only the two representations escape and shorten.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas

from bookinfo_lab.kube import columns
from bookinfo_lab.show import escape, style
from bookinfo_lab.sources.base import Evidence

LONGEST_CELL = 160
MOST_ROWS = 60


class Table(pandas.DataFrame):  # type: ignore[misc]
    """A DataFrame with ``.evidence`` and ``.command``, the line that gets it by hand."""

    _metadata = ["evidence", "command"]  # noqa: RUF012 - pandas copies these attributes to every selection
    evidence: Evidence | None
    command: str

    @property
    def _constructor(self) -> type["Table"]:
        return Table

    def __repr__(self) -> str:
        heads, rows = _cells(self)
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (heads, *rows)]
        lines = ["   ".join(row) for row in padded]
        command = getattr(self, "command", "")
        above = [f"$ {escape.text(command)}"] if command else []
        return "\n".join([*above, *(line.rstrip() for line in lines), *_note(self)])

    def _repr_html_(self) -> str:
        heads, rows = _cells(self, escape.html)
        command = getattr(self, "command", "")
        caption = style.command(escape.html(command)) if command else ""
        head = "".join(f'<th scope="col" style="{style.CELL}">{cell}</th>' for cell in heads)
        body = "".join(
            "<tr>" + "".join(f'<td style="{style.CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows
        )
        notes = "".join(f'<p style="margin: 0; {style.QUIET}">{escape.html(note)}</p>' for note in _note(self))
        return (
            f'<figure style="{style.FIGURE}">{caption}<div style="overflow-x: auto" tabindex="0" role="group" '
            f'aria-label="table"><table style="border-collapse: collapse; {style.TEXT}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>{notes}</figure>"
        )


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], evidence: Evidence | None, command: str) -> Table:
    """A Table of rows, each as long as ``heads``, the names of its columns."""
    made = Table(list(rows), columns=list(heads))
    made.evidence, made.command = evidence, command
    return made


def of_objects(resource: str, evidence: Evidence, now: float) -> Table:
    """The API objects of ``evidence`` in kubectl's columns; ages count to ``now``, in Unix seconds."""
    sheet = columns.of(resource, json.loads(evidence.raw)["items"], now)
    return table(sheet.columns, sheet.rows, evidence, evidence.command)


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
    return table(("interface", "state", "MAC", "addresses"), rows, evidence, evidence.command)


def _cells(shown: pandas.DataFrame, safe: Any = escape.text) -> tuple[list[str], list[list[str]]]:
    """Column names and the first rows' cells, as text; an index that says something is the first column."""
    part = shown.head(MOST_ROWS)
    has_index = not isinstance(part.index, pandas.RangeIndex) and part.index.name is not None
    heads = [safe(name, LONGEST_CELL) for name in part.columns]
    rows = [[safe(value, LONGEST_CELL) for value in row] for row in part.itertuples(index=False, name=None)]
    if has_index:
        heads = [safe(part.index.name, LONGEST_CELL), *heads]
        rows = [[safe(label, LONGEST_CELL), *row] for label, row in zip(part.index, rows, strict=True)]
    return heads, rows


def _note(shown: pandas.DataFrame) -> list[str]:
    left = len(shown) - MOST_ROWS
    return [f"… {left:,} more rows"] if left > 0 else ([] if len(shown) else ["(no rows)"])
