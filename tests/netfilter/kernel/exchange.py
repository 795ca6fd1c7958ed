"""Second packets: begin a connection, have it answered, and observe the next packet or the answer.

Edge; runs in the room's process.  Where the first packet left by a cable, its answer is a frame written to that cable's
other end.  Where it was delivered, the device under test answers by itself: a TCP listener is opened on the port that
the packet reached, a UDP or SCTP answer is sent from a socket bound to the address that it reached.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol

from kernel import frames, send, watch
from kernel.flow import Flow, Observation, Refused, Tuple
from kernel.frames import Headers
from kernel.observe import Heard

SERVER_SEQ = 5000
ATTEMPTS = 30


class Bench(Protocol):
    """What of `kernel.worker.Bench` an exchange needs."""

    def settle(self) -> Heard: ...
    def flush(self) -> None: ...
    def write(self, name: str, packet: bytes) -> None: ...
    def observed(self, flow: Flow, heard: Heard, wanted: Callable[[Headers], bool] | None = None) -> Observation: ...
    def is_answered(self, version: int, original: Tuple) -> bool: ...


def observe(bench: Bench, flow: Flow, direction: str) -> Observation:
    """The observation of the answer (``reply``) or of the packet after it (``established``)."""
    if flow.tcp_flags != "SYN" or flow.icmp_type is not None:
        raise Refused("only a connection that begins with SYN or an echo request can be answered")
    with ExitStack() as stack:
        if direction == "reply":
            stack.enter_context(_answers_watched())
        for _ in range(ATTEMPTS):
            with ExitStack() as ends:
                end = _Local(bench, flow, ends) if flow.local else _Arriving(bench, flow)
                bench.settle()
                call_error = end.begin()
                heard = replace(bench.settle(), call_error=call_error)
                first = bench.observed(flow, heard, _begins)
                if not first.complete:
                    return first
                if first.verdict == "left" and first.final is not None:
                    return _there(_answered_by_cable(bench, end, first, heard, direction))
                if first.verdict != "delivered" or first.final is None:
                    raise Refused(f"nobody answers: the first packet was {first.verdict}")
                if flow.proto != "tcp" or first.answer != "tcp-reset":
                    return _there(_answered_here(bench, end, first, heard, direction, ends))
            # A closed port: listen there and begin again, since where a random rule sends it may differ.
            stack.enter_context(listener(first.final.dport, "tcp", _wildcard(flow), transparent=False))
            bench.flush()
    raise Refused(f"in {ATTEMPTS} attempts no connection reached a port that an earlier one had reached")


def _there(seen: Observation) -> Observation:
    """The observation, if there is one: a broadcast's TCP segment gets no answer, say."""
    if seen.why == "nothing was traced":
        raise Refused("the packet asked for was not sent, or met no hook")
    return seen


def listener(port: int, proto: str, address: str, transparent: bool) -> socket.socket:
    """A listening (tcp) or bound (udp) socket of the device under test."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, (socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM) | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent:
            _make_transparent(made)
        made.bind((address, port))
        if proto == "tcp":
            made.listen(1024)
    except OSError as error:
        made.close()
        raise Refused(f"listen on {address} port {port}: {error.strerror}") from None
    return made


def _make_transparent(made: socket.socket) -> None:
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, send.IPV6_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, send.IP_TRANSPARENT, 1)


class _Arriving:
    """The client's end where it is a cable."""

    def __init__(self, bench: Bench, flow: Flow) -> None:
        self._bench, self._flow = bench, flow

    def begin(self) -> str:
        self._bench.write(self._flow.iif, send.packet(self._flow))
        return ""

    def go_on(self, server_seq: int) -> None:
        flow = self._flow
        assert flow.src is not None
        assert flow.sport is not None
        ports = (flow.sport, flow.dport)
        body = send.body(flow)
        if flow.proto == "tcp":
            body = frames.tcp_segment(ports, frames.ACK | frames.PSH, 1001, server_seq + 1, b"room")
        elif flow.proto == "sctp":
            body = frames.sctp_cookie_echo(ports)
        self._bench.write(flow.iif, frames.ip_packet(flow.src, flow.dst, frames.NUMBERS[flow.proto], body))


class _Local:
    """The client's end where it is a socket of the device under test."""

    def __init__(self, bench: Bench, flow: Flow, stack: ExitStack) -> None:
        self._flow = flow
        self._socket = stack.enter_context(send.open_local(flow))
        if flow.proto == "tcp":  # gone with one RST, and never heard of again
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def begin(self) -> str:
        return send.send_local(self._flow, self._socket)

    def go_on(self, server_seq: int) -> None:
        flow = self._flow
        assert flow.sport is not None
        send.heard_error(self._socket)  # else the next call reports it instead of sending
        try:
            if flow.proto == "tcp":
                self._socket.send(b"room")
            elif flow.proto == "sctp":
                self._socket.sendto(frames.sctp_cookie_echo((flow.sport, flow.dport)), (flow.dst, 0))
            else:
                send.send_local(flow, self._socket)
        except OSError as error:
            raise Refused(f"the connection did not come about: {error.strerror}") from None


