"""A slice as plain text: a tree of chains, and rows for a table.  Leaf; every line passes `escape`."""

from collections.abc import Iterator, Sequence

from bookinfo_lab import escape
from bookinfo_lab.netfilter.slice import Line, Slice

HEADS = ("branch", "where", "matched", "meaning", "changes", "then", "rule")
LONGEST_LINE = 500
DEEPEST = 24  # columns of indentation at most: a deeper line is not further right
_MATCHED = {"rule": "yes", "open": "cannot be told", "skipped": "no"}


def tree(given: Slice, most: int | None = None) -> str:
    """The slice as lines, a chain that is jumped to below the rule that jumps; the first ``most`` of them."""
    lines = given.lines if most is None else given.lines[:most]
    left = len(given.lines) - len(lines)
    shown = [f"{'  ' * min(line.depth, DEEPEST)}{escape.text(words(line), LONGEST_LINE)}" for line in lines]
    return "\n".join([*shown, *([f"… {left:,} more lines"] if left else [])])


def words(line: Line) -> str:
    """One line in words, not escaped."""
    if line.kind == "chain":
        return f"{line.where}:" if line.says != "goes on" else f"{line.where} goes on:"
    if line.kind == "skipped":
        return f"({line.says})"
    if line.kind == "outcome":
        return f"=> {line.where}. {line.says}"
    if line.kind == "otherwise":
        return line.says
    condition = f"[{line.condition}] " if line.condition else ""
    doubt = "cannot be told whether it matches: " if line.kind == "open" else ""
    changed = f" ({line.changes})" if line.changes else ""
    number = f"{line.where.split()[2]}. " if line.kind in ("rule", "open") else ""
    return f"{number}{condition}{doubt}{line.says}{changed}"


def rows(given: Slice) -> Iterator[Sequence[str]]:
    """A row under `HEADS` for each line that is at a rule, a policy or a decision."""
    for line in given.lines:
        if line.kind in ("rule", "open", "skipped", "policy", "place"):
            meaning = f"[{line.condition}] {line.says}" if line.condition else line.says
            matched = _MATCHED.get(line.kind, "")
            yield (given.leads_to(line) or "all", line.where, matched, meaning, line.changes, line.verdict, line.text)
