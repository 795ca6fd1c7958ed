"""pcapng bytes ↔ interfaces and frames.

Pure.  `parse` reads either byte order, enhanced and simple packet blocks, and passes over blocks and options that it
does not know; a block whose lengths cannot be is a ParseError (its ``position`` is the byte offset), and nothing is
allocated on a length's word alone.  `write` writes one section, little-endian, nanosecond times.  Follows
draft-ietf-opsawg-pcapng.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bookinfo_lab.errors import LabError, ParseError

ETHERNET = 1
LONGEST_FRAME = 262144
_SECTION, _INTERFACE, _SIMPLE, _STATISTICS, _ENHANCED = 0x0A0D0D0A, 1, 3, 5, 6
_COMMENT, _NAME, _RESOLUTION, _OFFSET, _DROPS = 1, 2, 9, 14, 5
_MAGIC = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True)
class Interface:
    """Where frames were captured; ``drops`` counts those that the kernel could not keep."""

    name: str
    link_type: int = ETHERNET
    snaplen: int = LONGEST_FRAME
    drops: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: ``interface`` counts from 0, ``ts_ns`` is Unix time, ``length_bytes`` what it had on the wire."""

    interface: int
    ts_ns: int
    raw: bytes
    length_bytes: int


@dataclass(frozen=True, slots=True)
class _Clock:
    """How an interface's timestamps become nanoseconds: ``units`` a second, ``offset_s`` added."""

    units: int = 10**6
    offset_s: int = 0


def write(interfaces: Sequence[Interface], frames: Sequence[Frame], comment: str = "") -> bytes:
    """One section with these interfaces and frames, in the order given; drops as interface statistics."""
    options = _option(_COMMENT, comment.encode()) if comment else b""
    parts = [_block(_SECTION, struct.pack("<IHHQ", _MAGIC, 1, 0, _UNKNOWN_LENGTH) + _options(options))]
    parts += [interface_block(item) for item in interfaces]
    parts += [frame_block(item) for item in frames]
    last_ns = max((item.ts_ns for item in frames), default=0)
    parts += [statistics_block(number, item, last_ns) for number, item in enumerate(interfaces) if item.drops]
    return b"".join(parts)


def parse(raw: bytes, source: str = "capture") -> tuple[tuple[Interface, ...], tuple[Frame, ...]]:
    """Every interface and frame, in the order of the file; interfaces of later sections are numbered on.

    Raises ParseError for bytes that are no pcapng, end inside a block, or name an interface that is not described.
    """
    interfaces: list[Interface] = []
    clocks: list[_Clock] = []
    frames: list[Frame] = []
    first = 0  # the number of the section's first interface
    for kind, body, order, offset in _blocks(raw, source):
        if kind == _SECTION:
            first = len(interfaces)
        elif kind == _INTERFACE:
            interface, clock = _read_interface(body, order, offset, source)
            interfaces.append(interface)
            clocks.append(clock)
        elif kind in (_ENHANCED, _SIMPLE):
            frames.append(_read_frame(kind, body, order, offset, source, interfaces, clocks, first))
        elif kind == _STATISTICS and len(body) >= 12:
            number = first + int(struct.unpack_from(order + "I", body)[0])
            drops = dict(_read_options(body[12:], order)).get(_DROPS, b"")
            if number < len(interfaces) and len(drops) == 8:
                lost = struct.unpack(order + "Q", drops)[0]
                interfaces[number] = replace(interfaces[number], drops=lost)
    return tuple(interfaces), tuple(frames)


def select(raw: bytes, names: Sequence[str]) -> bytes:
    """The capture with only the interfaces ``names``, in that order; LabError lists those it has where one is not."""
    interfaces, frames = parse(raw)
    known = [item.name for item in interfaces]
    missing = [name for name in names if name not in known]
    if missing:
        raise LabError(f"nothing was captured at {', '.join(missing)}; captured were: {', '.join(known)}")
    places = {known.index(name): place for place, name in enumerate(names)}
    kept = [replace(item, interface=places[item.interface]) for item in frames if item.interface in places]
    return write([interfaces[known.index(name)] for name in names], kept)


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    value = value[:65535]
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _options(options: bytes) -> bytes:
    return options + struct.pack("<HH", 0, 0) if options else b""


