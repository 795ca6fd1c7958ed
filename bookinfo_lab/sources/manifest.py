"""The manifest of a recording: what it holds, of when and from what, each piece with its file and commands.

Pure.  `encode` writes it, `decode` reads it and refuses what is no manifest, a newer format, and file names that would
lead out of the recording.  Format 1 is a folder, or a zip of one, with `manifest.json` and the files that it names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from bookinfo_lab.errors import RecordingError
from bookinfo_lab.sources.base import Evidence, FrontDoor, Query
from bookinfo_lab.sources.contents import NotHeld

NAME = "manifest.json"
KIND = "bookinfo-lab recording"
FORMAT = 1
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_ENDINGS = {
    "objects": "json",
    "addresses": "json",
    "routes": "json",
    "routing-rules": "json",
    "get": "http",
    "capture": "pcapng",
    "logs": "log",
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the recording."""

    file: str
    length_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of evidence, but for its bytes: they lie in the files ``raw`` and, where it has some, ``stderr``."""

    query: Query
    raw: Blob
    time: float
    origin: str
    here: str
    on_a_cluster: str
    status: int = 0
    stderr: Blob | None = None

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Its files."""
        return (self.raw,) if self.stderr is None else (self.raw, self.stderr)


@dataclass(frozen=True, slots=True)
class Captured:
    """A capture and the requests that were made in it."""

    piece: Piece
    requests: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Redaction:
    """An overwritten range of a file, or of a text of the manifest (FILE#here).

    ``what`` says what stood there, never its value.
    """

    piece: str
    offset: int
    length_bytes: int
    what: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a piece lacks although the source had it: ``count`` of ``what``, never their values."""

    piece: str
    count: int
    what: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """``made`` is in Unix seconds; ``source`` is the description of what was recorded, ``kind`` its kind."""

    what: str
    format: int
    made: float
    tool: str
    kind: str
    source: str
    has_client: bool
    front_door: FrontDoor
    pieces: tuple[Piece, ...]
    captures: tuple[Captured, ...]
    not_held: tuple[NotHeld, ...]
    redactions: tuple[Redaction, ...]
    dropped: tuple[Dropped, ...] = ()

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Every file of the recording but the manifest."""
        pieces = (*self.pieces, *(item.piece for item in self.captures))
        return tuple(blob for piece in pieces for blob in piece.blobs)


@dataclass(frozen=True, slots=True)
class _Head:
    what: str
    format: int
    tool: str = ""


def encode(manifest: Manifest) -> bytes:
    """The manifest as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode(raw: bytes, where: str) -> Manifest:
    """The manifest in ``raw``, which was read at ``where``; RecordingError where it is none that this version reads."""
    try:
        head = msgspec.json.decode(raw, type=_Head)
    except (msgspec.DecodeError, RecursionError) as error:
        advice = "make one with: bookinfo-lab record"
        raise RecordingError(f"{where}: its {NAME} is no recording's ({error}); {advice}") from None
    if head.what != KIND:
        raise RecordingError(f"{where}: its {NAME} says {head.what[:60]!r}, not {KIND!r}; it is no recording")
    if head.format > FORMAT:
        made_by = f" (made by {head.tool[:40]})" if head.tool else ""
        advice = f"this version reads up to {FORMAT}; update bookinfo-lab"
        raise RecordingError(f"{where}: format {head.format}{made_by} is newer: {advice}")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordingError(f"{where}: its {NAME} is damaged ({error}); get the recording again") from None
    for blob in manifest.blobs:
        if not _FILE.fullmatch(blob.file) or blob.length_bytes < 0:
            named = f"names the file {blob.file[:60]!r}"
            raise RecordingError(f"{where}: its {NAME} {named}, which no recording has; do not use it")
    return manifest


def file_names(evidence: Iterable[Evidence]) -> tuple[str, ...]:
    """A readable file name for each piece, in order; each a different one, also on disks that ignore case."""
    taken: set[str] = set()
    made = []
    for item in evidence:
        stem, ending = _stem(item.query), _ENDINGS.get(item.query.kind, "txt")
        if item.query.kind == "envoy" and item.raw[:1] == b"{":
            ending = "json"
        name, number = f"{stem}.{ending}", 2
        while name.lower() in taken:
            name, number = f"{stem}.{number}.{ending}", number + 1
        taken.add(name.lower())
        made.append(name)
    return tuple(made)


def _stem(query: Query) -> str:
    place = [] if query.place is None or query.kind in ("get", "capture") else [_slug(str(query.place))]
    if query.place is not None and query.place.container and (query.kind in ("logs", "processes", "sockets", "exec")):
        place.append(_slug(query.place.container))
    words = [] if query.kind == "capture" else [_slug(word) for word in query.arguments]
    return f"{query.kind}/{'.'.join([*place, *words])[:120].rstrip('.') or 'all'}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-._").replace("=", "-") or "root"
