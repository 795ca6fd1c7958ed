"""Evidence from a recording: each question is answered with what was recorded, or with what there is instead.

Edge: files, on any system.  `RecordingSource` reads a folder or a zip lazily; `record` makes one of a live source,
`listing` says beforehand what it will hold, `bundled` names the ones that come with the package.  A request replays
the recorded answer; a capture replays the one around the same requests, at any of its points.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bookinfo_lab.errors import LabError, RecordingError
from bookinfo_lab.sources import archive, base, contents
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query, Source
from bookinfo_lab.sources.contents import Contents, NotHeld, shown
from bookinfo_lab.sources.manifest import Captured, Manifest, Piece

_BUNDLED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "recordings")
_LISTED = 12  # names in an error's list

__all__ = ["Contents", "NotHeld", "RecordingSource", "bundled", "listing", "plan", "record"]


def bundled(name: str) -> str:
    """The path of a recording that comes with the package: of a scenario (sidecar, article), or of a cluster."""
    path = os.path.join(_BUNDLED, f"{name}.zip")
    if os.path.basename(name) != name or not os.path.isfile(path):
        files = os.listdir(_BUNDLED) if os.path.isdir(_BUNDLED) else []
        there = sorted(file.removesuffix(".zip") for file in files if file.endswith(".zip"))
        raise RecordingError(f"no bundled recording {name!r}; there are: {', '.join(there) or 'none'}")
    return path


def plan(source: Source) -> Contents:
    """What a recording of ``source`` would hold; only its objects are read."""
    from bookinfo_lab.sources import recorder

    return recorder.plan(source)


def listing(source: Source) -> tuple[str, ...]:
    """The lines that say what a recording of ``source`` would hold."""
    return plan(source).lines


def record(source: Source, path: str, on_listing: Callable[[Sequence[str]], object] | None = None) -> Contents:
    """Write a redacted recording of ``source`` to the new folder or .zip ``path`` (`recorder.record`).

    What a recording of a cluster will hold is always told before: on stderr where nobody asks for it.
    """
    from bookinfo_lab.sources import recorder

    told = _tell if on_listing is None and source.kind == "kubernetes" else on_listing
    return recorder.record(source, path, told)


def _tell(lines: Sequence[str]) -> None:
    sys.stderr.write("\n".join(["to be recorded:", *(f"  {line}" for line in lines), ""]))


@dataclass(slots=True)
class _Replaying:
    """A capture that is being replayed: it hears the requests of its block, and is found when the block ends."""

    points: tuple[str, ...]
    requests: list[Query] = field(default_factory=list)
    found: Evidence | None = None

    @property
    def evidence(self) -> Evidence:
        if self.found is None:
            raise LabError("the capture has no frames before its with block ends")
        return self.found


class RecordingSource:
    """A recording at ``path``: a folder or a zip.  RecordingError where it is none, damaged, or of a newer format."""

    kind = "recording"

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._archive = archive.opened(self.path)
        try:
            self.manifest: Manifest = archive.read_manifest(self._archive)
        except RecordingError:
            self._archive.close()
            raise
        self.has_client = self.manifest.has_client
        self._pieces: dict[Query, Piece] = {}
        for piece in self.manifest.pieces:
            self._pieces.setdefault(piece.query, piece)
        self._replaying: list[_Replaying] = []

    def __repr__(self) -> str:
        return f"RecordingSource({self.path!r})"

    @property
    def description(self) -> str:
        """Which recording, of what, made when."""
        made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.manifest.made))
        return f"recording {os.path.basename(self.path)} of {self.manifest.source}, made {made}"

    @property
    def published(self) -> str:
        """Nothing of a recording is there to browse."""
        return ""

    def now(self) -> float:
        """When it was made."""
        return self.manifest.made

    def close(self) -> None:
        """Let go of the file."""
        self._archive.close()

    def front_door(self) -> FrontDoor:
        """The entry as it was."""
        return self.manifest.front_door

    def fetch(self, query: Query) -> Evidence:
        """The recorded answer; RecordingError names what is held where this is not."""
        base.check(query)
        wanted = contents.key(query)
        piece = self._pieces.get(wanted) or self._pieces.get(_redacted(wanted))
        if piece is None:
            raise RecordingError(self._without(wanted))
        if query.kind == "get":
            for item in self._replaying:
                item.requests.append(piece.query)
        return self._evidence(query, piece)

    @contextmanager
    def capture(self, points: Sequence[str]) -> Iterator[Capturing]:
        """Replay the capture around the block's requests, at ``points``; RecordingError where none was recorded."""
        chosen = tuple(dict.fromkeys(points))
        known = dict.fromkeys(point for item in self.manifest.captures for point in item.piece.query.arguments)
        for point in chosen:
            if point not in known:
                reasons = (item.reason for item in self.manifest.not_held if item.query == contents.at(point))
                why = next((f" ({reason})" for reason in reasons), "")
                raise RecordingError(f"{self._name} has no capture at {point}{why}; it has: {_some(known)}")
        running = _Replaying(chosen)
        self._replaying.append(running)
        try:
            yield running
        finally:
            self._replaying.remove(running)
        running.found = self._frames(running)

    def _frames(self, running: _Replaying) -> Evidence:
        from bookinfo_lab.packets import pcapng

        for item in self.manifest.captures:
            if item.requests == tuple(running.requests) and set(running.points) <= set(item.piece.query.arguments):
                whole = self._evidence(item.piece.query, item.piece)
                query = Query("capture", None, running.points)
                return Evidence(
                    query,
                    pcapng.select(whole.raw, running.points),
                    whole.time,
                    whole.origin,
                    _here(whole, running.points),
                    base.on_a_cluster(query),
                )
        made = ", ".join(map(shown, running.requests)) or "no request"
        held = _some(_around(item) for item in self.manifest.captures)
        raise RecordingError(f"{self._name} has no capture around {made}; it has captures around: {held}")

    def _evidence(self, query: Query, piece: Piece) -> Evidence:
        raw = archive.read(self._archive, piece.raw)
        stderr = b"" if piece.stderr is None else archive.read(self._archive, piece.stderr)
        # A cluster's begins with that word also here: it says which of the two lines is the reader's.
        is_cluster = self.manifest.kind == "kubernetes"
        origin = f"{piece.origin}, in {self._name}" if is_cluster else f"{self._name} of {piece.origin}"
        return Evidence(query, raw, piece.time, origin, piece.here, piece.on_a_cluster, piece.status, stderr)

    @property
    def _name(self) -> str:
        return f"recording {os.path.basename(self.path)}"

    def _without(self, query: Query) -> str:
        """Why there is no answer to ``query``, and what there is that comes closest."""
        for item in self.manifest.not_held:
            if item.query == query:
                return f"{self._name} holds no {query}: {item.reason}"
        same = [held for held in self._pieces if held.kind == query.kind]
        if not same:
            kinds = _some(dict.fromkeys(held.kind for held in self._pieces))
            return f"{self._name} holds no {query.kind}; it holds: {kinds}"
        if query.kind == "get":
            return f"{self._name} holds no request GET {shown(query)}; it holds: {_some(map(shown, same))}"
        here = [held for held in same if held.place == query.place]
        if here:
            words = _some(shlex.join(held.arguments) for held in here)
            return f"{self._name} holds no {query}; of {query.kind} there it holds: {words}"
        places = dict.fromkeys(" ".join([str(held.place), held.place.container]).strip() for held in same if held.place)
        return f"{self._name} holds no {query}; it holds {query.kind} of: {_some(places)}"


def _redacted(query: Query) -> Query:
    """The query as a recording holds it where its arguments have secrets in them."""
    if query.kind not in ("get", "exec"):
        return query
    from bookinfo_lab.sources import redaction

    words = "\0".join(query.arguments).encode("utf-8", "surrogateescape")
    clean = redaction.redact({0: words})[0][0].decode("utf-8", "replace")
    return Query(query.kind, query.place, tuple(clean.split("\0")))


def _here(whole: Evidence, points: Sequence[str]) -> str:
    """The recorded line with ``points`` in the place of all points."""
    words, count = shlex.split(whole.here), len(whole.query.arguments)
    if tuple(words[-count:]) != whole.query.arguments:
        return whole.here
    return shlex.join([*words[:-count], *points])


def _around(item: Captured) -> str:
    return " then ".join(map(shown, item.requests)) or "no request"


def _some(words: Iterable[str]) -> str:
    every = list(words)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more
