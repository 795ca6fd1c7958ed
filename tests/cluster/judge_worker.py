"""A process of the tests' in a node's or a pod's network namespace: it sends, answers, and watches the kernel's trace.

Edge; `judge_posts` starts it there with `kernel` and `judge_watch` beside it, and asks it by pickles on its standard
input.  It ends with that, and nothing of it stays.
"""

import errno
import os
import pickle
import socket
import struct
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import replace

from judge_watch import Watch
from kernel import send
from kernel.flow import Flow, RoomError

BOOT = """
import os, sys
size = int(sys.stdin.buffer.readline())
place = os.memfd_create("tests")
os.write(place, sys.stdin.buffer.read(size))
sys.path.insert(0, f"/proc/self/fd/{place}")
import judge_worker
judge_worker.serve()
"""
CONNECT_S = 0.8


class Post:
    """Everything that the process can be asked, as methods."""

    def __init__(self) -> None:
        self._sender = send.Sender()
        self._open: socket.socket | None = None
        self._listeners: list[socket.socket] = []
        self.watching: Watch | None = None

    def start(self, first_port: int) -> None:
        """Use source ports from ``first_port`` on."""
        self._sender = send.Sender(first_port)

    # A pod's part

    def answer(self, ports: Collection[int]) -> None:
        """Accept TCP connections on ``ports`` and answer UDP datagrams there."""
        for port in ports:
            for kind, take in ((socket.SOCK_STREAM, _accept), (socket.SOCK_DGRAM, _echo)):
                made = socket.socket(socket.AF_INET, kind)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(("0.0.0.0", port))
                if kind == socket.SOCK_STREAM:
                    made.listen(64)
                self._listeners.append(made)
                threading.Thread(target=take, args=(made,), daemon=True).start()

    # Sending

    def with_port(self, flow: Flow) -> Flow:
        found = self._sender.with_port(replace(flow, iif="in0"))
        return replace(found, iif=flow.iif)

    def send_raw(self, flow: Flow) -> None:
        """The flow's first packet, past this namespace's sockets; its source may be any."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as made:
            made.sendto(send.packet(flow), (flow.dst, 0))

    def send_frame(self, flow: Flow, interface: str, mac: str) -> None:
        """The same as a frame to the neighbour ``mac``: this namespace's rules do not see it."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as made:
            made.bind((interface, 0))
            own = made.getsockname()[4]
            made.send(bytes.fromhex(mac.replace(":", "")) + own[:6] + send.ETHER_TYPES[4] + send.packet(flow))

    def send_socket(self, flow: Flow) -> str:
        """The same by a socket, which stays open; the error that the call gave."""
        self.end()
        self._open = send.open_local(replace(flow, local=True))
        if flow.proto == "tcp":  # gone with one RST, and never heard of again
            self._open.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return send.send_local(flow, self._open)

    def go_on(self, flow: Flow) -> str:
        """The next packet of that socket's connection; what hinders it, "" for nothing."""
        assert self._open is not None
        deadline = time.monotonic() + CONNECT_S
        while True:
            try:
                if flow.proto == "tcp":
                    self._open.send(b"room")
                else:
                    send.heard_error(self._open)
                    send.send_local(flow, self._open)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOTCONN) and time.monotonic() < deadline:
                    time.sleep(0.002)
                    continue
                return error.strerror or str(error)
            return ""

    def end(self) -> None:
        """Close the socket."""
        if self._open is not None:
            self._open.close()
            self._open = None

    # A node's part

    def start_watching(self) -> None:
        """Be there for what `judge_watch.Watch` can be asked."""
        self.watching = Watch()

    def stop_watching(self) -> None:
        """Leave the node as it was."""
        if self.watching is not None:
            self.watching.close()
            self.watching = None

    def interfaces(self) -> dict[str, str]:
        """MAC addresses by interface."""
        found = {}
        for _, name in socket.if_nameindex():
            with open(f"/sys/class/net/{name}/address", encoding="ascii") as file:
                found[name] = file.read().strip()
        return found


def _accept(made: socket.socket) -> None:
    while True:
        opened, _ = made.accept()
        opened.close()


def _echo(made: socket.socket) -> None:
    while True:
        data, sender = made.recvfrom(2048)
        made.sendto(data, sender)


def serve() -> None:
    """Answer requests until the other side closes; then nothing of ours stays."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    post = Post()
    try:
        while True:
            try:
                name, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                owner = post if hasattr(post, name) else post.watching
                answer = ("value", getattr(owner, name)(*arguments))
            except RoomError as error:
                answer = ("error", error)
            except (OSError, ValueError, KeyError, AttributeError) as error:
                answer = ("error", RoomError(f"{name}: {type(error).__name__}: {error}"))
            pickle.dump(answer, answers)
            answers.flush()
    finally:
        post.stop_watching()
