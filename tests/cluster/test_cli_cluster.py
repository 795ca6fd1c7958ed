"""The command line on a cluster: programs, terminals, captures, and what labs left, with this process's own streams."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import left
import pytest
from bed import Bed

from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.cluster.source import KubernetesSource

Connect = Callable[..., KubernetesSource]
COMMAND = [sys.executable, "-P", "-c", "import sys; from bookinfo_lab.cli import main; sys.exit(main())"]
SOURCE = ("--source", "kubernetes")


def environment(bed: Bed, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    known = {"KUBECONFIG": str(bed.kubeconfig), "BOOKINFO_LAB_IMAGE": bed.image, "PYTHONPATH": path}
    return {**bed.environment, **known, **more}


def run(bed: Bed, *words: str, given: bytes = b"", **more: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*COMMAND, *words], env=environment(bed, **more), input=given, capture_output=True, timeout=90
    )


def line(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The one line of a refusal."""
    said = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, len(said)) == (2, b"", 1), said
    return said[0]


def test_exec_passes_every_byte_and_the_exit_status(bed: Bed, namespace: str) -> None:
    given = bytes(range(256)) * 4096
    script = "cat; printf 'to\\000err' >&2; exit 7"
    done = run(bed, "exec", *SOURCE, "-n", namespace, "web", "--", "sh", "-c", script, given=given)
    assert done.stdout == given
    assert done.stderr == b"to\0err"
    assert done.returncode == 7


def test_the_cluster_of_the_environment_is_meant_where_no_sandbox_is_named(bed: Bed, namespace: str) -> None:
    named = {"BOOKINFO_LAB_SOURCE": "kubernetes", "BOOKINFO_LAB_NAMESPACE": namespace}
    done = run(bed, "logs", "web", **named)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, b"started")
    assert "no-such-sandbox" in line(run(bed, "logs", "--name", "no-such-sandbox", "web", **named))
    listed = json.loads(run(bed, "objects", "pods", **named).stdout)["items"]
    assert {item["metadata"]["namespace"] for item in listed} == {namespace}
    everywhere = json.loads(run(bed, "objects", "-A", "pods", **named).stdout)["items"]
    assert {item["metadata"]["namespace"] for item in everywhere} > {namespace}


def test_a_node_takes_leave_and_nothing_of_it_is_left(bed: Bed, namespace: str) -> None:
    node = bed.objects("pod", "web", "-n", namespace)["spec"]["nodeName"]
    before = left.before(bed)
    words = ["-n", namespace, f"node/{node}", "--", "ip", "-br", "addr"]
    assert "BOOKINFO_LAB_ALLOW=node-pod" in line(run(bed, "exec", *SOURCE, *words))
    done = run(bed, "exec", *SOURCE, "--allow", "node-pod", *words)
    addresses = [item["address"] for item in bed.objects("node", node)["status"]["addresses"]]
    assert any(address in done.stdout.decode() for address in addresses)
    assert left.until(lambda: left.objects(bed) == before), left.objects(bed) ^ before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["exec", *SOURCE, "--name", "x", "web", "--", "true"], "--name is a sandbox's"),
        (["record", *SOURCE, "--name", "x", "/nowhere/x"], "--name is a sandbox's"),
        (["exec", "-n", "x", "web", "--", "true"], "add --source kubernetes"),
        (["exec", *SOURCE, "--uid", "0", "web", "--", "true"], "--uid is a sandbox's"),
        (["logs", *SOURCE, "no-such-pod"], "no target 'no-such-pod'"),
        (["exec", *SOURCE, "--allow", "all", "web", "--", "true"], "'all' is nothing that can be allowed"),
        (["exec", "--source", "kubernetes:nowhere", "web", "--", "true"], "no context 'nowhere'"),
        (["journey", *SOURCE], "not yet of a cluster's"),
    ],
)
def test_bad_words_are_one_line(bed: Bed, words: list[str], said: str) -> None:
    assert said in line(run(bed, *words))


def test_a_shell_has_a_terminal_of_our_size_and_gives_the_old_one_back(bed: Bed, namespace: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    before = termios.tcgetattr(theirs)
    words = [*COMMAND, "shell", *SOURCE, "-n", namespace, "web"]
    child = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(bed), start_new_session=True
    )
    said = bytearray()

    def read_until(words: bytes) -> None:
        os.set_blocking(ours, False)

        def has_come() -> bool:
            try:
                said.extend(os.read(ours, 65536))
            except BlockingIOError:
                pass
            return words in said

        assert left.until(has_come), bytes(said)

    try:
        read_until(b"web")
        os.write(ours, b"stty size; tty\n")
        read_until(b"33 111")
        read_until(b"/dev/pts")
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 22, 77, 0, 0))
        child.send_signal(signal.SIGWINCH)
        os.write(ours, b"sleep 0.5; stty size\n")
        read_until(b"22 77")
        os.write(ours, b"sleep 100\n")
        time.sleep(0.3)
        os.write(ours, b"\x03")  # which is the program's there, not this command's
        os.write(ours, b"echo after $((40 + 2))\n")
        read_until(b"after 42")
        os.write(ours, b"exit 5\n")
        assert child.wait(20) == 5
        assert termios.tcgetattr(theirs) == before
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)


