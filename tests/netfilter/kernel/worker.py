"""The room's own process: it lives in the device under test's network namespace and does what it is asked.

Edge; started by `kernel.room` as ``python -m kernel.worker``, never by hand.  Requests and answers are pickles on
stdin and stdout.  It ends with its parent, however that ends, and the namespaces end with it.
"""

import os
import pickle
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from kernel import exchange, frames, netlink, rules, send, watch, wiring
from kernel.flow import Flow, Observation, Refused, RoomError, Tuple
from kernel.observe import Heard, observation

CT_DELETE = 2
TRANSACTION_LINES = 100  # in a user namespace the kernel refuses more than about 230 rules at a time
BURST = 50
BARRIER_SECONDS = 5.0


class Bench:
    """Everything that the room can be asked, as methods."""

    def __init__(self) -> None:
        self.wires = wiring.wire()
        watch.nft(watch.RULES)
        self.control = netlink.Netlink(4 << 20)
        self.monitor = watch.Monitor()
        self.tracked = watch.Connections()
        self.sender = send.Sender()
        self.numbers: dict[int, rules.Numbers] = {4: {}, 6: {}}
        self.listeners: list[socket.socket] = []
        self.limit = 0 if _is_machines_root() else TRANSACTION_LINES
        # One CPU: a packet then meets the others in the order in which they were sent, and the barrier proves arrival.
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[os.getpid() % len(cpus)]})
        self.settle()

    def load(self, text: str, family: int = 4) -> None:
        rules.load(self.control, text, family, self.limit)
        self.numbers[family] = rules.numbers(self.control, family)
        self.flush()

    def flush(self) -> None:
        self.control.request(netlink.CTNETLINK, CT_DELETE, 0)

    def run(self, command: list[str], given: str = "") -> str:
        return wiring.run(command, given)

    def sysctl(self, name: str, value: str) -> None:
        wiring.write_sysctl(name, value)

    def send(self, flow: Flow, direction: str = "first") -> Observation:
        flow = self.sender.with_port(flow)
        try:
            if direction != "first":
                return exchange.observe(self, flow, direction)
            return self.first(flow)
        finally:
            self.flush()

    def send_all(self, flows: list[Flow]) -> list[Observation]:
        return [self.send(flow) for flow in flows]

    def first(self, flow: Flow) -> Observation:
        """The first packet of a connection; the flow has its port."""
        self.settle()
        if not flow.local:
            self.write(flow.iif, send.packet(flow))
            return self.observed(flow, self.settle(), send.shows(flow))
        with send.open_local(flow) as made:
            call_error = send.send_local(flow, made)
            heard = self.settle()
            heard = replace(heard, call_error=call_error, socket_error=send.heard_error(made))
            return self.observed(flow, heard, send.shows(flow))

    def observed(self, flow: Flow, heard: Heard, wanted: Callable[[frames.Headers], bool] | None = None) -> Observation:
        return observation(flow, heard, self.numbers[send.version(flow)], self.wires.names, wanted)

    def is_answered(self, version: int, original: Tuple) -> bool:
        return watch.is_answered(self.control, version, original)

    def write(self, name: str, packet: bytes) -> None:
        """A packet on the cable to the interface ``name``."""
        send.write_frame(self.wires.taps[name], name, packet)

    def settle(self) -> Heard:
        """Wait until all that was sent has arrived wherever it goes, and take what there is to hear of it.

        The barrier is an ARP probe that the device answers by itself: it stands in the CPU's queues behind the packets
        sent before it and passes no rule, so once its answer is here, they and their answers have arrived.
        """
        trouble = "" if self._barrier() else "the device under test did not answer the barrier"
        events = self.monitor.read()
        if self.monitor.lost:
            trouble = "the trace overran its buffer"
        heard = {name: _frames(tap) for name, tap in self.wires.taps.items()}
        return Heard(events, heard, self.tracked.read(), trouble=trouble)

    def _barrier(self) -> bool:
        mac = b"\x02\x00\x00\x00\x09\x02"
        target = socket.inet_aton(wiring.BARRIER_ADDRESS)
        probe = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + bytes(4) + bytes(6) + target
        self.wires.barrier.send(b"\xff" * 6 + mac + b"\x08\x06" + probe)
        end = time.monotonic() + BARRIER_SECONDS
        while time.monotonic() < end:
            try:
                frame = self.wires.barrier.recv(2048)
            except BlockingIOError:
                select.select([self.wires.barrier], [], [], 0.5)
                continue
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02":
                return True
        return False

    def frequencies(self, flow: Flow, count: int) -> Counter[tuple[str, int]]:
        version = send.version(flow)
        self.settle()
        watch.nft(f"flush set inet {watch.TABLE} final{version}")
        self.monitor.wire.leave(watch.NFTRACE_GROUP)
        try:
            for start in range(0, count, BURST):
                self._burst(flow, min(BURST, count - start))
        finally:
            self.monitor.wire.join(watch.NFTRACE_GROUP)
            self.flush()
        return watch.counted(self.control, version)

    def _burst(self, flow: Flow, count: int) -> None:
        """New connections without a trace; the flow's own port is not used."""
        opened = []
        for _ in range(count):
            one = self.sender.with_port(replace(flow, sport=None))
            if one.local:
                opened.append(send.open_local(one))
                send.send_local(one, opened[-1])
            else:
                self.write(one.iif, send.packet(one))
        self.settle()
        for made in opened:
            made.close()

    def listen(self, port: int, proto: str = "tcp", address: str = "0.0.0.0", transparent: bool = False) -> None:
        self.listeners.append(exchange.listener(port, proto, address, transparent))

    def shrink_trace_buffer(self, length_bytes: int) -> None:
        self.monitor.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, length_bytes)

    def maps(self, uid: int, gid: int) -> bool:
        try:
            send.owned_socket(socket.AF_INET, socket.SOCK_DGRAM, 0, uid, gid).close()
        except Refused:
            return False
        return True

    def unlisten(self) -> None:
        while self.listeners:
            self.listeners.pop().close()


def _is_machines_root() -> bool:
    """Whether this user namespace is the machine's first one."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", str(2**32 - 1)] and os.geteuid() == 0


def _frames(tap: socket.socket) -> list[frames.Headers]:
    found: list[frames.Headers] = []
    while True:
        try:
            data = tap.recv(65536)
        except BlockingIOError:
            return found
        headers = frames.parse_packet(data[14:]) if data[12:14] in send.ETHER_TYPES.values() else None
        if headers is not None:
            found.append(headers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the other side closes."""
    try:
        bench = Bench()
    except (RoomError, OSError) as error:
        pickle.dump(("error", RoomError(str(error))), answers)
        answers.flush()
        return
    pickle.dump(("value", None), answers)
    answers.flush()
    while True:
        try:
            name, args, kwargs = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = ("value", getattr(bench, name)(*args, **kwargs))
        except RoomError as error:
            answer = ("error", error)
        except (OSError, ValueError, KeyError) as error:
            answer = ("error", RoomError(f"{name}: {type(error).__name__}: {error}"))
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    wiring.die_with_parent(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)
