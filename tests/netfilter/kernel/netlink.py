"""Netlink, as little as the room needs: messages, attributes, a request, a dump, a batch.

Edge: sockets of the calling process's network namespace.  Refusals of the kernel are OSError with its number.
Sources: netlink(7), linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
"""

import os
import socket
import struct
from collections.abc import Iterator

NETLINK_NETFILTER = 12
SOL_NETLINK, ADD_MEMBERSHIP, DROP_MEMBERSHIP = 270, 1, 2
REQUEST, ACK, DUMP, CREATE = 0x1, 0x4, 0x300, 0x400
ERROR, DONE = 2, 3
CTNETLINK, ACCT, NFTABLES = 1, 7, 10
BATCH_BEGIN, BATCH_END = 16, 17
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
NFPROTO_INET = 1
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

Attributes = dict[int, bytes]


def attributes(data: bytes, start: int = 0) -> Attributes:
    """The attributes of ``data`` by number; of a repeated one, the last."""
    found: Attributes = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, start)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes, nested: bool = False) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", len(value) + 4, kind | (0x8000 if nested else 0)) + value + padding


def text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def netfilter_message(
    subsystem: int, kind: int, flags: int, family: int, body: bytes = b"", sequence: int = 0
) -> bytes:
    return message(subsystem << 8 | kind, flags, struct.pack("=BBH", family, 0, 0) + body, sequence)


class Netlink:
    """One netfilter netlink socket; ``groups`` are multicast groups that it hears."""

    def __init__(self, buffer_bytes: int = 1 << 20) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        for forced, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, forced, buffer_bytes)
            except PermissionError:  # in a user namespace: as much as the machine's limit allows
                self.socket.setsockopt(socket.SOL_SOCKET, plain, buffer_bytes)

    def join(self, group: int) -> None:
        self.socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)

    def leave(self, group: int) -> None:
        self.socket.setsockopt(SOL_NETLINK, DROP_MEMBERSHIP, group)

    def request(self, subsystem: int, kind: int, family: int, body: bytes = b"", flags: int = 0) -> None:
        """One request; returns when the kernel has acknowledged it."""
        self.socket.send(netfilter_message(subsystem, kind, REQUEST | ACK | flags, family, body))
        for _ in self._answers():
            pass

    def batch(self, kind: int, family: int, body: bytes = b"", flags: int = 0) -> None:
        """One nf_tables request as a transaction of its own."""
        edge = struct.pack("=BBH", 0, 0, socket.htons(NFTABLES))
        parts = [
            message(BATCH_BEGIN, REQUEST, edge),
            netfilter_message(NFTABLES, kind, REQUEST | ACK | flags, family, body, 1),
            message(BATCH_END, REQUEST, edge, 2),
        ]
        self.socket.send(b"".join(parts))
        for _ in self._answers():
            pass

    def dump(self, subsystem: int, kind: int, family: int, body: bytes = b"") -> list[Attributes]:
        """Everything the kernel lists for one request, in its order."""
        self.socket.send(netfilter_message(subsystem, kind, REQUEST | DUMP, family, body))
        return [attributes(part, 4) for part in self._answers()]

    def _answers(self) -> Iterator[bytes]:
        while True:
            data = self.socket.recv(1 << 18)
            at = 0
            while at < len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == DONE:
                    return
                if kind == ERROR:
                    number = -struct.unpack_from("=i", data, at + 16)[0]
                    if number:
                        raise OSError(number, f"netlink: {os.strerror(number)}")
                    return
                yield data[at + 16 : at + length]
                at += (length + 3) & ~3
