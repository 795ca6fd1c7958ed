"""What a real Envoy makes of the configurations: it takes them whole, and sends requests where the policies say."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from plans import topology as random_topology
from xds_room import Room

from bookinfo_lab.sandbox import scenarios, topology, xds
from bookinfo_lab.sandbox.xds.settings import ACCESS_LOG_FIELDS

pytestmark = pytest.mark.sandbox

MESH = list(scenarios.scenario("sidecar").objects)
ARTICLE = list(scenarios.scenario("article").objects)
PORT = topology.BOOKINFO_PORT


def pod(objects: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in objects if item["kind"] == "Pod" and item["metadata"]["name"].startswith(name))


def address(name: str, objects: list[dict[str, Any]] = MESH) -> str:
    return str(pod(objects, name)["status"]["podIP"])


def service_address(name: str) -> str:
    return next(
        str(item["spec"]["clusterIP"])
        for item in MESH
        if item["kind"] == "Service" and item["metadata"]["name"] == name
    )


def proxies(objects: list[dict[str, Any]]) -> list[str]:
    return [
        item["metadata"]["name"]
        for item in objects
        if item["kind"] == "Pod" and any(topology.is_proxy(container) for container in topology.containers(item))
    ]


def policy(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def with_policies(*changed: dict[str, Any]) -> list[dict[str, Any]]:
    names = {(item["kind"], item["metadata"]["name"]) for item in changed}
    return [item for item in MESH if (item["kind"], item["metadata"]["name"]) not in names] + list(changed)


def to(host: str, subset: str = "", weight: int = 0) -> dict[str, Any]:
    destination = {"host": host, "port": {"number": PORT}} | ({"subset": subset} if subset else {})
    return {"destination": destination} | ({"weight": weight} if weight else {})


SUBSETS = policy(
    "DestinationRule",
    "reviews",
    {"host": "reviews", "subsets": [{"name": name, "labels": {"version": name}} for name in ("v1", "v2", "v3")]},
)
EVERYTHING = policy(
    "VirtualService",
    "ratings",
    {
        "hosts": ["ratings"],
        "http": [
            {
                "match": [{"uri": {"regex": "/r.*"}, "method": {"exact": "GET"}, "headers": {"end-user": {}}}],
                "fault": {"delay": {"fixedDelay": "1ms", "percentage": {"value": 0.1}}, "abort": {"httpStatus": 500}},
                "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "503,reset"},
                "timeout": "5s",
                "route": [to("reviews", "v1", 50), to("reviews", "v3", 50)],
            },
            {"route": [to("ratings")]},
        ],
    },
)
FRONT_DOOR = {"hosts": ["*"], "gateways": ["bookinfo-gateway"]}


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether a condition comes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def gateway() -> Iterator[Room]:
    names = ("productpage-v1", "reviews-v1", "reviews-v2", "reviews-v3")
    with Room(MESH, pod(MESH, "istio-ingressgateway"), servers=[(address(name), PORT) for name in names]) as room:
        yield room


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Room]:
    """productpage's sidecar between its application and details, its packets told by their mark, as iptables has it."""
    own, details = address("productpage-v1"), address("details-v1")
    rules = [
        "-A OUTPUT -m mark --mark 0x539 -j RETURN",
        f"-A OUTPUT -p tcp -d {own} --dport {PORT} -j REDIRECT --to-ports 15006",
        "-A OUTPUT -p tcp ! -d 127.0.0.0/8 -j REDIRECT --to-ports 15001",
    ]
    servers = [(own, PORT), (details, PORT), ("192.0.2.1", 7777)]
    virtual = [service_address("details")]
    with Room(MESH, pod(MESH, "productpage-v1"), owner="mark", servers=servers, addresses=virtual, rules=rules) as room:
        yield room


@pytest.fixture(scope="module")
def ingress() -> Iterator[Room]:
    backend = (address("productpage-v1", ARTICLE), PORT)
    with Room(
        ARTICLE, pod(ARTICLE, "istio-ingress"), servers=[backend], addresses=["192.168.3.24", "192.0.2.9"]
    ) as room:
        yield room


