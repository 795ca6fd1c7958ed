"""The processes that a test started, however far down: each carries a folder of the test's own in its environment."""

import os
import time
from pathlib import Path


def processes_of(folder: Path) -> list[str]:
    """The processes, other than this one, with the folder in their environment or words: "PID WORDS"."""
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


def left_of(folder: Path, seconds: float = 3.0) -> list[str]:
    """The same after they had some time to end."""
    deadline = time.monotonic() + seconds
    while (found := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
