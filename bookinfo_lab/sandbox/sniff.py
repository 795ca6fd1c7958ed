"""Captures packets at several points of a sandbox at once: pcapng, one clock, in the order of time.

Edge: AF_PACKET sockets of the points' network namespaces, which the sandbox's init hands out, read by one thread.
An own reader rather than tcpdump: nothing to install, no second process to leave behind, and what the kernel had
queued when the block ends is still read.  Frames are kept as the kernel hands them on: with checksum offload a TCP
checksum may hold the pseudo-header's sum only, and with segmentation offload a frame may be larger than the MTU.  On
``lo`` each frame passes twice; like tcpdump this keeps the arrival.  What the kernel had to drop is counted.
"""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from bookinfo_lab.errors import LabError
from bookinfo_lab.packets import pcapng
from bookinfo_lab.packets.pcapng import Frame, Interface
from bookinfo_lab.sandbox import Sandbox, wiring
from bookinfo_lab.sandbox.targets import Target
from bookinfo_lab.sources.base import Evidence

_EVERY_PROTOCOL = 3  # ETH_P_ALL
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS = 35
_BUFFER_BYTES = 32 << 20  # the kernel gives what net.core.rmem_max allows
_SETTLE_S = 0.01  # a frame is on its way between two namespaces for microseconds


class _Point:
    """One interface of one network namespace."""

    def __init__(self, number: int, name: str, opened: socket.socket, interface: str) -> None:
        self.number, self.name, self.socket = number, name, opened
        self.drops = 0
        self._is_loopback = interface == "lo"
        self._buffer = memoryview(bytearray(pcapng.LONGEST_FRAME))
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            opened.bind((interface, _EVERY_PROTOCOL))
        except OSError as error:
            opened.close()
            raise LabError(f"no capture at {name}: {interface}: {error.strerror}") from None

    def frames(self) -> Iterator[Frame]:
        """What the kernel has queued so far."""
        while True:
            try:
                size, notes, _, sender = self.socket.recvmsg_into([self._buffer], 128, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError:
                return  # the interface has gone; frames that came before have been read
            if not (self._is_loopback and sender[2] == socket.PACKET_OUTGOING):
                yield Frame(self.number, _time_ns(notes), bytes(self._buffer[:size]), size)

    def interface(self) -> Interface:
        """Its description, with every drop counted so far."""
        try:
            told = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self.drops += struct.unpack("II", told)[1]  # reading sets the kernel's own count to zero
        except OSError:
            pass  # the sandbox ended: what was counted stands
        return Interface(self.name, drops=self.drops)


def _time_ns(notes: Sequence[tuple[int, int, bytes]]) -> int:
    for level, kind, value in notes:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", value[:16])
            return int(seconds * 10**9 + nanoseconds)
    return time.time_ns()


class Running:
    """A capture that runs or ran."""

    def __init__(self, points: Sequence[_Point]) -> None:
        self.points = points
        self._frames: list[Frame] = []
        self._evidence: Evidence | None = None
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)

    @property
    def evidence(self) -> Evidence:
        """The frames; LabError while the block has not ended."""
        if self._evidence is None:
            raise LabError("the capture still runs: its frames are there when the with block has ended")
        return self._evidence

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read what is still queued, and end."""
        time.sleep(_SETTLE_S)
        os.write(self._wake, b"x")
        self._thread.join()
        os.close(self._woken)
        os.close(self._wake)

    def keep(self, as_evidence: Callable[[bytes], Evidence]) -> None:
        """Make evidence of what was read, in the order of time."""
        interfaces = [point.interface() for point in self.points]
        self._evidence = as_evidence(pcapng.write(interfaces, sorted(self._frames, key=lambda item: item.ts_ns)))

    def _read(self) -> None:
        for frames in _batches(self.points, self._woken, None):
            self._frames += frames


def _batches(points: Sequence[_Point], woken: int, deadline: float | None) -> Iterator[list[Frame]]:
    """What arrives, again and again, until ``woken`` is readable or the time is over; then what is still queued."""
    waiting = select.poll()
    waiting.register(woken, select.POLLIN)
    for point in points:
        waiting.register(point.socket, select.POLLIN)
    ended = False
    while not ended:
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = waiting.poll(left_ms)
        ended = not ready or any(descriptor == woken for descriptor, _ in ready)
        for descriptor, event in ready:
            if descriptor != woken and event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                waiting.unregister(descriptor)  # the network namespace has ended
        yield sorted((item for point in points for item in point.frames()), key=lambda item: item.ts_ns)


@contextmanager
def capturing(mesh: Sandbox, points: Sequence[str], as_evidence: Callable[[bytes], Evidence]) -> Iterator[Running]:
    """Capture at ``points`` (``node/NAME:eth0``, ``NAMESPACE/POD:lo``, ``NAMESPACE/POD:veth``, ``client:eth0``).

    ``as_evidence`` makes evidence of the pcapng bytes when the block has ended, also where it ended with an error.
    """
    with ExitStack() as stack:
        running = Running(_opened(mesh, points, stack))
        running.start()
        try:
            yield running
        finally:
            running.stop()
            running.keep(as_evidence)


def until(mesh: Sandbox, points: Sequence[str], seconds: float | None, woken: int, out: BinaryIO) -> None:
    """Write a capture to ``out`` as it happens, until ``woken`` is readable or ``seconds`` are over."""
    with ExitStack() as stack:
        opened = _opened(mesh, points, stack)
        out.write(pcapng.write([Interface(point.name) for point in opened], []))
        out.flush()
        deadline = None if seconds is None else time.monotonic() + seconds
        for frames in _batches(opened, woken, deadline):
            out.write(b"".join(map(pcapng.frame_block, frames)))
            out.flush()
        lost = [(point.number, point.interface()) for point in opened]
        out.write(b"".join(pcapng.statistics_block(number, item, time.time_ns()) for number, item in lost))
        out.flush()


@dataclass(frozen=True, slots=True)
class _Site:
    """Whose network namespace a point is in, and the interface's name there."""

    target: Target
    interface: str


def _opened(mesh: Sandbox, points: Sequence[str], stack: ExitStack) -> list[_Point]:
    names = list(dict.fromkeys(points))
    sites = [_site(mesh, name) for name in names]
    opened = []
    for number, (name, site) in enumerate(zip(names, sites, strict=True)):
        packet_socket = stack.enter_context(mesh.open_socket(site.target, socket.SOCK_RAW, socket.AF_PACKET))
        opened.append(_Point(number, name, packet_socket, site.interface))
    return opened


def _site(mesh: Sandbox, point: str) -> _Site:
    place, _, interface = point.rpartition(":")
    targets = mesh.targets()
    own = [item for item in targets if str(item) == place]
    if not own:
        raise LabError(f"no capture at {point}: nothing runs at {place}")
    if interface != "veth":
        return _Site(own[0], interface)
    pods = [item for item in mesh.objects() if item["kind"] == "Pod"]
    for pod in pods:
        meta = pod["metadata"]
        if own[0].kind == "pod" and (meta["namespace"], meta["name"]) == (own[0].namespace, own[0].name):
            node = next(item for item in targets if item.kind == "node" and item.name == pod["spec"]["nodeName"])
            return _Site(node, wiring.host_veth(pod))
    raise LabError(f"no capture at {point}: veth is the node's end of a pod's cable; {place} is no pod")
