import json
import re

import pytest

from bookinfo_lab.errors import Incomplete, LabError
from bookinfo_lab.netfilter import kube_proxy, node
from bookinfo_lab.netfilter.comparable import comparable
from bookinfo_lab.netfilter.kube_proxy import Settings

PODS = Settings("10.244.0.0/16")
HERE, THERE = ("10.244.0.2", "lab-0", "ready"), ("10.244.1.2", "lab-1", "ready")


def chains(text, table="nat"):
    """The rules of each chain of ``table``, in order."""
    body = text.split(f"*{table}\n", 1)[1].split("COMMIT", 1)[0]
    found = {line[1:].split()[0]: [] for line in body.splitlines() if line.startswith(":")}
    for line in body.splitlines():
        if line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            found[chain].append(rule)
    return found


def of_kind(text, prefix):
    """The rules of the one chain whose name starts with ``prefix``."""
    (rules,) = (rules for chain, rules in chains(text).items() if chain.startswith(prefix))
    return rules


@pytest.mark.data
@pytest.mark.parametrize("name", ["iptables", "istio"])
@pytest.mark.parametrize("host", ["lab-0", "lab-1"])
def test_a_nodes_rules_are_those_of_an_upstream_kube_proxy_and_kubelet(recorded, name, host):
    objects = json.loads(recorded(f"cluster/{name}/objects.json"))
    saved = recorded(f"cluster/{name}/{host}.iptables-save")
    assert comparable(node.rules(objects, host, PODS)) == comparable(saved)


@pytest.mark.data
def test_another_clusters_services_are_a_difference(recorded):
    objects = json.loads(recorded("cluster/iptables/objects.json"))
    saved = comparable(recorded("cluster/iptables/lab-0.iptables-save"))
    assert comparable(node.rules(objects, "lab-1", PODS)) != saved
    assert comparable(node.rules(objects, "lab-0", Settings("10.244.0.0/24"))) != saved
    ports = [port for item in objects["items"] if item["kind"] == "Service" for port in item["spec"].get("ports", ())]
    assert len(ports) > 150
    ports[97]["port"] ^= 1
    assert comparable(node.rules(objects, "lab-0", PODS)) != saved


def test_the_order_of_the_objects_changes_nothing(api):
    objects = [
        api.node(),
        api.service("b"),
        api.service("a", type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]),
        api.endpoints(HERE, THERE, service="a", name="a-1"),
        api.endpoints(HERE, service="b", name="b-1"),
    ]
    assert node.rules(objects, "lab-0", PODS) == node.rules(objects[::-1], "lab-0", PODS)


@pytest.mark.parametrize(
    "changes",
    [
        {"clusterIP": "None"},
        {"clusterIP": None},
        {"clusterIP": "fd00::7"},
        {"type": "ExternalName", "externalName": "example.com", "clusterIP": None},
    ],
)
def test_a_service_without_an_ipv4_cluster_ip_has_no_rules(api, changes):
    service = api.service(**changes)
    assert kube_proxy.rules([api.node(), service, api.endpoints(HERE)], "lab-0", PODS) == kube_proxy.rules(
        [api.node()], "lab-0", PODS
    )


@pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])
def test_a_service_of_another_proxy_has_no_rules(api, label):
    service = api.service()
    service["metadata"]["labels"] = {label: ""}
    assert "shop/web" not in kube_proxy.rules([api.node(), service, api.endpoints(HERE)], "lab-0", PODS)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ([HERE, THERE], ["10.244.0.2", "10.244.1.2"]),
        ([("10.244.0.2", "lab-0", "ending"), THERE], ["10.244.1.2"]),
        ([("10.244.0.2", "lab-0", "ending"), ("10.244.1.2", "lab-1", "down")], ["10.244.0.2"]),
        ([("10.244.0.2", "lab-0", "down")], []),
        ([HERE, {"addresses": [], "nodeName": "lab-0"}], ["10.244.0.2"]),
    ],
)
def test_ready_endpoints_are_used_and_ending_ones_only_where_none_is_ready(api, given, used):
    text = kube_proxy.rules([api.node(), api.service(), api.endpoints(*given)], "lab-0", PODS)
    assert sorted(re.findall(r"--to-destination ([\d.]+):8080", text)) == used
    assert ("has no endpoints" in text) == (not used)


