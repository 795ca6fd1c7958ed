"""Sends one packet past real rules and reads what the kernel did with it: the evidence for a proof.

Edge.  The packet comes from where it really comes from: a process of the network namespace whose rules were walked, or
of the one that owns its source address.  Only that packet is traced, by an nftables table of our own that belongs to
the process that adds it: the kernel removes the table when that process ends, and it ends when this one goes away, so
no way out leaves anything behind.  No other table is touched.  The monitor is known to listen because it prints a
datagram of ours before the packet and another one after it.  A `Ground` is where all that happens: a sandbox, or a
cluster.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter import kernel_trace
from bookinfo_lab.netfilter.attempt import Attempt
from bookinfo_lab.netfilter.kernel_trace import FINISHED, LISTENING, Flow
from bookinfo_lab.netfilter.packet import Packet, socket_address
from bookinfo_lab.proving.program import Ended, Program

TABLE = "bookinfo-lab-trace"
PATIENCE_S = 0.3  # an answer takes microseconds; TCP sends again after a second
_CHOSEN = f" {TABLE}:traced:rule"
_NOT_OURS = "Operation not permitted"  # what the kernel says of a table that belongs to another process
_START_S, _STEP_S, _TURN_S = 10.0, 2.0, 5.0
_ARRIVAL_S = 0.2  # a packet is on its way between two namespaces for microseconds
SENDER = Path(__file__).with_name("send_packet.py")
_UNREACHABLE = ("Network is unreachable", "No route to host", "Cannot assign requested address", "Invalid argument")


class NotRun(Exception):
    """Why the packet was not sent."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose process sends the packet: where, as which user and with which mark, and what is to be said of it."""

    place: str
    uid: int | None
    gid: int | None
    mark: int
    note: str


class Ground(Protocol):
    """The network namespace whose rules were walked, and those that packets come to it from."""

    @property
    def name(self) -> str:
        """The place, as a learner names it."""
        ...

    def origin(self, packet: Packet) -> Origin:
        """Who sends the packet; raises `NotRun` where nobody can."""
        ...

    def sender(self, origin: Origin, order: str) -> AbstractContextManager[Program]:
        """SENDER with its one argument, running at the origin as root."""
        ...

    def running(self, argv: Sequence[str], *, ends_alone: bool = False) -> AbstractContextManager[Program]:
        """A program as root here as long as the block lasts; one that ``ends_alone`` is told to, and waited for."""
        ...

    def knocking(self) -> AbstractContextManager[Callable[[int], None]]:
        """What sends an empty datagram from here to a port of 127.0.0.1; nothing need arrive."""
        ...

    def output(self, argv: Sequence[str]) -> str:
        """What a program prints here as root; LabError where its status is not 0."""
        ...


def prove(ground: Ground, packet: Packet) -> Attempt:
    """Send ``packet`` past the ground's rules; what was done, and everything read of it.

    In a sandbox that takes some 100 ms, and 0.3 s more where nothing answers.  Where the packet cannot be sent or
    traced the attempt says why; nothing is raised.
    """
    started = time.monotonic()
    try:
        _check(packet)
        attempt = _run(ground, packet, ground.origin(packet))
    except NotRun as reason:
        attempt = Attempt(ground.name, not_run=str(reason))
    except (LabError, Ended, OSError) as error:
        attempt = Attempt(ground.name, not_run=f"it broke off: {error}")
    return replace(attempt, took_ms=round((time.monotonic() - started) * 1000, 1))


def _check(packet: Packet) -> None:
    if packet.ct_state not in ("new", "established"):
        raise NotRun(f"no socket sends a packet on purpose that is {packet.ct_state} to connection tracking")
    if packet.mark and not packet.local:
        raise NotRun(f"mark {packet.mark:#x} is a kernel's own note: no packet brings one in from outside")


def _run(ground: Ground, packet: Packet, origin: Origin) -> Attempt:
    with ExitStack() as stack:
        sender = stack.enter_context(ground.sender(origin, _order(packet, origin)))
        nft = stack.enter_context(ground.running(["nft", "--handle", "--interactive"], ends_alone=True))
        stack.callback(_quit, nft)
        knock = stack.enter_context(ground.knocking())
        rules = ground.output([saver(packet)])
        told = sender.line(_START_S)
        if "ready" not in told:
            why = told.get("failed", "its sender ended")
            raise NotRun(f"{origin.place} cannot send from {socket_address(packet.src, packet.sport)}: {why}")
        flow = _flow(packet, int(told["ready"]))
        order = _add(nft, flow, packet)
        # It asks the kernel for each rule it prints and ends where one has gone, so it starts when no other proof runs.
        monitor = stack.enter_context(ground.running(["xtables-monitor", "--trace"]))
        handles = ground.output(["nft", "--handle", "list", "ruleset"])
        _wait_until_listening(monitor, knock)
        sender.write("go\n")
        answer = str(sender.line(PATIENCE_S + _STEP_S).get("answer", "its sender ended"))
        _wait_until_read(monitor, knock)
        if answer in _UNREACHABLE and _CHOSEN not in monitor.text:
            raise NotRun(f"{origin.place} cannot send to {packet.dst}: {answer}")
        return Attempt(
            ground.name,
            notes=(origin.note, *_raw(told)),
            flow=flow,
            answer=answer,
            table=TABLE,
            ordered=order,
            trace=monitor.text,
            trace_errors=monitor.errors,
            rules=rules,
            handles=handles,
            conntrack=_conntrack(ground, flow),
        )


