"""A slice as a graph in graphviz' DOT language: boxes as nodes, in order; every text passes `escape`.

Leaf, standard library alone.  Rows are left-aligned lines of a node's label.
"""

from bookinfo_lab import escape
from bookinfo_lab.netfilter.slice import Slice
from bookinfo_lab.show.slice_boxes import Box, boxes
from bookinfo_lab.show.text_width import wrap

_SHAPES = {"chain": "box", "place": "plain", "outcome": "octagon"}
_COLUMNS = 90


def dot(given: Slice, title: str) -> str:
    """The text for ``dot -Tsvg``; ``title`` is the graph's label."""
    made, _ = boxes(given)
    lines = [
        "digraph walk {",
        f'  graph [label="{_quoted(escape.text(title))}", labelloc="t", rankdir="TB"];',
        '  node [fontname="sans-serif", fontsize="11"];',
        '  edge [fontname="sans-serif", fontsize="10"];',
    ]
    for number, box in enumerate(made):
        lines.append(f'  b{number} [shape="{_SHAPES[box.kind]}", label="{_label(box)}"];')
    for number, box in enumerate(made):
        if box.source >= 0:
            said = f' [label="{_quoted(escape.text(box.condition, 200))}"]' if box.condition else ""
            lines.append(f"  b{box.source} -> b{number}{said};")
    return "\n".join([*lines, "}", ""])


def _label(box: Box) -> str:
    rows = [box.title]
    for row in box.rows:
        changed = f" ({row.changes})" if row.changes else ""
        rows.append(f"{row.number + '. ' if row.number else ''}{row.says}{changed}")
    folded = [line for row in rows for line in wrap(escape.text(row, 600), _COLUMNS, len)]
    return "".join(f"{_quoted(line)}\\l" for line in folded)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
