"""The tour's temporary folder: gone when the block ends, and where a tour was killed, when the next one begins.

Edge: files.  The folder is locked as long as its tour lives, as a sandbox's state folder is.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.sandbox import state

_PREFIX = "bookinfo-lab-tour-"
_YOUNG_S = 60.0  # a folder this new may be one whose tour has not locked it yet


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder that only this user may enter."""
    _clear()
    try:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
    except OSError as error:
        where = error.filename or "the temporary folder"
        raise Unsupported(f"cannot make {where}: {error.strerror}; set TMPDIR to a folder with space") from None
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _clear() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            info = folder.lstat()
            is_ours = info.st_uid == os.getuid() and time.time() - info.st_mtime > _YOUNG_S
            if is_ours and folder.is_dir() and not state.is_held(str(folder)):
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # another tour cleared it
