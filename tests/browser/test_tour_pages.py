"""A tour's pages in Chromium: they are shown, run nothing and ask nobody, whatever an output holds."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from bookinfo_lab import tour

pytestmark = pytest.mark.browser

HOSTILE = """<script src="HOST/script.js"></script><script>window.ran = 'inline'</script>
<img src="HOST/image.png" onerror="window.ran = 'onerror'"><iframe src="HOST/frame"></iframe>
<link rel="stylesheet" href="HOST/style.css"><style>@import "HOST/import.css";</style>
<iframe srcdoc="<img src='HOST/inner.png'><script>parent.ran = 'inner'</script>"></iframe>
<video src="HOST/video" poster="HOST/poster"></video><object data="HOST/object"></object>
<link rel="prefetch" href="HOST/prefetch"><base href="HOST/base/"><meta http-equiv="refresh" content="0; url=HOST/lead">
<b style="background: url(HOST/url.png)">kept</b>"""
MARKDOWN = """# Hostile
![image](HOST/markdown.png) <script>window.ran = 'markdown'</script> $x^2$ and a [link](HOST/link)
"""
SCRIPT = "window.ran = 'javascript'; fetch('HOST/fetch')"


@pytest.fixture
def host() -> Iterator[tuple[str, list[str]]]:
    """A server that notes which paths it is asked for."""
    asked: list[str] = []

    class Noting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Noting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_page_runs_no_script_and_asks_no_host(tmp_path: Path, browser: Any, host: tuple[str, list[str]]) -> None:
    url, asked = host
    markdown, hostile, script = (text.replace("HOST", url) for text in (MARKDOWN, HOSTILE, SCRIPT))
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    shown = f"from IPython.display import HTML, Javascript, display\ndisplay(Javascript({script!r}))\nHTML({hostile!r})"
    widget = "import ipywidgets\nipywidgets.IntSlider(description='slide me')"
    cells = [new_markdown_cell(markdown), new_code_cell(shown), new_code_cell(widget)]
    nbformat.write(new_notebook(cells=cells), notebooks / "00.ipynb")
    report = tour.run(notebooks, tmp_path / "out", ["recording"])
    assert report.fault == ""
    page = browser.new_page()
    index = Path(report.index).as_uri()
    page.goto(index)
    page.get_by_role("link", name="00", exact=True).click()
    page.wait_for_load_state("networkidle")
    assert page.url == index.replace("index.html", report.runs[0].page)
    outputs = page.locator(".jp-OutputArea-output")
    assert outputs.get_by_text("kept", exact=True).is_visible()
    assert outputs.get_by_text("slide me").is_visible()
    assert page.evaluate("window.ran") is None
    assert asked == []
    page.close()


def test_the_same_without_a_policy_runs_and_asks(tmp_path: Path, browser: Any, host: tuple[str, list[str]]) -> None:
    url, asked = host
    page = browser.new_page()
    (tmp_path / "page.html").write_text(HOSTILE.replace("HOST", url).partition("<base")[0], encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.ran")
    assert {"/script.js", "/image.png", "/frame", "/style.css", "/inner.png"} <= set(asked)
    page.close()
