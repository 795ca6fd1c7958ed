"""Who ends what: callers, owners and rivals that go away at the worst moment leave a mesh whole, or nothing."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import leaks
import pytest
from modes import Runner, own_mode, runner

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import channel, topology

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def lab() -> Iterator[Runner]:
    with runner(own_mode()) as made:
        yield made


def python(lab: Runner, code: str) -> list[str]:
    """The command that runs ``code`` where the command line would run."""
    argv = lab.command()
    return [*argv[: argv.index("-c") + 1], code]


def ran(lab: Runner, code: str) -> "subprocess.CompletedProcess[str]":
    """Python code run to its end in a session of its own, as a kernel runs a cell."""
    settings = {"capture_output": True, "text": True, "check": False, "timeout": 60, "cwd": "/"}
    return subprocess.run(python(lab, code), env=lab.env, start_new_session=True, **settings)


def gone(lab: Runner, name: str, seconds: float) -> bool:
    """Whether the sandbox ends within that time."""
    deadline = time.monotonic() + seconds
    while lab.status(name) is not None:
        if time.monotonic() > deadline:
            return False
    return True


def test_a_program_and_its_caller_that_go_at_once_do_not_end_the_mesh(
    lab: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the init is busy, both ends of an exec wait for it: it hears of a connection it has just closed."""
    monkeypatch.setenv("BOOKINFO_LAB_STATE", lab.state)
    assert lab.run("up", "--name", "both").returncode == 0
    mesh = sandbox.attach("both")
    node, ports = mesh.target("node"), [{"name": "http", "port": 9080, "targetPort": 9080}]
    many = [
        topology.service(f"s{number}", "default", f"10.96.50.{number + 1}", ports, selector={"app": "details"})
        for number in range(40)
    ]
    busy_rounds = 0
    for _ in range(5):
        (given, keys), (output, shown) = os.pipe(), os.pipe()
        caller = mesh.start(node, ["sh", "-c", "echo ready; read _"], (given, shown, shown))
        os.close(given)
        os.close(shown)
        assert os.read(output, 16) == b"ready\n"
        with channel.connect(mesh.init_pid, timeout=30) as other:
            channel.send(other, {"op": "apply", "objects": many})
            os.close(keys)
            assert os.read(output, 16) == b""  # every process of the exec has ended
            busy_rounds += not select.select([other], [], [], 0)[0]
            caller.close()
            assert channel.receive(other)[0] == {"done": True}
        os.close(output)
        assert lab.status("both") is not None
        assert mesh.run(node, ["echo", "here"]).stdout == b"here\n"
    assert busy_rounds, "the init was never busy: this test has shown nothing"
    assert lab.run("down", "--name", "both").returncode == 0


def test_a_supervisor_that_ends_before_it_reads_its_order_is_an_error(lab: Runner) -> None:
    """The order is longer than a pipe holds, so that writing it fails for certain."""
    before = leaks.snapshot([lab.state])
    code = """
import sys
from dataclasses import replace
from bookinfo_lab import cli
from bookinfo_lab.sandbox import scenarios
plan = scenarios.scenario("sidecar")
scenarios.scenario = lambda _: replace(plan, objects=plan.objects * 8)
sys.executable = "/bin/true"
sys.exit(cli.main(["up", "--name", "deaf"]))
"""
    done = ran(lab, code)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bookinfo-lab: ")
    assert len(done.stderr.splitlines()) == 1
    assert leaks.left(before, [lab.state]) == []


