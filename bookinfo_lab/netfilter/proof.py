"""A walk beside what the kernel did with the same packet, rule by rule, and whether they agree.

Pure.  A Trace, the Attempt to prove it and the Ruleset that was walked come in, a Proof goes out.  Only rules that
matched and policies are in a kernel's trace, so those are compared: table, chain, number, verdict, and the packet's
addresses, interfaces and mark where the kernel shows them.  A trace that may have lost anything, and a predicted step
that was not seen, is ``not seen``; it is ``agree`` only where every predicted step was seen and nothing else.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from bookinfo_lab.errors import LabError
from bookinfo_lab.trace import Outcome, Trace

from . import kernel_trace
from .attempt import Attempt
from .changed_rules import Rules, changed
from .kernel_trace import Event, Flow, KernelTrace
from .packet import Packet
from .side_by_side import Row, ends, lay, predicted, read_events

Judgement = Literal["agree", "differ", "not seen", "not run"]
_MARKS = {True: "=", False: "≠", None: " "}


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether kernel and walk agree about one packet.

    ``verdict`` is ``agree``, ``differ`` (the kernel did something else), ``not seen`` (it cannot be told) or ``not
    run``; ``reason`` says why in a sentence.  ``branch`` is (n, of how many): the walk's outcome that the kernel took,
    None where there is none.  ``rows`` stand in the packet's order.  ``notes`` say how the packet was sent; ``flow``
    names it as it was sent.
    """

    verdict: Judgement
    reason: str
    question: str
    branch: tuple[int, int] | None = None
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    took_ms: float = 0.0

    def __bool__(self) -> bool:
        return self.verdict == "agree"

    @property
    def headline(self) -> str:
        """The verdict as words: ``agree, branch 2 of 3``."""
        if self.branch is None or self.branch[1] == 1 or self.verdict == "not run":
            return self.verdict
        return f"{self.verdict}, branch {self.branch[0]} of {self.branch[1]}"

    def as_text(self) -> str:
        """The table as plain text, a row a line; what came off a wire in it is not escaped."""
        head = [f"{self.headline}: {self.reason}", f"  {self.question}", *(f"  {note}" for note in self.notes)]
        if not self.rows:
            return "\n".join(head)
        cells = [("", "where", "predicted", "kernel")]
        cells += [(_MARKS[row.same], row.where, row.predicted, row.kernel) for row in self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(size) for cell, size in zip(row, widths, strict=False)), row[3]]) for row in cells
        ]
        return "\n".join([*head, *(line.rstrip() for line in lines)])

    def as_document(self) -> dict[str, Any]:
        """The proof as one JSON document."""
        document = asdict(self)
        branch = None if self.branch is None else {"number": self.branch[0], "of": self.branch[1]}
        return document | {"branch": branch, "rows": [asdict(row) for row in self.rows], "notes": list(self.notes)}


def check(trace: Trace) -> Packet:
    """The packet that the trace is about; `LabError` where it is no walk, so that nothing can be sent."""
    if not isinstance(trace, Trace):
        raise LabError(f"{type(trace).__name__} is no trace: give what rules.walk(packet) returned")
    if not isinstance(trace.subject, Packet):
        raise LabError(f"no packet was walked here: {trace.question!r}; give what rules.walk(packet) returned")
    return trace.subject


def compare(trace: Trace, attempt: Attempt, ruleset: Rules) -> Proof:
    """Whether the kernel did what the walk of ``ruleset`` said.

    Raises `LabError` where ``trace`` is no walk, or ``attempt`` sent another packet than it is about.
    """
    packet = check(trace)
    if attempt.not_run:
        return Proof("not run", attempt.not_run, trace.question, notes=attempt.notes, took_ms=attempt.took_ms)
    if attempt.flow is None or not _is_of(attempt.flow, packet):
        raise LabError(f"what was sent is another packet than the walk's, which is {packet}: prove this walk itself")
    kernel = kernel_trace.parse(attempt.trace, attempt.trace_errors)
    seen = kernel_trace.passages(kernel, attempt.table)
    whole = tuple(item for passage in seen for item in passage)
    best, rows = _closest(trace, attempt, seen[:1], whole)
    outcome = trace.outcomes[best]
    verdict, reason = _judge(outcome, attempt, kernel, rows, changed(trace, whole, attempt, ruleset), bool(seen))
    branch = (best + 1, len(trace.outcomes)) if verdict in ("agree", "differ") else None
    return Proof(verdict, reason, trace.question, branch, rows, _notes(attempt), attempt.took_ms)


def _is_of(flow: Flow, packet: Packet) -> bool:
    wanted = (packet.proto, packet.src, packet.dst, packet.dport)
    is_port = not packet.has_ports or packet.sport in (None, flow.sport)
    return (flow.proto, flow.src, flow.dst, flow.dport) == wanted and is_port


def _closest(
    trace: Trace, attempt: Attempt, first: tuple[tuple[Event, ...], ...], whole: tuple[Event, ...]
) -> tuple[int, tuple[Row, ...]]:
    """The outcome whose steps are nearest to what was seen, and both side by side.

    A walk may end where the packet leaves by lo, or go on where it comes in again.
    """
    if not trace.outcomes:
        raise LabError(f"the trace has no outcome: {trace.question!r}; give what rules.walk(packet) returned")
    found: list[tuple[tuple[int, bool, int], int, tuple[Row, ...]]] = []
    for number, outcome in enumerate(trace.outcomes):
        steps = predicted(trace.branch(outcome))
        for events in dict.fromkeys([*first, whole]):
            rows = (*lay(steps, read_events(events, attempt.handles), attempt.handles), *ends(outcome, attempt, events))
            wrong = sum(row.same is False for row in rows)
            found.append(((wrong, outcome.verdict == "unknown", len(found)), number, rows))
    _, number, rows = min(found, key=lambda item: item[0])
    return number, rows


def _judge(
    outcome: Outcome,
    attempt: Attempt,
    kernel: KernelTrace,
    rows: tuple[Row, ...],
    changes: tuple[str, ...],
    was_seen: bool,
) -> tuple[Judgement, str]:
    if changes:
        return "differ", f"the rules changed after the walk, in {_listed(changes)}: walk again"
    lost = kernel.losses
    if not kernel_trace.is_watched(kernel, attempt.table):
        return "not seen", "the monitor did not read from before the packet until after it" + _because(lost)
    if lost:
        return "not seen", f"the trace has gaps: {lost[0]}"
    if not was_seen:
        return "not seen", f"the packet never came to the rules ({attempt.answer})"
    if outcome.verdict == "unknown":
        return "not seen", f"the walk ends unknown, so there is nothing to agree with: {outcome.why}"
    contrary = [row for row in rows if row.same is False and row.kernel]
    if contrary:
        row = contrary[0]
        said = f"the walk says {row.predicted}" if row.predicted else "the walk has no such step"
        return "differ", f"at {row.where} the kernel has {row.kernel}, {said}"
    missing = [row for row in rows if row.same is False]
    if missing:
        return "not seen", f"{missing[0].where} ({missing[0].predicted}) is not in the kernel's trace"
    count = sum(row.same is True and row.is_rule for row in rows)
    return "agree", f"{count} matching {'rule' if count == 1 else 'rules'} predicted and seen, in the same order"


def _because(lost: tuple[str, ...]) -> str:
    return f": {lost[0]}" if lost else ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _notes(attempt: Attempt) -> tuple[str, ...]:
    return (*attempt.notes, f"at the socket: {attempt.answer}") if attempt.answer else attempt.notes
