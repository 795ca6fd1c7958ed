"""How long until a learner sees something: `python benchmarks/lab.py [--runs N] [--tours N] [--cold]`.

Measures, each in a fresh Jupyter kernel and round-robin in one run: from the kernel's start to the reply to `1+1` (the
peer: what Jupyter alone costs), to `import pandas`, and to the table of the pods after `connect()`, on a bundled
recording, on a sandbox that runs, and on one that connect() has to make; then `make tour`, whose set-up has nothing to
do; with --cold, `make tour` in a fresh clone of HEAD, the caches of pip and uv as they are.  Prints medians with
minimum and maximum, and ratios taken round by round; goals are those of the project and are marked met or missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import scenarios

ROOT = Path(__file__).resolve().parent.parent
TABLE = "import bookinfo_lab; lab = bookinfo_lab.connect(); lab.pods()"
PEER = "kernel, 1+1"
# What is measured, the cell, its source: None is no lab at all, "" a sandbox that connect() makes.
CELLS = {
    PEER: ("1+1", None),
    "kernel, import pandas": ("import pandas; 1", None),
    "kernel, first table on a recording": (TABLE, "recording"),
    "kernel, first table on a sandbox that runs": (TABLE, "sandbox:default"),
    "kernel, first table, sandbox made": (TABLE, ""),
}
GOALS = {"kernel, first table on a recording": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="kernels of each kind")
    parser.add_argument("--tours", type=int, default=3, help="warm tours")
    parser.add_argument("--cold", action="store_true", help="also make tour in a fresh clone: set-up included")
    arguments = parser.parse_args()
    kernels(arguments.runs)
    tours = [make_tour(ROOT) for _ in range(arguments.tours)]
    if tours:
        show("make tour, warm, s", tours, 45)
    if arguments.cold:
        with tempfile.TemporaryDirectory(prefix="bookinfo-lab-cold-") as folder:
            subprocess.run(["git", "clone", "-q", str(ROOT), f"{folder}/clone"], check=True)
            show("make tour, cold, s", [make_tour(Path(folder, "clone"))], 120)


def show(what: str, values: list[float], goal: float | None) -> None:
    middle = statistics.median(values)
    verdict = "" if goal is None else f"  goal {goal:g}: {'met' if middle <= goal else 'MISSED'}"
    print(f"{what:60} {middle:8.3f} [{min(values):.3f}-{max(values):.3f}] n={len(values)}{verdict}", flush=True)


def kernels(runs: int) -> None:
    """Each kind of kernel ``runs`` times, in turns; the first turn, which warms the caches, is not counted."""
    found: dict[str, list[float]] = {what: [] for what in CELLS}
    with tempfile.TemporaryDirectory(prefix="bookinfo-lab-bench-") as folder:
        os.environ["BOOKINFO_LAB_STATE"] = f"{folder}/runs"
        mesh = sandbox.up(scenarios.scenario("sidecar"), keep=False)
        try:
            for turn in range(runs + 1):
                for what, (cell, source) in CELLS.items():
                    seconds = to_the_reply(cell, source, Path(folder))
                    if turn:
                        found[what].append(seconds)
        finally:
            mesh.down()
    for what, values in found.items():
        show(f"{what}, s", values, None)
    for what, values in found.items():
        if what != PEER:
            ratios = [value / peer for value, peer in zip(values, found[PEER], strict=True)]
            show(f"  {what} / {PEER}", ratios, GOALS.get(what))


def to_the_reply(cell: str, source: str | None, folder: Path) -> float:
    """Seconds from the start of a kernel to its reply to one cell, everything shown."""
    home = "runs" if source else "made"
    own = {"IPYTHONDIR": f"{folder}/ipython", "BOOKINFO_LAB_STATE": f"{folder}/{home}"}
    own |= {"BOOKINFO_LAB_SOURCE": source or "sandbox"}
    manager = KernelManager(
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        connection_file=f"{folder}/kernel.json",
        transport="ipc",
    )
    outputs: list[str] = []
    began = time.monotonic()
    manager.start_kernel(env=os.environ | own, stderr=subprocess.DEVNULL, cwd=folder)
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(
            cell, timeout=60, output_hook=lambda message: outputs.append(message["msg_type"])
        )
        seconds = time.monotonic() - began
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok" or "execute_result" not in outputs:
        sys.exit(f"the cell {cell!r} on {source!r} gave {reply['content']}")
    return seconds


def make_tour(root: Path) -> float:
    # The checkout's own .venv is the one to use, whatever environment this benchmark was started in.
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "BOOKINFO_LAB_STATE")}
    began = time.monotonic()
    done = subprocess.run(["make", "tour"], cwd=root, env=env, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(f"make tour in {root} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds


if __name__ == "__main__":
    main()