def test_an_up_during_down_is_refused_or_whole(lab: Runner) -> None:
    """`down` is slow to remove the folder here: a mesh that comes up meanwhile must stay within reach."""
    before = leaks.snapshot([lab.state])
    assert lab.run("up", "--name", "contested").returncode == 0
    record = lab.status("contested")
    assert record is not None
    os.kill(record["pid"], signal.SIGKILL)
    assert gone(lab, "contested", 5)
    code = """
import sys, time
from bookinfo_lab import cli
from bookinfo_lab.sandbox import state
remove = state.remove
def slowly(claim):
    print("removing", flush=True)
    time.sleep(1.5)
    remove(claim)
state.remove = slowly
sys.exit(cli.main(["down", "--name", "contested"]))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(python(lab, code), env=lab.env, cwd="/", **pipes) as slow:
        assert slow.stdout is not None
        assert slow.stdout.readline() == "removing\n"
        rival = lab.run("up", "--name", "contested")
        _, errors = slow.communicate(timeout=30)
    assert "Traceback" not in errors + rival.stderr
    assert rival.returncode == 0 or "runs already" in rival.stderr
    if rival.returncode == 0:
        assert lab.run("journey", "--name", "contested").returncode == 0
    assert lab.run("down", "--name", "contested").returncode == 0
    assert leaks.left(before, [lab.state]) == []


OWNER = """
import os, signal, time
from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import scenarios
sandbox.up(scenarios.scenario("article"), "owned", keep=False)
child = os.fork() if {forks} else 0
if child or not {forks}:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a forked child that lives on"])
def test_a_mesh_of_an_owner_ends_with_it(lab: Runner, number: signal.Signals, forks: bool) -> None:
    before = leaks.snapshot([lab.state])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(python(lab, OWNER.format(forks=forks)), env=lab.env, cwd="/", **pipes) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert lab.status("owned") is not None
        owner.send_signal(number)
        owner.wait(timeout=10)
        try:
            assert gone(lab, "owned", 5)
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
    assert leaks.left(before, [lab.state]) == []


def test_an_interrupt_in_a_notebook_ends_the_program_inside_and_not_the_mesh(lab: Runner) -> None:
    """Jupyter signals the whole process group; descriptors are counted because a kernel lives for days."""
    before = leaks.snapshot([lab.state])
    code = """
import os, signal, subprocess, threading, time
from bookinfo_lab import sandbox
from bookinfo_lab.errors import SourceError
from bookinfo_lab.sandbox import scenarios
mesh = sandbox.up(scenarios.scenario("article"), "kernel", keep=False)
def programs():
    return mesh.run("client", ["ps", "-eo", "args"]).stdout.decode().count("sleep 4322")
programs()
open_before = len(os.listdir("/proc/self/fd"))
for moment_s in (0.005, 0.05, 0.3):
    threading.Timer(moment_s, lambda: os.killpg(0, signal.SIGINT)).start()
    try:
        mesh.run("client", ["sleep", "4322"])
    except KeyboardInterrupt:
        print("interrupted")
try:
    mesh.run("client", ["sleep", "4322"], timeout_s=0.1)
except SourceError:
    print("timed out")
deadline = time.monotonic() + 5
while programs() and time.monotonic() < deadline:
    pass
print(programs(), len(os.listdir("/proc/self/fd")) - open_before)
print(mesh.run("client", ["echo", "whole"]).stdout)
mesh.down()
"""
    done = ran(lab, code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["interrupted"] * 3 + ["timed out", "0 0", "b'whole\\n'"]
    assert leaks.left(before, [lab.state]) == []


def test_callers_of_a_mesh_that_is_killed_end_with_one_line(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    assert lab.run("up", "--name", "dying").returncode == 0
    record = lab.status("dying")
    assert record is not None
    words = ["exec", "--name", "dying", "client", "--", "sh", "-c", "echo ready; exec sleep 4323"]
    callers = [lab.start(*words) for _ in range(3)]
    for caller in callers:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
    os.kill(record["pid"], signal.SIGKILL)
    for caller in callers:
        _, errors = caller.communicate(timeout=10)
        assert caller.returncode == 2
        assert errors.startswith("bookinfo-lab: ")
        assert len(errors.splitlines()) == 1
        assert "ended" in errors
    assert lab.run("down", "--name", "dying").returncode == 0
    assert leaks.left(before, [lab.state]) == []


def test_two_ctrl_c_leave_no_more_than_one(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    with lab.start("up", "--name", "twice", start_new_session=True) as up:
        deadline = time.monotonic() + 10
        while lab.status("twice") is None and time.monotonic() < deadline:
            pass
        for _ in range(2):
            if up.poll() is None:
                os.killpg(up.pid, signal.SIGINT)
        _, errors = up.communicate(timeout=30)
    assert "Traceback" not in errors
    if up.returncode != 0:
        assert gone(lab, "twice", 5)
    assert lab.run("down", "--name", "twice").returncode == 0
    assert leaks.left(before, [lab.state]) == []
