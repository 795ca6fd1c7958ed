"""Make the recordings that come with the package, redacted: of each scenario from a fresh sandbox, and of a cluster.

    make_recordings.py                        both scenarios; needs what the sandbox needs (bookinfo-lab doctor)
    make_recordings.py cluster -n NAMESPACE   the Bookinfo in that namespace, of the kubeconfig's current context

Run it with the project's Python after a change of what a sandbox writes; tests/sources/test_recording_bundled.py says
when that is.  Each replaces the old one only when it is whole.  On a cluster it puts pods on the nodes and containers
into the Bookinfo's pods (BOOKINFO_LAB_IMAGE names their image), and traces packets there.
"""

import argparse
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
CLUSTER = "cluster"
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


def make_of_cluster(context: str, namespace: str, path: Path) -> Contents:
    """Record the Bookinfo in a namespace of a cluster as ``path``."""
    from bookinfo_lab.sources.cluster import source as cluster

    source = cluster.connect(context, namespace, ("ephemeral", "node-pod", "trace"))
    try:
        return recording.record(source, str(path))
    finally:
        source.close()


def wait_for_links(source: SandboxSource) -> None:
    """Until each interface shows its carrier: the kernel may report it up to a second after the link came up."""
    asked = [query for query in recording.plan(source).queries if query.kind == "addresses"]
    deadline = time.monotonic() + 10
    while any(b"NO-CARRIER" in source.fetch(query).raw for query in asked):
        if time.monotonic() > deadline:
            raise LabError("an interface of the sandbox still has no carrier after 10 s")
        time.sleep(0.1)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make_recordings", description="Make the recordings of the package anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join((*SCENARIOS, CLUSTER))}")
    parser.add_argument("--context", default="", help="the kubeconfig's context (default: its current one)")
    parser.add_argument("-n", "--namespace", default="", help="the namespace of the Bookinfo on the cluster")
    arguments = parser.parse_args(words)
    for name in arguments.names:
        if name not in (*SCENARIOS, CLUSTER):
            parser.error(f"no recording {name!r}; there are: {', '.join((*SCENARIOS, CLUSTER))}")
    FOLDER.mkdir(exist_ok=True)
    for name in arguments.names or SCENARIOS:
        final = FOLDER / f"{name}.zip"
        new = FOLDER / f".new-{name}.zip"
        new.unlink(missing_ok=True)
        try:
            is_cluster = name == CLUSTER
            made = make_of_cluster(arguments.context, arguments.namespace, new) if is_cluster else make(name, new)
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
