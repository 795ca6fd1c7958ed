"""Each rule on how a notebook is written is noticed where it is broken; the lab's own notebooks break none."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.teach import cut
from bookinfo_lab.teach.faults import faults

SOLUTIONS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "solutions").glob("*.ipynb"))
EVERYWHERE = {"default", "gateway"}  # these names are words of every cluster
NAMES = {
    item["metadata"]["name"] for name in ("sidecar", "article") for item in scenarios.scenario(name).objects
} - EVERYWHERE

FIRST = "# 07 · Title\n\n**Why?**\n\n1. one\n2. two\n3. three\n\n*Needs:* nothing. *Time:* 10 minutes."
LAST = "## Answers\n\n1. one\n2. two\n3. three\n\nNext: more."
SETUP = "import bookinfo_lab\n\nlab = bookinfo_lab.connect()"

Change = Callable[[list[dict[str, Any]]], object]


def code(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": [], "execution_count": None}


def text(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": metadata, "source": source}


def exercise(name: str, answer: str = "lab.pods().size") -> dict[str, Any]:
    check = f'lab.check("{name}", answer)'
    return code(f"answer = {answer}\n{check}", tags=["solution"], blank=f"answer = ...\n{check}")


def sound() -> list[dict[str, Any]]:
    """0 first, 1 set-up, 2 text, 3 code, 4 text, 5 exercise, 6 text, 7 exercise, 8 last."""
    return [
        text(FIRST),
        code(SETUP),
        text("## A heading\n\nThe pods are these:"),
        code("lab.pods()"),
        text("### Exercise 07-1\n\nHow many *are there?*"),
        exercise("07-1"),
        text("### Exercise 07-2\n\nAnd `now`?"),
        exercise("07-2"),
        text(LAST),
    ]


def found(cells: list[dict[str, Any]], **metadata: Any) -> list[str]:
    return faults({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, {"productpage"})


def test_a_notebook_in_order_has_no_fault() -> None:
    assert found(sound()) == []


def replaced(number: int, old: str, new: str) -> Change:
    def change(cells: list[dict[str, Any]]) -> None:
        assert old in cells[number]["source"]
        cells[number]["source"] = cells[number]["source"].replace(old, new)

    return change


def source(number: int, new: str) -> Change:
    return lambda cells: cells[number].update(source=new)


def blank(new: Any) -> Change:
    return lambda cells: cells[5]["metadata"].update(blank=new)


def long_function(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1) + "f()"


def five_exercises(cells: list[dict[str, Any]]) -> None:
    for number in (3, 4, 5):
        cells[-1:-1] = [text("And?"), exercise(f"07-{number}")]


FAULTS: dict[str, tuple[Change, str]] = {
    "no question": (replaced(0, "?", "."), "the first cell does not begin with a heading and ask a question"),
    "no heading first": (replaced(0, "# 07", "07"), "the first cell does not begin with a heading"),
    "two aims": (replaced(0, "3. three", ""), "the first cell does not number three or four aims"),
    "five aims": (
        replaced(0, "3. three", "3. three\n4. four\n5. five"),
        "the first cell does not number three or four",
    ),
    "no needs": (replaced(0, "Needs", "Has"), "the first cell does not say what the notebook needs"),
    "no minutes": (
        replaced(0, "minutes", "things"),
        "the first cell does not say what the notebook needs and how many",
    ),
    "an aim not answered": (replaced(8, "3. three", ""), "the last cell does not answer the aims of the first"),
    "ends with code": (lambda cells: cells.append(code("lab.pods()")), "it does not begin and end with text"),
    "begins with code": (lambda cells: cells.insert(0, code("lab.pods()")), "it does not begin and end with text"),
    "two titles": (replaced(2, "## A", "# A"), "it has 2 headings of the first order"),
    "a title underlined": (replaced(2, "## A heading", "A heading\n========="), "it has 2 headings of the first order"),
    "a title in HTML": (replaced(2, "## A heading", "<h1>A</h1>"), "it has 2 headings of the first order"),
    "a long cell": (source(3, "\n".join(["lab.pods()"] * 16)), "cell 4: 16 lines, not at most 15"),
    "long cells": (
        lambda cells: (
            [cells[number].update(source=SETUP + "\n1\n2") for number in (1, 3)]
            and [cells[5].update(source=cells[5]["source"] + "\n1\n2\n3")]
        ),
        "its code cells have 5 lines in the median, not at most 4",
    ),
    "a long function": (source(3, long_function(7)), "cell 4: function f has 7 lines, not at most 6"),
    "a long method": (source(3, "async " + long_function(7)), "cell 4: function f has 7 lines"),
    "no sentence": (source(2, "## A heading"), "cell 4: no sentence before it"),
    "half a sentence": (source(2, "The pods are"), "cell 4: no sentence before it"),
    "nothing before": (source(2, ""), "cell 4: no sentence before it"),
    "code on code": (lambda cells: cells.insert(4, code("lab.nodes()")), "cell 5: no sentence before it"),
    "no connect": (
        replaced(1, "bookinfo_lab.connect()", "None"),
        "its first code cell is not one import of bookinfo_lab",
    ),
    "a second connect": (source(3, "lab = bookinfo_lab.connect()"), "its first code cell is not one import"),
    "a second set-up import": (source(3, "import bookinfo_lab"), "cell 4: imports bookinfo_lab;"),
    "another import in set-up": (
        replaced(1, "import bookinfo_lab\n", "import bookinfo_lab, re\n"),
        "its first code cell",
    ),
    "another's package": (source(3, "import pandas"), "cell 4: imports pandas;"),
    "a package by its part": (source(3, "from os.path import join"), "cell 4: imports os.path.join;"),
    "no Python": (source(3, "lab.pods("), "cell 4: it is not Python"),
    "a magic": (source(3, "!kubectl get pods"), "cell 4: it is not Python"),
    "one exercise": (lambda cells: cells.__delitem__(slice(6, 8)), "it has 1 exercises, not two to four"),
    "five exercises": (five_exercises, "it has 5 exercises, not two to four"),
    "an exercise twice": (
        lambda cells: cells.__setitem__(7, exercise("07-1")),
        "its exercises are not numbered one by",
    ),
    "another notebook's": (
        lambda cells: cells.__setitem__(7, exercise("08-2")),
        "its exercises are not numbered one by",
    ),
    "an open check": (lambda cells: cells[5]["metadata"].pop("tags"), "cell 6: checks 07-1 and is not tagged"),
    "no blank": (lambda cells: cells[5]["metadata"].pop("blank"), "cell 6: tagged as a solution without a text under"),
    "a blank not open": (blank('answer = 1\nlab.check("07-1", answer)'), "cell 6: its blank leaves no place open"),
    "a blank not Python": (blank('answer = ...!\nlab.check("07-1", answer)'), "cell 6: its blank leaves no place open"),
    "a blank's other check": (blank('answer = ...\nlab.check("07-2", answer)'), "cell 6: its blank checks another"),
    "a telling blank": (
        blank('answer = lab.pods() . size\n...\nlab.check("07-1", answer)'),
        "cell 6: its blank holds a line of the solution",
    ),
    "outputs": (lambda cells: cells[3].update(outputs=[{}]), "cell 4: outputs are kept"),
    "counts": (lambda cells: cells[3].update(execution_count=4), "cell 4: execution_count are kept"),
    "attachments": (lambda cells: cells[2].update(attachments={"a": {}}), "cell 3: attachments are kept"),
    "an address": (source(3, 'lab.who_is("172.20.100.164")'), "cell 4: holds the address 172.20.100.164"),
    "an address in a comment": (source(3, "lab.pods()  # 10.0.0.1"), "cell 4: holds the address 10.0.0.1"),
    "a network": (source(3, 'x = "10.0.0.0/8"'), "cell 4: holds the address 10.0.0.0"),
    "an address and port": (source(3, 'x = "10.0.0.1:9"'), "cell 4: holds the address 10.0.0.1"),
    "a port": (source(3, "port = 31380"), "cell 4: holds the port 31380"),
    "a port in text": (source(3, 'x = "--dport 6259 "'), "cell 4: holds the port 6259"),
    "a port after a colon": (source(3, 'x = ":9080"'), "cell 4: holds the port 9080"),
    "a port in an f-string": (source(3, 'x = f"{lab}:15001"'), "cell 4: holds the port 15001"),
    "a well-known port": (source(3, "x = 80"), "cell 4: holds the port 80"),
    "a chain": (source(3, 'c = "KUBE-SVC-ABCDEFGHIJKLMNO2"'), "cell 4: holds the chain KUBE-SVC-ABCDEFGHIJKLMNO2"),
    "a pod": (source(3, 'c = "reviews-v1-5b8df678cb-x2xkz"'), "cell 4: holds the pod reviews-v1-5b8df678cb-x2xkz"),
    "a pod of 2017": (
        source(3, 'c = "reviews-v1-3340858212-7x2rz"'),
        "cell 4: holds the pod reviews-v1-3340858212-7x2rz",
    ),
    "a given name": (source(3, 'lab.rules("productpage")'), "cell 4: holds the name productpage"),
}


@pytest.mark.parametrize(("change", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_is_found_where_it_is(change: Change, said: str) -> None:
    cells = sound()
    change(cells)
    assert [fault for fault in found(cells) if fault.startswith(said)], found(cells)


def test_the_state_of_widgets_is_a_fault() -> None:
    assert found(sound(), widgets={}) == ["the state of widgets is kept"]


def test_a_notebook_without_code_or_cells_is_a_fault() -> None:
    assert found([text(FIRST)]) == found([]) == ["it has no code cell"]


IN_ORDER: dict[str, Change] = {
    "fifteen lines": source(3, "\n".join(["lab.pods()"] * 15)),
    "a function of six lines": source(3, long_function(6)),
    "a part of the package": source(3, "from bookinfo_lab.netfilter import jumps"),
    "a title in a code fence": replaced(2, "## A heading", "```\n# no title\n```\n"),
    "an import in text": replaced(2, "## A", "## import os: A"),
    "kube-proxy's own chains": source(3, 'lab.rules("node").chain("nat", "KUBE-POSTROUTING")'),
    "numbers that are no port": source(3, "[x[0], 1.25, 0.1234, 15, 100, -1]"),
    "a version": source(3, 'x = "v1.2.3"'),
    "more numbers than an address has": source(3, 'x = "999.999.999.999"'),
    "a path": source(3, 'lab.get("/productpage")'),
    "four aims": lambda cells: [cells[n].update(source=cells[n]["source"].replace("3. ", "3. x\n4. ")) for n in (0, 8)],
}


@pytest.mark.parametrize("change", IN_ORDER.values(), ids=IN_ORDER.keys())
def test_what_is_in_order_is_no_fault(change: Change) -> None:
    cells = sound()
    change(cells)
    assert cells != sound()
    assert found(cells) == []


def test_faults_leaves_the_notebook_as_it_was() -> None:
    cells = sound()
    before = deepcopy(cells)
    found(cells)
    assert cells == before


@given(st.lists(st.builds(lambda make, words: make(words), st.sampled_from([code, text]), st.text(max_size=40))))
def test_any_notebook_can_be_read(cells: list[dict[str, Any]]) -> None:
    assert all(len(fault.splitlines()) == 1 for fault in found(cells))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_lab_s_notebooks_have_none(path: Path) -> None:
    assert faults(cut.read(path), NAMES) == []
