"""Captures at several points of a cluster at once, over the API: tcpdump in containers of the lab's, joined as pcapng.

Edge.  One exec connection and one thread for each point.  tcpdump ends when a line comes on its stdin or the connection
is lost, whichever is first, and writes out what it has before it does; what the kernel dropped is read from what it
says then.  Frames are streamed as they come, and a capture that breaks off keeps what came before.  In a node's network
namespace a stream would be captured itself, each frame of it giving rise to the next: there frames are kept in a file
beside tcpdump, which comes at the end and is gone then.  Clocks are the nodes' own: points on two nodes are only as
close as those.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bookinfo_lab.errors import LabError
from bookinfo_lab.packets import pcap, pcapng
from bookinfo_lab.packets.pcapng import Frame, Interface
from bookinfo_lab.sources.base import Evidence
from bookinfo_lab.sources.cluster import sockets, streams
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.streams import Stream

_START_S = 15.0
_END_S, _LONGEST_END_S = 15.0, 3600.0  # for the next byte after the stop, and for all of them
_END_AFTER_ERROR_S = 3.0  # an interrupt does not wait longer for the last frames
_ETHERNET = 1
_DROPPED = re.compile(rb"(\d+) packets? dropped by kernel")
_LISTENING = b"listening on"
LONGEST_FILE_BYTES = 512 * 1024 * 1024  # of a node's point; tcpdump is ended there, and the point breaks off
# Slots of the kernel's ring are as long as the longest frame that is kept, so that limit decides how many there are: a
# segment that is yet to be cut (GSO) fits.
_TCPDUMP = "tcpdump -i {interface} -B 32768 -s 66000 -U --immediate-mode --time-stamp-precision=nano -n -w"
# A frame that travels by itself wakes everybody on the way to here, and a busy interface outruns that: frames of a
# twentieth of a second go together.  Where nobody takes them and tcpdump has ended, this ends too.
_TOGETHER = """import contextlib, fcntl, os, select, time
with contextlib.suppress(OSError):
    fcntl.fcntl(0, 1031, 1 << 20)  # F_SETPIPE_SZ
os.set_blocking(1, False)
ended = select.poll()
ended.register(0, 0)
while data := os.read(0, 1 << 20):
    tries = 3
    while data and tries:
        if select.select([], [1], [], 1)[1]:
            data = data[os.write(1, data):]
        elif ended.poll(0):
            tries -= 1
    time.sleep(0.05)
