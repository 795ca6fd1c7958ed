"""Captures at several points of a cluster at once, over the API: tcpdump in containers of the lab's, joined as pcapng.

Edge.  One exec connection and one thread for each point.  tcpdump ends when a line comes on its stdin or the connection
is lost, whichever is first, and writes out what it has before it does; what the kernel dropped is read from what it
says then.  Clocks are the nodes' own: points on two nodes are only as close as those.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bookinfo_lab.errors import LabError
from bookinfo_lab.packets import pcap, pcapng
from bookinfo_lab.packets.pcapng import Frame, Interface
from bookinfo_lab.sources.base import Evidence
from bookinfo_lab.sources.cluster import streams
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.streams import Stream

_START_S, _END_S = 15.0, 15.0
_DROPPED = re.compile(rb"(\d+) packets? dropped by kernel")
_LISTENING = b"listening on"
# The shell starts tcpdump beside itself and waits for a line, or for the end of the connection, to stop it.
_TCPDUMP = "tcpdump -i {interface} -s 0 -U --immediate-mode --time-stamp-precision=nano -n -w - {filter}"
_SCRIPT = f"{_TCPDUMP} & p=$!; read _; kill -INT $p; wait $p"


@dataclass(slots=True)
class Point:
    """One point: its name in full, where tcpdump runs for it, and on which interface there."""

    name: str
    where: tuple[str, str, str]
    interface: str
    filter: str = ""
    out: bytearray = field(default_factory=bytearray)
    said: bytearray = field(default_factory=bytearray)
    fault: LabError | None = None
    stream: Stream | None = None
    listens: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Everything that tcpdump writes, until it ends."""
        assert self.stream is not None
        try:
            for channel, data in self.stream.frames():
                (self.out if channel == streams.STDOUT else self.said).extend(data)
                if _LISTENING in self.said:
                    self.listens.set()
        except LabError as error:
            self.fault = error
        self.listens.set()

    def frames(self, number: int) -> tuple[Interface, list[Frame]]:
        """The interface with its drops, and its frames."""
        link_type, frames = pcap.parse(bytes(self.out), number, self.name)
        found = _DROPPED.search(self.said)
        return Interface(self.name, link_type, drops=int(found[1]) if found else 0), list(frames)


class Capturing:
    """A capture that runs, or ran."""

    def __init__(self) -> None:
        self.found: Evidence | None = None

    @property
    def evidence(self) -> Evidence:
        """The frames as pcapng."""
        if self.found is None:
            raise LabError("the capture has no frames before its with block ends")
        return self.found


@contextmanager
def capturing(api: Api, points: Sequence[Point], evidence: Callable[[bytes], Evidence]) -> Iterator[Capturing]:
    """Capture at ``points`` as long as the block lasts; ``evidence`` is made of the pcapng bytes."""
    running = Capturing()
    threads: list[threading.Thread] = []
    try:
        for point in points:
            script = _SCRIPT.format(interface=point.interface, filter=point.filter)
            point.stream = streams.opened(api, *point.where, ["sh", "-c", script], stdin=True)
            threads.append(threading.Thread(target=point.read, name=f"capture {point.name}", daemon=True))
            threads[-1].start()
        for point in points:
            if not point.listens.wait(_START_S) or point.fault or _LISTENING not in point.said:
                said = point.fault or " ".join(bytes(point.said).decode("utf-8", "replace").split())[-200:]
                raise LabError(f"no capture at {point.name}: {said or 'tcpdump did not begin'}")
        yield running
        time.sleep(0.05)  # a frame that was sent in the block's last moment
        for point in points:
            _stop(point)
        for point, thread in zip(points, threads, strict=True):
            thread.join(_END_S)
            if point.fault or thread.is_alive():
                raise LabError(f"the capture at {point.name} broke off: {point.fault or 'tcpdump did not end'}")
        running.found = evidence(_joined(points))
    finally:
        for point in points:
            if point.stream is not None:
                point.stream.close()


def _stop(point: Point) -> None:
    assert point.stream is not None
    try:
        point.stream.write(b"\n")
    except streams.LOST as error:
        point.fault = point.fault or LabError(f"the connection was lost: {error}")


def _joined(points: Sequence[Point]) -> bytes:
    interfaces, frames = [], []
    for number, point in enumerate(points):
        interface, found = point.frames(number)
        interfaces.append(interface)
        frames += found
    return pcapng.write(interfaces, sorted(frames, key=lambda frame: frame.ts_ns))
