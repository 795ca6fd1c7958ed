"""A private room with a Linux router in it: load rules, send a packet, learn what the kernel did with it.

    with Room() as room:
        room.load("*filter\\n:FORWARD DROP [0:0]\\nCOMMIT\\n")
        room.send(Flow("10.1.0.2", "10.2.0.2", 80)).verdict          # "dropped"

The oracle of the walk: it shares no code with the package.  It needs root, or user namespaces; nothing outside the room
changes, and it is gone when the process that made it ends, on SIGKILL too.  `kernel.wiring` has its addresses.
"""

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from kernel.flow import Direction, Flow, Observation, RoomError

_FOLDER = str(Path(__file__).resolve().parents[1])


class Room:
    """Made once, used by one thread.

    Raises `RoomError` with the tool's own words where this machine cannot make it.
    """

    def __init__(self) -> None:
        path = ":".join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": _FOLDER, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*_enter(environment), sys.executable, "-m", "kernel.worker", str(os.getpid())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/", bufsize=-1
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def load(self, text: str, family: int = 4) -> None:
        """Replace all of the family's rules by ``text``, as iptables-save prints it; forget all connections.

        Rules of the other family stay.  Raises `LoadError` with what iptables-nft-restore said.
        """
        self._ask("load", text, family)

    def send(self, flow: Flow, direction: Direction = "first") -> Observation:
        """Send the flow's packet and observe it; connections are forgotten afterwards.

        ``first``: the first packet of a new connection.  ``established``: the exchange is begun and answered, unseen,
        and the next packet of the same direction is observed.  ``reply``: the answer is observed.  Raises `Refused`
        where it cannot be sent, or where the connection that is asked for does not come about.
        """
        return cast(Observation, self._ask("send", flow, direction))

    def send_all(self, flows: Sequence[Flow]) -> list[Observation]:
        """`send` for each of them, in order, without a round trip to the room between."""
        return cast(list[Observation], self._ask("send_all", list(flows)))

    def frequencies(self, flow: Flow, count: int) -> Counter[tuple[str, int]]:
        """Open ``count`` new connections like ``flow``; how many packets reached each final (address, port).

        Packets that were dropped are in no entry: compare the total with ``count``.  For tcp, udp and sctp.
        """
        return cast(Counter[tuple[str, int]], self._ask("frequencies", flow, count))

    def flush(self) -> None:
        """Delete all conntrack entries."""
        self._ask("flush")

    def run(self, *command: str, given: str = "") -> str:
        """Run a tool in the device under test (``ip -j addr``, ``ip route add …``); what it printed."""
        return cast(str, self._ask("run", list(command), given))

    def sysctl(self, name: str, value: str) -> None:
        """Set ``net.ipv4.conf.all.route_localnet`` and the like in the device under test."""
        self._ask("sysctl", name, value)

    def listen(self, port: int, proto: str = "tcp", address: str = "0.0.0.0", *, transparent: bool = False) -> None:
        """A socket that listens in the device under test, until `unlisten`; ``transparent`` for TPROXY."""
        self._ask("listen", port, proto, address, transparent)

    def unlisten(self) -> None:
        """Close all sockets that `listen` opened."""
        self._ask("unlisten")

    def maps(self, uid: int, gid: int = 0) -> bool:
        """Whether a local flow can be sent as this user and group, and an owner match can name them."""
        return cast(bool, self._ask("maps", uid, gid))

    def shrink_trace_buffer(self, length_bytes: int) -> None:
        """Make the trace overrun on purpose; the room is of no other use afterwards."""
        self._ask("shrink_trace_buffer", length_bytes)

    def close(self) -> None:
        """End the room; may be called again."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # it has gone already
                    pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._process.pid

    def _ask(self, name: str, *args: Any) -> Any:
        assert self._process.stdin is not None
        try:
            pickle.dump((name, args, {}), self._process.stdin)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise RoomError("the room is closed") from None
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            kind, value = pickle.load(self._process.stdout)
        except EOFError:
            raise RoomError(f"the room ended with status {self._process.wait()}") from None
        if kind == "error":
            raise value
        return value


def _enter(environment: dict[str, str]) -> list[str]:
    """How to get a network namespace of one's own here: as root, with a range of users mapped, or with one."""
    if os.geteuid() == 0:
        return ["unshare", "--net"]
    ranged = ["unshare", "--map-root-user", "--map-auto", "--net"]
    tried = subprocess.run([*ranged, "true"], capture_output=True, env=environment, check=False)
    return ranged if tried.returncode == 0 else ["unshare", "--map-root-user", "--net"]
