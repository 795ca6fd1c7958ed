"""A slice as boxes: one for each stay in a chain, each decision, each outcome; what both drawings are made from.

Leaf, standard library alone.  Texts are not escaped yet.
"""

from dataclasses import dataclass, field
from typing import Literal

from bookinfo_lab.netfilter.slice import Line, Slice


@dataclass(frozen=True, slots=True)
class Row:
    """A line in a chain's box: the rule's number, its sentence, what it changed."""

    number: str
    says: str
    changes: str
    is_quiet: bool


@dataclass(slots=True)
class Box:
    """``source`` is the number of the box that leads here, -1 for none; ``condition`` is written at the arrow.

    ``verdict`` is that of an outcome.
    """

    kind: Literal["chain", "place", "outcome"]
    title: str
    depth: int
    source: int
    condition: str = ""
    verdict: str = ""
    rows: list[Row] = field(default_factory=list)


def boxes(given: Slice, most: int | None = None) -> tuple[list[Box], int]:
    """The boxes of the first ``most`` lines, in the order in which they are entered; how many lines are left out."""
    lines = given.lines if most is None else given.lines[:most]
    made: list[Box] = []
    holder: list[int] = []  # of each line, its box
    conditions: list[str] = []  # of each line, the condition of the branch that goes on below it
    for line in lines:
        source = holder[line.source] if line.source >= 0 else -1
        condition = conditions[line.source] if line.source >= 0 else ""
        open_box = made[-1] if made else None
        if line.kind in ("rule", "open", "skipped", "policy"):
            if open_box is None or open_box.kind != "chain" or source != len(made) - 1:
                made.append(Box("chain", _chain_of(line), max(0, line.depth - 1), source, condition))
            made[-1].rows.append(_row(line))
        elif line.kind == "chain":
            title = f"{line.where}, continued" if line.says == "goes on" else line.where
            made.append(Box("chain", title, line.depth, source, condition))
        elif line.kind == "otherwise":
            title = f"{line.where}, continued" if line.where else "otherwise"
            kind: Literal["chain", "place"] = "chain" if line.where else "place"
            depth = max(0, line.depth - 1) if line.where else line.depth
            made.append(Box(kind, title, depth, source, line.says))
        elif line.kind == "place":
            made.append(Box("place", line.says, line.depth, source, line.condition or condition))
        else:
            made.append(Box("outcome", f"{line.where}. {line.says}", line.depth, source, condition, line.verdict))
        holder.append(len(made) - 1)
        conditions.append(line.condition if line.kind in ("rule", "open") else "")
    return made, len(given.lines) - len(lines)


def _chain_of(line: Line) -> str:
    words = [word for word in line.where.split() if word != "policy"]
    return " ".join(words[:2]) + ", continued"


def _row(line: Line) -> Row:
    if line.kind == "skipped":
        return Row("", f"{line.says}.", "", True)
    number = line.where.split()[2] if line.kind != "policy" else ""
    says = f"Cannot be told whether it matches: {line.says}" if line.kind == "open" else line.says
    return Row(number, says, line.changes, line.kind == "policy")
