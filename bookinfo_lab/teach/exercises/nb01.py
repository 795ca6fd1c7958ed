"""The checks of notebook 01, the front door."""

from collections.abc import Iterator, Mapping
from math import isclose
from typing import TYPE_CHECKING, Any

from bookinfo_lab.kube.objects import Objects, Service
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.netfilter import jumps
from bookinfo_lab.netfilter.tables import Table, parse_save
from bookinfo_lab.teach.checks import Check, Step, as_fraction, as_name, as_number

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab

_ROUNDING = 0.006  # an answer may be rounded to two places; the kernel keeps steps of 1/2^31


def node_ports(lab: "Lab", answer: Any) -> Iterator[Step]:
    """How many node ports the cluster opens."""
    number = as_number(answer)
    yield Step("your answer is a whole number", number is not None, "Count ports, and give the count.")
    services = parse(lab.objects("services")).services
    opened = [port for service in services for port in service.ports if port.node_port]
    look = f"In PORT(S) a node port stands after the colon (`{lab.services().command}`)."
    yield Step("it counts node ports, not Services", number != _exposed(services) or number == len(opened), look)
    yield Step("as many node ports are open", number == len(opened), look)


def behind_the_door(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The pod that a request to the node port reaches."""
    name = as_name(answer)
    yield Step("your answer is a pod's name", name is not None, "Give the name as text.")
    objects = parse(lab.objects())
    pods = [pod for pod in objects.pods if pod.name == name]
    yield Step("there is a pod of that name", bool(pods), f"Look: `{lab.pods().command}`.")
    door = lab.front_door
    ready = _ready(objects, door.namespace, door.service)
    where = f"its EndpointSlice (`{lab.endpoints().command}`)"
    yield Step("the front door's Service has a ready endpoint", bool(ready), f"There is none in {where}.")
    own = {str(address) for pod in pods for address in pod.pod_ips}
    yield Step("that pod's address is an endpoint of the front door's Service", bool(own & ready), f"Look in {where}.")
    rules = lab.rules(door_node(lab))
    entry = [line for line in rules.chain("nat", "KUBE-NODEPORTS").lines if f"--dport {door.node_port} " in f"{line} "]
    found = f"Look: `{rules.command} -t nat`."
    yield Step("chain KUBE-NODEPORTS of table nat has a rule for the node port", bool(entry), found)
    led = jumps.reach(tables(lab), "nat", entry)
    last = led.chains[-1] if led.chains else "KUBE-NODEPORTS"
    stop = f"Chain {(led.ends or (last,))[-1]} leads nowhere on. {found}"
    yield Step("the rules lead from the node port to an address", bool(led.destinations), stop)
    reached = {destination.rpartition(":")[0] for destination in led.destinations}
    yield Step("the rules lead from the node port to that pod's address", bool(own & reached), found)


def chances(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The probability printed in the second rule of the busiest Service's chain, and its effective chance."""
    is_pair = isinstance(answer, list | tuple) and len(answer) == 2
    yield Step("your answer is a pair: (printed, effective)", is_pair, "For instance (0.25, 0.1).")
    printed, effective = (as_fraction(part) for part in answer)
    yield Step("both are numbers", None not in (printed, effective), "Give numbers from 0 to 1.")
    endpoints, told = balancing(lab)
    where = f"Look: `{lab.rules(door_node(lab)).command} -t nat`, at the chain that its ClusterIP jumps to."
    yield Step("the Service has a rule for each of its ready endpoints", endpoints == len(told), where)
    yield Step("the second rule prints a probability", len(told) > 2 and told[1] is not None, where)
    yield Step("the first number is what the second rule prints", _near(printed, told[1]), where)
    own = "Only packets that the first rule left reach the second: multiply what was left by what is printed."
    yield Step("the second number is the share of all connections", _near(effective, jumps.effective(told)[1]), own)


def masquerading(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The chain whose rule gives the packet the node's address."""
    name = as_name(answer)
    yield Step("your answer is a chain's name", name is not None, "Give the name as text, as iptables prints it.")
    chains = {chain.name: chain.rules for table in tables(lab) if table.name == "nat" for chain in table.chains}
    command = f"`{lab.rules(door_node(lab)).command} -t nat`"
    yield Step("table nat of the node has a chain of that name", name in chains, f"Look: {command}.")
    base = jumps.reach(tables(lab), "nat", chains.get("POSTROUTING", ()))
    hint = (
        f"A source address is given when the way out is known: where does a packet pass after routing? Look: {command}."
    )
    yield Step("a packet can come there from POSTROUTING", name in base.chains, hint)
    does = "MASQUERADE" in jumps.targets(chains.get(name or "", ()))
    reader = f"A mark alone rewrites no address: what reads the mark? Look: {command}."
    yield Step("that chain has a rule that masquerades", does, reader)


def door_node(lab: "Lab") -> str:
    """The target name of the node that the front door's URL names."""
    owners = [owner for owner in lab.who_is(lab.front_door.node_address) if owner.kind == "Node"]
    return f"node/{owners[0].name}" if owners else "node"


def tables(lab: "Lab") -> tuple[Table, ...]:
    """The tables of that node."""
    rules = lab.rules(door_node(lab))
    return parse_save(rules.text, rules.command)


def balancing(lab: "Lab") -> tuple[int, tuple[float | None, ...]]:
    """The Service with the most ready endpoints: how many those are, and what each rule that chooses one prints."""
    objects = parse(lab.objects())
    services = [service for service in objects.services if service.cluster_ips and len(service.ports) == 1]
    busiest = max(services, key=lambda item: len(_ready(objects, item.namespace, item.name)))
    chains = {chain.name: chain.rules for table in tables(lab) if table.name == "nat" for chain in table.chains}
    entry = [rule for rule in chains.get("KUBE-SERVICES", ()) if f"-d {busiest.cluster_ips[0]}/32 " in rule]
    service = [target for target in jumps.targets(entry) if target.startswith("KUBE-SVC-")]
    choosing = [rule for rule in chains.get(service[0], ()) if _chooses(rule)] if service else []
    return len(_ready(objects, busiest.namespace, busiest.name)), jumps.probabilities(choosing)


def _chooses(rule: str) -> bool:
    return any(target.startswith("KUBE-SEP-") for target in jumps.targets([rule]))


def _exposed(services: tuple[Service, ...]) -> int:
    return sum(any(port.node_port for port in service.ports) for service in services)


def _ready(objects: Objects, namespace: str, service: str) -> set[str]:
    """The addresses of a Service's ready endpoints."""
    slices = [item for item in objects.endpoint_slices if (item.namespace, item.service) == (namespace, service)]
    return {address for item in slices for one in item.endpoints if one.ready for address in one.addresses}


def _near(given: float | None, wanted: float | None) -> bool:
    return given is not None and wanted is not None and isclose(given, wanted, abs_tol=_ROUNDING)


CHECKS: Mapping[str, Check] = {"01-1": node_ports, "01-2": behind_the_door, "01-3": masquerading, "01-4": chances}
