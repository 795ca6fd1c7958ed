"""The learner's copies hold nothing of the solutions, and are the same bytes each time; what cannot be cut is said."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.errors import LabError
from bookinfo_lab.teach import cut

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SECRET = "the-secret-of-the-solution"
BLANK = 'answer = ...\nlab.check("99-1", answer)'


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "id": "a", "metadata": metadata, "source": source, "execution_count": 3, "outputs": []}


def text(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": "b", "metadata": metadata, "source": source}


def solution(source: str = f'answer = "{SECRET}"', blank: Any = BLANK, **metadata: Any) -> dict[str, Any]:
    return code(source, tags=["solution"], blank=blank, **metadata)


def notebook(*cells: dict[str, Any], **metadata: Any) -> cut.Notebook:
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": list(cells), "metadata": kernel | metadata, "nbformat": 4, "nbformat_minor": 5}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / "solutions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def sources(made: cut.Notebook) -> list[str]:
    return [cut.source_of(cell) for cell in made["cells"]]


def test_a_solution_becomes_its_blank_and_its_explanation_goes() -> None:
    given_cells = [text("# Q"), solution(), text(SECRET, tags=["x", "solution"]), text("kept"), code("kept_too")]
    assert sources(cut.cut(notebook(*given_cells))) == ["# Q", BLANK, "kept", "kept_too"]


PLACES = {
    "source": solution(),
    "source in lines": solution() | {"source": ["answer = 1\n", f"# {SECRET}"]},
    "output": solution() | {"outputs": [{"output_type": "stream", "name": "stdout", "text": SECRET}]},
    "metadata": solution(note=SECRET),
    "another cell's metadata": code("x", note=SECRET),
    "another cell's tags": text("x", tags=[SECRET]),
    "another cell's output": code("x") | {"outputs": [{"output_type": "stream", "name": "stdout", "text": SECRET}]},
    "attachment": text("x") | {"attachments": {"a.png": {"image/png": SECRET}}},
    "cell id": text("x") | {"id": SECRET},
    "solution's id": solution() | {"id": SECRET},
    "text": text(SECRET, tags=["solution"]),
    "raw text": text(SECRET, tags=["solution"]) | {"cell_type": "raw"},
    "unknown key of a cell": text("x") | {"comment": SECRET},
}


@pytest.mark.parametrize("cell", PLACES.values(), ids=PLACES.keys())
def test_nothing_of_a_solution_is_left_wherever_it_was(cell: dict[str, Any]) -> None:
    before = notebook(text("# Q"), cell, text("end"))
    assert SECRET in json.dumps(before)
    assert SECRET not in cut.as_text(cut.cut(before))


@pytest.mark.parametrize(
    "metadata",
    [
        {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": SECRET}}},
        {"kernelspec": {"name": "python3", "note": SECRET}},
        {"kernelspec": {"name": {"nested": SECRET}}},
        {"kernelspec": SECRET},
        {"language_info": {"name": "python", "version": SECRET}},
        {SECRET: 1},
    ],
    ids=str,
)
def test_nothing_of_a_solution_is_left_in_the_notebook_s_metadata(metadata: dict[str, Any]) -> None:
    assert SECRET not in cut.as_text(cut.cut(notebook(text("x"), solution(), **metadata)))


def test_what_a_cut_is_given_is_not_changed() -> None:
    before = notebook(text("# Q"), solution(), text(SECRET, tags=["solution"]))
    copy = deepcopy(before)
    cut.cut(before)
    cut.stripped(before)
    assert before == copy


@pytest.mark.parametrize("blank", [None, 5, ["answer = ..."], {}])
def test_a_solution_without_a_blank_is_an_error_that_names_notebook_and_cell(tmp_path: Path, blank: Any) -> None:
    write(tmp_path, "07-x.ipynb", notebook(text("# Q"), solution(blank=blank)))
    with pytest.raises(LabError, match=r"07-x\.ipynb, cell 2: .*'blank'"):
        cut.cut_all(tmp_path, write=True)
    assert list(tmp_path.glob("*.ipynb")) == []


def test_a_blank_that_is_the_solution_is_an_error() -> None:
    with pytest.raises(LabError, match=r"cell 1: .*the solution itself"):
        cut.cut(notebook(solution("answer = 1", blank="answer = 1\n")))


def test_a_tag_that_only_looks_like_it_is_none() -> None:
    cells = [code("kept", tags=["solutions"]), text("kept", tags=["no-solution"])]
    assert sources(cut.cut(notebook(*cells))) == ["kept", "kept"]


def test_nothing_is_written_where_one_of_several_is_at_fault(tmp_path: Path) -> None:
    write(tmp_path, "00-good.ipynb", notebook(text("x")))
    write(tmp_path, "01-bad.ipynb", notebook(solution(blank=None)))
    with pytest.raises(LabError, match="01-bad"):
        cut.cut_all(tmp_path, write=True)
    assert list(tmp_path.glob("*.ipynb")) == []


NO_NOTEBOOKS = {
    "empty": ("", "no notebook"),
    "half": ('{"cells": [', "no notebook"),
    "nested": ("[" * 200_000, "no notebook"),
    "half a character": ('{"nbformat": 4, "metadata": {}, "cells": ["\\ud800"]}', "surrogates"),
    "a list": ([], "format 4"),
    "format 3": ({"nbformat": 3, "worksheets": []}, "format 4"),
    "no cells": ({"nbformat": 4, "metadata": {}}, "format 4"),
    "no metadata": ({"nbformat": 4, "cells": []}, "format 4"),
    "cell no object": (notebook(text("x")) | {"cells": ["x"]}, "cell 1"),
    "cell without metadata": (notebook({"cell_type": "code", "source": ""}), "cell 1"),
    "cell without source": (notebook(text("x"), {"cell_type": "code", "metadata": {}}), "cell 2"),
    "source of numbers": (notebook(text("x") | {"source": [1]}), "cell 1"),
    "tags in one text": (notebook(text("x", tags="solution")), "cell 1"),
    "unknown kind": (notebook(text("x") | {"cell_type": "heading"}), "cell 1"),
}


@pytest.mark.parametrize(("content", "said"), NO_NOTEBOOKS.values(), ids=NO_NOTEBOOKS.keys())
def test_what_is_no_notebook_is_one_line_with_its_name(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path, "03-x.ipynb", content)
    with pytest.raises(LabError) as caught:
        cut.cut_all(tmp_path, write=True)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


CELLS = st.lists(
    st.builds(
        lambda make, source, is_lines: make(source) | ({"source": source.splitlines(True)} if is_lines else {}),
        st.sampled_from([code, text, solution, lambda source: text(source, tags=["solution"])]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda source: source != BLANK),
        st.booleans(),
    ),
    max_size=6,
)


@given(CELLS)
def test_a_cut_is_a_valid_notebook_in_nbformat_s_own_layout(cells: list[dict[str, Any]]) -> None:
    made = cut.as_text(cut.cut(notebook(*cells)))
    parsed = nbformat.reads(made, as_version=4)
    nbformat.validate(parsed)
    assert nbformat.writes(parsed) + "\n" == made


@given(CELLS)
def test_cutting_what_was_cut_changes_nothing(cells: list[dict[str, Any]]) -> None:
    once = cut.cut(notebook(*cells))
    assert cut.cut(once) == once == cut.stripped(once)
    assert [cut.source_of(cell) for cell in once["cells"]] == [
        BLANK if cut.is_solution(cell) else cut.source_of(cell)
        for cell in cells
        if cell["cell_type"] == "code" or not cut.is_solution(cell)
    ]


@given(CELLS)
def test_a_stripped_solution_still_cuts_to_the_same(cells: list[dict[str, Any]]) -> None:
    assert cut.cut(cut.stripped(notebook(*cells))) == cut.cut(notebook(*cells))


def command(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "bookinfo_lab.teach.cut", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"})


def test_the_command_writes_the_same_bytes_twice_and_check_finds_no_difference(tmp_path: Path) -> None:
    write(tmp_path / "notebooks", "00-x.ipynb", notebook(text("# é"), solution(), text("end")))
    copy = tmp_path / "notebooks" / "00-x.ipynb"
    first = command(tmp_path)
    raw = copy.read_bytes()
    assert (first.returncode, first.stdout) == (0, "")
    assert "notebooks/00-x.ipynb written" in first.stderr
    stamp = copy.stat().st_mtime_ns
    assert (command(tmp_path).stderr, copy.read_bytes(), copy.stat().st_mtime_ns) == ("", raw, stamp)
    checked = command(tmp_path, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")
    copy.unlink()
    command(tmp_path)
    assert copy.read_bytes() == raw


@pytest.mark.parametrize("edited", [b"", b"{}", b"\xff\xfe", None], ids=str)
def test_check_says_which_copy_differs_and_writes_nothing(tmp_path: Path, edited: bytes | None) -> None:
    for name in ("00-x.ipynb", "01-y.ipynb"):
        write(tmp_path, name, notebook(text("# Q"), solution()))
    cut.cut_all(tmp_path, write=True)
    copy = tmp_path / "01-y.ipynb"
    copy.unlink() if edited is None else copy.write_bytes(edited)
    checked = command(tmp_path, "--check", str(tmp_path))
    assert checked.returncode == 1
    assert checked.stderr == f"cut: {copy} is not what its solution gives\n"
    assert (copy.read_bytes() if copy.exists() else None) == edited
    assert command(tmp_path, str(tmp_path)).returncode == 0
    assert command(tmp_path, "--check", str(tmp_path)).returncode == 0


def test_the_command_s_errors_are_one_line_and_2(tmp_path: Path) -> None:
    for words in (["nowhere"], ["--check", "nowhere"]):
        ended = command(tmp_path, *words)
        assert (ended.returncode, ended.stderr) == (2, "cut: no notebooks in nowhere/solutions\n")
    write(tmp_path, "00-x.ipynb", notebook(text("x")))
    (tmp_path / "00-x.ipynb").mkdir()
    ended = command(tmp_path, str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr == f"cut: cannot write {tmp_path}/00-x.ipynb: Is a directory\n"


def test_the_learner_s_copies_are_what_the_command_cuts() -> None:
    assert cut.cut_all(NOTEBOOKS, write=False) == []


def test_each_numbered_copy_has_its_solution() -> None:
    copies = {path.name for path in NOTEBOOKS.glob("[0-9][0-9]-*.ipynb")}
    assert copies == {path.name for path in (NOTEBOOKS / "solutions").glob("*.ipynb")}