def odd_services() -> list[dict[str, Any]]:
    """The mesh with a Service of every protocol on details, and policies of every supported kind."""
    names = ("http", "http2", "grpc", "tcp", "https", "mongo", "mysql", "redis", "")
    ports = [{"name": f"{name}-x" if name else "x", "port": 7000 + number} for number, name in enumerate(names)]
    extra = topology.service("odd", "default", "10.96.200.1", ports, selector={"app": "details"})
    chosen = [item for item in [*MESH, SUBSETS, EVERYTHING, extra] if item["kind"] != "EndpointSlice"]
    return [*chosen, *topology.endpoint_slices(chosen, assume_ready=True)]


def cases() -> Iterator[Any]:
    """Every role of both scenarios with both owners, and of random topologies."""
    plans = {"sidecar": MESH, "article": ARTICLE, "odd": odd_services()}
    plans |= {f"random-{seed}": list(random_topology(seed).objects) for seed in (11, 12)}
    plans |= {"random-unmeshed": list(random_topology(13, meshed=False).objects)}
    for plan, objects in plans.items():
        every_proxy = proxies(objects)
        for name in every_proxy if plan == "sidecar" else sorted({every_proxy[0], every_proxy[-1]}):
            for owner in ("uid", "mark"):
                yield pytest.param(objects, name, owner, id=f"{plan}-{name}-{owner}")


@pytest.mark.parametrize(("objects", "name", "owner"), list(cases()))
def test_envoy_takes_every_resource_and_rejects_none(objects: list[dict[str, Any]], name: str, owner: str) -> None:
    of = pod(objects, name)
    with Room(objects, of, owner=owner) as room:
        written = xds.resources(objects, of, room.settings)
        dumped = room.dump()
        for kind in ("lds", "cds", "rds"):
            assert set(dumped[kind]) == {item["name"] for item in written[kind]}
        # A dump also lists the endpoints of clusters that need no EDS.
        by_eds = {item["name"] for item in written["cds"] if item["type"] == "EDS"}
        assert set(dumped["eds"]) & by_eds == {item["cluster_name"] for item in written["eds"]} == by_eds
        counted = room.counters("update_(rejected|success)$")
        # Clusters without EDS count successes alone, of which they have none.
        asked = [name.removesuffix("rejected") for name in counted if name.endswith("rejected")]
        assert len(asked) == len(written["rds"]) + len(by_eds) + 2
        assert {counted[f"{name}rejected"] for name in asked} == {0}
        assert {counted[f"{name}success"] for name in asked} == {1}
        bound = {item["local_address"]["socket_address"]["port_value"] for item in listening(room)}
        assert bound == expected_ports(of, written)
        assert room.counters("listener_manager.listener_create_failure") == {
            "listener_manager.listener_create_failure": 0
        }
        assert room.ready_s < 5
        assert "warning" not in room.log()
        assert "error" not in room.log()


def listening(room: Room) -> list[dict[str, Any]]:
    """The listeners that a real socket is bound for."""
    found = room.admin("/listeners?format=json")["listener_statuses"]
    return [item for item in found if room.connects(item["local_address"]["socket_address"])]


def expected_ports(of: dict[str, Any], written: dict[str, list[dict[str, Any]]]) -> set[int]:
    own = {item["address"]["socket_address"]["port_value"] for item in written["lds"] if item.get("bind_to_port", True)}
    return own if "ingress" in of["spec"]["containers"][0]["command"] else own | {15021, 15090}


def test_a_resource_that_envoy_rejects_is_seen() -> None:
    broken = {"lds.json": ('"name": "envoy.filters.http.cors"', '"name": "", "no_such_field": 1')}
    with Room(MESH, pod(MESH, "details"), changed=broken) as room:
        assert room.counters("lds.update_rejected$") == {"listener_manager.lds.update_rejected": 1}
        assert "rejected" in room.log()
        assert f"0.0.0.0_{PORT}" not in room.dump()["lds"]


def test_the_dumped_configuration_is_the_one_that_was_written(gateway: Room) -> None:
    written = xds.resources(MESH, gateway.pod, gateway.settings)
    (routes,) = gateway.dump()["rds"].values()
    assert routes["route_config"] == written["rds"][0]
    assert re.fullmatch("[0-9a-f]{16}", routes["version_info"])


@pytest.mark.parametrize(
    "path", ["/productpage", "/productpage?u=normal", "/login", "/static/a.css", "/api/v1/products/0"]
)
def test_the_gateway_leads_bookinfo_s_paths_to_productpage(gateway: Room, path: str) -> None:
    status, answer = gateway.get("127.0.0.1", 8080, path)
    assert (status, answer["server"], answer["path"]) == (200, address("productpage-v1"), path)


