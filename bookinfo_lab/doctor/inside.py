"""What the sandbox's own processes would meet here, tried one by one: `python -m bookinfo_lab.doctor.inside`.

Edge: namespaces.  Reads its order (JSON: parent, place, envoy) from stdin, takes the sandbox's way into a user,
PID, mount and network namespace of its own, and writes one JSON Finding a line to stdout.  It ends with its
parent, and everything it makes ends with it.  A step that fails leaves out those that need it, never the others.
"""

import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from bookinfo_lab.doctor import rules
from bookinfo_lab.doctor.findings import Finding
from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.sandbox import accounting, image, linux, mapping, netns, processes
from bookinfo_lab.sandbox.topology import PROXY_UID
from bookinfo_lab.sandbox.wiring import LAN, Wiring

_KINDS = {"mnt": linux.CLONE_NEWNS, "net": linux.CLONE_NEWNET, "uts": linux.CLONE_NEWUTS, "ipc": linux.CLONE_NEWIPC}
_PEER = "peer"
_HERE_MAC, _PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
_WIRING = (
    Wiring(
        LAN,
        links=(f"link add doctor0 address {_HERE_MAC} type veth peer name eth0 address {_PEER_MAC} netns {_PEER}",),
        settings=(
            "addr add 192.0.2.1/24 dev doctor0",
            "link set doctor0 up",
            # A lost ARP request would be sent again only after a second.
            f"neigh add 192.0.2.2 lladdr {_PEER_MAC} nud permanent dev doctor0",
        ),
    ),
    Wiring(
        _PEER,
        sysctls={"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/route_localnet": "1"},
        settings=("addr add 192.0.2.2/24 dev eth0", "link set eth0 up"),
    ),
)
_PROGRAMS = {"ip": ["ip", "-V"], "iptables": [netns.RESTORE, "--version"]}
_SLOW = {"tshark": ["tshark", "--version"]}
_WATCHERS = {
    "trace": ["xtables-monitor", "--trace"],
    # As a learner would have to type it: in the sandbox there is no user for it to change to.
    "tcpdump": ["tcpdump", "-Z", "root", "--immediate-mode", "-nn", "-i", "lo", "-c", "1", "udp", "port", "9"],
    "dumpcap": ["dumpcap", "-q", "-i", "lo", "-c", "1", "-w", "/dev/null"],
}
_SIGNS = {"trace": b"raw:OUTPUT:rule", "tcpdump": b"127.0.0.1.9: UDP", "dumpcap": b"captured: 1"}
_WATCH_S, _PROGRAM_S = 1.5, 4.0


def main() -> None:
    """Try everything the order allows, then end."""
    order: dict[str, Any] = json.load(sys.stdin)
    linux.die_with_parent()
    if os.getppid() != order["parent"]:
        return  # it ended before the line above
    _tried("unshare(0)", lambda: linux.unshare(0))
    users = _user_namespace()
    if users:
        linux.die_with_parent()  # the change of credentials undid the first one
        _tried("uid", _become_proxy)
        if _tried("pid", lambda: linux.unshare(linux.CLONE_NEWPID)).ok:
            child = os.fork()
            if child:
                sys.exit(os.waitpid(child, 0)[1] != 0)
            linux.die_with_parent()
            _explore(order, users)
            os._exit(0)
    _collect(_started(_PROGRAMS | _SLOW))


def _say(finding: Finding) -> None:
    os.write(1, json.dumps(asdict(finding)).encode() + b"\n")


def _tried(name: str, attempt: Callable[[], object]) -> Finding:
    """Report an attempt: what it returned as text, or what it met."""
    try:
        found = attempt()
    except SourceError as error:
        finding = Finding(name, False, error.stderr or str(error), error.status or 0)
    except OSError as error:
        words = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
        finding = Finding(name, False, words, error.errno or 0)
    except (LabError, subprocess.SubprocessError) as error:
        finding = Finding(name, False, str(error))
    else:
        finding = Finding(name, True, str(found or ""))
    _say(finding)
    return finding


