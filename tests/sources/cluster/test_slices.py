"""What a cluster's evidence is cut down to: nothing of others is left, and what is left is as it was."""

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.netfilter.settings import Settings
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.cluster import envoy_slice, object_slice, rules_slice, traffic_slice
from bookinfo_lab.sources.cluster.scope import Scope, scope

from .objects import API, NODE, OURS, THEIRS, host, pod, service

PODS = Settings("10.244.0.0/16")
SECRET = "x7-Tr0ub4dor"


@pytest.fixture
def ours() -> Scope:
    """Of a pod, and a Service on port 80 with the node port 30080."""
    return scope([OURS], [host(), service(OURS, 1, [(80, 30080)]), pod("10.244.0.8")], [API])


# Objects

WORDS = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=6)


@given(
    st.dictionaries(WORDS, st.text(min_size=1, max_size=8).map(lambda word: SECRET + word), max_size=4),
    st.sampled_from(["containers", "initContainers", "ephemeralContainers"]),
)
def test_no_value_of_an_environment_is_left_and_every_name_is(variables: dict[str, str], kind: str) -> None:
    item = pod("10.244.0.8")
    by_reference = {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "login", "key": "k"}}}
    env = [*({"name": key, "value": value} for key, value in variables.items()), by_reference]
    item["spec"][kind] = [{"name": "c", "image": "c", "env": env, "envFrom": [{"secretRef": {"name": "all"}}]}]
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(item), "stays": "here"}
    item["metadata"] |= {"annotations": applied, "managedFields": [{"manager": SECRET}]}
    raw, gone = object_slice.sliced(json.dumps({"items": [item]}).encode())
    assert SECRET.encode() not in raw
    (made,) = json.loads(raw)["items"]
    (container,) = made["spec"][kind]
    assert [entry["name"] for entry in container["env"]] == [*variables, "FROM"]
    assert container["env"][-1] == by_reference
    assert container["envFrom"] == [{"secretRef": {"name": "all"}}]
    assert made["metadata"]["annotations"] == {"stays": "here"}
    assert "managedFields" not in made["metadata"]
    assert gone["environment values"] == len(variables)


def test_an_annotation_that_holds_an_object_goes_and_every_other_stays() -> None:
    item = pod("10.244.0.8")
    whole = json.dumps({"spec": {"containers": [{"env": [{"name": "GREETING", "value": SECRET}]}]}})
    kept = {"sidecar.istio.io/status": json.dumps({"containers": ["istio-proxy"]}), "x": "{", "y": '["spec"]'}
    gone = {"kapp.k14s.io/original": whole, "objectset.rio.cattle.io/applied": "H4sIAAAA"}
    item["metadata"]["annotations"] = {**kept, **gone}
    raw, counts = object_slice.sliced(json.dumps({"items": [item]}).encode())
    assert json.loads(raw)["items"][0]["metadata"]["annotations"] == kept
    assert counts["annotations that hold an object or an environment"] == 2


