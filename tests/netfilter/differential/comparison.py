"""A prediction beside an observation: the first thing in which they differ, in words.

Pure.  "" means agreement in the rules that matched and their order, policies, the mark after each, verdict, addresses
after NAT, interface, the answer of a reject, the connection's mark.
"""

from collections.abc import Collection, Sequence

from differential.packets import is_for_many
from differential.prediction import Passed, Prediction
from kernel.flow import Observation, Tuple, Visit


def difference(predicted: Prediction, seen: Observation, own: Collection[str]) -> str:
    """How a first or established packet's observation differs from one outcome, "" if it does not.

    ``own`` are the addresses of the device under test.
    """
    visits = [visit for visit in seen.visits if visit.kind != "end"]
    if predicted.verdict == "unknown":
        return _path(predicted.passed, visits, is_prefix=True)
    return _path(predicted.passed, visits) or _end(predicted, seen, own)


def _path(passed: Sequence[Passed], visits: Sequence[Visit], *, is_prefix: bool = False) -> str:
    """Both in step; a rule of which the walk does not say whether it matches may be there or not."""
    at = 0
    for item in passed:
        visit = visits[at] if at < len(visits) else None
        place = (
            ("policy" if visit.kind == "policy" else "rule", visit.table, visit.chain, visit.number) if visit else None
        )
        if place != item.place:
            if not item.is_certain:
                continue
            return f"predicted {_words(item.place)}, the kernel has {_words(place)}"
        assert visit is not None
        if visit.mark != item.mark:
            return f"after {_words(item.place)} the mark is predicted as {item.mark:#x}, the kernel has {visit.mark:#x}"
        at += 1
    if at < len(visits) and not is_prefix:
        visit = visits[at]
        return f"the kernel has {visit.kind} {visit.table} {visit.chain} {visit.number}, predicted is nothing more"
    return ""


def _words(place: tuple[str, str, str, int] | None) -> str:
    return "nothing more" if place is None else " ".join(str(part) for part in place if part != 0)


def _end(predicted: Prediction, seen: Observation, own: Collection[str]) -> str:
    verdict = predicted.verdict
    if verdict == "rejected" and seen.verdict == "dropped" and _is_unanswerable(predicted, seen, own):
        return ""
    if verdict != seen.verdict:
        return f"predicted {verdict}, the kernel says {seen.verdict}"
    if verdict in ("left", "delivered") and predicted.out != seen.out:
        return f"predicted out {predicted.out}, the kernel says {seen.out}"
    if verdict == "rejected" and predicted.answer != seen.answer:
        return f"predicted the answer {predicted.answer}, the kernel sent {seen.answer}"
    if predicted.mark != seen.mark and verdict != "unrouted":
        return f"predicted the mark {predicted.mark:#x} in the end, the kernel has {seen.mark:#x}"
    if verdict == "unrouted":  # what NAT wrote last is seen in no hook then
        return ""
    assert seen.final is not None
    ports = not seen.flow.proto.startswith("icmp")
    for name, told, actual in (
        ("source", predicted.src, ends(seen.final, ports)[0]),
        ("destination", predicted.dst, ends(seen.final, ports)[1]),
    ):
        if not is_told(told, actual):
            return f"predicted the {name} {told}, the kernel has {actual}"
    if seen.connection is not None and seen.connection.mark != predicted.ctmark:
        return f"predicted the connection's mark {predicted.ctmark:#x}, the kernel has {seen.connection.mark:#x}"
    return ""


def _is_unanswerable(predicted: Prediction, seen: Observation, own: Collection[str]) -> bool:
    """Nothing answers an RST with an RST, nor sends an ICMP error about a broadcast or from an address not its own."""
    if predicted.answer == "tcp-reset":
        return "RST" in seen.flow.tcp_flags
    if is_for_many(seen.flow.dst):
        return True
    assert seen.final is not None
    is_by_lo = any(step.where == "routing" and step.verdict == "out by lo" for step in predicted.steps)
    is_for_here = predicted.passed[-1].place[2] == "INPUT" or is_by_lo
    return any(
        matters and address not in own and not address.startswith("127.")
        for matters, address in ((seen.flow.local, seen.final.src), (is_for_here, seen.final.dst))
    )


def reply_difference(predicted: Prediction, seen: Observation, own: Collection[str]) -> str:
    """How an answer's observation differs from what an outcome says of it, as far as it says anything."""
    if predicted.verdict == "unknown":
        return ""
    if predicted.verdict not in ("left", "delivered") or predicted.reply is None:
        return "no answer is predicted"
    if seen.verdict not in ("left", "delivered") or seen.sent is None or seen.final is None:
        return ""
    ports = not seen.flow.proto.startswith("icmp")
    sent, final = ends(seen.sent, ports), ends(seen.final, ports)
    if not predicted.reply:
        return "" if sent == final else f"predicted that an answer stays {sent}, the kernel made {final} of it"
    for told, actual in zip(predicted.reply, (*sent, *final), strict=True):
        if not is_told(told, actual):
            return f"predicted that an answer {predicted.outcome.reply}; the kernel had {sent} and {final}"
    return ""


def ends(given: Tuple, ports: bool) -> tuple[str, str]:
    """Source and destination as a walk writes them."""
    return _end_text(given.src, given.sport, ports), _end_text(given.dst, given.dport, ports)


def _end_text(address: str, port: int, ports: bool) -> str:
    if not ports:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_told(told: str, actual: str) -> bool:
    """Whether the walk's text fits; one without a port leaves that open, an empty one everything."""
    if told in ("", actual):
        return True
    bare = actual.removeprefix("[").partition("]:")[0] if actual.startswith("[") else actual.partition(":")[0]
    return told == bare
