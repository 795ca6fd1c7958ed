"""Step, Trace, Outcome: the one shape of every explanation, a rule walk, a route match, a journey.

Pure.  A Trace answers one question.  Its steps are in the order in which they were taken; where the answer branches
(a random rule, a fact that was not given) each branch goes on from the step at which it left the others, its
``parent``.  Each branch ends in one Outcome.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["accept", "drop", "reject", "unknown"]
Seen = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing looked at.

    ``id`` counts from 0; ``parent`` is the step before it in its branch, -1 for the first.  ``where`` names the place
    (``nat KUBE-SERVICES 3``: table, chain, number of the rule from 1), ``what`` what stood there.  ``matched`` is None
    where that cannot be told.  ``why`` gives the failing condition with both values, or what was done.  ``before`` and
    ``after`` are (name, value) pairs of the packet; the same object where nothing changed.  ``evidence`` quotes where
    it is read (``line 12``), ``verdict`` is what follows: ``continue``, ``jump CHAIN``, ``accept`` and so on.
    """

    id: int
    parent: int
    where: str
    what: str
    matched: bool | None
    why: str = ""
    before: Seen = ()
    after: Seen = ()
    evidence: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one branch ends, with its ``probability`` under the conditions in ``depends_on``.

    ``destination`` is where the packet goes then, as ``IP:PORT`` (``[IP]:PORT`` in IPv6, the IP alone without ports).
    ``source`` says what became of its source address: ``kept``, ``masqueraded``, or the IP that SNAT gave it;
    ``seen_as`` is the source that the destination sees, as far as it is known.  ``mark`` is the packet's in the end.
    ``out`` is the interface by which it leaves, ``local`` where it is delivered here, "" where it does not or that is
    not known.  ``answer`` is what a reject sends back.  ``reply`` says how an answer's addresses are changed here.
    ``step`` is the id of its last step; ``why`` says in a clause what ended it.
    """

    verdict: Verdict
    destination: str
    source: str
    seen_as: str
    mark: int
    out: str
    probability: float
    depends_on: tuple[str, ...]
    answer: str
    reply: str
    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The answer to ``question``; ``assumes`` lists what was taken for granted because nothing was said about it.

    Probabilities of outcomes add up to 1 within each combination of what they depend on.  ``subject`` is the value that
    was asked about (a `netfilter.packet.Packet`), for whoever wants to prove the answer.
    """

    question: str
    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]
    assumes: tuple[str, ...] = ()
    subject: Any = field(default=None, compare=False)

    def branch(self, outcome: Outcome) -> tuple[Step, ...]:
        """The steps that lead to one outcome, first to last."""
        return tuple(self._back(outcome.step))[::-1]

    def _back(self, number: int) -> Iterator[Step]:
        while number >= 0:
            step = self.steps[number]
            yield step
            number = step.parent


def as_document(trace: Trace) -> dict[str, Any]:
    """The trace as one JSON document: question, assumes, steps, outcomes."""
    return {
        "question": trace.question,
        "assumes": list(trace.assumes),
        "steps": [_step(step) for step in trace.steps],
        "outcomes": [_fields(outcome) | {"depends_on": list(outcome.depends_on)} for outcome in trace.outcomes],
    }


def _step(step: Step) -> dict[str, Any]:
    return _fields(step) | {"before": dict(step.before), "after": dict(step.after)}


def _fields(value: Step | Outcome) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
