"""What the writer of proxy configurations lets in: all that istiod would follow is followed, or refused by name."""

import json
from typing import Any

import pytest

from bookinfo_lab.errors import Incomplete, LabError, Unsupported
from bookinfo_lab.sandbox import scenarios, topology, xds
from bookinfo_lab.sandbox.xds import admission

Object = dict[str, Any]
MESH = list(scenarios.scenario("sidecar").objects)
SETTINGS = xds.Settings()
PROXIES = [pod for pod in MESH if pod["kind"] == "Pod" and any(map(topology.is_proxy, topology.containers(pod)))]
REVIEWS = {"destination": {"host": "reviews"}}
DETAILS = {"destination": {"host": "details"}}


def istio(kind: str, group: str = "networking", name: str = "x", **spec: Any) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{group}.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def virtual_service(*rules: Object, hosts: tuple[str, ...] = ("reviews",), **spec: Any) -> Object:
    return istio("VirtualService", hosts=list(hosts), http=list(rules), **spec)


def rule(**fields: Any) -> Object:
    return virtual_service({"route": [REVIEWS], **fields})


def destination_rule(**spec: Any) -> Object:
    return istio("DestinationRule", **{"host": "reviews", **spec})


def server(**fields: Any) -> Object:
    one = {"port": {"number": 81, "name": "web", "protocol": "HTTP"}, "hosts": ["*"], **fields}
    return istio("Gateway", selector={"istio": "ingressgateway"}, servers=[one])


def service(**port: Any) -> Object:
    given = {"name": "", "port": 7000, **port}
    return topology.service("extra", "default", "10.96.200.1", [given], selector={"app": "details"})


def other(group: str, kind: str) -> Object:
    return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "x", "namespace": "default"}, "spec": {}}


def written(*more: Object, of: str = "productpage") -> dict[str, dict[str, Any]]:
    """The resources of a pod in the sidecar scenario, with more objects, by kind and name."""
    chosen = [item for item in MESH if item["kind"] != "EndpointSlice"] + list(more)
    objects = [*chosen, *topology.endpoint_slices(chosen, assume_ready=True)]
    (pod,) = [item for item in PROXIES if item["metadata"]["name"].startswith(of)]
    found = xds.resources(objects, pod, SETTINGS)
    return {kind: {item.get("name") or item["cluster_name"]: item for item in items} for kind, items in found.items()}


