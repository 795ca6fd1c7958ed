"""A sandbox as the ground of a proof: who sends which packet in it, and its programs.

Edge.  `proving` says what a proof is; the sandbox ends every program of it when this process goes away.
"""

import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from bookinfo_lab import proving
from bookinfo_lab.errors import SourceError
from bookinfo_lab.netfilter.attempt import Attempt
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.proving import SENDER, NotRun, Origin
from bookinfo_lab.proving.program import Program
from bookinfo_lab.sandbox import Sandbox, search_path, topology
from bookinfo_lab.sandbox.beside import running
from bookinfo_lab.sandbox.targets import Target
from bookinfo_lab.sandbox.topology import PROXY_UID

_PROGRAMS = {"nft": "nftables", "xtables-monitor": "iptables"}


def prove(mesh: Sandbox, target: Target, packet: Packet) -> Attempt:
    """Send ``packet`` past the rules of the target's network namespace (`proving.prove`)."""
    return proving.prove(_Ground(mesh, target), packet)


@dataclass(frozen=True, slots=True)
class _Ground:
    mesh: Sandbox
    target: Target

    @property
    def name(self) -> str:
        return str(self.target)

    def sender(self, origin: Origin, order: str) -> AbstractContextManager[Program]:
        every = [self.target, *self.mesh.targets()]
        place = next(item for item in every if str(item) == origin.place)
        return running(self.mesh, place, ["python", "-I", "-S", str(SENDER), order])

    def running(self, argv: Sequence[str], *, ends_alone: bool = False) -> AbstractContextManager[Program]:
        return running(self.mesh, self.target, argv, ends_alone=ends_alone)

    @contextmanager
    def knocking(self) -> Iterator[Callable[[int], None]]:
        with self.mesh.open_socket(self.target, socket.SOCK_DGRAM) as opened:

            def knock(port: int) -> None:
                try:
                    opened.sendto(b"", ("127.0.0.1", port))
                except PermissionError:
                    pass  # our own rule dropped it, as it should: being traced is all it is for

            yield knock

    def output(self, argv: Sequence[str]) -> str:
        done = self.mesh.run(self.target, argv, uid=0)
        if done.returncode:
            raise SourceError(" ".join(argv), done.returncode, done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace")

    def origin(self, packet: Packet) -> Origin:
        for program, package in _PROGRAMS.items():
            if shutil.which(program, path=search_path()) is None:
                raise NotRun(f"{program} is not installed on this machine; run: sudo apt-get install {package}")
        if packet.local:
            return self._local(packet)
        if packet.iif == "lo":
            return Origin(self.name, None, None, 0, f"sent from {self.target} itself, by lo")
        owner, pod = self._owner(str(packet.src))
        if owner is None:
            raise NotRun(f"{packet.src} is nobody's address in this sandbox, so nobody can send from it")
        if str(owner) == self.name:
            raise NotRun(
                f"{packet.src} is {self.target}'s own address, so its packets do not come in there: walk it as local"
            )
        note = f"sent from {owner}, which has the source address"
        if pod is None or not topology.is_intercepted(pod):
            return Origin(str(owner), None, None, 0, note)
        # The pod's own rules would catch an application's packet; the proxy's they let out as it is.
        uid, mark = (None, PROXY_UID) if self.mesh.users == "single" else (PROXY_UID, 0)
        how = f"mark {mark:#x}" if mark else f"uid {uid}"
        return Origin(
            str(owner), uid, uid, mark, f"{note}, as its proxy ({how}), whose packets its own rules leave alone"
        )

    def _local(self, packet: Packet) -> Origin:
        uid, gid = packet.uid, packet.uid if packet.gid is None else packet.gid
        if self.mesh.users != "single" or not (uid or gid):
            shown = "0 (the walk names none)" if uid is None else str(uid)
            return Origin(self.name, uid, gid, packet.mark, f"sent from {self.target} as uid {shown}, gid {gid or 0}")
        named = f"uid {uid}, gid {gid}" if uid is not None else f"gid {gid}"
        if "-m owner" in self.output([proving.saver(packet)]):
            raise NotRun(f"{named} does not exist in this sandbox, which maps root alone, and its rules ask for owners")
        why = f"{named} does not exist in this sandbox, and no rule here asks for an owner"
        note = f"sent from {self.target} as root: {why}"
        return Origin(self.name, None, None, packet.mark, note)

    def _owner(self, address: str) -> tuple[Target | None, dict[str, Any] | None]:
        """Whose address it is: a target, and its Pod where it is one."""
        plan = self.mesh.topology()
        names = {host.address: ("node", "", host.name) for host in plan.hosts} | {plan.client: ("client", "", "client")}
        every = self.mesh.objects()
        pod = next((item for item in every if item["kind"] == "Pod" and item["status"]["podIP"] == address), None)
        if pod is not None:
            names[address] = ("pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        for item in self.mesh.targets():
            if (item.kind, item.namespace, item.name) == names.get(address):
                return item, pod
        return None, None
