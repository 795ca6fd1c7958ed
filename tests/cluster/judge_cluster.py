"""Random Services on a test bed, and everything that is needed to judge rules and walks by them.

with judged(bed, seed, count) as world: …

Edge.  Makes a namespace with four pods (two on each of the first two nodes), the Services of `judge_services` with
their slices and status, and waits until kube-proxy on each node has written all of them; removes it all at the end.
The nodes have zones meanwhile.  ``world.lab`` is the product's own view, with a pod on each node.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import judge_services
import pytest
from bed import PREFIX, Bed
from judge_services import ZONES, Ground

from bookinfo_lab.lab import Lab
from bookinfo_lab.netfilter import chain_names
from bookinfo_lab.netfilter.layout_today import LARGE_CLUSTER_ENDPOINTS
from bookinfo_lab.show.listing import Rules
from bookinfo_lab.sources.cluster import source
from bookinfo_lab.sources.cluster.api import Api

ZONE = "topology.kubernetes.io/zone"
SYNC_S = 40.0
_LAST = "the-last"
_WORKERS = 4


@dataclass
class World:
    """The Services as the API server has them, and where they can be tried."""

    bed: Bed
    lab: Lab
    namespace: str
    ground: Ground
    pods: dict[str, tuple[str, str]]  # name → its address, its node
    described: str

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """All Services, EndpointSlices and Nodes, read from the API server."""
        found = []
        for path in ("/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/nodes"):
            kind = {"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}[path.rpartition("/")[2]]
            page = json.loads(self.api.get(path))
            found += [{"kind": kind, **item} for item in page["items"]]
        return found

    @cached_property
    def services(self) -> list[dict[str, Any]]:
        """Those that were made here."""
        return [
            item
            for item in self.objects
            if item["kind"] == "Service" and item["metadata"]["namespace"] == self.namespace
        ]

    @property
    def api(self) -> Api:
        kubernetes: Any = self.lab.source
        found: Api = kubernetes.api
        return found

    def rules(self, node: str) -> Rules:
        """The node's rules, as the product reads them."""
        return self.lab.rules(f"node/{node}")

    def node_pod(self, node: str) -> tuple[str, str, str]:
        """Namespace, pod and container of the product's own pod on a node."""
        kubernetes: Any = self.lab.source
        found: tuple[str, str, str] = kubernetes.guests.on_node(node, "a test")
        return found

    def on_node(self, node: str, *words: str) -> str:
        """What a program prints on the node, by the bed's own way there."""
        assert self.bed.images is not None
        line = [str(self.bed.images / "node"), node, *words]
        return subprocess.run(
            line, capture_output=True, text=True, check=True, timeout=60, env=self.bed.environment
        ).stdout


