"""What any source of evidence must do.  A test module calls each of PROMISES with a Lab on its own source."""

import json
import shlex
import time
from collections.abc import Callable

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.kube.places import CLIENT, Place
from bookinfo_lab.lab import Lab
from bookinfo_lab.netfilter import attempt
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.base import ADMIN_PATHS, KINDS, RESOURCES, Evidence, Query
from bookinfo_lab.sources.base import is_proxy as holds_envoy


def places(lab: Lab) -> tuple[Place, Place, Place]:
    """A node, a pod's application and a proxy of this source."""
    from bookinfo_lab.kube.places import places as every

    found = every(lab.objects("pods", "nodes"), has_client=lab.source.has_client)
    node = next(item for item in found if item.kind == "node")
    application = next(item for item in found if item.kind == "pod" and not holds_envoy(item))
    return node, application, next(item for item in found if holds_envoy(item))


def samples(lab: Lab) -> list[Query]:
    """A query of each kind that `fetch` answers, but `exec`."""
    node, application, proxy = places(lab)
    netns = ("addresses", "routes", "routing-rules", "sysctls", "conntrack")
    return [
        *(Query("objects", None, (name,)) for name in RESOURCES),
        *(Query(kind, place) for kind in netns for place in (node, application)),
        *(Query("rules", place, ("iptables-nft-save",)) for place in (node, application)),
        *(Query(kind, place) for kind in ("processes", "sockets") for place in (application, proxy)),
        Query("logs", proxy),
        *(Query("envoy", proxy, (path,)) for path in ADMIN_PATHS),
        Query("get", CLIENT, ("/productpage",)),
        *(Query("prove", item.place, attempt.words(item.packet)) for item in lab.packets().values()),
    ]


def every_kind_is_answered_with_bytes_a_time_an_origin_and_two_commands(lab: Lab) -> None:
    asked = samples(lab)
    assert {query.kind for query in asked} == set(KINDS) - {"exec", "capture"}
    for query in asked:
        began = time.time()
        evidence = lab.source.fetch(query)
        assert isinstance(evidence, Evidence)
        assert isinstance(evidence.raw, bytes), query
        assert evidence.raw or query.kind in ("rules", "conntrack"), (
            query
        )  # a pod may have no rule, and nobody to talk to
        assert evidence.query.kind == query.kind
        assert evidence.time <= time.time()
        is_live = lab.source.kind != "recording"
        assert evidence.time >= began if is_live else evidence.time <= lab.source.now()
        assert lab.source.kind in evidence.origin, query
        for line in (evidence.here, evidence.on_a_cluster):
            assert line
            assert shlex.split(line)
        assert evidence.status == 0


def objects_are_api_dicts_that_kube_reads(lab: Lab) -> None:
    kinds = {"pods": "Pod", "services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}
    for resource, kind in kinds.items():
        items = json.loads(lab.source.fetch(Query("objects", None, (resource,))).raw)["items"]
        assert items
        assert {item["kind"] for item in items} == {kind}
    objects = parse(lab.objects())
    assert objects.pods
    assert objects.services


def what_no_source_answers_is_refused_in_one_line(lab: Lab) -> None:
    node, _, proxy = places(lab)
    wrong = [
        Query("secrets", None),
        Query("objects", None, ("secrets",)),
        Query("objects", None),
        Query("rules", node, ("sh",)),
        Query("rules", node),
        Query("envoy", proxy, ("quitquitquit",)),
        Query("envoy", proxy, ("/config_dump",)),
        Query("envoy", proxy, ("config_dump/../quitquitquit",)),
        Query("envoy", proxy, ("stats?filter=a&reset",)),
        Query("get", CLIENT, ("productpage",)),
        Query("get", CLIENT, ("/productpage HTTP/1.1\r\nX: y",)),
        Query("get", CLIENT, ("/productpage", "X: a\r\nHost: moon")),
        Query("processes", Place("pod", "no", "pod", "x")),
        Query("addresses", Place("node", "", "moon", "")),
        Query("envoy", node, ("config_dump",)),
    ]
    for query in wrong:
        with pytest.raises(LabError) as refusal:
            lab.source.fetch(query)
        assert "\n" not in str(refusal.value), query


def behind_the_door(lab: Lab) -> str:
    """A pod that requests come in by."""
    door, objects = lab.source.front_door(), parse(lab.objects())
    service = next(item for item in objects.services if (item.namespace, item.name) == (door.namespace, door.service))
    found = (
        item
        for item in objects.pods
        if item.namespace == service.namespace and service.selector.items() <= item.labels.items()
    )
    return next(f"{item.namespace}/{item.name}" for item in found)


def a_capture_is_pcapng_with_the_request_that_was_made_in_it(lab: Lab) -> None:
    pod = behind_the_door(lab)
    # Without a client the request is forwarded to the pod's own loopback, and no other point has it in plain text.
    words = ["client", pod, f"{pod}:veth"] if lab.source.has_client else [f"{pod}:lo"]
    points = [lab.point(word) for word in words]
    with lab.source.capture(points) as running:
        lab.source.fetch(Query("get", CLIENT, ("/productpage",)))
    interfaces, frames = pcapng.parse(running.evidence.raw)
    assert [item.name for item in interfaces] == points
    asked = {interfaces[frame.interface].name for frame in frames if b"GET /productpage" in frame.raw}
    assert asked == set(points)
    assert running.evidence.query == Query("capture", None, tuple(points))
    assert shlex.split(running.evidence.here)[:2] == ["bookinfo-lab", "capture"]
    typed = running.evidence.on_a_cluster.splitlines()
    assert len(typed) >= len(points)
    assert {line.split()[0] for line in typed} <= {"kubectl", "tcpdump"}


def the_front_door_is_a_service_with_that_node_port_on_a_node(lab: Lab) -> None:
    door = lab.source.front_door()
    objects = parse(lab.objects())
    service = next(item for item in objects.services if (item.namespace, item.name) == (door.namespace, door.service))
    assert door.node_port in [port.node_port for port in service.ports if port.name == door.port_name]
    assert door.address in [address for node in objects.nodes for _, address in node.addresses]


def ages_count_to_a_time_after_every_object_was_made(lab: Lab) -> None:
    assert lab.source.now() <= time.time()
    assert "<unknown>" not in set(lab.pods()["AGE"])
    assert "<invalid>" not in set(lab.pods()["AGE"])


PROMISES: tuple[Callable[[Lab], None], ...] = (
    every_kind_is_answered_with_bytes_a_time_an_origin_and_two_commands,
    objects_are_api_dicts_that_kube_reads,
    what_no_source_answers_is_refused_in_one_line,
    a_capture_is_pcapng_with_the_request_that_was_made_in_it,
    the_front_door_is_a_service_with_that_node_port_on_a_node,
    ages_count_to_a_time_after_every_object_was_made,
)
