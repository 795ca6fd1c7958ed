"""Notebooks 02 and 03 in JupyterLab, cell by cell by keyboard: nothing fails, everything is shown and accessible.

BOOKINFO_LAB_SHOTS names a folder for screenshots: each output, in JupyterLab's dark and light theme.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


new_user = neighbour("test_new_user")
server = new_user.server
pytestmark = [pytest.mark.browser, pytest.mark.sandbox]

# What reaches beyond its cell's width without a scroll bar of its own.
CUT_OFF = """() => [...document.querySelectorAll('.jp-Notebook .jp-RenderedHTMLCommon figure')].filter(
    figure => figure.scrollWidth > figure.clientWidth + 1).map(figure => figure.innerText.slice(0, 80))"""


@pytest.mark.parametrize(("number", "proofs"), [("02", 2), ("03", 5)])
def test_a_notebook_on_rules_runs_and_is_shown(server: Any, browser: Any, number: str, proofs: int) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    learner = new_user.Keyboard(page)
    learner.open(re.sub(r"/tree/[^?]*", "/tree/solutions/" + new_user.first_of(number), server.url))
    learner.run_until(len(learner.cells()))
    cells = learner.cells()
    told = [text for cell in cells if "lab.check(" in cell["source"] for text in plain(cell)]
    assert len(told) >= 3
    assert [text for text in told if ": right." not in text] == []
    proven = [text for cell in cells if "lab.prove(" in cell["source"] for text in plain(cell)]
    assert len(proven) >= proofs
    assert [text for text in proven if not re.search(r"\nagree[,:]", text)] == []
    drawings = page.locator(".jp-Notebook svg[role=img]")
    assert drawings.count() >= 1
    assert page.evaluate(CUT_OFF) == []
    photographed(learner, number)
    new_user.accessible(learner, ".jp-Notebook .jp-OutputArea")
    page.close()


def plain(cell: dict[str, Any]) -> list[str]:
    """A cell's outputs as text."""
    shown = [output["data"]["text/plain"] for output in cell["outputs"] if "data" in output]
    return ["".join(text) for text in shown]


def photographed(learner: Any, number: str) -> None:
    """Each output, in both themes; nothing without a folder for them."""
    if not new_user.SHOTS:
        return
    learner.page.set_viewport_size({"width": 1280, "height": 2400})  # what is higher than the window would be cut
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        learner.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        learner.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
        learner.page.wait_for_timeout(500)  # the theme's colours come by a style sheet
        learner.to_the_top()
        while True:
            index = learner.page.evaluate(new_user.ACTIVE)[0]
            if learner.cells()[index]["type"] == "code":
                cell = learner.page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
                cell.scroll_into_view_if_needed()
                cell.screenshot(path=f"{new_user.SHOTS}/{number}-{index:02}-{theme.split()[1].lower()}.png")
            if index + 1 >= len(learner.cells()):
                break
            learner.page.keyboard.press("j")
