"""Topologies that only tests build: random ones, tied to neither scenario."""

import random
from ipaddress import IPv4Network

from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sandbox.scenarios import Gateway, Plan
from bookinfo_lab.sandbox.topology import Host


def random_plan(seed: int, *, meshed: bool = True, layout: str = "today", nodes: int = 2) -> Plan:
    """A Plan whose names, ports, addresses and CIDRs come from ``seed``."""
    chance = random.Random(seed)

    def word() -> str:
        return "".join(chance.choice("abcdefghkmnprstuvwxz") for _ in range(chance.randint(3, 9)))

    lan = IPv4Network(f"192.168.{chance.randint(4, 200)}.0/24")
    pods = IPv4Network(f"10.{chance.randint(1, 90)}.0.0/16")
    services = IPv4Network(f"10.{chance.randint(100, 200)}.{chance.randint(0, 15) * 16}.0/20")
    subnets = list(pods.subnets(new_prefix=24))
    names = [f"{word()}-{number}" for number in range(nodes)]
    hosts = tuple(
        Host(name, str(lan[20 + 7 * number]), str(subnets[chance.randint(number * 50, number * 50 + 49)]))
        for number, name in enumerate(names)
    )
    istio = f"{word()}-ingressgateway"
    kind = "router" if meshed else "ingress"
    gateway = Gateway(
        name=istio,
        namespace=f"{word()}-system",
        selector={"istio": "ingressgateway" if meshed else "ingress", "app": istio},
        ports=({"name": "http2", "port": 80, "targetPort": 8080, "nodePort": chance.randint(30000, 32767)},),
        command=("/usr/local/bin/pilot-agent", "proxy", kind),
        uid=1337 if meshed else 0,
    )
    return Plan(
        scenario=f"random {seed}",
        hosts=hosts,
        lan=str(lan),
        client=str(lan[100 + chance.randint(0, 100)]),
        pod_cidr=str(pods),
        service_cidr=str(services),
        gateway=gateway,
        meshed=meshed,
        layout=layout,
        namespace=word(),
        port=chance.randint(8000, 9999),
        names={role: f"{role[0]}-{word()}" for role in ("details", "ratings", "reviews", "productpage")},
    )


def topology(seed: int, **choices: object) -> scenarios.Topology:
    """The Topology of `random_plan`."""
    return scenarios.build(random_plan(seed, **choices))  # type: ignore[arg-type]
