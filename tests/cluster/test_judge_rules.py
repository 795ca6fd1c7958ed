"""The real kube-proxy and the node's own kernel as judges: of the rule writer, and of walks through real rules."""

import copy
import difflib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import judge_cluster
import judge_walks
import judge_watch
import pytest
from bed import Bed
from judge_cluster import World
from judge_services import ZONES
from judge_walks import Run

from bookinfo_lab.kube.parse import parse
from bookinfo_lab.netfilter import chain_names, explain
from bookinfo_lab.netfilter import node as nodes
from bookinfo_lab.netfilter.comparable import comparable
from bookinfo_lab.netfilter.kube_proxy import Settings
from bookinfo_lab.netfilter.portals import portals
from bookinfo_lab.netfilter.reachable import reachable

PODS = "10.244.0.0/16"


@pytest.fixture(scope="module")
def world(bed: Bed) -> Iterator[World]:
    if not bed.is_ours:
        pytest.skip("random Services, external IPs and node ports are for a cluster that is the tests' own")
    seed, services, _ = judge_cluster.asked()
    with judge_cluster.judged(bed, seed, services) as made:
        yield made


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Shows a line of figures also where all is well."""

    def shown(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return shown


def written(objects: list[dict[str, Any]], node: str) -> str:
    return comparable(nodes.rules(objects, node, Settings(PODS)))


def first_difference(ours: str, real: str) -> str:
    lines = difflib.unified_diff(real.splitlines(), ours.splitlines(), "kube-proxy", "writer", lineterm="", n=0)
    return "\n".join([*lines][:40])


@pytest.mark.parametrize("at", [0, 1])
def test_the_writer_writes_what_the_real_kube_proxy_wrote_for_random_services(
    world: World, say: Callable[[str], None], at: int
) -> None:
    node = world.ground.nodes[at]
    real, ours = comparable(world.rules(node).text), written(world.objects, node)
    say(f"seed {judge_cluster.asked()[0]}: {world.described}; {node}: {len(real.splitlines())} lines")
    assert len(world.services) > 200
    assert ours == real, first_difference(ours, real)


def specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item["spec"] for item in objects if item["kind"] == "Service"]


def another_port(objects: list[dict[str, Any]]) -> None:
    for spec in specs(objects)[:20]:
        for port in spec.get("ports", ()):
            port["port"] ^= 1


def another_policy(objects: list[dict[str, Any]]) -> None:
    for spec in specs(objects):
        if "externalTrafficPolicy" in spec:
            spec["externalTrafficPolicy"] = "Cluster"


def another_range(objects: list[dict[str, Any]]) -> None:
    for spec in specs(objects):
        if "8.8.8.8/32" in spec.get("loadBalancerSourceRanges", ()):
            spec["loadBalancerSourceRanges"].remove("8.8.8.8/32")


def another_timeout(objects: list[dict[str, Any]]) -> None:
    for spec in specs(objects):
        if spec.get("sessionAffinity") == "ClientIP":
            spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] += 1


def one_less(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        if item["kind"] == "EndpointSlice":
            item["endpoints"] = [one for one in item["endpoints"] or () if one["addresses"] != ["10.244.0.203"]]


def all_ready(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        for one in item.get("endpoints") or ():
            one["conditions"] = {"ready": True}


def another_zone(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        if item["kind"] == "Node":
            item["metadata"]["labels"]["topology.kubernetes.io/zone"] = "south"


@pytest.mark.parametrize(
    "change", [another_port, another_policy, another_range, another_timeout, one_less, all_ready, another_zone]
)
def test_another_wish_than_the_clusters_is_a_difference(
    world: World, change: Callable[[list[dict[str, Any]]], None]
) -> None:
    node = world.ground.nodes[0]
    objects = copy.deepcopy(world.objects)
    change(objects)
    assert objects != world.objects
    assert written(objects, node) != comparable(world.rules(node).text)


@pytest.mark.parametrize("at", [0, 1])
def test_the_product_reads_the_rules_that_the_node_has(world: World, at: int) -> None:
    node = world.ground.nodes[at]
    assert comparable(world.rules(node).text) == comparable(world.on_node(node, "iptables-nft-save"))


@pytest.mark.parametrize("at", [0, 1])
def test_every_rule_of_a_real_node_is_read_and_its_purpose_known(world: World, at: int) -> None:
    rules = world.rules(world.ground.nodes[at]).ruleset
    assert (rules.errors(), rules.unmodelled()) == ((), ())
    said = [explain.rule(rule, rules) for rule in rules.every_rule()]
    assert [text for text in said if " — " not in text] == []


@pytest.mark.parametrize("at", [0, 1])
def test_the_services_read_from_a_nodes_rules_are_the_clusters(world: World, at: int) -> None:
    node = world.ground.nodes[at]
    read = {
        (path.service, path.port_name, path.protocol, path.address, path.port): path
        for path in world.rules(node).services()
        if path.kind != "health-check"
    }
    asked = 0
    for portal in portals(parse(world.objects), node, chain_names.service_port_name):
        service, _, port_name = portal.name.partition(":")
        usable = reachable(portal, node, ZONES[at])
        doors = [(portal.cluster_ip, portal.port, portal.internal_policy_local)]
        outside = (*portal.external_ips, *portal.load_balancer_ips)
        doors += [(address, portal.port, portal.external_policy_local) for address in outside]
        doors += [("", portal.node_port, portal.external_policy_local)] if portal.node_port else []
        for address, port, is_local in doors:
            path = read[service, port_name, portal.protocol, address, port]
            wanted = usable.local if is_local else usable.cluster
            assert sorted(f"{item.ip}:{item.port}" for item in path.endpoints) == [item.text for item in wanted], path
            assert path.policy == ("Local" if is_local else "Cluster") or not usable.any, path
            assert path.affinity_s == portal.affinity_s or not path.ways, path
            assert not path.unclear
            asked += 1
    assert asked > 500


@pytest.fixture(scope="module")
def observed(world: World) -> Run:
    """What the nodes' kernels did with packets to those Services."""
    seed, _, packets = judge_cluster.asked()
    with answering_at_once(world):
        return judge_walks.observed(world, seed, packets)