def test_local_policy_falls_back_to_ending_endpoints_on_its_own(api):
    service = api.service(internalTrafficPolicy="Local")
    text = kube_proxy.rules(
        [api.node(), service, api.endpoints(("10.244.0.2", "lab-0", "ending"), THERE)], "lab-0", PODS
    )
    assert [rule for rule in of_kind(text, "KUBE-SVL-") if "->" in rule] == [
        f'-m comment --comment "shop/web:http -> 10.244.0.2:8080" -j {next(c for c in chains(text) if "-SEP-" in c)}'
    ]


def test_an_address_given_again_counts_once_and_the_running_pod_wins(api):
    ending = api.endpoints(("10.244.0.2", "lab-0", "ending"), name="web-old")
    for slices in ([ending, api.endpoints(HERE)], [api.endpoints(HERE), ending]):
        text = kube_proxy.rules([api.node(), api.service(), *slices], "lab-0", PODS)
        assert sum(chain.startswith("KUBE-SEP-") for chain in chains(text)) == 1
        assert "has no endpoints" not in text


def hinted(address, *, zones=(), nodes=()):
    hints = {"forZones": [{"name": zone} for zone in zones], "forNodes": [{"name": name} for name in nodes]}
    return {"addresses": [address], "nodeName": "lab-1", "hints": hints}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ([hinted("10.244.1.2", zones=["a"]), hinted("10.244.1.3", zones=["b"])], ["10.244.1.2"]),
        ([hinted("10.244.1.2", zones=["b"]), hinted("10.244.1.3", zones=["b"])], ["10.244.1.2", "10.244.1.3"]),
        ([hinted("10.244.1.2", zones=["a"]), hinted("10.244.1.3")], ["10.244.1.2", "10.244.1.3"]),
        (
            [hinted("10.244.1.2", zones=["a"], nodes=["lab-1"]), hinted("10.244.1.3", zones=["b"], nodes=["lab-0"])],
            ["10.244.1.3"],
        ),
    ],
)
def test_topology_hints_narrow_the_endpoints_where_all_have_one_and_one_is_for_this_node(api, given, used):
    here = api.node(**{"topology.kubernetes.io/zone": "a"})
    text = kube_proxy.rules([here, api.service(), api.endpoints(*given)], "lab-0", PODS)
    assert sorted(re.findall(r"--to-destination ([\d.]+):8080", text)) == used


def test_comments_of_endpoints_vanish_above_a_thousand_endpoints(api):
    many = [(f"10.244.{index // 250}.{index % 250}", "lab-0", "ready") for index in range(1001)]
    below, above = (
        kube_proxy.rules([api.node(), api.service(), api.endpoints(*many[:count])], "lab-0", PODS)
        for count in (1000, 1001)
    )
    assert "shop/web:http -> " in below
    assert "shop/web:http -> " not in above
    assert "-p tcp -m tcp -j DNAT --to-destination 10.244.0.0:8080" in above
    assert '"shop/web:http cluster IP"' in above


def load_balancer(api, **spec):
    ports = [{"name": "http", "port": 80}]
    service = api.service(type="LoadBalancer", ports=ports, ingress=[{"ip": "198.51.100.1"}], **spec)
    return kube_proxy.rules([api.node(), service, api.endpoints(HERE)], "lab-0", PODS)


def test_source_ranges_that_hold_the_node_let_its_own_requests_in(api):
    outside = of_kind(load_balancer(api, loadBalancerSourceRanges=["203.0.113.0/24"]), "KUBE-FW-")
    inside = of_kind(load_balancer(api, loadBalancerSourceRanges=["172.18.0.0/16"]), "KUBE-FW-")
    assert [rule.split()[1] for rule in outside[:-1]] == ["203.0.113.0/24"]
    assert [rule.split()[1] for rule in inside[:-1]] == ["172.18.0.0/16", "198.51.100.1/32"]
    assert "will be dropped by KUBE-PROXY-FIREWALL" in outside[-1]


@pytest.mark.parametrize("ranges", [[], ["0.0.0.0/0"], ["203.0.113.0/24", "0.0.0.0/0"], ["fd00::/8"]])
def test_source_ranges_that_hold_everyone_make_no_firewall(api, ranges):
    text = load_balancer(api, loadBalancerSourceRanges=ranges)
    assert "KUBE-FW-" not in text
    assert '-d 198.51.100.1/32 -p tcp -m comment --comment "shop/web:http loadbalancer IP"' in text


