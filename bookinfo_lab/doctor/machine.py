"""What this process finds out without any namespace: memory, the state folder, Envoy's version, who we are.

Edge: /proc, /etc and one folder of its own in the place of state folders, removed again.  Linux only.
"""

import os
import platform
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bookinfo_lab.doctor.findings import Finding, Surroundings
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import envoy_binary, image, search_path, state

STATE_MIB = 1
_SETTINGS = (
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    *(f"user.max_{kind}_namespaces" for kind in ("user", "mnt", "net", "pid", "uts", "ipc")),
)
_PREFIX, _STALE_S = ".doctor-", 60
_RANGE = 65536


def surroundings() -> Surroundings:
    """Who we are and what the machine allows us."""
    status = dict(line.split(":", 1) for line in _lines("/proc/self/status") if ":" in line)
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    settings = {name: _number(f"/proc/sys/{name.replace('.', '/')}") for name in _SETTINGS}
    return Surroundings(
        uid=uid,
        user=user,
        distribution=_distribution(),
        release=platform.release(),
        capabilities=int(status.get("CapEff", "0"), 16),
        no_new_privs=status.get("NoNewPrivs", "0").strip() != "0",
        seccomp=status.get("Seccomp", "0").strip() != "0",
        container=_container(),
        settings={name: value for name, value in settings.items() if value is not None},
        covered=tuple(
            line.split()[4] for line in _lines("/proc/self/mountinfo") if line.split()[4].startswith("/proc/")
        ),
        next_subordinate=next_free([*_lines("/etc/subuid"), *_lines("/etc/subgid")]),
    )


def next_free(rows: list[str]) -> int:
    """The first id from 100,000 on, in steps of a range, beyond every range that /etc/subuid or /etc/subgid gives."""
    ends = [int(row.split(":")[1]) + int(row.split(":")[2]) for row in rows if re.fullmatch(r"[^:]+:\d+:\d+", row)]
    first = 100000
    while first < max(ends, default=0):
        first += _RANGE
    return first


def available_mib() -> float:
    """The memory that a new process tree can have: the machine's, or what a control group leaves of its limit."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return min([int(line.split()[1]) / 1024, *_cgroup_mib()])
    return 0.0


def _cgroup_mib() -> Iterator[float]:
    """What each limited control group around this process leaves, cache that can be dropped counted as left."""
    for line in _lines("/proc/self/cgroup"):
        number, kinds, path = line.split(":", 2)
        if number == "0":
            top, limit, usage, cache = "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            top, limit, usage = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = "/".join([top, *parts[:depth]])
            most, used = _number(f"{folder}/{limit}"), _number(f"{folder}/{usage}")
            if most is not None and used is not None:
                droppable = [int(row.split()[1]) for row in _lines(f"{folder}/memory.stat") if row.split()[0] == cache]
                yield (most - used + sum(droppable)) / 2**20


@contextmanager
def place() -> Iterator[tuple[Finding, str]]:
    """Try the state folder by writing; its finding and an empty folder to mount on, there while the block runs."""
    home = state.home()
    made: list[str] = []
    try:
        _make_folders(home, made)
        _clear_stale(home)
        made.append(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
        _write(made[-1])
        free = os.statvfs(home)
        finding = Finding("state folder", True, f"{home}, {free.f_bavail * free.f_frsize // 2**20} MiB free")
    except OSError as error:
        finding = Finding("state folder", False, f"{home}: {error.strerror}", error.errno or 0)
    try:
        # Nothing that the sandbox's root binds can lie below /sys: it is the one other folder that is always there.
        yield finding, made[-1] if made and _PREFIX in made[-1] else "/sys"
    finally:
        for path in reversed(made):
            try:
                os.rmdir(path)
            except OSError:
                pass  # somebody else has put something there meanwhile


def _make_folders(path: str, made: list[str]) -> None:
    """Make a folder and those above it that are absent; each that was made is added to ``made``."""
    if not os.path.isdir(path):
        _make_folders(os.path.dirname(path), made)
        os.mkdir(path, 0o700)
        made.append(path)


def _clear_stale(home: str) -> None:
    """Remove what an earlier run left that was killed: an empty folder."""
    for name in os.listdir(home):
        try:
            if name.startswith(_PREFIX) and time.time() - os.stat(f"{home}/{name}").st_mtime > _STALE_S:
                os.rmdir(f"{home}/{name}")
        except OSError:
            pass  # not ours, not empty, or gone meanwhile


def _write(folder: str) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * (STATE_MIB * 2**20))
        file.flush()
        os.fsync(file.fileno())


def envoy_path() -> tuple[str, str]:
    """The Envoy that the sandbox would use, or empty, and what is said then."""
    try:
        return envoy_binary(), ""
    except LabError as error:
        return "", str(error)


def envoy(path: str) -> Finding:
    """What that Envoy says of its version, run as we are."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, check=False, timeout=5)
    except OSError as error:
        return Finding("Envoy", False, f"{path}: {error.strerror}", error.errno or 0)
    except subprocess.TimeoutExpired:
        return Finding("Envoy", False, f"{path}: no answer to --version within 5 s")
    said = " ".join((done.stdout + done.stderr).decode(errors="replace").split())
    version = re.search(r"/(\d+\.\d+\.\d+)[^/]*/", said)
    if done.returncode or version is None:
        return Finding("Envoy", False, f"{path}: ended with {done.returncode}: {said[:200]}")
    return Finding("Envoy", True, version[1])


def programs() -> dict[str, Finding]:
    """A finding for newuidmap, by the name "newuidmap program", where it or its sibling is absent."""
    lacking = [name for name in ("newuidmap", "newgidmap") if shutil.which(name, path=search_path()) is None]
    return {"newuidmap program": Finding("newuidmap program", False, ", ".join(lacking))} if lacking else {}


def closed(envoy: str) -> dict[str, Finding]:
    """A finding by the name "closed" where another user may not run that Envoy: what it may not enter or run."""
    part = image.closed_to_others(envoy) if envoy else ""
    return {"closed": Finding("closed", False, part)} if part else {}


def _distribution() -> tuple[str, ...]:
    found: list[str] = []
    for line in _lines("/etc/os-release"):
        name, _, value = line.partition("=")
        if name in ("ID", "ID_LIKE"):
            found += value.strip('"').split()
    return tuple(found)


def _container() -> str:
    """The kind of container we are in, as far as its marks tell; empty where there are none."""
    if os.path.exists("/run/.containerenv"):
        return "Podman"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    return "Docker" if os.path.exists("/.dockerenv") else ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _number(path: str) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None
