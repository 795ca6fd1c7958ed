"""What a cell may not show becomes a box with the reason; what builds on it is not run; no other error is hidden."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from bookinfo_lab.show import missing

REFUSE = """
from bookinfo_lab.errors import LabError, NotShown
from bookinfo_lab.sources.cluster.api import Refused
def no(kind):
    raise {"leave": NotShown("it takes leave"), "right": Refused("it takes a right", 403, "get", "pods"),
           "gone": Refused("it has gone", 404, "get", "pods"), "bad": LabError("a mistake")}[kind]
"""


class Notebook:
    """An IPython with the guard, as a learner's notebook on a cluster has it."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.run(REFUSE)

    def run(self, cell: str) -> tuple[list[str], BaseException | None]:
        """What a cell displays, as text, and the error that ends it."""
        with capture_output() as captured:
            done = self._shell.run_cell(cell)
        shown = [item.data["text/plain"] for item in captured.outputs]
        last = [] if done.result is None else [repr(done.result)]
        return [*shown, *last], done.error_in_exec or done.error_before_exec

    def __getitem__(self, name: str) -> Any:
        return self._shell.user_ns[name]

    def __contains__(self, name: str) -> bool:
        return name in self._shell.user_ns


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Notebook]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(history_manager=None)
    try:
        missing.install()
        missing.install()
        yield Notebook(shell)
    finally:
        InteractiveShell.clear_instance()


@pytest.mark.parametrize(("kind", "why"), [("leave", "it takes leave"), ("right", "it takes a right")])
def test_a_refusal_is_a_box_and_the_notebook_goes_on(notebook: Notebook, kind: str, why: str) -> None:
    assert notebook.run(f"found = no({kind!r})") == ([f"Not shown: {why}"], None)
    assert notebook.run("1 + 1") == (["2"], None)


@pytest.mark.parametrize("kind", ["gone", "bad"])
def test_any_other_error_is_an_error(notebook: Notebook, kind: str) -> None:
    shown, error = notebook.run(f"no({kind!r})")
    assert shown == []
    assert type(error).__name__ in ("Refused", "LabError")


def test_what_builds_on_an_absent_thing_says_so_and_a_name_that_never_was_is_a_mistake(notebook: Notebook) -> None:
    notebook.run("before = 1\nfound = no('leave')\nafter = 2")
    assert notebook["before"] == 1
    for name in ("found", "after"):
        assert notebook.run(f"print({name})") == ([f"Not shown: this needs {name!r}, which is missing above"], None)
    assert notebook.run("built = found + 1")[1] is None
    assert notebook.run("built") == (["Not shown: this needs 'built', which is missing above"], None)
    assert isinstance(notebook.run("nowhere")[1], NameError)


def test_a_value_of_an_earlier_run_is_not_taken_for_this_ones(notebook: Notebook) -> None:
    notebook.run("found = 'old'")
    notebook.run("found = no('leave')")
    assert "found" not in notebook
    notebook.run("found = 'new'")
    assert notebook.run("found") == (["'new'"], None)


def test_the_reason_is_escaped_in_html() -> None:
    assert "<script>" not in missing.Missing("<script>")._repr_html_()


def test_a_future_import_and_an_empty_cell_still_work(notebook: Notebook) -> None:
    assert notebook.run("from __future__ import annotations\n3") == (["3"], None)
    assert notebook.run("# nothing") == ([], None)


def test_another_fault_ends_the_cell_with_one_line_and_nothing_that_a_terminal_obeys(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook._shell.run_cell("from bookinfo_lab.errors import LabError\nraise LabError('no pod \\x1b[31m there')")
    said = capsys.readouterr()
    assert [line for line in (said.out + said.err).splitlines() if line] == ["bookinfo-lab: no pod \\x1b[31m there"]
    notebook._shell.run_cell("raise ValueError('a bug')")
    assert "Traceback" in capsys.readouterr().out
