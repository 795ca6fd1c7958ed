"""Packets at random for the Services of `judge_services`: from pods, from other machines and from the node itself.

Pure.  Services come in as the API server has them, with the addresses and ports that it allocated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from judge_services import LISTENING, OUTSIDE, Ground
from kernel.flow import Flow

Origin = Literal["pod", "frame", "node"]
_KINDS = {
    "cluster": 30,
    "node port": 18,
    "external": 14,
    "balanced": 10,
    "ranged": 12,
    "pod": 6,
    "nothing": 8,
    "node": 6,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet to send: it is watched on ``node``, and comes from a pod, the other node's cable, or ``node`` itself.

    ``post`` names the pod or node whose process sends it; ``goes_on`` asks for the connection's next packet too.
    """

    node: str
    origin: Origin
    post: str
    flow: Flow
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where a packet may go to."""

    kind: str
    address: str
    port: int
    proto: str


def targets(services: Sequence[Mapping[str, Any]], ground: Ground) -> list[Target]:
    """Every entry of every Service, and what is none."""
    found: list[Target] = []
    for service in services:
        spec = service["spec"]
        balanced = [item["ip"] for item in service["status"].get("loadBalancer", {}).get("ingress", ()) if "ip" in item]
        for port in spec.get("ports", ()):
            proto = port["protocol"].lower()
            if spec.get("clusterIP", "None") != "None":
                found.append(Target("cluster", spec["clusterIP"], port["port"], proto))
                found.append(Target("nothing", spec["clusterIP"], port["port"] ^ 1, proto))
            if port.get("nodePort"):
                found += [Target("node port", address, port["nodePort"], proto) for address in ground.addresses]
            found += [Target("external", address, port["port"], proto) for address in spec.get("externalIPs", ())]
            kind = "ranged" if "loadBalancerSourceRanges" in spec else "balanced"
            found += [Target(kind, address, port["port"], proto) for address in balanced]
        if spec.get("healthCheckNodePort"):
            found.append(Target("node", ground.addresses[0], spec["healthCheckNodePort"], "tcp"))
    for pods in ground.pods:
        found += [
            Target("pod", pod, port, proto) for pod in pods for port in (*LISTENING, 7777) for proto in ("tcp", "udp")
        ]
    found += [Target("node", address, port, "tcp") for address in ground.addresses for port in (9, 10250)]
    found += [Target("nothing", address, 80, proto) for address in OUTSIDE for proto in ("tcp", "udp", "sctp")]
    return [target for target in found if ":" not in target.address]


def packets(
    random: Random,
    count: int,
    every: Sequence[Target],
    ground: Ground,
    pods: Mapping[str, tuple[str, str]],
    veths: Mapping[str, str],
) -> list[Sent]:
    """``count`` packets; ``veths`` are the interfaces by which each pod's packets reach its node."""
    by_kind = {kind: [target for target in every if target.kind == kind] for kind in _KINDS}
    kinds = [kind for kind in _KINDS if by_kind[kind]]
    weights = [_KINDS[kind] for kind in kinds]
    made: list[Sent] = []
    while len(made) < count:
        if made and random.random() < 0.15:  # the same client again: affinity remembers it
            made.append(random.choice(made))
            continue
        target = random.choice(by_kind[random.choices(kinds, weights)[0]])
        at = random.randrange(2)
        origin: Origin = random.choices(("pod", "frame", "node"), (45, 35, 20))[0]
        sent = _sent(random, target, at, origin, ground, pods, veths)
        if sent.flow.src != sent.flow.dst:
            made.append(sent)
    return made


def _sent(
    random: Random,
    target: Target,
    at: int,
    origin: Origin,
    ground: Ground,
    pods: Mapping[str, tuple[str, str]],
    veths: Mapping[str, str],
) -> Sent:
    node, other = ground.nodes[at], ground.nodes[1 - at]
    flow = Flow(None, target.address, target.port, target.proto)
    if target.kind in ("cluster", "pod") and random.random() < 0.05:
        flow = Flow(None, target.address, 0, "icmp")
    can_go_on = flow.proto in ("tcp", "udp") and random.random() < 0.4
    if origin == "pod":
        name = random.choice([name for name, (_, where) in pods.items() if where == node])
        return Sent(node, origin, name, _with(flow, pods[name][0], veths[name]), can_go_on)
    if origin == "frame":
        clients = (*OUTSIDE, *OUTSIDE, ground.addresses[1 - at], "172.18.0.1", *ground.pods[1 - at])
        return Sent(node, origin, other, _with(flow, random.choice(clients), "eth0"), False)
    is_own = target.address == ground.addresses[at]
    if target.kind == "node port" and is_own and random.random() < 0.3:
        flow = Flow(None, "127.0.0.1", target.port, target.proto)
    return Sent(node, origin, node, Flow(None, flow.dst, flow.dport, flow.proto, local=True), can_go_on)


def _with(flow: Flow, src: str, iif: str) -> Flow:
    return Flow(src, flow.dst, flow.dport, flow.proto, iif=iif)
