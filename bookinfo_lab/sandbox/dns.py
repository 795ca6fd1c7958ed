"""The DNS server behind the sandbox's kube-dns Service: a Zone served over UDP and TCP.

Edge: sockets, in the network namespace of the caller, which is a process of its own.  What is asked is answered
by `zone.lookup`, put on the wire by `dns_wire`, and told in one line a query as CoreDNS' log plugin prints it.
dnslib is imported when the server starts: whoever forks it must stay small.
"""

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bookinfo_lab.sandbox.zone import Zone, zone

if TYPE_CHECKING:
    from bookinfo_lab.sandbox.dns_wire import Exchange

_TCP_IDLE_S = 10.0


def serve_forever(source: Zone | Callable[[], Zone], host: str = "0.0.0.0", port: int = 53) -> None:
    """Answer queries at ``host:port`` until SIGTERM.  Never returns; OSError where the port cannot be had.

    ``source`` may be a function that gives the Zone as it is now (`following`).
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # also as process 1 of a PID namespace
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `following` looks at its file by itself
    with bound(host, port, socket.SOCK_DGRAM) as udp, bound(host, port, socket.SOCK_STREAM) as tcp:
        serve(source, udp, tcp)


def following(path: str, first: Zone) -> Callable[[], Zone]:
    """A function that gives the Zone of the API objects in the JSON file ``path``, ``first`` until it is there.

    The file is a list and is replaced by renaming, as the proxies' configurations are; it is read again when it
    is another file than last time.  One that cannot be read changes nothing and is told in the log.
    """
    lock = threading.Lock()
    seen: tuple[int, int] | None = None
    current = first

    def now() -> Zone:
        nonlocal seen, current
        with lock:
            try:
                status = os.stat(path)
                version = (status.st_ino, status.st_mtime_ns)
                if version != seen:
                    seen = version
                    with open(path, encoding="utf-8") as file:
                        objects = json.load(file)
                    current = zone(objects, first.domain, current.serial + 1)
            except FileNotFoundError:
                pass
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                _log(f"[ERROR] {path}: {error!r}; the names stay as they were")
            return current

    return now


def bound(host: str, port: int, kind: int) -> socket.socket:
    """An IPv4 socket of ``kind`` at ``host:port``; a TCP one listens."""
    made = socket.socket(socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
    except OSError:
        made.close()
        raise
    return made


def serve(source: Zone | Callable[[], Zone], udp: socket.socket, tcp: socket.socket) -> None:
    """Answer on two bound sockets until the UDP one is closed."""
    from bookinfo_lab.sandbox.dns_wire import exchange_of

    current: Callable[[], Zone] = (lambda: source) if isinstance(source, Zone) else source
    threading.Thread(target=_accept, args=(current, tcp), daemon=True).start()
    while udp.fileno() != -1:
        try:
            query, peer = udp.recvfrom(65535)
        except OSError as error:
            if udp.fileno() != -1:
                _log(f"[ERROR] udp: {error.strerror}")
            continue
        began = time.monotonic()
        exchange = exchange_of(query, current(), "udp")
        if exchange is None:
            continue
        try:
            udp.sendto(exchange.reply, peer)
        except OSError as error:
            _log(f"[ERROR] udp to {peer[0]}:{peer[1]}: {error.strerror}")
        _log_query(exchange, peer, began)


def _accept(current: Callable[[], Zone], tcp: socket.socket) -> None:
    while tcp.fileno() != -1:
        try:
            connection, peer = tcp.accept()
        except OSError as error:
            if tcp.fileno() != -1:
                _log(f"[ERROR] tcp: {error.strerror}")
                time.sleep(0.1)  # out of file descriptors: the next accept would fail at once, and again
            continue
        try:
            threading.Thread(target=_converse, args=(current, connection, peer), daemon=True).start()
        except RuntimeError:  # no more threads
            connection.close()


def _converse(current: Callable[[], Zone], connection: socket.socket, peer: tuple[str, int]) -> None:
    """Answer the queries of one TCP connection (RFC 7766: a length of two bytes before each message)."""
    from bookinfo_lab.sandbox.dns_wire import exchange_of

    with connection, connection.makefile("rb") as stream:
        connection.settimeout(_TCP_IDLE_S)
        try:
            while len(prefix := stream.read(2)) == 2:
                (length,) = struct.unpack("!H", prefix)
                query = stream.read(length)
                began = time.monotonic()
                exchange = exchange_of(query, current(), "tcp")
                if len(query) < length or exchange is None:
                    return
                connection.sendall(struct.pack("!H", len(exchange.reply)) + exchange.reply)
                _log_query(exchange, peer, began)
        except OSError:
            return  # the peer hung up or stayed silent too long


def _log_query(exchange: "Exchange", peer: tuple[str, int], began: float) -> None:
    _log(f"[INFO] {peer[0]}:{peer[1]} - {exchange.asked} {exchange.outcome} {time.monotonic() - began:.9f}s")


def _log(line: str) -> None:
    try:
        os.write(1, (line + "\n").encode("utf-8", "replace"))
    except OSError:
        return  # a log that cannot be written must not cost the answer
