"""Secrets overwritten at equal length: pieces of evidence in, the same pieces without secrets and a list of places out.

Pure.  `secret_forms` finds secrets by form and name, here they are also followed: what is a secret once is overwritten
wherever else it stands, in any piece, also escaped, percent-encoded or inside base64.  Captures are read as
`redact_capture` says.  A value too short to be told from ordinary text (under 5 bytes, digits under 8), or one that the
cluster's objects use as a name, is overwritten only where its place says that it is a secret.
"""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bookinfo_lab.sources import redact_capture, secret_forms
from bookinfo_lab.sources.redact_capture import Layer
from bookinfo_lab.sources.secret_forms import Span

_SHORTEST_BYTES, _ANYWHERE_BYTES = 5, 8
_CHECKSUM = "checksum of a changed frame"
_LONG_LINE_BYTES = 24  # a line of a private key that is worth looking for on its own
_WORD_BYTE = re.compile(rb"\w")
_DEMANDED = ("cookie", "authorization")  # header fields that a route may match
_NESTED_VALUES = ("inline_string", "inline_bytes", "value", "exact", "exact_match", "prefix", "regex")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """An overwritten range of bytes; ``what`` says what stood there, never its value."""

    offset: int
    length_bytes: int
    what: str


def redact(
    pieces: Mapping[Key, bytes], captures: Collection[Key] = (), public: Iterable[str] = ()
) -> tuple[dict[Key, bytes], dict[Key, tuple[Place, ...]]]:
    """Each piece without its secrets, and for each piece that had some where they stood, in order.

    ``captures`` are the keys of the pieces that are pcapng.  ``public`` are words that stay wherever they are not
    themselves in a secret's place: the names of the cluster's objects.
    """
    texts = {key: _layers(key, raw, captures) for key, raw in pieces.items()}
    spans = {key: [secret_forms.find(layer.text) + _in_json(layer.text) for layer in texts[key]] for key in texts}
    every = (span for found in spans.values() for of_layer in found for span in of_layer)
    known = _followed(every, "\n".join(public).encode())
    done: dict[Key, bytes] = {}
    listed: dict[Key, tuple[Place, ...]] = {}
    for key, raw in pieces.items():
        marks: list[_Mark] = []
        for layer, found in zip(texts[key], spans[key], strict=True):
            for span in (*found, *_occurrences(layer.text, known)):
                fill = _mask(layer.text[span.start : span.end])
                at = layer.places(span.start, span.end)
                marks += [_Mark(offset, offset + length, span.what, fill) for offset, length in at]
        done[key], listed[key] = _overwritten(raw, marks, is_capture=key in captures)
    return done, {key: places for key, places in listed.items() if places}


def _layers(key: Key, raw: bytes, captures: Collection[Key]) -> tuple[Layer, ...]:
    return redact_capture.layers(raw) if key in captures else (Layer(raw, ((0, len(raw), 0),)),)


@dataclass(frozen=True, slots=True, order=True)
class _Mark:
    """Bytes of a piece from ``start`` to ``end``, to be overwritten with ``fill``."""

    start: int
    end: int
    what: str
    fill: bytes


def _overwritten(raw: bytes, marks: Sequence[_Mark], *, is_capture: bool) -> tuple[bytes, tuple[Place, ...]]:
    made, merged = bytearray(raw), _merged(marks)
    for mark in sorted(marks, key=lambda item: item.end - item.start):
        made[mark.start : mark.end] = mark.fill * (mark.end - mark.start)
    if not (is_capture and merged):
        return bytes(made), tuple(merged)
    mended, sums = redact_capture.mend(raw, bytes(made))
    return mended, tuple(sorted([*merged, *(Place(offset, length, _CHECKSUM) for offset, length in sums)]))


def _mask(secret: bytes) -> bytes:
    """What to overwrite with: a number stays one, so that JSON stays JSON."""
    if not secret.isdigit():
        return b"x"
    return b"1" if secret.strip(b"1") else b"2"


def _merged(marks: Iterable[_Mark]) -> list[Place]:
    merged: list[Place] = []
    for mark in sorted(marks):
        last = merged[-1] if merged else None
        if last is not None and mark.start < last.offset + last.length_bytes:
            end = max(last.offset + last.length_bytes, mark.end)
            merged[-1] = Place(last.offset, end - last.offset, last.what)
        else:
            merged.append(Place(mark.start, mark.end - mark.start, mark.what))
    return merged


def _followed(spans: Iterable[Span], public: bytes) -> dict[bytes, str]:
    """The byte strings to look for everywhere, each form of each secret, with what it is."""
    values: dict[bytes, str] = {}
    for span in spans:
        what = span.what.removesuffix(", base64")
        for value in _meanings(span):
            if _is_telling(value) and value not in public:
                values.setdefault(value, what)
    return {form: what for value, what in values.items() for form in _forms(value) if form not in public}


