"""pcap as tcpdump writes it: every byte order and clock, cut-off ends, and headers that cannot be."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.errors import ParseError
from bookinfo_lab.packets import pcap


def written(order: str, magic: int, frames: list[tuple[int, int, bytes]], link_type: int = 1) -> bytes:
    raw = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    return raw + b"".join(
        struct.pack(f"{order}4I", seconds, part, len(data), len(data) + 3) + data for seconds, part, data in frames
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_frames_have_their_time_in_nanoseconds_and_their_length_on_the_wire(order: str, magic: int, unit: int) -> None:
    raw = written(order, magic, [(5, 7, b"abc"), (6, 999_999, b"")], 113)
    link_type, frames = pcap.parse(raw, 4)
    assert link_type == 113
    assert [(item.interface, item.ts_ns, item.raw, item.length_bytes) for item in frames] == [
        (4, 5 * 10**9 + 7 * unit, b"abc", 6),
        (4, 6 * 10**9 + 999_999 * unit, b"", 3),
    ]


def test_what_ends_in_the_middle_of_a_frame_keeps_those_before_it() -> None:
    raw = written("<", 0xA1B23C4D, [(1, 0, b"one"), (2, 0, b"two")])
    for cut in range(1, 19):
        assert [item.raw for item in pcap.parse(raw[:-cut])[1]] == [b"one"]


def test_what_is_no_pcap_or_cannot_be_is_said_with_its_place() -> None:
    for raw in (b"", b"abc", b"\x0a\x0d\x0d\x0a" + bytes(40), bytes(24)):
        with pytest.raises(ParseError, match="no pcap"):
            pcap.parse(raw)
    huge = written("<", 0xA1B23C4D, []) + struct.pack("<4I", 1, 0, 2**31, 5)
    late = written("<", 0xA1B23C4D, []) + struct.pack("<4I", 1, 10**9, 0, 0)
    for raw in (huge, late):
        with pytest.raises(ParseError, match="cannot be") as error:
            pcap.parse(raw)
        assert error.value.position == 24


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_give_frames_or_a_parse_error(noise: bytes, place: int) -> None:
    raw = written("<", 0xA1B2C3D4, [(1, 2, b"abcd")])
    with contextlib.suppress(ParseError):
        pcap.parse(raw[:place] + noise + raw[place:])
