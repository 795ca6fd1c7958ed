"""A capture's last frames: how long they are waited for once tcpdump was stopped, and what is said of those missing."""

import os
import queue
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.cluster import sniff, streams
from bookinfo_lab.sources.cluster.sniff import Capturing, Point

pytestmark = pytest.mark.timeout(20)
HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
FRAME = struct.pack("<IIII", 1, 0, 14, 14) + bytes(14)
COUNTS = b"9 packets captured\n0 packets dropped by kernel\n"
OUT, SAID = streams.STDOUT, streams.STDERR


class Told:
    """A stream that listens, and from its stop on says what `tell` puts; None ends it."""

    def __init__(self, tell: Callable[["Told"], None]) -> None:
        self.said: queue.Queue[tuple[int, bytes] | None] = queue.Queue()
        self.said.put((SAID, b"listening on eth0\n"))
        self.is_closed = threading.Event()
        self._tell, self._is_told = tell, False

    def frames(self) -> Iterator[tuple[int, bytes]]:
        while (piece := self.said.get()) is not None:
            yield piece

    def write(self, _: bytes) -> None:
        if not self._is_told:
            self._is_told = True
            threading.Thread(target=self._tell, args=(self,), daemon=True).start()

    def close(self) -> None:
        self.is_closed.set()
        self.said.put(None)


def slowly(frames: int, is_ended: bool = True) -> Callable[[Told], None]:
    """A frame each tenth of a second, in pieces."""

    def tell(stream: Told) -> None:
        stream.said.put((OUT, HEADER))
        for number in range(2 * frames):
            if stream.is_closed.wait(0.05):
                return
            stream.said.put((OUT, FRAME[15:] if number % 2 else FRAME[:15]))
        if is_ended:
            stream.said.put((SAID, COUNTS))
            stream.said.put(None)

    return tell


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(sniff, "_END_S", 0.3)
    monkeypatch.setattr(sniff, "_END_AFTER_ERROR_S", 0.3)

    def of(*tells: Callable[[Told], None]) -> Any:
        points = [Point(f"node/{number}:eth0", ("", "", ""), "eth0", is_host=True) for number in range(len(tells))]
        waiting = [Told(tell) for tell in tells]
        monkeypatch.setattr(streams, "opened", lambda *_, **__: waiting.pop(0))
        return sniff.capturing(None, points, lambda raw: raw)  # type: ignore[arg-type,return-value]

    return of


def frames(running: Capturing) -> int:
    return len(pcapng.parse(running.found)[1])  # type: ignore[arg-type]


def test_last_frames_are_waited_for_as_long_as_they_come(capture: Callable[..., Any]) -> None:
    with capture(slowly(8), slowly(3)) as running:
        pass
    assert frames(running) == 11


def test_frames_that_no_longer_come_are_missing_and_tcpdump_is_not_blamed(capture: Callable[..., Any]) -> None:
    running: Any = None

    def take() -> None:
        nonlocal running
        with capture(slowly(5, is_ended=False), slowly(2)) as running:
            pass

    began = time.monotonic()
    with pytest.raises(LabError) as error:
        take()
    assert str(error.value) == (
        "the capture at node/0:eth0 broke off: not all frames had arrived: nothing came for 0.3 s"
    )
    assert 0.7 < time.monotonic() - began < 3
    assert frames(running) == 7


def test_points_on_which_nothing_comes_are_waited_for_at_once(capture: Callable[..., Any]) -> None:
    def take() -> None:
        with capture(*[slowly(1, is_ended=False)] * 5):
            pass

    began = time.monotonic()
    with pytest.raises(LabError, match="not all frames had arrived"):
        take()
    assert time.monotonic() - began < 1.2


def test_frames_that_come_for_ever_are_not_waited_for(
    capture: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sniff, "_LONGEST_END_S", 0.6)

    def take() -> None:
        with capture(slowly(100)):
            pass

    with pytest.raises(LabError, match=r"not all frames had arrived: it took longer than 0.6 s$"):
        take()


def test_an_error_of_the_block_does_not_wait_for_frames_that_still_come(capture: Callable[..., Any]) -> None:
    running: Any = None

    def take() -> None:
        nonlocal running
        with capture(slowly(100)) as running:
            raise ValueError("the cell's own")

    began = time.monotonic()
    with pytest.raises(ValueError, match="the cell's own"):
        take()
    assert time.monotonic() - began < 2
    assert frames(running) >= 1


def test_ctrl_c_while_the_last_frames_come_ends_the_wait_and_keeps_what_came(capture: Callable[..., Any]) -> None:
    running: Any = None

    def take() -> None:
        nonlocal running
        with capture(slowly(100)) as running:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        take()
    assert time.monotonic() - began < 3
    assert frames(running) >= 3
