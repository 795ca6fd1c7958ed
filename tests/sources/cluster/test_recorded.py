"""A cluster as a recording may show it: what is asked of a server, what is refused, what is counted, what is hidden."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources import base, contents, recorder
from bookinfo_lab.sources.base import Evidence, Query
from bookinfo_lab.sources.cluster import sniff
from bookinfo_lab.sources.cluster.guests import Guests, leaves
from bookinfo_lab.sources.cluster.recorded import Recorded
from bookinfo_lab.sources.cluster.source import KubernetesSource

from .objects import NODE, OURS, apis, endpoints, host, pod, service
from .serving import serving

MESH = "istio-system"
KINDS = {"pods": "Pod", "services": "Service", "nodes": "Node", "endpointslices": "EndpointSlice"}


def named(item: dict[str, Any], namespace: str, name: str, **labels: str) -> dict[str, Any]:
    """The object with another name, and for a slice with its Service's."""
    meta = {"namespace": namespace, "name": name, "labels": labels}
    if item["kind"] == "EndpointSlice":
        meta |= {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}}
    return {**item, "metadata": meta}


def bookinfo() -> list[dict[str, Any]]:
    """A page, and a gateway of the mesh's namespace among others' pods there."""
    page, gateway = service(OURS, 1, [(9080, 0)]), service(OURS, 2, [(80, 30080)])
    behind = endpoints(gateway, 1)
    behind["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": "istio-ingressgateway-1"}
    return [
        host(),
        named(page, OURS, "productpage"),
        named(endpoints(page, 1), OURS, "productpage"),
        pod("10.244.0.8", "productpage-1"),
        named(gateway, MESH, "istio-ingressgateway", istio="ingressgateway"),
        named(behind, MESH, "istio-ingressgateway"),
        named(pod("10.244.0.16"), MESH, "istio-ingressgateway-1"),
        named(pod("10.244.0.99"), MESH, "prometheus-1"),
        named(service(OURS, 3, [(9090, 0)]), MESH, "prometheus"),
        *apis(),
    ]


@contextmanager
def recorded(objects: Sequence[dict[str, Any]], *namespaces: str) -> Iterator[Recorded]:
    with serving(listed(objects)) as (api, _):
        yield Recorded(KubernetesSource(api, Guests(api, leaves(())), namespaces))