"""
# The shell waits for tcpdump, so that one that ends by itself ends the stream, and beside it for a line on stdin that
# stops it.  Where the connection ends without one nobody reads what tcpdump writes any more: it may hang in that, and
# is killed.
_WAITED = """& p=$!
{{{{ if read _; then kill -INT $p; else {lost}kill -KILL $p; fi; }}}} <&3 >/dev/null 2>&1 & r=$!
wait $p; status=$?; kill $r 2>/dev/null"""
_STREAMED = f"""exec 3<&0; {{{{ {_TCPDUMP} - {_WAITED.format(lost="")}; }}}} |
if command -v python3 >/dev/null; then exec python3 -I -S -c '{_TOGETHER}'; else exec cat; fi"""
_KEPT = f"""exec 3<&0; file=/tmp/capture-$$; trap 'rm -f "$file"' EXIT
ulimit -f {LONGEST_FILE_BYTES // 512}
{_TCPDUMP} "$file" {_WAITED.format(lost='rm -f "$file"; ')}
cat "$file"; exit $status"""


@dataclass(slots=True)
class Point:
    """One point: its name in full, where tcpdump runs for it, and on which interface there.

    ``is_host``: in a node's network namespace, which the stream passes too.
    """

    name: str
    where: tuple[str, str, str]
    interface: str
    is_host: bool = False
    out: bytearray = field(default_factory=bytearray)
    said: bytearray = field(default_factory=bytearray)
    fault: LabError | None = None
    stream: Stream | None = None
    heard_s: float = 0.0
    listens: threading.Event = field(default_factory=threading.Event)
    is_read: threading.Event = field(default_factory=threading.Event)
    is_stopping: bool = False

    def read(self) -> None:
        """Everything that tcpdump writes, until it ends."""
        assert self.stream is not None
        try:
            for channel, data in self.stream.frames():
                (self.out if channel == streams.STDOUT else self.said).extend(data)
                self.heard_s = time.monotonic()
                if not self.listens.is_set() and _LISTENING in self.said:
                    self.listens.set()
            if not self.is_stopping:
                self.fault = LabError(f"tcpdump ended by itself: {self.last_words()}")
            elif not _DROPPED.search(self.said):
                self.fault = LabError(f"it is not known what the kernel dropped: tcpdump said {self.last_words()!r}")
        except LabError as error:
            self.fault = self.fault or error
        finally:
            self.listens.set()
            self.is_read.set()

    def last_words(self) -> str:
        """The end of what tcpdump said on stderr."""
        return " ".join(bytes(self.said).decode("utf-8", "replace").split())[-160:]

    def frames(self, number: int) -> tuple[Interface, list[Frame]]:
        """The interface with its drops, and its frames."""
        if not self.out and self.fault is not None:
            return Interface(self.name, _ETHERNET), []
        link_type, frames = pcap.parse(bytes(self.out), number, self.name)
        found = _DROPPED.search(self.said)
        return Interface(self.name, link_type, drops=int(found[1]) if found else 0), list(frames)


class Capturing:
    """A capture that runs, or ran."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self.found: Evidence | None = None

    @property
    def is_broken(self) -> bool:
        """Whether a point has ended that nobody stopped: the block's end will say so."""
        return any(point.fault for point in self._points)

    def check(self) -> None:
        """Raise LabError where a point has broken off."""
        for point in self._points:
            if point.fault:
                raise LabError(f"the capture at {point.name} broke off: {point.fault}")

    @property
    def evidence(self) -> Evidence:
        """The frames as pcapng."""
        if self.found is None:
            raise LabError("the capture has no frames before its with block ends")
        return self.found


@contextmanager
def capturing(api: Api, points: Sequence[Point], evidence: Callable[[bytes], Evidence]) -> Iterator[Capturing]:
    """Capture at ``points`` as long as the block lasts; ``evidence`` is made of the pcapng bytes."""
    running = Capturing(points)
    try:
        for point in points:
            script = (_KEPT if point.is_host else _STREAMED).format(interface=point.interface)
            point.stream = streams.opened(api, *point.where, ["sh", "-c", script], stdin=True)
            threading.Thread(target=point.read, name=f"capture {point.name}", daemon=True).start()
        for point in points:
            if not point.listens.wait(_START_S) or point.fault or _LISTENING not in point.said:
                said = point.fault or point.last_words()
                raise LabError(f"no capture at {point.name}: {said or 'tcpdump did not begin'}")
        try:
            yield running
            time.sleep(0.05)  # a frame that was sent in the block's last moment
            _end(points, _END_S, _LONGEST_END_S)
        except BaseException:
            with suppress(LabError):  # the block's own error, or an interrupt, is the one to be told
                _end(points, _END_AFTER_ERROR_S, _END_AFTER_ERROR_S)
                running.found = evidence(_joined(points))
            raise
        running.found = evidence(_joined(points))
        running.check()
    finally:
        for point in points:
            if point.stream is not None:
                point.stream.close()


def _end(points: Sequence[Point], silent_s: float, longest_s: float) -> None:
    """Stop every point and wait for its last frames: for each as long as they come, and ``longest_s`` in all."""
    for point in points:
        _stop(point)
    stopped_s = time.monotonic()
    last_s = stopped_s + longest_s
    for point in points:
        while not point.is_read.is_set():  # not Thread.join: one that is interrupted takes the thread for ended
            until_s = min(max(point.heard_s, stopped_s) + silent_s, last_s)
            if (left_s := until_s - time.monotonic()) <= 0:
                why = (
                    f"it took longer than {longest_s:g} s" if until_s == last_s else f"nothing came for {silent_s:g} s"
                )
                point.fault = LabError(f"not all frames had arrived: {why}")
                break
            point.is_read.wait(left_s)


def _stop(point: Point) -> None:
    assert point.stream is not None
    point.is_stopping = True
    try:
        point.stream.write(b"\n")
    except sockets.LOST as error:
        point.fault = point.fault or LabError(f"the connection was lost: {error}")


def _joined(points: Sequence[Point]) -> bytes:
    interfaces, frames = [], []
    for number, point in enumerate(points):
        interface, found = point.frames(number)
        interfaces.append(interface)
        frames += found
    return pcapng.write(interfaces, sorted(frames, key=lambda frame: frame.ts_ns))