@contextmanager
def judged(bed: Bed, seed: str, count: int) -> Iterator[World]:
    """Make it, and remove it."""
    name = f"{PREFIX}judge-{secrets.token_hex(3)}"
    nodes = sorted(item["metadata"]["name"] for item in bed.objects("nodes")["items"])[:2]
    _rest(bed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_IMAGE", bed.image)
        patch.setenv("KUBECONFIG", str(bed.kubeconfig))
        bed.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        lab = Lab(source.connect(namespace=name, allow=["node-pod", "trace"]))
        try:
            yield _made(bed, lab, name, nodes, seed, count)
        finally:
            lab.close()
            bed.kubectl("delete", "namespace", name, "--wait=false")
            for node in nodes:
                bed.kubectl("label", "node", node, f"{ZONE}-")


def _made(bed: Bed, lab: Lab, namespace: str, nodes: Sequence[str], seed: str, count: int) -> World:
    bed.apply(*(_pod(namespace, f"p{at}{letter}", node, bed.image) for at, node in enumerate(nodes) for letter in "ab"))
    bed.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pods", "--all", "--timeout=60s")
    pods = {
        item["metadata"]["name"]: (item["status"]["podIP"], item["spec"]["nodeName"])
        for item in bed.objects("pods", "-n", namespace)["items"]
        if item["metadata"]["name"].startswith("p")
    }
    here = [item for item in bed.objects("nodes")["items"] if item["metadata"]["name"] in nodes]
    addresses = [
        next(entry["address"] for entry in item["status"]["addresses"] if entry["type"] == "InternalIP")
        for item in here
    ]
    ranges = [next(address for address, at in pods.values() if at == node).rpartition(".")[0] for node in nodes]
    ground = Ground(
        tuple(nodes),
        tuple(addresses),
        tuple(tuple(address for address, at in pods.values() if at == node) for node in nodes),
        tuple(tuple(f"{part}.{number}" for number in range(200, 206)) for part in ranges),
    )
    services, slices = judge_services.drawn(seed, count, namespace, ground)
    world = World(bed, lab, namespace, ground, pods, judge_services.described(services, slices))
    _post(world.api, namespace, services, slices)
    _settle(world)
    if sum(len(item["endpoints"]) for item in slices) > LARGE_CLUSTER_ENDPOINTS // 2:
        _clean(world)
    return world


def _pod(namespace: str, name: str, node: str, image: str) -> dict[str, Any]:
    container = {
        "name": "idle",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
    }
    meta = {"name": name, "namespace": namespace, "labels": {"sidecar.istio.io/inject": "false"}}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "enableServiceLinks": False,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _post(api: Api, namespace: str, services: Sequence[dict[str, Any]], slices: Sequence[dict[str, Any]]) -> None:
    """Everything, then each load balancer's status."""
    core, discovery = _services_path(namespace), _slices_path(namespace)
    with ThreadPoolExecutor(_WORKERS) as pool:
        made = [pool.submit(api.ask, "POST", core, body=item) for item in services]
        made += [pool.submit(api.ask, "POST", discovery, body=item) for item in slices]
        for one in made:
            one.result()
        patches = [
            pool.submit(
                api.ask,
                "PATCH",
                f"{core}/{item['metadata']['name']}/status",
                body={"status": item["status"]},
                content="application/merge-patch+json",
            )
            for item in services
            if "status" in item
        ]
        for one in patches:
            one.result()


def _services_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"


def _slices_path(namespace: str) -> str:
    return f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


def _settle(world: World) -> None:
    """Give the nodes their zones, and wait until kube-proxy on each has written everything with that in mind.

    It hears of objects of one kind in order, so a last Service tells of those before it; of its two endpoints each node
    uses the one that is meant for its zone.  A change of zone makes kube-proxy write all rules anew: with more than
    1,000 endpoints what it wrote on the way there would differ from that.
    """
    for node, zone in zip(world.ground.nodes, ZONES, strict=True):
        world.bed.kubectl("label", "node", node, f"{ZONE}={zone}", "--overwrite")
    meta = {"name": _LAST, "namespace": world.namespace}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}]}}
    addresses = [f"198.18.9.{number}" for number in range(len(ZONES))]
    made = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": _LAST}},
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 80}],
        "endpoints": [
            {"addresses": [address], "hints": {"forZones": [{"name": zone}]}}
            for address, zone in zip(addresses, ZONES, strict=True)
        ],
    }
    world.api.ask("POST", _services_path(world.namespace), body=service)
    world.api.ask("POST", _slices_path(world.namespace), body=made)
    name = chain_names.service_port_name(world.namespace, _LAST, "")
    wanted = chain_names.service_chain("SVC", name, "tcp")
    ends = [chain_names.endpoint_chain(name, "tcp", f"{address}:80") for address in addresses]
    deadline = time.monotonic() + SYNC_S
    for node, end in zip(world.ground.nodes, ends, strict=True):
        while True:
            lines = [line for line in world.rules(node).lines if line.startswith(f"-A {wanted} ")]
            if [item for line in lines for item in ends if line.endswith(item)] == [end]:
                break
            assert time.monotonic() < deadline, f"kube-proxy on {node} has not written {name} after {SYNC_S:.0f} s"
            time.sleep(0.3)


def _clean(world: World) -> None:
    """Wait until kube-proxy has removed the chains that it no longer uses: with many endpoints it takes its time.

    It does so when something changes, 30 s after the last time (`syncPeriod`): the last Service's port does.
    """
    path = f"{_services_path(world.namespace)}/{_LAST}"
    deadline = time.monotonic() + 3 * SYNC_S
    number = 80
    while any(_has_unused(world.rules(node).lines) for node in world.ground.nodes):
        assert time.monotonic() < deadline, f"kube-proxy keeps chains without a use after {3 * SYNC_S:.0f} s"
        number += 1
        patch = {"spec": {"ports": [{"port": number}]}}
        world.api.ask("PATCH", path, body=patch, content="application/merge-patch+json")
        time.sleep(3)


def _has_unused(lines: Sequence[str]) -> bool:
    """Whether a Service's or endpoint's chain is declared that no rule leads to."""
    declared = {line[1:].split()[0] for line in lines if line.startswith((":KUBE-S", ":KUBE-EXT-", ":KUBE-FW-"))}
    return bool({name for name in declared if name.count("-") == 2} - {line.rpartition(" ")[2] for line in lines})


def _rest(bed: Bed) -> None:
    """Wait until no namespace is on its way out: its Services would go while they are compared."""
    deadline = time.monotonic() + SYNC_S
    while any(item["status"]["phase"] == "Terminating" for item in bed.objects("namespaces")["items"]):
        assert time.monotonic() < deadline, f"a namespace is still being deleted after {SYNC_S:.0f} s"
        time.sleep(0.5)


def asked() -> tuple[str, int, int]:
    """Seed, Services and packets of a run: BOOKINFO_LAB_TEST_JUDGE=SEED,SERVICES,PACKETS, or the usual ones."""
    seed, services, packets = os.environ.get("BOOKINFO_LAB_TEST_JUDGE", "1,220,560").split(",")
    return seed, int(services), int(packets)
