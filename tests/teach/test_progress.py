"""Progress is kept: across kernels, beside other kernels, past a damaged file; and where it cannot be, that is said."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import state
from bookinfo_lab.teach import progress
from bookinfo_lab.teach.progress import Progress, Solved


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state home, and a process that has said nothing yet."""
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(progress, "_TOLD", set())
    return tmp_path / "state"


def ids() -> list[str]:
    return [item.exercise for item in progress.solved()]


def in_a_process(program: str, **options: Any) -> "subprocess.Popen[str]":
    text = f"import sys, time\nfrom bookinfo_lab.teach import progress\n{program}"
    return subprocess.Popen([sys.executable, "-c", text], text=True, stdout=subprocess.PIPE, **options)


def test_nothing_is_solved_at_first_and_asking_writes_nothing(home: Path) -> None:
    assert ids() == []
    assert not home.exists()


def test_what_was_solved_is_known_to_the_next_kernel() -> None:
    before = time.time()
    assert progress.keep("01-2", "sandbox 'default', scenario article") == ""
    assert progress.keep("00-1", "a recording") == ""
    with in_a_process("print([(item.exercise, item.source) for item in progress.solved()])") as process:
        told, _ = process.communicate()
    assert told.strip() == """[('00-1', 'a recording'), ('01-2', "sandbox 'default', scenario article")]"""
    assert all(before <= item.time <= time.time() for item in progress.solved())


def test_an_exercise_counts_as_it_was_solved_first() -> None:
    progress.keep("01-2", "first")
    first = progress.solved()
    progress.keep("01-2", "second")
    assert progress.solved() == first


def test_two_kernels_at_once_lose_nothing() -> None:
    program = "sys.stdin.readline()\nfor n in range(40): assert progress.keep(f'{sys.argv[1]}-{n}', 's') == ''"
    text = f"import sys\nfrom bookinfo_lab.teach import progress\nprint(flush=True)\n{program}"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    kernels = [subprocess.Popen([sys.executable, "-c", text, name], **pipes) for name in ("01", "02", "03")]
    for kernel in kernels:
        kernel.stdout.readline()  # type: ignore[union-attr]
    for kernel in kernels:
        kernel.stdin.write("\n")  # type: ignore[union-attr]
        kernel.stdin.flush()  # type: ignore[union-attr]
    for kernel in kernels:
        kernel.communicate()
        assert kernel.returncode == 0
    assert len(ids()) == 120


def test_a_kernel_killed_in_the_middle_holds_nobody_up(home: Path) -> None:
    program = "with progress._locked():\n print('held', flush=True)\n time.sleep(60)"
    with in_a_process(program) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert progress.keep("01-1", "s") == ""
    assert ids() == ["01-1"]


def test_a_kernel_that_does_not_let_go_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", 0.05)
    with progress._locked():
        note = progress.keep("01-1", "s")
        with pytest.raises(LabError, match="another program holds"):
            progress.reset()
    assert "another program holds" in note
    assert ids() == []


def test_a_half_written_file_is_never_seen(home: Path) -> None:
    """A reader beside a writer sees the file before or after, and takes neither for damaged."""
    progress.keep("01-0", "s")
    with in_a_process("for n in range(1, 120): progress.keep(f'01-{n}', 's' * 2000)") as process:
        while process.poll() is None:
            assert progress.solved().note == ""
    assert len(ids()) == 120
    assert sorted(path.name for path in home.iterdir()) == ["progress.json", "progress.lock"]


def test_reset_forgets_one_notebook_or_all() -> None:
    for exercise in ("00-1", "01-1", "01-2", "011-1"):
        progress.keep(exercise, "s")
    assert [item.exercise for item in progress.reset("01")] == ["00-1", "011-1"]
    assert ids() == ["00-1", "011-1"]
    assert len(progress.reset()) == 0
    assert ids() == []
    progress.keep("01-1", "again")
    assert ids() == ["01-1"]


