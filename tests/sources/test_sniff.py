"""Captures: tcpdump beside them sees the same frames; nothing is lost without being counted; nothing is left behind."""

import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError
from bookinfo_lab.lab import Lab
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources.sandbox import SandboxSource

pytestmark = pytest.mark.sandbox
POINTS = ("client", "node", "ingress", "ingress:veth", "productpage:lo", "reviews-v3")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        mesh = sandbox.up(scenarios.scenario("sidecar"), "sniff", keep=False)
        try:
            yield Lab(SandboxSource(mesh))
        finally:
            mesh.down()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_each_point_sees_the_request_that_passes_it(lab: Lab) -> None:
    with lab.capture(*POINTS) as capture:
        lab.get("/productpage")
    interfaces, frames = pcapng.parse(capture.raw)
    assert [item.name for item in interfaces] == [lab.point(item) for item in POINTS]
    asked = Counter(item.interface for item in frames if b"GET /productpage" in item.raw)
    assert set(asked) == {0, 1, 2, 3, 4}
    assert [item.ts_ns for item in frames] == sorted(item.ts_ns for item in frames)
    assert capture.drops == 0
    now_ns = time.time_ns()
    assert all(now_ns - 60 * 10**9 < item.ts_ns < now_ns for item in frames)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is the judge, and is not installed")
@pytest.mark.parametrize("point", ["productpage:lo", "node:eth0", "ingress:eth0"])
def test_tcpdump_in_the_same_place_sees_the_same_frames(lab: Lab, point: str, tmp_path: Path) -> None:
    target, _, interface = point.partition(":")
    path = tmp_path / "tcpdump.pcap"
    command = [sys.executable, "-m", "bookinfo_lab.cli", "exec", "--name", "sniff", "--uid", "0", target, "--"]
    command += ["tcpdump", "-i", interface, "-Z", "root", "-U", "--immediate-mode", "-w", "-"]
    with path.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as tcpdump:
        assert tcpdump.stderr is not None
        while b"listening on" not in (line := tcpdump.stderr.readline()):
            assert line, "tcpdump ended"
        with lab.capture(point) as capture:
            for _ in range(3):
                lab.get("/productpage")
        time.sleep(0.3)  # frames of the closing connections, which tcpdump may still have to write
        tcpdump.send_signal(signal.SIGINT)
        tcpdump.stderr.read()
    ours = Counter(digest(item.raw) for item in pcapng.parse(capture.raw)[1])
    theirs = Counter(digest(raw) for raw in classic(path.read_bytes()))
    assert sum(ours.values()) >= 20
    assert ours - theirs == Counter()
    late = theirs - ours  # only what passed before or after the block may be in tcpdump's alone
    assert sum(late.values()) <= 12


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def classic(raw: bytes) -> Iterator[bytes]:
    """The frames of a little-endian pcap file."""
    at = 24
    while at + 16 <= len(raw):
        size = int.from_bytes(raw[at + 8 : at + 12], "little")
        yield raw[at + 16 : at + 16 + size]
        at += 16 + size


def test_of_a_burst_every_frame_is_kept_or_counted_as_lost(lab: Lab) -> None:
    mesh = lab.source.mesh
    sent = 5000
    sender = mesh.open_socket(mesh.target("client"), socket.SOCK_DGRAM)
    with sender, lab.capture("client:lo") as capture:
        for number in range(sent):
            sender.sendto(b"burst %06d" % number, ("127.0.0.1", 9))
    frames = [item for item in pcapng.parse(capture.raw)[1] if b"burst " in item.raw]
    assert len(frames) + capture.drops >= sent
    assert len(frames) > 0


def test_what_was_sent_just_before_the_end_is_still_in_it(lab: Lab) -> None:
    mesh = lab.source.mesh
    for number in range(20):
        with mesh.open_socket(mesh.target("client"), socket.SOCK_DGRAM) as sender, lab.capture("client:lo") as capture:
            sender.sendto(b"last %d" % number, ("127.0.0.1", 9))
        assert b"last %d" % number in capture.raw


def test_a_block_that_raises_leaves_nothing_open_and_its_frames_are_kept(lab: Lab) -> None:
    lab.get("/productpage")
    threads, opened = threading.active_count(), descriptors()
    kept = []

    def interrupted() -> None:
        with lab.capture("client") as capture:
            kept.append(capture)
            lab.get("/productpage")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert b"GET /productpage" in kept[0].raw
    assert (threading.active_count(), descriptors()) == (threads, opened)


def test_while_the_block_runs_there_are_no_frames_yet(lab: Lab) -> None:
    with lab.capture("client") as capture:
        with pytest.raises(LabError, match="with block"):
            _ = capture.raw
        assert "when the with block has ended" in repr(capture)


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ("moon", "no target 'moon'"),
        ("client:veth", "is no pod"),
        ("node:veth", "is no pod"),
        ("node:wlan0", "choose one"),
    ],
)
def test_a_point_that_is_none_is_one_line_and_opens_nothing(lab: Lab, point: str, words: str) -> None:
    lab.pods()
    opened = descriptors()
    with pytest.raises(LabError, match=words) as refusal, lab.capture("client", point):
        pass
    assert "\n" not in str(refusal.value)
    assert descriptors() == opened


def test_the_command_streams_until_it_is_ended(lab: Lab) -> None:
    command = [sys.executable, "-m", "bookinfo_lab.cli", "capture", "--name", "sniff", "client", "ingress:lo"]
    for more, number in ((["--seconds", "1"], None), ([], signal.SIGINT), ([], signal.SIGTERM)):
        with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            assert select.select([running.stdout], [], [], 20)[0], "nothing was written"
            lab.get("/productpage")
            if number is not None:
                time.sleep(0.2)
                running.send_signal(number)
            raw = running.stdout.read()
            assert running.stderr.read() == b""
        assert running.returncode == 0
        assert b"GET /productpage" in raw
        assert [item.name for item in pcapng.parse(raw)[0]] == [lab.point("client"), lab.point("ingress:lo")]


def test_a_sandbox_that_ends_meanwhile_ends_the_capture_with_what_was_seen(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path))
        mesh = sandbox.up(scenarios.scenario("article"), "ends", keep=False)
        lab = Lab(SandboxSource(mesh))
        with lab.capture("client") as capture:
            lab.get("/productpage")
            mesh.down()
        assert b"GET /productpage" in capture.raw


def test_a_capture_is_saved_to_a_new_file_and_to_no_other(lab: Lab, tmp_path: Path) -> None:
    with lab.capture("client") as capture:
        lab.get("/productpage")
    saved = capture.save(str(tmp_path / "one.pcapng"))
    assert Path(saved).read_bytes() == capture.raw
    for path in (saved, "/proc/one.pcapng", str(tmp_path)):
        with pytest.raises(LabError, match="cannot write"):
            capture.save(path)