def _answered_by_cable(
    bench: Bench, end: _Arriving | _Local, first: Observation, heard: Heard, direction: str
) -> Observation:
    final = first.final
    assert final is not None
    begun = next(frame for frame in heard.frames[first.out] if frame.tuple == final)
    bench.write(first.out, _answer(first.flow.proto, final, begun.seq))
    answer = bench.settle()
    if direction == "reply":
        return bench.observed(first.flow, answer, _answers(final))
    _check_answered(bench, first)
    end.go_on(SERVER_SEQ)
    return bench.observed(first.flow, bench.settle(), _goes_on)


def _answered_here(
    bench: Bench, end: _Arriving | _Local, first: Observation, heard: Heard, direction: str, stack: ExitStack
) -> Observation:
    flow, final = first.flow, first.final
    assert final is not None
    if flow.proto in ("udp", "sctp"):
        _answer_from_socket(flow, final, stack)
        heard = bench.settle()
    if direction == "reply":
        return bench.observed(flow, heard, _answers(final))
    opened = next((frame for frame in _all(heard) if _opens(frame)), None)
    if flow.proto == "tcp" and not flow.local and opened is None:
        raise Refused("the connection did not come about: its answer did not come out")
    _check_answered(bench, first)
    end.go_on(opened.seq if opened else 0)
    return bench.observed(flow, bench.settle(), _goes_on)


def _check_answered(bench: Bench, first: Observation) -> None:
    """Raises `Refused` where conntrack did not see the answer, because it was dropped, say, or went elsewhere."""
    if first.sent is None or not bench.is_answered(send.version(first.flow), first.sent):
        raise Refused("the connection did not come about: its answer did not come through")


def _answer(proto: str, request: Tuple, seq: int) -> bytes:
    """The packet that a server at ``request``'s destination would answer with."""
    ports = (request.dport, request.sport)
    body = {
        "tcp": lambda: frames.tcp_segment(ports, frames.SYN | frames.ACK, SERVER_SEQ, seq + 1),
        "udp": lambda: frames.udp_datagram(ports, b"answer"),
        "sctp": lambda: frames.sctp_init_ack(ports),
        "icmp": lambda: frames.icmp_message(0, 0, request.sport),
        "icmpv6": lambda: frames.icmp_message(129, 0, request.sport),
    }[proto]()
    return frames.ip_packet(request.dst, request.src, frames.NUMBERS[proto], body)


def _answer_from_socket(flow: Flow, final: Tuple, stack: ExitStack) -> None:
    family = socket.AF_INET6 if ":" in final.dst else socket.AF_INET
    raw = flow.proto == "sctp"
    number = frames.NUMBERS[flow.proto]
    made = stack.enter_context(socket.socket(family, socket.SOCK_RAW if raw else socket.SOCK_DGRAM, number))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _make_transparent(made)
    try:
        made.bind((final.dst, 0 if raw else final.dport))
        if raw:
            made.sendto(frames.sctp_init_ack((final.dport, final.sport)), (final.src, 0))
        else:
            made.sendto(b"answer", (final.src, final.sport))
    except PermissionError:  # a rule dropped it: that is for the trace to say
        pass
    except OSError as error:
        raise Refused(f"answer from {final.dst} port {final.dport}: {error.strerror}") from None


@contextmanager
def _answers_watched() -> Iterator[None]:
    watch.nft(f"add element inet {watch.TABLE} answers {{ ip, ip6 }}")
    try:
        yield
    finally:
        watch.nft(f"flush set inet {watch.TABLE} answers")


def _begins(packet: Headers) -> bool:
    if packet.proto == frames.NUMBERS["tcp"]:
        return packet.flags & (frames.SYN | frames.ACK) == frames.SYN
    return packet.kind == frames.ECHO_TYPES[packet.proto][0] if packet.proto in frames.ECHO_TYPES else True


def _goes_on(packet: Headers) -> bool:
    if packet.proto == frames.NUMBERS["tcp"]:
        return bool(packet.flags & frames.PSH)
    return _begins(packet)


def _opens(packet: Headers) -> bool:
    both = frames.SYN | frames.ACK
    return packet.proto == frames.NUMBERS["tcp"] and packet.flags & both == both


def _answers(request: Tuple) -> Callable[[Headers], bool]:
    def is_answer(packet: Headers) -> bool:
        if packet.proto == frames.NUMBERS["tcp"]:
            return _opens(packet)
        return packet.kind == frames.ECHO_TYPES[packet.proto][1] if packet.proto in frames.ECHO_TYPES else True

    return is_answer


def _all(heard: Heard) -> Iterator[Headers]:
    for packets in heard.frames.values():
        yield from packets


def _wildcard(flow: Flow) -> str:
    return "::" if send.version(flow) == 6 else "0.0.0.0"
