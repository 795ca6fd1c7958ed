"""The front door on the learner's own machine: copies connections from a host socket to the sandbox.

Edge: sockets.  The process has a listening socket of the host's network namespace and lives in the client's, so
what it opens itself starts there: the sandbox sees the client ask.  Bytes are copied both ways unread; the end of
one direction is passed on and the other goes on; where the target cannot be reached the connection is closed.
"""

import os
import signal
import socket
import threading
import time
from contextlib import suppress

CONNECT_S = 5.0
_BLOCK_BYTES = 65536
_THREAD_STACK_BYTES = 256 * 1024


def serve(listener: socket.socket, target: tuple[str, int]) -> None:
    """Copy every connection that ``listener`` accepts to ``target`` (address, port) until SIGTERM.

    Never returns; to be called in the main thread of a process of its own.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # also as process 1 of a PID namespace
    threading.stack_size(_THREAD_STACK_BYTES)
    listener.settimeout(None)
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            time.sleep(0.1)  # out of file descriptors: the next accept would fail at once, and again
            continue
        try:
            threading.Thread(target=_relay, args=(client, target), daemon=True).start()
        except RuntimeError:  # no more threads
            client.close()


def _relay(client: socket.socket, target: tuple[str, int]) -> None:
    with client:
        try:
            upstream = socket.create_connection(target, CONNECT_S)
        except OSError:
            return
        with upstream:
            upstream.settimeout(None)
            for side in (client, upstream):
                with suppress(OSError):  # a peer that is gone already is noticed by the copying
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                back = threading.Thread(target=_copy, args=(upstream, client), daemon=True)
                back.start()
            except RuntimeError:  # no more threads
                return
            _copy(client, upstream)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy until ``source`` ends, then end ``sink``'s direction; a broken connection ends both."""
    try:
        while block := source.recv(_BLOCK_BYTES):
            sink.sendall(block)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
