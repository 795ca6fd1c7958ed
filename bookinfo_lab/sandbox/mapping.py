"""Users inside the sandbox: which of them exist depends on what this machine lets its user map.

Edge: user namespaces.  Three forms, named in the evidence: ``root`` (no user namespace is needed), ``range``
(newuidmap maps the user to root and its /etc/subuid range to 1…, so uid 1337 exists), ``single`` (only root
exists; Istio's owner matches are then written by mark).
"""

import errno
import os
import pwd
import shutil
import subprocess

from bookinfo_lab.errors import SourceError
from bookinfo_lab.sandbox import linux
from bookinfo_lab.sandbox.topology import PROXY_UID

_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12


def capabilities() -> int:
    """This process's effective capabilities as the bit mask that /proc/self/status shows."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def may_make_namespaces() -> bool:
    """Whether this process may make the sandbox's namespaces without a user namespace of its own."""
    held = capabilities()
    return os.geteuid() == 0 and bool(held >> _CAP_SYS_ADMIN & 1) and bool(held >> _CAP_NET_ADMIN & 1)


def own_form() -> str:
    """The form of a process that `may_make_namespaces`: ``single`` where uid 1337 has no meaning to it."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    return "root" if any(first <= PROXY_UID < first + count for first, _, count in rows) else "single"


def subordinate(path: str) -> tuple[int, int] | None:
    """The user's first range in /etc/subuid or /etc/subgid, as (first id, count), if it reaches uid 1337."""
    uid = os.getuid()
    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    try:
        with open(path, encoding="utf-8") as file:
            rows = [line.strip().split(":") for line in file]
    except OSError:
        return None
    for row in rows:
        if len(row) == 3 and row[0] in names and int(row[2]) >= PROXY_UID:
            return int(row[1]), int(row[2])
    return None


def range_commands(pid: int) -> list[list[str]] | None:
    """The newuidmap and newgidmap lines that map a range for process ``pid``, None where this user has none."""
    uids, gids = subordinate("/etc/subuid"), subordinate("/etc/subgid")
    if not (uids and gids and shutil.which("newuidmap") and shutil.which("newgidmap")):
        return None
    return [
        ["newuidmap", str(pid), "0", str(os.getuid()), "1", "1", *map(str, uids)],
        ["newgidmap", str(pid), "0", str(os.getgid()), "1", "1", *map(str, gids)],
    ]


def enter_user_namespace() -> str:
    """Move into a new user namespace as its root; how its users are mapped, ``range`` or ``single``.

    newuidmap must run outside the namespace, so a child is forked before and waits until this process is in.
    """
    uid, gid = os.getuid(), os.getgid()
    commands = range_commands(os.getpid())
    ready, go = os.pipe2(os.O_CLOEXEC)
    helper = os.fork() if commands else 0
    if commands and helper == 0:
        _map_range(commands, ready, go)
    os.close(ready)
    try:
        linux.unshare(linux.CLONE_NEWUSER)
    except OSError as error:
        # The kernel says "no space" where the limit on user namespaces is reached; a limit of 0 forbids them.
        why = "user.max_user_namespaces is too low" if error.errno == errno.ENOSPC else os.strerror(error.errno or 0)
        raise SourceError("unshare --user", 1, why, "bookinfo-lab doctor says what mends it") from None
    finally:
        os.close(go)
    if helper and os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) == 0:
        _become_root()
        return "range"
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _become_root()
    return "single"


def _map_range(commands: list[list[str]], ready: int, go: int) -> None:
    """In the child: wait for the parent's unshare, then map its users."""
    os.close(go)
    os.read(ready, 1)
    try:
        failed = any(subprocess.run(line, check=False, capture_output=True).returncode for line in commands)
    except OSError:
        failed = True
    os._exit(1 if failed else 0)


def _become_root() -> None:
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    linux.set_dumpable()
