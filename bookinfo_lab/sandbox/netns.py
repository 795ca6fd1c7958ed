"""Makes network namespaces and fills them: links, addresses, routes, sysctls, rules.

Edge: runs `ip` and `iptables-nft-restore` inside the sandbox's own namespaces, never outside.  Namespaces
are bound to files in /run/netns of the sandbox's mount namespace, where `ip netns` finds them.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bookinfo_lab.errors import SourceError
from bookinfo_lab.netfilter.tables import in_transactions
from bookinfo_lab.sandbox import accounting, linux
from bookinfo_lab.sandbox.wiring import LAN, Wiring

FOLDER = "/run/netns"
RESTORE = "iptables-nft-restore"
_AT_ONCE = 180


def path(name: str) -> str:
    """The file that a network namespace of the sandbox is bound to."""
    return f"{FOLDER}/{name}"


def create(names: Sequence[str]) -> None:
    """Make a network namespace a name; the LAN is the caller's own, the others are new."""
    os.makedirs(FOLDER, exist_ok=True)
    for name in names:
        if name != LAN:
            linux.unshare(linux.CLONE_NEWNET)
        os.close(os.open(path(name), os.O_CREAT | os.O_WRONLY, 0o444))
        linux.mount("/proc/self/ns/net", path(name), flags=linux.MS_BIND)
        if name != LAN:
            linux.setns(path(LAN), linux.CLONE_NEWNET)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Run the block in a network namespace, then go back to the LAN's; for a single-threaded caller."""
    linux.setns(path(name), linux.CLONE_NEWNET)
    try:
        yield
    finally:
        linux.setns(path(LAN), linux.CLONE_NEWNET)


def wire(wirings: Sequence[Wiring]) -> None:
    """Create every namespace, then its links, sysctls, addresses and routes."""
    create([wiring.netns for wiring in wirings])
    _run_all([(wiring.netns, ["ip", "-batch", "-"], wiring.links) for wiring in wirings if wiring.links])
    for wiring in wirings:
        with entered(wiring.netns):
            for name, value in wiring.sysctls.items():
                _set(name, value)
    _run_all([(wiring.netns, ["ip", "-batch", "-"], wiring.settings) for wiring in wirings])


def load_rules(rules: Sequence[tuple[str, str]]) -> None:
    """Load iptables-save text into namespaces; each table in the text replaces what stood there.

    In a user namespace the kernel takes a few hundred rules at once: a longer text is loaded in several
    transactions, so that for a moment a part of it stands alone.
    """
    parts = [(name, *in_transactions(text, _AT_ONCE)) for name, text in rules]
    _run_all([(name, [RESTORE], (first,)) for name, first, _ in parts])
    _run_all([(name, [RESTORE, "--noflush"], (rest,)) for name, _, rest in parts if rest])


def make_accounting(names: Sequence[str], spaces: Sequence[str]) -> bool:
    """Make kube-proxy's accounting objects in every namespace of ``spaces``; whether the kernel let us."""
    done = []
    for space in spaces:
        with entered(space):
            done.append(accounting.make(names))
    return all(done)


def _run_all(jobs: Sequence[tuple[str, list[str], Sequence[str]]]) -> None:
    """Run (namespace, command, input lines) side by side: they wait for the kernel more than they compute."""
    running = []
    for name, command, lines in jobs:
        with entered(name):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        assert process.stdin is not None
        try:
            process.stdin.write("\n".join(lines) + "\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: its status and stderr below say why
        running.append((name, command, process))
    for name, command, process in running:
        assert process.stderr is not None
        message = process.stderr.read()
        if process.wait() != 0:
            raise SourceError(f"{' '.join(command)} in {name}", process.returncode, message, "see bookinfo-lab doctor")


def _set(name: str, value: str) -> None:
    target = f"/proc/sys/{name}"
    if name.startswith("net/ipv6/") and not os.path.exists(target):
        return  # a kernel without IPv6 has nothing to disable
    with open(target, "w", encoding="ascii") as file:
        file.write(value)
