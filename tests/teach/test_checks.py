"""What becomes of an answer: not answered, wrong at a step, not checkable, right; and what each verdict says."""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.teach import checks, exercises, progress
from bookinfo_lab.teach.checks import OPEN, RIGHT, STOPPED, WRONG, Step, Verdict, check

MODULE = """
from bookinfo_lab.errors import SourceError
from bookinfo_lab.teach.checks import Step, as_number

def double(lab, answer):
    number = as_number(answer)
    yield Step("your answer is a whole number", number is not None, "Count.")
    yield Step("it is even", number % 2 == 0, "Look: `ps -ef`.")
    yield Step("it is twice what the lab has", number == 2 * lab.count(), "Look: `ls -l`.")

def gone(lab, answer):
    yield Step("your answer is text", isinstance(answer, str))
    raise SourceError("ps -ef", 1, "no such pod")

def broken(lab, answer):
    yield Step("this holds", True)
    raise KeyError("a bug")

def idle(lab, answer):
    yield from ()

CHECKS = {"97-1": double, "97-2": gone, "97-3": broken, "97-4": idle}
"""


class Source:
    description = "a toy"


LAB: Any = SimpleNamespace(source=Source(), count=lambda: 21)


@pytest.fixture(autouse=True)
def toy_exercises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path / "state"))
    (tmp_path / "nb97.py").write_text(MODULE)
    monkeypatch.setattr(exercises, "__path__", [*exercises.__path__, str(tmp_path)])
    yield
    sys.modules.pop(f"{exercises.__name__}.nb97", None)


@pytest.mark.parametrize("answer", [None, ...])
@pytest.mark.parametrize("exercise", ["97-1", "97-2", "97-3", "97-4", "00-1", "01-4"])
def test_a_blank_is_not_answered_yet_and_no_evidence_is_read_for_it(exercise: str, answer: Any) -> None:
    verdict = check(SimpleNamespace(), exercise, answer)  # type: ignore[arg-type]
    assert (bool(verdict), verdict.outcome, verdict.steps) == (False, OPEN, ())
    assert "not answered yet" in repr(verdict)
    assert "not answered yet" in verdict._repr_html_()
    assert "97-1" not in progress.solved()


@pytest.mark.parametrize(
    ("answer", "claim", "hint", "held"),
    [
        ("many", "your answer is a whole number", "Count.", 0),
        (7, "it is even", "`ps -ef`", 1),
        (44, "it is twice what the lab has", "`ls -l`", 2),
    ],
)
def test_a_wrong_answer_is_told_the_first_step_that_does_not_hold_and_where_to_look(
    answer: Any, claim: str, hint: str, held: int
) -> None:
    verdict = check(LAB, "97-1", answer)
    assert (bool(verdict), verdict.outcome) == (False, WRONG)
    assert claim in verdict.message
    assert hint in verdict.message
    assert [step.holds for step in verdict.steps] == [True] * held + [False]
    assert "42" not in repr(verdict) + verdict._repr_html_()
    assert len(progress.solved()) == 0


@pytest.mark.parametrize("answer", [42, "42", " 42 "])
def test_a_right_answer_is_kept_as_progress(answer: Any) -> None:
    verdict = check(LAB, "97-1", answer)
    assert verdict
    assert (verdict.outcome, len(verdict.steps)) == (RIGHT, 3)
    assert [(item.exercise, item.source) for item in progress.solved()] == [("97-1", "a toy")]


def test_the_check_looks_at_the_lab_as_it_is_now() -> None:
    assert check(LAB, "97-1", 42)
    moved: Any = SimpleNamespace(source=Source(), count=lambda: 22)
    assert not check(moved, "97-1", 42)
    assert "97-1" in progress.solved()


def test_evidence_that_cannot_be_read_is_no_wrong_answer() -> None:
    verdict = check(LAB, "97-2", "text")
    assert (bool(verdict), verdict.outcome) == (False, STOPPED)
    assert str(SourceError("ps -ef", 1, "no such pod")) in verdict.message
    assert "cannot be checked" in repr(verdict)
    assert len(progress.solved()) == 0


def test_a_bug_of_a_check_is_not_swallowed() -> None:
    with pytest.raises(KeyError, match="a bug"):
        check(LAB, "97-3", 1)


def test_a_check_that_looks_at_nothing_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="looked at nothing"):
        check(LAB, "97-4", 1)
    assert len(progress.solved()) == 0


@pytest.mark.parametrize(
    ("exercise", "said"),
    [
        ("97-9", "notebook 97 has: 97-1, 97-2, 97-3, 97-4"),
        ("96-1", "notebooks with exercises: 00, 01, 02, 03"),
        ("", "as in '01-2'"),
        ("1-2", "as in '01-2'"),
        ("97-1\n", "as in '01-2'"),
        ("٠١-1", "as in '01-2'"),
        ("../nb97", "as in '01-2'"),
        ("\x1b[31m<b>", r"\x1b[31m<b>"),
        ("x" * 1_000_000, "as in '01-2'"),
        (1, "type int"),
        (None, "type NoneType"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_an_unknown_exercise_is_one_line_that_says_which_there_are(exercise: Any, said: str) -> None:
    with pytest.raises(LabError) as caught:
        check(LAB, exercise, 1)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_an_unknown_exercise_is_refused_even_where_it_is_not_answered() -> None:
    with pytest.raises(LabError, match="97-9"):
        check(LAB, "97-9", ...)


def test_a_module_of_exercises_that_does_not_import_is_a_bug(tmp_path: Path) -> None:
    (tmp_path / "nb96.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError):
        check(LAB, "96-1", 1)


class Shown(HTMLParser):
    """The elements and the text of some HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\u200b\ud800\x00&lt;"


@pytest.mark.parametrize("outcome", [RIGHT, WRONG, OPEN, STOPPED])
def test_what_comes_from_evidence_is_shown_and_not_obeyed(outcome: str) -> None:
    verdict = Verdict("97-1", outcome, HOSTILE, (Step(HOSTILE, True), Step(HOSTILE, False, HOSTILE)))
    shown = Shown(verdict._repr_html_())
    assert set(shown.tags) <= {"div", "strong", "span", "ul", "li"}
    assert "<script>" in shown.text  # as text
    for text in (shown.text, repr(verdict)):
        assert r"\x1b[31m\u202e\u200b\ud800\x00&lt;" in text
        assert text.isprintable()
        text.encode()


def test_a_long_message_is_shortened_and_a_command_is_not() -> None:
    command = "bookinfo-lab exec " + "n" * 500 + " -- iptables-nft-save"
    assert command in repr(Verdict("97-1", WRONG, command))
    long = Verdict("97-1", WRONG, "x" * 1_000_000, (Step("y" * 1_000_000, True),))
    assert len(repr(long)) < 3000
    assert len(long._repr_html_()) < 6000


def test_a_verdict_says_its_outcome_without_colour_or_sign() -> None:
    for outcome in (RIGHT, WRONG, OPEN, STOPPED):
        assert outcome in Shown(Verdict("97-1", outcome, "m")._repr_html_()).text


def test_checks_and_progress_load_no_table_widget_or_sandbox() -> None:
    import subprocess

    program = "import sys, bookinfo_lab.teach.checks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert checks.__name__ in loaded
    heavy = ("pandas", "ipywidgets", "IPython", "bookinfo_lab.show", "bookinfo_lab.sandbox")
    assert [name for name in loaded if name.startswith(heavy)] == []
