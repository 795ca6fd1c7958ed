"""Record a source: ask it for everything that a recording holds, redact it, write it whole or not at all.

Edge.  Any live source comes in, a new folder or zip goes out.  What the source cannot answer is listed in the manifest
with its reason; that it stops answering altogether is an error, and nothing is written.  No byte of evidence reaches
the disk before it was redacted.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bookinfo_lab.errors import LabError, RecordingError
from bookinfo_lab.netfilter import attempt
from bookinfo_lab.sources import archive, contents, manifest, passing, redaction
from bookinfo_lab.sources.base import RESOURCES, Evidence, Query, Source
from bookinfo_lab.sources.contents import Capture, Contents, NotHeld
from bookinfo_lab.sources.manifest import Blob, Captured, Manifest, Piece, Redaction

_NAMING = frozenset({"name", "namespace", "nodeName", "serviceAccountName", "hostname", "image", "kind"})
_Key = tuple[int, str]  # the number of a piece of evidence, and which part of it


@dataclass(frozen=True, slots=True)
class _Read:
    """What the source answered; ``requests`` beside a capture are those made in it."""

    evidence: list[Evidence] = field(default_factory=list)
    captures: list[tuple[Evidence, tuple[Query, ...]]] = field(default_factory=list)
    missing: list[NotHeld] = field(default_factory=list)

    @property
    def every(self) -> list[Evidence]:
        return [*self.evidence, *(item for item, _ in self.captures)]


def plan(source: Source) -> Contents:
    """What a recording of ``source`` would hold, as far as its objects, addresses and routes tell."""
    objects = _objects(source)
    proofs = [Query("prove", item.place, attempt.words(item.packet)) for item in passing.packets(source).values()]
    return contents.planned(objects, has_client=source.has_client, source=source.description, proofs=proofs)


def record(source: Source, path: str, on_listing: Callable[[Sequence[str]], object] | None = None) -> Contents:
    """Write a redacted recording of ``source`` to the new folder (or, with that ending, .zip) ``path``; what it holds.

    ``on_listing`` is given the lines that say what will be read, before anything is written.  Raises RecordingError
    where ``path`` exists or cannot be written, or where the source is a recording itself.
    """
    if source.kind == "recording":
        raise RecordingError(f"this lab is a recording already: copy it; {source.description}")
    with archive.place(path) as folder:
        wanted = plan(source)
        if on_listing is not None:
            on_listing(wanted.lines)
        read = _read(source, wanted)
        objects = _objects(source)  # a source that ended meanwhile says so here
        files, made = _files(source, read, _public(objects))
        raw = manifest.encode(made)
        archive.write(folder, path, {**files, manifest.NAME: raw})
    captures = tuple(Capture(item.piece.query.arguments, item.requests) for item in made.captures)
    inside = {query for capture in captures for query in capture.requests}
    held = [piece.query for piece in made.pieces]
    return Contents(
        tuple(query for query in held if query.kind != "get"),
        tuple(query for query in held if query.kind == "get" and query not in inside),
        captures,
        made.not_held,
        path,
        sum(map(len, files.values())) + len(raw),
        len(made.redactions),
        made.source,
    )


def _objects(source: Source) -> list[dict[str, Any]]:
    raw = [source.fetch(Query("objects", None, (name,))).raw for name in RESOURCES]
    return [item for text in raw for item in json.loads(text)["items"]]


def _read(source: Source, wanted: Contents) -> _Read:
    read = _Read()
    for query in filter(contents.is_before_requests, wanted.queries):
        _fetch(source, query, read)
    for capture in wanted.captures:
        _capture(source, capture, read)
    for query in wanted.requests:
        _fetch(source, query, read)
    for query in wanted.queries:
        if not contents.is_before_requests(query):
            _fetch(source, query, read)
    return read


def _fetch(source: Source, query: Query, read: _Read) -> None:
    try:
        read.evidence.append(source.fetch(query))
    except LabError as error:
        read.missing.append(NotHeld(contents.key(query), str(error)))


def _capture(source: Source, capture: Capture, read: _Read) -> None:
    try:
        with source.capture(capture.points) as running:
            got = [source.fetch(query) for query in capture.requests]
        taken = running.evidence
    except LabError as error:
        read.missing.append(NotHeld(capture.query, str(error)))
        for query in capture.requests:
            _fetch(source, query, read)
    else:
        read.evidence.extend(got)
        read.captures.append((taken, capture.requests))


def _files(source: Source, read: _Read, public: Sequence[str]) -> tuple[dict[str, bytes], Manifest]:
    """Every file of the recording but the manifest, and the manifest."""
    parts = {**_parts(read), (-1, "source"): source.description.encode()}
    captures = {(number, "raw") for number in range(len(read.evidence), len(read.every))}
    clean, places = redaction.redact(parts, captures, public)
    evidence = [_clean(number, item, clean) for number, item in enumerate(read.every)]
    names = manifest.file_names(evidence)
    files: dict[str, bytes] = {}
    pieces = [_piece(item, name, files) for item, name in zip(evidence, names, strict=True)]
    of = {(item.query.kind, item.query.arguments): piece.query for item, piece in zip(read.every, pieces, strict=True)}
    captured = [
        Captured(piece, tuple(of[query.kind, query.arguments] for query in requests))
        for piece, (_, requests) in zip(pieces[len(read.evidence) :], read.captures, strict=True)
    ]
    made = Manifest(
        what=manifest.KIND,
        format=manifest.FORMAT,
        made=source.now(),
        tool=_tool(),
        kind=source.kind,
        source=_text(clean[-1, "source"]),
        has_client=source.has_client,
        front_door=source.front_door(),
        pieces=tuple(pieces[: len(read.evidence)]),
        captures=tuple(captured),
        not_held=tuple(_not_held(number, item, clean) for number, item in enumerate(read.missing)),
        redactions=tuple(_listed(places, names)),
    )
    return files, made


def _tool() -> str:
    try:
        return f"bookinfo-lab {version('bookinfo-lab')}"
    except PackageNotFoundError:
        return "bookinfo-lab"  # run from its folder, not installed


def _parts(read: _Read) -> dict[_Key, bytes]:
    """Everything that a secret may stand in, by piece and part; not-held ones are numbered below zero."""
    parts: dict[_Key, bytes] = {}
    for number, item in enumerate(read.every):
        parts[number, "raw"], parts[number, "stderr"] = item.raw, item.stderr
        parts |= {(number, name): _bytes(text) for name, text in _texts(item)}
    for number, missing in enumerate(read.missing):
        parts[-2 - number, "reason"] = _bytes(missing.reason)
        parts[-2 - number, "arguments"] = _bytes("\0".join(missing.query.arguments))
    return parts


def _texts(item: Evidence) -> Iterator[tuple[str, str]]:
    yield "arguments", "\0".join(item.query.arguments)
    yield "origin", item.origin
    yield "here", item.here
    yield "on_a_cluster", item.on_a_cluster


def _clean(number: int, item: Evidence, clean: Mapping[_Key, bytes]) -> Evidence:
    origin, here, there = (_text(clean[number, name]) for name in ("origin", "here", "on_a_cluster"))
    query = _query(contents.key(item.query), clean[number, "arguments"])
    raw, stderr = clean[number, "raw"], clean[number, "stderr"]
    return Evidence(query, raw, item.time, origin, here, there, item.status, stderr)


def _not_held(number: int, item: NotHeld, clean: Mapping[_Key, bytes]) -> NotHeld:
    query = _query(item.query, clean[-2 - number, "arguments"])
    return NotHeld(query, _text(clean[-2 - number, "reason"]))


def _query(query: Query, arguments: bytes) -> Query:
    return replace(query, arguments=tuple(_text(arguments).split("\0")) if query.arguments else ())


def _piece(item: Evidence, name: str, files: dict[str, bytes]) -> Piece:
    files[name] = item.raw
    stderr = None
    if item.stderr:
        files[f"{name}.stderr"] = item.stderr
        stderr = _blob(f"{name}.stderr", item.stderr)
    raw = _blob(name, item.raw)
    return Piece(item.query, raw, item.time, item.origin, item.here, item.on_a_cluster, item.status, stderr)


def _blob(name: str, raw: bytes) -> Blob:
    return Blob(name, len(raw), hashlib.sha256(raw).hexdigest())


def _listed(places: Mapping[_Key, Sequence[redaction.Place]], names: Sequence[str]) -> Iterator[Redaction]:
    """The overwritten places by file; a place in the manifest's own texts as FILE#PART."""
    for (number, part), found in sorted(places.items()):
        name = names[number] if number >= 0 else manifest.NAME
        piece = {"raw": name, "stderr": f"{name}.stderr"}.get(part, f"{name}#{part}")
        for place in found:
            yield Redaction(piece, place.offset, place.length_bytes, place.what)


def _public(node: Any, *, is_name: bool = False) -> list[str]:
    """The words that name things in API objects: keys, names, labels; a secret that is one of them is not followed."""
    if isinstance(node, dict):
        found = list(node)
        for key, value in node.items():
            found += _public(value, is_name=is_name or key in _NAMING or key in ("labels", "matchLabels", "selector"))
        return found
    if isinstance(node, list):
        return [word for item in node for word in _public(item, is_name=is_name)]
    return [node] if is_name and isinstance(node, str) else []


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
