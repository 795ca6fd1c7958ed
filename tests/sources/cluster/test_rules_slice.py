"""Rules that a recording cuts down: a walk agrees with the walk of all rules or ends unknown, and nobody is named."""

import functools
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookinfo_lab.netfilter import attempt, facts, kernel_trace, node, ruleset
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.settings import Settings
from bookinfo_lab.sources.cluster import nft_slice, proof_slice, rules_slice
from bookinfo_lab.sources.cluster.scope import scope

from .objects import NODE, OURS, THEIRS, apis, endpoints, host, pod, service

PODS = Settings("10.244.0.0/16")
ELSEWHERE = "203.0.113.9"  # an endpoint that is no pod
_DISPATCH = re.compile(r"-A KUBE-(?:SERVICES|NODEPORTS|EXTERNAL-SERVICES|PROXY-FIREWALL) (?!.*-j KUBE-NODEPORTS)")


@dataclass(frozen=True)
class Made:
    """A node's rules, the objects of the recorded namespace and the node, and those of others."""

    text: str
    namespace: str
    objects: list[dict[str, Any]]
    others: list[dict[str, Any]]


@st.composite
def clusters(draw: st.DrawFn) -> Made:
    """Some Services of both; they may share external IPs and ports, and a load balancer's IP may be the node's."""
    found: dict[str, list[dict[str, Any]]] = {OURS: [], THEIRS: []}
    node_ports = iter(range(30000, 30100))
    for namespace, items in found.items():
        for number in range(1, draw(st.integers(1, 4)) + 1):
            asked = draw(st.lists(st.sampled_from([80, 81, 443]), min_size=1, max_size=2, unique=True))
            ports = [(port, next(node_ports) if draw(st.booleans()) else 0) for port in asked]
            made = service(namespace, number, ports, **draw(specs(number, has_node_port=any(dict(ports).values()))))
            if made["spec"]["type"] == "LoadBalancer":
                given_ = draw(st.sampled_from([NODE, f"203.0.113.{70 + number}"]))
                made["status"] = {"loadBalancer": {"ingress": [{"ip": given_}]}}
                if made["spec"].get("externalTrafficPolicy") == "Local":
                    made["spec"]["healthCheckNodePort"] = next(node_ports)
            slice_ = endpoints(made, draw(st.integers(0, 3)))
            if slice_["endpoints"] and draw(st.integers(0, 3)) == 0:
                slice_["endpoints"][0] |= {"addresses": [ELSEWHERE], "nodeName": "elsewhere"}
            items += [made, slice_]
    namespace = draw(st.sampled_from([OURS, "default"]))
    for item in found[OURS]:
        item["metadata"]["namespace"] = namespace
    of_api = apis() if namespace == "default" else []
    text = node.rules([host(), *found[OURS], *found[THEIRS], *of_api], "lab-0", draw(layouts()))
    text = mixed(text, random.Random(draw(st.integers(0, 99))))
    if draw(st.booleans()):
        seen = [item for item in sockets(found[OURS] + found[THEIRS]) if not item[0].startswith("10.96.")]
        text = guarded(text, draw(st.sampled_from(sorted(seen) or [(NODE, 22)])))
    return Made(text, namespace, [host(), *found[OURS]], [*found[THEIRS], *of_api])


def layouts() -> st.SearchStrategy[Settings]:
    return st.builds(
        Settings,
        st.just("10.244.0.0/16"),
        layout=st.sampled_from(["today", "today", "2017"]),
        localhost_nodeports=st.booleans(),
    )


