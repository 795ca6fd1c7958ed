"""A node's or a pod's network namespace of a cluster as the ground of a proof.

Edge.  `proving` says what a proof is.  Every program runs in a container of the lab's own, which needs leave, and so
does the nftables table that asks for the trace.  A program ends with its connection: each reads its standard input, or
has a shell beside it that does.
"""

import queue
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bookinfo_lab import proving
from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.kube.places import PROXY_CONTAINERS, Place
from bookinfo_lab.netfilter.attempt import Attempt
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.proving import SENDER, NotRun, Origin
from bookinfo_lab.proving.program import Ended, Program
from bookinfo_lab.sources.cluster import sockets, streams
from bookinfo_lab.sources.cluster.api import Api, Refused
from bookinfo_lab.sources.cluster.guests import NotAllowed
from bookinfo_lab.sources.cluster.streams import NoSuchProgram, Stream

Where = tuple[str, str, str]
PROXY_UID = 1337  # Envoy's, where the installation gives it no other (OpenShift may)
_END_S = 3.0
_PYTHON = ("python3", "-I", "-S", "-u", "-c")
_KNOCKER = """import socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in sys.stdin:
    try:
        own.sendto(b"", ("127.0.0.1", int(port)))
    except PermissionError:
        pass
"""


class Talking(Program):
    """A program at the other end of an exec stream; a thread reads it."""

    nudge_s = 0.05

    def __init__(self, name: str, stream: Stream) -> None:
        super().__init__(name)
        self._stream, self._said = stream, bytearray()
        self._parts: queue.Queue[bytes | None] = queue.Queue()
        self._fault: LabError | None = None
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)
        self._thread.start()

    @property
    def errors(self) -> str:
        """Everything on its standard error so far."""
        return bytes(self._said).decode("utf-8", "replace")

    def write(self, text: str) -> None:
        """Give it input; `Ended` where it reads no more."""
        if self._stream.status is not None:
            raise self._ended()
        try:
            self._stream.write(text.encode())
        except sockets.LOST as error:
            raise Ended(f"{self._name}: the connection was lost: {error}") from None

    def receive(self, seconds: float) -> bytes | None:
        """What it printed next, None where that is nothing within the time; `Ended` where it has ended."""
        try:
            part = self._parts.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return None
        if part is None:
            self._parts.put(None)
            raise self._ended()
        return part

    def wait(self, seconds: float) -> None:
        """Until it has ended, or the time is over."""
        self._thread.join(seconds)

    def _read(self) -> None:
        try:
            for channel, data in self._stream.frames():
                if channel == streams.STDOUT:
                    self._parts.put(data)
                else:
                    self._said += data
        except LabError as error:
            self._fault = error
        self._parts.put(None)

    def _ended(self) -> Ended:
        return Ended(str(self._fault) if self._fault else f"{self._name} ended: {self.errors.strip()}")


