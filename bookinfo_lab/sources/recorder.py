"""Record a source: ask it for everything that a recording holds, redact it, write it whole or not at all.

Edge.  Any live source comes in, a new folder or zip goes out.  What the source cannot answer is listed in the manifest
with its reason, a capture point that cannot be without the others; that there is no front door, or that the source
stops answering altogether, is an error, and nothing is written.  No byte of evidence reaches the disk before it was
redacted.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from bookinfo_lab.errors import LabError, RecordingError
from bookinfo_lab.netfilter import attempt
from bookinfo_lab.sources import archive, asking, contents, manifest, passing, redaction
from bookinfo_lab.sources.asking import Answers
from bookinfo_lab.sources.base import RESOURCES, Evidence, FrontDoor, Query, Source
from bookinfo_lab.sources.contents import Capture, Contents, NotHeld
from bookinfo_lab.sources.manifest import Blob, Captured, Dropped, Manifest, Piece, Redaction

if TYPE_CHECKING:
    from bookinfo_lab.sources.cluster.recorded import Recorded

_NAMING = frozenset({"name", "namespace", "nodeName", "serviceAccountName", "hostname", "image", "kind"})
_HIDDEN = sys.maxsize  # stands for the texts that are searched for secrets but not written
_Key = tuple[int, str]  # the number of a piece of evidence, and which part of it


def plan(source: Source) -> Contents:
    """What a recording of ``source`` would hold, as far as its objects, addresses and routes tell.

    LabError where it has no front door, without which there is no recording.
    """
    source = _cut(source) or source
    source.front_door()
    return _planned(source)


def _planned(source: Source) -> Contents:
    objects = _objects(source)
    try:
        packets = list(passing.packets(source).values())
    except LabError:
        packets = []  # what they are made of cannot be read here, and is listed as missing itself
    proofs = [Query("prove", item.place, attempt.words(item.packet)) for item in packets]
    wanted = contents.planned(objects, has_client=source.has_client, source=source.description, proofs=proofs)
    cut = _cut(source)
    if cut is None:
        return wanted
    points = dict.fromkeys(contents.at(name) for capture in wanted.captures for name in capture.points)
    refused = {query: reason for query in (*wanted.queries, *points) if (reason := cut.refusal(query))}
    reasons = dict.fromkeys([*cut.missing, *refused.items()])
    missing = tuple(NotHeld(contents.key(query), reason) for query, reason in reasons)
    return replace(contents.without(wanted, refused), not_held=missing, notes=cut.notes)


def _cut(source: Source) -> "Recorded | None":
    """A cluster as a recording may show it; None for a sandbox, which holds nothing that is not the lab's."""
    if source.kind != "kubernetes":
        return None
    from bookinfo_lab.sources.cluster import recorded

    return source if isinstance(source, recorded.Recorded) else recorded.Recorded(source)  # type: ignore[arg-type]


def record(source: Source, path: str, on_listing: Callable[[Sequence[str]], object] | None = None) -> Contents:
    """Write a redacted recording of ``source`` to the new folder (or, with that ending, .zip) ``path``; what it holds.

    ``on_listing`` is given the lines that say what will be read, before anything is written.  Raises RecordingError
    where ``path`` exists or cannot be written, or where the source is a recording itself; LabError where it has no
    front door, before anything else is asked or made.
    """
    if source.kind == "recording":
        raise RecordingError(f"this lab is a recording already: copy it; {source.description}")
    with archive.place(path) as folder:
        source = _cut(source) or source
        door = source.front_door()
        wanted = _planned(source)
        if on_listing is not None:
            on_listing(wanted.lines)
        read = asking.ask(source, wanted)
        objects = _objects(source)  # a source that ended meanwhile says so here
        files, made = _files(source, door, read, _public(objects))
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
        wanted.notes,
        sum(item.count for item in made.dropped),
    )


def _objects(source: Source) -> list[dict[str, Any]]:
    raw = [source.fetch(Query("objects", None, (name,))).raw for name in RESOURCES]
    return [item for text in raw for item in json.loads(text)["items"]]


def _files(source: Source, door: FrontDoor, read: Answers, public: Sequence[str]) -> tuple[dict[str, bytes], Manifest]:
    """Every file of the recording but the manifest, and the manifest."""
    parts = {**_parts(read), (-1, "source"): source.description.encode()}
    cut = _cut(source)
    hidden = () if cut is None else cut.hidden.values()
    parts |= {(_HIDDEN, str(number)): raw for number, raw in enumerate(hidden)}
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
        front_door=door,
        pieces=tuple(pieces[: len(read.evidence)]),
        captures=tuple(captured),
        not_held=tuple(_not_held(number, item, clean) for number, item in enumerate(read.missing)),
        redactions=tuple(_listed(places, names)),
        dropped=() if cut is None else tuple(_dropped(cut, read.every, names)),
    )
    return files, made


def _dropped(cut: "Recorded", every: Sequence[Evidence], names: Sequence[str]) -> Iterator[Dropped]:
    """What was left out, by the file that lacks it."""
    files = {id(item): name for item, name in zip(every, names, strict=True)}  # one question may have two answers
    for item, what, count in cut.dropped:
        if id(item) in files:
            yield Dropped(files[id(item)], count, what)


def _tool() -> str:
    try:
        return f"bookinfo-lab {version('bookinfo-lab')}"
    except PackageNotFoundError:
        return "bookinfo-lab"  # run from its folder, not installed


def _parts(read: Answers) -> dict[_Key, bytes]:
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
        if number == _HIDDEN:
            continue
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