def _quit(nft: Program) -> None:
    with suppress(Ended, LabError, OSError):  # where it cannot be told, it ends because its input does
        nft.write("quit\n")


def _order(packet: Packet, origin: Origin) -> str:
    order = {
        "proto": packet.proto,
        "src": str(packet.src),
        "sport": packet.sport,
        "dst": str(packet.dst),
        "dport": packet.dport,
        "uid": origin.uid,
        "gid": origin.gid,
        "mark": origin.mark,
        "icmp_type": packet.icmp_type,
        "icmp_code": packet.icmp_code,
        "established": packet.ct_state == "established",
        "patience_s": PATIENCE_S,
    }
    return json.dumps(order)


def _raw(told: dict[str, Any]) -> tuple[str, ...]:
    return ("the packet was written by hand and sent through a raw socket",) if told["raw"] else ()


def _flow(packet: Packet, port: int) -> Flow:
    is_echo = packet.icmp_type in (8, 128)
    sport = port if packet.has_ports or is_echo else None
    return Flow(packet.proto, packet.src, sport, packet.dst, packet.dport, packet.icmp_type, packet.icmp_code)


def saver(packet: Packet) -> str:
    """The program that prints the rules which a packet meets."""
    return "iptables-nft-save" if packet.src.version == 4 else "ip6tables-nft-save"


def _add(nft: Program, flow: Flow, packet: Packet) -> str:
    """Add the table and wait until the kernel has it; the command.

    The kernel lets one process at a time have it: proofs in one network namespace wait for each other.
    """
    own = f"own-{secrets.token_hex(4)}"
    is_established = packet.ct_state == "established"
    order = kernel_trace.tracing_table(TABLE, own, flow, is_local=packet.local, is_established=is_established)
    asked = f"list chain inet {TABLE} {own}\n"  # nft repeats it among its errors where there is no such chain
    deadline = time.monotonic() + _TURN_S
    while own not in _said(nft, f"{order}\n{asked}", own, asked):
        why = nft.errors.rpartition(order)[0].rpartition("Error:")[2].strip()
        if _NOT_OURS not in why:
            raise NotRun(f"no trace can be asked for here: nft refused the table for it ({why})")
        if time.monotonic() > deadline:
            raise NotRun(f"another proof has been running in this network namespace for {_TURN_S:g} s; try again")
    return order


def _said(nft: Program, command: str, answer: str, refusal: str) -> str:
    """What nft has printed when it has answered a command, or refused it once more."""
    count = nft.errors.count(refusal) + 1
    nft.write(command)
    nft.hear(lambda text: answer in text or nft.errors.count(refusal) >= count, _START_S, lambda: None)
    return nft.text


def _wait_until_listening(monitor: Program, knock: Callable[[int], None]) -> None:
    monitor.hear(lambda text: f" {TABLE}:{LISTENING}:rule" in text, _START_S, lambda: knock(1))


def _wait_until_read(monitor: Program, knock: Callable[[int], None]) -> None:
    """Knock until a knock brings nothing new of the packet, and the packet has been seen or its time is over.

    A monitor that ended meanwhile, as an overrun one does, is left: the trace then lacks the last knock.
    """
    deadline = time.monotonic() + _ARRIVAL_S
    quiet = 0
    while quiet < 2:
        before = _others(monitor.text)
        if not _is_answered(monitor, knock):
            return
        is_new = _others(monitor.text) != before
        is_over = _CHOSEN in monitor.text or time.monotonic() > deadline
        quiet = quiet + 1 if is_over and not is_new else 0


def _is_answered(monitor: Program, knock: Callable[[int], None]) -> bool:
    """Whether the monitor prints one more knock after a knock."""
    event = f" {TABLE}:{FINISHED}:rule"
    wanted = monitor.text.count(event) + 1
    knock(2)
    try:
        monitor.hear(lambda text: text.count(event) >= wanted, _STEP_S)
    except Ended:
        return False
    return True


def _others(text: str) -> int:
    """How many events are not those of a knock."""
    return text.count(" TRACE: ") - text.count(f" {TABLE}:own-") - text.count(f" {TABLE}:{FINISHED}:")


def _conntrack(ground: Ground, flow: Flow) -> tuple[str, ...] | None:
    try:
        lines = ground.output(["cat", "/proc/net/nf_conntrack"]).splitlines()
    except LabError:
        return None  # a kernel built without it; `conntrack -L` may be absent too, and proves nothing that is needed
    return tuple(line for line in lines if _is_of(line, flow))


def _is_of(line: str, flow: Flow) -> bool:
    """Whether a conntrack line's original direction is this flow."""
    told: dict[str, str] = {}
    for word in line.split():
        name, equals, value = word.partition("=")
        if equals:
            told.setdefault(name, value)
    try:
        addresses = ip_address(told["src"]), ip_address(told["dst"])
    except (KeyError, ValueError):
        return False
    ends = (told.get("id"), None) if flow.dport is None else (told.get("sport"), told.get("dport"))
    wanted = tuple(None if port is None else str(port) for port in (flow.sport, flow.dport))
    return addresses == (flow.src, flow.dst) and ends == wanted and f" {flow.proto} " in f" {line} "
