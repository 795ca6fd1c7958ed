"""Streams over TLS: read by one thread, written by another and pinged by a third, which OpenSSL does not stand."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster import sockets, streams
from bookinfo_lab.sources.cluster.api import Api

from .peers import BINARY, PING, PONG, WHERE, Peer, ended, gone, hearts, opened, served

pytestmark = pytest.mark.timeout(20)


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "check", lambda *_: None)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate and key in one file, which is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    made = tmp_path_factory.mktemp("tls") / "both.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=kube -addext subjectAltName=IP:127.0.0.1"
    command = [*words.split(), "-keyout", str(made), "-out", str(made.with_name("cert.pem"))]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    made.write_text(made.read_text() + made.with_name("cert.pem").read_text())
    return made


def of_a_server(certificate: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    return tls


def test_over_tls_a_stream_on_which_nothing_comes_is_lost(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_PING_S", 0.05)
    monkeypatch.setattr(sockets, "_LOST_S", 0.4)

    def talk(peer: Peer) -> None:
        peer.shake()
        peer.keep_silent()

    with served(talk, of_a_server(certificate)) as api:
        api.client.configuration.ssl_ca_cert = certificate
        with pytest.raises(LabError, match=r"the connection was lost: nothing came for 0.4 s$"):
            streams.run(api, *WHERE, ["true"])
    assert gone(hearts)


def test_over_tls_a_stream_is_read_written_and_pinged_at_once(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_PING_S", 0.001)
    monkeypatch.setattr(sockets, "_LOST_S", 10.0)
    pieces = [number.to_bytes(4) * 64 for number in range(500)]

    def talk(peer: Peer) -> None:
        peer.shake()
        given = 0
        while given < len(pieces):
            kind, data = peer.read()
            given += kind == BINARY
            peer.send(PONG if kind == PING else BINARY, data if kind == PING else b"\x01" + data[1:])
        ended(peer)

    def write() -> None:
        for piece in pieces:
            stream.write(piece)

    with served(talk, of_a_server(certificate)) as api:
        api.client.configuration.ssl_ca_cert = certificate
        with streams.closing(opened(api, stdin=True)) as stream:
            writer = threading.Thread(target=write)
            writer.start()
            came = b"".join(data for _, data in stream.frames())
            writer.join()
    assert came == b"".join(pieces)
    assert gone(hearts)


def both_ends(certificate: Path) -> tuple[sockets._Wire, sockets._Wire]:
    """Of one TLS connection."""
    plain, made = socket.socketpair(), list[sockets._Wire]()

    def serve() -> None:
        made.append(sockets._Wire(of_a_server(certificate).wrap_socket(plain[0], server_side=True)))

    serving = threading.Thread(target=serve)
    serving.start()
    mine = ssl.create_default_context(cafile=certificate)
    made.append(sockets._Wire(mine.wrap_socket(plain[1], server_hostname="127.0.0.1")))
    serving.join()
    return made[0], made[1]


def use(call: Callable[[Any], object], given: object, until: float, faults: list[Exception]) -> None:
    try:
        while time.monotonic() < until:
            assert call(given)
    except (TimeoutError, BrokenPipeError):
        pass  # the other side has ended
    except (AssertionError, OSError) as error:
        faults.append(error)


def test_tls_stands_one_that_reads_and_one_that_writes_as_fast_as_they_can(certificate: Path) -> None:
    """An SSLSocket by itself does not: it is at an end before its time, often by a bad record MAC."""
    for _ in range(4):
        ends, faults, until = both_ends(certificate), list[Exception](), time.monotonic() + 0.15
        threads = []
        for end in ends:
            end.settimeout(0.1)
            for call, given in ((end.send, b"x" * 4096), (end.recv, 16384)):
                threads.append(threading.Thread(target=use, args=(call, given, until, faults)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for end in ends:
            end.close()
        assert faults == []
