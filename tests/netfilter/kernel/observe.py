"""From trace events and what came out of the cables to an `Observation`, doubting both.

Pure.  Events are followed like the kernel's own chain walk: an event in a chain that was not entered, a rule before one
already passed, a hook that does not end, a second packet nobody sent: each makes the observation incomplete.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kernel.flow import Connection, Flow, Observation, Verdict, Visit
from kernel.frames import Headers
from kernel.watch import POLICY, RULE, TABLE, Event

Kind = Literal["rule", "end", "policy"]
Numbers = Mapping[tuple[str, str, int], int]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one flow left behind: events in order, frames by interface, the local socket's errors."""

    events: Sequence[Event]
    frames: Mapping[str, Sequence[Headers]]
    connections: Sequence[Connection] = ()
    call_error: str = ""
    socket_error: str = ""
    trouble: str = ""


def observation(
    flow: Flow,
    heard: Heard,
    numbers: Numbers,
    names: Mapping[int, str],
    wanted: Callable[[Headers], bool] | None = None,
) -> Observation:
    """What happened to the traced packet; ``wanted`` picks it by its headers where others are traced too."""
    events = [event for event in heard.events if not is_answer(event)]
    if wanted is not None:
        events = only(events, wanted)
    visits, trouble = _visits(events, numbers)
    trouble = heard.trouble or trouble
    seen = [event for event in events if event.headers]
    sent = seen[0].headers.tuple if seen and seen[0].headers else None
    final = seen[-1].headers.tuple if seen and seen[-1].headers else None
    asked_by = {found.src for found in (sent, final) if found}
    answers = [
        event.headers
        for event in heard.events
        if is_answer(event) and event.headers and (not asked_by or event.headers.tuple.dst in asked_by)
    ]
    verdict, out, why = _end(events, names, bool(answers), heard.call_error)
    trouble = trouble or why
    answer = answers[0].error if answers else ""
    if verdict == "left" and not any(frame.tuple == final for frame in heard.frames.get(out, ())):
        trouble = trouble or f"traced as leaving by {out}, where no frame from {final} was seen"
    return Observation(
        flow,
        tuple(visits),
        verdict,
        out,
        sent,
        final,
        events[-1].mark if events else 0,
        next((made for made in heard.connections if made.original == sent), None),
        answer,
        _answer_out(answer, heard) if answer else "",
        heard.call_error or heard.socket_error,
        not trouble,
        trouble,
    )


def is_answer(event: Event) -> bool:
    """Whether an event shows an error that the device under test made itself."""
    in_place = event.table == TABLE and event.chain == "first_out" and event.kind == RULE
    return in_place and event.headers is not None and bool(event.headers.error)


def only(events: Iterable[Event], wanted: Callable[[Headers], bool]) -> list[Event]:
    """The events of base chain runs whose first event shows a wanted packet.

    What a REJECT sends goes its own way before the rule's own event is there: runs of two packets may be mixed.
    """
    kept: list[Event] = []
    keeping: dict[int, bool] = {}
    for event in events:
        if event.headers is not None:
            keeping[event.id] = wanted(event.headers)
        if keeping.get(event.id):
            kept.append(event)
    return kept


def _visits(events: Sequence[Event], numbers: Numbers) -> tuple[list[Visit], str]:
    """The events in the tables under test, and the first thing in them that cannot be, "" for nothing."""
    visits: list[Visit] = []
    entered: list[tuple[str, int]] = []
    packet, before, base = 0, None, ""
    for event in events:
        if event.headers is not None:
            if entered:
                return visits, f"the trace leaves {before} before the chain ends"
            came_round = before is None or (before.chain == "late_post" and before.kind == POLICY)
            if event.id != packet and not came_round:
                return visits, f"a second packet was traced, in {event.table} {event.chain}"
            packet, base, entered = event.id, event.chain, [(event.chain, 0)]
        elif event.id != packet or not entered:
            return visits, f"an event in {event.table} {event.chain} without the ones before it"
        chain, last = entered[-1]
        number = 0
        if event.handle and event.table != TABLE:
            number = numbers.get((event.table, event.chain, event.handle), 0)
            if number <= last or event.chain != chain:
                return visits, f"rule {number} of {event.table} {event.chain} after rule {last} of {chain}"
            entered[-1] = (chain, number)
        entered = _go_on(entered, event)
        # The end of a base chain is no event of its own: its policy follows.
        if event.table != TABLE and not (_is_end(event) and event.chain == base):
            kind: Kind = "policy" if event.kind == POLICY else "rule" if number else "end"
            visits.append(Visit(kind, event.table, event.chain, number, _word(event), event.mark))
        before = event
    return visits, f"the trace breaks off in {entered[-1][0]}" if entered else ""


def _is_end(event: Event) -> bool:
    """Whether the last rule was passed: no rule's handle, in older kernels as a return, in newer ones as a rule."""
    return event.kind != POLICY and not event.handle


def _word(event: Event) -> str:
    return "return" if _is_end(event) else event.verdict


def _go_on(entered: list[tuple[str, int]], event: Event) -> list[tuple[str, int]]:
    """The chains that the walk is in after an event, innermost last; none where the base chain is done."""
    word, _, target = event.verdict.partition(" ")
    if event.kind == POLICY or word in ("accept", "drop", "stolen", "queue"):
        return []
    if _is_end(event) or word == "return":
        # A base chain's end is its policy's event, which is still to come.
        return entered[:-1] if len(entered) > 1 else entered
    if word == "jump":
        return [*entered, (target, 0)]
    if word == "goto":
        return [*entered[:-1], (target, 0)]
    return entered


def _end(
    events: Sequence[Event], names: Mapping[int, str], answered: bool, call_error: str
) -> tuple[Verdict, str, str]:
    """Verdict, interface, and what is missing for it to be one."""
    if not events:
        return ("unrouted", "", "") if call_error else ("unknown", "", "nothing was traced")
    last = events[-1]
    if last.verdict == "drop":
        return "rejected" if answered else "dropped", "", ""
    base = next(event for event in reversed(events) if event.headers is not None)
    if last.verdict == "accept" and base.chain == "OUTPUT" and base.table in ("nat", "mangle"):
        # After these two the kernel routes the packet anew, and drops it there where no route fits (127.0.0.1 cannot
        # be the source of what leaves).  A message lost here would have been noticed: the socket's buffer overran.
        return "unrouted", "", ""
    if last.table != TABLE or last.verdict != "accept" or last.kind != POLICY:
        return "unknown", "", f"the trace ends in {last.table} {last.chain} with {last.verdict}"
    if last.chain == "late_in":
        return "delivered", "local", ""
    if last.chain == "late_post":
        out = next((names.get(e.oif, "?") for e in reversed(events) if e.headers), "?")
        return ("unknown", "", "it left by lo and did not come back") if out == "lo" else ("left", out, "")
    return "unrouted", "", ""


def _answer_out(answer: str, heard: Heard) -> str:
    for name, frames in heard.frames.items():
        if any(frame.error == answer for frame in frames):
            return name
    return "socket" if heard.socket_error else ""
