"""The published port: a process with a listening socket copies connections to a target, with real sockets."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

SCRIPT = """
import socket, sys
from bookinfo_lab.sandbox import publish
publish.serve(socket.socket(fileno=int(sys.argv[1])), (sys.argv[2], int(sys.argv[3])))
"""
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER with zero seconds: close sends a reset


@contextmanager
def published(target: tuple[str, int]) -> Iterator[tuple[tuple[str, int], subprocess.Popen[bytes]]]:
    """The address of a socket that a publisher in a process of its own copies to ``target``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        command = [sys.executable, "-c", SCRIPT, str(listener.fileno()), *map(str, target)]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.PIPE)
    try:
        yield address, process
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, b"")


@contextmanager
def upstream(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A server that treats each connection by ``answer``, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:

        def converse(connection: socket.socket) -> None:
            with connection:
                answer(connection)

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                if stopped:
                    connection.close()
                    return
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

        stopped: list[bool] = []
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            stopped.append(True)
            with socket.create_connection(listener.getsockname()):
                thread.join()


def drained(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def echo_when_ended(connection: socket.socket) -> None:
    connection.sendall(drained(connection))


def test_a_half_closed_connection_still_brings_the_answer():
    body = os.urandom(3_000_000)
    with (
        upstream(echo_when_ended) as target,
        published(target) as (address, _),
        socket.create_connection(address, 10) as connection,
    ):
        sender = threading.Thread(target=lambda: (connection.sendall(body), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        got = drained(connection)
        sender.join()
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


def test_the_other_direction_goes_on_after_the_server_has_ended_its_own():
    seen: list[bytes] = []
    done = threading.Event()

    def speak_first(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        seen.append(drained(connection))
        done.set()

    with (
        upstream(speak_first) as target,
        published(target) as (address, _),
        socket.create_connection(address, 10) as connection,
    ):
        assert drained(connection) == b"bye"
        connection.sendall(b"still here")
        connection.shutdown(socket.SHUT_WR)
        assert done.wait(5)
    assert seen == [b"still here"]


def test_a_hundred_connections_at_once_do_not_mix():
    barrier = threading.Barrier(100)

    def echo(connection: socket.socket) -> None:
        while block := connection.recv(65536):
            connection.sendall(block)

    answers: dict[int, bytes] = {}

    def talk(number: int, address: tuple[str, int]) -> None:
        with socket.create_connection(address, 10) as connection:
            barrier.wait(10)  # all are open before the first byte goes
            connection.sendall(b"%d" % number)
            connection.shutdown(socket.SHUT_WR)
            answers[number] = drained(connection)

    with upstream(echo) as target, published(target) as (address, _):
        threads = [threading.Thread(target=talk, args=(number, address)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: b"%d" % number for number in range(100)}


def test_a_refusing_target_closes_the_connection_and_the_next_one_is_served():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = closed.getsockname()
        with published(target) as (address, process):
            for _ in range(3):
                with socket.create_connection(address, 5) as connection:
                    assert drained(connection) == b""
            closed.listen()
            with socket.create_connection(address, 5) as connection:
                peer, _ = closed.accept()
                peer.sendall(b"now")
                peer.close()
                assert drained(connection) == b"now"
            assert process.poll() is None


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_on_one_side_ends_the_other(who):
    ended = threading.Event()

    def reset_or_wait(connection: socket.socket) -> None:
        connection.recv(1)
        if who == "server":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return
        try:
            drained(connection)
        except ConnectionError:
            pass
        ended.set()

    with upstream(reset_or_wait) as target, published(target) as (address, process):
        connection = socket.create_connection(address, 5)
        connection.sendall(b"x")
        if who == "client":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
            assert ended.wait(5)
        else:
            try:
                assert drained(connection) == b""
            except ConnectionError:
                pass
            connection.close()
        assert process.poll() is None


def test_a_finished_connection_leaves_no_descriptor():
    with upstream(echo_when_ended) as target, published(target) as (address, process):

        def once() -> None:
            with socket.create_connection(address, 5) as connection:
                connection.sendall(b"x")
                connection.shutdown(socket.SHUT_WR)
                assert drained(connection) == b"x"

        def open_descriptors() -> int:
            return len(os.listdir(f"/proc/{process.pid}/fd"))

        once()
        first = open_descriptors()
        for _ in range(30):
            once()
        end = time.monotonic() + 5
        while open_descriptors() > first and time.monotonic() < end:
            time.sleep(0.01)
        assert open_descriptors() <= first


def test_sigterm_ends_it_at_once_with_a_connection_open():
    with (
        upstream(echo_when_ended) as target,
        published(target) as (address, process),
        socket.create_connection(address, 5) as connection,
    ):
        connection.sendall(b"x")
        while len(os.listdir(f"/proc/{process.pid}/task")) < 3:
            time.sleep(0.002)
        began = time.monotonic()
        process.terminate()
        assert process.wait(5) == 0
        assert time.monotonic() - began < 0.5
