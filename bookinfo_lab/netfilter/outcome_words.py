"""How a packet ends, in words: delivered to whom, seen from which source, masqueraded, dropped, rejected with what.

Pure.  Outcomes of a walk come in, plain text goes out, not escaped.
"""

from collections.abc import Sequence

from bookinfo_lab.trace import Outcome

_NOT = "not: "
_ANSWERS = {
    "icmp-port-unreachable": "an ICMP error, port unreachable",
    "icmp6-port-unreachable": "an ICMPv6 error, port unreachable",
    "tcp-reset": "a TCP reset",
}


def chance(probability: float) -> str:
    """A probability in percent: ``33.33 %``."""
    shown = f"{probability * 100:.2f}".rstrip("0").rstrip(".")
    return f"{shown} %" if probability in (0, 1) or 0.0001 <= probability <= 0.9999 else f"{probability * 100:.3g} %"


def on_condition(depends: str) -> str:
    """What an outcome depends on, as a clause: ``if …``, ``unless …``."""
    return f"unless {depends.removeprefix(_NOT)}" if depends.startswith(_NOT) else f"if {depends}"


def outcome_line(outcome: Outcome) -> str:
    """An outcome as one sentence, with its probability and what it depends on."""
    parts = [ending(outcome)]
    if outcome.probability != 1:
        parts.append(f"with a probability of {chance(outcome.probability)}")
    if outcome.depends_on:
        parts.append(" and ".join(map(on_condition, dict.fromkeys(outcome.depends_on))))
    return f"{', '.join(parts)}."


def ending(outcome: Outcome) -> str:
    """What becomes of the packet, without how likely that is."""
    if outcome.verdict == "unknown":
        return "Cannot be told" + (f": {outcome.why}" if outcome.why else "")
    if outcome.verdict == "drop":
        return f"Dropped on its way to {outcome.destination}" + (f" ({outcome.why})" if outcome.why else "")
    if outcome.verdict == "reject":
        answer = _ANSWERS.get(outcome.answer, outcome.answer)
        return f"Rejected on its way to {outcome.destination}; the sender gets {answer or 'an error'}"
    if outcome.out == "local":
        said = f"Delivered to a process here at {outcome.destination}"
    else:
        said = f"Sent on to {outcome.destination}" + (f" by {outcome.out}" if outcome.out else "")
    return ", ".join([said, _source(outcome), *([f"with mark {outcome.mark:#x}"] if outcome.mark else [])])


def _source(outcome: Outcome) -> str:
    seen_as = outcome.seen_as
    if outcome.source == "kept":
        return f"seen from {seen_as}, its own source" if seen_as else "seen from its own source"
    if outcome.source == "masqueraded":
        return f"masqueraded: seen from {seen_as or 'the address of the interface that it leaves by'}"
    return f"seen from {seen_as or outcome.source}, the source that SNAT gave it"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many ways the walk can end, and what decides between them; the outcome's own line where there is one."""
    if not outcomes:
        return "No answer: the walk has no outcome."
    if len(outcomes) == 1:
        return outcome_line(outcomes[0])
    facts = {item.removeprefix(_NOT) for outcome in outcomes for item in outcome.depends_on}
    decides = ["chance"] if any(outcome.probability != 1 for outcome in outcomes) else []
    if facts:
        decides.append("one fact that was not given" if len(facts) == 1 else f"{len(facts)} facts that were not given")
    return f"{len(outcomes):,} ways it can end, decided by {' and '.join(decides) or 'nothing that the walk names'}:"
