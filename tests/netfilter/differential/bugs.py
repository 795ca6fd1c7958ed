"""Seeded bugs: each is one small change of the package's source, and the differential test has to see it.

    PYTHONPATH=tests/netfilter python -m differential.bugs               # all of them
    PYTHONPATH=tests/netfilter python -m differential.bugs --only goto   # those with this in their name

Prints a table and ends with 1 unless all are caught.

Every bug is written into a copy of the package, in a folder of its own; a text that is not found is an error.  The
unchanged copy is run first with the same cases: a run that disagrees with that has caught nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from differential.seeded import BUGS, Bug

import bookinfo_lab

PACKAGE = Path(bookinfo_lab.__file__).parent
HERE = Path(__file__).resolve().parents[1]
FLOWS = 6000
LIMIT_S = 150.0


class Stale(Exception):
    """The text that a bug changes is not in the source, or stands there more than once: mend the bug."""


@dataclass(frozen=True, slots=True)
class Found:
    """Whether a bug was caught, after how long, and what showed it."""

    bug: Bug
    is_caught: bool
    took_s: float
    shown: str


def source_with(bug: Bug, package: Path = PACKAGE) -> str:
    """The module's source with the bug in it.  Raises `Stale`."""
    text = (package / "netfilter" / f"{bug.module}.py").read_text()
    if text.count(bug.old) != 1:
        raise Stale(f"{bug.name}: {bug.old!r} stands {text.count(bug.old)} times in {bug.module}.py, once was expected")
    return text.replace(bug.old, bug.new)


@contextmanager
def package_with(bug: Bug | None) -> Iterator[Path]:
    """A folder to put on the path, with a copy of the package that has the bug."""
    with tempfile.TemporaryDirectory(prefix="seeded-bug-") as folder:
        copy = Path(folder, PACKAGE.name)
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if bug is not None:
            (copy / "netfilter" / f"{bug.module}.py").write_text(source_with(bug))
        yield Path(folder).resolve()


def run(bug: Bug | None, flows: int = FLOWS, seed: str = "1", limit_s: float = LIMIT_S) -> Found:
    """Run the differential test on the package with the bug, up to its first disagreement."""
    start = time.monotonic()
    with package_with(bug) as folder:
        environment = {**os.environ, "PYTHONPATH": f"{folder}:{HERE}", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "differential", "--flows", str(flows), "--seed", seed, "--most", "1"]
        command += ["--least", "0", "--whole", "--jobs", "1"]
        try:
            # In that folder: `python -m` looks for the package where it is started, before anywhere else.
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            return Found(bug or NONE, False, time.monotonic() - start, f"nothing within {limit_s:.0f} s")
        if f"package {folder / PACKAGE.name}\n" not in done.stdout:
            raise RuntimeError(f"the run did not end, or not with the copy of the package: {done.stdout}{done.stderr}")
    took_s = time.monotonic() - start
    shown = [line for line in done.stdout.splitlines() if line.startswith(("DIFFERENCE", "chances/"))]
    said = (
        shown[0].removeprefix("DIFFERENCE: ")
        if shown
        else (done.stderr.strip().splitlines() or ["nothing was seen"])[-1]
    )
    return Found(bug or NONE, done.returncode == 1 and bool(shown), took_s, said)


NONE = Bug("no bug", "", "", "")


def main() -> int:
    """Run the bugs, print the table."""
    parser = argparse.ArgumentParser(prog="python -m differential.bugs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="bugs with this text in their name")
    parser.add_argument("--flows", type=int, default=FLOWS, help=f"packets at most for each ({FLOWS})")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time")
    asked = parser.parse_args()
    chosen = [bug for bug in BUGS if asked.only in bug.name]
    for bug in chosen:
        source_with(bug)
    clean = run(None, asked.flows, asked.seed, limit_s=20 * LIMIT_S)
    if clean.is_caught or "nothing was seen" not in clean.shown:
        sys.stdout.write(f"the package without any bug disagrees: {clean.shown}\n")
        return 1
    sys.stdout.write(f"no bug: {asked.flows} packets agree ({clean.took_s:.0f} s)\n")
    missed = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for found in pool.map(lambda bug: run(bug, asked.flows, asked.seed), chosen):
            missed += not found.is_caught
            word = "caught" if found.is_caught else "MISSED"
            sys.stdout.write(f"{word}  {found.took_s:5.1f} s  {found.bug.name:45} {found.shown[:110]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} bugs caught\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
