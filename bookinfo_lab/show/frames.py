"""A pandas DataFrame that shows nothing unescaped.  Leaf; importing it imports pandas."""

from collections.abc import Sequence
from typing import Any

import pandas

from bookinfo_lab.show import tables


class Frame(pandas.DataFrame):  # type: ignore[misc]
    """What a `Table` is to pandas; selections of it are Frames too."""

    @property
    def _constructor(self) -> type["Frame"]:
        return Frame

    def __repr__(self) -> str:
        return tables.as_text(*_shown(self))

    def _repr_html_(self) -> str:
        return tables.as_html(*_shown(self))


def _shown(frame: Frame) -> tuple[Sequence[Any], Sequence[Sequence[Any]], int, str]:
    """Column names, the first rows, how many there are, and the command; an index that has a name comes first."""
    part = frame.head(tables.MOST_ROWS)
    named = part.index.name is not None
    heads = [*([part.index.name] if named else []), *part.columns]
    rows = list(part.itertuples(index=named, name=None))
    return heads, rows, len(frame), str(frame.attrs.get("command", ""))
