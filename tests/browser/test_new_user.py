"""A new user at the keyboard: `bookinfo-lab lab` in a fresh home, notebooks 00 and 01 cell by cell in Chromium.

Keys alone, and each only when JupyterLab is ready for it: a session that is ready, a kernel that has told its name.
BOOKINFO_LAB_SHOTS names a folder for screenshots.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from started import alive, descendants, left_of

pytestmark = [pytest.mark.browser, pytest.mark.sandbox]
ROOT = Path(__file__).resolve().parents[2]
SHOTS = os.environ.get("BOOKINFO_LAB_SHOTS", "")

READY = """async () => {
    const context = jupyterapp.shell.currentWidget.sessionContext;
    await context.ready;
    await context.session.kernel.info;
}"""
CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map(cell => ({
    type: cell.model.type, source: cell.model.sharedModel.source, count: cell.model.executionCount,
    outputs: cell.model.type === 'code' ? cell.model.outputs.toJSON() : [],
}))"""
BEFORE = """() => {
    const notebook = jupyterapp.shell.currentWidget.content;
    window.cell = notebook.activeCell;
    window.before = window.cell.outputArea?.future;
    return notebook.activeCellIndex;
}"""
ENDED = """async () => {
    if (window.cell.model.type !== 'code') return;
    const late = new Promise((_, refuse) => setTimeout(() => refuse(new Error('the cell goes on after 30 s')), 30000));
    const begun = async () => {
        while (!window.cell.outputArea.future || window.cell.outputArea.future === window.before)
            await new Promise(again => setTimeout(again, 10));
        await window.cell.outputArea.future.done;
    };
    await Promise.race([begun(), late]);
}"""
WATCH_RESTART = """() => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    window.restarted = false;
    kernel.statusChanged.connect((_, status) => { window.restarted ||= status.includes('restarting'); });
}"""
RESTARTED = "() => window.restarted && jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
ACTIVE = "() => { const own = jupyterapp.shell.currentWidget.content; return [own.activeCellIndex, own.mode]; }"


@dataclass(frozen=True, slots=True)
class Server:
    """A `bookinfo-lab lab` that runs: the URL it would open, everything of its own below ``folder``."""

    process: "subprocess.Popen[bytes]"
    url: str
    folder: Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """What `make lab` runs, on a copy of the checkout, in a home where Jupyter never ran."""
    checkout, home, temporary = tmp_path / "checkout", tmp_path / "home", tmp_path / "tmp"
    shutil.copytree(ROOT / "bookinfo_lab", checkout / "bookinfo_lab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", checkout / "notebooks")
    home.mkdir()
    temporary.mkdir()
    theirs = ("JUPYTER", "JPY", "IPYTHON", "BOOKINFO_LAB", "XDG_", "PYTEST")
    env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    env |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(checkout)}
    options = ["--no-browser", "--port=0", "--LabApp.expose_app_in_browser=True"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bookinfo_lab.cli", "lab", "--", *options],
            cwd=checkout,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Server(process, opened(process, home, tmp_path / "server.log"), tmp_path)
    finally:
        process.kill()
        process.wait()


def opened(process: "subprocess.Popen[bytes]", home: Path, log: Path) -> str:
    """The URL that the server would show in a browser: that of a notebook where it was started on one."""
    deadline = time.monotonic() + 30
    while True:
        pages = list((home / ".local/share/jupyter/runtime").glob("jpserver-file-to-run-*-open.html"))
        found = re.search(r'url=([^"]+)"', pages[0].read_text(encoding="utf-8")) if pages else None
        if found:
            return found[1].replace("&amp;", "&")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)


class Keyboard:
    """A notebook in front of a learner who has no mouse."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self._shots = 0

    def open(self, url: str) -> None:
        self.page.goto(url)
        name = url.partition("/tree/")[2].partition("?")[0]
        self.page.wait_for_function(
            "name => window.jupyterapp?.shell.currentWidget?.context?.path === name", arg=name, timeout=30_000
        )
        self.page.evaluate(READY)
        self.page.wait_for_function("() => jupyterapp.shell.currentWidget.content.activeCell")
        self.page.evaluate("() => jupyterapp.shell.currentWidget.content.activate()")

    def cells(self) -> list[dict[str, Any]]:
        return list(self.page.evaluate(CELLS))

    def run(self, ended: bool = True) -> int:
        """Shift+Enter on the active cell; its index."""
        index = self.page.evaluate(BEFORE)
        self.page.keyboard.press("Shift+Enter")
        if ended:
            self.page.evaluate(ENDED)
        return int(index)

    def run_until(self, stop: int) -> None:
        """Shift+Enter from the active cell to the one before ``stop``; none may fail, and what answers must show it."""
        while self.page.evaluate(ACTIVE)[0] < stop:
            index = self.run()
            cell = self.cells()[index]
            assert errors(cell) == [], cell["source"]
            if cell["type"] == "code":
                assert cell["count"], cell["source"]
                assert cell["outputs"] or not answers(cell["source"]), cell["source"]

    def command(self, *keys: str) -> None:
        """Keys of the command mode."""
        self.page.keyboard.press("Escape")
        for key in keys:
            self.page.keyboard.press(key)

    def add(self, source: str) -> None:
        """A new cell below the active one, with this text, still being edited."""
        self.command("b", "Enter")
        self.page.keyboard.insert_text(source)

    def restart(self) -> None:
        self.page.evaluate(WATCH_RESTART)
        self.command("0", "0")
        self.page.wait_for_selector(".jp-Dialog")
        self.page.keyboard.press("Enter")
        self.page.wait_for_function(RESTARTED)
        self.page.evaluate(READY)

    def to_the_top(self) -> None:
        self.command("Control+Home")
        while self.page.evaluate(ACTIVE)[0]:
            self.page.keyboard.press("k")

    def shot(self, name: str) -> None:
        if SHOTS:
            self._shots += 1
            self.page.screenshot(path=f"{SHOTS}/{self._shots:02}-{name}.png")


def errors(cell: dict[str, Any]) -> list[str]:
    return [f"{one['ename']}: {one['evalue']}" for one in cell["outputs"] if one["output_type"] == "error"]


def answers(source: str) -> bool:
    """Whether a cell's last line is an expression."""
    body = ast.parse(source).body
    return bool(body) and isinstance(body[-1], ast.Expr)


