"""Sends one packet from the network namespace it runs in, as the user and with the mark that it is told.

A script of its own, run in the sandbox as root by an interpreter without site-packages; its order is one JSON object,
its one argument.  It prepares a socket, prints a line, waits for a line on stdin, sends, prints what the socket came to
know, and holds the socket open until stdin ends.  A line it prints is a JSON object; one with ``failed`` is the last.

The socket is the user's by the file-system uid, which is what ``-m owner`` reads: the process stays root and may bind
any port, set a mark and open a raw socket.  Where the kernel has no socket for a protocol a packet of it is written by
hand (SCTP's INIT, a UDP-Lite datagram).
"""

import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
from typing import Any

_SO_MARK = 36
_NOBODY = 2**32 - 1
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136, "icmp": 1, "icmpv6": 58}
_KINDS = {"tcp": socket.SOCK_STREAM, "sctp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "udplite": socket.SOCK_DGRAM}
_UNKNOWN_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
_DNS_QUESTION = struct.pack("!6HB2H", 1, 0x0100, 1, 0, 0, 0, 0, 2, 1)  # the root's name servers: any server answers
_ABORT = struct.pack("ii", 1, 0)


class Refused(Exception):
    """Why no packet is sent."""


def say(**fields: Any) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def take_user(uid: int | None, gid: int | None) -> None:
    """Take on file-system ids; an id that this user namespace does not have is refused."""
    libc = ctypes.CDLL(None)
    for number, change, name in ((gid, libc.setfsgid, "gid"), (uid, libc.setfsuid, "uid")):
        if number is not None:
            change(ctypes.c_uint(number))
            if (
                change(ctypes.c_uint(_NOBODY)) != number
            ):  # an impossible id changes nothing and tells the one that holds
                raise Refused(f"{name} {number} does not exist here")


class Sender:
    """The socket and what it sends."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order, self.proto = order, order["proto"]
        self.family = socket.AF_INET6 if ":" in order["src"] else socket.AF_INET
        self.target = (order["dst"], order["dport"] or 0)
        self.is_raw = self.proto in ("icmp", "icmpv6")
        self.socket = self._opened()
        self.port = self._bound()

    def _opened(self) -> socket.socket:
        if self.proto not in _NUMBERS:
            raise Refused(f"no packet of {self.proto} can be made here")
        if not self.is_raw:
            try:
                return socket.socket(self.family, _KINDS[self.proto], _NUMBERS[self.proto])
            except OSError as error:
                if error.errno not in _UNKNOWN_PROTOCOL:
                    raise
        self.is_raw = True
        return socket.socket(self.family, socket.SOCK_RAW, _NUMBERS[self.proto])

    def _bound(self) -> int:
        """The port, or ICMP's identifier, that the packet will have."""
        if self.order["mark"]:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, self.order["mark"])
        if self.is_raw:
            self.socket.bind((self.order["src"], 0))
            return self.order["sport"] or int.from_bytes(os.urandom(2), "big") | 0x8000
        if self.proto in ("tcp", "sctp"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)  # leaves no TIME_WAIT on this port
        self.socket.bind((self.order["src"], self.order["sport"] or 0))
        return int(self.socket.getsockname()[1])

    def exchange(self) -> None:
        """Make the kernel know the connection in both directions."""
        if self.proto == "tcp":
            answer = self._connect()
            if answer != "connected":
                raise Refused(f"no connection came about to send a later packet on: {answer}")
        elif self.proto == "udp":
            self.socket.sendto(self._payload(), self.target)
            if not select.select([self.socket], [], [], self.order["patience_s"])[0]:
                raise Refused("nothing answered, so there is no connection to send a later packet on")
            self.socket.recv(65536)
        else:
            raise Refused(f"a later packet of a connection can be sent for tcp and udp, not for {self.proto}")

    def send(self) -> str:
        """Send the packet; what the socket came to know of it."""
        if self.is_raw:
            return self._send_to(self._content(), (self.target[0], 0))
        if self.proto not in ("tcp", "sctp"):
            return self._send_to(self._payload(), self.target)
        if not self.order["established"]:
            return self._connect()
        self.socket.shutdown(socket.SHUT_WR)
        return "sent"

    def _connect(self) -> str:
        self.socket.setblocking(False)
        code = self.socket.connect_ex(self.target)
        if code == errno.EINPROGRESS:
            if not select.select([], [self.socket], [], self.order["patience_s"])[1]:
                return f"no answer within {self.order['patience_s']} s"
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return os.strerror(code) if code else "connected"

    def _send_to(self, content: bytes, target: tuple[str, int]) -> str:
        try:
            self.socket.sendto(content, target)
        except OSError as error:
            return str(error.strerror)  # a rule may drop a packet on its way out, and its sender is told
        return "sent"

    def _payload(self) -> bytes:
        """What a datagram carries: nothing, but a question to a DNS server."""
        return _DNS_QUESTION if self.target[1] == 53 else b""

    def _content(self) -> bytes:
        """What follows the IP header in a packet written by hand."""
        if self.proto in ("icmp", "icmpv6"):
            kind, code = self.order["icmp_type"], self.order["icmp_code"]
            body = struct.pack("!BBHHH", kind, code, 0, self.port, 1) + b"bookinfo"
            return body if self.proto == "icmpv6" else body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        if self.proto == "sctp":
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x626F6F6B, 65536, 1, 1, 1)
            body = struct.pack("!HHII", self.port, self.target[1], 0, 0) + chunk
            return body[:8] + struct.pack("<I", crc32c(body)) + body[12:]
        body = struct.pack("!HHHH", self.port, self.target[1], 8, 0)
        ends = b"".join(socket.inet_pton(self.family, one) for one in (self.order["src"], self.order["dst"]))
        total = checksum(ends + struct.pack("!HH", _NUMBERS[self.proto], 8) + body)
        return body[:6] + struct.pack("!H", total or 0xFFFF)


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    content += b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def crc32c(content: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def main(order: dict[str, Any]) -> None:
    """Send the packet of ``order``."""
    take_user(order["uid"], order["gid"])
    sender = Sender(order)
    if order["established"]:
        sender.exchange()
    say(ready=sender.port, raw=sender.is_raw)
    sys.stdin.readline()
    say(answer=sender.send())
    sys.stdin.read()


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except Refused as error:
        say(failed=str(error))
    except OSError as error:
        say(failed=str(error.strerror or error))
