"""A walk's steps and a kernel's events as rows, aligned by rule.

Pure.  Steps that matched, policies and steps that could not be told come in with the events of one packet; rows go out
in the packet's order.  A row's ``same`` is True where both have the step alike, False where one has it alone or they
differ, None where there is nothing to compare.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from ipaddress import ip_address

from bookinfo_lab.trace import Outcome, Step

from .attempt import Attempt
from .kernel_trace import Event, Header, base_chains, rule_numbers

_RULE = re.compile(r"(\S+) (\S+) \d+")
_POLICY = re.compile(r"policy (\S+) (\S+)")
_OPEN = "cannot be told"
_NO_CHAIN = "the kernel has no such chain: it has no rule"
# What ends a walk through a hook is one of these to the kernel; a NAT target accepts the packet and changes it.
_TO_KERNEL = {
    "continue": "continue",
    "return": "return",
    "accept": "accept",
    "drop": "drop",
    "reject": "drop",
    "dnat": "accept",
    "snat": "accept",
    "masquerade": "accept",
    "redirect": "accept",
    "netmap": "accept",
    "tproxy": "accept",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One place: what the walk has there and what the kernel has, "" where it has nothing.

    ``text`` is the rule, as the kernel has it where it was seen.  ``is_rule`` tells rules from policies and from what
    was read of the connection.
    """

    where: str
    text: str
    predicted: str
    kernel: str
    same: bool | None
    is_rule: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """An event with the place that a walk's step would name."""

    where: str
    event: Event
    is_first: bool


def predicted(branch: Sequence[Step]) -> tuple[Step, ...]:
    """The steps of a branch that a kernel's trace would show, or might: what matched, and policies."""
    return tuple(
        step
        for step in branch
        if (step.matched is not False and _RULE.fullmatch(step.where)) or _POLICY.fullmatch(step.where)
    )


def read_events(events: Sequence[Event], handles: str) -> tuple[Place, ...]:
    """Each event with its place: handles become numbers by ``handles``, what ``nft -a list ruleset`` printed."""
    numbers = rule_numbers(handles)
    found = []
    header = None
    for item in events:
        is_first = item.header is not None and item.header is not header
        header = item.header
        if item.kind == "rule":
            chain, number = numbers.get((item.family, item.table, item.handle), ("", 0))
            named = str(number) if chain == item.chain else f"handle {item.handle}"
            found.append(Place(f"{item.table} {item.chain} {named}", item, is_first))
        elif item.kind == "policy":
            found.append(Place(f"policy {item.table} {item.chain}", item, is_first))
    return tuple(found)


def lay(steps: Sequence[Step], places: Sequence[Place], handles: str) -> tuple[Row, ...]:
    """Both side by side, in order; ``handles`` as `read_events` takes it."""
    there = base_chains(handles)
    matcher = SequenceMatcher(None, [step.where for step in steps], [place.where for place in places], autojunk=False)
    rows: list[Row] = []
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            rows += [_both(step, place) for step, place in zip(steps[start:end], places[first:last], strict=True)]
        else:
            rows += [_only_predicted(step, there) for step in steps[start:end]]
            rows += [_only_seen(place) for place in places[first:last]]
    return tuple(rows)


def _both(step: Step, place: Place) -> Row:
    event = place.event
    if step.matched is None and event.kind == "rule":
        return Row(step.where, event.text, _OPEN, event.verdict, None)
    differing = _differing(step, event.header) if place.is_first and event.header else []
    is_same = _is_same_verdict(step.verdict, event.verdict) and not differing
    said = [f"{name} {predicted}" for name, predicted, _ in differing]
    saw = [f"{name} {actual}" for name, _, actual in differing]
    is_rule = event.kind == "rule"
    return Row(step.where, event.text, _words(step.verdict, said), _words(event.verdict, saw), is_same, is_rule)


def _words(verdict: str, more: Sequence[str]) -> str:
    return ", ".join([verdict, *more])


def _only_predicted(step: Step, there: Collection[tuple[str, str]]) -> Row:
    """A step that was not seen; a policy of a chain that only iptables-save shows cannot be."""
    policy = _POLICY.fullmatch(step.where)
    if policy and (policy[1], policy[2]) not in there and step.verdict == "accept":
        return Row(step.where, step.what, step.verdict, _NO_CHAIN, None, False)
    is_open = step.matched is None and _RULE.fullmatch(step.where) is not None
    said = _OPEN if is_open else step.verdict
    return Row(step.where, step.what, said, "", None if is_open else False, _RULE.fullmatch(step.where) is not None)