def _is_telling(value: bytes) -> bool:
    return len(value) >= (_ANYWHERE_BYTES if value.isdigit() else _SHORTEST_BYTES)


def _meanings(span: Span) -> Iterator[bytes]:
    """What a secret's bytes may stand for: themselves, what they escape, the password they encode, a key's lines."""
    value = span.value.strip()
    yield value
    yield from _unescaped(value)
    if b"%" in value:
        yield urllib.parse.unquote_to_bytes(value)
    decoded = secret_forms.decode(value)
    if decoded is not None and len(value) >= _ANYWHERE_BYTES:
        yield decoded.strip()
        if span.what == "authorization":
            yield decoded.partition(b":")[2]
    if span.what == "private key":
        lines = re.split(rb"\s|\\+[nrt]", value)
        yield from (line for line in lines if len(line) >= _LONG_LINE_BYTES)


def _unescaped(value: bytes) -> Iterator[bytes]:
    """The value out of a JSON string, and out of a string in that string, and so on."""
    while b"\\" in value:
        try:
            value = json.loads(b'"' + value + b'"').encode()
        except (ValueError, UnicodeEncodeError):
            return  # no JSON escapes: the bytes themselves are looked for
        yield value


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    text = value.decode("utf-8", "surrogateescape")
    once = json.dumps(text)[1:-1]
    quoted = urllib.parse.quote(value, safe="")
    others = (
        once,
        json.dumps(text, ensure_ascii=False)[1:-1],
        json.dumps(once)[1:-1],
        quoted,
        re.sub("%..", lambda found: found[0].lower(), quoted),
        urllib.parse.quote_plus(value),
        html.escape(text),
        text.replace("'", "'\"'\"'"),
    )
    for other in others:
        encoded = other.encode("utf-8", "surrogateescape")
        if encoded != value:
            yield encoded
    if len(value) >= _ANYWHERE_BYTES:
        for shift in range(3):
            # Inside a longer base64 text its first and last characters share bits with its neighbours.
            coded = base64.b64encode(b"\0" * shift + value).rstrip(b"=")
            core = coded[-(-shift * 8 // 6) : (shift + len(value)) * 8 // 6]
            yield core
            yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _occurrences(text: bytes, known: Mapping[bytes, str]) -> Iterator[Span]:
    for form, what in known.items():
        at = text.find(form)
        while at >= 0:
            end = at + len(form)
            if len(form) >= _ANYWHERE_BYTES or _is_word(text, at, end):
                yield Span(at, end, what, form)
            at = text.find(form, end)


def _is_word(text: bytes, start: int, end: int) -> bool:
    return not (_WORD_BYTE.match(text, end) or (start and _WORD_BYTE.match(text, start - 1)))


def _in_json(text: bytes) -> list[Span]:
    """The strings of a JSON document that only its structure shows to be secrets."""
    if text[:1] not in (b"{", b"["):
        return []
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    values = set(_structural(document))
    forms = {json.dumps(value, ensure_ascii=is_ascii) for value in values for is_ascii in (True, False)}
    literals = [re.escape(form.encode("utf-8", "surrogatepass")) + rb"(?!\s*:)" for form in forms]
    found = (match for literal in literals for match in re.finditer(literal, text))
    return [Span(match.start() + 1, match.end() - 1, "value of a secret", match[0][1:-1]) for match in found]


def _structural(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from _of_mapping(node)
        for value in node.values():
            yield from _structural(value)
    elif isinstance(node, list):
        for value in node:
            yield from _structural(value)


def _of_mapping(node: dict[str, Any]) -> Iterator[str]:
    """A Kubernetes Secret's data, the value beside a secret's name, and what stands below a secret's key."""
    if node.get("kind") == "Secret":
        for field in ("data", "stringData"):
            yield from _strings(node.get(field))
    name = node.get("name") or node.get("key")
    if isinstance(name, str) and secret_forms.is_secret_name(name) and isinstance(node.get("value"), str):
        yield node["value"]
    for key, value in node.items():
        if secret_forms.is_secret_name(key) and isinstance(value, dict):
            yield from (item for field in _NESTED_VALUES for item in _strings(value.get(field)))
        if key.lower() in _DEMANDED or (isinstance(name, str) and name.lower() in _DEMANDED):
            yield from _matched(value)


def _matched(node: Any) -> Iterator[str]:
    """What a route demands of a cookie or of an authorization, unless it is on the allow-list or no plain text."""
    for text in _strings(node):
        pairs = [pair.encode() for pair in re.findall(r"[\w.-]+=[^;()\s|]+", text)]
        if any(pair not in secret_forms.ALLOWED_COOKIES for pair in pairs):
            yield text


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield from (node,) if node else ()
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
