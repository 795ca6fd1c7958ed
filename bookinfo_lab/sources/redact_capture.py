"""The texts inside a pcapng capture, and its checksums after some of their bytes were overwritten.

Bytes in, layers out: each TCP connection's payload put together (per interface and direction), each other frame's
payload, each text option, with the file offset of every byte, so that a secret split over two frames, sent twice or
out of order is found whole.  `mend` then adjusts TCP's and UDP's checksums.  No frame is added, dropped or resized.
Payloads of IP fragments, and of link types other than Ethernet, raw IP and Linux cooked, are read frame by frame.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bookinfo_lab.errors import ParseError

_SECTION, _INTERFACE, _SIMPLE, _PACKET = 0x0A0D0D0A, 1, 3, 6
_TEXT_OPTIONS = {_SECTION: (1, 2, 3, 4), _INTERFACE: (1, 2, 3, 11, 12), _PACKET: (1,)}
_OPTIONS_AT = {_SECTION: 24, _INTERFACE: 16}  # from the block's start
_LINK_BYTES = {1: 14, 12: 0, 101: 0, 113: 16, 276: 20}
_ETHERTYPE_AT = {1: 12, 113: 14, 276: 0}
_TCP, _UDP = 6, 17
_SYN = 0x02
_STREAM_LIMIT_BYTES = 1 << 26  # sequence numbers further apart than this are no one stream


@dataclass(frozen=True, slots=True)
class Layer:
    """A text, and which parts of it stand where in the file: (offset in the text, length, offset in the file)."""

    text: bytes
    parts: tuple[tuple[int, int, int], ...]

    def places(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Offset and length in the file of the text from ``start`` to ``end``: each copy of it that was sent."""
        for at, length, offset in self.parts:
            low, high = max(start, at), min(end, at + length)
            if low < high:
                yield offset + low - at, high - low


@dataclass(frozen=True, slots=True)
class _Segment:
    """What a frame carries above IP, as far as it was captured: offsets are the file's."""

    key: tuple[object, ...]
    proto: int
    start: int
    end: int
    whole_bytes: int
    pseudo_sum: int
    is_fragment: bool


def layers(raw: bytes, source: str = "capture") -> tuple[Layer, ...]:
    """Every text in the capture; ParseError where it is no pcapng."""
    found: list[Layer] = []
    streams: dict[tuple[object, ...], list[_Stream]] = {}
    for start, end, segment in _walk(raw, source):
        if segment is None or segment.proto != _TCP or segment.is_fragment or segment.end - segment.start < 20:
            low = start if segment is None else _payload_start(raw, segment)
            found.append(_whole(raw, low, end if segment is None else segment.end))
            continue
        (sequence,) = struct.unpack_from(">I", raw, segment.start + 4)
        is_syn = bool(raw[segment.start + 13] & _SYN)
        known = streams.setdefault(segment.key, [])
        if not known or (is_syn and known[-1].first != sequence):
            known.append(_Stream(sequence, []))
        data = min(segment.end, _payload_start(raw, segment))
        known[-1].pieces.append((sequence + is_syn, data, segment.end))
    found.extend(item for known in streams.values() for stream in known for item in stream.layers(raw))
    return tuple(item for item in found if item.text)


def mend(before: bytes, after: bytes, source: str = "capture") -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """``after`` with the checksums that its changed payloads need, and where they stand (offset, length).

    A checksum that held only the pseudo-header's sum (the sender left the rest to its network card) stays, and so does
    UDP's 0 for none.  A wrong one stays exactly as wrong: only the difference is added (RFC 1624).
    """
    made, places = bytearray(after), []
    for _, _, segment in _walk(before, source):
        if segment is None or before[segment.start : segment.end] == after[segment.start : segment.end]:
            continue
        at = segment.start + {_TCP: 16, _UDP: 6}.get(segment.proto, 0)
        if at == segment.start or at + 2 > segment.end:
            continue
        (was,) = struct.unpack_from(">H", before, at)
        if _is_left_to_card(before, segment, was) or (segment.proto == _UDP and was == 0):
            continue
        change = _sum16(after[segment.start : segment.end]) - _sum16(before[segment.start : segment.end])
        new = ~_fold((~was & 0xFFFF) + change % 0xFFFF) & 0xFFFF
        if segment.proto == _UDP and new == 0:
            new = 0xFFFF
        if new != was:
            struct.pack_into(">H", made, at, new)
            places.append((at, 2))
    return bytes(made), tuple(places)


@dataclass(frozen=True, slots=True)
class _Stream:
    """One direction of one connection: ``first`` is the sequence number it was first seen with."""

    first: int
    pieces: list[tuple[int, int, int]]

    def layers(self, raw: bytes) -> list[Layer]:
        """Its bytes in order, gaps as zeros; a second layer where a retransmission brought other bytes."""
        placed = [(_signed(number - self.first), start, end) for number, start, end in self.pieces if start < end]
        if not placed:
            return []
        low = min(at for at, _, _ in placed)
        length = max(at + end - start for at, start, end in placed) - low
        if length > _STREAM_LIMIT_BYTES:
            return [_whole(raw, start, end) for _, start, end in placed]
        parts = tuple((at - low, end - start, start) for at, start, end in placed)
        last, first = bytearray(length), bytearray(length)
        for at, size, start in parts:
            last[at : at + size] = raw[start : start + size]
        for at, size, start in reversed(parts):
            first[at : at + size] = raw[start : start + size]
        texts = [bytes(first)] if first == last else [bytes(first), bytes(last)]
        return [Layer(text, parts) for text in texts]


