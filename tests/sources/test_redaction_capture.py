"""Captures are redacted over whole TCP streams, and tshark sees nothing but other bytes."""

import hashlib
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from bookinfo_lab.errors import ParseError
from bookinfo_lab.packets import pcapng
from bookinfo_lab.packets.pcapng import Frame, Interface
from bookinfo_lab.sources import redaction

SECRET = b"s3ss10n-0f-4lice"
REQUEST = (
    b"GET /productpage HTTP/1.1\r\nHost: shop\r\nCookie: user=jason; session=" + SECRET + b"\r\nAccept: */*\r\n\r\n"
)
CLEAN = REQUEST.replace(SECRET, b"x" * len(SECRET))
CLIENT, SERVER = "10.1.2.3", "10.4.5.6"
Sum = Callable[[int, int], int]

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def folded(number: int) -> int:
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return number


def words(text: bytes) -> int:
    return sum(int.from_bytes(text[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(text), 2))


def whole(pseudo: int, of_segment: int) -> int:
    """A checksum as it goes over a wire."""
    return ~folded(pseudo + of_segment) & 0xFFFF


def offloaded(pseudo: int, of_segment: int) -> int:
    """A checksum that the sender left to its network card."""
    return folded(pseudo)


def wrong(pseudo: int, of_segment: int) -> int:
    return whole(pseudo, of_segment) ^ 0x0101


def ip(payload: bytes, source: str, target: str, proto: int) -> bytes:
    ends = ip_address(source).packed + ip_address(target).packed
    if len(ends) == 32:
        return struct.pack(">IHBB", 6 << 28, len(payload), proto, 64) + ends + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0x4000, 64, proto, 0) + ends
    return head[:10] + struct.pack(">H", whole(0, words(head))) + ends + payload


def transport(head: bytes, at: int, payload: bytes, ends: Sequence[str], proto: int, checksum: Sum) -> bytes:
    segment = head + payload
    addresses = b"".join(ip_address(end).packed for end in ends)
    value = checksum(words(addresses) + proto + len(segment), words(segment))
    return segment[:at] + struct.pack(">H", value) + segment[at + 2 :]


