"""Which exercises were solved, when and on which source: a small file that outlives a kernel.

Edge: one JSON file in the lab's state folder ($BOOKINFO_LAB_STATE, else the user's), replaced in one step under a lock,
so that two kernels lose nothing.  Where it cannot be written an exercise is still checked, and that is said.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_FILE = "progress.json"
_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Solved:
    """An exercise that was solved: ``time`` is Unix time, ``source`` the lab's description."""

    exercise: str
    time: float
    source: str


def folder() -> str:
    """Where progress is kept."""
    given = os.environ.get("BOOKINFO_LAB_STATE")
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.abspath(given) if given else os.path.join(base, "bookinfo-lab")


def solved() -> tuple[Solved, ...]:
    """What was solved, by exercise; each with the time it was first solved."""
    found = []
    for exercise, entry in sorted(_read().items()):
        if isinstance(entry, dict) and isinstance(entry.get("time"), int | float):
            found.append(Solved(exercise, float(entry["time"]), str(entry.get("source", ""))))
    return tuple(found)


def keep(exercise: str, source: str) -> str:
    """Keep that ``exercise`` was solved; a note where that could not be done, else ""."""
    try:
        with _locked():
            known = _read()
            if exercise not in known:
                _write({**known, exercise: {"time": time.time(), "source": source}})
    except OSError as error:
        return f"(Progress is not kept: {folder()}: {error.strerror or error}.)"
    return ""


def reset(notebook: str = "") -> None:
    """Forget what was solved: all of it, or one notebook's ("01")."""
    with _locked():
        kept = {name: entry for name, entry in _read().items() if notebook and not name.startswith(f"{notebook}-")}
        _write(kept)


def _path() -> str:
    return os.path.join(folder(), _FILE)


def _read() -> dict[str, Any]:
    """The file's content; a file that is none of ours is set aside, once, under another name."""
    try:
        with open(_path(), encoding="utf-8") as file:
            content = json.load(file)
        if isinstance(content, dict):
            return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        pass  # unreadable or not JSON: set aside below
    try:
        os.replace(_path(), _path() + ".damaged")
    except OSError:
        pass  # it cannot even be moved: `keep` will say that nothing is kept
    return {}


def _write(content: dict[str, Any]) -> None:
    partial = f"{_path()}.{os.getpid()}.new"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
    os.replace(partial, _path())


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock file; one that a killed kernel left is taken over after some seconds."""
    os.makedirs(folder(), mode=0o700, exist_ok=True)
    lock = _path() + ".lock"
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
    try:
        yield
    finally:
        try:
            os.unlink(lock)
        except FileNotFoundError:
            pass  # another took it over
