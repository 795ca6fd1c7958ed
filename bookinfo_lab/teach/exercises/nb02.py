"""The checks of notebook 02, the node."""

from collections.abc import Iterator, Mapping
from math import isclose
from typing import TYPE_CHECKING, Any

from bookinfo_lab.kube.objects import Objects
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.netfilter.chain_owners import chain_owner
from bookinfo_lab.teach.checks import Check, Step, as_address, as_fraction, as_name

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab
    from bookinfo_lab.sources.passing import Passing
    from bookinfo_lab.trace import Step as WalkStep
    from bookinfo_lab.trace import Trace

_ROUNDING = 0.006  # an answer may be rounded to two places
_FIRST = ("client to front door", "pod to front door")


def rewriting(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The place of the rule that rewrites the destination of the packet to the front door."""
    words = answer.split() if isinstance(answer, str) else []
    is_place = len(words) == 3 and words[2].isdecimal()
    yield Step("your answer names a table, a chain and a number", is_place, "For instance: nat PREROUTING 1.")
    table, chain, number = words[0], words[1], int(words[2])
    passing = named(lab, *_FIRST)
    walk, listed = walked(lab, passing), lab.rules(str(passing.place))
    rules, command = listed.ruleset, f"`{listed.command}`"
    changing = [step.where for step in walk.steps if _rewrites(step, "dst")]
    stop = f"The last jump on its way leads to {_last_jump(walk)}. Look: {command}."
    yield Step("a rule rewrites this packet's destination", bool(changing), stop)
    known = table in rules.tables and chain in rules.chains(table)
    yield Step("there is such a chain on the node", known, f"Look: {command}.")
    yield Step("that chain has a rule of that number", 0 < number <= rules.count(table, chain), f"Look: {command}.")
    where = f"{table} {chain} {number}"
    matched = [step.where for step in walk.steps if step.matched]
    yield Step("the packet matches that rule", where in matched, "The walk lists each rule that matched.")
    hint = "Compare the packet before and after that step: which of its addresses differ?"
    yield Step("that rule changes the packet's destination", where in changing, hint)


def seen_by_the_pod(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The source address that the pod behind the front door sees where another pod asks at the NodePort."""
    address = as_address(answer)
    yield Step("your answer is an IP address", address is not None, "An address looks like 192.0.2.7.")
    walk = walked(lab, named(lab, "pod to front door"))
    door = lab.front_door
    ready = ready_addresses(parse(lab.objects()), door.namespace, door.service)
    ends = {outcome.destination.rpartition(":")[0] for outcome in walk.outcomes}
    stop = f"It ends at {', '.join(sorted(ends))}; the last jump on its way leads to {_last_jump(walk)}."
    yield Step("the rules lead this packet to the front door's endpoints", bool(ends) and ends <= ready, stop)
    seen = {outcome.seen_as for outcome in walk.outcomes}
    met = [step.where for step in walk.steps if step.matched and step.where.startswith("nat ")]
    leaving = [where for where in met if "POSTROUTING" in where]
    meets = f"it matches {', '.join(leaving)}" if leaving else "no rule of table nat matches it"
    hint = f"Walk that packet. On its way out {meets}: what becomes of its source?"
    yield Step("the packet leaves with that address as its source", seen == {str(address)}, hint)


def same_endpoint(lab: "Lab", answer: Any) -> Iterator[Step]:
    """How likely it is that two new connections to the Service get to the same endpoint."""
    chance = as_fraction(answer)
    yield Step("your answer is a number from 0 to 1", chance is not None and 0 <= chance <= 1, "Or a percentage.")
    passing = named(lab, "pod to Service")
    walk = walked(lab, passing)
    objects = parse(lab.objects())
    entry = passing.packet.dst
    services = [item for item in objects.services if entry in item.cluster_ips]
    yield Step("a Service has the address that is asked", len(services) == 1, f"Look: `{lab.services().command}`.")
    ready = ready_addresses(objects, services[0].namespace, services[0].name)
    ends = {outcome.destination.rpartition(":")[0] for outcome in walk.outcomes}
    chains = [step.where.split()[1] for step in walk.steps if "KUBE-SEP-" in step.verdict]
    where = f"Look at {chains[0] if chains else _last_jump(walk)} (`{lab.rules(str(passing.place)).command} -t nat`)."
    yield Step("the rules lead to every ready endpoint of the Service, and nowhere else", ends == ready, where)
    yield Step("the Service has more than one endpoint", len(ends) > 1, f"Look: `{lab.endpoints().command}`.")
    wanted = sum(outcome.probability**2 for outcome in walk.outcomes)
    hint = f"The first connection may get any endpoint; the second must get that one. {where}"
    is_near = chance is not None and isclose(chance, wanted, abs_tol=_ROUNDING)
    yield Step("two connections meet at one endpoint with that probability", is_near, hint)


def endpoint_chain(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The chain of an endpoint of the front door's Service port."""
    name = as_name(answer)
    yield Step("your answer is a chain's name", name is not None, "Give the name as text.")
    rules = lab.rules(str(named(lab, *_FIRST).place))
    command, given = f"`{rules.command} -t nat`", name or ""
    known = "nat" in rules.ruleset.tables and given in rules.ruleset.chains("nat")
    spelled = "The text is the Service port's name, the protocol in lower case, and IP:PORT, with nothing between them."
    yield Step("table nat of the node has a chain of that name", known, f"{spelled} Look: {command}.")
    yield Step("it is the chain of an endpoint", given.startswith("KUBE-SEP-"), "Those are KUBE-SEP-….")
    owner, door = chain_owner(given, lab.objects()), lab.front_door
    ours = (owner.service, owner.port_name) == (f"{door.namespace}/{door.service}", door.port_name)
    yield Step("its name is made of the front door's Service and port", ours, f"Those are in {door!r}.")
    leads = [rule for rule in rules.ruleset.rules("nat", given) if f"--to-destination {owner.endpoint}" in rule.text]
    yield Step("its rules lead to the endpoint that its name is made of", bool(leads), f"Look at {given}: {command}.")


def named(lab: "Lab", *names: str) -> "Passing":
    """The first of the lab's packets with one of these names; LabError, which says why, where it has none of them."""
    packets = lab.packets()
    return packets[next((name for name in names if name in packets), names[-1])]


def walked(lab: "Lab", passing: "Passing") -> "Trace":
    """The packet's way through its place's rules as they are now."""
    return lab.rules(str(passing.place)).ruleset.walk(passing.packet)


def ready_addresses(objects: Objects, namespace: str, service: str) -> set[str]:
    """The addresses of a Service's ready endpoints."""
    slices = [item for item in objects.endpoint_slices if (item.namespace, item.service) == (namespace, service)]
    return {address for item in slices for one in item.endpoints if one.ready for address in one.addresses}


def _rewrites(step: "WalkStep", name: str) -> bool:
    return dict(step.before).get(name) != dict(step.after).get(name)


def _last_jump(walk: "Trace") -> str:
    """The chain that the packet was last sent to before it was routed."""
    chain = "no chain"
    for step in walk.steps:
        if step.where == "routing":
            break
        if step.verdict.startswith(("jump ", "goto ")):
            chain = step.verdict.split()[1]
    return chain


CHECKS: Mapping[str, Check] = {
    "02-1": rewriting,
    "02-2": seen_by_the_pod,
    "02-3": same_endpoint,
    "02-4": endpoint_chain,
}