@pytest.mark.parametrize("path", ["/", "/productpage/", "/loginx", "/Productpage"])
def test_the_gateway_has_no_route_for_another_path(gateway: Room, path: str) -> None:
    assert gateway.get("127.0.0.1", 8080, path)[0] == 404


def test_every_request_is_sampled_and_its_b3_and_w3c_fields_tell_of_one_span(gateway: Room) -> None:
    for _ in range(20):
        header = gateway.get("127.0.0.1", 8080, "/productpage")[1]["header"]
        version, trace, span, flags = header["traceparent"].split("-")
        assert (version, flags) == ("00", "01")
        assert (trace, span) == (header["x-b3-traceid"], header["x-b3-spanid"])
        assert header["x-b3-sampled"] == "1"
        assert header["x-request-id"][14] == "9"


def test_a_trace_that_a_client_began_is_continued(gateway: Room) -> None:
    trace, span = "1" * 32, "2" * 16
    b3 = {"x_b3_traceid": trace, "x_b3_spanid": span, "x_b3_sampled": "1"}
    header = gateway.get("127.0.0.1", 8080, "/productpage", **b3)[1]["header"]
    assert (header["x-b3-traceid"], header["x-b3-parentspanid"]) == (trace, span)
    assert header["traceparent"].split("-")[1] == trace
    header = gateway.get("127.0.0.1", 8080, "/productpage", traceparent=f"00-{trace}-{span}-01")[1]["header"]
    assert (header["x-b3-traceid"], header["traceparent"].split("-")[1]) == (trace, trace)


def test_the_access_log_has_istio_s_fields_and_names_the_request(gateway: Room) -> None:
    header = gateway.get("127.0.0.1", 8080, "/productpage?log")[1]["header"]

    def logged() -> list[dict[str, Any]]:
        return [line for line in gateway.access_log() if line["request_id"] == header["x-request-id"]]

    assert eventually(lambda: bool(logged()))
    (line,) = logged()
    assert set(line) == set(ACCESS_LOG_FIELDS)
    assert (line["method"], line["path"], line["response_code"]) == ("GET", "/productpage?log", 200)
    assert line["upstream_cluster"] == "outbound|9080||productpage.default.svc.cluster.local"
    assert line["upstream_host"] == f"{address('productpage-v1')}:{PORT}"


def test_a_policy_changes_without_a_restart() -> None:
    only_login = policy(
        "VirtualService",
        "bookinfo",
        FRONT_DOOR | {"http": [{"match": [{"uri": {"exact": "/login"}}], "route": [to("productpage")]}]},
    )
    servers = [(address("productpage-v1"), PORT)]
    with Room(MESH, pod(MESH, "istio-ingressgateway"), servers=servers) as room:
        before = room.dump()["rds"]["http.8080"]["version_info"]
        assert room.get("127.0.0.1", 8080, "/productpage")[0] == 200
        room.become(with_policies(only_login))
        assert eventually(lambda: room.get("127.0.0.1", 8080, "/productpage")[0] == 404)
        assert room.get("127.0.0.1", 8080, "/login")[0] == 200
        assert room.dump()["rds"]["http.8080"]["version_info"] != before
        assert room.counters("lds.update_success|update_rejected$")["listener_manager.lds.update_success"] == 1
        room.become(MESH)
        assert eventually(lambda: room.get("127.0.0.1", 8080, "/productpage")[0] == 200)
        assert set(room.counters("update_rejected$").values()) == {0}


def test_header_weight_and_fault_decide_as_the_policy_says(gateway: Room) -> None:
    jason = {"headers": {"end-user": {"exact": "jason"}}}
    late = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
    rules = [
        {"match": [{"uri": {"prefix": "/teapot"}}], "fault": late, "route": [to("reviews", "v1")]},
        {"match": [jason], "route": [to("reviews", "v2")]},
        {"route": [to("reviews", "v1", 75), to("reviews", "v3", 25)]},
    ]
    split = policy("VirtualService", "bookinfo", FRONT_DOOR | {"http": rules})
    gateway.become(with_policies(SUBSETS, split))
    try:
        by_address = {address(f"reviews-{name}"): name for name in ("v1", "v2", "v3")}

        def version(**headers: str) -> str:
            return by_address.get(gateway.get("127.0.0.1", 8080, "/reviews/0", **headers)[1].get("server"), "none")

        assert eventually(lambda: version() in ("v1", "v3"))
        assert {version(end_user="jason") for _ in range(10)} == {"v2"}
        seen = Counter(version() for _ in range(200))
        assert set(seen) == {"v1", "v3"}
        # 200 draws at 3 to 1: outside of 110 … 185 less than once in ten million runs
        assert 110 <= seen["v1"] <= 185
        assert gateway.get("127.0.0.1", 8080, "/teapot")[0] == 418
    finally:
        gateway.become(MESH)
        assert eventually(lambda: gateway.get("127.0.0.1", 8080, "/productpage")[0] == 200)


