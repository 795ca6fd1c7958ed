"""The folder in which a running sandbox records itself, and the lock that says whether it runs.

Edge: files.  A sandbox NAME has one folder.  Whoever holds the lock on that folder owns the name; the
supervisor holds it from before its first namespace until it ends, however it ends, so the lock is the one
answer to "does it run?".  What a killed supervisor leaves behind is this folder alone; `claim` clears it.
"""

import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError, SourceError, Unsupported

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_RECORD, _LOG = "state.json", "supervisor.log"
_OURS = {_RECORD, _RECORD + ".new", _LOG}


class Running(LabError):
    """A sandbox of that name runs already."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A locked state folder: the name is this process's until ``descriptor`` and its copies are closed."""

    name: str
    folder: str
    descriptor: int


def home() -> str:
    """The folder of all state folders: $BOOKINFO_LAB_STATE, else the user's state or temporary folder."""
    given = os.environ.get("BOOKINFO_LAB_STATE")
    if given:
        return os.path.abspath(given)
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    existing = base
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing) or "/"
    if os.path.isabs(base) and os.access(existing, os.W_OK):
        return f"{base}/bookinfo-lab"
    return f"{os.environ.get('TMPDIR', '/tmp')}/bookinfo-lab-{os.getuid()}"


def folder_of(name: str) -> str:
    """The state folder of a sandbox; a name that could not be a DNS label is an error."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} cannot name a sandbox: use up to 40 of a-z, 0-9 and inner '-'")
    return f"{home()}/{name}"


def claim(name: str) -> Claim:
    """Lock the name's folder, made if absent, emptied of what a dead supervisor left; `Running` if it is taken."""
    folder = folder_of(name)
    taken = None
    while taken is None:
        try:
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            with suppress(FileExistsError):  # whose it is says _check_owner
                os.mkdir(folder, 0o700)
        except OSError as error:
            advice = "set BOOKINFO_LAB_STATE"
            raise Unsupported(f"cannot make the state folder {folder}: {error.strerror}; {advice}") from None
        try:
            _check_owner(folder)
            taken = _lock(name, folder)
        except FileNotFoundError:
            pass  # its holder removed it between two of our calls
    for entry in _OURS & set(os.listdir(folder)):
        os.unlink(f"{folder}/{entry}")
    return Claim(name, folder, taken)


def _check_owner(folder: str) -> None:
    info = os.stat(folder, follow_symlinks=False)
    what = ""
    if info.st_uid != os.getuid():
        what = f"belongs to user {info.st_uid}"
    elif not stat.S_ISDIR(info.st_mode):
        what = "is no folder"
    elif strangers := sorted(set(os.listdir(folder)) - _OURS):
        what = f"holds {strangers[0]!r}"
    if what:
        raise LabError(f"{folder} is not a state folder of yours (it {what}); move it away or set BOOKINFO_LAB_STATE")


def _lock(name: str, folder: str) -> int | None:
    """The locked descriptor of the folder, None where another has taken its place meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Running(f"a sandbox named {name!r} runs already; use it, take it down, or give --name") from None
    if _stands(folder, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _stands(folder: str, descriptor: int) -> bool:
    """Whether the folder at this path is the one that ``descriptor`` has open."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write(folder: str, record: dict[str, Any]) -> None:
    """Replace the record in one step."""
    target = f"{folder}/{_RECORD}"
    try:
        with open(target + ".new", "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.rename(target + ".new", target)
    except OSError as error:
        advice = "free some space or set BOOKINFO_LAB_STATE"
        raise Unsupported(f"cannot write {target}: {error.strerror}; {advice}") from None


def read(name: str) -> dict[str, Any] | None:
    """The record of a sandbox that runs or is being made, None where no supervisor holds the name."""
    folder = folder_of(name)
    if not is_held(folder):
        return None
    try:
        with open(f"{folder}/{_RECORD}", encoding="utf-8") as file:
            record: dict[str, Any] = json.load(file)
            return record
    except FileNotFoundError:
        return {"name": name, "stage": "starting"}


def is_held(folder: str) -> bool:
    """Whether some process holds the lock of this folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise LabError(f"{folder} is not a state folder of yours ({error.strerror}); set BOOKINFO_LAB_STATE") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_until_free(name: str, seconds: float, pid: int | None = None) -> None:
    """Wait until no process, or not the supervisor ``pid`` any more, holds the name's lock."""
    deadline = time.monotonic() + seconds
    while (record := read(name)) is not None and record.get("pid", pid) == (pid or record.get("pid")):
        if time.monotonic() > deadline:
            raise SourceError(f"bookinfo-lab down --name {name}", None, f"still running after {seconds:.0f} s")
        time.sleep(0.01)


def remove(claim: Claim) -> None:
    """Delete the folder while its lock is held; one that somebody has made anew at its path is not ours."""
    if _stands(claim.folder, claim.descriptor):
        shutil.rmtree(claim.folder, ignore_errors=True)


def clear(name: str) -> None:
    """Delete what a killed supervisor left of the name; a sandbox of that name that runs is left alone."""
    try:
        left = claim(name)
    except Running:
        return
    remove(left)
    os.close(left.descriptor)


def names() -> Iterator[str]:
    """The names that have a state folder, running or not."""
    if os.path.isdir(home()):
        yield from sorted(entry for entry in os.listdir(home()) if _NAME.fullmatch(entry))


@contextmanager
def log(folder: str) -> Iterator[int]:
    """A descriptor that appends to the supervisor's log."""
    try:
        descriptor = os.open(f"{folder}/{_LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        advice = "free some space or set BOOKINFO_LAB_STATE"
        raise Unsupported(f"cannot write {folder}/{_LOG}: {error.strerror}; {advice}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def log_tail(folder: str) -> str:
    """The last line of the supervisor's log, for an error message."""
    try:
        with open(f"{folder}/{_LOG}", encoding="utf-8", errors="replace") as file:
            return (file.read().strip().splitlines() or [""])[-1]
    except FileNotFoundError:
        return ""
