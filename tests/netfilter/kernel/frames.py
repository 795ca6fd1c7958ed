"""IP packets as bytes: built with correct checksums, and read as far as the room needs.

Pure.  Sources: RFC 791, 8200, 9293, 768, 9260 (SCTP, CRC32c), 792, 4443.
"""

import socket
import struct
from dataclasses import dataclass

from kernel.flow import Tuple

NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": PSH, "ACK": ACK, "URG": 32}
SCTP_CLIENT_TAG, SCTP_SERVER_TAG = 0x10203040, 0x50607080
ECHO = {"icmp": 8, "icmpv6": 128}
ECHO_TYPES = {1: (8, 0), 58: (128, 129)}
ERRORS = {
    (1, 3, 0): "icmp-net-unreachable",
    (1, 3, 1): "icmp-host-unreachable",
    (1, 3, 2): "icmp-proto-unreachable",
    (1, 3, 3): "icmp-port-unreachable",
    (1, 3, 9): "icmp-net-prohibited",
    (1, 3, 10): "icmp-host-prohibited",
    (1, 3, 13): "icmp-admin-prohibited",
    (58, 1, 0): "icmp6-no-route",
    (58, 1, 1): "icmp6-adm-prohibited",
    (58, 1, 3): "icmp6-addr-unreachable",
    (58, 1, 4): "icmp6-port-unreachable",
    (58, 1, 5): "icmp6-policy-fail",
    (58, 1, 6): "icmp6-reject-route",
}


@dataclass(frozen=True, slots=True)
class Headers:
    """What a packet's headers say; ``flags`` are TCP's, ``kind`` and ``code`` ICMP's."""

    tuple: Tuple
    proto: int
    flags: int = 0
    kind: int = 0
    code: int = 0
    seq: int = 0
    ack: int = 0

    @property
    def error(self) -> str:
        """The name that iptables' ``--reject-with`` has for this answer, "" if it is none."""
        if self.proto == 6:
            return "tcp-reset" if self.flags & RST else ""
        if self.proto in (1, 58):
            named = ERRORS.get((self.proto, self.kind, self.code), "")
            is_error = self.kind in (3, 11, 12) if self.proto == 1 else self.kind < 128
            return named or (f"icmp type {self.kind} code {self.code}" if is_error else "")
        return ""


def internet_checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC32C[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def tcp_segment(ports: tuple[int, int], flags: int, seq: int, ack: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 64240, 0, 0) + payload


def udp_datagram(ports: tuple[int, int], payload: bytes) -> bytes:
    return struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def sctp_packet(ports: tuple[int, int], tag: int, chunk: bytes) -> bytes:
    """One chunk under the common header; the checksum is the little-endian CRC32c over it all."""
    head = struct.pack("!HHI", *ports, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def sctp_init(ports: tuple[int, int]) -> bytes:
    return sctp_packet(ports, 0, struct.pack("!BBHIIHHI", 1, 0, 20, SCTP_CLIENT_TAG, 65535, 1, 1, 1))


def sctp_init_ack(ports: tuple[int, int]) -> bytes:
    cookie = struct.pack("!HH", 7, 8) + b"room"
    chunk = struct.pack("!BBHIIHHI", 2, 0, 20 + len(cookie), SCTP_SERVER_TAG, 65535, 1, 1, 1) + cookie
    return sctp_packet(ports, SCTP_CLIENT_TAG, chunk)


def sctp_cookie_echo(ports: tuple[int, int]) -> bytes:
    return sctp_packet(ports, SCTP_SERVER_TAG, struct.pack("!BBH", 10, 0, 8) + b"room")


def icmp_message(kind: int, code: int, identifier: int, payload: bytes = b"room", sequence: int = 1) -> bytes:
    """With ICMP's checksum, which a raw socket does not fill in; ICMPv6's is written over it."""
    rest = struct.pack("!HH", identifier, sequence) + payload
    return struct.pack("!BBH", kind, code, internet_checksum(bytes((kind, code, 0, 0)) + rest)) + rest


def ip_packet(src: str, dst: str, proto: int, body: bytes) -> bytes:
    """``body`` in an IPv4 or IPv6 header, TTL 64, its checksum filled in (SCTP and ICMP bring theirs)."""
    source, target = packed(src), packed(dst)
    pseudo = source + target + struct.pack("!II", len(body), proto)
    if len(source) == 4:
        pseudo = source + target + struct.pack("!BBH", 0, proto, len(body))
    where = {6: 16, 17: 6, 58: 2}.get(proto)
    if where is not None:
        body = body[:where] + bytes(2) + body[where + 2 :]
        value = internet_checksum(pseudo + body)
        body = body[:where] + struct.pack("!H", value or (0xFFFF if proto == 17 else 0)) + body[where + 2 :]
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), proto, 64) + source + target + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0x4000, 64, proto, 0) + source + target
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + body


def parse_packet(data: bytes) -> Headers | None:
    """The headers of an IP packet, None if it is not one that a flow or its answer can be."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        return parse_headers(data, data[(data[0] & 15) * 4 :])
    if version == 6 and len(data) >= 40:
        return parse_headers(data, data[40:])
    return None


def parse_headers(network: bytes, transport: bytes) -> Headers | None:
    """The same from the two headers apart, as a trace event carries them."""
    if network[0] >> 4 == 4:
        proto = network[9]
        src, dst = socket.inet_ntop(socket.AF_INET, network[12:16]), socket.inet_ntop(socket.AF_INET, network[16:20])
    else:
        proto = network[6]
        src, dst = socket.inet_ntop(socket.AF_INET6, network[8:24]), socket.inet_ntop(socket.AF_INET6, network[24:40])
    if proto in (1, 58) and len(transport) >= 8:
        kind, code, _, identifier = struct.unpack_from("!BBHH", transport)
        return Headers(Tuple(src, identifier if kind in ECHO_TYPES[proto] else 0, dst, 0), proto, kind=kind, code=code)
    if proto == 6 and len(transport) >= 20:
        sport, dport, seq, ack, _, flags = struct.unpack_from("!HHIIBB", transport)
        return Headers(Tuple(src, sport, dst, dport), proto, flags=flags, seq=seq, ack=ack)
    if proto in (17, 132) and len(transport) >= 4:
        sport, dport = struct.unpack_from("!HH", transport)
        return Headers(Tuple(src, sport, dst, dport), proto)
    return None
