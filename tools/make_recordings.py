"""Make the recordings that come with the package: one of each scenario, from a fresh sandbox, redacted.

Run it with the project's Python after a change of what a sandbox writes; tests/sources/test_recording_bundled.py says
when that is.  Each replaces the old one only when it is whole.  Needs what the sandbox needs (bookinfo-lab doctor).
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.contents import Contents
from bookinfo_lab.sources.sandbox import SandboxSource

SCENARIOS = ("sidecar", "article")
FOLDER = Path(__file__).resolve().parent.parent / "bookinfo_lab" / "recordings"


def make(scenario: str, path: Path) -> Contents:
    """Record a sandbox of that scenario as ``path``; it has the default name, so its commands need no --name."""
    with tempfile.TemporaryDirectory(prefix="bookinfo-lab-") as folder:
        os.environ["BOOKINFO_LAB_STATE"] = folder  # for this process: a sandbox that runs elsewhere is left alone
        mesh = sandbox.up(scenarios.scenario(scenario), keep=False)
        try:
            source = SandboxSource(mesh)
            wait_for_links(source)
            return recording.record(source, str(path))
        finally:
            mesh.down()


def wait_for_links(source: SandboxSource) -> None:
    """Until each interface shows its carrier: the kernel may report it up to a second after the link came up."""
    asked = [query for query in recording.plan(source).queries if query.kind == "addresses"]
    deadline = time.monotonic() + 10
    while any(b"NO-CARRIER" in source.fetch(query).raw for query in asked):
        if time.monotonic() > deadline:
            raise LabError("an interface of the sandbox still has no carrier after 10 s")
        time.sleep(0.1)


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for scenario in SCENARIOS:
        final = FOLDER / f"{scenario}.zip"
        new = FOLDER / f".new-{scenario}.zip"
        new.unlink(missing_ok=True)
        try:
            made = make(scenario, new)
            new.replace(final)
        finally:
            new.unlink(missing_ok=True)
        print(f"{replace(made, path=str(final))}\n  as a zip {final.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"make_recordings: {error}")
