"""The tour on toy notebooks: what it runs, what it writes, what it says of a failure, and that it leaves nothing."""

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
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from started import Process, alive, descendants, processes_of

from bookinfo_lab import tour
from bookinfo_lab.errors import LabError
from bookinfo_lab.tour.report import Report

WIDGET = "import ipywidgets\nipywidgets.IntSlider(description='slide me')"
HOSTILE = """
from IPython.display import HTML, Javascript, display
display(Javascript("fetch('https://js.example/')"))
HTML('<script src="https://script.example/x.js"></script><img src="https://image.example/x.png">'
     '<link rel="stylesheet" href="https://style.example/x.css"><style>@import "https://import.example/x.css";</style>'
     '<iframe src="https://frame.example/"></iframe><script>fetch("https://inline.example/")</script>'
     '<b style="background: url(https://url.example/x.png)" onmouseover="fetch(1)">kept</b>')
"""


def write(folder: Path, name: str, *cells: str) -> None:
    """A notebook of these code cells below a heading."""
    folder.mkdir(exist_ok=True)
    made = new_notebook(cells=[new_markdown_cell(f"# {name}"), *map(new_code_cell, cells)])
    nbformat.write(made, folder / f"{name}.ipynb")


@pytest.fixture
def notebooks(tmp_path: Path) -> Path:
    return tmp_path / "notebooks"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that nobody else uses."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def out(tmp_path: Path, temporary: Path) -> Path:
    return tmp_path / "out"


def shown(report: Report, number: int = 0) -> str:
    """The text of a page, without its style sheets."""
    page = Path(report.index).parent / report.runs[number].page
    return re.sub(r"<style.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_each_notebook_gets_a_page_and_a_line_for_each_source(notebooks: Path, out: Path, temporary: Path) -> None:
    for name in ("01-second", "00-first"):
        write(notebooks, name, "import os", "6 * 7, os.environ['BOOKINFO_LAB_SOURCE']")
    said: list[str] = []
    report = tour.run(notebooks, out, ["recording", "recording:/some/where"], say=said.append)
    assert report.fault == ""
    found = [(run.notebook, run.source, run.page, run.cells) for run in report.runs]
    assert found == [
        ("00-first", "recording", "recording/00-first.html", 2),
        ("01-second", "recording", "recording/01-second.html", 2),
        ("00-first", "recording:/some/where", "recording-some-where/00-first.html", 2),
        ("01-second", "recording:/some/where", "recording-some-where/01-second.html", 2),
    ]
    assert "(42, 'recording')" in shown(report, 1).replace("&#39;", "'")
    assert "(42, 'recording:/some/where')" in shown(report, 2).replace("&#39;", "'")
    index = Path(report.index).read_text(encoding="utf-8")
    assert Path(report.index) == out / "index.html"
    assert all(f'href="{run.page}"' in index and str(run) in said for run in report.runs)
    assert len(said) == 4
    assert list(temporary.iterdir()) == []


def test_no_notebook_sees_what_another_one_left_in_its_kernel(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", "left = 1; open('left', 'w').close()")
    write(notebooks, "01", "import os; 'left' in globals(), os.path.exists('left'), In[1][:9]")
    assert "(False, False, 'import os')" in shown(tour.run(notebooks, out, ["recording"]), 1).replace("&#39;", "'")


def test_a_failing_cell_ends_its_notebook_and_is_named_and_shown(notebooks: Path, out: Path) -> None:
    write(notebooks, "00-fails", "1", "print('before')\n{}['the reason']", "print('after')")
    write(notebooks, "01-goes-on", "1")
    report = tour.run(notebooks, out, ["recording"])
    assert [(run.cells, run.error) for run in report.runs] == [(2, "KeyError: 'the reason'"), (1, "")]
    assert report.fault == f"00-fails on recording, cell 2: KeyError: 'the reason'; see {out / 'index.html'}"
    page = shown(report)
    assert re.search(r"In\s\[2\]", page)
    assert "<pre>before" in page
    assert "the reason" in page.partition("<pre>before")[2]
    assert "<pre>after" not in page
    assert "cell 2" in (out / "index.html").read_text(encoding="utf-8")


def test_the_command_works_as_typed_in_a_cell(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", "!bookinfo-lab --help")
    assert "usage: bookinfo-lab" in shown(tour.run(notebooks, out, ["recording"]))


def test_an_error_that_a_cell_is_meant_to_raise_is_no_failure(notebooks: Path, out: Path) -> None:
    notebooks.mkdir()
    meant = new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]})
    nbformat.write(new_notebook(cells=[meant, new_code_cell("'went on'")]), notebooks / "00.ipynb")
    report = tour.run(notebooks, out, ["recording"])
    assert report.fault == ""
    assert "went on" in shown(report).partition("ZeroDivisionError")[2]


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("import time; time.sleep(600)", "no end after 1 s"),
        (
            "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)",
            "no end after 1 s",
        ),
        ("import os; os._exit(3)", "the kernel ended"),
        ("input('your name? ')", "StdinNotImplementedError"),
    ],
)
def test_a_cell_that_hangs_or_ends_its_kernel_is_named_and_left_behind(
    notebooks: Path, out: Path, temporary: Path, cell: str, error: str
) -> None:
    write(notebooks, "00", "import subprocess; child = subprocess.Popen(['sleep', '600'])", cell, "1")
    began = time.monotonic()
    report = tour.run(notebooks, out, ["recording"], cell_timeout_s=1)
    assert time.monotonic() - began < 10
    assert report.runs[0].cells == 2
    assert report.runs[0].error.startswith(error)
    assert error in shown(report)
    assert processes_of(temporary) == []
    assert list(temporary.iterdir()) == []


