"""What a walk says of a packet, as far as the kernel can be asked about it.

Pure.  The one module beside `running` that reads what the package under test returns: a `Trace` becomes predictions,
one for each outcome.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from kernel.flow import Flow, Observation

from bookinfo_lab.netfilter.packet import ConnectionState, Packet
from bookinfo_lab.trace import Outcome, Step, Trace

Place = tuple[str, str, str, int]  # rule or policy, table, chain, number from 1 (0 for a policy)

_RULE = re.compile(r"(raw|mangle|nat|filter|security) (\S+) (\d+)")
_POLICY = re.compile(r"policy (\S+) (\S+)")
_REPLY = re.compile(r"comes from (\S+) to (\S+), goes on from (\S+) to (\S+)")
_KEPT = "its addresses stay as they are"


@dataclass(frozen=True, slots=True)
class Passed:
    """A rule that matched, or a policy; ``is_certain`` False where the walk leaves open whether it matches."""

    place: Place
    mark: int
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Prediction:
    """One outcome in the oracle's words; addresses are texts ``IP:PORT``, "" where the walk leaves them open."""

    passed: tuple[Passed, ...]
    verdict: Literal["delivered", "left", "dropped", "rejected", "unrouted", "unknown"]
    out: str
    src: str
    dst: str
    mark: int
    ctmark: int
    answer: str
    reply: tuple[str, ...] | None
    probability: float
    steps: tuple[Step, ...]
    outcome: Outcome


def packet_of(flow: Flow, seen: Observation, direction: str) -> Packet | None:
    """The question for the walk; None where the packet's source is not known, since it met no hook."""
    src = flow.src or (seen.sent.src if seen.sent else None)
    if src is None:
        return None
    has_ports = not flow.proto.startswith("icmp")
    return Packet(
        ip_address(src),
        seen.flow.sport if has_ports else None,
        ip_address(flow.dst),
        flow.dport if has_ports else None,
        flow.proto,
        None if flow.local else flow.iif,
        flow.local,
        (flow.uid or 0) if flow.local else None,
        (flow.gid or 0) if flow.local else None,
        flow.mark,
        "established" if direction == "established" else state_of(flow),
        flow.icmp_type,
        flow.icmp_code,
    )


def state_of(flow: Flow) -> ConnectionState:
    """What connection tracking makes of a packet that belongs to no connection (nf_conntrack_proto_*.c)."""
    if flow.proto == "tcp" and flow.tcp_flags != "SYN":
        return "invalid"
    can_begin = {"icmp": (None, 8, 13, 15, 17), "icmpv6": (None, 128, 139)}
    return "new" if flow.icmp_type in can_begin.get(flow.proto, (flow.icmp_type,)) else "invalid"


def predictions(trace: Trace) -> tuple[Prediction, ...]:
    """One for each outcome."""
    return tuple(_prediction(trace.branch(outcome), outcome) for outcome in trace.outcomes)


def _prediction(steps: tuple[Step, ...], outcome: Outcome) -> Prediction:
    last = dict(steps[-1].after) if steps else {}
    # The kernel tells of an entry when its first packet leaves or is delivered: what comes in again by lo is later.
    confirmed = next((dict(step.before) for step in steps if step.where == "lo"), last)
    passed = tuple(item for step in steps if (item := _passed(step)) is not None)
    return Prediction(
        passed,
        _verdict(steps, outcome),
        outcome.out,
        _known(last.get("src", "")),
        _known(last.get("dst", "")),
        outcome.mark,
        int(confirmed.get("ctmark", "0"), 0),
        outcome.answer,
        _reply(outcome.reply),
        outcome.probability,
        steps,
        outcome,
    )


def _passed(step: Step) -> Passed | None:
    mark = int(dict(step.after).get("mark", "0"), 0)
    if policy := _POLICY.fullmatch(step.where):
        return Passed(("policy", policy[1], policy[2], 0), mark)
    rule = _RULE.fullmatch(step.where)
    if rule is None or step.matched is False:
        return None
    # What ends a branch as unknown is no claim that the rule matched.
    return Passed(("rule", rule[1], rule[2], int(rule[3])), mark, step.matched is True)


def _verdict(
    steps: tuple[Step, ...], outcome: Outcome
) -> Literal["delivered", "left", "dropped", "rejected", "unrouted", "unknown"]:
    if outcome.verdict == "accept":
        return "delivered" if outcome.out == "local" else "left"
    if outcome.verdict == "reject":
        return "rejected"
    if outcome.verdict == "unknown":
        return "unknown"
    where = steps[-1].where if steps else ""
    return "dropped" if _RULE.fullmatch(where) or _POLICY.fullmatch(where) else "unrouted"


def _known(text: str) -> str:
    return "" if text.startswith("an address") else text


def _reply(text: str) -> tuple[str, ...] | None:
    """(from, to, on from, on to); empty where an answer's addresses stay, None where nothing is said."""
    if text == _KEPT:
        return ()
    found = _REPLY.fullmatch(text)
    return found.groups() if found else None
