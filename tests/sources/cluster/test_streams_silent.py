"""Connections on which nothing comes: how long they are waited for, what keeps them, and that letting go ends all."""

import gc
import os
import signal
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import pytest
from kubernetes import client
from kubernetes.stream import ws_client

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster import forward, sockets, streams
from bookinfo_lab.sources.cluster.api import Api, Refused

from .peers import BINARY, PING, WHERE, Peer, ended, gone, hearts, opened, served

pytestmark = pytest.mark.timeout(20)  # what hung before hangs no run


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_PING_S", 0.05), ("_LOST_S", 0.4), ("_CLOSE_S", 0.3), ("ANSWER_S", 0.5)):
        monkeypatch.setattr(sockets, name, seconds)
    monkeypatch.setattr(Api, "check", lambda *_: None)


def test_who_takes_the_connection_and_never_answers_is_given_up_in_one_line() -> None:
    began = time.monotonic()
    with served(Peer.keep_silent) as api, pytest.raises(LabError) as error:
        opened(api)
    assert str(error.value) == (
        "the API server of context 'somewhere' does not answer: nothing came within 0.5 s of asking for a stream"
    )
    assert time.monotonic() - began < 3


def test_an_answer_that_is_no_stream_is_a_refusal_and_a_new_token_is_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def talk(peer: Peer) -> None:
        asked.append(peer.asked()["authorization"])
        body = b'{"message": "pods \\"web\\" is forbidden: no"}'
        status = "401 Unauthorized" if asked[-1].endswith("old") else "403 Forbidden"
        peer.connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def renew(api: Api) -> bool:
        api.client.configuration.api_key["authorization"] = "Bearer new"
        return True

    monkeypatch.setattr(Api, "renew", renew)
    with served(talk) as api:
        api.client.configuration.api_key["authorization"] = "Bearer old"
        with pytest.raises(Refused, match="does not admit it") as error:
            opened(api)
    assert error.value.status == 403
    assert asked == ["Bearer old", "Bearer new"]
    assert hearts() == []


@pytest.mark.parametrize("way", ["tls", "proxy"])
def test_who_makes_no_connection_of_it_is_given_up_in_one_line(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CONNECT_S", 0.3)
    monkeypatch.setattr(streams, "PATIENCE_S", 0.5)
    with served(Peer.keep_silent) as api:
        configuration = api.client.configuration
        if way == "tls":
            configuration.host = configuration.host.replace("http", "https")
        else:
            configuration.host, configuration.proxy = "https://kube.invalid:6443", configuration.host
            configuration.no_proxy = "localhost"
        began = time.monotonic()
        with pytest.raises(LabError, match=r"^the API server of context 'somewhere' does not answer: ") as error:
            opened(api)
    assert ("no connection within 0.3 s" if way == "tls" else "timed out") in str(error.value)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("http://kube:8001", {}),
        ("https://kube:6443", {}),
        ("https://kube:6443", {"verify_ssl": False, "ssl_ca_cert": "ca"}),
        ("https://kube:6443", {"ssl_ca_cert": "ca", "cert_file": "cert", "key_file": "key"}),
        ("https://kube:6443", {"assert_hostname": False, "tls_server_name": "kubernetes"}),
        ("https://kube:6443", {"proxy": "http://proxy:3128", "no_proxy": "10.0.0.0/8,.local"}),
        ("https://kube:6443", {"proxy_headers": {"proxy-authorization": "Basic dTpw"}, "proxy": "http://proxy:3128"}),
    ],
)
@pytest.mark.parametrize("protocol", ["", streams.V4])
def test_the_connection_is_the_one_that_the_kubernetes_package_would_make(
    host: str, settings: dict[str, Any], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder:
        sock_opt = None

        def __init__(self, *, sslopt: dict[str, Any], **_: Any) -> None:
            self.sslopt = sslopt

        def connect(self, url: str, **given: Any) -> None:
            self.sock = given.pop("socket", None)
            made.append((url, self.sslopt, {**given, "header": sorted(given["header"])}))

        def settimeout(self, seconds: float | None) -> None: ...

        def shutdown(self) -> None: ...

        def close(self, **_: Any) -> None: ...

    made: list[Any] = []
    proxies: list[Any] = []
    configuration = client.Configuration()
    configuration.host = host
    configuration.proxy = configuration.no_proxy = None
    configuration.api_key["authorization"] = "Bearer token"
    for name, value in settings.items():
        setattr(configuration, name, value)
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(sockets, "WebSocket", Recorder)
    monkeypatch.setattr(ws_client, "WebSocket", Recorder)
    monkeypatch.setattr(sockets, "connect", lambda url, options, proxy, _: (proxies.append(vars(proxy)) or ours, None))
    with ours, theirs:
        api = Api(client.ApiClient(configuration), "somewhere", "mine", "v1.34.0")
        streams.websocket(api, "/exec", [("command", "a b")], *([protocol] if protocol else [])).close()
    headers = {"authorization": "Bearer token", "sec-websocket-protocol": protocol or f"{streams.V5},{streams.V4}"}
    ws_client.create_websocket(configuration, f"{host.replace('http', 'ws')}/exec?command=a+b", headers)
    assert made[0] == made[1]
    assert proxies[0]["proxy_host"] == ("proxy" if "proxy" in settings else None)


def test_a_stream_that_says_nothing_is_kept_by_pings_that_are_never_empty() -> None:
    pings: list[bytes] = []

    def talk(peer: Peer) -> None:
        peer.shake()
        pings.extend(peer.answer(20))  # longer than is waited for one that is silent
        peer.send(BINARY, b"\x01out")
        ended(peer)

    with served(talk) as api:
        done = streams.run(api, *WHERE, ["true"])
    assert (done.stdout, done.status) == (b"out", 0)
    assert len(pings) == 20
    assert all(pings)


def test_a_stream_on_which_nothing_comes_is_lost() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.send(BINARY, b"\x01out")
        peer.keep_silent()

    came: list[tuple[int, bytes]] = []
    with served(talk) as api:
        began = time.monotonic()
        with pytest.raises(LabError, match=r"^mine/web \(container web\): true: the connection was lost: nothing") as e:
            streams.run(api, *WHERE, ["true"], lambda *piece: came.append(piece))
        assert str(e.value).endswith(": nothing came for 0.4 s")
        assert 0.3 < time.monotonic() - began < 3
    assert came == [(1, b"out")]
    assert gone(hearts)


def test_a_stream_that_is_sent_elsewhere_is_read_there() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.answer(3)
        ended(peer)

    def redirect(peer: Peer) -> None:
        peer.asked()
        peer.connection.sendall(f"HTTP/1.1 307 Over there\r\nLocation: {elsewhere}\r\n\r\n".encode())

    with served(talk) as other, served(redirect) as api:
        elsewhere = other.client.configuration.host.replace("http", "ws")
        assert streams.run(api, *WHERE, ["true"]).status == 0


def test_a_message_in_several_frames_is_one_and_pings_may_come_between() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.send(BINARY, b"\x01o", is_last=False)
        peer.send(PING, b"there?")
        peer.send(0, b"ut")
        ended(peer)

    with served(talk) as api, streams.closing(opened(api)) as stream:
        assert list(stream.frames()) == [(1, b"out")]


def test_a_frame_that_takes_long_is_not_lost_while_its_bytes_come() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.connection.sendall(bytes([0x80 | BINARY, 11, 1]))
        for _ in range(10):
            time.sleep(0.1)
            peer.connection.sendall(b"x")
        ended(peer)

    with served(talk) as api:
        assert streams.run(api, *WHERE, ["true"]).stdout == b"x" * 10


def test_who_reads_late_has_lost_nothing_and_pings_go_on() -> None:
    pings: list[bytes] = []

    def talk(peer: Peer) -> None:
        peer.shake()
        peer.send(BINARY, b"\x01out")
        pings.extend(peer.answer(20))
        ended(peer)

    def read_late(*_: object) -> None:
        deadline = time.monotonic() + 5
        while len(pings) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)

    with served(talk) as api:
        assert streams.run(api, *WHERE, ["true"], read_late).stdout == b"out"
    assert len(pings) == 20


