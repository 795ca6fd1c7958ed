"""Bad use and machines that cannot: one clear line, exit 2, nothing left behind.  Each refusal is a real one."""

import os
import socket
import subprocess
from collections.abc import Iterator

import leaks
import pytest
from modes import Runner, own_mode, runner

pytestmark = pytest.mark.sandbox
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="hiding a program or filling a disk needs a mount, and so root")


@pytest.fixture(scope="module")
def lab() -> Iterator[Runner]:
    with runner(own_mode()) as made:
        yield made


@pytest.fixture(scope="module")
def running(lab: Runner) -> Iterator[str]:
    """The name of a sandbox that runs."""
    assert lab.run("up", "--name", "running").returncode == 0
    yield "running"
    lab.run("down", "--name", "running")


def refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """Exit 2, nothing on stdout, and one line of ours (or argparse's last) that holds every word."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", "Bringing up", " "))]
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("bookinfo-lab")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "--scenario", "nowhere"], ["'nowhere'", "article, sidecar"]),
        (["tour", "--source", "sandbox:nowhere"], ["'nowhere'", "article, sidecar"]),
        (["up", "--publish", "http"], ["'http'", "0 to 65535"]),
        (["up", "--publish", "70000"], ["'70000'", "0 to 65535"]),
        (["up", "--name", "../x"], ["'../x'", "cannot name a sandbox"]),
        (["down", "--name", "Ü"], ["'Ü'", "cannot name a sandbox"]),
        (["exec", "--name", "nobody", "client", "--", "true"], ["'nobody'", "bookinfo-lab up"]),
        (["exec", "client"], ["-- COMMAND"]),
        (["exec", "--uid=-1", "client", "--", "true"], ["'-1'", "0 to 65535"]),
        (["exec", "--uid", "4294967295", "client", "--", "true"], ["'4294967295'", "0 to 65535"]),
        (["journey", "--name", "nobody"], ["'nobody'", "bookinfo-lab up"]),
    ],
)
def test_bad_words_are_refused(lab: Runner, arguments: list[str], words: list[str]) -> None:
    before = leaks.snapshot([lab.state])
    refused(lab.run(*arguments), *words)
    assert leaks.left(before, [lab.state]) == []


def test_a_taken_port_is_refused(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(lab.run("up", "--publish", port), f"127.0.0.1:{port}", "another port")
    assert leaks.left(before, [lab.state]) == []


def test_a_second_up_of_the_same_name_is_refused_and_the_first_goes_on(lab: Runner, running: str) -> None:
    refused(lab.run("up", "--name", running), "'running'", "runs already")
    assert lab.run("journey", "--name", running).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["exec", "nobody", "--", "true"], ["no target 'nobody'", "client"]),
        (["exec", "reviews", "--", "true"], ["ambiguous", "reviews-v1", "reviews-v3"]),
        (["exec", "-c", "nothing", "productpage", "--", "true"], ["no container 'nothing'", "istio-proxy"]),
        (["journey", "productpage"], ["not a URL path"]),
        (["journey", "/a b"], ["not a URL path"]),
    ],
)
def test_what_is_not_there_is_refused(lab: Runner, running: str, arguments: list[str], words: list[str]) -> None:
    refused(lab.run(arguments[0], "--name", running, *arguments[1:]), *words)


def test_a_dead_sandbox_is_said_to_be_dead(lab: Runner) -> None:
    assert lab.run("up", "--name", "dead").returncode == 0
    record = lab.status("dead")
    assert record is not None
    os.kill(record["pid"], 9)
    for arguments in (["exec", "--name", "dead", "client", "--", "true"], ["journey", "--name", "dead"]):
        refused(lab.run(*arguments), "bookinfo-lab up")
    assert lab.run("down", "--name", "dead").returncode == 0


def test_down_of_nothing_is_no_error_and_status_of_nothing_is_a_no(lab: Runner) -> None:
    down = lab.run("down", "--name", "nothing")
    assert (down.returncode, down.stdout) == (0, "")
    assert "'nothing'" in down.stderr
    assert lab.run("status", "--name", "nothing").returncode == 1


def test_somebody_elses_folder_is_left_alone(lab: Runner) -> None:
    folder = f"{lab.state}/mine"
    os.mkdir(folder)
    with open(f"{folder}/thesis.tex", "w", encoding="ascii") as file:
        file.write("years of work")
    for verb in ("up", "down"):
        refused(lab.run(verb, "--name", "mine"), "thesis.tex")
    with open(f"{folder}/thesis.tex", encoding="ascii") as file:
        assert file.read() == "years of work"
    os.unlink(f"{folder}/thesis.tex")
    os.rmdir(folder)


def test_a_state_folder_that_cannot_be_made_is_named(lab: Runner) -> None:
    done = subprocess.run(
        lab.command("up"),
        env=lab.env | {"BOOKINFO_LAB_STATE": "/proc/nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    refused(done, "/proc/nowhere", "BOOKINFO_LAB_STATE")


def in_private_mounts(lab: Runner, mounts: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line after shell commands in a mount namespace of its own."""
    argv = ["unshare", "--mount", "sh", "-c", f'{mounts}; exec "$@"', "sh", *lab.command(*arguments)]
    return subprocess.run(
        argv, env=lab.env, capture_output=True, text=True, check=False, timeout=90, stdin=subprocess.DEVNULL
    )


@AS_ROOT
def test_a_full_disk_is_said_and_left_as_it_was(lab: Runner) -> None:
    before = leaks.snapshot([lab.state])
    fill = f"mount -t tmpfs -o size=64k tmpfs {lab.state}; head -c 100k /dev/zero >{lab.state}/full 2>/dev/null"
    refused(in_private_mounts(lab, fill, "journey"), "No space left", "BOOKINFO_LAB_STATE")
    assert leaks.left(before, [lab.state]) == []


@AS_ROOT
@pytest.mark.parametrize(("program", "package"), [("iptables-nft-restore", "iptables"), ("ip", "iproute2")])
def test_a_missing_program_is_named_with_its_package(lab: Runner, program: str, package: str) -> None:
    hide = f"for f in /usr/sbin/{program} /usr/bin/{program}; do [ ! -e $f ] || mount --bind /dev/null $f; done"
    before = leaks.snapshot([lab.state])
    refused(in_private_mounts(lab, hide, "journey"), program, f"apt-get install {package}")
    assert leaks.left(before, [lab.state]) == []


@AS_ROOT
def test_forbidden_user_namespaces_are_said() -> None:
    """The limit is set in a user namespace of the test's own, where its user then is an ordinary one."""
    with runner("single") as lab:
        before = leaks.snapshot([lab.state])
        forbid = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all"
        argv = lab.command("journey")
        split = argv.index(lab.python)
        inner = ["unshare", "--user", "--map-root-user", "sh", "-c", f'{forbid} "$@"', "sh", *argv[split:]]
        done = subprocess.run(
            [*argv[:split], *inner], env=lab.env, capture_output=True, text=True, check=False, timeout=60, cwd="/"
        )
        refused(done, "user.max_user_namespaces", "doctor")
        assert leaks.left(before, [lab.state]) == []


@AS_ROOT
def test_root_without_cap_sys_admin_uses_a_user_namespace(lab: Runner) -> None:
    argv = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *lab.command("up", "--name", "less")]
    done = subprocess.run(argv, env=lab.env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    record = lab.status("less")
    assert record is not None
    assert record["users"] in ("range", "single")
    assert lab.run("down", "--name", "less").returncode == 0
