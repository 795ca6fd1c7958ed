"""pcapng: what is written, tshark reads; what is read back is what was written; damage is one line."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.errors import LabError, ParseError
from bookinfo_lab.packets import pcapng
from bookinfo_lab.packets.pcapng import Frame, Interface

INTERFACES = (Interface("client:eth0"), Interface("default/a-pod:lo", drops=3), Interface("node/ä:eth0", snaplen=96))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FRAMES = st.builds(
    lambda raw, more, interface, ts_ns: Frame(interface, ts_ns, raw, len(raw) + more),
    st.binary(max_size=90),
    st.integers(0, 2000),
    st.integers(0, 2),
    st.integers(0, 2**62),
)


def ethernet(number: int) -> bytes:
    return bytes(12) + b"\x08\x00" + bytes([number % 256]) * (46 + number % 5)


@given(st.lists(FRAMES, max_size=8), NAMES)
def test_what_is_written_is_read_back(frames: list[Frame], comment: str) -> None:
    assert pcapng.parse(pcapng.write(INTERFACES, frames, comment)) == (INTERFACES, tuple(frames))


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 255))
def test_any_damage_is_a_parse_error_or_other_frames_but_nothing_else(noise: bytes, place: int, byte: int) -> None:
    raw = bytearray(pcapng.write(INTERFACES, [Frame(0, 5, b"abc", 3)], "c"))
    raw[place % len(raw)] = byte
    for damaged in (noise, bytes(raw), bytes(raw[:place]), bytes(raw) + noise):
        try:
            interfaces, frames = pcapng.parse(damaged)
        except ParseError:
            continue
        assert all(frame.interface < len(interfaces) for frame in frames)


def test_a_length_that_lies_allocates_nothing() -> None:
    raw = bytearray(pcapng.write([Interface("a")], [Frame(0, 1, b"x" * 60, 60)]))
    at = raw.rindex(struct.pack("<I", 6)) + 4
    raw[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    with pytest.raises(ParseError, match="cannot be here"):
        pcapng.parse(bytes(raw))


def test_a_streams_blocks_together_are_the_file() -> None:
    frames = [Frame(0, 1, b"x" * 60, 60), Frame(1, 2, b"y" * 61, 61)]
    head = pcapng.write(INTERFACES, [])[: -len(pcapng.statistics_block(1, INTERFACES[1], 0))]
    whole = head + b"".join(map(pcapng.frame_block, frames)) + pcapng.statistics_block(1, INTERFACES[1], 2)
    assert whole == pcapng.write(INTERFACES, frames)


def test_microseconds_powers_of_two_offsets_and_big_endian_are_read() -> None:
    def block(order: str, kind: int, body: bytes) -> bytes:
        return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))

    def option(order: str, code: int, value: bytes) -> bytes:
        return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)

    for order in "<>":
        raw = block(order, 0x0A0D0D0A, struct.pack(order + "IHHQ", 0x1A2B3C4D, 1, 0, 2**64 - 1))
        for options in (b"", option(order, 9, b"\x8a") + option(order, 14, struct.pack(order + "q", 7))):
            raw += block(order, 1, struct.pack(order + "HHI", 1, 0, 0) + options)
        raw += block(order, 99, b"what nobody knows ..")
        raw += block(order, 6, struct.pack(order + "IIIII", 0, 0, 1_500_000, 4, 4) + b"abcd")
        raw += block(order, 6, struct.pack(order + "IIIII", 1, 0, 512, 3, 9) + b"xyz\0")
        raw += block(order, 3, struct.pack(order + "I", 4) + b"simp")
        _, frames = pcapng.parse(raw)
        assert frames == (
            Frame(0, 1_500_000_000, b"abcd", 4),
            Frame(1, 7_500_000_000, b"xyz", 9),
            Frame(0, 0, b"simp", 4),
        )


def test_select_keeps_the_named_interfaces_in_the_order_asked() -> None:
    raw = pcapng.write(INTERFACES, [Frame(number % 3, number, ethernet(number), 60) for number in range(9)])
    interfaces, frames = pcapng.parse(pcapng.select(raw, ["node/ä:eth0", "client:eth0"]))
    assert [item.name for item in interfaces] == ["node/ä:eth0", "client:eth0"]
    assert [(frame.interface, frame.ts_ns) for frame in frames] == [(1, 0), (0, 2), (1, 3), (0, 5), (1, 6), (0, 8)]
    with pytest.raises(LabError, match=r"nothing was captured at moon:eth0; captured were: client:eth0"):
        pcapng.select(raw, ["moon:eth0"])


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is the judge, and is not installed")
def test_tshark_reads_the_same_frames_times_lengths_and_interfaces(tmp_path: Path) -> None:
    frames = [
        Frame(number % 3, 1_700_000_000_123_456_789 + number * 1_000_000_007, ethernet(number), len(ethernet(number)))
        for number in range(50)
    ]
    path = tmp_path / "made.pcapng"
    path.write_bytes(pcapng.write(INTERFACES, frames, "a comment"))
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name"]
    words = [word for field in fields for word in ("-e", field)]
    read = subprocess.run(["tshark", "-r", path, "-T", "fields", *words], capture_output=True, text=True, check=True)
    told = [line.split("\t") for line in read.stdout.splitlines()]
    assert [row[0] for row in told] == [f"{item.ts_ns // 10**9}.{item.ts_ns % 10**9:09}" for item in frames]
    assert [int(row[1]) for row in told] == [int(row[2]) for row in told] == [len(item.raw) for item in frames]
    assert [row[3] for row in told] == [INTERFACES[item.interface].name for item in frames]