def _signed(number: int) -> int:
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def _whole(raw: bytes, start: int, end: int) -> Layer:
    return Layer(raw[start:end], ((0, end - start, start),))


def _walk(raw: bytes, source: str) -> Iterator[tuple[int, int, _Segment | None]]:
    """Each text option and each frame: file offsets, and what the frame carries where it is IP."""
    order, interfaces, at = "<", 0, 0
    links: list[int] = []
    while at < len(raw):
        if raw[at : at + 4] == b"\n\r\r\n":
            order = "<" if raw[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links, interfaces = [], interfaces + len(links)
        if at + 12 > len(raw):
            raise ParseError(source, at, raw[at:].hex(), "a pcapng block is cut short at this byte")
        kind, length = struct.unpack_from(order + "II", raw, at)
        if length < 12 or length % 4 or at + length > len(raw):
            raise ParseError(source, at, raw[at : at + 12].hex(), "no pcapng block at this byte")
        options, end = at + _OPTIONS_AT.get(kind, length), at + length - 4
        if kind == _INTERFACE:
            links.append(struct.unpack_from(order + "H", raw, at + 8)[0])
        elif kind == _PACKET and length >= 32:
            number, _, _, captured = struct.unpack_from(order + "IIII", raw, at + 8)
            start = at + 28
            stop = min(start + captured, end)
            options = start + captured + -captured % 4
            link = links[number] if number < len(links) else -1
            yield start, stop, _segment(raw, start, stop, link, interfaces + number)
        elif kind == _SIMPLE:
            yield at + 12, end, _segment(raw, at + 12, end, links[0] if links else -1, interfaces)
        for first, last in _text_options(raw, options, end, order, _TEXT_OPTIONS.get(kind, ())):
            yield first, last, None
        at += length


def _text_options(raw: bytes, at: int, end: int, order: str, wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    while at + 4 <= end:
        code, length = struct.unpack_from(order + "HH", raw, at)
        if code == 0:
            return
        if code in wanted:
            yield at + 4, min(at + 4 + length, end)
        at += 4 + length + -length % 4


def _segment(raw: bytes, start: int, end: int, link: int, interface: int) -> _Segment | None:
    """The IP payload of a frame; None where it is not IP, or cut before its transport header."""
    at = start + _LINK_BYTES.get(link, 0)
    if link not in _LINK_BYTES or at >= end:
        return None
    if link in _ETHERTYPE_AT:
        (kind,) = struct.unpack_from(">H", raw, start + _ETHERTYPE_AT[link])
        while kind in (0x8100, 0x88A8) and at + 4 <= end:
            kind, at = struct.unpack_from(">H", raw, at + 2)[0], at + 4
        if kind not in (0x0800, 0x86DD):
            return None
    version = raw[at] >> 4
    if version == 4 and at + 20 <= end:
        return _ipv4(raw, at, end, interface)
    if version == 6 and at + 40 <= end:
        return _ipv6(raw, at, end, interface)
    return None


def _ipv4(raw: bytes, at: int, end: int, interface: int) -> _Segment:
    header = (raw[at] & 15) * 4
    total, _, fragment = struct.unpack_from(">HHH", raw, at + 2)
    total = total or end - at  # 0 where the sender's card was to cut it
    proto, addresses = raw[at + 9], raw[at + 12 : at + 20]
    start, last = min(at + header, end), min(at + total, end)
    return _transport(raw, start, last, proto, addresses, total - header, interface, bool(fragment & 0x3FFF))


def _ipv6(raw: bytes, at: int, end: int, interface: int) -> _Segment:
    length, proto = struct.unpack_from(">HB", raw, at + 4)
    addresses, start, is_fragment = raw[at + 8 : at + 40], at + 40, False
    last = min(at + 40 + (length or end - at - 40), end)
    size = length or end - at - 40
    while proto in (0, 43, 44, 60) and start + 8 <= last:
        is_fragment = is_fragment or proto == 44
        step = 8 if proto == 44 else (raw[start + 1] + 1) * 8
        proto, start, size = raw[start], start + step, size - step
    return _transport(raw, min(start, last), last, proto, addresses, size, interface, is_fragment)


def _transport(
    raw: bytes, start: int, end: int, proto: int, addresses: bytes, size: int, interface: int, is_fragment: bool
) -> _Segment:
    key = (interface, addresses, raw[start : start + 4])
    pseudo = _fold(_sum16(addresses) + proto + (size & 0xFFFF) + (size >> 16 & 0xFFFF))
    return _Segment(key, proto, start, max(start, end), size, pseudo, is_fragment)


def _payload_start(raw: bytes, segment: _Segment) -> int:
    if segment.is_fragment or segment.end - segment.start < 20:
        return segment.start + (8 if segment.proto == _UDP and not segment.is_fragment else 0)
    if segment.proto == _TCP:
        return segment.start + max(20, (raw[segment.start + 12] >> 4) * 4)
    return segment.start + (8 if segment.proto == _UDP else 0)


def _is_left_to_card(raw: bytes, segment: _Segment, checksum: int) -> bool:
    if checksum != segment.pseudo_sum:
        return False
    is_whole = segment.end - segment.start == segment.whole_bytes
    return not (is_whole and _fold(segment.pseudo_sum + _sum16(raw[segment.start : segment.end])) == 0xFFFF)


def _sum16(text: bytes) -> int:
    """The sum of the big-endian 16-bit words, the last one padded with zero."""
    padded = text + b"\0" * (len(text) % 2)
    return sum(struct.unpack(f">{len(padded) // 2}H", padded))


def _fold(number: int) -> int:
    while number > 0xFFFF:
        number = (number & 0xFFFF) + (number >> 16)
    return number
