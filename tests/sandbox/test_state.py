"""State folders: one owner at a time, however many ask; a dead owner's folder is free; a stranger's is left alone.

Files and locks alone: no sandbox is made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import state


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path))
    return tmp_path


def test_a_name_is_claimed_once_and_free_again_when_its_holder_lets_go() -> None:
    first = state.claim("one")
    with pytest.raises(state.Running, match="'one'"):
        state.claim("one")
    assert state.is_held(first.folder)
    os.close(first.descriptor)
    assert not state.is_held(first.folder)
    os.close(state.claim("one").descriptor)


def test_a_holder_without_a_record_is_starting_and_a_record_without_a_holder_is_nothing() -> None:
    claim = state.claim("one")
    assert state.read("one") == {"name": "one", "stage": "starting"}
    state.write(claim.folder, {"name": "one", "pid": 1})
    assert state.read("one") == {"name": "one", "pid": 1}
    os.close(claim.descriptor)
    assert state.read("one") is None
    os.close(state.claim("one").descriptor)
    assert os.listdir(claim.folder) == []


def test_a_reader_never_sees_half_a_record() -> None:
    """One process writes records of very different lengths, this one reads as fast as it can."""
    claim = state.claim("one")
    state.write(claim.folder, {"text": ""})
    code = (
        "import sys; from bookinfo_lab.sandbox import state\n"
        "for n in range(400): state.write(sys.argv[1], {'text': 'x' * (n % 7 * 9999)})"
    )
    with subprocess.Popen([sys.executable, "-c", code, claim.folder]) as writer:
        seen = set()
        while writer.poll() is None:
            record = state.read("one")
            assert record is not None
            assert set(record["text"]) <= {"x"}
            seen.add(len(record["text"]))
    os.close(claim.descriptor)
    assert writer.returncode == 0
    assert len(seen) > 1, "the reader never met the writer: this test has shown nothing"


def test_rivals_for_a_name_are_refused_or_have_it_alone(home: Path) -> None:
    """Three processes claim, check that they are alone, and remove: nothing else than `Running` may come of it."""
    code = """
import collections, json, os, sys, time
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import state
seen = collections.Counter()
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        claim = state.claim("one")
        try:
            os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            seen["not alone"] += 1
        else:
            os.unlink(sys.argv[1])
        state.remove(claim)
        os.close(claim.descriptor)
        seen["had it"] += 1
    except (LabError, OSError) as error:
        seen[type(error).__name__] += 1
print(json.dumps(seen))
"""
    argv = [sys.executable, "-c", code, str(home / "alone")]
    rivals = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    seen = [json.loads(rival.communicate(timeout=30)[0]) for rival in rivals]
    assert all(one.get("had it") for one in seen)
    assert {outcome for one in seen for outcome in one} <= {"had it", "Running"}


@pytest.mark.parametrize("name", ["", "-", "a-", "-a", "A", "a_b", "a/b", "..", "a.b", "a\n", "ä", "a" * 41, "a b"])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    for use in (state.claim, state.read, state.folder_of):
        with pytest.raises(LabError, match="cannot name a sandbox"):
            use(name)


@pytest.mark.parametrize("name", ["a", "0", "a-b", "tour-12345", "a" * 40])
def test_a_label_is_a_name(name: str) -> None:
    os.close(state.claim(name).descriptor)
    assert list(state.names()) == [name]


def test_a_strangers_file_is_named_and_stays(home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "thesis.tex").write_text("years of work")
    (home / "mine" / "state.json").write_text("{}")
    with pytest.raises(LabError, match=r"thesis\.tex"):
        state.claim("mine")
    assert sorted(os.listdir(home / "mine")) == ["state.json", "thesis.tex"]
    assert not state.is_held(str(home / "mine"))


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_another_users_folder_is_refused_with_that_user(home: Path) -> None:
    (home / "theirs").mkdir()
    os.chown(home / "theirs", 1234, 1234)
    with pytest.raises(LabError, match="belongs to user 1234"):
        state.claim("theirs")


def test_a_link_or_a_file_in_a_folders_place_is_refused_and_stays(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "kept").touch()
    (home / "link").symlink_to(home / "elsewhere")
    (home / "file").write_text("kept")
    for name in ("link", "file"):
        with pytest.raises(LabError, match=name):
            state.claim(name)
        assert state.read(name) is None
    assert os.listdir(home / "elsewhere") == ["kept"]
    assert (home / "file").read_text() == "kept"


def test_without_a_given_home_state_lies_with_the_user_and_else_with_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOOKINFO_LAB_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "new"))
    assert state.home() == f"{tmp_path}/new/bookinfo-lab"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for nowhere in ("/proc/1/nowhere", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", nowhere)
        if nowhere == "relative" or not os.access("/proc/1", os.W_OK):
            assert state.home() == f"{tmp_path}/bookinfo-lab-{os.getuid()}"