@pytest.mark.parametrize(("length", "is_kept"), [(8192, True), (16, False)])
def test_a_program_that_does_not_read_holds_up_pings_and_is_waited_for(length: int, is_kept: bool) -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        time.sleep(1.2)
        assert peer.read() == (BINARY, b"\0" + b"x" * length)
        peer.answer(2)
        ended(peer)

    with served(talk) as api, streams.closing(opened(api, stdin=True)) as stream:
        stream.write(b"x" * length)
        if is_kept:
            assert list(stream.frames()) == []
            assert stream.status == 0
        else:
            with pytest.raises(LabError, match=r"nothing came for 0.4 s$"):
                list(stream.frames())


def test_what_was_read_counts_again_as_nothing_ahead() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.answer(3)
        peer.keep_silent()

    with served(talk) as api, streams.closing(opened(api, stdin=True)) as stream:
        stream.write(b"x" * 8192)
        with pytest.raises(LabError, match=r"nothing came for 0.4 s$"):
            list(stream.frames())


def test_closing_ends_the_heartbeat_and_no_thread_keeps_the_process() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.answer(1000)

    with served(talk) as api:
        stream = opened(api)
        assert [thread.daemon for thread in hearts()] == [True]
        began = time.monotonic()
        stream.close()
        stream.close()
        assert gone(hearts)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("does", ["reads", "writes"])
def test_closing_is_bounded_where_nobody_is_there_and_a_thread_is_stuck_in_it(does: str) -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.keep_silent()

    def use() -> None:
        with suppress(LabError, *sockets.LOST):
            while does == "writes":
                stream.write(b"x" * 32768)
            list(stream.frames())

    with served(talk) as api:
        stream = opened(api, stdin=True)
        user = threading.Thread(target=use, daemon=True)
        user.start()
        user.join(0.2)
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 2
        user.join(2)
        assert not user.is_alive()
    assert gone(hearts)


def test_ctrl_c_reaches_who_reads() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.answer(1000)

    def read() -> None:
        with streams.closing(opened(api)) as stream:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            list(stream.frames())

    with served(talk) as api:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            read()
        assert time.monotonic() - began < 2
    assert gone(hearts)


def test_a_ports_heartbeat_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_PATIENCE_S", 0.5)

    def talk(peer: Peer) -> None:
        peer.shake()
        peer.send(BINARY, b"\x00\x50\x00")
        peer.send(BINARY, b"\x01\x50\x00")
        peer.answer(1000)

    def read(api: Api) -> None:
        with forward.opened(api, "mine", "web", 80) as port:
            port.recv_into(bytearray(16))

    with served(talk) as api:
        began = time.monotonic()
        with pytest.raises(LabError, match=r"^port 80 of mine/web: nothing came for 0.5 s$"):
            read(api)
        assert time.monotonic() - began < 3
    assert gone(hearts)


def test_one_that_was_let_fall_is_closed() -> None:
    def talk(peer: Peer) -> None:
        peer.shake()
        peer.answer(1000)

    with served(talk) as api:
        stream: Any = opened(api)
        fallen = weakref.ref(stream)
        del stream
        gc.collect()
        assert fallen() is None
        assert gone(hearts)
