"""The other end of a WebSocket, on loopback: an API server that does what a test tells it, or nothing."""

import base64
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kubernetes import client

from bookinfo_lab.sources.cluster import streams
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.streams import Stream

BINARY, END, PING, PONG = 2, 8, 9, 10
WHERE = ("mine", "web", "web")
SUCCESS = b'\x03{"status": "Success"}'


class Peer:
    """The other end of a WebSocket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.file = connection, connection.makefile("rb")
        self.over = threading.Event()

    def asked(self) -> dict[str, str]:
        """The header fields of a request."""
        lines = iter(lambda: self.file.readline().decode().strip(), "")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def shake(self) -> None:
        key = self.asked()["sec-websocket-key"]
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
        said = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
        fields = (f"Sec-WebSocket-Accept: {accept}", f"Sec-WebSocket-Protocol: {streams.V5}")
        self.connection.sendall("\r\n".join([*said, *fields, "", ""]).encode())

    def read(self) -> tuple[int, bytes]:
        first, second = self._bytes(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self._bytes(2 if length == 126 else 8))
        mask, data = self._bytes(4), self._bytes(length)
        return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))

    def send(self, opcode: int, data: bytes, is_last: bool = True) -> None:
        head = bytes([0x80 * is_last | opcode])
        self.connection.sendall(
            head + (bytes([len(data)]) if len(data) < 126 else struct.pack("!BH", 126, len(data))) + data
        )

    def answer(self, pings: int) -> list[bytes]:
        """Answer so many pings, and everything before the last of them."""
        seen: list[bytes] = []
        while len(seen) < pings:
            kind, data = self.read()
            if kind == PING:
                seen.append(data)
                self.send(PONG, data)
            elif kind == END:
                raise EOFError
        return seen

    def keep_silent(self) -> None:
        self.over.wait(15)

    def cut(self) -> None:
        self.over.set()
        with suppress(OSError):
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def _bytes(self, count: int) -> bytes:
        found = self.file.read(count)
        if len(found) < count:
            raise EOFError
        return found


@contextmanager
def served(talk: Callable[["Peer"], None], tls: ssl.SSLContext | None = None) -> Iterator[Api]:
    """An API server that talks to whoever connects, each in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[Peer] = []

    def each(connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            wire = connection if tls is None else tls.wrap_socket(connection, server_side=True)
            taken.append(Peer(wire))
            talk(taken[-1])

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                threads.append(threading.Thread(target=each, args=(connection,), daemon=True))
                threads[-1].start()

    threads = [threading.Thread(target=accept, daemon=True)]
    threads[0].start()
    try:
        configuration = client.Configuration()
        configuration.host = f"http{'s' if tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
        yield Api(client.ApiClient(configuration), "somewhere", "mine", "v1.34.0")
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for peer in taken:
            peer.cut()
        for thread in threads:
            thread.join()
        for peer in taken:
            peer.file.close()
            peer.connection.close()


def ended(peer: Peer) -> None:
    """The program's end, and the connection's as both sides agree on it."""
    peer.send(BINARY, SUCCESS)
    while peer.read()[0] != END:
        pass
    peer.send(END, struct.pack("!H", 1000))


def hearts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def gone(threads: Callable[[], list[threading.Thread]]) -> bool:
    for thread in threads():
        thread.join(2)
    return threads() == []


def opened(api: Api, **given: Any) -> Stream:
    return streams.opened(api, *WHERE, ["sleep", "9"], **given)