REFUSED: list[tuple[Object, type[LabError], str]] = [
    *((istio(kind), Unsupported, kind) for kind in ("ServiceEntry", "Sidecar", "EnvoyFilter", "WorkloadEntry")),
    *((istio(kind, "security"), Unsupported, kind) for kind in ("AuthorizationPolicy", "RequestAuthentication")),
    (istio("Telemetry", "telemetry"), Unsupported, "Telemetry"),
    *((other("gateway.networking.k8s.io", kind), Unsupported, kind) for kind in ("Gateway", "HTTPRoute")),
    (other("networking.k8s.io", "Ingress"), Unsupported, "Ingress"),
    (istio("PeerAuthentication", "security", mtls={"mode": "STRICT"}), Unsupported, "STRICT"),
    (istio("PeerAuthentication", "security"), Unsupported, "UNSET"),
    (destination_rule(host="*.default.svc.cluster.local"), Unsupported, r"\*\.default"),
    (destination_rule(exportTo=["."]), Unsupported, "'exportTo'"),
    (destination_rule(workloadSelector={"matchLabels": {"a": "b"}}), Unsupported, "'workloadSelector'"),
    (destination_rule(trafficPolicy={"portLevelSettings": [{}]}), Unsupported, "'portLevelSettings'"),
    (destination_rule(trafficPolicy={"loadBalancer": {"consistentHash": {"x": 1}}}), Unsupported, "'consistentHash'"),
    (destination_rule(subsets=[{"name": "a"}, {"name": "a"}]), LabError, r"subsets\[1\].name is 'a'"),
    (destination_rule(subsets=[{"labels": {}}]), Incomplete, r"subsets\[0\].name is missing"),
    (destination_rule(host="nobody", trafficPolicy={"outlierDetection": {"x": 1}}), Unsupported, "'outlierDetection'"),
    (virtual_service({"route": [REVIEWS]}, hosts=("*",)), Unsupported, "gateways only"),
    (virtual_service({"route": [REVIEWS]}, hosts=("*.default.svc.cluster.local",)), Unsupported, "gateways only"),
    (virtual_service({"route": [REVIEWS]}, hosts=()), Incomplete, "hosts is missing"),
    (virtual_service({"route": [REVIEWS]}, tls=[{"match": []}]), Unsupported, "'tls'"),
    (virtual_service({"route": [REVIEWS, DETAILS]}), LabError, "add up to 0"),
    (virtual_service({"route": [{"weight": 3}]}), Incomplete, "destination.host is missing"),
    (virtual_service({"route": [REVIEWS | {"weight": -1}]}), LabError, "weight is -1"),
    (virtual_service({"route": [REVIEWS | {"headers": {"request": {"set": {"a": "b"}}}}]}), Unsupported, "'headers'"),
    *(
        (rule(**{name: {"x": 1}}), Unsupported, f"'{name}'")
        for name in ("redirect", "rewrite", "headers", "corsPolicy")
    ),
    (rule(timeout="abc"), LabError, "not a duration"),
    (rule(timeout=3), LabError, "timeout is 3"),
    (rule(retries={"attempts": "3"}), LabError, "attempts is '3'"),
    (rule(retries={"attempts": 3, "backoff": "1s"}), Unsupported, "'backoff'"),
    (rule(match=[{"uri": {"exact": "/a", "prefix": "/b"}}]), LabError, "one of exact, prefix, regex"),
    (rule(match=[{"withoutHeaders": {"a": {"exact": "b"}}}]), Unsupported, "'withoutHeaders'"),
    (rule(match=[{"headers": {"a": {"present": True}}}]), Unsupported, "'present'"),
    (rule(fault={"abort": {"grpcStatus": "X"}}), Unsupported, "'grpcStatus'"),
    (rule(fault={"abort": {"httpStatus": 99}}), LabError, "httpStatus is 99"),
    (rule(fault={"delay": {"fixedDelay": "1s", "percent": 50}}), Unsupported, "'percent'"),
    (rule(fault={"delay": {"fixedDelay": "1s", "percentage": {"value": "x"}}}), LabError, "value is 'x'"),
    (rule(fault={"delay": {"percentage": {"value": 1}}}), Incomplete, "fixedDelay is missing"),
    (server(bind="192.0.2.1"), Unsupported, "'bind'"),
    (server(hosts=[]), Incomplete, "hosts is missing"),
    (server(port={"number": 443, "name": "x", "protocol": "HTTPS"}), Unsupported, "plain HTTP"),
    (server(port={"number": 0, "name": "x", "protocol": "HTTP"}), LabError, "number is 0"),
    (service(name="grpc-web"), Unsupported, "grpc-web"),
    (service(name="http", appProtocol="grpc-web"), Unsupported, "grpc-web"),
]


def title(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["kind"])
    return value.strip("'") if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("item", "error", "text"), REFUSED, ids=title)
def test_what_istiod_would_follow_and_the_lab_cannot_is_refused_in_one_line_for_every_pod(
    item: Object, error: type[LabError], text: str
) -> None:
    messages = set()
    for pod in PROXIES:
        with pytest.raises(error, match=text) as raised:
            xds.files([*MESH, item], pod, SETTINGS)
        messages.add(str(raised.value))
    (message,) = messages  # one that only some proxies gave would leave the mesh half changed
    assert "\n" not in message
    assert message.startswith(f"{item['kind']} default/")


def test_a_second_destination_rule_for_a_host_is_refused_by_the_first_one_s_name() -> None:
    rules = [istio("DestinationRule", name=name, host=host) for name, host in (("a", "reviews"), ("b", "reviews"))]
    with pytest.raises(Unsupported, match=r"DestinationRule default/b: .* DestinationRule default/a"):
        xds.admit(rules)
    xds.admit([istio("DestinationRule", name=name, host=name) for name in ("reviews", "ratings")])


