"""The processes that a test started, however far down, whatever else the machine runs meanwhile.

By descent, taken while all of them live: a sandbox's own processes have another environment and namespaces.  By a
folder that the test named in their environment: what has been orphaned.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

Process = tuple[int, int, str]  # its id, when it was started (clock ticks since boot), its words


def descendants(pid: int) -> set[Process]:
    """Every process below ``pid``, that one left out."""
    children: dict[int, list[Process]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, _, rest = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")
            words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        fields = rest.split()
        children.setdefault(int(fields[1]), []).append((int(entry), int(fields[19]), words or name))
    found, todo = set(), [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += [one[0] for one in below]
    return found


def alive(processes: Iterable[Process], seconds: float = 5.0) -> list[Process]:
    """Those that have not ended after they had some time to."""
    deadline = time.monotonic() + seconds
    while (left := [one for one in processes if _lives(one)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(process: Process) -> bool:
    try:
        fields = Path(f"/proc/{process[0]}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[19]) == process[1] and fields[0] not in "ZX"


def processes_of(folder: Path) -> list[str]:
    """The processes, other than this one, with the folder in their environment or words."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes()
            given = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
        if str(folder).encode() in words + given and int(entry) != os.getpid():
            found.append(f"{entry} {words.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def left_of(folder: Path, seconds: float = 5.0) -> list[str]:
    """The same after they had some time to end."""
    deadline = time.monotonic() + seconds
    while (found := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