def _user_namespace() -> str:
    """Go the supervisor's way to the right to make namespaces; how users are mapped, empty where it is barred."""
    if mapping.may_make_namespaces():
        own = _tried("own form", mapping.own_form)
        _say(Finding("user namespace", own.ok, own.text, own.errno))
        return own.text if own.ok else ""
    if not _try_newuidmap():
        return ""
    entered = _tried("user namespace", mapping.enter_user_namespace)
    return entered.text if entered.ok else ""


def _try_newuidmap() -> bool:
    """Map the range of a process that exists for this alone: mapping's own answer is only yes or no.

    Whether a user namespace could be made at all; where not, that is reported with its errno.
    """
    heard, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        linux.die_with_parent()
        try:
            linux.unshare(linux.CLONE_NEWUSER)
        except OSError as error:
            os.write(tell, str(error.errno).encode())
            os._exit(1)
        linux.die_with_parent()
        os.write(tell, b"0")
        time.sleep(_PROGRAM_S)
        os._exit(0)
    os.close(tell)
    try:
        number = int(os.read(heard, 16) or errno.ECHILD)
        if number:
            _say(Finding("user namespace", False, "", number))
        elif commands := mapping.range_commands(child):
            _tried("newuidmap", lambda: [_run(line) for line in commands] and "")
    finally:
        os.close(heard)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return number == 0


def _become_proxy() -> str:
    """Be uid 1337 for a moment, in a child."""
    heard, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            processes.become_user(PROXY_UID)
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        os._exit(0)
    os.close(tell)
    number = os.read(heard, 16)
    os.close(heard)
    os.waitpid(child, 0)
    if number:
        raise OSError(int(number), os.strerror(int(number)))
    return ""


def _explore(order: Mapping[str, Any], users: str) -> None:
    """In process 1 of the new PID namespace: the file system, the network, the rules, the programs."""
    rooted = False
    if _tried("namespaces", _unshare).ok:
        rooted = _tried("own root", lambda: _own_root(order)).ok
        running = _started(_PROGRAMS | _SLOW | {"conntrack": ["conntrack", "-L"]})
        running |= _proxy(order, users) if rooted else {}
        if rooted:
            _tried("network", _network)
        _rules(watch=_tried("lo", lambda: _run(["ip", "link", "set", "lo", "up"])).ok)
        _collect(running)
    else:
        _collect(_started(_PROGRAMS | _SLOW))


def _unshare() -> None:
    for kind, flag in _KINDS.items():
        try:
            linux.unshare(flag)
        except OSError as error:
            raise SourceError("unshare", error.errno, f"{kind}: {error.strerror}") from None


def _own_root(order: Mapping[str, Any]) -> None:
    """The sandbox's own root over ``place``, in this mount namespace; then it is this process's root."""
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    place = order["place"]
    try:
        image.build(place, image.Root(size_mb=16))
        os.makedirs(f"{place}/usr/local/bin", exist_ok=True)
        image.add_programs(f"{place}/usr/local/bin", {"envoy": order["envoy"]} if order["envoy"] else {})
        image.enter(place)
    except OSError as error:
        raise SourceError("mount", error.errno, str(error.strerror)) from None


def _network() -> None:
    """Two network namespaces, a veth pair, addresses, sysctls; a datagram from one to the other."""
    netns.wire(_WIRING)
    with netns.entered(_PEER):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("192.0.2.2", 9))
    deadline = time.monotonic() + _WATCH_S
    with receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        # The kernel drops what is sent before it has noticed that both ends are up, which it does in the background.
        while time.monotonic() < deadline:
            sender.sendto(b"doctor", ("192.0.2.2", 9))
            if select.select([receiver], [], [], 0.01)[0]:
                return
    raise LabError(f"no datagram crossed the veth pair within {_WATCH_S} s")


