import base64
import hashlib
import ipaddress
import json
import random

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter import kube_proxy, node
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.service_paths import service_path_of, service_paths

PODS = "10.244.0.0/16"
REJECT, DROP = ("REJECT", "icmp-port-unreachable"), ("DROP", "")


# What kube-proxy does with Services, endpoints and a node, from the Kubernetes documentation and API: no rules, no
# chains.  A path is (service, port name, protocol, kind, address, port) → what `told` makes of a ServicePath.


def endpoints_of(objects, service, port):
    """(ip, port, conditions, node, hints) of each endpoint address of a Service port, each once."""
    found = {}
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    for item in objects:
        owner = (item["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
        if item["kind"] != "EndpointSlice" or owner != name or item["metadata"]["namespace"] != namespace:
            continue
        for theirs in item["ports"] or ():
            wanted = (port.get("name") or "", port.get("protocol", "TCP"))
            if item["addressType"] != "IPv4" or (theirs.get("name") or "", theirs.get("protocol", "TCP")) != wanted:
                continue
            for endpoint in item["endpoints"] or ():
                conditions = endpoint.get("conditions") or {}
                ready = conditions.get("ready", True)
                ending = not ready and conditions.get("serving", ready) and conditions.get("terminating", False)
                hints = endpoint.get("hints") or {}
                zones = {zone["name"] for zone in hints.get("forZones") or ()}
                address = (endpoint["addresses"][0], theirs["port"])
                found[address] = (address, ready, ending, endpoint.get("nodeName"), zones)
    return list(found.values())


def chosen(given, here, zone, local):
    """The addresses that a node uses: ready ones, else serving ones that terminate; hints narrow those of any node."""
    ready = [item for item in given if item[1] and (not local or item[3] == here)]
    if not ready:
        return {item[0] for item in given if item[2] and (not local or item[3] == here)}
    hinted = [item for item in ready if zone in item[4]]
    if not local and hinted and all(item[4] for item in ready):
        ready = hinted
    return {item[0] for item in ready}


def expected_today(objects, here, pods=PODS, masquerade_all=False):
    paths = {}
    (this,) = (item for item in objects if item["kind"] == "Node" and item["metadata"]["name"] == here)
    zone = this["metadata"].get("labels", {}).get("topology.kubernetes.io/zone", "")
    (node_ip,) = (
        item["address"]
        for item in this["status"]["addresses"]
        if item["type"] == "InternalIP" and ":" not in item["address"]
    )
    for service in objects:
        if service["kind"] != "Service" or service["spec"].get("clusterIP") in (None, "None"):
            continue
        spec = service["spec"]
        (cluster_ip,) = (ip for ip in spec.get("clusterIPs", [spec["clusterIP"]]) if ":" not in ip)
        exposed = spec.get("type") in ("NodePort", "LoadBalancer") or spec.get("externalIPs")
        outside_local = exposed and spec.get("externalTrafficPolicy") == "Local"
        inside_local = spec.get("internalTrafficPolicy") == "Local"
        affinity = 0
        if spec.get("sessionAffinity") == "ClientIP":
            affinity = (spec.get("sessionAffinityConfig") or {}).get("clientIP", {}).get("timeoutSeconds", 10800)
        ingress = [
            item["ip"]
            for item in service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
            if item.get("ipMode", "VIP") == "VIP" and ":" not in item["ip"]
        ]
        ranges = [item for item in spec.get("loadBalancerSourceRanges") or () if ":" not in item]
        if "0.0.0.0/0" in ranges:
            ranges = []
        if any(ipaddress.ip_address(node_ip) in ipaddress.ip_network(item) for item in ranges):
            ranges = ranges + [f"{ip}/32" for ip in ingress]
        for port in spec["ports"]:
            name = (f"{service['metadata']['namespace']}/{service['metadata']['name']}", port.get("name") or "")
            protocol = port.get("protocol", "TCP").lower()
            given = endpoints_of(objects, service, port)
            anywhere, there = chosen(given, here, zone, False), chosen(given, here, zone, True)

            def add(kind, address, number, ways=(), policy="", refused=(), of=(), name=name, more=(protocol, affinity)):
                protocol, affinity = more
                ways = [(*way, affinity) for way in ways if way[2]]
                paths.setdefault((*name, protocol, kind, address, number), []).append(
                    (policy, ways, sorted(refused), sorted(of))
                )

            policy = "Local" if inside_local else "Cluster"
            asked = "always" if masquerade_all else f"from outside {pods}" if pods else "hairpin only"
            if not anywhere:
                add("cluster-ip", cluster_ip, port["port"], refused=[REJECT])
            elif inside_local and not there:
                add("cluster-ip", cluster_ip, port["port"], policy=policy, refused=[DROP])
            else:
                add("cluster-ip", cluster_ip, port["port"], [((), asked, there if inside_local else anywhere)], policy)
            doors = [("external-ip", ip, port["port"]) for ip in spec.get("externalIPs") or ()]
            doors += [("load-balancer", ip, port["port"]) for ip in ingress]
            doors += [("node-port", "", port["nodePort"])] if port.get("nodePort") else []
            for kind, address, number in doors:
                if not anywhere:
                    add(kind if kind == "node-port" else "external", address, number, refused=[REJECT])
                    continue
                inner = [((), "always", anywhere)]
                if outside_local:
                    inner = [((pods,), "hairpin only", anywhere)] if pods else []
                    inner += [(("this node",), "always", anywhere), ((), "hairpin only", there)]
                only = ranges if kind == "load-balancer" else []
                ways = [((item, *when), how, to) for item in only or [None] for when, how, to in inner]
                ways = [(tuple(item for item in when if item), how, to) for when, how, to in ways]
                refused = [DROP] * (bool(outside_local and not there) + bool(only))
                add(kind, address, number, ways, "Local" if outside_local else "Cluster", refused, only)
            if spec.get("type") == "LoadBalancer" and outside_local and spec.get("healthCheckNodePort"):
                key = (*name, "tcp", "health-check", "", spec["healthCheckNodePort"])
                paths.setdefault(key, []).append(("", [], [], []))
    return paths


def expected_2017(objects, here):
    paths = {}
    for service in objects:
        if service["kind"] != "Service":
            continue
        spec = service["spec"]
        outside_local = spec.get("externalTrafficPolicy") == "Local"
        ingress = [item["ip"] for item in service["status"]["loadBalancer"]["ingress"]]
        ranges = list(spec.get("loadBalancerSourceRanges") or ())
        for port in spec["ports"]:
            protocol = port["protocol"].lower()
            name = (f"{service['metadata']['namespace']}/{service['metadata']['name']}", port.get("name") or "")
            ready = [item for item in endpoints_of(objects, service, port) if item[1]]
            every, here_too = {item[0] for item in ready}, {item[0] for item in ready if item[3] == here}
            affinity = 10800 if spec.get("sessionAffinity") == "ClientIP" else 0

            def add(kind, address, number, ways, refused=(), of=(), policy="Cluster", name=name, protocol=protocol):
                ways = [way for way in ways if way[2]]
                policy = policy if ways or policy == "Local" else ""
                paths[(*name, protocol, kind, address, number)] = [(policy, ways, sorted(refused), sorted(of))]

            none = [] if every else [REJECT]
            add("cluster-ip", spec["clusterIP"], port["port"], [((), f"from outside {PODS}", every, affinity)], none)
            for ip in spec.get("externalIPs") or ():
                off, on = ("not in by a bridge's port", "not this node"), ("to an address of this node",)
                ways = [(off, "always", every, affinity), (on, "always", every, affinity)]
                add("external-ip", ip, port["port"], ways, none)
            for kind, address, number in [("load-balancer", ip, port["port"]) for ip in ingress] + (
                [("node-port", "", port["nodePort"])] if port.get("nodePort") else []
            ):
                only = ranges if kind == "load-balancer" else []
                inner = [((), "always", every, affinity)]
                if outside_local:  # those who were balanced among local endpoints had no affinity
                    inner = [((PODS,), "hairpin only", every, affinity), ((), "hairpin only", here_too, 0)]
                ways = [((item, *when), *rest) for item in only or [None] for when, *rest in inner]
                ways = [(tuple(item for item in when if item), *rest) for when, *rest in ways]
                refused = [DROP] * len(only or [1]) if outside_local and every and not here_too else []
                if kind == "node-port":
                    refused += none
                elif only or not every:
                    refused += [DROP]
                add(kind, address, number, ways, refused, only, "Local" if outside_local else "Cluster")
    return paths


def told(path):
    """The same of a ServicePath, after what the expectation does not hold has been checked."""
    assert path.unclear == ()
    for way in path.ways:
        shares = [item.probability for item in way.endpoints]
        assert shares == pytest.approx([1 / len(shares)] * len(shares), abs=1e-4)
        assert all(item.hairpin for item in way.endpoints)
        for item in way.endpoints:
            name = path.service + (f":{path.port_name}" if path.port_name else "")
            assert item.chain == sep_chain(name, path.protocol, item) or item.chain == sep_chain(
                f"{path.service}:{path.port_name}", path.protocol, item
            )
    assert path.affinity_s == max((way.affinity_s for way in path.ways), default=0)
    return (
        path.policy,
        [
            (way.when, way.masquerade, {(item.ip, item.port) for item in way.endpoints}, way.affinity_s)
            for way in path.ways
        ],
        sorted((item.verdict, item.answer) for item in path.refusals),
        sorted(path.source_ranges),
    )


def sep_chain(name, protocol, endpoint):
    digest = hashlib.sha256(f"{name}{protocol}{endpoint.ip}:{endpoint.port}".encode()).digest()
    return f"KUBE-SEP-{base64.b32encode(digest).decode()[:16]}"


def read(text):
    found = {}
    for path in service_paths(parse(text)):
        key = (path.service, path.port_name, path.protocol, path.kind, path.address, path.port)
        found.setdefault(key, []).append(told(path))
    return found


@pytest.mark.data
@pytest.mark.parametrize("cluster", ["iptables", "istio"])
@pytest.mark.parametrize("here", ["lab-0", "lab-1"])
def test_the_paths_of_a_real_node_are_those_that_its_objects_ask_for(recorded, cluster, here):
    objects = json.loads(recorded(f"cluster/{cluster}/objects.json"))["items"]
    assert read(recorded(f"cluster/{cluster}/{here}.iptables-save")) == expected_today(objects, here)


def random_objects(seed, layout):
    """Nodes, Services of all kinds with random policies, and their slices, some ready, ending or down."""
    rng = random.Random(seed)
    objects = [
        {
            "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone} if layout == "today" else {}},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }
        for name, zone, address in (("lab-0", "a", "172.18.0.2"), ("lab-1", "b", "172.18.0.3"))
    ]
    for index in range(12):
        kind = rng.choice(["ClusterIP", "NodePort", "LoadBalancer"])
        protocols = ["TCP", "UDP", "SCTP"] if layout == "today" else ["TCP", "UDP"]
        ports = [
            {
                **({"name": f"p-{number}"} if number or rng.random() < 0.5 else {}),
                "port": 1000 + 10 * index + number,
                "protocol": rng.choice(protocols),
                **({"nodePort": 30000 + 10 * index + number} if kind != "ClusterIP" else {}),
            }
            for number in range(rng.randint(1, 2))
        ]
        if len(ports) == 2:
            ports[0].setdefault("name", "p-0")
        metadata = {"namespace": "shop", "name": f"svc-{index}"}
        spec = {"type": kind, "clusterIP": f"10.96.0.{index + 1}", "ports": ports}
        spec["sessionAffinity"] = rng.choice(["None", "None", "ClientIP"])
        if rng.random() < 0.3:
            spec["externalIPs"] = [f"192.0.2.{2 * index}"]
        if kind != "ClusterIP" and rng.random() < 0.5:
            spec["externalTrafficPolicy"] = "Local"
            if kind == "LoadBalancer":
                spec["healthCheckNodePort"] = 32000 + index
        if layout == "today" and rng.random() < 0.3:
            spec["internalTrafficPolicy"] = "Local"
        ingress = [{"ip": f"198.51.100.{index}"}] if kind == "LoadBalancer" else []
        if ingress and rng.random() < 0.5:
            spec["loadBalancerSourceRanges"] = rng.sample(["203.0.113.0/24", "192.0.2.0/25", "172.19.0.0/16"], 2)
        if layout == "today" and ingress and rng.random() < 0.3:
            spec["loadBalancerSourceRanges"] = ["172.18.0.0/16"]
        objects.append(
            {"kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}
        )
        objects += random_slices(rng, metadata, ports, layout)
    rng.shuffle(objects)
    return objects


def random_slices(rng, metadata, ports, layout):
    states = {
        "ready": {"ready": True, "serving": True, "terminating": False},
        "ending": {"ready": False, "serving": True, "terminating": True},
        "down": {"ready": False, "serving": False, "terminating": rng.random() < 0.5},
        "unsaid": {},
    }
    hinted = layout == "today" and rng.random() < 0.4
    weights = rng.choice([(6, 1, 1, 1), (0, 2, 2, 0), (2, 2, 2, 0)])
    for port in ports:
        endpoints = [
            {
                "addresses": [f"10.244.{number % 2}.{rng.randint(2, 250)}"],
                "nodeName": f"lab-{number % 2}",
                "conditions": states[rng.choices([*states], weights)[0]],
                **({"hints": {"forZones": [{"name": rng.choice("ab")}]}} if hinted else {}),
            }
            for number in rng.sample(range(8), rng.choice([0, 1, 2, 5]))
        ]
        yield {
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": metadata["namespace"],
                "name": f"{metadata['name']}-{port['port']}",
                "labels": {"kubernetes.io/service-name": metadata["name"]},
            },
            "addressType": "IPv4",
            "ports": [{"name": port.get("name", ""), "port": 8000 + port["port"], "protocol": port["protocol"]}],
            "endpoints": endpoints,
        }


@pytest.mark.parametrize("seed", range(40))
def test_the_paths_of_todays_layout_are_those_that_random_objects_ask_for(seed):
    objects = random_objects(seed, "today")
    pods, everyone = random.Random(seed).choice([(PODS, False), (PODS, True), ("", False)])
    settings = kube_proxy.Settings(pods, nfacct=bool(seed % 2), masquerade_all=everyone, masquerade_bit=14 - seed % 3)
    text = node.rules(objects, "lab-0", settings)
    assert read(text) == expected_today(objects, "lab-0", pods, everyone)


@pytest.mark.parametrize("seed", range(40))
def test_the_paths_of_the_layout_of_2017_are_those_that_random_objects_ask_for(seed):
    objects = random_objects(seed, "2017")
    text = node.rules(objects, "lab-0", kube_proxy.Settings(PODS, layout="2017"))
    assert read(text) == expected_2017(objects, "lab-0")


def one_path(api, address, **spec):
    """How a load balancer's Service with an endpoint on another node is entered at ``address``."""
    service = api.service(type="LoadBalancer", **spec)
    objects = [api.node(), service, api.endpoints(("10.244.1.2", "lab-1", "ready"))]
    return service_path_of(parse(node.rules(objects, "lab-0", kube_proxy.Settings(PODS))), address, 80)


def test_an_external_ip_that_is_a_load_balancers_too_lets_everyone_in(api):
    ranges = {"loadBalancerSourceRanges": ["203.0.113.0/24"]}
    both = one_path(api, "192.0.2.1", ingress=[{"ip": "192.0.2.1"}], externalIPs=["192.0.2.1"], **ranges)
    assert (both.kind, both.source_ranges, both.refusals) == ("external-ip", (), ())
    assert [(way.when, way.masquerade) for way in both.ways] == [((), "always")]
    alone = one_path(api, "192.0.2.1", ingress=[{"ip": "192.0.2.1"}], externalIPs=["192.0.2.2"], **ranges)
    assert (alone.kind, alone.source_ranges) == ("load-balancer", ("203.0.113.0/24",))
    assert [refusal.verdict for refusal in alone.refusals] == ["DROP"]


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_a_source_range_that_is_the_pods_says_nothing_of_others(api, policy):
    spec = {"ingress": [{"ip": "192.0.2.1"}], "externalTrafficPolicy": policy}
    path = one_path(api, "192.0.2.1", loadBalancerSourceRanges=[PODS, "203.0.113.0/24"], **spec)
    assert path.policy == policy
    assert [(item.ip, item.port) for item in path.endpoints] == ([("10.244.1.2", 8080)] if policy == "Cluster" else [])
    assert path.masquerade == ("always" if policy == "Cluster" else "")
    assert path.ways[0].when == (PODS,)
    assert path.ways[0].endpoints


EXPOSED = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A KUBE-PROXY-FIREWALL -d 198.51.100.1/32 -p tcp -m comment --comment "shop/web:http traffic not accepted by \
KUBE-FW-RQNBYNHFT2PZHZPZ" -m tcp --dport 80 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-EXT-RQNBYNHFT2PZHZPZ - [0:0]
:KUBE-FW-RQNBYNHFT2PZHZPZ - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-RQNBYNHFT2PZHZPZ - [0:0]
:KUBE-SVL-RQNBYNHFT2PZHZPZ - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-EXT-RQNBYNHFT2PZHZPZ -s 10.244.0.0/16 -j KUBE-SVC-RQNBYNHFT2PZHZPZ
-A KUBE-EXT-RQNBYNHFT2PZHZPZ -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-RQNBYNHFT2PZHZPZ -m addrtype --src-type LOCAL -j KUBE-SVC-RQNBYNHFT2PZHZPZ
-A KUBE-EXT-RQNBYNHFT2PZHZPZ -j KUBE-SVL-RQNBYNHFT2PZHZPZ
-A KUBE-FW-RQNBYNHFT2PZHZPZ -s 203.0.113.0/24 -j KUBE-EXT-RQNBYNHFT2PZHZPZ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-RQNBYNHFT2PZHZPZ
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.244.0.2/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m recent --set --name A --mask 255.255.255.255 --rsource -m tcp \
-j DNAT --to-destination 10.244.0.2:8080
-A KUBE-SEP-BBBBBBBBBBBBBBBB -s 10.244.1.2/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:8080
-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-RQNBYNHFT2PZHZPZ
-A KUBE-SERVICES -d 198.51.100.1/32 -p tcp -m tcp --dport 80 -j KUBE-FW-RQNBYNHFT2PZHZPZ
-A KUBE-SERVICES -d 192.0.2.7/32 -p tcp -m tcp --dport 80 -j KUBE-EXT-RQNBYNHFT2PZHZPZ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-RQNBYNHFT2PZHZPZ ! -s 10.244.0.0/16 -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-RQNBYNHFT2PZHZPZ -m recent --rcheck --seconds 600 --reap --name A --mask 255.255.255.255 --rsource \
-j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-RQNBYNHFT2PZHZPZ -m statistic --mode random --probability 0.25000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-RQNBYNHFT2PZHZPZ -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SVL-RQNBYNHFT2PZHZPZ -j KUBE-SEP-AAAAAAAAAAAAAAAA
COMMIT
"""
HASH = "RQNBYNHFT2PZHZPZ"


def pairs(endpoints):
    return [(item.ip, item.port, item.probability, item.hairpin) for item in endpoints]


def test_without_comments_a_path_is_found_and_its_service_is_named_by_its_chains():
    path = service_path_of(parse(EXPOSED.replace("shop/web:http ", "")), "10.96.0.7", 80)
    assert (path.service, path.port_name, path.kind) == ("", "", "cluster-ip")
    assert pairs(path.endpoints) == [("10.244.0.2", 8080, 0.25, True), ("10.244.1.2", 8080, 0.75, True)]
    assert (path.affinity_s, path.masquerade) == (600, "from outside 10.244.0.0/16")


def test_policy_local_has_a_way_for_pods_for_the_node_and_for_everyone_else():
    path = service_path_of(parse(EXPOSED), None, 30080)
    assert (path.kind, path.address, path.policy) == ("node-port", "", "Local")
    assert [(way.when, way.masquerade, way.chain) for way in path.ways] == [
        (("10.244.0.0/16",), "hairpin only", f"KUBE-SVC-{HASH}"),
        (("this node",), "always", f"KUBE-SVC-{HASH}"),
        ((), "hairpin only", f"KUBE-SVL-{HASH}"),
    ]
    assert pairs(path.endpoints) == [("10.244.0.2", 8080, 1.0, True)]
    assert path.rules[:2] == ("nat KUBE-SERVICES 4", "nat KUBE-NODEPORTS 1")


def test_a_load_balancer_lets_its_ranges_in_and_the_rest_is_dropped():
    path = service_path_of(parse(EXPOSED), "198.51.100.1", 80)
    assert (path.service, path.port_name, path.kind) == ("shop/web", "http", "load-balancer")
    assert path.source_ranges == ("203.0.113.0/24",)
    assert path.ways[-1].when == ("203.0.113.0/24",)
    assert path.endpoints == path.ways[-1].endpoints
    (refusal,) = path.refusals
    assert (refusal.verdict, refusal.why) == ("DROP", f"traffic not accepted by KUBE-FW-{HASH}")
    assert refusal.where in path.rules


def test_an_address_that_no_comment_tells_from_a_load_balancers_is_only_external():
    assert service_path_of(parse(EXPOSED), "192.0.2.7", 80).kind == "external"
    commented = EXPOSED.replace(
        "-d 192.0.2.7/32 -p tcp", '-d 192.0.2.7/32 -p tcp -m comment --comment "a/b external IP"'
    )
    assert service_path_of(parse(commented), "192.0.2.7", 80).kind == "external-ip"


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (("10.96.0.7", 80), "cluster-ip"),
        (("172.18.0.2", 30080), "node-port"),
        ((None, 30080), "node-port"),
        (("10.96.0.7", 30080), None),
        (("10.96.0.7", 81), None),
        (("10.96.0.7", 80, "udp"), None),
        (("10.96.0.70", 80), None),
        ((None, 80), None),
    ],
)
def test_a_path_is_found_by_address_port_and_protocol(asked, kind):
    path = service_path_of(parse(EXPOSED), *asked)
    assert (path and path.kind) == kind


def test_what_is_no_address_is_refused():
    with pytest.raises(LabError, match="'web' is not an IP address"):
        service_path_of(parse(EXPOSED), "web", 80)


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("-j MASQUERADE --random-fully", "-j ACCEPT", "marked 0x4000, which nothing masquerades"),
        ("! --mark 0x4000/0x4000", "! --mark 0x8000/0x8000", "marked 0x4000, which nothing masquerades"),
        ("! --mark 0x4000/0x4000", "--mark 0x4000/0x4000", "marked 0x4000, which nothing masquerades"),
        ("! -s 10.244.0.0/16 -d", "-d", "always"),
        (
            f"-A KUBE-SVC-{HASH} ! -s 10.244.0.0/16 -d 10.96.0.7/32",
            f"-A KUBE-SVC-{HASH} -d 10.96.0.8/32",
            "hairpin only",
        ),
        ("--set-xmark 0x4000/0x4000", "--set-xmark 0x4000/0x0", "never"),
    ],
)
def test_the_masquerade_is_what_the_rules_do_not_what_their_chains_are_called(written, instead, said):
    assert service_path_of(parse(EXPOSED.replace(written, instead)), "10.96.0.7", 80).masquerade == said


def test_a_rule_that_is_not_understood_is_named():
    for instead in (
        "-m statistic --mode nth --every 2 --packet 0",
        "-m statistic --mode random --probability 0.5 -j LOG\n#",
    ):
        strange = EXPOSED.replace("-m statistic --mode random --probability 0.25000000000", instead)
        assert service_path_of(parse(strange), "10.96.0.7", 80).unclear == (f"nat KUBE-SVC-{HASH} 3",)


@pytest.mark.data
@pytest.mark.parametrize("file", ["cluster/iptables/lab-1.iptables-save", "cluster/istio/lab-0.iptables-save"])
def test_each_path_is_also_found_alone(recorded, file):
    ruleset = parse(recorded(file))
    paths = [path for path in service_paths(ruleset) if path.kind != "health-check"]
    assert len(paths) > 10
    for path in paths:
        assert service_path_of(ruleset, path.address or None, path.port, path.protocol) == path


class Counting:
    """A ruleset that counts which rules are asked for."""

    def __init__(self, ruleset):
        self.ruleset, self.asked = ruleset, set()

    def __getattr__(self, name):
        return getattr(self.ruleset, name)

    def rule(self, where):
        self.asked.add(where)
        return self.ruleset.rule(where)

    def rules(self, table, chain):
        found = self.ruleset.rules(table, chain)
        self.asked |= {rule.where for rule in found}
        return found


@pytest.mark.data
def test_one_path_parses_its_own_chains_only(recorded):
    counting = Counting(parse(recorded("cluster/iptables/lab-0.iptables-save")))
    path = service_path_of(counting, "10.96.0.10", 53, "udp")
    chains = {where.split()[1] for where in counting.asked}
    assert {chain for chain in chains if chain[:9] in ("KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-")} <= set(path.chains)
    assert len(counting.asked) < 20


def test_ipv6_rules_make_paths_too():
    path = service_path_of(
        parse(
            """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
-A KUBE-SERVICES -d fd00:10:96::a/128 -p udp -m udp --dport 53 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p udp -m udp -j DNAT --to-destination [fd00:10:244::2]:5353
COMMIT
"""
        ),
        "fd00:10:96::a",
        53,
        "udp",
    )
    assert pairs(path.endpoints) == [("fd00:10:244::2", 5353, 1.0, False)]
    assert path.masquerade == "never"


def test_rules_that_are_not_kube_proxys_make_no_paths():
    assert service_paths(parse("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")) == ()
    assert service_paths(parse("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")) == ()


def ways(text, *asked):
    path = service_path_of(parse(text), *asked)
    return [(way.when, way.masquerade, len(way.endpoints)) for way in path.ways]


def test_who_may_come_as_a_range_and_is_a_pod_goes_the_way_of_pods_only():
    text = EXPOSED.replace("-s 203.0.113.0/24", "-s 10.244.0.0/16")
    assert ways(text, "198.51.100.1", 80) == [(("10.244.0.0/16",), "hairpin only", 2)]


def test_a_mark_for_those_who_are_no_pods_is_not_for_pods():
    text = EXPOSED.replace(" -d 10.96.0.7/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ", " -j KUBE-MARK-MASQ")
    said = [(("10.244.0.0/16",), "hairpin only", 2), (("this node",), "always", 2), ((), "hairpin only", 1)]
    assert ways(text, None, 30080) == said


def test_a_mark_for_the_cluster_ip_is_not_for_node_ports():
    text = EXPOSED.replace("-m addrtype --src-type LOCAL -j KUBE-MARK-MASQ", "").replace(
        "--dport 80 ", "--dport 30080 "
    )
    assert ways(text, None, 30080)[1] == (("this node",), "hairpin only", 2)


def test_hairpin_is_said_of_endpoints_whose_own_address_is_marked():
    text = EXPOSED.replace("-s 10.244.1.2/32", "-s 10.244.1.3/32").replace(
        "! -s 10.244.0.0/16 -d", "-s 192.0.2.9/32 -d"
    )
    path = service_path_of(parse(text), "10.96.0.7", 80)
    assert [item.hairpin for item in path.endpoints] == [True, False]
    assert path.masquerade == "from 192.0.2.9/32"


def test_a_client_from_outside_takes_the_way_of_what_came_by_no_bridge_in_2017(api):
    objects = [api.node(), api.service(externalIPs=["192.0.2.1"]), api.endpoints(("10.244.0.2", "lab-0", "ready"))]
    text = node.rules(objects, "lab-0", kube_proxy.Settings(PODS, layout="2017"))
    path = service_path_of(parse(text), "192.0.2.1", 80)
    assert (path.kind, path.policy, path.masquerade) == ("external-ip", "Cluster", "always")
    assert pairs(path.endpoints) == [("10.244.0.2", 8080, 1.0, True)]


LAST = f"-A KUBE-SVC-{HASH} -j KUBE-SEP-BBBBBBBBBBBBBBBB\n"
TOLD = f"-A KUBE-SVC-{HASH} -s 192.0.2.1/32 -j KUBE-SEP-AAAAAAAAAAAAAAAA\n"
AGAIN = f"-A KUBE-SVC-{HASH} -j KUBE-SEP-AAAAAAAAAAAAAAAA\n"


@pytest.mark.parametrize(
    ("instead", "shares", "unclear"),
    [
        (LAST, [0.25, 0.75], ()),
        (LAST + TOLD, [0.25, 0.75], ()),
        (LAST + AGAIN, [0.25, 0.75], ()),
        (TOLD + LAST, [0.25, 0.75], (f"nat KUBE-SVC-{HASH} 4",)),
        ("", [0.25], (f"nat KUBE-SVC-{HASH} 3",)),
        (f"-A KUBE-SVC-{HASH} -j KUBE-EXT-{HASH}\n" + LAST, [0.25, 0.75], (f"nat KUBE-SVC-{HASH} 4",)),
    ],
)
def test_shares_are_of_what_gets_to_a_rule_and_what_falls_out_is_named(instead, shares, unclear):
    path = service_path_of(parse(EXPOSED.replace(LAST, instead)), "10.96.0.7", 80)
    assert [item.probability for item in path.endpoints] == shares
    assert path.unclear == unclear


def test_who_was_sent_before_has_no_second_way():
    chosen = EXPOSED.index(f"-A KUBE-SVC-{HASH} -m statistic")
    twice = TOLD.replace("-j", "-m addrtype --src-type LOCAL -j")
    text = EXPOSED[:chosen] + TOLD + twice + EXPOSED[chosen:].partition("\n")[2]
    whole = "from outside 10.244.0.0/16"
    assert ways(text, "10.96.0.7", 80) == [(("192.0.2.1/32",), whole, 1), ((), whole, 1)]