@contextmanager
def answering_at_once(world: World) -> Iterator[None]:
    """The nodes' kernels send every ICMP error, not one a second."""
    name = "net.ipv4.icmp_ratemask"
    before = {node: world.on_node(node, "sysctl", "-n", name).strip() for node in world.ground.nodes}
    try:
        for node in before:
            world.on_node(node, "sysctl", "-qw", f"{name}=0")
        yield
    finally:
        for node, value in before.items():
            world.on_node(node, "sysctl", "-qw", f"{name}={value}")


# What packets must have met, so that the judgement is about all of it: table, chain, target.
KINDS = {
    "nat KUBE-SERVICES KUBE-SVC",
    "nat KUBE-SERVICES KUBE-SVL",
    "nat KUBE-SERVICES KUBE-EXT",
    "nat KUBE-SERVICES KUBE-FW",
    "nat KUBE-SERVICES KUBE-NODEPORTS",
    "nat KUBE-NODEPORTS KUBE-EXT",
    "nat KUBE-EXT KUBE-MARK-MASQ",
    "nat KUBE-EXT KUBE-SVC",
    "nat KUBE-EXT KUBE-SVL",
    "nat KUBE-FW KUBE-EXT",
    "nat KUBE-SVC KUBE-MARK-MASQ",
    "nat KUBE-SVC KUBE-SEP",
    "nat KUBE-SVC KUBE-SEP by chance",
    "nat KUBE-SVC KUBE-SEP by recent",
    "nat KUBE-SVL KUBE-SEP",
    "nat KUBE-SEP DNAT",
    "nat KUBE-POSTROUTING MASQUERADE",
    "nat KUBE-POSTROUTING RETURN",
    "filter KUBE-SERVICES REJECT",
    "filter KUBE-SERVICES DROP",
    "filter KUBE-EXTERNAL-SERVICES REJECT",
    "filter KUBE-EXTERNAL-SERVICES DROP",
    "filter KUBE-PROXY-FIREWALL DROP",
    "filter KUBE-FORWARD ACCEPT",
}


def test_no_walk_through_a_nodes_real_rules_is_wrong_by_its_kernels_trace(
    observed: Run, say: Callable[[str], None]
) -> None:
    found = judge_walks.judge(observed)
    say(f"seed {judge_cluster.asked()[0]}: {found}")
    assert not found.wrong, "\n".join(found.wrong[:5])
    assert found.packets >= 500
    assert found.skipped.total() < found.packets / 20
    assert found.unknown_share < 0.01
    assert set(found.kinds) >= KINDS, sorted(KINDS - set(found.kinds))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(--to-destination \S+:80)81", r"\g<1>82"),
        (r"(-A KUBE-MARK-MASQ -j MARK) --set-xmark 0x4000/0x4000", r"\1 --set-xmark 0x8000/0x8000"),
        (r"(-A KUBE-EXTERNAL-SERVICES .*)-j DROP", r"\1-j ACCEPT"),
        (r"-j REJECT --reject-with icmp-port-unreachable", "-j REJECT --reject-with icmp-host-unreachable"),
        (r"-j MASQUERADE --random-fully", "-j ACCEPT"),
        (r"! -s 10.244.0.0/16", "! -s 10.245.0.0/16"),
        (r"(-A KUBE-FORWARD .*RELATED,ESTABLISHED) -j ACCEPT", r"\1 -j DROP"),
        (r"--dst-type LOCAL", "--dst-type BROADCAST"),
    ],
)
def test_one_wrong_rule_makes_a_walk_wrong(observed: Run, old: str, new: str) -> None:
    other = {node: re.sub(old, new, text) for node, text in observed.texts.items()}
    assert other != observed.texts
    assert judge_walks.judge(observed, other, most=1).wrong


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("targets.masquerade_address", ip_address("192.0.2.99")),
        ("matching.address_kind", "UNICAST"),
        ("deciding.sysctl", 0),
        ("deciding.way", None),
    ],
)
def test_one_wrong_thought_of_the_walk_makes_it_wrong(
    monkeypatch: pytest.MonkeyPatch, observed: Run, name: str, value: object
) -> None:
    monkeypatch.setattr(f"bookinfo_lab.netfilter.{name}", lambda *_: value)
    assert judge_walks.judge(observed, most=1).wrong


def test_what_watched_the_packets_is_gone(world: World, observed: Run) -> None:
    assert observed.packets
    for node in world.ground.nodes:
        assert "kernel_oracle" not in world.on_node(node, "nft", "list", "tables")
        entries = [re.search(r"sport=(\d+)", line) for line in world.lab.conntrack(f"node/{node}").lines]
        ports = {int(found[1]) for found in entries if found}
        assert ports.isdisjoint(judge_watch.PORTS)