def test_a_load_balancer_in_proxy_mode_has_no_rules(api):
    service = api.service(type="LoadBalancer", ingress=[{"ip": "198.51.100.1", "ipMode": "Proxy"}])
    assert "198.51.100.1" not in kube_proxy.rules([api.node(), service, api.endpoints(HERE)], "lab-0", PODS)


@pytest.fixture
def exposed(api):
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    local = api.service(type="NodePort", ports=ports, externalTrafficPolicy="Local")
    return [api.node(), local, api.endpoints(HERE)]


def test_without_accounting_objects_no_rule_counts_with_one(exposed):
    text = kube_proxy.rules(exposed, "lab-0", Settings("10.244.0.0/16", nfacct=False))
    assert "nfacct" not in text
    assert "-m conntrack --ctstate INVALID -j DROP" in chains(text, "filter")["KUBE-FORWARD"]
    assert len(chains(text)["KUBE-NODEPORTS"]) == 1


@pytest.mark.parametrize("liberal", [False, True])
@pytest.mark.parametrize("localhost", [False, True])
@pytest.mark.parametrize("nfacct", [False, True])
@pytest.mark.parametrize("layout", ["today", "2017"])
def test_the_accounting_objects_are_those_that_the_rules_name(exposed, layout, nfacct, localhost, liberal):
    settings = Settings("10.244.0.0/16", nfacct, layout, localhost_nodeports=localhost, conntrack_tcp_liberal=liberal)
    text = kube_proxy.rules(exposed, "lab-0", settings)
    assert set(re.findall(r"--nfacct-name  (\S+)", text)) == set(kube_proxy.accounting_objects(settings))


def test_without_a_cluster_cidr_no_rule_tells_pods_from_others(exposed):
    text = kube_proxy.rules(exposed, "lab-0", Settings(""))
    assert "! -s" not in text
    assert "pod traffic for" not in text
    assert "pod traffic for" in kube_proxy.rules(exposed, "lab-0", PODS)


def test_masquerade_all_marks_every_packet_to_a_cluster_ip(exposed):
    text = kube_proxy.rules(exposed, "lab-0", Settings("10.244.0.0/16", masquerade_all=True))
    first = of_kind(text, "KUBE-SVC-")[0]
    assert first.startswith("-d 10.96.0.7/32 -p tcp")
    assert first.endswith("-j KUBE-MARK-MASQ")


def test_without_localhost_node_ports_the_last_rule_leaves_loopback_out(exposed):
    text = kube_proxy.rules(exposed, "lab-0", Settings("10.244.0.0/16", localhost_nodeports=False))
    assert chains(text)["KUBE-SERVICES"][-1].startswith("! -d 127.0.0.0/8 -m comment")
    assert "localhost_nps_accepted_pkts" not in text


def test_the_masquerade_bit_is_the_mark_everywhere(exposed):
    text = node.rules(exposed, "lab-0", Settings("10.244.0.0/16", masquerade_bit=9))
    assert "0x4000" not in text
    assert text.count("0x200/0x200") == 3
    assert "--set-xmark 0x200/0x0" in text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cluster_cidr": "10.244.0.0/33"}, "cluster CIDR: .* give the pods' IPv4 range"),
        ({"cluster_cidr": "10.244.0.1/16"}, "has host bits set"),
        ({"cluster_cidr": "0.0.0.0/0"}, "holds every address"),
        ({"cluster_cidr": "fd00::/8"}, "cluster CIDR"),
        ({"cluster_cidr": "", "masquerade_bit": 32}, "masquerade bit 32"),
        ({"cluster_cidr": "", "layout": "2016"}, "'2016' is not a layout"),
    ],
)
def test_a_setting_that_no_kube_proxy_takes_is_refused(values, said):
    with pytest.raises(LabError, match=said) as caught:
        Settings(**values)
    assert "\n" not in str(caught.value)


def test_an_unknown_node_is_refused(exposed):
    with pytest.raises(Incomplete, match="no Node named 'lab-9'"):
        kube_proxy.rules(exposed, "lab-9", PODS)


def test_an_endpoint_whose_address_is_of_another_family_than_its_slice_says_is_refused(api):
    with pytest.raises(LabError, match=r"EndpointSlice shop/web-1: 'fd00::2' is not an IPv4 address"):
        kube_proxy.rules([api.node(), api.service(), api.endpoints(("fd00::2", "lab-0", "ready"))], "lab-0", PODS)