def listed(objects: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """What an API server answers that has these objects."""
    answers: dict[str, list[tuple[int, Any]]] = {}
    for resource, kind in KINDS.items():
        root = "/apis/discovery.k8s.io/v1" if resource == "endpointslices" else "/api/v1"
        found = [item for item in objects if item["kind"] == kind]
        answers[f"{root}/{resource}"] = [(200, {"items": found})]
        for namespace in (OURS, MESH, "default"):
            own = [item for item in found if item["metadata"].get("namespace") == namespace]
            answers[f"{root}/namespaces/{namespace}/{resource}"] = [(200, {"items": own})]
    return answers


def evidence(query: Query, raw: bytes) -> Evidence:
    return Evidence(query, raw, 0.0, "", base.here(query, "default"), "")


def told(source: Recorded, text: str) -> str:
    """A log's text as it is recorded."""
    return source.narrowed(evidence(Query("logs", Place("pod", OURS, "productpage-1", "web")), text.encode())).text


def test_of_a_front_doors_namespace_only_the_door_and_the_pods_behind_it_are_recorded() -> None:
    with recorded(bookinfo()) as source:
        kept = {
            item["metadata"]["name"]
            for resource in KINDS
            for item in json.loads(source.fetch(Query("objects", None, (resource,))).raw)["items"]
        }
        assert kept == {
            *("lab-0", "productpage", "productpage-1"),
            *("istio-ingressgateway", "istio-ingressgateway-1"),
        }
        assert source.notes[0] == f"namespaces: {OURS}, {MESH}/istio-ingressgateway (of the Bookinfo found)"
        places = {str(query.place) for query in recorder.plan(source).queries if query.kind == "logs"}
        assert places == {f"{OURS}/productpage-1", f"{MESH}/istio-ingressgateway-1"}
        with pytest.raises(LabError, match="none of the pods"):
            source.fetch(Query("logs", Place("pod", MESH, "prometheus-1", "web")))
        text = "prometheus.istio-system.svc istio-ingressgateway.istio-system.svc istiod.istio-system.svc"
        assert told(source, text) == text.replace("prometheus.istio-system", "xxxxxxxxxx.xxxxxxxxxxxx")


def test_of_named_namespaces_everything_is_recorded_but_the_api_server() -> None:
    with recorded(bookinfo(), OURS, MESH, "default") as source:
        listed = json.loads(source.fetch(Query("objects", None, ("services",))).raw)["items"]
        assert [item["metadata"]["name"] for item in listed] == ["productpage", "istio-ingressgateway", "prometheus"]
        assert source.notes[0] == f"namespaces: {OURS}, {MESH}, default"


API_SERVER = {
    "https://10.96.1.1:443/api: dial tcp 10.96.1.1:443": "https://xxxxxxxxxxxxx/api: dial tcp xxxxxxxxxxxxx",
    "--master=https://35.1.2.3/ and https://35.1.2.3:443/1": "--master=https://xxxxxxxx/ and https://xxxxxxxxxxxx/1",
    '"address":"35.1.2.3","port_value":443': '"address":"xxxxxxxx","port_value":443',
    f"to {NODE}:16443": f"to {'x' * len(NODE)}xxxxxx",
    "[2001:db8::5]:6443 2001:db8::5": "xxxxxxxxxxxxxxxxxx xxxxxxxxxxx",
}
OTHERWISE = [
    f"{NODE}:30080 and {NODE}",
    "35.1.2.30 135.1.2.3 35.1.2.3.4 10.96.1.10:443",
    '"loadBalancerSourceRanges":["35.1.2.3/32"]',
    "2001:db8::5:1 1:2001:db8::5",
    "10.244.0.8:443 10.96.0.1:443",
]


def of_api(*addresses: str) -> list[dict[str, Any]]:
    made, slice_ = apis()
    others = [
        {
            **slice_,
            "metadata": {**slice_["metadata"], "name": f"kubernetes-{number}"},
            "addressType": "IPv6" if ":" in address else "IPv4",
            "ports": [{"name": "https", "port": 6443 if ":" in address else 443, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        }
        for number, address in enumerate(addresses)
    ]
    return [made, slice_, *others]


@pytest.mark.parametrize("text", [*API_SERVER, *OTHERWISE])
def test_the_api_server_is_overwritten_in_every_form_and_nothing_else_is(text: str) -> None:
    with recorded([*bookinfo()[:4], *of_api("35.1.2.3", "2001:db8::5")], OURS) as source:
        assert told(source, text) == API_SERVER.get(text, text)


def test_rules_routes_and_addresses_stay_readable_where_they_name_the_api_server() -> None:
    rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 10.0.0.1/32 -j DROP\n-A INPUT -d 35.1.2.3/32 -j DROP\nCOMMIT\n"
    place = Place("node", "", "lab-0", "")
    with recorded([*bookinfo()[:4], *of_api("35.1.2.3")], OURS) as source:
        made = source.narrowed(evidence(Query("rules", place, ("iptables-nft-save",)), rules.encode())).text
        assert "35.1.2.3" not in made
        assert "-A INPUT -d 35.1.0.0/16 " in made
        assert "-s 10.0.0.1/32 -j DROP" in made
        routes = b'[{"dst":"35.1.2.3","dev":"eth0"}]'
        assert source.narrowed(evidence(Query("routes", place), routes)).raw == routes


def test_the_processes_of_a_pod_that_sees_its_nodes_are_refused() -> None:
    objects = [*bookinfo()[:4], pod("10.244.0.9", "agent", hostPID=True)]
    with recorded(objects, OURS) as source:
        reasons = {
            name: source.refusal(Query("processes", Place("pod", OURS, name, "web")))
            for name in ("productpage-1", "agent")
        }
        assert reasons["productpage-1"] == ""
        assert "hostPID" in reasons["agent"]
        assert source.refusal(Query("logs", Place("pod", OURS, "agent", "web"))) == ""
        with pytest.raises(LabError, match="hostPID"):
            source.fetch(Query("processes", Place("pod", OURS, "agent", "web")))


def frame(source: str, target: str) -> pcapng.Frame:
    ends = b"".join(bytes(map(int, item.split("."))) for item in (source, target))
    raw = bytes(12) + b"\x08\x00\x45\0\0\x18\0\0\0\0\x40\x06\0\0" + ends + bytes(4)
    return pcapng.Frame(0, 1_000_000_000, raw, len(raw))


def test_an_interface_that_only_holds_addresses_makes_none_of_them_a_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [
        {"ifname": "eth0", "flags": ["BROADCAST", "UP"], "addr_info": [{"local": NODE}, {"local": "192.0.2.7"}]},
        {"ifname": "tunl0", "flags": ["NOARP", "UP"], "addr_info": [{"local": "10.244.0.1"}]},
        {"ifname": "kube-ipvs0", "flags": ["BROADCAST", "NOARP"], "addr_info": [{"local": "10.96.1.7"}]},
        {"ifname": "nodelocaldns", "flags": ["BROADCAST", "NOARP"], "addr_info": [{"local": "169.254.25.10"}]},
    ]
    query = Query("addresses", Place("node", "", "lab-0", ""))
    with recorded(bookinfo()[:4], OURS) as source:
        monkeypatch.setattr(KubernetesSource, "fetch", lambda self, query: evidence(query, json.dumps(links).encode()))
        assert json.loads(source.fetch(query).raw) == links
        frames = [frame("10.244.0.8", address) for address in ("169.254.25.10", "10.96.1.7", "192.0.2.7", "10.244.0.1")]
        raw = pcapng.write([pcapng.Interface("a:eth0")], frames)
        kept = source.narrowed(evidence(Query("capture", None, ("a:eth0",)), raw)).raw
        assert pcapng.parse(kept)[1] == tuple(frames[2:])


def test_what_went_of_two_answers_to_one_question_is_counted_for_each() -> None:
    query = Query("capture", None, ("a:eth0",))
    with recorded(bookinfo()[:4], OURS) as source:
        made = [
            source.narrowed(
                evidence(query, pcapng.write([pcapng.Interface("a:eth0")], [frame("10.244.1.8", "10.244.1.9")] * count))
            )
            for count in (5, 2)
        ]
        dropped = list(recorder._dropped(source, made, ["capture/all.pcapng", "capture/all.2.pcapng"]))
    assert [(item.piece, item.count) for item in dropped] == [("capture/all.pcapng", 5), ("capture/all.2.pcapng", 2)]


PAGE, AGENT, MIRROR, STUCK = (f"{OURS}/{name}" for name in ("productpage-1", "agent", "mirror", "stuck"))


def with_pods() -> dict[str, list[tuple[int, Any]]]:
    """The answers of a cluster with a pod in its node's network namespace and two that take no container."""
    mirror = pod("10.244.0.10", "mirror")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    pods = [
        pod("10.244.0.8", "productpage-1"),
        pod(NODE, "agent", hostNetwork=True),
        mirror,
        pod("10.244.0.11", "stuck"),
    ]
    answers = listed([*bookinfo()[:3], *pods])
    answers |= {f"/api/v1/namespaces/{OURS}/pods/{item['metadata']['name']}": [(200, item)] for item in pods}
    return answers | {"/api/v1/nodes/lab-0": [(200, host())]}


def not_held(found: contents.Contents) -> dict[str, str]:
    """The capture points that are not held, and why."""
    return {item.query.arguments[0]: item.reason for item in found.not_held if item.query.kind == "capture"}


def test_the_plan_has_the_capture_points_that_leave_and_pods_allow() -> None:
    with serving(with_pods()) as (api, server):
        plans = {
            given: recorder.plan(KubernetesSource(api, Guests(api, leaves(given)), [OURS]))
            for given in [(), ("ephemeral",), ("node-pod",), ("ephemeral", "node-pod")]
        }
        assert {method for method, _, _ in server.asked} == {"GET"}
    in_pods = [f"{name}:{interface}" for name in (PAGE, AGENT, STUCK) for interface in ("eth0", "lo")]
    on_node = ["node/lab-0:eth0", *(f"{name}:veth" for name in (PAGE, MIRROR, STUCK))]
    points = {given: sorted(item.points for item in found.captures) for given, found in plans.items()}
    assert points[()] == []
    assert [set(item) for item in points["ephemeral",]] == [set(in_pods)] * 2
    assert [set(item) for item in points["node-pod",]] == [set(on_node)] * 2
    assert [set(item) for item in points["ephemeral", "node-pod"]] == [{*in_pods, *on_node}] * 2
    reasons = not_held(plans["ephemeral",])
    assert reasons.keys() == {*on_node, f"{MIRROR}:eth0", f"{MIRROR}:lo"}
    assert "is a mirror pod" in reasons[f"{MIRROR}:lo"]
    assert len({reasons[name] for name in on_node}) == 1
    assert "a capture of node/lab-0 needs a pod there" in reasons[f"{PAGE}:veth"]
    assert "allow=['ephemeral', 'node-pod']" in reasons[f"{PAGE}:veth"]
    assert "needs a container in it" in not_held(plans["node-pod",])[f"{AGENT}:lo"]
    requests = [query.arguments for query in plans[()].requests]
    assert requests == [*contents.CAPTURED, *contents.REQUESTED]


def test_the_points_that_can_be_are_recorded_where_one_turns_out_not_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def in_pod(self: Guests, given: Any, target: str, purpose: str) -> str:
        if given["metadata"]["name"] in ("mirror", "stuck"):
            raise LabError("the container does not start (ErrImagePull)")
        return "ours"

    @contextmanager
    def capturing(api: object, points: Sequence[sniff.Point], made: Any) -> Iterator[object]:
        yield SimpleNamespace(evidence=made(pcapng.write([pcapng.Interface(item.name) for item in points], [])))

    with serving(with_pods()) as (api, _):
        monkeypatch.setattr(Guests, "in_pod", in_pod)
        monkeypatch.setattr(sniff, "capturing", capturing)
        monkeypatch.setattr(
            KubernetesSource,
            "_get",
            lambda self, query: Evidence(query, b"", 0.0, self.description, "", ""),
        )
        source = KubernetesSource(api, Guests(api, leaves(["ephemeral"])), [OURS])
        made = recorder.record(source, str(tmp_path / "new"))
    points = tuple(f"{name}:{interface}" for name in (PAGE, AGENT) for interface in ("eth0", "lo"))
    assert [item.points for item in made.captures] == [points, points]
    reasons = not_held(made)
    assert reasons[f"{STUCK}:eth0"] == "the container does not start (ErrImagePull)"
    assert {name for name, reason in reasons.items() if "needs a pod there" in reason} == {
        "node/lab-0:eth0",
        *(f"{name}:veth" for name in (PAGE, MIRROR, STUCK)),
    }


@pytest.mark.parametrize(
    ("gone", "doors", "words"),
    [
        (True, 0, "there is no Service productpage and no gateway"),
        (False, 2, "several Services may be the way in"),
    ],
)
def test_without_one_front_door_nothing_is_made_and_nothing_written(
    gone: bool, doors: int, words: str, tmp_path: Path
) -> None:
    gateways = [named(service(OURS, 2, [(80, 0)]), OURS, f"gate-{number}", istio="ingressgateway") for number in (1, 2)]
    objects = [item for item in bookinfo() if not (gone and item["metadata"]["name"].startswith("productpage"))]
    with serving(listed([*objects, *gateways[:doors]])) as (api, server):
        source = KubernetesSource(api, Guests(api, leaves(["ephemeral", "node-pod", "trace"])), [OURS])
        for ask in (recorder.plan, lambda given: recorder.record(given, str(tmp_path / "new"))):
            with pytest.raises(LabError, match=words) as refusal:
                ask(source)
            assert "\n" not in str(refusal.value)
        assert {(method, path.rpartition("/")[2] in KINDS) for method, path, _ in server.asked} == {("GET", True)}
    assert list(tmp_path.iterdir()) == []


def test_where_services_may_not_be_listed_the_missing_door_says_so() -> None:
    answers = listed(bookinfo()) | {f"/api/v1/namespaces/{OURS}/services": [(403, {"message": "no"})]}
    with serving(answers) as (api, _):
        source = KubernetesSource(api, Guests(api, leaves(())), [OURS])
        with pytest.raises(LabError, match=r"no Bookinfo is seen here.*list services") as refusal:
            recorder.plan(source)
        assert "\n" not in str(refusal.value)
