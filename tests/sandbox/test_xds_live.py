"""The proxies of a whole mesh: what reaches an application, what a policy changes, and who may ask an Envoy what.

An application is played by a socket of the test that listens in a pod's network namespace: it sees what the pod's own
proxy hands on, byte by byte.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import Sandbox, requests, scenarios, topology
from bookinfo_lab.sandbox.targets import Target

pytestmark = pytest.mark.sandbox
Object = dict[str, Any]
ECHO_PORT = 9999
# The process that is Envoy in a container, and when it started, from /proc with the shell alone.
ENVOY = 'for p in /proc/[0-9]*; do read -r c < $p/comm; [ "$c" = envoy ] && echo $(cut -d" " -f1,22 $p/stat); done; :'


@pytest.fixture(scope="module")
def mesh() -> Iterator[Sandbox]:
    made = sandbox.up(scenarios.scenario("sidecar"), "xds-live", keep=False)
    yield made
    made.down()


@pytest.fixture(scope="module")
def article() -> Iterator[Sandbox]:
    made = sandbox.up(scenarios.scenario("article"), "xds-live-article", keep=False)
    yield made
    made.down()


class Application:
    """Listens in a target's network namespace; keeps the peer and the header fields of each request, answers 200."""

    def __init__(self, mesh: Sandbox, target: Target, port: int) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self._listener = mesh.open_socket(target)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("0.0.0.0", port))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Application":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        self._thread.join(timeout=10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                connection.settimeout(5)
                stream.readline()
                fields = http.client.parse_headers(stream)
                self.seen.append((peer[0], {name.lower(): value for name, value in fields.items()}))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\necho")


