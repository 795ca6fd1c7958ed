"""How fast a cluster is read: `python benchmarks/cluster.py [--pods N] [--rounds N] [--seconds N]`.

The cluster is the kubeconfig's.  Makes a namespace of its own, with pods that no node takes and two that run (the
image of BOOKINFO_LAB_IMAGE), and deletes it.  Measures, in turns in one run: `lab.pods()` as a table of text, without
pandas, beside `kubectl get pods -A -o json` and the typed client, which pages as kubectl does; a capture through the
API server of a stream of UDP datagrams, beside a tcpdump on the receiver's node; and a fresh process from its start to
the first table.  Prints medians with minimum and maximum, and ratios taken round by round; goals are the project's.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bookinfo_lab.lab import Lab
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.base import DEBUG_IMAGE
from bookinfo_lab.sources.cluster import source, streams
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.guest_objects import IMAGE_VARIABLE
from bookinfo_lab.sources.cluster.source import KubernetesSource

FIRST_TABLE = "import bookinfo_lab; print(bookinfo_lab.connect('kubernetes').pods())"
REST_S = 1.0
RATE, SIZE, PORT = 5000, 200, 20999
SENDER = f"""import socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
began, sent = time.monotonic(), 0
while sent < {{count}}:
    while sent < {{count}} and sent <= (time.monotonic() - began) * {RATE}:
        out.sendto(sent.to_bytes(4, "big") + bytes({SIZE - 4}), ("{{to}}", {PORT}))
        sent += 1
    time.sleep(0.001)
print(round(sent / (time.monotonic() - began)))
"""
COUNTER = """import sys
from struct import unpack_from
raw, at, found, size = open(sys.argv[1], "rb").read(), 24, 0, 0
while at < len(raw):
    length = unpack_from("<I", raw, at + 8)[0]
    at, found, size = at + 16 + length, found + 1, size + length
print(found, size)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, default=5000, help="pods that no node takes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="how long datagrams are sent")
    arguments = parser.parse_args()
    first_table(arguments.rounds)
    with namespace() as found:
        captured(found, arguments.seconds, arguments.rounds)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda number: pending(found, number), range(arguments.pods)))
        listed(found.api, arguments.pods, arguments.rounds)


def show(what: str, values: list[float], unit: str, goal: str = "", is_met: bool = True) -> None:
    middle, verdict = statistics.median(values), f"  goal {goal}: {'met' if is_met else 'MISSED'}" if goal else ""
    print(f"{what:58} {middle:8.3f} {unit} [{min(values):.3f}-{max(values):.3f}] n={len(values)}{verdict}", flush=True)


def first_table(rounds: int) -> None:
    """A fresh Python from its start to the printed table; its first run, which warms the caches, is not counted."""
    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_TABLE], check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    show("a fresh process: connect to the first table", taken[1:], "s", "1.5", statistics.median(taken[1:]) <= 1.5)


@contextmanager
def namespace() -> Iterator[KubernetesSource]:
    """A source of a new namespace in which it may do everything; both end with the block."""
    name = f"bookinfo-lab-bench-{secrets.token_hex(3)}"
    found = source.connect(namespace=name, allow=["ephemeral", "node-pod"])
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    found.api.ask("POST", "/api/v1/namespaces", body=made)
    try:
        yield found
    finally:
        found.close()
        found.api.ask("DELETE", f"/api/v1/namespaces/{name}/pods", query={"gracePeriodSeconds": "0"})
        found.api.ask("DELETE", f"/api/v1/namespaces/{name}")


def pending(found: KubernetesSource, number: int) -> None:
    make(found, f"pending-{number}", nodeSelector={"bookinfo-lab.dev/no-such-node": "yes"})


def make(found: KubernetesSource, name: str, **more: Any) -> None:
    image = os.environ.get(IMAGE_VARIABLE) or DEBUG_IMAGE
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container], **more}
    meta = {"name": name, "labels": {"app": name, "sidecar.istio.io/inject": "false"}}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    found.api.ask("POST", f"/api/v1/namespaces/{found.api.namespace}/pods", body=body)


