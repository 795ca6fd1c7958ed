"""Killed at any moment: the mesh is whole or gone, and what is gone has left nothing."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import leaks
import pytest
from modes import MODES, Runner, runner

pytestmark = pytest.mark.sandbox
SEED = int(os.environ.get("BOOKINFO_LAB_SEED", "20261123"))


@pytest.fixture(scope="module", params=MODES)
def lab(request: pytest.FixtureRequest) -> Iterator[Runner]:
    with runner(request.param) as made:
        yield made


def answers(lab: Runner, name: str) -> bool:
    """Whether one request through the sandbox's front door comes back whole."""
    done = lab.run("journey", "--name", name, "/productpage")
    return done.returncode == 0 and "GET /productpage" in done.stdout


# The check must see a leak before it may say that there is none.


def test_the_check_finds_a_process_in_a_namespace_of_its_own() -> None:
    before = leaks.snapshot([])
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--net"]
    with subprocess.Popen([*command, "sleep", "60"]) as leaked:
        deadline = time.monotonic() + 5
        while not (found := leaks.left(before, [], 0)) and time.monotonic() < deadline:
            pass
        leaked.kill()
    assert any(f"process {leaked.pid} " in thing for thing in found)
    assert any(thing.startswith("netns ") for thing in found)
    assert leaks.left(before, []) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace or a mount that stays needs root")
def test_the_check_finds_a_network_namespace_and_a_mount() -> None:
    """In a mount namespace of its own, so that the machine keeps neither."""
    code = """
import os, subprocess, sys
sys.path[:0] = sys.argv[1:]
import leaks
before = leaks.snapshot([])
subprocess.run(["ip", "netns", "add", "leaked"], check=True)
os.mkdir("/tmp/leaked")
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp/leaked"], check=True)
print("\\n".join(leaks.left(before, [], 0.2)))
"""
    hidden = 'mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /tmp && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-c", code, os.path.dirname(leaks.__file__)]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "netns file /run/netns/leaked" in found
    assert "mount /tmp/leaked" in found


def test_the_check_finds_a_file(tmp_path: object) -> None:
    before = leaks.snapshot([str(tmp_path)])
    with open(f"{tmp_path}/leaked", "w", encoding="ascii"):
        pass
    assert leaks.left(before, [str(tmp_path)], 0.1) == [f"file {tmp_path}/leaked"]


# The kills.