def _rules(watch: bool) -> None:
    """Load every extension's rule on its own, then let the kernel trace a packet."""
    for extension in (*rules.EXTENSIONS, rules.OWNER_BY_UID):
        _tried(extension.name, lambda extension=extension: _load(extension))  # type: ignore[misc]
    _tried(rules.OWNER_BY_MARK.name, _mark)
    if _tried("nfacct object", _make_accounting).ok:
        _tried(rules.NFACCT.name, lambda: _load(rules.NFACCT))
    traced = _tried(rules.TRACE.name, lambda: _load(rules.TRACE)).ok
    if watch:
        _watch({name: command for name, command in _WATCHERS.items() if traced or name != "trace"})
        return
    for name, (program, *_) in _WATCHERS.items():
        if shutil.which(program) is None:
            _say(Finding(name, False, f"{program}: {os.strerror(errno.ENOENT)}", errno.ENOENT))


def _load(extension: rules.Extension) -> str:
    return _run([netns.RESTORE], extension.text)


def _mark() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as marked:
        marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, rules.PROXY_MARK)
    return _load(rules.OWNER_BY_MARK)


def _make_accounting() -> None:
    if not accounting.make([rules.NFACCT_OBJECT]):
        raise LabError("the kernel refuses to make an accounting object")


def _watch(commands: Mapping[str, list[str]]) -> None:
    """Send packets over lo until the kernel's trace and a capture have each seen one, or the time is over."""
    running = _started(commands)
    waiting = {process.stdout.fileno(): name for name, process in running.items() if process.stdout}
    seen = dict.fromkeys(running, b"")
    deadline = time.monotonic() + _WATCH_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while waiting and time.monotonic() < deadline:
            sender.sendto(b"doctor", ("127.0.0.1", 9))
            for descriptor in select.select(list(waiting), [], [], 0.01)[0]:
                name = waiting[descriptor]
                part = os.read(descriptor, 4096)
                seen[name] += part
                if not part or _SIGNS[name] in seen[name]:
                    del waiting[descriptor]
    for name, process in running.items():
        late = process.stdout is not None and process.stdout.fileno() in waiting
        process.kill()
        process.wait()
        text = " ".join(seen[name].decode(errors="replace").split())[-300:]
        _say(Finding(name, _SIGNS[name] in seen[name], f"nothing within {_WATCH_S} s: {text}" if late else text))


def _proxy(order: Mapping[str, Any], users: str) -> dict[str, "subprocess.Popen[bytes]"]:
    """Envoy as the proxy's own user, in the sandbox's own root."""
    if not order["envoy"]:
        return {}
    uid = None if users == "single" else PROXY_UID
    return _started({"envoy": ["envoy", "--version"]}, uid, processes.environment({}))


def _started(
    commands: Mapping[str, list[str]], uid: int | None = None, env: Mapping[str, str] | None = None
) -> dict[str, "subprocess.Popen[bytes]"]:
    """Start programs side by side, as another user where ``uid`` is given; one that cannot start is reported."""
    running = {}
    groups: list[int] | None = None if uid is None else []
    for name, command in commands.items():
        try:
            running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                user=uid,
                group=uid,
                extra_groups=groups,
                env=env,
            )
        except (OSError, subprocess.SubprocessError) as error:
            number = getattr(error, "errno", 0) or 0
            _say(Finding(name, False, f"{command[0]}: {os.strerror(number) if number else error}", number))
    return running


def _collect(running: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    for name, process in running.items():
        try:
            output = process.communicate(timeout=_PROGRAM_S)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            _say(Finding(name, False, f"no end within {_PROGRAM_S} s"))
            continue
        status = process.returncode
        words = " ".join(output.split())[:300]
        _say(Finding(name, status == 0, words if status == 0 else f"ended with {status}: {words}"))


def _run(command: list[str], text: str = "") -> str:
    """Run a short program to its end; what it said on stderr is the error's text."""
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False, timeout=_PROGRAM_S)
    if done.returncode:
        said = done.stderr.decode(errors="replace").splitlines()
        words = " ".join(line.strip() for line in said if line.strip() and not line.startswith("Try `"))
        raise SourceError(" ".join(command), done.returncode, words or f"ended with {done.returncode}")
    return ""


if __name__ == "__main__":
    main()
