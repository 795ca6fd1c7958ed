"""Services and EndpointSlices at random, as API objects: everything that kube-proxy's rules depend on, well mixed.

Pure.  The same seed, count and `Ground` give the same objects; addresses and ports that the API server allocates are
not among them.  Slices are written by hand, so that each readiness, zone, hint and target port is chosen here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

PROTOCOLS = ("TCP", "TCP", "TCP", "UDP", "UDP", "SCTP")
ZONES = ("east", "west")
LISTENING = (8080, 8081, 9090)  # where the pods answer
TARGETS = (*LISTENING, 7777)
EXTERNAL = "198.51.100"
BALANCED = "203.0.113"
OUTSIDE = ("192.0.2.7", "100.64.0.9", "8.8.8.8")  # clients from elsewhere
_STATES: tuple[dict[str, bool], ...] = (
    {"ready": True, "serving": True, "terminating": False},
    {"ready": True, "serving": True, "terminating": False},
    {"ready": True},
    {},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False, "terminating": True},
    {"ready": False, "serving": False, "terminating": True},
    {"ready": False, "serving": False, "terminating": False},
    {"ready": False},
    {"ready": True, "serving": True, "terminating": True},
)
_RANGES = (
    ["192.0.2.0/24"],
    ["100.64.0.0/10", "192.0.2.0/25"],
    ["172.18.0.0/16"],
    ["10.244.0.0/16", "8.8.8.8/32"],
    ["198.18.0.0/15"],
    ["192.0.2.9/24"],  # with host bits
    ["0.0.0.0/0"],
    ["8.8.8.0/24", "0.0.0.0/0"],
    ["fd00::/8"],
    ["192.0.2.0/24", "fd00::/8"],
    [" 192.0.2.0/24 ", "8.8.8.8/32"],  # white space, which the API server lets pass
    ["192.0.2.0/24", "192.0.2.0/24"],
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the endpoints are: each node's name, address, its pods' addresses, and others of its pod range."""

    nodes: tuple[str, ...]
    addresses: tuple[str, ...]
    pods: tuple[tuple[str, ...], ...]
    unused: tuple[tuple[str, ...], ...]


Objects = list[dict[str, Any]]


def drawn(seed: str, count: int, namespace: str, ground: Ground) -> tuple[Objects, Objects]:
    """``count`` Services with their status, and their EndpointSlices."""
    services: Objects = []
    slices: Objects = []
    for number in range(count):
        random = Random(f"{seed}/{number}")
        service = _service(random, f"s{number:03}", namespace, ground)
        services.append(service)
        if service["spec"].get("type") != "ExternalName":
            slices += _slices(random, service, ground)
    return services, slices


def _service(random: Random, name: str, namespace: str, ground: Ground) -> dict[str, Any]:
    kind = random.choices(("ClusterIP", "NodePort", "LoadBalancer", "Headless", "ExternalName"), (32, 26, 34, 6, 2))[0]
    meta: dict[str, Any] = {"name": name, "namespace": namespace}
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"ports": _ports(random)},
    }
    spec = service["spec"]
    if kind == "ExternalName":
        return service | {"spec": {"type": kind, "externalName": "example.com"}}
    spec["type"] = "ClusterIP" if kind == "Headless" else kind
    if kind == "Headless":
        spec["clusterIP"] = "None"
        return service
    if random.random() < 0.03:
        meta["labels"] = {f"service.kubernetes.io/{random.choice(('service-proxy-name', 'headless'))}": "another"}
    if random.random() < 0.3:
        spec["internalTrafficPolicy"] = "Local"
    if random.random() < 0.25:
        timeout = random.choice((1, 60, 10800, 86400))
        spec["sessionAffinity"] = "ClientIP"
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": timeout}}
    if random.random() < 0.25:
        spec["externalIPs"] = _external_ips(random, ground)
    if (kind != "ClusterIP" or "externalIPs" in spec) and random.random() < 0.45:
        spec["externalTrafficPolicy"] = "Local"
    if kind == "LoadBalancer":
        if random.random() < 0.5:
            spec["loadBalancerSourceRanges"] = random.choice(_RANGES)
        if random.random() < 0.2:
            spec["allocateLoadBalancerNodePorts"] = False
        if random.random() < 0.9:
            service["status"] = {"loadBalancer": {"ingress": _ingress(random, spec.get("externalIPs", []))}}
    return service


def _ports(random: Random) -> list[dict[str, Any]]:
    count = random.choices((1, 2, 3), (5, 4, 1))[0]
    taken: set[tuple[str, int]] = set()
    found: list[dict[str, Any]] = []
    while len(found) < count:
        # A port's number may be there twice, for two protocols.
        number = found[-1]["port"] if found and random.random() < 0.3 else random.randint(80, 9000)
        protocol = random.choice(PROTOCOLS)
        if (protocol, number) not in taken:
            taken.add((protocol, number))
            found.append({"name": f"p{len(found)}", "protocol": protocol, "port": number})
    if count == 1 and random.random() < 0.4:
        del found[0]["name"]
    return found


def _external_ips(random: Random, ground: Ground) -> list[str]:
    chosen = [f"{EXTERNAL}.{random.randint(1, 250)}" for _ in range(random.randint(1, 2))]
    if random.random() < 0.2:
        chosen.append(random.choice(ground.addresses))
    if random.random() < 0.1:
        chosen.append("2001:db8::7")
    if random.random() < 0.05:
        chosen.append(chosen[0])
    return chosen