DAMAGED = {
    "empty": b"",
    "half": b'{"01-1": {"time": 1',
    "no text": b"\xff\xfe\x00",
    "no object": b"[1, 2]",
    "nested": b"[" * 200_000,
    "long number": b"{" + b'"a": ' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_set_aside_with_one_line_and_progress_goes_on(home: Path, raw: bytes) -> None:
    home.mkdir()
    for number in (1, 2):
        (home / "progress.json").write_bytes(raw)
        note = progress.keep("01-1", "s")
        aside = home / f"progress.damaged-{number}.json"
        assert str(aside) in note
        assert len(note.splitlines()) == 1
        assert aside.read_bytes() == raw
        assert ids() == ["01-1"]
    assert progress.keep("01-2", "s") == ""


def test_a_damaged_file_is_noticed_by_who_only_asks(home: Path) -> None:
    home.mkdir()
    (home / "progress.json").write_bytes(b"{")
    found = progress.solved()
    assert len(found) == 0
    assert "progress.damaged-1.json" in repr(found)
    assert "progress.damaged-1.json" in found._repr_html_()
    assert progress.solved().note == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries({}, optional={"time": JSON, "source": JSON})


@settings(suppress_health_check=list(HealthCheck), max_examples=60)
@given(content=st.dictionaries(st.sampled_from(["01-1", "01-2", "xx", "\ud800", "<b>"]), JSON | ENTRY))
def test_entries_of_any_shape_are_passed_over_and_kept(home: Path, content: dict[str, Any]) -> None:
    home.mkdir(exist_ok=True)
    (home / "progress.json").write_text(json.dumps(content))
    repr(progress.solved()).encode()
    progress.solved()._repr_html_().encode()
    assert progress.keep("01-1", "s") == ""
    assert "01-1" in progress.solved()
    after = json.loads((home / "progress.json").read_text())
    assert set(after) == {*content, "01-1"}


def unwritable(home: Path) -> None:
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file where a folder should be")


def unreadable(home: Path) -> None:
    (home / "progress.json").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [unwritable, unreadable])
def test_where_progress_cannot_be_kept_that_is_said_once(home: Path, spoil: Any) -> None:
    spoil(home)
    note = progress.keep("01-1", "s")
    assert note.startswith("Progress is not kept: ")
    assert str(home) in note
    assert "BOOKINFO_LAB_STATE" in note
    assert progress.keep("01-2", "s") == ""
    assert str(home) in progress.solved().note
    with pytest.raises(LabError, match="cannot reset progress"):
        progress.reset()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_leave_to_write_is_said(home: Path) -> None:
    home.mkdir(mode=0o500)
    assert str(home) in progress.keep("01-1", "s")


def test_a_full_disk_is_said_and_what_was_kept_stays(home: Path) -> None:
    progress.keep("01-1", "s")
    (home / "progress.json.new").symlink_to("/dev/full")
    assert "No space left on device" in progress.keep("01-2", "s")
    assert ids() == ["01-1"]


ENVIRONMENTS: list[dict[str, str]] = [
    {"BOOKINFO_LAB_STATE": "{tmp}/own"},
    {"BOOKINFO_LAB_STATE": "relative/own"},
    {"BOOKINFO_LAB_STATE": "", "HOME": "{tmp}"},
    {"HOME": "{tmp}/none/such"},
    {"HOME": "{tmp}", "XDG_STATE_HOME": "{tmp}/xdg"},
    {"HOME": "{tmp}", "XDG_STATE_HOME": "not/absolute"},
    {"HOME": "/proc/none", "TMPDIR": "{tmp}/temporary"},
    {"HOME": "/dev/null", "TMPDIR": "{tmp}/temporary"},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_progress_lies_beside_the_sandboxes_state(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BOOKINFO_LAB_STATE", "XDG_STATE_HOME", "HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{tmp}", str(tmp_path)))
    assert progress.folder() == state.home()


def test_progress_names_no_sandbox(home: Path) -> None:
    progress.keep("01-1", "s")
    (home / "progress.json").write_text("{")
    progress.keep("01-1", "s")
    assert len(list(home.iterdir())) == 3
    assert list(state.names()) == []


def test_a_folder_in_the_temporary_one_that_is_a_stranger_s_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOOKINFO_LAB_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    own = os.getuid()
    assert progress.keep("01-1", "s") == ""
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert "belongs to another user" in progress.keep("01-2", "s")


class Cells(HTMLParser):
    """The text of each cell of a table, and the elements used."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def test_progress_shows_as_a_table_in_text_and_html(utc: None) -> None:
    found = Progress((Solved("00-1", 1700000000.0, "recording sidecar.zip"), Solved("01-2", 1700000060.0, "sandbox")))
    assert repr(found).splitlines() == [
        "00-1      2023-11-14 22:13  recording sidecar.zip",
        "01-2      2023-11-14 22:14  sandbox",
    ]
    row = ["00-1", "2023-11-14 22:13", "recording sidecar.zip"]
    assert Cells(found._repr_html_()).cells[:6] == ["exercise", "solved", "on", *row]
    assert ("00-1" in found, "00-2" in found, len(found)) == (True, False, 2)


def test_an_empty_table_says_so() -> None:
    assert repr(progress.solved()) == "No exercise is solved yet."
    assert "No exercise is solved yet." in progress.solved()._repr_html_()


def test_a_hostile_file_is_shown_and_not_obeyed() -> None:
    found = Progress((Solved("<script>\x1b[2J", 0.0, "<img src=x>\u202e\n" + "x" * 1_000_000),), "<b>\x1b")
    shown = Cells(found._repr_html_())
    assert shown.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert len(repr(found)) < 2000
    assert [letter for letter in repr(found) if not letter.isprintable() and letter != "\n"] == []
    assert [letter for letter in found._repr_html_() if not letter.isprintable()] == []