def test_up_and_down_leave_nothing(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    done = lab.run("up", "--name", "plain")
    assert (done.returncode, f"users mapped: {lab.mode}" in done.stdout) == (0, True), done
    assert len(leaks.left(before, [lab.state], 0.1)) > 10
    assert answers(lab, "plain")
    assert lab.run("down", "--name", "plain").returncode == 0
    assert leaks.left(before, [lab.state]) == []


@pytest.mark.parametrize("number", range(10))
def test_up_killed_at_a_random_moment_is_whole_or_gone(lab: Runner, number: int) -> None:
    chance = random.Random(f"{SEED} {lab.mode} up {number}")
    kind = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    whole_group = kind == signal.SIGINT
    name = f"killed-{number}"
    before = leaks.snapshot([lab.state])
    with lab.start("up", "--name", name, start_new_session=True) as up:
        time.sleep(chance.uniform(0.0, 1.2))
        if up.poll() is None:
            (os.killpg if whole_group else os.kill)(up.pid, kind)
        _, errors = up.communicate(timeout=30)
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    record = lab.status(name)
    while record is not None and "init" not in record and time.monotonic() < deadline:
        record = lab.status(name)  # its supervisor is on the way out
    if record is not None and lab.status(name) is not None:
        assert answers(lab, name), f"seed {SEED}: neither whole nor gone"
    assert lab.run("down", "--name", name).returncode == 0
    assert leaks.left(before, [lab.state]) == []


@pytest.mark.parametrize("number", range(7))
def test_a_killed_supervisor_or_init_takes_everything_along(lab: Runner, number: int) -> None:
    chance = random.Random(f"{SEED} {lab.mode} supervisor {number}")
    name = f"orphaned-{number}"
    before = leaks.snapshot([lab.state])
    with lab.start("up", "--name", name, start_new_session=True) as up:
        time.sleep(chance.uniform(0.1, 1.5))
        record = lab.status(name)
        victim = None if record is None else record.get(chance.choice(["pid", "init"]), record.get("pid"))
        if victim is not None:
            with_suppressed_kill(victim)
        up.communicate(timeout=30)
    if victim is not None:
        deadline = time.monotonic() + 5
        while lab.status(name) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lab.status(name) is None
    assert lab.run("down", "--name", name).returncode == 0
    assert leaks.left(before, [lab.state]) == []


def with_suppressed_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it had ended by itself


@pytest.mark.parametrize("number", range(5))
def test_down_killed_at_a_random_moment_can_be_repeated(lab: Runner, number: int) -> None:
    chance = random.Random(f"{SEED} {lab.mode} down {number}")
    name = f"half-down-{number}"
    before = leaks.snapshot([lab.state])
    assert lab.run("up", "--name", name).returncode == 0
    with lab.start("down", "--name", name) as down:
        time.sleep(chance.uniform(0.0, 0.2))
        down.kill()
        down.communicate(timeout=30)
    if lab.status(name) is not None:
        assert answers(lab, name) or lab.status(name) is None
    assert lab.run("down", "--name", name).returncode == 0
    assert leaks.left(before, [lab.state]) == []


def test_down_of_something_half_made_works(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    with lab.start("up", "--name", "half") as up:
        deadline = time.monotonic() + 10
        while lab.status("half") is None and time.monotonic() < deadline:
            pass
        assert lab.run("down", "--name", "half").returncode == 0
        up.communicate(timeout=30)
    assert leaks.left(before, [lab.state]) == []


def test_a_name_is_free_again_after_a_kill(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    assert lab.run("up", "--name", "again").returncode == 0
    record = lab.status("again")
    assert record is not None
    os.kill(record["pid"], signal.SIGKILL)
    done = lab.run("up", "--name", "again")
    assert (done.returncode, done.stderr) == (0, "")
    assert answers(lab, "again")
    assert lab.run("down", "--name", "again").returncode == 0
    assert leaks.left(before, [lab.state]) == []


def test_a_ctrl_c_during_up_leaves_nothing_and_says_one_line(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    with lab.start("up", "--name", "interrupted", start_new_session=True) as up:
        deadline = time.monotonic() + 10
        while lab.status("interrupted") is None and time.monotonic() < deadline:
            pass
        os.killpg(up.pid, signal.SIGINT)
        _, errors = up.communicate(timeout=30)
    if up.returncode == 0:  # it was ready first
        assert answers(lab, "interrupted")
    else:
        assert up.returncode in (130, -signal.SIGINT)
        assert errors.splitlines() in ([], ["bookinfo-lab: interrupted; what was being made has been taken down"])
        assert lab.status("interrupted") is None
    assert lab.run("down", "--name", "interrupted").returncode == 0
    assert leaks.left(before, [lab.state]) == []


def test_a_journey_that_is_killed_takes_its_mesh_along(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    with lab.start("journey") as journey:
        deadline = time.monotonic() + 10
        while not os.listdir(lab.state) and time.monotonic() < deadline:
            pass
        time.sleep(0.4)
        journey.kill()
        journey.communicate(timeout=30)
    assert leaks.left(before, [lab.state]) == []


def test_the_machine_keeps_its_rules_links_and_mounts_while_a_mesh_runs() -> None:
    with runner(MODES[0] if os.geteuid() == 0 else "single") as lab:
        before = leaks.snapshot([])
        assert lab.run("up", "--name", "guest").returncode == 0
        new = leaks.left(before, [], 0.1)
        assert lab.run("down", "--name", "guest").returncode == 0
    assert [thing for thing in new if not thing.startswith(("process ", "netns "))] == []
