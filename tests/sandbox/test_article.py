"""The article's checklist on scenario `article`: services, addresses, ports, rules, processes, sockets, the page."""

import json
import re
from collections.abc import Iterator

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.kube.owners import who_is
from bookinfo_lab.netfilter import node as node_netfilter
from bookinfo_lab.netfilter.settings import Settings
from bookinfo_lab.sandbox import Sandbox, requests, scenarios, topology
from bookinfo_lab.sandbox.topology import Object

pytestmark = pytest.mark.sandbox
INGRESS, PAGE = "istio-ingress-57b544fd9c-qr7sb", "productpage-v1-68b86cf77b-s5d4t"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Sandbox]:
    made = sandbox.up(scenarios.scenario("article"), "article-checklist", keep=False)
    yield made
    made.down()


def the(mesh: Sandbox, kind: str, name: str) -> Object:
    return next(item for item in mesh.objects() if item["kind"] == kind and item["metadata"]["name"] == name)


def output(mesh: Sandbox, target: str, *argv: str) -> str:
    done = mesh.run(target, argv)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def counted(mesh: Sandbox) -> dict[str, int]:
    """Packets that each nat rule of the node has seen, by its text."""
    text = output(mesh, "node", "iptables-nft-save", "-c", "-t", "nat")
    return {rule: int(packets) for packets, rule in re.findall(r"^\[(\d+):\d+\] (-A .*)$", text, re.MULTILINE)}


def test_the_ingress_service_is_the_articles(mesh: Sandbox) -> None:
    service = the(mesh, "Service", "istio-ingress")
    spec = service["spec"]
    assert service["metadata"]["namespace"] == "istio-system"
    assert (spec["type"], spec["clusterIP"], spec["selector"]) == ("LoadBalancer", "10.68.93.55", {"istio": "ingress"})
    assert [(port["port"], port["nodePort"], port["protocol"]) for port in spec["ports"]] == [
        (80, 6259, "TCP"),
        (443, 4852, "TCP"),
    ]
    assert service["status"]["loadBalancer"] == {}  # what kubectl prints as <pending>


def test_the_node_and_the_ranges_are_the_articles(mesh: Sandbox) -> None:
    node = the(mesh, "Node", "192.168.3.24")
    assert {"type": "InternalIP", "address": "192.168.3.24"} in node["status"]["addresses"]
    assert "inet 192.168.3.24/" in output(mesh, "node", "ip", "-4", "addr", "show", "dev", "eth0")
    for item in mesh.objects():
        if item["kind"] == "Service":
            assert item["spec"]["clusterIP"].startswith("10.68.")
        if item["kind"] == "Pod":
            assert item["status"]["podIP"].startswith("172.20.")


@pytest.mark.parametrize(("name", "address"), [(INGRESS, "172.20.100.164"), (PAGE, "172.20.100.168")])
def test_the_pods_the_article_names_are_ready_at_their_addresses(mesh: Sandbox, name: str, address: str) -> None:
    pod = the(mesh, "Pod", name)
    assert [status["ready"] for status in pod["status"]["containerStatuses"]] == [True]
    assert (pod["status"]["podIP"], pod["spec"]["nodeName"]) == (address, "192.168.3.24")
    assert f"inet {address}/32" in output(mesh, name, "ip", "-4", "addr", "show", "dev", "eth0")
    first = who_is(address, mesh.objects())[0]
    assert (first.kind, first.name) == ("Pod", name)


def test_six_application_pods_listen_on_9080_and_none_has_a_sidecar(mesh: Sandbox) -> None:
    pods = [item for item in mesh.objects() if item["kind"] == "Pod" and item["metadata"]["namespace"] == "default"]
    assert sorted(pod["metadata"]["labels"]["app"] for pod in pods) == [
        *("details", "productpage", "ratings", "reviews", "reviews", "reviews")
    ]
    for pod in pods:
        assert len(topology.containers(pod)) == 1
        listening = output(mesh, pod["metadata"]["name"], "ss", "-Htln")
        assert re.search(r"0\.0\.0\.0:9080\s", listening)
        assert "1500" not in listening


def test_the_articles_url_answers_with_the_page(mesh: Sandbox) -> None:
    status, _, body = requests.get(mesh, "/productpage", {"Cookie": "user=jason"})
    assert topology.front_door(mesh.topology(), mesh.objects()) == ("192.168.3.24", 6259)
    assert status == 200
    for word in (b"The Comedy of Errors", b"jason", b"Reviewer1"):
        assert word in body


def test_the_node_ports_rules_lead_to_the_articles_chains_and_endpoint(mesh: Sandbox) -> None:
    rules = output(mesh, "node", "iptables-nft-save", "-t", "nat").splitlines()
    what = '-m comment --comment "istio-system/istio-ingress:http"'
    assert [line for line in rules if "--dport 6259" in line] == [
        f"-A KUBE-NODEPORTS -p tcp {what} -m tcp --dport 6259 -j KUBE-MARK-MASQ",
        f"-A KUBE-NODEPORTS -p tcp {what} -m tcp --dport 6259 -j KUBE-SVC-JSIH6CCNAROIS6ON",
    ]
    assert f"-A KUBE-SVC-JSIH6CCNAROIS6ON {what} -j KUBE-SEP-XMEMPNNJN7A5AOTI" in rules
    to = "-j DNAT --to-destination 172.20.100.164:80"
    assert f"-A KUBE-SEP-XMEMPNNJN7A5AOTI -p tcp {what} -m tcp {to}" in rules