def test_a_new_user_runs_restarts_interrupts_and_chooses_by_keyboard(server: Server, browser: Any) -> None:
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("request", lambda request: asked.append(request.url))
    learner = Keyboard(page)

    assert "/lab/tree/00-" in server.url
    learner.open(server.url)
    learner.shot("opened")
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0

    count = len(learner.cells())
    learner.run_until(count // 2)
    learner.shot("middle-of-00")
    first = supervisor(server)
    (before,) = [one for one in descendants(server.process.pid) if one[0] == first]
    learner.restart()
    learner.add("lab.pods()")
    index = learner.run()
    assert errors(learner.cells()[index])[0].startswith("NameError")  # it is a new kernel
    learner.command("k", "d", "d")
    learner.to_the_top()
    learner.run_until(count)
    assert supervisor(server) != first
    assert alive([before]) == []
    learner.shot("end-of-00")
    choose_a_pod(learner)
    capture_interrupted(learner)

    learner.open(re.sub(r"/tree/[^?]*", "/tree/" + first_of("01"), server.url))
    learner.run_until(len(learner.cells()))
    learner.shot("end-of-01")
    learner.add("!bookinfo-lab status")  # commands that evidence names work as typed
    index = learner.run()
    assert "default: ready" in str(learner.cells()[index]["outputs"])
    page.close()

    host = server.url.partition("/lab")[0]
    assert [url for url in asked if not url.startswith((host, "data:", "blob:", "about:"))] == []
    family = descendants(server.process.pid)
    assert [one for one in family if "envoy" in one[2]]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=20)
    assert alive(family) == []
    assert left_of(server.folder) == []
    assert list((server.folder / "tmp").iterdir()) == []
    assert not (server.folder / "home/.local/state/bookinfo-lab/default").exists()


def supervisor(server: Server) -> int:
    """The process id of the sandbox that the notebooks use."""
    text = (server.folder / "home/.local/state/bookinfo-lab/default/state.json").read_text(encoding="utf-8")
    return int(json.loads(text)["pid"])


def first_of(number: str) -> str:
    return min(path.name for path in (ROOT / "notebooks").glob(f"{number}-*.ipynb"))


def choose_a_pod(learner: Keyboard) -> None:
    """Tab to the list, Space opens it, arrow and Enter choose: another pod's answer is shown.

    While the list is closed the arrow keys are JupyterLab's: they go from cell to cell.
    """
    index = next(number for number, cell in enumerate(learner.cells()) if "choose_pod(" in cell["source"])
    shown = learner.page.locator(".jp-Notebook .widget-dropdown select")
    shown.scroll_into_view_if_needed()
    chosen = shown.input_value()
    answer = learner.page.locator(".widget-output").inner_text()
    learner.command()
    while learner.page.evaluate(ACTIVE)[0] != index:
        learner.page.keyboard.press("k")
    for _ in range(20):
        if learner.page.evaluate("() => document.activeElement.tagName") == "SELECT":
            break
        learner.page.keyboard.press("Tab")
    assert learner.page.evaluate("() => document.activeElement.tagName") == "SELECT"
    learner.page.keyboard.press("Space")
    learner.page.wait_for_function("() => document.activeElement.matches(':open')")
    learner.page.keyboard.press("ArrowDown")
    learner.page.keyboard.press("Enter")
    learner.page.wait_for_function(
        "before => document.querySelector('.widget-output').innerText !== before", arg=answer, timeout=10_000
    )
    assert shown.input_value() != chosen
    learner.shot("another-pod")
    accessible(learner, ".jp-Notebook .widget-vbox")


def accessible(learner: Keyboard, what: str) -> None:
    """axe finds nothing in what the lab shows, in JupyterLab's light and dark theme."""
    from axe_playwright_python.sync_playwright import Axe

    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        learner.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        learner.page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
        learner.page.wait_for_timeout(500)  # the theme's colours come by a style sheet
        learner.shot(theme.lower().replace(" ", "-"))
        found = Axe().run(learner.page, context=what)
        assert found.response["passes"], f"axe looked at nothing in {what}"
        assert found.violations_count == 0, found.generate_report()


def capture_interrupted(learner: Keyboard) -> None:
    """A capture that is interrupted by `i i` ends; the next one has frames; nothing of the first one runs on."""
    learner.add('import time\nwith lab.capture("client") as capture:\n    print("listening")\n    time.sleep(600)')
    index = learner.run(ended=False)
    learner.page.wait_for_function(f"() => ({CELLS})()[{index}].outputs.length > 0")
    learner.command("i", "i")
    learner.page.evaluate(ENDED)
    assert errors(learner.cells()[index])[0].startswith("KeyboardInterrupt")
    learner.shot("interrupted")
    learner.add('with lab.capture("client") as capture:\n    lab.get("/productpage")\ncapture.frame_count')
    index = learner.run()
    cell = learner.cells()[index]
    assert errors(cell) == []
    assert int(cell["outputs"][-1]["data"]["text/plain"]) > 5
    learner.shot("captured")
