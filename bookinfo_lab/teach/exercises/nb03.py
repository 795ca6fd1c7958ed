"""The checks of notebook 03, the pod."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bookinfo_lab.netfilter.istio_words import PORTS
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.teach.checks import Check, Step, as_address, as_number
from bookinfo_lab.teach.exercises.nb02 import named

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab
    from bookinfo_lab.trace import Trace

_HEALTH = next(port for port, use in PORTS.items() if use == "health checks")
_HERE = ("local", "lo", "")  # ways to "leave" that stay in the pod


def delivered_at(lab: "Lab", answer: Any) -> Iterator[Step]:
    """Where the pod's kernel delivers a connection to the port for health checks."""
    text = answer.strip() if isinstance(answer, str) else ""
    address, port = (as_address(text.rpartition(":")[0]), as_number(text.rpartition(":")[2]))
    yield Step("your answer is an address and a port", None not in (address, port), "As IP:PORT, such as 192.0.2.7:80.")
    coming = named(lab, "into the pod")
    yield Step("the address is that pod's", address == coming.packet.dst, f"The pod is {coming.place}.")
    rules = lab.rules(str(coming.place))
    packet = Packet(coming.packet.src, None, coming.packet.dst, _HEALTH, iif=coming.packet.iif)
    walk = rules.ruleset.walk(packet)
    ends = {outcome.destination for outcome in walk.outcomes if outcome.out == "local"}
    hint = f"Of the rules, {_decided(walk)}. Look: `{rules.command}`."
    yield Step("the kernel delivers a packet to that port in the pod", len(ends) == 1, hint)
    yield Step("the kernel delivers a packet to the port for health checks there", ends == {text}, hint)


def another_user(lab: "Lab", answer: Any) -> Iterator[Step]:
    """A packet of a process in the pod that leaves it though its user is not the proxy's."""
    is_packet = isinstance(answer, Packet)
    yield Step(
        "your answer is a packet", is_packet, "Build it: bookinfo_lab.Packet(src, sport, dst, dport, local=True)."
    )
    out, proxy = named(lab, "application out"), named(lab, "proxy out").packet
    hint = "A packet from here has local=True and the pod's own address as its source."
    yield Step("a process of this pod sends it", answer.local and answer.src == out.packet.src, hint)
    same = (answer.dst, answer.dport, answer.proto) == (out.packet.dst, out.packet.dport, out.packet.proto)
    yield Step("it goes where that of the application goes", same, f"That is {out.packet}.")
    yield Step("its user is told, and is not the proxy's", answer.uid not in (None, proxy.uid), "The field is uid.")
    rules = lab.rules(str(out.place))
    walk = rules.ruleset.walk(answer)
    told = "Some field that the rules ask for is not given, and the walk has an end for each case."
    yield Step("the walk has one end", len(walk.outcomes) == 1, told)
    outcome = walk.outcomes[0]
    leaves = outcome.verdict == "accept" and outcome.out not in _HERE
    yield Step("it leaves the pod", leaves, f"Of the rules, {_decided(walk)}. Look: `{rules.command}`.")


def leaving(lab: "Lab", answer: Any) -> Iterator[Step]:
    """The named packets of the pod's processes that leave the pod."""
    names = _as_names(answer)
    hint = "A list of names, such as ['proxy out']."
    yield Step("your answer is one or more names", bool(names), hint)
    pod = named(lab, "application out").place
    packets = {name: item.packet for name, item in lab.packets().items() if item.place == pod}
    unknown = [name for name in names if name not in packets]
    yield Step("each is a packet that meets this pod's rules", not unknown, f"Not so: {_listed(unknown)}.")
    others = [name for name in names if not packets[name].local]
    yield Step("each is sent by a process of this pod", not others, f"Not so: {_listed(others)}.")
    rules = lab.rules(str(pod))
    walks = {name: rules.ruleset.walk(packet) for name, packet in packets.items() if packet.local}
    leave = [name for name, walk in walks.items() if any(item.out not in _HERE for item in walk.outcomes)]
    staying = [name for name in names if name not in leave]
    hint = f"Not so: {_listed(staying)}. Of the rules, {_decided(walks[staying[0]])}." if staying else ""
    yield Step("each of them leaves the pod", not staying, hint)
    missing = [name for name in leave if name not in names]
    hint = f"There is another; of the rules, {_decided(walks[missing[0]])}." if missing else ""
    yield Step("no other of them leaves the pod", not missing, hint)


def _decided(walk: "Trace") -> str:
    """The last rule that the packet matched, in words."""
    met = [step.where for step in walk.steps if step.matched and re.fullmatch(r"\S+ \S+ \d+", step.where)]
    return f"the last that matches is {met[-1]}" if met else "none matches"


def _as_names(answer: Any) -> tuple[str, ...]:
    """The names that an answer says: one text, with commas or without, or several; empty for anything else."""
    given = answer.split(",") if isinstance(answer, str) else answer
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(item, str) for item in given):
        return ()
    return tuple(dict.fromkeys(item.strip() for item in given if item.strip()))


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:3])


CHECKS: Mapping[str, Check] = {"03-1": delivered_at, "03-2": another_user, "03-3": leaving}