def test_a_terminal_is_put_right_also_where_a_signal_ends_the_shell(bed: Bed, namespace: str) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    words = [*COMMAND, "shell", *SOURCE, "-n", namespace, "web"]
    child = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(bed), start_new_session=True
    )
    try:
        assert left.until(lambda: termios.tcgetattr(theirs) != before)
        child.terminate()
        assert child.wait(20) == 128 + signal.SIGTERM
        assert termios.tcgetattr(theirs) == before
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)


def test_a_capture_ends_with_ctrl_c_and_holds_what_passed(bed: Bed, namespace: str) -> None:
    words = [*COMMAND, "capture", *SOURCE, "-n", namespace, "--allow", "ephemeral", "web:lo"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(bed))
    ask = ("exec", "-n", namespace, "web", "-c", "web", "--", "curl", "-s", "127.0.0.1:8080/")
    try:
        assert left.until(lambda: left.guests(bed, namespace, "web") != [])
        guest = left.guests(bed, namespace, "web")[0]
        assert left.until(lambda: "tcpdump" in programs_or_none(bed, namespace, guest))
        assert left.until(lambda: bool(bed.kubectl(*ask)))
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, said
    interfaces, frames = pcapng.parse(out)
    assert [item.name for item in interfaces] == [f"{namespace}/web:lo"]
    assert any(b"GET / HTTP/1.1" in frame.raw for frame in frames)
    assert b"it cannot be removed" in said
    assert b"these containers stay, idle" in said
    assert "tcpdump" not in left.programs(bed, namespace, "web", guest)


def programs_or_none(bed: Bed, namespace: str, container: str) -> list[str]:
    try:
        return left.programs(bed, namespace, "web", container)
    except AssertionError:  # it does not run yet
        return []


def test_uninstall_removes_every_labs_pods_and_nothing_else(bed: Bed, namespace: str, connect: Connect) -> None:
    node = bed.objects("pod", "web", "-n", namespace)["spec"]["nodeName"]
    before = left.before(bed)
    first, second = (connect(bed.kubeconfig, namespace, ("node-pod",)) for _ in range(2))
    made = {source.guests.on_node(node, "a test")[1] for source in (first, second)}
    done = run(bed, "uninstall", "--traces", "--json", *SOURCE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {item["name"] for item in found["removed"]} == made
    assert {item["owner"] for item in found["removed"]} == {first.guests.owner, second.guests.owner}
    guests = {(item["namespace"], item["pod"], item["container"]) for item in found["remaining"]}
    assert guests >= {(namespace, "web", name) for name in left.guests(bed, namespace, "web")}
    assert left.until(lambda: left.objects(bed) == before), left.objects(bed) ^ before
    again = run(bed, "uninstall", "--traces", "-n", "default", *SOURCE)
    assert again.stdout == b"nothing of the lab's is there\n"


def test_uninstall_of_one_lab_leaves_what_another_has(bed: Bed, namespace: str, connect: Connect) -> None:
    node = bed.objects("pod", "web", "-n", namespace)["spec"]["nodeName"]
    mine, other = (connect(bed.kubeconfig, namespace, ("node-pod", "ephemeral")) for _ in range(2))
    own, theirs = (one.guests.on_node(node, "a test")[1] for one in (mine, other))
    other.guests.in_pod(bed.objects("pod", "web", "-n", namespace), "web", "a test")
    done = run(bed, "uninstall", "--traces", "--owner", mine.guests.owner, "-n", namespace, *SOURCE)
    assert done.stdout.decode() == f"removed: pod {namespace}/{own} (of the lab {mine.guests.owner})\n"
    assert theirs in left.of_a_lab(bed)
    assert other.guests.on_node(node, "a test")[1] == theirs
    done = run(bed, "uninstall", "--traces", "--owner", other.guests.owner, "-n", namespace, *SOURCE)
    assert done.stdout.decode().startswith(f"removed: pod {namespace}/{theirs} (of the lab {other.guests.owner})\n")


def test_uninstall_says_which_right_it_lacks(bed: Bed, namespace: str, connect: Connect) -> None:
    node = bed.objects("pod", "web", "-n", namespace)["spec"]["nodeName"]
    made = connect(bed.kubeconfig, namespace, ("node-pod",)).guests.on_node(node, "a test")[1]
    reader = str(bed.account(namespace, "looks-only", ["reader"]))
    done = run(bed, "uninstall", "--traces", *SOURCE, KUBECONFIG=reader)
    said = done.stderr.decode()
    assert done.returncode == 2
    assert f"only the namespace {namespace} is looked at: this user may not list pods in all namespaces" in said
    refused = f"this user may not delete pods in the namespace {namespace}; the role node in deploy/rbac/"
    assert f"{namespace}/{made} is not deleted: {refused}" in said
    assert made in left.of_a_lab(bed)
    everywhere = run(bed, "uninstall", "--traces", "-A", *SOURCE, KUBECONFIG=reader)
    assert "may not list pods" in line(everywhere)


def test_what_is_no_cluster_and_what_is_not_asked_for_is_said(bed: Bed) -> None:
    done = run(bed, "uninstall")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"uninstall --traces removes that" in done.stderr
    nobody = str(Path(bed.folder) / "no-such-kubeconfig")
    assert "no cluster to connect to" in line(run(bed, "uninstall", "--traces", KUBECONFIG=nobody))
