"""kube-proxy's and the kubelet's rules for Services at random, and packets to every entry they have.

Pure.  The package's own writers make the rules: what is tested is their walk.  The node is the room: pods of its own
lie behind in0 (10.244.0.0/24), another node's behind out1 (10.244.1.0/24), the world behind out0.
"""

from random import Random
from typing import Any

from differential import surroundings
from differential.case import Case, Probe
from kernel.flow import Flow

from bookinfo_lab.netfilter import node
from bookinfo_lab.netfilter.settings import Layout, Settings

NODE_IP = "10.2.0.1"
_LOCAL_PODS = tuple(f"10.244.0.{number}" for number in range(2, 7))
_OTHER_PODS = tuple(f"10.244.1.{number}" for number in range(2, 7))
_EXTERNAL_IPS = ("192.0.2.10", "192.0.2.11", "10.3.0.1")
_BALANCERS = ("192.0.2.80", "192.0.2.81")
_RANGES = ("198.51.100.0/24", "10.2.0.0/24", "192.0.2.80/32", "203.0.113.9/32")
_CLIENTS = (("198.51.100.7", "out0"), ("10.2.0.7", "out0"), ("203.0.113.9", "out0"), ("10.3.0.5", "out1"))


def case(random: Random, name: str, *, maps_owners: bool = True, probes: int = 16) -> Case:
    """A node with up to five Services."""
    layout: Layout = random.choice(("today", "today", "today", "2017"))
    settings = Settings(
        random.choice(("10.244.0.0/16", "10.244.0.0/16", "")),
        nfacct=random.random() < 0.7,
        layout=layout,
        masquerade_bit=random.choice((14, 14, 14, 5, 31)),
        masquerade_all=random.random() < 0.2,
        localhost_nodeports=random.random() < 0.8,
        conntrack_tcp_liberal=random.random() < 0.2,
    )
    services = [_service(random, number, layout) for number in range(random.randint(1, 5))]
    slices = [_slice(random, service) for service in services]
    objects = [_node("here", NODE_IP), _node("there", "10.3.0.2"), *services, *slices]
    text = node.rules(objects, "here", settings)
    where = surroundings.LOCALNET_NODE if settings.localhost_nodeports else surroundings.NODE
    sent = tuple(_probe(random, services, settings) for _ in range(probes))
    return Case(name, 4, text, sent, where, is_saved=random.random() < 0.3)


def _node(name: str, address: str) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": {}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def _service(random: Random, number: int, layout: str) -> dict[str, Any]:
    kind = random.choice(("ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer"))
    protocols = ("TCP", "TCP", "UDP", "SCTP") if layout == "today" else ("TCP", "UDP")
    ports = []
    for index in range(random.choice((1, 1, 2))):
        port = {"name": f"p{index}", "port": 80 + index, "protocol": random.choice(protocols)}
        if kind != "ClusterIP":
            port["nodePort"] = 30000 + 10 * number + index
        ports.append(port)
    spec: dict[str, Any] = {"type": kind, "clusterIP": f"10.96.0.{10 + number}", "ports": ports}
    status: dict[str, Any] = {"loadBalancer": {}}
    if random.random() < 0.3:
        spec["externalIPs"] = [random.choice(_EXTERNAL_IPS)]
    if kind == "LoadBalancer":
        status["loadBalancer"] = {
            "ingress": [{"ip": address} for address in random.sample(_BALANCERS, random.choice((1, 1, 2)))]
        }
        if random.random() < 0.5:
            spec["loadBalancerSourceRanges"] = random.sample(_RANGES, 2)
    if kind != "ClusterIP" or "externalIPs" in spec:
        spec["externalTrafficPolicy"] = random.choice(("Cluster", "Local"))
        if kind == "LoadBalancer" and spec["externalTrafficPolicy"] == "Local":
            spec["healthCheckNodePort"] = 32000 + number
    spec["internalTrafficPolicy"] = random.choice(("Cluster", "Cluster", "Local"))
    if random.random() < 0.25:
        spec["sessionAffinity"] = "ClientIP"
    return {"kind": "Service", "metadata": {"name": f"s{number}", "namespace": "shop"}, "spec": spec, "status": status}


def _slice(random: Random, service: dict[str, Any]) -> dict[str, Any]:
    conditions = (
        {"ready": True, "serving": True, "terminating": False},
        {"ready": True, "serving": True, "terminating": False},
        {"ready": False, "serving": True, "terminating": True},
        {"ready": False, "serving": False, "terminating": False},
    )
    pods = random.sample([*_LOCAL_PODS, *_OTHER_PODS], random.choice((0, 1, 1, 1, 2, 3, 4)))
    name = service["metadata"]["name"]
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [
            {"name": port["name"], "port": 8080 + index, "protocol": port["protocol"]}
            for index, port in enumerate(service["spec"]["ports"])
        ],
        "endpoints": [
            {
                "addresses": [address],
                "nodeName": "here" if address in _LOCAL_PODS else "there",
                "conditions": random.choice(conditions),
            }
            for address in pods
        ],
    }


def _probe(random: Random, services: list[dict[str, Any]], settings: Settings) -> Probe:
    service = random.choice(services)
    port = random.choice(service["spec"]["ports"])
    proto = port["protocol"].lower()
    dst, dport = random.choice(_entries(service, port))
    if random.random() < 0.05:
        dport += 1
    chosen = random.random()
    if chosen < 0.3:
        flow = Flow(None, dst, dport, proto, local=True, mark=random.choice((0, 0, 0, 0, 1 << settings.masquerade_bit)))
        return Probe(flow, "established" if random.random() < 0.1 else "first")
    if dst == "127.0.0.1" and chosen < 0.9:
        return Probe(Flow("127.0.0.1", dst, dport, proto, local=True))
    if chosen < 0.6:
        pod, iif = (random.choice(_LOCAL_PODS), "in0") if chosen < 0.5 else (random.choice(_OTHER_PODS), "out1")
        flow = Flow(pod, dst, dport, proto, iif=iif)
    else:
        client, iif = random.choice(_CLIENTS)
        flow = Flow(client, dst, dport, proto, iif=iif)
    if proto == "tcp" and random.random() < 0.06:
        return Probe(Flow(flow.src, dst, dport, proto, iif=flow.iif, tcp_flags=random.choice(("RST", "SYN,ACK"))))
    return Probe(flow, random.choices(("first", "established", "reply"), (80, 12, 8))[0])


def _entries(service: dict[str, Any], port: dict[str, Any]) -> list[tuple[str, int]]:
    spec = service["spec"]
    found = [(spec["clusterIP"], port["port"])] * 2
    found += [(address, port["port"]) for address in spec.get("externalIPs", ())]
    found += [(item["ip"], port["port"]) for item in service["status"]["loadBalancer"].get("ingress", ())]
    if "nodePort" in port:
        found += [(address, port["nodePort"]) for address in (NODE_IP, NODE_IP, "10.3.0.1", "10.2.0.9", "127.0.0.1")]
    if "healthCheckNodePort" in spec:
        found.append((NODE_IP, spec["healthCheckNodePort"]))
    return found
