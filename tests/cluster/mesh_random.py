"""Random Services, VirtualServices and DestinationRules for the mesh's judge, the same ones for the same seed.

Pure.  Only what istiod and the sandbox both follow: a TCP and an SCTP port of one number are left out, because Envoy
refuses the two clusters of one name that istiod makes of them.
"""

from random import Random
from typing import Any

from mesh_objects import Object

_NAMES = (
    "http",
    "http-a",
    "http2",
    "grpc-x",
    "tcp",
    "https",
    "tls",
    "mongo",
    "mysql",
    "redis",
    "web",
    "udp-x",
    "x-http",
)
_APP_PROTOCOLS = ("", "", "", "http", "tcp", "https", "grpc", "kubernetes.io/h2c", "kubernetes.io/ws", "example.com/x")
_NUMBERS = (80, 443, 53, 25, 3306, 8080, 9090, 27017, 1234, 4321)
_TARGETS = ("", "", 8080, 7777, "web", "raw", "dns")
_APPS = ("web", "web", "store", "late", "far", "none")
_BALANCING = ("ROUND_ROBIN", "RANDOM", "LEAST_REQUEST", "LEAST_CONN")
_OUTSIDE = (["*.example.org"], ["a.shop.example.com", "b.example.org"], ["www.example.net"])


def objects(seed: int, services: int = 12, policies: int = 6) -> list[Object]:
    """Services and policies for them, all with the prefix ``random-SEED-``; the namespace is not in them."""
    random = Random(seed)
    given = [_service(random, f"random-{seed}-{number}") for number in range(services)]
    ports = {item["metadata"]["name"]: [port["port"] for port in item["spec"]["ports"]] for item in given}
    rules = [_policy(random, f"random-{seed}-{number}", ports) for number in range(policies)]
    balanced = [_balancing(random, host) for host in random.sample(sorted(ports), policies)]
    return [*given, *rules, *balanced]


def _object(group: str, kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _service(random: Random, name: str) -> Object:
    ports: dict[tuple[int, bool], Object] = {}
    for number in range(random.randint(1, 4)):
        transport = random.choice(("TCP", "TCP", "TCP", "UDP", "SCTP"))
        port: Object = {"name": f"{random.choice(_NAMES)}-{number}", "port": random.choice(_NUMBERS)}
        port["protocol"] = transport
        port |= {key: value for key, value in _more(random).items() if value}
        ports.setdefault((port["port"], transport == "UDP"), port)
    found = [*ports.values()]
    if len(found) == 1 and random.random() < 0.5:
        del found[0]["name"]
    spec: Object = {"ports": found, "selector": {"app": random.choice(_APPS)}}
    spec |= random.choice(({}, {}, {"clusterIP": "None"}, {"type": "NodePort"}, {"sessionAffinity": "ClientIP"}))
    spec |= random.choice(({}, {}, {"internalTrafficPolicy": "Local"}, {"publishNotReadyAddresses": True}))
    return _object("v1", "Service", name, spec)


def _more(random: Random) -> Object:
    return {"targetPort": random.choice(_TARGETS), "appProtocol": random.choice(_APP_PROTOCOLS)}


def _policy(random: Random, name: str, ports: dict[str, list[int]]) -> Object:
    gateways = random.choice(([], [], ["bookinfo-gateway"], ["shop", "mesh"], ["mesh"]))
    named = random.sample(sorted(ports), random.choice((1, 1, 2)))
    inside = sorted({*named, *random.choice(((), ("www.example.com",)))})
    hosts = inside if not gateways or "mesh" in gateways else random.choice(_OUTSIDE)
    rules = [_rule(random, ports) for _ in range(random.randint(1, 3))]
    spec = {"hosts": hosts, "http": rules} | ({"gateways": gateways} if gateways else {})
    return _object("networking.istio.io/v1", "VirtualService", name, spec)


def _rule(random: Random, ports: dict[str, list[int]]) -> Object:
    weights = random.choice(((0,), (30, 70)))
    route = [{"destination": _destination(random, ports)} | ({"weight": one} if one else {}) for one in weights]
    found: Object = {"route": route}
    if random.random() < 0.6:
        found["match"] = [_match(random) for _ in range(random.randint(1, 3))]
    found |= random.choice(({}, {"timeout": "500ms"}, {"name": "named"}))
    found |= random.choice(({}, {"retries": {"attempts": 0}}, {"retries": {"attempts": 4, "retryOn": "5xx,503"}}))
    delay = {"percentage": {"value": 0.5}, "fixedDelay": "1s"}
    return found | random.choice(({}, {}, {"fault": {"delay": delay}}, {"fault": {"abort": {"httpStatus": 500}}}))


def _destination(random: Random, ports: dict[str, list[int]]) -> Object:
    host = random.choice(sorted(ports))
    subset = random.choice(({}, {}, {"subset": "v1"}))
    return {"host": host, "port": {"number": random.choice(ports[host])}, **subset}


def _match(random: Random) -> Object:
    found: Object = random.choice(({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/b"}}, {"uri": {"regex": "/c.*"}}))
    found = dict(found)
    field: dict[str, Any] = random.choice(({"exact": "1"}, {"prefix": "2"}, {"regex": "3.*"}, {}))
    found |= random.choice(({}, {"headers": {"x-a": field}}))
    found |= random.choice(({}, {"method": {"exact": "GET"}}, {"authority": {"exact": "a.b"}}))
    return found | random.choice(({}, {"ignoreUriCase": True}, {"name": "match"}))


def _balancing(random: Random, host: str) -> Object:
    def policy() -> Object:
        simple = random.choice(_BALANCING)
        return random.choice(({}, {"trafficPolicy": {"loadBalancer": {"simple": simple}}}))

    subsets = [{"name": version, "labels": {"version": version}, **policy()} for version in ("v1", "v2")]
    return _object("networking.istio.io/v1", "DestinationRule", host, {"host": host, "subsets": subsets, **policy()})
