"""docs/rules.md lists what the walk models, no more and no less, and each test that it names is there."""

import re
from pathlib import Path

from bookinfo_lab.netfilter import matching, targets

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")


def rows(title: str) -> list[tuple[str, ...]]:
    part = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]


def test_every_match_that_is_modelled_has_a_row_and_no_other_has() -> None:
    options = {f"`-m {module} {name}`" if module else f"`{name}`" for module, name in matching._MAKERS}
    whole = {f"`-m {module}`" for module in (*matching._WHOLE, *matching._NEEDS_STATE)}
    named = [row[0] for row in rows("Matches")]
    assert sorted(named) == sorted(options | whole)


def test_every_target_that_is_modelled_has_a_row_and_no_other_has() -> None:
    own = {"`-j ACCEPT`", "`-j DROP`", "`-j RETURN`", "`-j CHAIN`", "`-g CHAIN`", "no target"}
    known = {*targets._TRANSLATE, *targets._OTHERS, *targets.WITHOUT_EFFECT} - {""}
    named = [row[0] for row in rows("Targets")]
    assert sorted(named) == sorted(own | {f"`-j {name}`" for name in known})


def test_what_asks_is_said_to_ask() -> None:
    asking = {row[0] for row in rows("Matches") if row[1] == "asks"}
    assert asking == {f"`-m {module}`" for module in matching._NEEDS_STATE}


def test_each_test_that_is_named_is_there() -> None:
    for row in (*rows("Matches"), *rows("Targets")):
        path, _, name = row[2].partition("::")
        text = (ROOT / "tests" / "netfilter" / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE), row