def listed(server: Api, count: int, rounds: int) -> None:
    """All pods of the cluster, read by each in turn, when what the last one cost the server is over."""
    from kubernetes.client import CoreV1Api

    lab, typed = Lab(source.connect()), CoreV1Api(server.client)

    def by_kubectl() -> None:
        subprocess.run(["kubectl", "get", "pods", "-A", "-o", "json"], check=True, stdout=subprocess.DEVNULL)

    def by_typed_client() -> None:
        token = None
        while token != "":
            page = typed.list_pod_for_all_namespaces(limit=500, _continue=token)
            token = page.metadata._continue or ""

    def by_lab() -> None:
        assert len(lab.pods().rows) >= count

    ways: dict[str, Callable[[], None]] = {
        "lab.pods()": by_lab,
        "kubectl get pods -A -o json": by_kubectl,
        "the typed client": by_typed_client,
    }
    taken: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(rounds):
        for what, way in ways.items():
            time.sleep(REST_S)
            began = time.perf_counter()
            way()
            taken[what].append(time.perf_counter() - began)
    for what, values in taken.items():
        show(f"{count} pods: {what}", values, "s")
    for what in list(ways)[1:]:
        ratios = [peer / own for peer, own in zip(taken[what], taken["lab.pods()"], strict=True)]
        show(f"  lab.pods() is faster than {what} by", ratios, "x", "5", statistics.median(ratios) >= 5)


def captured(found: KubernetesSource, seconds: int, rounds: int) -> None:
    """Frames and bytes of the same datagrams by the API server and by a tcpdump on the receiver's node."""
    for name in ("sender", "receiver"):
        make(found, name)
    space = found.api.namespace
    receiver = running(found.api, "receiver")
    running(found.api, "sender")
    node = found.guests.on_node(receiver["spec"]["nodeName"], "a benchmark")
    address, count = receiver["status"]["podIP"], seconds * RATE
    route = found.ways.run(node, ["ip", "-j", "route", "get", address]).done.stdout
    interface = json.loads(route)[0]["dev"]
    lab = Lab(found)
    shares = []
    for _ in range(rounds):
        line = f"timeout -s INT {seconds + 8} tcpdump -i {interface} -B 16384 -s 0 -w /tmp/peer.pcap udp port {PORT}"
        peer = threading.Thread(target=found.ways.run, args=(node, ["sh", "-c", f"{line} 2>/tmp/said; true"]))
        peer.start()
        time.sleep(1.5)
        with lab.source.capture([lab.point("receiver")]) as capturing:
            sender = [f"python3 -c '{SENDER.format(count=count, to=address)}'"]
            rate = streams.run(found.api, space, "sender", "c", ["sh", "-c", *sender]).stdout.decode().strip()
        peer.join()
        counted = found.ways.run(node, ["python3", "-c", COUNTER, "/tmp/peer.pcap"]).done.stdout.split()
        interfaces, every = pcapng.parse(capturing.evidence.raw)
        frames = [frame.raw for frame in every if len(frame.raw) == SIZE + 42]
        own = (len(frames), sum(map(len, frames)))
        theirs = (int(counted[0]), int(counted[1]))
        shares.append(own[0] / theirs[0])
        drops = interfaces[0].drops
        print(
            f"  {rate} datagrams/s: lab {own[0]} frames, {own[1]} bytes, {drops} dropped; tcpdump on the node {theirs}"
        )
    show("a capture: frames of those that the node's tcpdump has", shares, " ", "1", min(shares) >= 1)


def running(server: Api, name: str) -> dict[str, Any]:
    """The pod once it runs."""
    for _ in range(600):
        pod: dict[str, Any] = json.loads(server.get(f"/api/v1/namespaces/{server.namespace}/pods/{name}"))
        if (pod.get("status") or {}).get("phase") == "Running":
            return pod
        time.sleep(0.1)
    raise SystemExit(f"cluster: the pod {name} does not start")


if __name__ == "__main__":
    main()