@pytest.mark.parametrize(
    "item",
    [
        other("networking.k8s.io", "NetworkPolicy"),
        other("apps", "Deployment"),
        istio("PeerAuthentication", "security", mtls={"mode": "DISABLE"}, selector={"matchLabels": {"a": "b"}}),
    ],
    ids=title,
)
def test_what_is_none_of_istiod_s_business_or_says_plain_text_changes_nothing(item: Object) -> None:
    assert written(item) == written()


@pytest.mark.parametrize("name", sorted(scenarios.SCENARIOS))
def test_both_scenarios_are_let_in(name: str) -> None:
    assert admission.admit(scenarios.scenario(name).objects) is None


LISTS = {"http": "0.0.0.0_7000", "http2": "0.0.0.0_7000", "tcp": "10.96.200.1_7000", "auto": "10.96.200.1_7000"}


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ({"name": "http"}, "http"),
        ({"name": "HTTP-web"}, "http"),
        ({"name": "http-7000"}, "http"),
        ({"name": "http2-web"}, "http2"),
        ({"name": "grpc"}, "http2"),
        ({"name": "tcp-any"}, "tcp"),
        ({"name": "https"}, "tcp"),
        ({"name": "mysql"}, "tcp"),
        ({"name": ""}, "auto"),
        ({"name": "web-http"}, "auto"),
        ({"name": "http_web"}, "auto"),
        ({"name": "tcp", "appProtocol": "http"}, "http"),
        ({"name": "http", "appProtocol": "tcp"}, "tcp"),
        ({"name": "http", "appProtocol": "kubernetes.io/h2c"}, "http2"),
        ({"name": "http", "appProtocol": "kubernetes.io/wss"}, "tcp"),
        ({"name": "http", "appProtocol": "example.com/own"}, "auto"),
    ],
    ids=str,
)
def test_a_port_s_protocol_is_what_istio_makes_of_its_name_and_app_protocol(port: Object, protocol: str) -> None:
    resources = written(service(**port))
    listener = resources["lds"][LISTS[protocol]]
    assert ("default_filter_chain" in listener) == (protocol != "tcp")
    assert ("extra.default.svc.cluster.local:7000" in resources["rds"]) == (protocol == "auto")
    assert ("7000" in resources["rds"]) == protocol.startswith("http")
    options = resources["cds"]["outbound|7000||extra.default.svc.cluster.local"].get("typed_extension_protocol_options")
    assert ("explicit_http_config" in json.dumps(options)) == (protocol == "http2")


@pytest.mark.parametrize(("number", "name", "waits"), [(53, "", False), (53, "http", True), (25, "mail", False)])
def test_a_port_whose_server_speaks_first_is_not_waited_at_unless_its_name_says_http(
    number: int, name: str, waits: bool
) -> None:
    listeners = written(service(name=name, port=number))["lds"]
    listener = listeners.get(f"10.96.200.1_{number}") or listeners[f"0.0.0.0_{number}"]
    assert bool(listener.get("listener_filters")) == waits


def test_mongodb_s_messages_are_looked_into_on_both_sides() -> None:
    mongo = service(name="mongo", port=27017)
    expected = ["envoy.filters.network.mongo_proxy", "envoy.filters.network.tcp_proxy"]
    (chain,) = written(mongo)["lds"]["10.96.200.1_27017"]["filter_chains"]
    assert [item["name"] for item in chain["filters"]] == expected
    inbound = written(mongo, of="details")["lds"]["virtualInbound"]["filter_chains"]
    (chain,) = [item for item in inbound if item["name"] == "0.0.0.0_27017"]
    assert [item["name"] for item in chain["filters"]] == expected


def test_istio_s_own_listeners_come_last() -> None:
    assert list(written()["lds"])[-2:] == ["virtualOutbound", "virtualInbound"]


@pytest.mark.parametrize(
    ("asked", "balancing"),
    [(name, name) for name in ("LEAST_REQUEST", "ROUND_ROBIN", "RANDOM")] + [("LEAST_CONN", "LEAST_REQUEST")],
)
def test_a_load_balancer_of_istio_s_is_envoy_s_of_the_same_meaning(asked: str, balancing: str) -> None:
    clusters = written(destination_rule(trafficPolicy={"loadBalancer": {"simple": asked}}))["cds"]
    assert clusters["outbound|9080||reviews.default.svc.cluster.local"]["lb_policy"] == balancing
