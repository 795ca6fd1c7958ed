"""What Istio's rules promise in a meshed pod, asked of the kernel: who is redirected, who is not, and why no loop."""

import json
from collections.abc import Iterator

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import Sandbox, scenarios

pytestmark = pytest.mark.sandbox

NOWHERE = ("10.244.77.77", 4321)  # a pod address that no pod has
CONNECT = """
import socket, sys
host, port, mark = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
own = socket.socket()
own.settimeout(1)
if mark:
    own.setsockopt(socket.SOL_SOCKET, 36, mark)
try:
    own.connect((host, port))
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
GET = """
import sys, urllib.request, urllib.error
try:
    reply = urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers={"User-Agent": sys.argv[2]}), timeout=5)
except urllib.error.HTTPError as error:
    reply = error
print(reply.status, reply.headers.get("server", ""))
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Sandbox]:
    made = sandbox.up(scenarios.scenario("sidecar"), "interception", keep=False)
    yield made
    made.down()


def python(mesh: Sandbox, code: str, *arguments: str, uid: int | None = None) -> str:
    """What the code prints in productpage's application container."""
    done = mesh.run("productpage", ["python", "-c", code, *arguments], uid=uid)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def attempt(mesh: Sandbox, address: tuple[str, int], *, as_proxy: bool = False) -> str:
    """Connect from the pod as the application or as the proxy would; the outcome's name."""
    by_mark = mesh.users == "single"
    mark, uid = (0x539 if by_mark else 0, None if by_mark else 1337) if as_proxy else (0, None)
    return python(mesh, CONNECT, address[0], str(address[1]), str(mark), uid=uid)


def address_of(mesh: Sandbox, app: str) -> str:
    pods = [item for item in mesh.objects() if item["kind"] == "Pod" and item["metadata"]["labels"].get("app") == app]
    return str(pods[0]["status"]["podIP"])


def logged(mesh: Sandbox, agent: str) -> list[dict[str, str]]:
    """productpage's proxy's access-log lines of requests with this User-Agent."""
    text = mesh.logs(mesh.target("productpage", "istio-proxy"))
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line["user_agent"] == agent]


def test_an_application_reaches_envoy_even_for_an_address_that_nobody_has(mesh: Sandbox) -> None:
    assert attempt(mesh, NOWHERE) == "connected"


def test_the_proxy_itself_is_not_redirected(mesh: Sandbox) -> None:
    assert attempt(mesh, NOWHERE, as_proxy=True) != "connected"
    assert attempt(mesh, (address_of(mesh, "details"), 9080), as_proxy=True) == "connected"


def test_what_comes_from_outside_meets_envoy_before_the_application(mesh: Sandbox) -> None:
    url = f"http://{address_of(mesh, 'productpage')}:9080/health"
    done = mesh.run("node", ["python", "-c", GET, url, "from-the-node"])
    assert done.stdout.decode().split() == ["200", "istio-envoy"]
    assert [line["upstream_cluster"] for line in logged(mesh, "from-the-node")] == ["inbound|9080||"]


def test_the_health_port_is_left_alone(mesh: Sandbox) -> None:
    url = f"http://{address_of(mesh, 'productpage')}:15021/healthz/ready"
    assert mesh.run("node", ["python", "-c", GET, url, "probe"]).stdout.split()[0] == b"200"
    assert logged(mesh, "probe") == []


def test_an_application_talks_to_itself_on_loopback_without_envoy(mesh: Sandbox) -> None:
    assert "istio-envoy" not in python(mesh, GET, "http://127.0.0.1:9080/health", "on-loopback")
    assert logged(mesh, "on-loopback") == []


def test_a_pod_that_calls_its_own_service_leaves_and_enters_through_its_proxy(mesh: Sandbox) -> None:
    answer = python(mesh, GET, "http://productpage:9080/health", "own-service")
    assert answer.split()[0] == "200"
    clusters = {line["upstream_cluster"] for line in logged(mesh, "own-service")}
    assert clusters == {"outbound|9080||productpage.default.svc.cluster.local", "inbound|9080||"}


def test_a_lookup_is_a_packet_to_the_dns_service(mesh: Sandbox) -> None:
    before = mesh.logs(mesh.target("kube-dns")).count("ratings.default.svc.cluster.local.")
    code = "import socket; print(socket.gethostbyname('ratings'))"
    service = next(
        item for item in mesh.objects() if item["kind"] == "Service" and item["metadata"]["name"] == "ratings"
    )
    assert python(mesh, code) == service["spec"]["clusterIP"]
    assert mesh.logs(mesh.target("kube-dns")).count("ratings.default.svc.cluster.local.") > before


def test_the_pods_rules_are_in_the_pod_and_the_nodes_on_the_node(mesh: Sandbox) -> None:
    in_pod = mesh.run(mesh.target("productpage", "istio-proxy"), ["iptables-nft-save"], uid=0).stdout
    on_node = mesh.run("node", ["iptables-nft-save"]).stdout
    assert b"ISTIO_OUTPUT" in in_pod
    assert b"KUBE-SERVICES" not in in_pod
    assert b"KUBE-SERVICES" in on_node
    assert b"ISTIO_" not in on_node


def test_without_the_rules_that_let_the_proxy_out_one_request_calls_the_proxy_over_and_over() -> None:
    circling = sandbox.up(scenarios.scenario("sidecar"), "circling", keep=False)
    try:
        asking = ["python", "-c", GET.replace("timeout=5", "timeout=2"), "http://ratings:9080/ratings/0", "round"]
        rules = circling.run("details", ["iptables-nft", "-t", "nat", "-S", "ISTIO_OUTPUT"], uid=0).stdout.decode()
        owners = ("-m owner --uid-owner 1337", "-m owner --gid-owner 1337", "-m mark --mark 0x539")
        known = {f"-A ISTIO_OUTPUT {owner} -j RETURN" for owner in owners}
        letting_out = [line.split()[1:] for line in rules.splitlines() if line in known]
        assert letting_out
        for rule in letting_out:
            circling.run("details", ["iptables-nft", "-t", "nat", "-D", *rule], uid=0)
        assert circling.run("details", asking).returncode != 0
        assert connections_out(circling, "details") > 1000
    finally:
        circling.down()


def test_with_them_one_request_calls_the_proxy_once(mesh: Sandbox) -> None:
    before = connections_out(mesh, "details")
    done = mesh.run("details", ["python", "-c", GET, "http://ratings:9080/ratings/0", "once"])
    assert done.stdout.split()[0] == b"200"
    assert connections_out(mesh, "details") - before == 1


def connections_out(mesh: Sandbox, app: str) -> int:
    """How many connections the proxy of ``app`` has taken on its outbound side for Bookinfo's port."""
    asked = ["pilot-agent", "request", "GET", "stats?filter=^listener.0.0.0.0_9080.downstream_cx_total$"]
    return int(mesh.run(mesh.target(app, "istio-proxy"), asked).stdout.split()[-1])
