"""One packet, really sent: a frame on a cable, or a socket of the device under test with a given user.

Edge; runs in the room's process.  A local socket is made with setfsuid(2) and setfsgid(2) set for that one call: the
owner match, and the kernel's own idea of a socket's user, are those of the thread at socket(2).
"""

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace

from kernel import frames
from kernel.flow import Flow, Refused
from kernel.wiring import LINKS

FIRST_PORT, LAST_PORT = 20000, 59999
IP_RECVERR, IPV6_RECVERR, IP_FREEBIND, IPV6_FREEBIND, IP_TRANSPARENT, IPV6_TRANSPARENT = 11, 25, 15, 78, 19, 75
SO_MARK = 36
ETHER_TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}

_libc = ctypes.CDLL(None)
_libc.setfsuid.argtypes = _libc.setfsgid.argtypes = [ctypes.c_uint]
_NOBODY_ASKED = 0xFFFFFFFF  # setfsuid(-1) changes nothing and returns the present one


def version(flow: Flow) -> int:
    return 6 if ":" in flow.dst else 4


def write_frame(wire: socket.socket, name: str, packet: bytes) -> None:
    """``packet`` on the cable to the device's interface ``name``, whose two ends have one MAC address."""
    mac = bytes.fromhex(LINKS[name].replace(":", ""))
    wire.send(mac + mac + ETHER_TYPES[packet[0] >> 4] + packet)


class Sender:
    """Gives flows their source ports, from ``first`` on; remembers only which was the last."""

    def __init__(self, first: int = FIRST_PORT) -> None:
        self._port = first

    def with_port(self, flow: Flow) -> Flow:
        """``flow`` with a source port (or echo identifier): its own, or one not used for the last 40,000 flows."""
        check(flow)
        if flow.sport is not None:
            return flow
        self._port = FIRST_PORT if self._port >= LAST_PORT else self._port + 1
        return replace(flow, sport=self._port)


def check(flow: Flow) -> None:
    """Raises `Refused` for a flow that nothing here could send."""
    if flow.proto not in frames.NUMBERS:
        raise Refused(f"{flow.proto}: not one of {', '.join(frames.NUMBERS)}")
    if flow.local:
        return
    if flow.src is None or flow.iif not in LINKS:
        raise Refused(f"a frame needs a source address and one of the interfaces {', '.join(LINKS)}")
    if flow.mark or flow.uid is not None or flow.gid is not None:
        raise Refused("a frame has no mark, user or group: those are a local flow's")


def packet(flow: Flow) -> bytes:
    """The flow's first packet as it stands on the cable."""
    assert flow.src is not None
    return frames.ip_packet(flow.src, flow.dst, frames.NUMBERS[flow.proto], body(flow))


def shows(flow: Flow) -> Callable[[frames.Headers], bool]:
    """Whether headers are those of the flow's first packet and not of an answer, which a TRACE rule may show too."""
    number = frames.NUMBERS[flow.proto]
    flags = sum(frames.FLAGS[name] for name in flow.tcp_flags.split(","))
    kind = frames.ECHO.get(flow.proto, 0) if flow.icmp_type is None else flow.icmp_type

    def is_its(headers: frames.Headers) -> bool:
        if headers.proto != number:
            return False
        # A local SYN may ask for ECN too.
        return (
            (headers.flags & 0x3F == flags) if flow.proto == "tcp" else (number not in (1, 58) or headers.kind == kind)
        )

    return is_its


def body(flow: Flow) -> bytes:
    """What follows the IP header."""
    assert flow.sport is not None
    ports = (flow.sport, flow.dport)
    if flow.proto == "tcp":
        flags = sum(frames.FLAGS[name] for name in flow.tcp_flags.split(","))
        return frames.tcp_segment(ports, flags, seq=1000, ack=1 if flags & frames.ACK else 0)
    if flow.proto == "udp":
        return frames.udp_datagram(ports, b"room")
    if flow.proto == "sctp":
        return frames.sctp_init(ports)
    kind = frames.ECHO[flow.proto] if flow.icmp_type is None else flow.icmp_type
    return frames.icmp_message(kind, flow.icmp_code, flow.sport)


def owned_socket(family: int, kind: int, proto: int, uid: int, gid: int) -> socket.socket:
    """A socket that belongs to ``uid`` and ``gid``; `Refused` where the user namespace does not map them."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        have = _libc.setfsuid(_NOBODY_ASKED), _libc.setfsgid(_NOBODY_ASKED)
        if have != (uid, gid):
            raise Refused(f"uid {uid} and gid {gid} are not both mapped in this user namespace")
        return socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def open_local(flow: Flow) -> socket.socket:
    """A bound socket for a local flow, marked and owned as it says, that will hear of ICMP errors."""
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    family = socket.AF_INET6 if version(flow) == 6 else socket.AF_INET
    kind = kinds.get(flow.proto, socket.SOCK_RAW)
    made = owned_socket(family, kind, frames.NUMBERS[flow.proto], flow.uid or 0, flow.gid or 0)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if flow.mark:
            made.setsockopt(socket.SOL_SOCKET, SO_MARK, flow.mark.to_bytes(4, "little"))
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
        port = flow.sport if kind != socket.SOCK_RAW else 0
        if flow.src is not None or port:
            made.bind((flow.src or anywhere, port))
    except OSError as error:
        made.close()
        raise Refused(f"bind {flow.src} port {flow.sport}: {error.strerror}") from None
    return made


def send_local(flow: Flow, made: socket.socket) -> str:
    """Connect or send once; the name of the error that the call gave, "" for none."""
    try:
        if flow.proto == "tcp":
            made.connect((flow.dst, flow.dport))
        elif flow.proto == "udp":
            made.sendto(b"room", (flow.dst, flow.dport))
        else:
            made.sendto(body(flow), (flow.dst, 0))
    except OSError as error:
        return "" if error.errno == errno.EINPROGRESS else errno.errorcode.get(error.errno or 0, str(error))
    return ""


def heard_error(made: socket.socket) -> str:
    """The error that reached the socket after its call (ECONNREFUSED for an RST), "" for none."""
    number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not number:
        try:
            made.recvmsg(1, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return ""
        return "EHOSTUNREACH"
    return errno.errorcode.get(number, os.strerror(number))
