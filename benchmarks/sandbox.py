"""How long a sandbox takes, and how much memory: `python benchmarks/sandbox.py [--runs N] [--seven-envoys]`.

Measures, each run anew: `up` to the first whole page through all proxies, the same number of bare Envoys with the
same configurations started side by side in one network namespace each (the peer: what Envoy alone costs), `down`,
the sum of PSS of the sandbox's tree, importing the package over the bare interpreter, and ten sandboxes at once.
Prints medians with minimum and maximum; goals are those of the project and are marked met or missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import requests, scenarios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--scenario", default="sidecar")
    parser.add_argument("--together", type=int, default=10, help="sandboxes at once")
    arguments = parser.parse_args()
    plan = scenarios.scenario(arguments.scenario)
    ups, downs, alone, sizes = [], [], [], []
    for run in range(arguments.runs):
        alone.append(bare_envoys(plan))
        mesh, seconds = timed(lambda run=run: sandbox.up(plan, f"bench-{os.getpid()}-{run}", keep=False))
        ups.append(seconds)
        sizes.append(pss_mib(mesh.pid))
        downs.append(timed(mesh.down)[1])
    show("up to the first whole page, s", ups, 1.5)
    show("the same Envoys alone until live, s", alone, None)
    show("up / Envoys alone", [up / peer for up, peer in zip(ups, alone, strict=True)], None)
    show("down, s", downs, 0.5)
    show("PSS of the tree, MiB", sizes, 600)
    show("import bookinfo_lab over the bare interpreter, s", import_cost(arguments.runs), 0.05)
    together(plan, arguments.together)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return action(), time.monotonic() - began


def show(what: str, values: list[float], goal: float | None) -> None:
    middle = statistics.median(values)
    verdict = "" if goal is None else f"  goal {goal:g}: {'met' if middle <= goal else 'MISSED'}"
    print(f"{what:50} {middle:8.3f} [{min(values):.3f}-{max(values):.3f}] n={len(values)}{verdict}")


def bare_envoys(plan: Any) -> float:
    """Seconds until every Envoy of the topology is live, started alone with its own configuration."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bare_envoys.py")
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, script, plan.scenario]
    if os.geteuid() == 0:
        command = ["unshare", "--net", "--mount", *command[5:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return float(done.stdout)


def pss_mib(supervisor: int) -> float:
    """The sum of PSS of the supervisor and all its descendants, in MiB (/proc/PID/smaps_rollup)."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                children.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(entry))
        except OSError:
            continue  # it ended meanwhile
    tree, total = [supervisor], 0
    while tree:
        pid = tree.pop()
        tree += children.get(pid, [])
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


def import_cost(runs: int) -> list[float]:
    def start(code: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))[1]

    start("import bookinfo_lab")
    return [start("import bookinfo_lab") - start("pass") for _ in range(runs)]


def together(plan: Any, count: int) -> None:
    """Bring up ``count`` sandboxes side by side; each must answer."""
    began = time.monotonic()
    meshes = [sandbox.up(plan, f"bench-{os.getpid()}-at-once-{number}", keep=False) for number in range(count)]
    seconds = time.monotonic() - began
    answers = [requests.get(mesh, "/productpage")[0] for mesh in meshes]
    size = sum(pss_mib(mesh.pid) for mesh in meshes)
    for mesh in meshes:
        mesh.down()
    print(f"{count} sandboxes at once, all up after {seconds:.1f} s, {size:.0f} MiB; answers: {answers}")
    if answers != [200] * count:
        sys.exit("not every sandbox answered")


if __name__ == "__main__":
    main()
