"""Ask a source for everything that a recording is to hold: in an order in which no question disturbs another.

Edge.  What the source cannot answer is kept with its reason, a capture point that cannot be without the others; proofs
are of the rules that are recorded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources import contents
from bookinfo_lab.sources.base import Evidence, Query, Source
from bookinfo_lab.sources.contents import Capture, Contents, NotHeld

_TRIES = 3
_COUNTED = re.compile(r"\[\d+:\d+\]")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the source answered; ``requests`` beside a capture are those made in it."""

    evidence: list[Evidence] = field(default_factory=list)
    captures: list[tuple[Evidence, tuple[Query, ...]]] = field(default_factory=list)
    missing: list[NotHeld] = field(default_factory=list)

    @property
    def every(self) -> list[Evidence]:
        """All evidence, that of captures last."""
        return [*self.evidence, *(item for item, _ in self.captures)]


def ask(source: Source, wanted: Contents) -> Answers:
    """The source's answers to what is wanted; nothing is raised for one that it has not."""
    read = Answers(missing=list(wanted.not_held))
    for query in filter(contents.is_before_requests, wanted.queries):
        _fetch(source, query, read)
    refused: dict[Query, str] = {}
    for capture in wanted.captures:
        _capture(source, contents.without_points(capture, refused), read, refused)
    read.missing.extend(NotHeld(query, reason) for query, reason in refused.items())
    for query in wanted.requests:
        _fetch(source, query, read)
    for query in wanted.queries:
        if not contents.is_before_requests(query) and query.kind != "prove":
            _fetch(source, query, read)
    _prove(source, [query for query in wanted.queries if query.kind == "prove"], read)
    return read


def _prove(source: Source, queries: Sequence[Query], read: Answers) -> None:
    """Add proofs of the rules that are recorded: where rules changed meanwhile both are read again, a few times."""
    if not queries:
        return
    places = {query.place for query in queries}
    for _ in range(_TRIES):
        found, after = Answers(), Answers()
        for query in queries:
            _fetch(source, query, found)
        before = [item for item in read.evidence if item.query.kind == "rules" and item.query.place in places]
        for item in before:
            _fetch(source, item.query, after)
        again = {item.query: item for item in after.evidence}
        if all(_rules(item) == _rules(again[item.query]) for item in before if item.query in again):
            break
        read.evidence[:] = [again.get(item.query, item) for item in read.evidence]
    read.evidence.extend(found.evidence)
    read.missing.extend(found.missing)


def _rules(evidence: Evidence) -> list[str]:
    """The lines of iptables-save that do not change while nobody changes a rule; none of nft's, which count packets."""
    lines = evidence.text.splitlines() if evidence.query.arguments[0].endswith("-save") else []
    return [_COUNTED.sub("", line) for line in lines if not line.startswith("#")]


def _fetch(source: Source, query: Query, read: Answers) -> None:
    try:
        read.evidence.append(source.fetch(query))
    except LabError as error:
        read.missing.append(NotHeld(contents.key(query), str(error)))


def _capture(source: Source, capture: Capture, read: Answers, refused: dict[Query, str]) -> None:
    """Add the requests and the frames around them, of the points that can be; the others are added to ``refused``."""
    has_begun = False
    try:
        if capture.points:
            with source.capture(capture.points) as running:
                has_begun = True
                got = [source.fetch(query) for query in capture.requests]
            read.captures.append((running.evidence, capture.requests))
            read.evidence.extend(got)
            return
    except LabError as error:
        found = {} if has_begun else _refused(source, capture.points)
        if found:
            refused.update(found)
            _capture(source, contents.without_points(capture, found), read, refused)
            return
        read.missing.append(NotHeld(capture.query, str(error)))
    for query in capture.requests:
        _fetch(source, query, read)


def _refused(source: Source, points: Sequence[str]) -> dict[Query, str]:
    """The points at which a capture does not begin, each asked alone, and why."""
    found = {}
    for name in points:
        try:
            with source.capture((name,)):
                pass
        except LabError as error:
            found[contents.at(name)] = str(error)
    return found