def _only_seen(place: Place) -> Row:
    """A rule that the walk does not have differs; an accepting policy that it does not mention is no contradiction."""
    event = place.event
    is_silent = event.kind == "policy" and event.verdict == "accept"
    return Row(place.where, event.text, "", event.verdict, None if is_silent else False, event.kind == "rule")


def _is_same_verdict(said: str, seen: str) -> bool:
    word = said.partition(" ")[0].lower()
    return said == seen if word in ("jump", "goto") else _TO_KERNEL.get(word, word) == seen


def _differing(step: Step, header: Header) -> list[tuple[str, str, str]]:
    """(name, predicted, actual) of what the walk says of the packet and the kernel shows otherwise.

    A target rewrites addresses when its hook is over, but a mark at once: addresses are those before the step.
    """
    before, after = dict(step.before), dict(step.after)
    found = [
        (name, told, actual)
        for name, actual, port in (("src", header.src, header.sport), ("dst", header.dst, header.dport))
        if (told := before.get(name, "")) and actual and not _is_address(told, actual, port)
    ]
    found += [
        (name, told, actual)
        for name, actual in (("in", header.iif), ("out", header.oif))
        if (told := before.get(name, "")) and actual and told != actual
    ]
    mark = _number(after.get("mark", ""))
    if mark is not None and mark != header.mark:
        found.append(("mark", f"{mark:#x}", f"{header.mark:#x}"))
    return found


def _number(text: str) -> int | None:
    try:
        return int(text.partition("/")[0], 0)
    except ValueError:
        return None


def _is_address(told: str, address: str, port: int | None) -> bool:
    """Whether ``IP``, ``IP:PORT`` or ``[IP]:PORT`` names this address, as far as it says anything."""
    told = told.strip()
    if told.startswith("["):
        host, _, number = told[1:].partition("]:")
    elif told.count(":") == 1:
        host, _, number = told.partition(":")
    else:
        host, number = told, ""
    return _same_ip(host, address) and (not number.isdecimal() or port is None or int(number) == port)


def _same_ip(told: str, actual: str) -> bool:
    """Also where one is written in full, as /proc/net/nf_conntrack writes IPv6."""
    try:
        return ip_address(told) == ip_address(actual)
    except ValueError:
        return told == actual


def ends(outcome: Outcome, attempt: Attempt, events: Sequence[Event]) -> tuple[Row, ...]:
    """What the walk says of the packet's end beside the interface it left by and its conntrack entry."""
    rows = []
    oif = next((item.header.oif for item in reversed(events) if item.header and item.header.oif), "")
    if outcome.verdict == "accept" and outcome.out and oif:
        is_same = outcome.out == oif or (outcome.out, oif) == ("local", "lo")
        rows.append(Row("leaves by", "", outcome.out, oif, is_same, False))
        if not is_same and not _is_seen_leaving(attempt.handles):
            rows[-1] = Row("leaves by", "", outcome.out, "not seen: no chain there", None, False)
    if outcome.verdict != "accept" or attempt.conntrack is None:
        return tuple(rows)
    reply = _reply(attempt.conntrack)
    if reply is None:
        rows.append(Row("conntrack", "", "an entry of this connection", "", None, False))
        return tuple(rows)
    (source, sport), (seen_as, _) = reply
    for where, told, actual, port in (
        ("conntrack: destination", outcome.destination, source, sport),
        ("conntrack: source seen", outcome.seen_as, seen_as, None),
    ):
        if told:
            shown = actual if port is None else (f"{actual}:{port}" if ":" not in actual else f"[{actual}]:{port}")
            rows.append(Row(where, "", told, shown, _is_address(told, actual, port), False))
    return tuple(rows)


def _is_seen_leaving(handles: str) -> bool:
    """Whether some chain sees where a packet goes once it has been routed anew, as one changed in OUTPUT is."""
    return any(chain == "POSTROUTING" for _, chain in base_chains(handles))


def _reply(lines: Sequence[str]) -> tuple[tuple[str, int | None], tuple[str, int | None]] | None:
    """(address, port) that the reply comes from, and that it goes to: the destination and the source as it is seen."""
    for line in lines:
        pairs = re.findall(r"\b(src|dst|sport|dport)=(\S+)", line)
        told = {name: [value for key, value in pairs if key == name] for name in ("src", "dst", "sport", "dport")}
        if len(told["src"]) == 2 and len(told["dst"]) == 2:
            ports = {name: int(told[name][1]) if len(told[name]) == 2 else None for name in ("sport", "dport")}
            return (told["src"][1], ports["sport"]), (told["dst"][1], ports["dport"])
    return None