def tcp(
    payload: bytes,
    seq: int,
    *,
    ends: tuple[str, str] = (CLIENT, SERVER),
    ports: tuple[int, int] = (40000, 80),
    ack: int = 1,
    flags: int = 0x18,
    options: bytes = b"",
    checksum: Sum = whole,
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack(">HHIIBBHHH", *ports, seq % 2**32, ack % 2**32, offset, flags, 502, 0, 0) + options
    return ip(transport(head, 16, payload, ends, 6, checksum), *ends, 6)


def udp(payload: bytes, checksum: Sum = whole) -> bytes:
    head = struct.pack(">HHHH", 5000, 5001, 8 + len(payload), 0)
    return ip(transport(head, 6, payload, (CLIENT, SERVER), 17, checksum), CLIENT, SERVER, 17)


def ethernet(packet: bytes, vlan: bool = False) -> bytes:
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02" + (b"\x81\0\0\x05" if vlan else b"") + kind + packet


def capture(*frames: bytes, cut: int = 0, names: Sequence[str] = ("client:eth0",), copies: int = 1) -> bytes:
    """The frames on each interface, in order; ``cut`` keeps that many bytes of each."""
    kept = [
        Frame(number, 10**18 + 10**6 * at, raw[:cut] if cut else raw, len(raw))
        for at, raw in enumerate(frames * copies)
        for number in range(len(names))
    ]
    return pcapng.write([Interface(name) for name in names], kept)


def redacted(raw: bytes) -> tuple[bytes, tuple[redaction.Place, ...]]:
    clean, places = redaction.redact({"capture": raw}, {"capture"})
    return clean["capture"], places.get("capture", ())


def handshake(*later: bytes) -> list[bytes]:
    """Frames of a connection that starts with sequence number 1000 (server: 5000), then ``later``."""
    syn = tcp(b"", 1000, ack=0, flags=2, options=b"\x02\x04\x05\xb4")
    back = tcp(b"", 5000, ends=(SERVER, CLIENT), ports=(80, 40000), ack=1001, flags=0x12, options=b"\x02\x04\x05\xb4")
    return [ethernet(item) for item in (syn, back, tcp(b"", 1001, ack=5001, flags=0x10), *later)]


def data(start: int, end: int, **choices: object) -> bytes:
    return tcp(REQUEST[start:end], 1001 + start, ack=5001, **choices)  # type: ignore[arg-type]


END, MIDDLE = len(REQUEST), REQUEST.index(SECRET) + 5
CAPTURES = {
    "in one frame": handshake(data(0, END)),
    "split over two": handshake(data(0, MIDDLE), data(MIDDLE, END)),
    "the name split too": handshake(data(0, MIDDLE - 14), data(MIDDLE - 14, MIDDLE), data(MIDDLE, END)),
    "out of order": handshake(data(0, MIDDLE - 9), data(MIDDLE, END), data(MIDDLE - 9, MIDDLE)),
    "sent twice": handshake(data(0, MIDDLE), data(0, MIDDLE), data(MIDDLE, END), data(MIDDLE - 3, END)),
    "a byte at a time": handshake(*(data(at, at + 1) for at in range(END))),
    "odd lengths": handshake(data(0, MIDDLE | 1), data(MIDDLE | 1, END)),
    "left to the card": handshake(data(0, MIDDLE, checksum=offloaded), data(MIDDLE, END, checksum=offloaded)),
    "a wrong checksum": handshake(data(0, END, checksum=wrong)),
    "tcp options": handshake(data(0, END, options=b"\x01\x01\x08\x0a" + b"\0\0\0\x01" * 2)),
    "an answer too": handshake(
        data(0, END),
        tcp(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=" + SECRET + b"; Path=/\r\nContent-Length: 0\r\n\r\n",
            5001,
            ends=(SERVER, CLIENT),
            ports=(80, 40000),
            ack=1001 + END,
        ),
    ),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_a_secret_leaves_a_capture_however_it_was_cut_into_frames(name: str) -> None:
    frames = CAPTURES[name]
    raw = capture(*frames, names=("client:eth0", "shop/productpage:lo"))
    clean, places = redacted(raw)
    assert len(clean) == len(raw)
    listed = {at for place in places for at in range(place.offset, place.offset + place.length_bytes)}
    assert {at for at in range(len(raw)) if raw[at] != clean[at]} <= listed
    assert streamed(clean) == {item.replace(SECRET, b"x" * len(SECRET)) for item in streamed(raw)}
    assert b"user=jason" in next(item for item in streamed(clean) if item.startswith(b"GET"))
    for frame in pcapng.parse(clean)[1]:
        assert all(frame.raw.find(SECRET[at : at + 6]) < 0 for at in range(len(SECRET) - 5))


def streamed(raw: bytes) -> set[bytes]:
    """Each direction's payload, put together by sequence number and nothing else."""
    directions: dict[bytes, dict[int, int]] = {}
    for frame in pcapng.parse(raw)[1]:
        segment = frame.raw[34:]
        payload = segment[(segment[12] >> 4) * 4 :]
        seq = int.from_bytes(segment[4:8], "big")
        held = directions.setdefault(segment[:4], {})
        held.update({seq + at: byte for at, byte in enumerate(payload)})
    return {bytes(held[at] for at in sorted(held)) for held in directions.values()}


@needs_tshark
@pytest.mark.parametrize("name", CAPTURES)
def test_tshark_finds_the_same_frames_checksums_and_remarks_before_and_after(name: str, tmp_path: Path) -> None:
    raw = capture(*CAPTURES[name])
    clean, _ = redacted(raw)
    assert clean != raw
    before, after = tshark(raw, tmp_path), tshark(clean, tmp_path)
    assert before == after
    assert len(before) == len(CAPTURES[name])
    cookies = [line for line in tshark(clean, tmp_path, "http.cookie") if line]
    assert cookies == [b"user=jason; session=" + b"x" * len(SECRET)] * len(cookies)
    assert cookies


def tshark(raw: bytes, folder: Path, *fields: str) -> list[bytes]:
    file = folder / f"{hashlib.sha256(raw).hexdigest()}.pcapng"
    file.write_bytes(raw)
    wanted = fields or ("frame.number", "frame.len", "tcp.seq", "tcp.checksum.status", "udp.checksum.status")
    remarks = () if fields else ("_ws.expert.message", "ip.checksum.status")
    options = [word for name in (*wanted, *remarks) for word in ("-e", name)]
    # With checksums checked, tshark puts no stream together whose checksums were left to the card.
    checks = [word for name in ("tcp", "udp", "ip") if not fields for word in ("-o", f"{name}.check_checksum:TRUE")]
    order = ["-o", "tcp.reassemble_out_of_order:TRUE"]
    done = subprocess.run(
        ["tshark", "-r", file, *checks, *order, "-T", "fields", *options], capture_output=True, check=True
    )
    return re.sub(rb"should be 0x\w+", b"should be another", done.stdout).split(b"\n")[:-1]


@pytest.mark.parametrize("cut", [60, 100, 54 + MIDDLE])
def test_a_short_snaplen_hides_no_secret_and_its_checksums_stay_consistent(cut: int) -> None:
    raw = capture(*handshake(data(0, MIDDLE), data(MIDDLE, END)), cut=cut)
    clean, places = redacted(raw)
    assert SECRET[:5] not in clean
    sums = [place for place in places if "checksum" in place.what]
    changed = [place for place in places if "checksum" not in place.what]
    assert bool(sums) == bool(changed) == (cut > 54 + MIDDLE - 5)
    # The full checksum that the frame would have had with these bytes: recomputed over the whole frame.
    for was, now in zip(handshake(data(0, MIDDLE), data(MIDDLE, END)), pcapng.parse(clean)[1], strict=True):
        filled = now.raw + was[len(now.raw) :]
        segment = filled[34:]
        assert folded(words(filled[26:34]) + 6 + len(segment) + words(segment)) == 0xFFFF


def test_a_gap_in_a_stream_hides_no_secret_beside_it() -> None:
    clean, _ = redacted(capture(*handshake(data(10, MIDDLE - 5 + len(SECRET)))))
    assert SECRET not in clean
    assert b"session=" + b"x" * len(SECRET) in clean


def test_a_capture_that_begins_within_a_connection_and_one_whose_numbers_wrap_are_read() -> None:
    first = 2**32 - MIDDLE
    parts = [tcp(REQUEST[MIDDLE:], first + MIDDLE), tcp(REQUEST[:MIDDLE], first)]
    clean, _ = redacted(capture(*(ethernet(item) for item in parts)))
    assert CLEAN[MIDDLE:] in clean
    assert CLEAN[:MIDDLE] in clean


def test_a_port_used_again_starts_a_new_stream() -> None:
    def connection(seq: int, *parts: bytes) -> list[bytes]:
        frames = [tcp(b"", seq, ack=0, flags=2)]
        for part in parts:
            frames.append(tcp(part, seq + 1))
            seq += len(part)
        return [ethernet(item) for item in frames]

    clean, _ = redacted(capture(*connection(10, b"X" * 4000), *connection(900, REQUEST[:MIDDLE], REQUEST[MIDDLE:])))
    assert CLEAN[:MIDDLE] in clean
    assert CLEAN[MIDDLE:] in clean
    assert b"X" * 4000 in clean


def test_a_retransmission_with_other_bytes_is_read_both_ways() -> None:
    other = REQUEST.replace(SECRET, SECRET[::-1])
    for first, second in ((REQUEST, other), (other, REQUEST)):
        frames = handshake(tcp(first, 1001), tcp(second[:MIDDLE], 1001), tcp(second[MIDDLE:], 1001 + MIDDLE))
        clean, _ = redacted(capture(*frames))
        for part in (SECRET, SECRET[::-1], SECRET[5:], SECRET[::-1][:5], SECRET[::-1][5:]):
            assert part not in clean


@pytest.mark.parametrize(
    ("frame", "link"),
    [
        (ethernet(tcp(REQUEST, 1, ends=("fd00::1", "fd00::2"))), 1),
        (ethernet(tcp(REQUEST, 1), vlan=True), 1),
        (tcp(REQUEST, 1), 101),
        (struct.pack(">HHH8sH", 0, 1, 6, b"\x02\0\0\0\0\x01\0\0", 0x0800) + tcp(REQUEST, 1), 113),
        (struct.pack(">HHIHBB8s", 0x0800, 0, 3, 1, 0, 6, b"\x02\0\0\0\0\x01\0\0") + tcp(REQUEST, 1), 276),
        (ethernet(udp(REQUEST)), 1),
        (ethernet(udp(REQUEST, lambda *_: 0)), 1),
        (ethernet(ip(REQUEST, CLIENT, SERVER, 132)), 1),
        (b"\x02" * 12 + b"\x88\xb5" + REQUEST, 1),
        (REQUEST, 147),
    ],
    ids=[
        "ipv6",
        "vlan",
        "raw ip",
        "cooked",
        "cooked 2",
        "udp",
        "udp without checksum",
        "sctp",
        "no ip",
        "unknown link",
    ],
)
@needs_tshark
def test_every_kind_of_frame_is_searched(frame: bytes, link: int, tmp_path: Path) -> None:
    raw = pcapng.write([Interface("node/lab:eth0", link)], [Frame(0, 10**18, frame, len(frame))])
    clean, _ = redacted(raw)
    assert CLEAN in clean
    assert tshark(raw, tmp_path) == tshark(clean, tmp_path)


def test_a_secret_of_one_frame_leaves_every_other_one_and_the_comments() -> None:
    frames = [Frame(0, 10**18, raw, len(raw)) for raw in (ethernet(tcp(REQUEST, 1)), ethernet(udp(b"log " + SECRET)))]
    raw = pcapng.write([Interface(f"client:eth0 {SECRET.decode()}")], frames, f"of {SECRET.decode()}")
    clean, _ = redacted(raw)
    assert SECRET not in clean
    assert clean.count(b"x" * len(SECRET)) == 4


@pytest.mark.parametrize("length", [1, 11, 40, 101])
def test_a_cut_capture_is_an_error(length: int) -> None:
    with pytest.raises(ParseError):
        redacted(capture(*CAPTURES["in one frame"])[:length])


def test_hostile_frames_end_in_an_error_or_an_answer() -> None:
    chance = random.Random(4)
    raw = capture(
        *CAPTURES["split over two"], ethernet(udp(REQUEST)), ethernet(tcp(REQUEST, 2**31, ends=("::1", "::2")))
    )
    for _ in range(400):
        hurt = bytearray(raw)
        for _ in range(chance.randint(1, 6)):
            hurt[chance.randrange(len(hurt))] = chance.randrange(256)
        try:
            clean, _ = redacted(bytes(hurt))
        except ParseError:
            continue
        assert len(clean) == len(hurt)