def _ingress(random: Random, external: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if external and random.random() < 0.2:
        found.append({"ip": random.choice(external)})
    for _ in range(random.randint(1, 2)):
        item: dict[str, Any] = {"ip": f"{BALANCED}.{random.randint(1, 250)}"}
        if random.random() < 0.3:
            item["ipMode"] = random.choice(("VIP", "Proxy"))
        found.append(item)
    if random.random() < 0.1:
        found.append({"hostname": "lb.example.com"})
    if random.random() < 0.1:
        found.append({"ip": "2001:db8::8"})
    if random.random() < 0.05:
        found.append(dict(found[0]))
    return found


def _slices(random: Random, service: dict[str, Any], ground: Ground) -> Objects:
    """0-7 endpoints in up to three slices; each slice has its own target ports."""
    wanted = random.choices(range(8), (2, 4, 5, 4, 3, 2, 1, 1))[0]
    hinting = random.choices(("none", "zones", "nodes", "some"), (60, 20, 10, 10))[0]
    given = [_endpoint(random, ground, hinting) for _ in range(wanted)]
    given = [*{item["addresses"][0]: item for item in given}.values()]
    count = random.choices((0, 1, 2, 3), (0 if given else 1, 5, 3, 2))[0]
    found = [_slice(service, number, "IPv4", _targets(random, service)) for number in range(count)]
    for item in given:
        random.choice(found)["endpoints"].append(item)
    if count > 1 and found[1]["endpoints"] and random.random() < 0.3:  # it moves from one slice to another
        again = dict(found[1]["endpoints"][0])
        if again["addresses"] not in [item["addresses"] for item in found[0]["endpoints"]]:
            found[0]["endpoints"].append(again)
    if count and random.random() < 0.1:
        found[0]["endpoints"].append(_ghost())
    if random.random() < 0.05:
        sixth = _slice(service, 6, "IPv6", _targets(random, service))
        sixth["endpoints"].append({"addresses": ["2001:db8::9"], "nodeName": ground.nodes[0]})
        found.append(sixth)
    if random.random() < 0.03:
        named = _slice(service, 7, "FQDN", _targets(random, service))
        named["endpoints"].append({"addresses": ["example.com"]})
        found.append(named)
    return found


def _slice(service: dict[str, Any], number: int, family: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    meta = service["metadata"]
    labels = {
        "kubernetes.io/service-name": meta["name"],
        "endpointslice.kubernetes.io/managed-by": "bookinfo-lab-tests",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{meta['name']}-{number}", "namespace": meta["namespace"], "labels": labels},
        "addressType": family,
        "ports": ports,
        "endpoints": [],
    }


def _targets(random: Random, service: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for port in service["spec"]["ports"]:
        chance = random.random()
        if chance < 0.04:  # a pod that lacks the named port
            continue
        item = {"name": port.get("name", ""), "protocol": port["protocol"], "port": random.choice(TARGETS)}
        if chance > 0.98:
            del item["port"]
        elif chance > 0.96:  # a port of that name, but for another protocol
            item["protocol"] = "TCP" if port["protocol"] != "TCP" else "UDP"
        found.append(item)
    if random.random() < 0.1:
        found.append({"name": "other", "protocol": "TCP", "port": 9999})
    return found


def _endpoint(random: Random, ground: Ground, hinting: str) -> dict[str, Any]:
    at = random.randrange(len(ground.nodes))
    chance = random.random()
    item: dict[str, Any] = {"conditions": dict(random.choice(_STATES)), "nodeName": ground.nodes[at]}
    if chance < 0.55:
        address = random.choice(ground.pods[at])
    elif chance < 0.9:
        address = random.choice(ground.unused[at])
    elif chance < 0.95:
        address = ground.addresses[at]  # a pod in the node's own network
    else:
        address = f"198.18.0.{random.randint(1, 250)}"
        del item["nodeName"]
    item["addresses"] = [address] if random.random() < 0.97 else [address, "198.18.2.2"]
    if random.random() < 0.5:
        item["zone"] = random.choice(ZONES)
    if hinting == "nodes":
        item["hints"] = {"forNodes": [{"name": random.choice(ground.nodes)}]}
    elif hinting == "zones" or (hinting == "some" and random.random() < 0.6):
        item["hints"] = {"forZones": [{"name": random.choice((*ZONES, "south"))}]}
    return item


def _ghost() -> dict[str, Any]:
    return {"addresses": ["198.18.1.1"], "conditions": {"ready": True}, "nodeName": "a-node-that-is-gone"}


def described(services: Objects, slices: Objects) -> str:
    """One line: how many of what."""
    specs = [item["spec"] for item in services]
    endpoints = [item for part in slices for item in part["endpoints"]]
    counts: Sequence[tuple[str, int]] = (
        ("Services", len(services)),
        ("NodePort", sum(spec.get("type") == "NodePort" for spec in specs)),
        ("LoadBalancer", sum(spec.get("type") == "LoadBalancer" for spec in specs)),
        ("external IPs", sum("externalIPs" in spec for spec in specs)),
        ("source ranges", sum("loadBalancerSourceRanges" in spec for spec in specs)),
        ("external policy Local", sum(spec.get("externalTrafficPolicy") == "Local" for spec in specs)),
        ("internal policy Local", sum(spec.get("internalTrafficPolicy") == "Local" for spec in specs)),
        ("affinity", sum(spec.get("sessionAffinity") == "ClientIP" for spec in specs)),
        ("slices", len(slices)),
        ("endpoints", len(endpoints)),
        ("not ready", sum(item.get("conditions", {}).get("ready") is False for item in endpoints)),
        ("with hints", sum("hints" in item for item in endpoints)),
    )
    return ", ".join(f"{count} {what}" for what, count in counts)
