"""What a sandbox could leave behind on this machine: processes, network namespaces, mounts, links, files, rules.

A snapshot before and one after; `left` names every thing that is new.  Only what a sandbox makes is looked at, so that
other programs of the machine may come and go: processes and namespaces in a PID or network namespace that is not
ours, or that name the package; mounts, links and rules of this machine; the folders where files could lie.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

_KINDS = ("pid", "net", "mnt")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is there, each thing as a line of text."""

    things: frozenset[str]


def snapshot(folders: Sequence[str]) -> Snapshot:
    """What is there now; ``folders`` are listed whole."""
    found = {*_processes(), *_mounts(), *_links(), *_rules()}
    for folder in folders:
        for place, names, files in os.walk(folder):
            found |= {f"file {place}/{name}" for name in (*names, *files)}
    for folder in ("/run/netns", "/var/run/netns"):
        with contextlib.suppress(FileNotFoundError):
            found |= {f"netns file {folder}/{name}" for name in os.listdir(folder)}
    return Snapshot(frozenset(found))


def left(before: Snapshot, folders: Sequence[str], seconds: float = 3.0) -> list[str]:
    """What is new since ``before``, waited for ``seconds``: the kernel takes namespaces apart in the background."""
    deadline = time.monotonic() + seconds
    while True:
        new = sorted(snapshot(folders).things - before.things)
        if not new or time.monotonic() > deadline:
            return new
        time.sleep(0.05)


def _processes() -> set[str]:
    """Processes of the package, or in namespaces other than ours, and the network namespaces they hold."""
    own = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in _KINDS}
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode(errors="replace")[:120]
            spaces = {kind: os.stat(f"/proc/{entry}/ns/{kind}").st_ino for kind in _KINDS}
            if spaces["net"] != own["net"]:
                found.add(f"netns {spaces['net']}")
            if spaces["pid"] != own["pid"] or spaces["net"] != own["net"] or "bookinfo_lab.sandbox" in command:
                found.add(f"process {entry} {command}")
    return found


def _mounts() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return {f"mount {line.split()[4]}" for line in file}


def _links() -> set[str]:
    text = _output("ip", "-o", "link")
    return {f"link {line.split(':')[1].strip()}" for line in text.splitlines() if line}


def _rules() -> set[str]:
    """The machine's own rules: only root sees them, and only root could change them."""
    if os.geteuid() != 0:
        return set()
    lines: set[str] = set()
    for command in ("iptables-nft-save", "iptables-legacy-save"):
        text = _output(command)
        lines |= {f"{command} {line}" for line in text.splitlines() if line.startswith(("*", "-A"))}
    return lines


def _output(*command: str) -> str:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=20, env=os.environ | {"PATH": path}
        )
    except FileNotFoundError:
        return ""
    return done.stdout