def interface_block(item: Interface) -> bytes:
    """One interface description, for a writer that streams; it stands before the interface's first frame."""
    options = _option(_NAME, item.name.encode()) + _option(_RESOLUTION, b"\x09")
    return _block(_INTERFACE, struct.pack("<HHI", item.link_type, 0, item.snaplen) + _options(options))


def frame_block(item: Frame) -> bytes:
    """One frame, for a writer that streams."""
    high, low = item.ts_ns >> 32, item.ts_ns & 0xFFFFFFFF
    head = struct.pack("<IIIII", item.interface, high, low, len(item.raw), item.length_bytes)
    return _block(_ENHANCED, head + _padded(item.raw))


def statistics_block(number: int, item: Interface, ts_ns: int) -> bytes:
    """The drops of interface ``number``, for a writer that streams."""
    head = struct.pack("<III", number, ts_ns >> 32, ts_ns & 0xFFFFFFFF)
    return _block(_STATISTICS, head + _options(_option(_DROPS, struct.pack("<Q", item.drops))))


def _fault(source: str, offset: int, raw: bytes, reason: str) -> ParseError:
    return ParseError(source, offset, raw[:16].hex(" "), f"byte {offset}: {reason}")


def _blocks(raw: bytes, source: str) -> Iterator[tuple[int, bytes, str, int]]:
    """(kind, body, byte order as `struct` writes it, offset) of each block."""
    order, offset = "<", 0
    if len(raw) < 12 or raw[:4] != b"\x0a\x0d\x0d\x0a":
        raise _fault(source, 0, raw, "this is no pcapng file; it does not start with a section header")
    while offset < len(raw):
        head = raw[offset : offset + 12]
        if len(head) < 12:
            raise _fault(source, offset, head, "the file ends inside a block")
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[8:12], "")
            if not order:
                raise _fault(source, offset, head, "a section header without a byte-order mark")
        kind, length = struct.unpack_from(order + "II", head)
        end = offset + length
        if length < 12 or length % 4 or end > len(raw):
            raise _fault(source, offset, head, f"a block of {length} bytes cannot be here: the file has {len(raw)}")
        if struct.unpack_from(order + "I", raw, end - 4)[0] != length:
            raise _fault(source, offset, head, "a block's two lengths differ")
        yield kind, raw[offset + 8 : end - 4], order, offset
        offset = end


def _read_options(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(code, value) of each option, as far as they are whole."""
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, at)
        if code == 0 or at + 4 + length > len(data):
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length + (-length % 4)


def _read_interface(body: bytes, order: str, offset: int, source: str) -> tuple[Interface, _Clock]:
    if len(body) < 8:
        raise _fault(source, offset, body, "an interface description of less than 8 bytes")
    link_type, _, snaplen = struct.unpack_from(order + "HHI", body)
    options = dict(_read_options(body[8:], order))
    resolution = options.get(_RESOLUTION, b"\x06")[:1] or b"\x06"
    power = resolution[0] & 0x7F
    shift = options.get(_OFFSET, b"")
    clock = _Clock(
        2**power if resolution[0] & 0x80 else 10**power,
        struct.unpack(order + "q", shift)[0] if len(shift) == 8 else 0,
    )
    return Interface(options.get(_NAME, b"").decode("utf-8", "replace"), link_type, snaplen), clock


def _read_frame(
    kind: int,
    body: bytes,
    order: str,
    offset: int,
    source: str,
    interfaces: Sequence[Interface],
    clocks: Sequence[_Clock],
    first: int,
) -> Frame:
    size = 20 if kind == _ENHANCED else 4
    if len(body) < size:
        raise _fault(source, offset, body, "a packet block shorter than its fixed fields")
    number = first
    ts_ns = 0
    if kind == _ENHANCED:
        own, high, low, kept, length = struct.unpack_from(order + "IIIII", body)
        number += own
    else:
        length = int(struct.unpack_from(order + "I", body)[0])
        kept = min(length, len(body) - size)
    if not first <= number < len(interfaces):
        raise _fault(source, offset, body, "a packet of an interface that is not described before it")
    if kept > len(body) - size:
        raise _fault(source, offset, body, f"a packet of {kept} bytes in a block of {len(body)}")
    if kind == _ENHANCED:
        clock = clocks[number]
        ts_ns = ((high << 32) | low) * 10**9 // clock.units + clock.offset_s * 10**9
    return Frame(number, ts_ns, body[size : size + kept], length)
