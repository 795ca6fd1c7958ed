"""What comes over a WebSocket of the API server: whole messages, in however many frames they came."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster import forward, sniff, streams, ways
from bookinfo_lab.sources.cluster.sniff import Point

SUCCESS = b'\x03{"status": "Success"}'


class Socket:
    """Gives messages as `sockets.Socket` does: (opcode, bytes)."""

    def __init__(self, *messages: tuple[int, bytes]) -> None:
        self._messages = list(messages)

    def receive(self) -> tuple[int, bytes]:
        return self._messages.pop(0)


def test_messages_are_told_apart_by_channel_and_control_frames_are_none() -> None:
    given = Socket((2, b"\x01out"), (9, b""), (2, b"\x02err"), (10, b"0"), (2, b"\x01"), (2, b""), (2, SUCCESS))
    stream = streams.Stream(cast(Any, given), "a program")
    assert list(stream.frames()) == [(1, b"out"), (2, b"err")]
    assert stream.status == 0
    ports = (2, b"\x00\x50\x00"), (2, b"\x01\x50\x00")
    heard = forward.Forwarded(cast(Any, Socket(*ports, (10, b"0"), (2, b"\x00hello"), (8, b""))), "a port")
    buffer = bytearray(16)
    assert bytes(buffer[: heard.recv_into(buffer)]) == b"hello"
    assert heard.recv_into(buffer) == 0


def test_a_connection_that_is_closed_before_the_program_ends_is_one_line() -> None:
    with pytest.raises(LabError, match=r"^a program: the connection was lost: it was closed$"):
        list(streams.Stream(cast(Any, Socket((2, b"\x01out"), (8, b""))), "a program").frames())


def test_a_pods_process_is_found_beside_the_runtimes_own_which_is_in_the_nodes_network(tmp_path: Path) -> None:
    for number, scope, netns in (
        ("70", "crio-conmon-0123abcd.scope", "net:[1]"),
        ("80", "crio-0123abcd.scope", "net:[2]"),
        ("90", "crio-other.scope", "net:[3]"),
        ("self", "", "net:[1]"),
    ):
        (tmp_path / number / "ns").mkdir(parents=True)
        (tmp_path / number / "cgroup").write_text(f"0::/kubepods.slice/{scope}\n")
        (tmp_path / number / "ns" / "net").symlink_to(netns)

    def entered(container: str) -> "subprocess.CompletedProcess[str]":
        script = ways._ENTER.format(container=container, words="ip addr").replace("/proc", str(tmp_path))
        return subprocess.run(
            ["sh", "-c", script.replace("exec nsenter", "exec echo nsenter")],
            capture_output=True,
            text=True,
            timeout=10,
        )

    assert entered("0123abcd").stdout == "nsenter -n -t 80 ip addr\n"
    none = entered("ffff")
    assert (none.returncode, none.stdout) == (1, "")
    assert "no process of the container ffff" in none.stderr


def test_a_point_that_broke_off_before_its_first_byte_has_no_frames() -> None:
    point = Point("node/n:eth0", ("", "", ""), "eth0", is_host=True, fault=LabError("gone"))
    assert point.frames(0)[1] == []


def test_a_nodes_frames_are_kept_in_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    """The same shell text, with a tcpdump that writes one line and waits to be ended."""
    fake = tmp_path / "tcpdump"
    fake.write_text(
        f"#!{sys.executable}\nimport signal, sys, time\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(0))\n"
        "open(sys.argv[sys.argv.index('-w') + 1], 'w').write('frames\\n')\n"
        "print('listening on', file=sys.stderr)\ntime.sleep(20)\n"
    )
    fake.chmod(0o755)
    script = sniff._KEPT.format(interface="lo").replace("/tmp/capture", f"{tmp_path}/capture")
    for given, expected in (("\n", ("frames\n", 0)), ("", ("", 128 + signal.SIGKILL))):
        words = ["sh", "-c", f"sleep 0.5; {'echo' if given else 'true'}"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as asking:
            done = subprocess.run(
                ["sh", "-c", script],
                stdin=asking.stdout,
                capture_output=True,
                text=True,
                timeout=20,
                env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            )
        assert (done.stdout, done.returncode) == expected
        assert [item.name for item in tmp_path.iterdir()] == ["tcpdump"]


@pytest.mark.parametrize("script", [sniff._KEPT, sniff._STREAMED], ids=["kept", "streamed"])
def test_a_tcpdump_that_ends_by_itself_ends_the_stream_with_what_it_had(tmp_path: Path, script: str) -> None:
    """The connection stays open: nobody has stopped it."""
    fake = tmp_path / "tcpdump"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nto = sys.argv[sys.argv.index('-w') + 1]\n"
        "print('frames', file=sys.stdout if to == '-' else open(to, 'w'))\n"
        "sys.exit('tcpdump: pcap_loop: The interface disappeared')\n"
    )
    fake.chmod(0o755)
    given = script.format(interface="lo").replace("/tmp/capture", f"{tmp_path}/capture")
    with subprocess.Popen(
        ["sh", "-c", given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    ) as running:
        assert running.wait(10) is not None
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.read() == b"frames\n"
        assert b"disappeared" in running.stderr.read()
    assert [item.name for item in tmp_path.iterdir()] == ["tcpdump"]


def test_a_point_that_ended_by_itself_or_without_its_counts_is_a_fault() -> None:
    class Said:
        def __init__(self, *said: bytes) -> None:
            self.said = said

        def frames(self) -> Iterator[tuple[int, bytes]]:
            return ((streams.STDERR, item) for item in self.said)

    counts = b"3 packets captured\n0 packets dropped by kernel\n"
    for said, is_stopping, fault in (
        ([b"listening on lo\n", b"pcap_loop: The interface disappeared\n", counts], False, "ended by itself"),
        ([b"listening on lo\n"], True, "not known what the kernel dropped"),
        ([b"listening on lo\n", counts], True, ""),
    ):
        point = Point("node/n:eth0", ("", "", ""), "eth0", stream=cast(Any, Said(*said)), is_stopping=is_stopping)
        point.read()
        assert (fault in str(point.fault)) if fault else point.fault is None
