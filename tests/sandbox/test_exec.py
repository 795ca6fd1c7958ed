"""`exec` and `shell`: status, bytes and signals pass through; a container's programs see their container alone."""

import os
import pty
import random
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from modes import Runner, own_mode, runner

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def lab() -> Iterator[Runner]:
    with runner(own_mode()) as made:
        assert made.run("up").returncode == 0
        yield made
        made.run("down")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_the_status_is_the_programs(lab: Runner, script: str, status: int) -> None:
    assert lab.run("exec", "productpage", "--", "sh", "-c", script).returncode == status


def test_a_program_that_is_not_there_is_127(lab: Runner) -> None:
    done = lab.run("exec", "productpage", "--", "no-such-program")
    assert (done.returncode, "no such program" in done.stderr) == (127, True)


def test_a_megabyte_comes_back_byte_for_byte(lab: Runner) -> None:
    data = random.Random(1).randbytes(1 << 20)
    done = subprocess.run(
        lab.command("exec", "ingress", "--", "cat"),
        env=lab.env,
        input=data,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == data


def test_stderr_and_words_stay_apart(lab: Runner) -> None:
    done = lab.run("exec", "client", "--", "sh", "-c", 'printf "%s|" "$@"; echo bad >&2', "sh", "a b", "--", "*")
    assert (done.stdout, done.stderr) == ("a b|--|*|", "bad\n")


def test_a_containers_programs_see_no_other_containers(lab: Runner) -> None:
    app = lab.run("exec", "productpage", "--", "ps", "-eo", "args").stdout
    proxy = lab.run("exec", "-c", "istio-proxy", "productpage", "--", "ps", "-eo", "args").stdout
    assert "python productpage.py" in app
    assert "envoy" not in app
    assert "envoy" in proxy
    assert "productpage.py" not in proxy


def test_a_signal_reaches_the_program(lab: Runner) -> None:
    script = "trap 'echo got; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    with lab.start("exec", "node", "--", "sh", "-c", script) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
        caller.send_signal(signal.SIGINT)
        assert caller.stdout.read() == "got\n"
    assert caller.returncode == 7


def test_the_program_ends_with_its_caller(lab: Runner) -> None:
    with lab.start("exec", "client", "--", "sh", "-c", "echo ready; exec sleep 4321") as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
        caller.kill()
    deadline = time.monotonic() + 5
    while "sleep 4321" in lab.run("exec", "client", "--", "ps", "-eo", "args").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_shell_has_a_terminal_of_its_own(lab: Runner) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        argv = lab.command("shell", "productpage")
        os.chdir("/")
        os.execvpe(argv[0], argv, lab.env | {"TERM": "dumb"})
    seen = talk(terminal, b"tty; hostname; exit 5\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(terminal)
    assert b"/dev/pts/" in seen
    assert b"productpage-v1-" in seen


def talk(terminal: int, keys: bytes) -> bytes:
    """Type ``keys`` once a prompt stands there; everything shown until the terminal closes."""
    seen, typed, deadline = b"", False, time.monotonic() + 20
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # Linux says EIO where the other end is closed
                return seen
        if not typed and seen.rstrip().endswith((b"#", b"$")):
            os.write(terminal, keys)
            typed = True
    raise AssertionError(f"the shell did not end; it showed {seen!r}")


def test_a_closed_stdin_is_an_empty_one(lab: Runner) -> None:
    argv = ["sh", "-c", 'exec "$@" <&-', "sh", *lab.command("exec", "client", "--", "cat")]
    done = subprocess.run(argv, env=lab.env, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