def fetch(
    mesh: Sandbox, source: str, address: str, port: int, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """(status, body) of a GET from a target's network namespace; raises what connect(2) gives."""
    connection = http.client.HTTPConnection(address, port)
    connection.sock = mesh.open_socket(mesh.target(source))
    try:
        connection.sock.settimeout(10)
        connection.sock.connect((address, port))
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def admin(mesh: Sandbox, pod: str, path: str) -> Any:
    status, body = fetch(mesh, pod, "127.0.0.1", 15000, path)
    assert status == 200
    return json.loads(body)


def address_of(mesh: Sandbox, app: str) -> str:
    pods = [item for item in mesh.objects() if item["kind"] == "Pod" and item["metadata"]["labels"].get("app") == app]
    return str(pods[0]["status"]["podIP"])


def logged(mesh: Sandbox, pod: str, **fields: Any) -> list[dict[str, Any]]:
    """The access-log lines of a pod's proxy that have these fields, once there is one."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        lines = mesh.logs(mesh.target(pod, "istio-ingress" if pod == "ingress" else "istio-proxy")).splitlines()
        found[:] = [line for line in map(json.loads, filter(is_json, lines)) if fields.items() <= line.items()]
        return bool(found)

    assert eventually(is_there), f"{pod} logged nothing with {fields}"
    return found


def is_json(line: str) -> bool:
    return line.startswith("{")


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def policy(kind: str, name: str, **spec: Any) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def echo(app: str) -> Object:
    port = {"name": "http", "port": ECHO_PORT, "targetPort": ECHO_PORT}
    return topology.service("echo", "default", "10.96.222.1", [port], selector={"app": app})


def way_to_echo() -> Object:
    """A way to it through the gateway."""
    rule = {"match": [{"uri": {"prefix": "/echo"}}], "route": [{"destination": {"host": "echo"}}]}
    return policy("VirtualService", "echo", hosts=["*"], gateways=["bookinfo-gateway"], http=[rule])


def subsets(app: str) -> Object:
    named = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2", "v3")]
    return policy("DestinationRule", app, host=app, subsets=named)


def route_all(app: str, subset: str) -> Object:
    rule = {"route": [{"destination": {"host": app, "subset": subset}}]}
    return policy("VirtualService", app, hosts=[app], http=[rule])


def envoy_process(mesh: Sandbox, pod: str) -> str:
    """The process id and start time of a pod's Envoy."""
    done = mesh.run(mesh.target(pod, "istio-proxy"), ["sh", "-c", ENVOY])
    assert done.returncode == 0, done.stderr.decode()
    (line,) = done.stdout.decode().splitlines()
    return line


def reviews_versions(mesh: Sandbox, pages: int) -> set[str]:
    """The versions of reviews that so many pages came from."""
    found = [hop.destination for _ in range(pages) for hop in requests.send(mesh, "/productpage").hops]
    return {"-".join(pod.split("-")[:2]) for pod in found if pod.startswith("reviews-")}


@pytest.fixture
def arrived(mesh: Sandbox) -> Iterator[tuple[str, dict[str, str]]]:
    """What reaches an application behind the gateway and a sidecar: the peer it sees, and the header fields."""
    mesh.apply([echo("details"), way_to_echo()])
    try:
        with Application(mesh, mesh.target("details"), ECHO_PORT) as application:
            assert eventually(lambda: requests.get(mesh, "/echo")[0] == 200)
            application.seen.clear()
            assert requests.get(mesh, "/echo/once", {"User-Agent": "live", "Cookie": "user=jason"})[2] == b"echo"
            (seen,) = application.seen
        yield seen
    finally:
        mesh.delete("VirtualService", "default", "echo")
        mesh.delete("Service", "default", "echo")


def test_an_application_is_told_the_request_s_trace_and_where_it_came_from(
    mesh: Sandbox, arrived: tuple[str, dict[str, str]]
) -> None:
    peer, header = arrived
    assert peer == "127.0.0.6"
    assert header["x-request-id"][14] == "9"  # sampled, in Envoy's own request ids
    version, trace, span, flags = header["traceparent"].split("-")
    assert (version, trace, span, flags) == ("00", header["x-b3-traceid"], header["x-b3-spanid"], "01")
    assert header["x-b3-sampled"] == "1"
    assert header["x-forwarded-for"] == mesh.topology().hosts[0].address  # the node's: its rules masquerade
    assert header["x-forwarded-proto"] == "http"
    assert header["x-envoy-attempt-count"] == "1"
    assert header["cookie"] == "user=jason"
    assert "x-envoy-decorator-operation" not in header  # the sidecar takes the gateway's away
    assert "x-envoy-internal" not in header


def test_both_proxies_on_the_way_log_the_request_that_the_application_saw(
    mesh: Sandbox, arrived: tuple[str, dict[str, str]]
) -> None:
    request_id = arrived[1]["x-request-id"]
    (gateway,) = logged(mesh, "istio-ingressgateway", request_id=request_id)
    (inbound,) = logged(mesh, "details", request_id=request_id)
    assert gateway["upstream_cluster"] == f"outbound|{ECHO_PORT}||echo.default.svc.cluster.local"
    assert inbound["upstream_cluster"] == f"inbound|{ECHO_PORT}||"
    assert (gateway["response_code"], inbound["response_code"], gateway["path"]) == (200, 200, "/echo/once")
    node = mesh.topology().hosts[0].address
    assert gateway["downstream_remote_address"].startswith(f"{node}:")
    assert inbound["downstream_remote_address"] == f"{node}:0"  # told by x-forwarded-for, which knows no port
    assert inbound["x_forwarded_for"] == node


def test_a_policy_moves_all_reviews_to_one_version_without_a_restart_and_back(mesh: Sandbox) -> None:
    pods = ("productpage", "istio-ingressgateway", "details")
    before = {pod: envoy_process(mesh, pod) for pod in pods}
    mesh.apply([subsets("reviews"), route_all("reviews", "v3")])
    try:
        began = time.monotonic()
        assert eventually(lambda: reviews_versions(mesh, 3) == {"reviews-v3"}, 2)
        assert time.monotonic() - began < 2
        assert reviews_versions(mesh, 8) == {"reviews-v3"}
        assert b"red" in requests.get(mesh, "/productpage")[2]
    finally:
        mesh.delete("VirtualService", "default", "reviews")
    assert eventually(lambda: reviews_versions(mesh, 6) == {"reviews-v1", "reviews-v2", "reviews-v3"})
    mesh.delete("DestinationRule", "default", "reviews")
    assert reviews_versions(mesh, 1)
    assert {pod: envoy_process(mesh, pod) for pod in pods} == before


def test_jason_gets_v2_and_everybody_else_v3(mesh: Sandbox) -> None:
    jason = {"headers": {"end-user": {"exact": "jason"}}}
    rules = [
        {"match": [jason], "route": [{"destination": {"host": "reviews", "subset": "v2"}}]},
        {"route": [{"destination": {"host": "reviews", "subset": "v3"}}]},
    ]
    mesh.apply([subsets("reviews"), policy("VirtualService", "reviews", hosts=["reviews"], http=rules)])
    try:
        assert eventually(lambda: reviews_versions(mesh, 1) == {"reviews-v3"})
        for user, version in (("jason", "reviews-v2"), ("ann", "reviews-v3"), ("jason", "reviews-v2")):
            hops = requests.send(mesh, "/productpage", user).hops
            found = {"-".join(hop.destination.split("-")[:2]) for hop in hops}
            assert found & {"reviews-v1", "reviews-v2", "reviews-v3"} == {version}
    finally:
        mesh.delete("VirtualService", "default", "reviews")
        mesh.delete("DestinationRule", "default", "reviews")


def test_a_fault_on_ratings_is_what_reviews_gets(mesh: Sandbox) -> None:
    abort = {"abort": {"httpStatus": 500, "percentage": {"value": 100}}}
    rule = {"fault": abort, "route": [{"destination": {"host": "ratings"}}]}
    mesh.apply([subsets("reviews"), route_all("reviews", "v2")])
    mesh.apply([policy("VirtualService", "ratings", hosts=["ratings"], http=[rule])])
    try:

        def asked() -> list[tuple[int, str]]:
            hops = requests.send(mesh, "/productpage").hops
            return [
                (hop.status, hop.flags) for hop in hops if hop.cluster.endswith("||ratings.default.svc.cluster.local")
            ]

        assert eventually(lambda: [status for status, _ in asked()] == [500])
        assert asked() == [(500, "FI")]
    finally:
        for kind, name in (
            ("VirtualService", "ratings"),
            ("VirtualService", "reviews"),
            ("DestinationRule", "reviews"),
        ):
            mesh.delete(kind, "default", name)


def test_a_refused_policy_leaves_every_proxy_as_it_was(mesh: Sandbox) -> None:
    def versions() -> dict[str, Any]:
        found = {}
        for pod in ("productpage", "istio-ingressgateway"):
            for part in admin(mesh, pod, "/config_dump")["configs"]:
                for item in part.get("dynamic_route_configs", ()):
                    found[pod, item["route_config"]["name"]] = item["version_info"]
        return found

    before, objects = versions(), mesh.objects()
    one = {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": {"mode": "SIMPLE"}}
    bad = policy("Gateway", "secure", selector={"istio": "ingressgateway"}, servers=[one])
    with pytest.raises(LabError, match=r"Gateway default/secure: .* plain HTTP"):
        mesh.apply([subsets("reviews"), route_all("reviews", "v3"), bad])
    assert mesh.objects() == objects
    assert reviews_versions(mesh, 12) != {"reviews-v3"}  # by chance once in half a million runs
    assert versions() == before


def test_what_is_refused_with_a_policy_is_not_in_the_node_s_rules_either(mesh: Sandbox) -> None:
    with pytest.raises(LabError, match="Sidecar default/x"):
        mesh.apply([echo("details"), policy("Sidecar", "x")])
    assert b"10.96.222.1" not in mesh.run("node", ["iptables-nft-save"]).stdout


def test_no_request_fails_while_a_route_moves_to_a_new_subset(mesh: Sandbox) -> None:
    """As with istiod, a proxy knows a cluster before a route names it."""
    (reviews,) = [item for item in mesh.objects() if (item["kind"], item["metadata"]["name"]) == ("Service", "reviews")]
    ended, statuses = threading.Event(), []

    def ask() -> None:
        while not ended.is_set():
            host = {"Host": "reviews:9080"}
            statuses.append(fetch(mesh, "productpage", reviews["spec"]["clusterIP"], 9080, "/health", host)[0])

    def more(number: int) -> bool:
        enough = len(statuses) + number
        return eventually(lambda: len(statuses) > enough)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(4):
            assert more(20)
            mesh.apply([subsets("reviews"), route_all("reviews", "v3")])
            assert more(60)
            mesh.delete("VirtualService", "default", "reviews")
            assert more(60)
            mesh.delete("DestinationRule", "default", "reviews")
    finally:
        ended.set()
        asking.join(timeout=20)
    assert len(statuses) > 500
    assert set(statuses) == {200}


def listening_ports(mesh: Sandbox, target: Target) -> set[tuple[str, int]]:
    """(address, port) of every listening TCP socket of a target's network namespace, from /proc/net/tcp."""
    found = set()
    for line in mesh.run(target, ["cat", "/proc/net/tcp"]).stdout.decode().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            address, port = local.split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def test_a_meshed_pod_and_the_gateway_listen_on_istio_s_ports(mesh: Sandbox) -> None:
    own = {("0.0.0.0", number) for number in (15001, 15006, 15020, 15021, 15090)} | {("127.0.0.1", 15000)}
    assert listening_ports(mesh, mesh.target("details")) >= own
    assert {port for _, port in listening_ports(mesh, mesh.target("details"))} == {port for _, port in own} | {9080}
    gateway = listening_ports(mesh, mesh.target("istio-ingressgateway"))
    assert gateway == {("0.0.0.0", number) for number in (8080, 15020, 15021, 15090)} | {("127.0.0.1", 15000)}


def test_the_admin_answers_inside_the_pod_and_not_outside(mesh: Sandbox) -> None:
    assert admin(mesh, "productpage", "/server_info")["state"] == "LIVE"
    # At the gateway nothing is redirected: the kernel refuses.
    with pytest.raises(ConnectionRefusedError):
        fetch(mesh, "node", address_of(mesh, "istio-ingressgateway"), 15000, "/server_info")
    # In a meshed pod the connection is redirected; its own proxy finds nobody at podIP:15000.
    status, body = fetch(
        mesh, "node", address_of(mesh, "productpage"), 15000, "/server_info", {"User-Agent": "outside"}
    )
    assert status == 503
    assert "upstream connect error" in body
    (line,) = logged(mesh, "productpage", user_agent="outside")
    assert line["upstream_cluster"] == "InboundPassthroughCluster"
    assert line["response_flags"] == "URX,UF"  # connecting failed, and so did the two retries


@pytest.mark.parametrize("app", ["productpage", "istio-ingressgateway"])
def test_health_and_metrics_answer_from_outside(mesh: Sandbox, app: str) -> None:
    address = address_of(mesh, app)
    assert fetch(mesh, "node", address, 15021, "/healthz/ready")[0] == 200
    assert fetch(mesh, "node", address, 15020, "/healthz/ready")[0] == 200
    status, text = fetch(mesh, "node", address, 15090, "/stats/prometheus")
    assert status == 200
    assert "envoy_server_live 1" in text.replace("{} ", " ")
    assert fetch(mesh, "node", address, 15090, "/config_dump")[0] == 404
    assert fetch(mesh, "node", address, 15021, "/config_dump")[0] == 404


def test_an_unknown_destination_passes_through(mesh: Sandbox) -> None:
    node = mesh.topology().hosts[0].address
    with Application(mesh, mesh.target("node"), 7777) as outside:
        assert fetch(mesh, "productpage", node, 7777, "/any") == (200, "echo")
    ((peer, header),) = outside.seen
    assert peer == address_of(mesh, "productpage")
    assert "x-request-id" not in header  # bytes, to the proxy
    (line,) = logged(mesh, "productpage", upstream_host=f"{node}:7777")
    assert (line["upstream_cluster"], line["response_flags"]) == ("PassthroughCluster", "-")


def test_an_unknown_host_on_a_known_port_passes_through_as_http(mesh: Sandbox) -> None:
    node = mesh.topology().hosts[0].address
    with Application(mesh, mesh.target("node"), 9080) as outside:
        assert fetch(mesh, "productpage", node, 9080, "/any", {"Host": "example.test"}) == (200, "echo")
    ((_, header),) = outside.seen
    assert header["x-request-id"][14] == "9"
    (line,) = logged(mesh, "productpage", authority="example.test")
    assert (line["upstream_cluster"], line["route_name"]) == ("PassthroughCluster", "allow_any")


def test_a_path_without_a_route_is_answered_by_the_gateway_and_said_so(mesh: Sandbox) -> None:
    status, header, _ = requests.get(mesh, "/nowhere", {"User-Agent": "lost"})
    assert (status, header["server"]) == (404, "istio-envoy")
    (line,) = logged(mesh, "istio-ingressgateway", user_agent="lost")
    assert (line["response_flags"], line["response_code_details"]) == ("NR", "route_not_found")
    assert (line["upstream_cluster"], line["upstream_host"]) == (None, None)


def test_an_application_that_does_not_listen_is_named_by_its_own_proxy_s_flags(mesh: Sandbox) -> None:
    mesh.apply([echo("details"), way_to_echo()])

    def sent() -> dict[str, Any]:
        agent = f"nobody {time.monotonic_ns()}"
        requests.get(mesh, "/echo", {"User-Agent": agent})
        return logged(mesh, "istio-ingressgateway", user_agent=agent)[-1]

    try:
        assert eventually(lambda: sent()["response_code_details"] == "via_upstream")
        line = sent()
        assert (line["response_code"], line["response_flags"]) == (503, "-")  # the gateway was answered
        (inbound,) = logged(mesh, "details", request_id=line["request_id"])
        assert (inbound["response_code"], inbound["response_flags"]) == (503, "URX,UF")
    finally:
        mesh.delete("VirtualService", "default", "echo")
        mesh.delete("Service", "default", "echo")


def test_the_article_s_ingress_tells_an_application_what_the_article_shows(article: Sandbox) -> None:
    (ingress,) = [item for item in article.objects() if item["kind"] == "Ingress"]
    service = topology.service(
        "echo", "default", "10.68.222.1", [{"name": "http", "port": ECHO_PORT}], selector={"app": "productpage"}
    )
    backend = {"backend": {"serviceName": "echo", "servicePort": ECHO_PORT}}
    article.apply([service, ingress | {"spec": backend}])
    try:
        with Application(article, article.target("productpage"), ECHO_PORT) as application:
            assert eventually(lambda: requests.get(article, "/productpage")[2] == b"echo")
            application.seen.clear()
            requests.get(article, "/any/path?at=all", {"Cookie": "user=jason"})
            ((peer, header),) = application.seen
    finally:
        article.apply([ingress])
        article.delete("Service", "default", "echo")
    assert peer == address_of_ingress(article)
    assert header["x-forwarded-for"] == "192.168.3.24"
    assert header["x-forwarded-proto"] == "http"
    assert header["x-envoy-internal"] == "true"
    assert header["x-envoy-decorator-operation"] == "default-route"
    assert header["x-request-id"][14] == "9"
    assert header["x-b3-traceid"] == header["traceparent"].split("-")[1]


def address_of_ingress(article: Sandbox) -> str:
    (pod,) = [item for item in article.objects() if item["kind"] == "Pod" and "ingress" in item["metadata"]["name"]]
    return str(pod["status"]["podIP"])


@pytest.mark.parametrize("path", ["/productpage", "/any/path", "/"])
def test_the_article_s_route_sends_any_path_to_productpage(article: Sandbox, path: str) -> None:
    assert eventually(lambda: requests.get(article, "/productpage")[0] == 200)
    agent = f"any {path}"
    status = requests.get(article, path, {"User-Agent": agent})[0]
    assert status == (200 if path in ("/productpage", "/") else 404)
    lines = logged(article, "ingress", user_agent=agent)
    assert [line["upstream_host"] for line in lines] == ["172.20.100.168:9080"]
    assert [line["upstream_cluster"] for line in lines] == ["out.productpage.default.svc.cluster.local|http"]
    assert [line["response_flags"] for line in lines] == ["-"]


def test_the_article_s_admin_is_on_loopback_alone_and_its_ingress_on_port_80(article: Sandbox) -> None:
    target = article.target("ingress")
    assert listening_ports(article, target) == {("0.0.0.0", 80), ("127.0.0.1", 15000)}
    with pytest.raises(ConnectionRefusedError):
        fetch(article, "node", address_of_ingress(article), 15000, "/")
