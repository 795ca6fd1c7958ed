"""pcap bytes, as tcpdump writes them with ``-w -``, to frames.

Pure.  Either byte order, microseconds or nanoseconds.  What ends in the middle of a frame keeps the frames before it;
lengths that cannot be are a ParseError whose ``position`` is the byte offset.  Follows pcap-savefile(5).
"""

import struct

from bookinfo_lab.errors import ParseError
from bookinfo_lab.packets.pcapng import LONGEST_FRAME, Frame

_MAGIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # what one unit of the fraction is, in nanoseconds
_HEADER_BYTES, _RECORD_BYTES = 24, 16


def parse(raw: bytes, interface: int = 0, source: str = "capture") -> tuple[int, tuple[Frame, ...]]:
    """(link type, frames) of ``raw``; each frame is of the interface with that number."""
    order = next((order for order in "<>" if raw[:4] and _magic(raw, order) in _MAGIC), "")
    if len(raw) < _HEADER_BYTES or not order:
        raise ParseError(source, 0, raw[:16].hex(), "this is no pcap file")
    unit = _MAGIC[_magic(raw, order)]
    link_type = struct.unpack_from(f"{order}I", raw, 20)[0] & 0xFFFF
    frames, place = [], _HEADER_BYTES
    while place + _RECORD_BYTES <= len(raw):
        seconds, fraction, kept, length = struct.unpack_from(f"{order}4I", raw, place)
        if kept > LONGEST_FRAME or fraction * unit >= 10**9:
            raise ParseError(source, place, raw[place : place + 16].hex(), "a frame's header cannot be")
        start = place + _RECORD_BYTES
        if start + kept > len(raw):
            break
        frames.append(Frame(interface, seconds * 10**9 + fraction * unit, raw[start : start + kept], length))
        place = start + kept
    return link_type, tuple(frames)


def _magic(raw: bytes, order: str) -> int:
    return int(struct.unpack_from(f"{order}I", raw)[0]) if len(raw) >= 4 else 0