@dataclass(frozen=True, slots=True)
class Ground:
    """``place`` and its guest; ``guest`` gives that of another place, ``pods`` and ``nodes`` say who has an address."""

    api: Api
    place: Place
    guest: Callable[[Place], Where]
    pods: Sequence[dict[str, Any]]
    nodes: Sequence[dict[str, Any]]

    @property
    def name(self) -> str:
        """The place, as a learner names it."""
        return str(self.place)

    def origin(self, packet: Packet) -> Origin:
        """Who sends the packet, once everything that it needs is there; raises `NotRun` where nobody can."""
        try:
            self.guest(self.place)
            origin = self._origin(packet)
            self.guest(self._named(origin.place))
        except (NotAllowed, Refused) as refusal:
            raise NotRun(str(refusal)) from None
        return origin

    def sender(self, origin: Origin, order: str) -> AbstractContextManager[Program]:
        """SENDER with its one argument, running at the origin as root."""
        argv = [*_PYTHON, SENDER.read_text(encoding="utf-8"), order]
        return self._talking(self.guest(self._named(origin.place)), argv)

    @contextmanager
    def running(self, argv: Sequence[str], *, ends_alone: bool = False) -> Iterator[Program]:
        """A program as root here as long as the block lasts; one that ``ends_alone`` is told to, and waited for."""
        words = argv if ends_alone else ["sh", "-c", f"{shlex.join(argv)} & p=$!; read _; kill $p; wait $p"]
        with self._talking(self.guest(self.place), words) as program:
            try:
                yield program
            finally:
                if not ends_alone:
                    with suppress(Ended):
                        program.write("\n")
                program.wait(_END_S)

    @contextmanager
    def knocking(self) -> Iterator[Callable[[int], None]]:
        """What sends an empty datagram from here to a port of 127.0.0.1; nothing need arrive."""
        with self._talking(self.guest(self.place), [*_PYTHON, _KNOCKER]) as program:
            yield lambda port: program.write(f"{port}\n")

    def output(self, argv: Sequence[str]) -> str:
        """What a program prints here as root; LabError where its status is not 0."""
        done = streams.run(self.api, *self.guest(self.place), argv)
        if done.status:
            raise SourceError(" ".join(argv), done.status, done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace")

    @contextmanager
    def _talking(self, where: Where, argv: Sequence[str]) -> Iterator[Talking]:
        try:
            stream = streams.opened(self.api, *where, argv, stdin=True)
        except NoSuchProgram as missing:
            raise NotRun(str(missing)) from None
        try:
            yield Talking(argv[0], stream)
        finally:
            stream.close()

    def _origin(self, packet: Packet) -> Origin:
        if packet.local:
            gid = packet.uid if packet.gid is None else packet.gid
            shown = "0 (the walk names none)" if packet.uid is None else str(packet.uid)
            note = f"sent from {self.place} as uid {shown}, gid {gid or 0}"
            return Origin(self.name, packet.uid, gid, packet.mark, note)
        if packet.iif == "lo":
            return Origin(self.name, None, None, 0, f"sent from {self.place} itself, by lo")
        pod, owner = self._owner(str(packet.src))
        if owner is None:
            raise NotRun(f"{packet.src} is no address of a pod or a node that is seen here, so nobody can send from it")
        if str(owner) == self.name:
            raise NotRun(
                f"{packet.src} is {self.place}'s own address, so its packets do not come in there: walk it as local"
            )
        note = f"sent from {owner}, which has the source address"
        if pod is None or not _is_intercepted(pod):
            return Origin(str(owner), None, None, 0, note)
        # The pod's own rules would catch an application's packet; the proxy's they let out as it is.
        how = f"as its proxy (uid {PROXY_UID}), whose packets its own rules leave alone"
        return Origin(str(owner), PROXY_UID, PROXY_UID, 0, f"{note}, {how}")

    def _owner(self, address: str) -> tuple[dict[str, Any] | None, Place | None]:
        for pod in self.pods:
            status = pod.get("status") or {}
            is_there = status.get("phase") == "Running" and not pod["spec"].get("hostNetwork")
            own = [item.get("ip") for item in status.get("podIPs") or ()]
            if is_there and address in (status.get("podIP"), *own):
                return pod, Place("pod", pod["metadata"]["namespace"], pod["metadata"]["name"], "")
        for node in self.nodes:
            if address in [item["address"] for item in node["status"].get("addresses") or ()]:
                return None, Place("node", "", node["metadata"]["name"], "")
        return None, None

    def _named(self, name: str) -> Place:
        if name == self.name:
            return self.place
        kind, _, rest = name.partition("/")
        return Place("node", "", rest, "") if kind == "node" else Place("pod", kind, rest, "")


def prove(ground: Ground, packet: Packet) -> Attempt:
    """Send ``packet`` past the rules of the ground (`proving.prove`)."""
    return proving.prove(ground, packet)


def _is_intercepted(pod: dict[str, Any]) -> bool:
    """Whether the pod has a sidecar, whose rules catch what its application sends."""
    spec = pod["spec"]
    named = [item["name"] for item in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]]
    return PROXY_CONTAINERS[0] in named and len(spec["containers"]) + len(spec.get("initContainers") or ()) > 1
