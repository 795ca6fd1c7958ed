"""Which exercises were solved, when and on which source: a small file that outlives a kernel.

Edge: one JSON file in the lab's state folder ($BOOKINFO_LAB_STATE, else the user's), on any operating system.  It is
replaced in one step under a lock, so that two kernels lose nothing.  A file that cannot be read is set aside under
another name, and that is said; where nothing can be written an exercise is still checked, and that is said once.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError

_FILE, _LOCK = "progress.json", "progress.lock"
_PATIENCE_S = 2.0
_YEAR_3000 = 32503680000.0
_TOLD: set[str] = set()  # what this process has said already; `keep` repeats nothing


@dataclass(frozen=True, slots=True)
class Solved:
    """An exercise that was solved: ``time`` is Unix time, ``source`` the lab's description."""

    exercise: str
    time: float
    source: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What was solved, by exercise, each as it was solved first; ``note`` says what is wrong with the file."""

    exercises: tuple[Solved, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.exercises)

    def __iter__(self) -> Iterator[Solved]:
        return iter(self.exercises)

    def __contains__(self, exercise: object) -> bool:
        return any(item.exercise == exercise for item in self.exercises)

    def __repr__(self) -> str:
        lines = [
            f"{escape.text(item.exercise):8}  {_day(item)}  {escape.text(item.source, 500)}" for item in self.exercises
        ]
        return "\n".join([*(lines or ["No exercise is solved yet."]), *([escape.text(self.note)] if self.note else [])])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{escape.html(item.exercise)}</th><td>{_day(item)}</td>'
            f"<td>{escape.html(item.source, 500)}</td></tr>"
            for item in self.exercises
        )
        heads = "".join(f'<th scope="col">{name}</th>' for name in ("exercise", "solved", "on"))
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        note = f"<p>{escape.html(self.note)}</p>" if self.note else ""
        return (table if rows else "<p>No exercise is solved yet.</p>") + note


def folder() -> str:
    """Where progress is kept: the folder in which a sandbox of this user keeps its state."""
    given = os.environ.get("BOOKINFO_LAB_STATE")
    if given:
        return os.path.abspath(given)
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    existing = base
    while not os.path.isdir(existing) and existing != os.path.dirname(existing):
        existing = os.path.dirname(existing)
    if os.path.isabs(base) and os.access(existing, os.W_OK):
        return os.path.join(base, "bookinfo-lab")
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    return os.path.join(os.environ.get("TMPDIR") or tempfile.gettempdir(), f"bookinfo-lab-{user}")


def solved() -> Progress:
    """What was solved so far; a damaged file is set aside and noted."""
    try:
        return _as_progress(_load())
    except FileNotFoundError:
        return Progress(())
    except ValueError:
        pass  # damaged: looked at again under the lock, where no other kernel replaces it meanwhile
    except OSError as error:
        return Progress((), _unreadable(error))
    try:
        with _locked():
            content, note = _load_or_set_aside()
    except OSError as error:
        return Progress((), _unreadable(error))
    return _as_progress(content, note)


def keep(exercise: str, source: str) -> str:
    """Keep that ``exercise`` was solved; a note where that could not be done, said once in a process, else ""."""
    try:
        with _locked():
            content, note = _load_or_set_aside()
            if exercise not in _as_progress(content):
                _replace({**content, exercise: {"time": time.time(), "source": source}})
            return note
    except OSError as error:
        note = f"Progress is not kept: {_reason(error)}; set BOOKINFO_LAB_STATE to a folder that you can write to."
    if note in _TOLD:
        return ""
    _TOLD.add(note)
    return note


def reset(notebook: str = "") -> Progress:
    """Forget what was solved, all of it or one notebook's ("01"); what is left.  LabError where that cannot be."""
    try:
        with _locked():
            content, note = _load_or_set_aside()
            gone = [name for name in content if not notebook or name.startswith(f"{notebook}-")]
            left = {name: entry for name, entry in content.items() if name not in gone}
            if gone:
                _replace(left)
    except OSError as error:
        raise LabError(f"cannot reset progress: {_reason(error)}") from None
    return _as_progress(left, note)


def _path() -> str:
    return os.path.join(folder(), _FILE)


def _load() -> dict[str, Any]:
    """The file's content; ValueError where it is no JSON object."""
    with open(_path(), encoding="utf-8") as file:
        try:
            content = json.load(file)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content


def _load_or_set_aside() -> tuple[dict[str, Any], str]:
    """The content, and a note where the file had to be set aside; the lock must be held."""
    try:
        return _load(), ""
    except FileNotFoundError:
        return {}, ""
    except ValueError:
        pass  # set aside below
    number = 1
    while os.path.lexists(aside := os.path.join(folder(), f"progress.damaged-{number}.json")):
        number += 1
    os.rename(_path(), aside)
    return {}, f"The file of your progress was damaged: it is now {aside}, and progress begins anew."


def _as_progress(content: Mapping[str, Any], note: str = "") -> Progress:
    """The entries that can be read; others stay in the file, a later version may know them."""
    found = []
    for exercise, entry in sorted(content.items()):
        when = entry.get("time") if isinstance(entry, dict) else None
        if isinstance(when, int | float) and 0 <= when < _YEAR_3000:
            found.append(Solved(exercise, float(when), str(entry.get("source", ""))))
    return Progress(tuple(found), note)


def _replace(content: Mapping[str, Any]) -> None:
    partial = _path() + ".new"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, _path())


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock, which the kernel frees when its holder dies; OSError where that cannot be."""
    os.makedirs(folder(), mode=0o700, exist_ok=True)
    if not os.environ.get("BOOKINFO_LAB_STATE") and _is_a_strangers(folder()):
        raise OSError(f"{folder()} belongs to another user")
    deadline = time.monotonic() + _PATIENCE_S
    with open(os.path.join(folder(), _LOCK), "a", encoding="utf-8") as file:
        while not _lock(file.fileno()):
            if time.monotonic() > deadline:
                raise OSError(f"another program holds {file.name}")
            time.sleep(0.01)
        yield


def _is_a_strangers(path: str) -> bool:
    """Whether somebody else made it: in /tmp that may be a trap."""
    return hasattr(os, "getuid") and os.lstat(path).st_uid != os.getuid()


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        """Whether the lock could be had; closing the file gives it back."""
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Whether the lock could be had; closing the file gives it back."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _reason(error: OSError) -> str:
    return f"{error.strerror} ({error.filename})" if error.strerror else str(error)


def _unreadable(error: OSError) -> str:
    return f"The file of your progress cannot be read: {_reason(error)}."


def _day(item: Solved) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(item.time))
