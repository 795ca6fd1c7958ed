"""In Chromium: hostile text runs no script and asks for nothing, and what the lab shows is accessible (axe)."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bookinfo_lab.lab import Lab
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.recording import RecordingSource

pytestmark = pytest.mark.browser
PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>shown</title></head><body><main>{}</main></body>'
)


def neighbour(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that counts what it asks for, and every dialog.

    What the policy of a shown page blocks is announced at times, as a request that failed by it, and is none.
    """
    made = browser.new_page()
    made.asked, made.dialogs = [], []
    made.on("request", lambda request: made.asked.append(request.url))
    made.on("requestfailed", lambda request: made.asked.remove(request.url) if request.failure == "csp" else None)
    made.on("dialog", lambda dialog: (made.dialogs.append(dialog.message), dialog.dismiss()))
    yield made
    made.close()


def shown_in(page: Any, tmp_path: Path, html: str) -> None:
    file = tmp_path / "shown.html"
    file.write_text(PAGE.format(html), encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_load_state("load")
    page.wait_for_timeout(200)


def test_hostile_text_runs_nothing_and_asks_for_nothing(page: Any, tmp_path: Path) -> None:
    hostile = neighbour("show/hostile.py")
    parts = {name: hostile.html_of(thing) for name, thing in hostile.shown().items()}
    shown_in(page, tmp_path, "".join(f'<section data-name="{name}">{html}</section>' for name, html in parts.items()))
    assert page.locator("section").count() == len(parts)
    assert page.evaluate("() => window.hit") is None
    assert [frame.evaluate("() => window.hit") for frame in page.frames if frame != page.main_frame] == [None]
    assert page.dialogs == []
    assert [url for url in page.asked if not url.startswith(("file:", "about:"))] == []
    text = page.inner_text("main")
    assert "\\u202e" in text
    assert "\\x1b[31m" in text
    assert "more characters)" in text
    assert page.locator("main script, main img").count() == 0


def test_the_test_would_see_a_script_that_runs_and_a_request(page: Any, tmp_path: Path) -> None:
    shown_in(page, tmp_path, neighbour("show/hostile.py").SCRIPT)
    assert page.evaluate("() => window.hit") is not None
    assert [url for url in page.asked if url.startswith("http:")] != []


@pytest.mark.parametrize("scenario", ["sidecar", "article"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_the_lab_shows_is_accessible(page: Any, tmp_path: Path, scenario: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    lab = Lab(RecordingSource(recording.bundled(scenario)), "asked for")
    door = lab.front_door
    with lab.capture("client") as capture:
        page_shown = lab.get("/productpage")
    things = [
        lab,
        lab.pods(),
        lab.services(),
        lab.rules("node").grep(str(door.node_port)),
        lab.rules("node").table(),
        lab.processes("ingress"),
        lab.conntrack().table(),
        page_shown,
        capture,
        lab.check("01-1", 0),
        lab.check("01-4", ...),
    ]
    html = "".join(thing._repr_html_() for thing in things)
    html += lab.choose_pod(lab.processes)._repr_mimebundle_()["text/html"]
    page.emulate_media(color_scheme=scheme)
    shown_in(page, tmp_path, f"<h1>Shown</h1>{html}")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 1000, "height": 800})
    page.screenshot(path=tmp_path / f"{scenario}-{scheme}.png", full_page=True)
