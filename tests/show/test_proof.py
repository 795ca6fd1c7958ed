"""A proof is shown in words, and nothing in it is shown unescaped."""

from bookinfo_lab.netfilter import proof
from bookinfo_lab.netfilter.side_by_side import Row
from bookinfo_lab.show.proof import MOST_ROWS, Proof
from bookinfo_lab.sources.base import Evidence, Query

NASTY = "<script>alert(1)</script>\x1b[31m\u202e"
EVIDENCE = Evidence(Query("prove"), b"", 1.0, "sandbox", f"bookinfo-lab {NASTY}", "kubectl")
ROWS = (
    Row("nat A 1", "-j B", "jump B", "jump B", True),
    Row("nat B 1", "-j DROP", "drop", "accept", False),
    Row("nat B 2", "", "accept", "", False),
    Row("nat B 3", NASTY, "", "accept", False),
    Row("policy mangle INPUT", "", "", "accept", None),
)


def shown(**fields: object) -> Proof:
    given = {"verdict": "differ", "reason": "it is so", "question": "q", "branch": (2, 3), "rows": ROWS} | fields
    return Proof(proof.Proof(**given), EVIDENCE)


def test_each_row_says_in_a_word_what_it_shows() -> None:
    html = shown()._repr_html_()
    rows = html.split("<tr>")[2:]
    assert len(rows) == len(ROWS)
    words = ("= same", "≠ differs", "≠ not seen", "≠ not predicted")
    assert [next((word for word in words if f">{word}</td>" in row), "") for row in rows] == [*words, ""]
    assert html.count('<th scope="row"') == len(ROWS)
    assert html.count('<th scope="col"') == 5
    assert "<strong>differ, branch 2 of 3</strong>: it is so" in html


def test_nothing_is_shown_unescaped() -> None:
    made = shown(rows=(Row(NASTY, NASTY, NASTY, NASTY, False),), question=NASTY, reason=NASTY, notes=(NASTY,))
    assert "<script" not in made._repr_html_()
    assert "\x1b" not in made._repr_html_() + repr(made)
    assert "\u202e" not in made._repr_html_() + repr(made)


def test_a_proof_is_true_only_where_it_agrees() -> None:
    assert [bool(shown(verdict=one)) for one in ("agree", "differ", "not seen", "not run")] == [True, *[False] * 3]


def test_rows_that_are_not_shown_are_counted() -> None:
    html = shown(rows=ROWS * 50)._repr_html_()
    assert html.count('<th scope="row"') == MOST_ROWS
    assert "50 more rows" in html


def test_what_was_not_run_has_no_table() -> None:
    assert "<table" not in shown(verdict="not run", rows=(), branch=None)._repr_html_()
    assert "not run: it is so" in repr(shown(verdict="not run", rows=(), branch=None))