def test_exercises_are_counted_by_their_last_verdict(notebooks: Path, out: Path) -> None:
    checks = "from bookinfo_lab.teach.checks import OPEN, RIGHT, STOPPED, WRONG, Verdict"
    first = "Verdict('07-1', WRONG, 'It does not hold.')"
    others = [f"Verdict('07-{number}', {word}, 'Why.')" for number, word in enumerate(("RIGHT", "OPEN", "STOPPED"), 1)]
    write(notebooks, "07", checks, first, *others, "'08-1: right.'")
    run = tour.run(notebooks, out, ["recording"]).runs[0]
    assert (run.right, run.judged, run.error) == (1, 3, "")
    assert "1 of 3 exercises right" in str(run)


def test_a_report_is_json(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", "1 / 0")
    document = json.loads(json.dumps(tour.as_document(tour.run(notebooks, out, ["recording"]))))
    assert document["ok"] is False
    assert document["runs"][0]["error"] in document["fault"]
    assert document["versions"]["Python"]


# What the user has set up is neither read nor changed.


def test_the_users_own_jupyter_and_ipython_are_not_asked(
    notebooks: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    seen = tmp_path / "seen"
    startup = home / ".ipython/profile_default/startup/00.py"
    kernel = home / ".local/share/jupyter/kernels/python3/kernel.json"
    template = home / ".local/share/jupyter/nbconvert/templates/lab/index.html.j2"
    for path, text in {
        startup: f"open({str(seen)!r}, 'a').write('startup ')",
        home / "pythonstartup.py": f"open({str(seen)!r}, 'a').write('PYTHONSTARTUP ')",
        home
        / ".ipython/profile_default/ipython_kernel_config.py": "c.InteractiveShell.ast_node_interactivity = 'none'",
        kernel: json.dumps({"argv": ["/bin/false"], "display_name": "mine", "language": "python"}),
        home / ".jupyter/jupyter_config.py": "c.ExecutePreprocessor.timeout = 0",
        template: "the user's own template",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = sorted(home.rglob("*"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JUPYTER_PATH", str(kernel.parents[2]))
    monkeypatch.setenv("PYTHONSTARTUP", str(home / "pythonstartup.py"))
    write(notebooks, "00", "get_ipython().history_manager.enabled", "import sys; sys.executable", "41 + 1")
    report = tour.run(notebooks, out, ["recording"])
    assert report.fault == ""
    assert not seen.exists()
    assert sorted(home.rglob("*")) == before
    text = shown(report)
    assert [word for word in ("False", sys.executable, "42") if word not in text] == []
    assert "the user's own template" not in text


def test_a_home_that_cannot_be_written_is_no_hindrance(
    notebooks: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc")  # not even root can write there
    write(notebooks, "00", "import matplotlib; matplotlib.get_cachedir(); 'went on'")
    report = tour.run(notebooks, out, ["recording"])
    assert report.fault == ""
    assert "went on" in shown(report)


def test_the_learners_progress_and_sandboxes_are_out_of_reach(
    notebooks: Path, out: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKINFO_LAB_STATE", "/the/learners/own")
    write(notebooks, "00", "from bookinfo_lab.teach import progress; print(progress.folder())")
    assert str(temporary) in shown(tour.run(notebooks, out, ["recording"]))
    assert os.environ["BOOKINFO_LAB_STATE"] == "/the/learners/own"


# Pages


class References(HTMLParser):
    """Every attribute by which a page makes a browser fetch something, and the page's own policy."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts, self.policies = 0, []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.scripts += tag == "script"
        if tag == "meta" and given.get("http-equiv", "").lower() == "content-security-policy":
            self.policies.append((given["content"], list(self.fetched)))
        names = ["src", "srcset", "poster", "data", "background", *(["href"] if tag in ("link", "base", "use") else [])]
        self.fetched += [given[name] for name in names if given.get(name)]
        self.fetched += re.findall(r"url\(\s*['\"]?(?!data:)([^)]*)", given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.fetched += re.findall(r"url\(\s*['\"]?(?!data:)([^)]*)|@import\s+([^;]*)", data)


def test_pages_refer_to_nothing_outside_and_hold_no_script(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", WIDGET, "from IPython.display import Math\nMath(r'x^2')")
    report = tour.run(notebooks, out, ["recording"])
    for page in (out / "index.html", out / report.runs[0].page):
        found = References(page.read_text(encoding="utf-8"))
        assert (found.fetched, found.scripts) == ([], 0), page
        assert [policy.partition(";")[0] for policy, _ in found.policies] == ["default-src 'none'"]


def test_the_search_for_references_finds_them() -> None:
    tags = ['<link href="a">', '<script src="b"></script>', '<img srcset="c">', '<p style="background: url(d)">']
    assert len(References("".join([*tags, '<style>@import "e";</style>'])).fetched) == 5


def test_a_widget_is_shown_as_its_text_and_its_state_is_not_kept(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", WIDGET)
    page = shown(tour.run(notebooks, out, ["recording"]))
    assert "slide me" in page.partition("In\xa0[1]")[2].partition("Out[1]")[2]
    assert "application/vnd.jupyter.widget" not in page


def test_what_an_output_refers_to_comes_after_the_policy_that_forbids_it(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", HOSTILE)
    report = tour.run(notebooks, out, ["recording"])
    found = References((out / report.runs[0].page).read_text(encoding="utf-8"))
    assert any("image.example" in url for url in found.fetched)
    assert [before for _, before in found.policies] == [[]]
    assert "kept" in shown(report)


# What the tour refuses


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["moon"], ["'moon'", "sandbox:SCENARIO"]),
        (["kubernetes:kind"], ["'kubernetes:kind'"]),
        (["sandbox:mars"], ["'mars'", "article"]),
    ],
)
def test_an_unknown_source_is_one_line(notebooks: Path, out: Path, sources: list[str], words: list[str]) -> None:
    write(notebooks, "00", "1")
    refused(notebooks, out, words, sources)


def test_an_out_folder_that_cannot_be_written_is_one_line_before_anything_runs(notebooks: Path, out: Path) -> None:
    write(notebooks, "00", "1")
    out.parent.joinpath("file").touch()
    refused(notebooks, out.parent / "file" / "tour", ["file", "Not a directory", "another folder"])
    (out / "recording").mkdir(parents=True)
    (out / "recording/00.html").mkdir()
    refused(notebooks, out, ["00.html", "Is a directory"])


def test_what_is_no_notebook_is_one_line(notebooks: Path, out: Path) -> None:
    refused(notebooks, out, ["no notebooks", str(notebooks)])
    notebooks.mkdir()
    refused(notebooks, out, ["no notebooks", str(notebooks)])
    for text in ("", "{}", '{"cells": [{}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "\0", "[]"):
        (notebooks / "00-broken.ipynb").write_text(text, encoding="utf-8")
        refused(notebooks, out, ["00-broken.ipynb", "no notebook"])


def refused(notebooks: Path, out: Path, words: list[str], sources: list[str] | None = None) -> None:
    with pytest.raises(LabError) as refusal:
        tour.run(notebooks, out, sources or ["recording"])
    message = str(refusal.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_an_installed_package_says_that_it_has_no_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "__file__", str(tmp_path / "site-packages/bookinfo_lab/tour/__init__.py"))
    with pytest.raises(LabError, match="checkout") as refusal:
        tour.notebooks_folder()
    assert "\n" not in str(refusal.value)


def test_without_a_sandbox_the_recordings_take_its_place_and_that_is_said(
    notebooks: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKINFO_LAB_ENVOY", "/nowhere/envoy")
    write(notebooks, "00", "import bookinfo_lab; print(bookinfo_lab.connect().source.description)")
    said: list[str] = []
    report = tour.run(notebooks, out, say=said.append)
    assert report.fault == report.journey == ""
    assert [run.source for run in report.runs] == ["recording", "recording:article"]
    assert len(report.notes) == 2
    assert all("/nowhere/envoy" in note and note in said for note in report.notes)
    assert "/nowhere/envoy" in (out / "index.html").read_text(encoding="utf-8")
    assert "article" in shown(report, 1)


# On sandboxes


@pytest.mark.sandbox
def test_a_sandbox_is_made_for_each_scenario_and_taken_down(notebooks: Path, out: Path, temporary: Path) -> None:
    show = "import bookinfo_lab; lab = bookinfo_lab.connect(); mesh = lab.source.mesh; mesh.scenario, mesh.pid"
    for name in ("00", "01"):
        write(notebooks, name, show, "assert lab.get('/productpage').status == 200")
    before = descendants(os.getpid())
    report = tour.run(notebooks, out, ["sandbox:sidecar", "sandbox:article"])
    assert report.fault == ""
    assert "GET /productpage" in report.journey
    assert alive(descendants(os.getpid()) - before) == []
    assert list(temporary.iterdir()) == []
    pids = [re.findall(r"(sidecar|article)(?:&#39;|'), (\d+)", shown(report, number)) for number in range(4)]
    assert [found[0][0] for found in pids] == ["sidecar", "sidecar", "article", "article"]
    assert len({found[0][1] for found in pids}) == 2


RUN = """
import sys
from pathlib import Path
from bookinfo_lab import tour
tour.run(Path(sys.argv[1]), Path(sys.argv[2]), ["recording", "sandbox:article"], say=print)
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A tour of its own process, all that descends from it, and the folder of its temporary files."""

    process: "subprocess.Popen[bytes]"
    family: set[Process]
    folder: Path


@pytest.fixture
def running(notebooks: Path, tmp_path: Path) -> Iterator[Running]:
    """A tour that hangs in a cell on a recording and on a sandbox; the kernels have children."""
    folder, mark = tmp_path / "tmp", tmp_path / "there"
    folder.mkdir()
    hang = f"import subprocess; subprocess.Popen(['sleep', '600']); open({str(mark)!r}, 'a').write('x')"
    write(notebooks, "00", "import bookinfo_lab; lab = bookinfo_lab.connect()", hang, "import time; time.sleep(600)")
    started = subprocess.Popen(
        [sys.executable, "-c", RUN, str(notebooks), str(tmp_path / "out")],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with started:
        deadline = time.monotonic() + 30
        while not (mark.exists() and mark.stat().st_size == 2) and started.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        family = descendants(started.pid)
        yield Running(started, family, folder)
        started.kill()
    for pid, _, words in alive(family, 0.2):
        if words.startswith("sleep"):  # what a killed kernel's cell had started goes on: nobody is left to end it
            os.kill(pid, signal.SIGKILL)


@pytest.mark.sandbox
def test_the_search_for_processes_finds_those_of_a_sandbox(running: Running) -> None:
    words = " ".join(one[2] for one in running.family)
    assert [word for word in ("ipykernel", "sleep 600", "envoy", "productpage") if word not in words] == []
    assert len(alive(running.family, 0)) == len(running.family)


@pytest.mark.sandbox
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_tour_that_is_interrupted_leaves_nothing(running: Running, number: int) -> None:
    running.process.send_signal(number)
    assert running.process.wait(timeout=20) in (-number, 128 + number)
    assert alive(running.family, 0) == []
    assert list(running.folder.iterdir()) == []


@pytest.mark.sandbox
def test_a_tour_that_is_killed_leaves_a_folder_that_the_next_one_clears(
    running: Running, notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.process.kill()
    running.process.wait(timeout=20)
    assert alive([one for one in running.family if not one[2].startswith("sleep")]) == []
    (kept,) = running.folder.iterdir()
    os.utime(kept, (1, 1))
    monkeypatch.setattr("tempfile.tempdir", str(running.folder))
    shutil.rmtree(notebooks)
    write(notebooks, "00", "1")
    assert tour.run(notebooks, tmp_path / "next", ["recording"]).fault == ""
    assert list(running.folder.iterdir()) == []


@pytest.mark.sandbox
def test_the_whole_tour_passes_where_no_network_is(tmp_path: Path) -> None:
    options = ["--net"] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps", "--net"]
    script = (
        "import sys, json; from pathlib import Path; from bookinfo_lab import tour\n"
        "found = tour.run(tour.notebooks_folder() / 'solutions', Path(sys.argv[1]))\n"
        "print(json.dumps(tour.as_document(found)))"
    )
    up = 'ip link set lo up; ip route; exec "$@"'
    argv = ["unshare", *options, "sh", "-c", up, "sh", sys.executable, "-c", script, str(tmp_path / "out")]
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=110, env=os.environ | {"HOME": str(tmp_path), "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)  # and nothing before it: there was no route
    assert document["fault"] == ""
    assert document["notes"] == []
    assert [run for run in document["runs"] if run["right"] != run["judged"]] == []
    assert {run["source"] for run in document["runs"]} == set(tour.SOURCES)