def test_a_node_keeps_its_place_in_the_network_and_tells_nothing_of_the_machine() -> None:
    item = host()
    item["metadata"] |= {
        "labels": {
            "kubernetes.io/hostname": "lab-0",
            "cloud.example/account": SECRET,
            "topology.kubernetes.io/zone": "a",
        },
        "annotations": {"cloud.example/id": SECRET},
    }
    item["spec"] = {"podCIDR": "10.244.0.0/24", "providerID": f"cloud://{SECRET}"}
    item["status"] |= {"images": [{"names": [SECRET]}], "nodeInfo": {"machineID": SECRET, "kubeletVersion": "v1.34.4"}}
    raw, _ = object_slice.sliced(json.dumps({"items": [item]}).encode())
    (made,) = json.loads(raw)["items"]
    assert SECRET.encode() not in raw
    assert made["metadata"]["labels"] == {"kubernetes.io/hostname": "lab-0", "topology.kubernetes.io/zone": "a"}
    assert made["spec"] == {"podCIDR": "10.244.0.0/24"}
    assert made["status"]["addresses"] == item["status"]["addresses"]
    assert made["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.4"


def test_the_api_servers_service_and_the_labs_own_pods_are_left_out() -> None:
    api = {"kind": "Service", "metadata": {"namespace": "default", "name": "kubernetes"}}
    slice_ = {
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": "kubernetes-1",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
    }
    own = pod("10.244.0.9", "bookinfo-lab-node-1")
    own["metadata"]["labels"] = {"bookinfo-lab.dev/owner": "1"}
    raw, _ = object_slice.sliced(json.dumps({"items": [api, slice_, own, pod("10.244.0.8")]}).encode())
    assert [item["metadata"]["name"] for item in json.loads(raw)["items"]] == ["web-0"]


# Traffic

CONNECTIONS = {
    "pod to its Service": ((("10.244.0.8", 40000), ("10.96.0.1", 80), ("10.244.0.8", 80), ("10.244.0.8", 40000)), True),
    "a client to the node port": ((("203.0.113.9", 40000), (NODE, 30080), ("10.244.0.8", 80), (NODE, 40000)), True),
    "the kubelet's probe": (((NODE, 40000), ("10.244.0.8", 80)), True),
    "a pod's loopback": ((("127.0.0.1", 40000), ("127.0.0.6", 80)), True),
    "another pod's": ((("10.244.1.8", 40000), ("10.244.1.9", 80)), False),
    "the pod to another Service": ((("10.244.0.8", 40000), ("10.96.1.1", 80)), False),
    "the pod to the API server": ((("10.244.0.8", 40000), API), False),
    "the pod to an API server's usual port": ((("10.244.0.8", 40000), (NODE, 6443)), False),
    "a node to itself": (((NODE, 40000), (NODE, 10250)), False),
    "a client to another node port": ((("203.0.113.9", 40000), (NODE, 30081)), False),
}


@pytest.mark.parametrize(("sockets", "is_kept"), CONNECTIONS.values(), ids=CONNECTIONS)
def test_a_connection_stays_where_both_its_ends_are_recorded(
    ours: Scope, sockets: tuple[tuple[str, int], ...], is_kept: bool
) -> None:
    assert ours.admits(*sockets) == is_kept
    pairs = [sockets[index : index + 2] for index in range(0, len(sockets), 2)]
    flows = " ".join(f"src={one} dst={two} sport={first} dport={second}" for (one, first), (two, second) in pairs)
    line = f"ipv4     2 tcp      6 96 ESTABLISHED {flows} [ASSURED] mark=0 use=2\n"
    assert traffic_slice.connections(line, ours) == ((line, 0) if is_kept else ("", 1))
    (one, first), (two, second) = sockets[:2]
    listed = f'tcp ESTAB 0 0 {one}:{first} {two}:{second} users:(("web",pid=1,fd=3))\n'
    if len(sockets) == 2:
        assert traffic_slice.sockets(listed, ours) == ((listed, 0) if is_kept else ("", 1))
        frame = framed(one, first, two, second)
        raw, gone = traffic_slice.frames(pcapng.write([pcapng.Interface("a:lo")], [frame]), ours)
        assert (pcapng.parse(raw)[1], gone) == (((frame,), 0) if is_kept else ((), 1))


def framed(source: str, sport: int, target: str, dport: int) -> pcapng.Frame:
    addresses = b"".join(ipaddress.ip_address(item).packed for item in (source, target))
    packet = b"\x45\0\0\x18\0\0\0\0\x40\x06\0\0" + addresses + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    raw = bytes(12) + b"\x08\x00" + packet
    return pcapng.Frame(0, 1_000_000_000, raw, len(raw))


def test_a_loopback_of_a_node_is_not_a_pods(ours: Scope) -> None:
    line = "ipv4 2 tcp 6 96 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=4000 dport=10248 [ASSURED]\n"
    assert traffic_slice.connections(line, ours) == (line, 0)
    assert traffic_slice.connections(line, ours, is_host=True) == ("", 1)


def test_what_listens_stays_and_a_frame_that_cannot_be_read_goes(ours: Scope) -> None:
    text = "Netid State\ntcp LISTEN 0 0 0.0.0.0:15001 0.0.0.0:*\ntcp LISTEN 0 0 [::]:80 [::]:*\n"
    assert traffic_slice.sockets(text, ours) == (text, 0)
    of_node = 'tcp LISTEN 0 0 *:30080 *:* users:(("proxy",pid=1,fd=3))\ntcp LISTEN 0 0 *:10250 *:* \n'
    assert traffic_slice.sockets(of_node, ours, is_host=True) == ("tcp LISTEN 0 0 *:30080 *:* \n", 1)
    odd = [
        pcapng.Frame(0, 1, raw, 60) for raw in (b"", bytes(13), bytes(12) + b"\x08\0\x45", bytes(12) + b"\x88\xcc12")
    ]
    assert traffic_slice.frames(pcapng.write([pcapng.Interface("a")], odd), ours)[1] == len(odd)


# Envoy


def cluster(name: str) -> dict[str, Any]:
    return {"cluster": {"name": name, "type": "EDS"}}


def dump(ours_: str = OURS, theirs: str = THEIRS) -> dict[str, Any]:
    def host_(namespace: str) -> str:
        return f"reviews.{namespace}.svc.cluster.local"

    def listener(name: str) -> dict[str, Any]:
        return {"name": name, "active_state": {"listener": {"name": name}}}

    mixed = {"name": f"{host_(ours_)}:80", "routes": [{"cluster": f"outbound|80||{host_(theirs)}"}]}
    return {
        "configs": [
            {
                "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
                "bootstrap": {
                    "node": {
                        "id": "sidecar~10.244.0.8",
                        "metadata": {"NAME": "web-0", "PROXY_CONFIG": {"x": SECRET}, "MY_ENV": SECRET},
                    },
                    "discovery": "istiod.istio-system.svc:15012",
                },
            },
            {
                "dynamic_active_clusters": [
                    cluster(name)
                    for name in (
                        f"outbound|80||{host_(ours_)}",
                        f"outbound|80|v1|{host_(theirs)}",
                        "outbound|443||api.severance.example",
                        "inbound|9080||",
                        "PassthroughCluster",
                    )
                ]
            },
            {
                "dynamic_endpoint_configs": [
                    {"endpoint_config": {"cluster_name": f"outbound|80||{host_(name)}"}} for name in (ours_, theirs)
                ]
            },
            {
                "dynamic_listeners": [
                    listener(name)
                    for name in ("10.96.0.1_443", "10.96.1.1_443", "0.0.0.0_80", "0.0.0.0_8123", "virtualInbound")
                ]
            },
            {
                "dynamic_route_configs": [
                    {
                        "route_config": {
                            "name": "80",
                            "virtual_hosts": [
                                mixed,
                                {"name": f"{host_(theirs)}:80"},
                                {
                                    "name": "shop.example:80",
                                    "routes": [{"cluster": f"outbound|80||{host_(theirs)}"}],
                                },
                                {"name": "allow_any", "routes": [{"cluster": "PassthroughCluster"}]},
                            ],
                        }
                    },
                    {"route_config": {"name": "8123", "virtual_hosts": [{"name": "allow_any"}]}},
                ]
            },
            {
                "dynamic_active_secrets": [
                    {"name": "default", "secret": {"name": "default", "tls_certificate": {"x": SECRET}}}
                ],
                "validation_context": {"trusted_ca": {"inline_string": SECRET}},
            },
        ]
    }


def test_envoys_dump_keeps_what_is_named_for_recorded_services_and_no_secret(ours: Scope) -> None:
    raw, gone, hidden = envoy_slice.sliced(json.dumps(dump()).encode(), ours)
    bootstrap, clusters_, endpoints_, listeners, routes, secrets = json.loads(raw)["configs"]
    assert [item["cluster"]["name"] for item in clusters_["dynamic_active_clusters"]] == [
        "outbound|80||reviews.bookinfo.svc.cluster.local",
        "inbound|9080||",
        "PassthroughCluster",
    ]
    assert len(endpoints_["dynamic_endpoint_configs"]) == 1
    assert [item["name"] for item in listeners["dynamic_listeners"]] == [
        "10.96.0.1_443",
        "0.0.0.0_80",
        "virtualInbound",
    ]
    (route,) = routes["dynamic_route_configs"]
    hosts = [item["name"] for item in route["route_config"]["virtual_hosts"]]
    assert hosts == ["reviews.bookinfo.svc.cluster.local:80", "allow_any"]
    assert SECRET.encode() not in raw
    assert bootstrap["bootstrap"]["node"]["metadata"].keys() == {"NAME", "PROXY_CONFIG", "MY_ENV"}
    assert secrets["dynamic_active_secrets"][0]["name"] == "default"
    assert gone == 8
    assert hidden == 4


def test_what_a_recorded_route_says_of_another_namespace_is_overwritten_at_equal_length(ours: Scope) -> None:
    text = json.dumps(dump())
    made, count = ours.masked(text)
    assert len(made) == len(text)
    assert count >= 5
    assert f".{THEIRS}.svc" not in made
    assert "reviews.bookinfo.svc" in made
    assert "istiod.istio-system.svc:15012" in made
    assert (
        ours.masked("spiffe://cluster.local/ns/severance/sa/boss")[0] == "spiffe://cluster.local/ns/xxxxxxxxx/sa/xxxx"
    )


NAMES = {
    "lookup web-0.db.severance.svc.cluster.local": "lookup xxxxx.xx.xxxxxxxxx.svc.cluster.local",
    "*.db.severance.svc.cluster.local": "*.xx.xxxxxxxxx.svc.cluster.local",
    "outbound_.80_._.plan.severance.svc.cluster.local": "outbound_.80_._.xxxx.xxxxxxxxx.svc.cluster.local",
    "10-244-1-9.severance.pod.cluster.local": "xx-xxx-x-x.xxxxxxxxx.pod.cluster.local".replace("-", "x"),
    "http://plan.severance.svc:80/": "http://xxxx.xxxxxxxxx.svc:80/",
}
PLAIN = [
    "web-0.db.bookinfo.svc.cluster.local",
    "outbound_.80_._.reviews.bookinfo.svc.cluster.local",
    "10-244-0-8.bookinfo.pod.cluster.local",
    "istiod.istio-system.svc:15012",
    "spec.template.pod.name",
    "outbound_.9080_._.reviews",
]


@pytest.mark.parametrize("text", NAMES)
def test_a_name_of_another_namespace_is_known_with_whatever_stands_before_it(ours: Scope, text: str) -> None:
    assert ours.is_foreign(text)
    assert ours.masked(text) == (NAMES[text], 1)
    assert ours.masked(NAMES[text])[0] == NAMES[text]


@pytest.mark.parametrize("text", PLAIN)
def test_a_name_of_a_chosen_namespace_stays_with_whatever_stands_before_it(ours: Scope, text: str) -> None:
    assert ours.masked(text) == (text, 0)
    assert "outbound" in text or "istiod" in text or not ours.is_foreign(text)


IDENTITIES = {
    "spiffe://cluster.local/ns/severance/sa/boss": "spiffe://cluster.local/ns/xxxxxxxxx/sa/xxxx",
    '"regex": ".*/ns/severance/.*"': '"regex": ".*/ns/xxxxxxxxx/.*"',
    "/ns/severance/sa/*": "/ns/xxxxxxxxx/sa/*",
    "/ns/bookinfo/sa/boss": "/ns/bookinfo/sa/boss",
    "/proc/self/ns/net": "/proc/self/ns/net",
}


@pytest.mark.parametrize("text", IDENTITIES)
def test_an_identity_of_another_namespace_is_overwritten_with_its_account_or_without(ours: Scope, text: str) -> None:
    assert ours.masked(text)[0] == IDENTITIES[text]


LINES = {
    "cluster.outbound|80||reviews.bookinfo.svc.cluster.local;.upstream_cx_total: 1": True,
    "cluster.outbound|80||reviews.severance.svc.cluster.local;.upstream_cx_total: 1": False,
    "outbound|443||api.severance.example::10.1.2.3:443::cx_active::0": False,
    "outbound|80||reviews.bookinfo.svc.cluster.local::10.244.0.8:80::cx_active::0": True,
    "10.96.1.1_443::10.96.1.1:443": False,
    "10.96.0.1_443::10.96.0.1:443": True,
    "0.0.0.0_15021::0.0.0.0:15021": True,
    "listener.0.0.0.0_8123.downstream_cx_total: 0": False,
    "server.live: 1": True,
    'istio_requests_total{source_workload="layoffs",source_workload_namespace="severance"} 5': False,
    'istio_requests_total{reporter="source",destination_service_namespace="severance"} 5': False,
    'istio_requests_total{source_workload_namespace="bookinfo",destination_service_namespace="unknown"} 5': True,
    "istiocustom.istio_requests_total.reporter.=.source.;.source_workload_namespace.=.severance.;.: 3": False,
    "istiocustom.istio_requests_total.source_workload_namespace.=.bookinfo.;.response.=.200.;.: 3": True,
}


def test_envoys_plain_text_is_read_line_by_line(ours: Scope) -> None:
    raw, gone, _ = envoy_slice.sliced("".join(f"{line}\n" for line in LINES).encode(), ours)
    assert raw.decode().splitlines() == [line for line, is_kept in LINES.items() if is_kept]
    assert gone == sum(not is_kept for is_kept in LINES.values())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_answer_of_envoys_break_nothing(raw: bytes) -> None:
    own = scope([OURS], [host()])
    envoy_slice.sliced(raw, own)
    text = raw.decode("latin-1")
    rules_slice.sliced(text, own)
    traffic_slice.connections(text, own)
    traffic_slice.sockets(text, own)