def test_a_sidecar_leads_a_service_s_name_to_its_endpoint_past_the_cluster_ip(sidecar: Room) -> None:
    status, answer = sidecar.get(service_address("details"), PORT, "/details/0", host=f"details:{PORT}")
    assert (status, answer["server"]) == (200, address("details-v1"))
    assert answer["header"]["x-envoy-decorator-operation"] == f"details.default.svc.cluster.local:{PORT}/*"


def test_a_sidecar_passes_through_what_no_service_answers_to(sidecar: Room) -> None:
    status, answer = sidecar.get("192.0.2.1", 7777, "/anything")
    assert (status, answer["server"]) == (200, "192.0.2.1")
    assert "x-b3-traceid" not in answer["header"]  # bytes, not a request, to the proxy
    status, answer = sidecar.get(address("details-v1"), PORT, "/details/0", host="no.such.service")
    assert (status, answer["server"]) == (200, address("details-v1"))

    def logged() -> set[str]:
        return {line["upstream_cluster"] for line in sidecar.access_log() if line["authority"] == "no.such.service"}

    assert eventually(lambda: logged() == {"PassthroughCluster"})


def test_what_comes_in_reaches_the_application_from_127_0_0_6(sidecar: Room) -> None:
    own = address("productpage-v1")
    status, answer = sidecar.get(own, PORT, "/productpage")
    assert (status, answer["server"], answer["peer"]) == (200, own, "127.0.0.6")

    def logged() -> set[tuple[str, str]]:
        lines = [line for line in sidecar.access_log() if line["path"] == "/productpage"]
        return {(line["upstream_cluster"], line["route_name"]) for line in lines}

    assert eventually(lambda: logged() == {(f"inbound|{PORT}||", "default")})


def test_the_ingress_of_2017_sends_every_path_to_productpage_with_the_article_s_header_fields(ingress: Room) -> None:
    for path in ("/productpage", "/anything/else"):
        status, answer = ingress.get("127.0.0.1", 80, path, "192.168.3.24", cookie="user=jason")
        assert (status, answer["server"]) == (200, address("productpage-v1", ARTICLE))
    header = answer["header"]
    assert header["x-forwarded-for"] == "192.168.3.24"
    assert header["x-forwarded-proto"] == "http"
    assert header["x-envoy-internal"] == "true"
    assert header["x-envoy-decorator-operation"] == "default-route"
    assert header["cookie"] == "user=jason"
    assert {"x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"} <= set(header)


def test_the_ingress_calls_no_public_address_internal(ingress: Room) -> None:
    header = ingress.get("127.0.0.1", 80, "/productpage", "192.0.2.9")[1]["header"]
    assert "x-envoy-internal" not in header
    assert header["x-envoy-external-address"] == "192.0.2.9"


def test_the_ingress_of_2017_shows_the_article_s_route(ingress: Room) -> None:
    (routes,) = ingress.dump()["rds"].values()
    (host,) = routes["route_config"]["virtual_hosts"]
    (route,) = host["routes"]
    assert (routes["route_config"]["name"], host["name"], host["domains"]) == ("80", "*", ["*"])
    assert route["match"] == {"prefix": "/"}
    assert route["route"] == {"cluster": "out.productpage.default.svc.cluster.local|http", "timeout": "0s"}
    assert route["decorator"] == {"operation": "default-route"}
    assert route["metadata"]["filter_metadata"]["envoy.router"]["destination.service"].startswith("productpage.default")


def test_prometheus_names_a_cluster_whole(gateway: Room) -> None:
    text = gateway.admin("/stats/prometheus?filter=cluster.*upstream_cx_total")["text"]
    assert (
        'envoy_cluster_upstream_cx_total{cluster_name="outbound|9080||productpage.default.svc.cluster.local"}' in text
    )
