"""How fast a node's rules answer a walk: `python benchmarks/rules.py [--services N,N…] [--rounds N]`.

For kube-proxy nodes of 100, 1,000 and 10,000 Services with five endpoints each, in one run, round by round: a fresh
process that reads the rules from a file and answers its first NodePort walk; beside it `iptables-nft-restore --test`
and `iptables-legacy-restore --test` on the same file (in a network namespace of their own; where they are installed),
and the article's three greps.  Then ms for each further walk, and what a walk costs that enters as many chains of a
table ten times as large.  Imports are counted apart.  Prints medians with minimum and maximum; goals are those of the
project and are marked met or missed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

NODE, ADDRESS, OUTSIDE = "lab-0", "172.18.0.2", "192.0.2.7"
ENDPOINTS, NODE_PORTS, FIRST_NODE_PORT = 5, 2_768, 30_000  # as many node ports as an API server has
FURTHER = 1_000

# One process's job: seconds for reading and the first answer, then for each further one, and its peak memory.
JOB = """
import resource, sys, time
from ipaddress import ip_address
from bookinfo_lab.netfilter import ruleset, walk
from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.packet import Packet
path, address, source, ports, further = sys.argv[1], *map(ip_address, sys.argv[2:4]), int(sys.argv[4]), int(sys.argv[5])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
rules = ruleset.parse(open(path).read(), path, Facts(owned=frozenset([address])))
first = rules.walk(Packet(source, 40000, address, 30000 + ports // 2, iif="eth0"))
took = time.perf_counter() - began
times = []
for number in range(further):
    began = time.perf_counter()
    found = rules.walk(Packet(source, 40000, address, 30000 + number * 7919 % ports, iif="eth0"))
    times.append(time.perf_counter() - began)
    assert all(item.verdict == "accept" for item in found.outcomes) and len(found.outcomes) == 5, found.outcomes
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times.sort()
print(took, times[len(times) // 2], times[-1], (after - before) / 1024, len(first.steps))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", default="100,1000,10000")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    further = {}
    with tempfile.TemporaryDirectory(prefix="bookinfo-lab-") as folder:
        for count in map(int, arguments.services.split(",")):
            path = Path(folder) / f"{count}.save"
            path.write_text(written(count))
            further[count] = compare(path, count, arguments.rounds)
    counts = sorted(further)
    if len(counts) > 1:
        ratio = further[counts[-1]] / further[counts[0]]
        print(f"\na further walk on {counts[-1]:,} Services / on {counts[0]:,}: {ratio:.2f}")


def written(services: int) -> str:
    """What a node's iptables-save prints, by the lab's own writer."""
    from bookinfo_lab.netfilter import kube_proxy, node

    objects: list[dict[str, Any]] = [
        {"kind": "Node", "metadata": {"name": NODE, "labels": {}}, "status": {"addresses": [_internal(ADDRESS)]}}
    ]
    for number in range(services):
        objects += _service(number)
    return node.rules(objects, NODE, kube_proxy.Settings("10.128.0.0/9"))


def _internal(address: str) -> dict[str, str]:
    return {"type": "InternalIP", "address": address}


def _service(number: int) -> Iterator[dict[str, Any]]:
    meta = {"namespace": f"n{number % 50}", "name": f"svc-{number}"}
    port: dict[str, Any] = {"name": "http", "port": 80, "protocol": "TCP"}
    has_node_port = number < NODE_PORTS
    spec = {
        "type": "NodePort" if has_node_port else "ClusterIP",
        "clusterIP": str(ip_address("10.96.0.1") + number),
        "ports": [port | ({"nodePort": FIRST_NODE_PORT + number} if has_node_port else {})],
    }
    yield {"kind": "Service", "metadata": meta, "spec": spec, "status": {}}
    addresses = [str(ip_address("10.128.0.1") + number * ENDPOINTS + place) for place in range(ENDPOINTS)]
    yield {
        "kind": "EndpointSlice",
        "metadata": meta | {"labels": {"kubernetes.io/service-name": meta["name"]}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [text], "nodeName": NODE, "conditions": {"ready": True}} for text in addresses],
    }


def compare(path: Path, services: int, rounds: int) -> float:
    """Print one table; the median seconds of a further walk."""
    text = path.read_text()
    rules = sum(line.startswith("-A ") for line in text.split("\n"))
    print(f"\n{services:,} Services x {ENDPOINTS} endpoints: {rules:,} rules, {len(text) / 1e6:.1f} MB")
    ports = min(services, NODE_PORTS)
    peers: dict[str, Callable[[], None]] = {}
    for backend in ("nft", "legacy"):
        program = shutil.which(f"iptables-{backend}-restore", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is not None:
            command = [*_apart(), program, "--test", str(path)]
            peers[f"iptables-{backend}-restore --test"] = lambda command=command: _run(command)
    peers["the article's three greps"] = lambda: _greps(path, FIRST_NODE_PORT + ports // 2)
    ours: list[list[float]] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        ours.append(_job(path, ports))
        for name, peer in peers.items():
            began = time.perf_counter()
            peer()
            theirs[name].append(time.perf_counter() - began)
    first, each, longest, memory, steps = (list(column) for column in zip(*ours, strict=True))
    show("read and answer the first NodePort walk, ms", [1e3 * value for value in first])
    for name, times in theirs.items():
        show(f"{name}, ms", [1e3 * value for value in times])
        ratios = [peer / own for peer, own in zip(times, first, strict=True)]
        goal = 8 if services >= 10_000 and "restore" in name else None
        show(f"  {name} / ours", ratios, goal)
    show("a further walk, another port each time, ms", [1e3 * value for value in each], most=1)
    show("  the longest of them, ms", [1e3 * value for value in longest])
    show("memory beyond the imports, MiB", memory)
    print(f"  steps of the first walk: {steps[0]:.0f}")
    return statistics.median(each)


def _job(path: Path, ports: int) -> list[float]:
    root = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", JOB, str(path), ADDRESS, OUTSIDE, str(ports), str(FURTHER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": root})
    if done.returncode:
        sys.exit(done.stderr)
    return [float(word) for word in done.stdout.split()]


def _apart() -> list[str]:
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()[:300]}")


def _greps(path: Path, port: int) -> None:
    """By the node port to its chain, by the chain to its endpoints', by one of those to its address."""
    external = _chain(_grep(path, f"--dport {port} "), "KUBE-EXT-")
    service = _chain(_grep(path, f"A {external} "), "KUBE-SVC-")
    _grep(path, f"A {service} ")


def _grep(path: Path, pattern: str) -> str:
    return subprocess.run(["grep", "-F", "--", pattern, str(path)], capture_output=True, text=True, check=True).stdout


def _chain(text: str, prefix: str) -> str:
    return next(word for word in text.split() if word.startswith(prefix))


def show(what: str, values: list[float], least: float | None = None, most: float | None = None) -> None:
    middle = statistics.median(values)
    is_met = (least is None or middle >= least) and (most is None or middle <= most)
    goal = "" if least is None and most is None else f"  goal {least or most:g}: {'met' if is_met else 'MISSED'}"
    print(f"  {what:52} {middle:9.3f} [{min(values):.3f}-{max(values):.3f}] n={len(values)}{goal}")


if __name__ == "__main__":
    main()