def test_todays_layout_of_the_same_service_goes_through_an_ext_chain(mesh: Sandbox) -> None:
    text = node_netfilter.rules(mesh.objects(), "192.168.3.24", Settings("172.20.0.0/16", layout="today"))
    what = '-m comment --comment "istio-system/istio-ingress:http"'
    assert f"-A KUBE-NODEPORTS -p tcp {what} -m tcp --dport 6259 -j KUBE-EXT-JSIH6CCNAROIS6ON" in text
    assert "-A KUBE-EXT-JSIH6CCNAROIS6ON -j KUBE-SVC-JSIH6CCNAROIS6ON" in text


def test_one_request_is_counted_once_by_every_rule_of_that_walk(mesh: Sandbox) -> None:
    before = counted(mesh)
    assert requests.get(mesh, "/productpage")[0] == 200
    after = counted(mesh)
    walked = [rule for rule in after if "istio-ingress:http" in rule and after[rule] > before.get(rule, 0)]
    assert {rule.split()[1] for rule in walked} == {
        *("KUBE-NODEPORTS", "KUBE-SVC-JSIH6CCNAROIS6ON", "KUBE-SEP-XMEMPNNJN7A5AOTI")
    }
    assert all(after[rule] == before[rule] + 1 for rule in walked)


def test_the_ingress_container_runs_pilot_agent_and_envoy(mesh: Sandbox) -> None:
    lines = output(mesh, INGRESS, "ps", "-eo", "pid,ppid,args").splitlines()[1:]
    first, second = lines[0].split(None, 2), lines[1].split(None, 2)
    assert first[:2] == ["1", "0"]
    assert first[2].startswith("/usr/local/bin/pilot-agent proxy ingress")
    assert second[1] == "1"
    assert re.match(r"/usr/local/bin/envoy -c /etc/istio/proxy/\S+\.json .*--drain-time-s", second[2])
    assert output(mesh, INGRESS, "readlink", f"/proc/{second[0]}/exe").strip().endswith("/envoy")


def test_the_productpage_container_runs_a_shell_and_python(mesh: Sandbox) -> None:
    lines = output(mesh, PAGE, "ps", "-eo", "pid,ppid,args").splitlines()[1:]
    assert lines[0].split(None, 2)[2].startswith("/bin/sh -c python productpage.py 9080")
    assert lines[1].split(None, 2)[1:] == ["1", "python productpage.py 9080"]
    assert "envoy" not in "".join(lines)


def test_envoy_owns_the_two_listening_sockets(mesh: Sandbox) -> None:
    lines = output(mesh, INGRESS, "ss", "-Htlnp").splitlines()
    found = {line.split()[3]: line for line in lines}
    assert set(found) == {"0.0.0.0:80", "127.0.0.1:15000"}
    assert all('"envoy"' in line for line in found.values())


def test_the_admin_answers_inside_and_is_refused_outside(mesh: Sandbox) -> None:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:15000/server_info').status)"
    assert output(mesh, INGRESS, "python", "-c", code).strip() == "200"
    for source in ("node", "client", PAGE):
        with mesh.open_socket(mesh.target(source)) as sender:
            sender.settimeout(2)
            if source != "client":  # the LAN knows no way to a pod
                with pytest.raises(ConnectionRefusedError):
                    sender.connect(("172.20.100.164", 15000))


def test_the_admins_node_port_is_made_refused_and_removed(mesh: Sandbox) -> None:
    selector = {"istio": "ingress", "pod-template-hash": "1361009857"}
    port = {"port": 15000, "targetPort": 15000, "nodePort": 3576}
    made = topology.service(INGRESS, "istio-system", "10.68.228.16", [port], selector=selector, kind="NodePort")
    mesh.apply([made])
    assert "--to-destination 172.20.100.164:15000" in output(mesh, "node", "iptables-nft-save", "-t", "nat")
    with mesh.open_socket(mesh.target("client")) as sender:
        sender.settimeout(2)
        with pytest.raises(ConnectionRefusedError):  # translated, then answered by RST: nobody listens at the pod's IP
            sender.connect(("192.168.3.24", 3576))
    translated = [rule for rule, packets in counted(mesh).items() if "172.20.100.164:15000" in rule and packets]
    assert len(translated) == 1
    mesh.delete("Service", "istio-system", INGRESS)
    assert "172.20.100.164:15000" not in output(mesh, "node", "iptables-nft-save", "-t", "nat")
    assert requests.get(mesh, "/productpage")[0] == 200


def test_the_bootstrap_of_2017_lies_there_and_envoy_reads_another(mesh: Sandbox) -> None:
    document = json.loads(output(mesh, INGRESS, "cat", "/etc/istio/proxy/envoy-rev8.json"))
    assert document["listeners"] == []
    assert document["admin"]["address"] == "tcp://127.0.0.1:15000"
    assert document["lds"]["refresh_delay_ms"] == document["cluster_manager"]["cds"]["refresh_delay_ms"] == 1000
    hosts = {item["name"]: item["hosts"][0]["url"] for item in document["cluster_manager"]["clusters"]}
    assert hosts == {"rds": "tcp://istio-pilot:15003", "lds": "tcp://istio-pilot:15003", "zipkin": "tcp://zipkin:9411"}
    assert document["statsd_udp_ip_address"] == "10.68.159.137:9125"
    assert "-c /etc/istio/proxy/envoy-rev0.json" in output(mesh, INGRESS, "ps", "-eo", "args")
