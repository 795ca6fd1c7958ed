"""The command line's manners: exit statuses, which stream says what, and what it does without any sandbox."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-P", "-c", "import sys; from bookinfo_lab.cli import main; sys.exit(main())"]
COMMANDS = (
    *("doctor", "tour", "lab", "up", "down", "status", "exec", "shell", "logs", "objects", "capture", "record"),
    *("journey", "walk", "rules"),
)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"BOOKINFO_LAB_STATE": str(tmp_path / "state"), "PYTHONPATH": path}


def run(env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *words], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_an_answer(env: dict[str, str], command: str) -> None:
    done = run(env, *filter(None, [command]), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert command or all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["fly"], "'fly'"),
        (["up", "--publish", "-1"], "'-1'"),
        (["up", "--publish", "65536"], "'65536'"),
        (["up", "--publish", "80.5"], "'80.5'"),
        (["up", "--publish", ""], "''"),
        (["down", "extra"], "extra"),
        (["exec"], "TARGET"),
        (["exec", "client", "true"], "true"),
        (["status", "--name", "a/b"], "'a/b'"),
        (["exec", "client", "--"], "-- COMMAND"),
        (["exec", "--", "true"], "TARGET"),
        (["up", "--scenario", "2018"], "'2018'"),
        (["journey", "--scenario", "2018"], "'2018'"),
    ],
)
def test_bad_words_end_with_2_and_say_which(env: dict[str, str], words: list[str], said: str) -> None:
    done = run(env, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("bookinfo-lab")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not Path(env["BOOKINFO_LAB_STATE"]).exists()


def test_a_no_is_1_on_both_forms_of_status_and_makes_no_folder(env: dict[str, str]) -> None:
    plain, document = run(env, "status"), run(env, "status", "--json")
    assert (plain.returncode, plain.stdout, plain.stderr) == (1, "", "no sandbox runs\n")
    assert (document.returncode, json.loads(document.stdout)) == (1, {"sandboxes": []})
    assert not Path(env["BOOKINFO_LAB_STATE"]).exists()


def test_down_of_nothing_is_done_and_says_so_on_stderr(env: dict[str, str]) -> None:
    done = run(env, "down", "--name", "nobody")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (0, "", 1)
    assert "'nobody'" in done.stderr


@pytest.mark.parametrize("words", [["status", "--json"], ["--help"], ["up", "--help"]])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full"])
def test_streams_that_are_closed_or_full_are_no_traceback(env: dict[str, str], words: list[str], closed: str) -> None:
    argv = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_error(env: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "--help"], env=env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