@st.composite
def specs(draw: st.DrawFn, number: int, has_node_port: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if has_node_port:
        spec["externalTrafficPolicy"] = draw(st.sampled_from(["Cluster", "Local"]))
        spec["type"] = draw(st.sampled_from(["NodePort", "LoadBalancer"]))
        if spec["type"] == "LoadBalancer" and draw(st.booleans()):
            spec["loadBalancerSourceRanges"] = ["198.51.100.0/24"]
    if draw(st.booleans()):
        spec["sessionAffinity"] = "ClientIP"
    if draw(st.booleans()):
        spec["externalIPs"] = [f"198.51.100.{number}"]
    return spec


def mixed(text: str, chance: random.Random) -> str:
    """The rules with those of each of kube-proxy's first chains in another order: its own is that of a hash map."""
    lines = text.splitlines(keepends=True)
    begun, table = {}, ""
    for index, line in enumerate(lines):
        table = line if line.startswith("*") else table
        if _DISPATCH.match(line):
            begun.setdefault((table, line.split()[1]), []).append(index)
    for places in begun.values():
        for place, line in zip(places, chance.sample([lines[place] for place in places], len(places)), strict=True):
            lines[place] = line
    return "".join(lines)


def guarded(text: str, socket: tuple[str, int]) -> str:
    """The rules with a firewall's, which somebody put before all others into table filter."""
    address, port = socket
    drops = [f"-A INPUT -p tcp -m tcp --dport {port} -j DROP\n", f"-A FORWARD -d {address}/32 -p tcp -j DROP\n"]
    head, star, rest = text.partition("*filter\n")
    at = rest.index("-A ")
    return head + star + rest[:at] + "".join(drops) + rest[at:]


def sockets(objects: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """Every address and port at which these Services are asked, and the ports of health checks."""
    found = set()
    for item in (item for item in objects if item["kind"] == "Service"):
        spec = item["spec"]
        balanced = item.get("status", {}).get("loadBalancer", {}).get("ingress", ())
        addresses = [spec["clusterIP"], *spec.get("externalIPs", ()), *(one["ip"] for one in balanced)]
        found |= {(address, port["port"]) for address in addresses for port in spec["ports"]}
        found |= {(NODE, port["nodePort"]) for port in spec["ports"] if "nodePort" in port}
        found |= {(NODE, spec["healthCheckNodePort"])} if "healthCheckNodePort" in spec else set()
    return found


def packets(asked: Iterable[tuple[str, int]]) -> list[Packet]:
    """One from a pod to each of these sockets, and one from outside."""
    ways = (("10.244.0.200", "veth1"), ("203.0.113.1", "eth0"), ("198.51.100.200", "eth0"))
    return [Packet(src, 20001, *socket, iif=iif) for socket in sorted(asked) for src, iif in ways]


@functools.lru_cache(maxsize=4)
def read(text: str) -> ruleset.Ruleset:
    known = facts.facts(addresses=f'[{{"ifname":"eth0","addr_info":[{{"local":"{NODE}","prefixlen":16}}]}}]')
    return ruleset.parse(text, facts=known)


def walked(text: str, packet: Packet) -> set[tuple[str, str]]:
    trace = read(text).walk(packet)
    return {(item.verdict, f"{item.destination} {item.source} {item.mark} {item.answer}") for item in trace.outcomes}


def verdicts(text: str, packet: Packet) -> set[str]:
    return {verdict for verdict, _ in walked(text, packet)}


@settings(max_examples=80)
@given(clusters())
def test_recorded_services_walk_as_on_the_node_and_others_end_unknown_and_are_not_named(given_: Made) -> None:
    found = scope([given_.namespace], [*given_.objects, *(apis() if given_.namespace == "default" else ())])
    made, gone = rules_slice.sliced(given_.text, found)
    assert THEIRS not in made
    assert "kubernetes:" not in made
    assert re.findall(r"10\.96\.1\.\d+/32|10\.244\.1\.\d+", made) == []
    assert gone > 0
    assert len(re.findall(r"^-A (?!.*NOT-RECORDED)", made, re.MULTILINE)) + gone == len(
        re.findall("^-A ", given_.text, re.MULTILINE)
    )
    own, foreign = sockets(given_.objects), sockets(given_.others)
    for packet in packets(own - foreign):
        assert walked(made, packet) == walked(given_.text, packet), packet
    for packet in packets(own & foreign):
        told = {item for item in walked(made, packet) if item[0] != "unknown"}
        whole = walked(given_.text, packet)
        assert told <= whole, packet
        assert told == whole or "unknown" in verdicts(made, packet), packet
    for packet in packets(foreign - own):  # a firewall may drop it before
        assert verdicts(made, packet) == {"unknown"} or walked(made, packet) == walked(given_.text, packet), packet


def of_each(ours: list[tuple[int, int]], theirs: list[tuple[int, int]], **spec: Any) -> tuple[dict[str, Any], ...]:
    return service(OURS, 1, ours, **spec), service(THEIRS, 1, theirs, **spec)


def test_another_services_port_at_the_external_ip_of_one_that_is_refused_ends_unknown() -> None:
    own, foreign = of_each([(80, 0)], [(81, 0)], externalIPs=["198.51.100.1"])
    objects = [host(), own, endpoints(own, 0)]
    text = node.rules([*objects, foreign, endpoints(foreign, 1)], "lab-0", PODS)
    made, _ = rules_slice.sliced(text, scope([OURS], objects))
    assert verdicts(made, *packets([("198.51.100.1", 80)])[:1]) == {"reject"}
    assert verdicts(made, *packets([("198.51.100.1", 81)])[:1]) == {"unknown"}


def test_two_services_at_one_external_ip_and_port_end_unknown_where_the_others_is_asked_first_or_alone() -> None:
    own, foreign = of_each([(80, 0)], [(80, 0)], externalIPs=["198.51.100.1"])
    (packet, *_) = packets([("198.51.100.1", 80)])
    for count in (1, 0):
        objects = [host(), own, endpoints(own, count)]
        text = node.rules([*objects, foreign, endpoints(foreign, 1)], "lab-0", PODS)
        first, second = f'"{OURS}/web1:p80 external IP"', f'"{THEIRS}/web1:p80 external IP"'
        lines = text.splitlines(keepends=True)
        one, two = (next((item for item in lines if name in item), "") for name in (first, second))
        turned = text.replace(two, "").replace(one, two + one) if one else text
        assert walked(turned, packet) == walked(text.replace(one, ""), packet)
        made, _ = rules_slice.sliced(turned, scope([OURS], objects))
        assert verdicts(made, packet) == {"unknown"}
        if one:
            assert made.count("-d 198.51.100.1/32 -p tcp -m tcp --dport 80 ") == 1


def test_a_firewalls_rules_in_table_filter_keep_no_remark_away() -> None:
    own, foreign = of_each([(80, 30080)], [(80, 31000)])
    foreign["spec"]["externalIPs"] = ["203.0.113.77"]
    objects = [host(), own, endpoints(own, 1)]
    text = node.rules([*objects, foreign, endpoints(foreign, 1)], "lab-0", PODS)
    for socket in ((NODE, 31000), ("203.0.113.77", 80)):
        made, _ = rules_slice.sliced(guarded(text, socket), scope([OURS], objects))
        assert "-p tcp -m tcp --dport 30081:32767 " in made
        for packet in packets([socket]):
            assert verdicts(made, packet) == {"unknown"}


def test_a_load_balancer_of_others_at_the_nodes_address_leaves_the_recorded_node_port_alone() -> None:
    own, foreign = of_each([(80, 30080)], [(80, 31000)])
    foreign |= {"status": {"loadBalancer": {"ingress": [{"ip": NODE}]}}}
    foreign["spec"]["type"] = "LoadBalancer"
    objects = [host(), own, endpoints(own, 1)]
    text = node.rules([*objects, foreign, endpoints(foreign, 1)], "lab-0", PODS)
    made, _ = rules_slice.sliced(text, scope([OURS], objects))
    for packet in packets([(NODE, 30080)]):
        assert walked(made, packet) == walked(text, packet)
        assert verdicts(made, packet) == {"accept"}
    for packet in packets([(NODE, 80), (NODE, 31000)]):
        assert verdicts(made, packet) == {"unknown"}


def test_a_health_check_of_others_leaves_a_refused_node_port_alone() -> None:
    own, foreign = of_each([(80, 30080)], [(80, 31000)])
    foreign |= {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.77"}]}}}
    foreign["spec"] |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32123}
    objects = [host(), own, endpoints(own, 0)]
    text = node.rules([*objects, foreign, endpoints(foreign, 1)], "lab-0", PODS)
    made, _ = rules_slice.sliced(text, scope([OURS], objects))
    for packet in packets([(NODE, 30080)]):
        assert verdicts(made, packet) == {"reject"}
    for packet in packets([(NODE, 32123)]):
        assert verdicts(made, packet) == {"unknown"}


def test_an_endpoint_that_is_no_pod_is_reached_beside_refused_addresses_of_others() -> None:
    own, foreign = of_each([(80, 0)], [(80, 0)])
    foreign["spec"]["externalIPs"] = ["203.0.113.77"]
    slice_ = endpoints(own, 1)
    slice_["endpoints"][0]["addresses"] = [ELSEWHERE]
    objects = [host(), own, slice_, pod("10.244.0.200")]
    found = scope([OURS], objects)
    text = node.rules([*objects, foreign], "lab-0", PODS)
    made, _ = rules_slice.sliced(text, found)
    (packet, *_) = packets([("10.96.0.1", 80)])
    assert walked(made, packet) == walked(text, packet)
    assert verdicts(made, packet) == {"accept"}
    assert found.admits(("10.244.0.200", 4000), (ELSEWHERE, 80))
    assert not found.admits(("10.244.0.200", 4000), ("203.0.113.10", 80))


def test_many_services_of_others_take_no_more_than_seconds_and_few_remarks() -> None:
    own, foreign = of_each(
        [(80 + item, 30000 + item) for item in range(20)], [(1 + item, 30100 + item) for item in range(900)]
    )
    foreign["spec"]["externalIPs"] = ["203.0.113.77", NODE]
    objects = [host(), own, endpoints(own, 0)]
    text = node.rules([*objects, foreign, endpoints(foreign, 2)], "lab-0", PODS)
    began = time.perf_counter()
    made, gone = rules_slice.sliced(text, scope([OURS], objects))
    assert time.perf_counter() - began < 5
    assert gone > 5000
    assert made.count("NOT-RECORDED") < 150


def test_in_the_namespace_default_the_api_server_is_nobodys_service() -> None:
    own = service(OURS, 1, [(80, 30080)])
    slice_ = endpoints(own, 1)
    for item in (own, slice_):
        item["metadata"]["namespace"] = "default"
    objects = [host(), own, slice_, pod("10.244.0.8")]
    text = node.rules([*objects, *apis()], "lab-0", PODS)
    found = scope(["default"], [*objects, *apis()])
    made, _ = rules_slice.sliced(text, found)
    assert "kubernetes:" not in made
    assert ":16443" not in made
    for packet in packets(sockets(objects)):
        assert walked(made, packet) == walked(text, packet)
    for packet in packets(sockets(apis())):
        assert verdicts(made, packet) == {"unknown"}
    assert not found.admits(("10.244.0.8", 4000), ("10.96.1.1", 443))
    assert found.admits(("10.244.0.8", 4000), ("10.96.0.1", 80))
    assert found.is_foreign("outbound|443||kubernetes.default.svc.cluster.local")
    assert not found.is_foreign("outbound|80||web1.default.svc.cluster.local")
    assert found.masked("https://kubernetes.default.svc:443")[0] == "https://xxxxxxxxxx.xxxxxxx.svc:443"


OF_OTHERS = {
    "a network plugin's": '-A POSTROUTING -s 10.244.1.9/32 -m comment --comment "name: \\"severance\\" id" -j CNI-1',
    "kube-router's": '-A KUBE-ROUTER-FORWARD -m comment --comment "POD name:plan namespace: severance" -j KUBE-POD-FW',
    "kube-router's pod's": '-A KUBE-POD-FW-1 -m comment --comment "run through nw policy severance" -j KUBE-NWPLCY-1',
    "CRI-O's": '-A KUBE-HP-1 -s 10.244.1.9/32 -m comment --comment "plan_severance_0 hostport 80" -j KUBE-MARK-MASQ',
    "Calico's": '-A cali-FORWARD -m comment --comment "cali:abc" -j cali-pri-kns.severance',
    "Calico's, of an account": "-A cali-FORWARD -j cali-pro-ksa.severance.boss",
    "a logged packet": '-A cali-FORWARD -j LOG --log-prefix "severance drop "',
    "a packet for a program": '-A FORWARD -j NFLOG --nflog-prefix "DPI|severance/board" --nflog-group 2',
}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_what_is_no_services_stays_but_for_the_words_that_somebody_chose(name: str) -> None:
    rule = OF_OTHERS[name]
    chains = {word for option in ("-A", "-j") for word in re.findall(rf"{option} (\S+)", rule)}
    heads = "".join(f":{item} - [0:0]\n" for item in chains if item not in ("LOG", "NFLOG"))
    text = f"*filter\n{heads}:CNI-2 - [0:0]\n{rule}\n-A CNI-2 ! -d 224.0.0.0/4 -j ACCEPT\nCOMMIT\n"
    made, gone = rules_slice.sliced(text, scope([OURS], [host()]))
    assert gone == 0
    assert "severance" not in made
    assert made.count("\n") == text.count("\n")
    assert "-s 10.244.1.9/32" not in rule or "-s 10.244.1.9/32" in made
    ruleset.parse(made)


def test_the_frames_own_words_and_chains_of_the_namespace_stay() -> None:
    objects = [host(), service(OURS, 1, [(80, 30080)])]
    text = node.rules(objects, "lab-0", PODS) + "*filter\n:cali-pri-kns.bookinfo - [0:0]\nCOMMIT\n"
    assert rules_slice.sliced(text, scope([OURS], objects)) == (text, 0)


def test_a_chain_of_another_namespace_has_one_other_name_everywhere_and_another_salt_another() -> None:
    text = "*filter\n:cali-pri-kns.severance - [0:0]\n-A cali-FORWARD -j cali-pri-kns.severance\n"
    text += "-A cali-pri-kns.severance -j ACCEPT\nCOMMIT\n"
    listing = "table ip filter {\n\tchain cali-pri-kns.severance {\n\t\tcounter packets 0\n\t}\n}\n"
    trace = " TRACE: 2 0a filter:cali-FORWARD:rule:0x3:JUMP:cali-pri-kns.severance  -4 -t filter -A cali-FORWARD -j X\n"
    names = set()
    for salt in (b"1", b"2"):
        found = scope([OURS], [host()], (), salt)
        made, plan = rules_slice.planned(text, found)
        raw = attempt.write(attempt.Attempt("node/lab-0", trace=trace, rules=text, handles=listing))
        proof = attempt.read(proof_slice.sliced(raw, found)[0])
        listed = nft_slice.sliced(listing, {"ip": plan}, found)
        every = {re.findall(r"cali-pri-kns\.\w+", item)[0] for item in (made, listed, proof.trace, proof.handles)}
        assert len(every) == 1
        names |= every
    assert len(names) == 2
    assert max(map(len, names)) <= 28


def test_a_trace_repeats_rules_without_the_words_that_somebody_chose() -> None:
    rule = '-A KUBE-ROUTER-FORWARD -m comment --comment "POD name:plan namespace: severance" -j KUBE-POD-FW-4'
    foreign = f'-A KUBE-SERVICES -d 10.96.1.1/32 -m comment --comment "{THEIRS}/web1:p80" -j KUBE-SVC-AAAAAAAAAAAAAAAA'
    head = " TRACE: 2 0000000a filter:KUBE-ROUTER-FORWARD:rule:0x3:JUMP:KUBE-POD-FW-4  -4 -t filter "
    own = '-A KUBE-SERVICES -m comment --comment "bookinfo/web1:p80 cluster IP" -j KUBE-SVC-BBBBBBBBBBBBBBBB'
    lines = [f"{head}{item}\n" for item in (rule, foreign, own)]
    raw = attempt.write(attempt.Attempt("node/lab-0", trace="".join(lines)))
    trace = attempt.read(proof_slice.sliced(raw, scope([OURS], [host(), service(OURS, 1, [(80, 0)])]))[0]).trace
    assert THEIRS not in trace
    assert [len(line) for line in trace.splitlines(keepends=True)] == [len(line) for line in lines]
    assert trace.endswith(lines[-1])


def test_a_proof_names_the_same_rules_by_the_same_numbers_as_the_cut_rules() -> None:
    mine, other = service(OURS, 1, [(80, 0)]), service(THEIRS, 1, [(80, 0)])
    objects = [host(), mine, endpoints(mine, 2)]
    text = node.rules([*objects, other, endpoints(other, 2)], "lab-0", PODS)
    handles = ["table ip kube-proxy {", "\tchain service-severance {", "\t\tdrop # handle 9", "\t}", "}"]
    handle, wanted = 10, {}
    for table in ("filter", "nat"):
        handles.append(f"table ip {table} {{ # handle 1")
        lines = text.split(f"*{table}\n")[1].split("COMMIT")[0].splitlines()
        for chain in dict.fromkeys(line[1:].split()[0] for line in lines if line.startswith(":")):
            handles.append(f"\tchain {chain} {{ # handle 2")
            for line in lines:
                if line.startswith(f"-A {chain} "):
                    handle += 1
                    wanted[handle] = (table, line)
                    handles.append(f"\t\tcounter packets 0 # handle {handle}")
            handles.append("\t}")
        handles.append("}")
    trace = (
        "PACKET: 2 0000000a IN=veth1 SRC=10.244.0.8 DST=10.96.0.1 \n TRACE: 2 0000000a nat:KUBE-SERVICES:rule:0xb:X \n"
        "PACKET: 2 0000000b IN=veth2 SRC=10.244.1.8 DST=10.96.1.1 \n TRACE: 2 0000000b nat:KUBE-SERVICES:rule:0xc:X \n"
        " EVENT: -4 -t nat -A KUBE-SERVICES -d 10.96.1.2/32 \n"
    )
    own = scope([OURS], [*objects, pod("10.244.0.8")])
    raw = attempt.write(attempt.Attempt("node/lab-0", trace=trace, rules=text, handles="\n".join(handles) + "\n"))
    cut, gone = proof_slice.sliced(raw, own)
    made = attempt.read(cut)
    assert gone > 0
    assert b"severance" not in cut
    assert b"10.96.1." not in cut
    assert "0000000a" in made.trace
    assert made.rules == rules_slice.sliced(text, own)[0]
    numbers = kernel_trace.rule_numbers(made.handles)
    kept = {number: place for (_, _, number), place in numbers.items() if number}
    assert len(kept) > 10
    for number, (chain, position) in kept.items():
        table, line = wanted[number]
        body = made.rules.split(f"*{table}\n")[1].split("COMMIT")[0].splitlines()
        assert [item for item in body if item.startswith(f"-A {chain} ")][position - 1] == line
